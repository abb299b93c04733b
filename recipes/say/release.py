"""Store a trained acoustic model for shipping.

python recipes/say/release.py runs/say/last.safetensors vcae/weights/acoustic.safetensors
"""

import sys
from pathlib import Path

from vcae.checkpoint import load_module, save_module
from vcae.config import to_dict
from vcae.files import hash_file
from vcae.model.acoustic import PART, acoustic_of

INFO = {
    "name": "acoustic",
    "author": "The vcae developers",
    "license": "CC BY 4.0 (weights); see the model card for the training data's licences",
    "training_data": "transcribed speech of CMU ARCTIC bdl and LibriSpeech train-clean-100 (19, 26, 27), 2 hours",
}


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    network, found = load_module(source, PART, acoustic_of)
    save_module(target, PART, network, to_dict(network.config), INFO | found.metadata["info"], half=True, eight_bit=True)
    target.with_suffix(".sha256").write_text(f"{hash_file(target)}  {target.name}\n")
    load_module(target, PART, acoustic_of)
    print(f"{target}: {target.stat().st_size} bytes, sha256 {hash_file(target)}")


if __name__ == "__main__":
    main()
