"""Store a trained transcriber for shipping.

python recipes/transcribe/release.py runs/transcribe/last.safetensors vcae/weights/transcriber.safetensors
"""

import sys
from pathlib import Path

from vcae.checkpoint import load_module, save_module
from vcae.config import to_dict
from vcae.files import hash_file
from vcae.model.transcriber import PART, transcriber_of

INFO = {
    "name": "transcriber",
    "author": "The vcae developers",
    "license": "CC BY 4.0 (weights); see the model card for the training data's licences",
    "training_data": "transcribed speech of LibriSpeech train-clean-100, CMU ARCTIC and speechocean762, 7.1 hours",
}


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    network, found = load_module(source, PART, transcriber_of)
    save_module(target, PART, network, to_dict(network.config), INFO | found.metadata["info"], half=True)
    target.with_suffix(".sha256").write_text(f"{hash_file(target)}  {target.name}\n")
    load_module(target, PART, transcriber_of)
    print(f"{target}: {target.stat().st_size} bytes, sha256 {hash_file(target)}")


if __name__ == "__main__":
    main()
