"""Make a trained codec ready for use: `python recipes/codec/release.py recipes/codec/conf/release.yaml [name=value ...]`."""

import logging
import sys

from vcae.config import CodecReleaseRecipe, load_config
from vcae.training.codec_release import release

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    release(load_config(CodecReleaseRecipe, sys.argv[1], sys.argv[2:]))
