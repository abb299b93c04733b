"""Store a trained acoustic model for shipping.

python recipes/say/release.py runs/say/last.safetensors vcae/weights/acoustic.safetensors
"""

import sys
from pathlib import Path

from vcae.checkpoint import load_module
from vcae.model.acoustic import PART, acoustic_of
from vcae.training.release import release_module

INFO = {
    "name": "acoustic",
    "author": "The vcae developers",
    "license": "CC BY 4.0 (weights); see the model card for the training data's licences",
    "training_data": "transcribed speech of CMU ARCTIC bdl and LibriSpeech train-clean-100 (19, 26, 27), 2 hours",
}


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    network, found = load_module(source, PART, acoustic_of)
    said = release_module(target, PART, network, INFO | found.metadata["info"], eight_bit=True)
    load_module(target, PART, acoustic_of)
    print(said)


if __name__ == "__main__":
    main()
