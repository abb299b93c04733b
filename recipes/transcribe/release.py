"""Store a trained transcriber for shipping.

python recipes/transcribe/release.py runs/transcribe/last.safetensors vcae/weights/transcriber.safetensors
"""

import sys
from pathlib import Path

from vcae.checkpoint import load_module
from vcae.model.transcriber import PART, transcriber_of
from vcae.training.release import release_module

INFO = {
    "name": "transcriber",
    "author": "The vcae developers",
    "license": "CC BY 4.0 (weights); see the model card for the training data's licences",
    "training_data": "transcribed speech of LibriSpeech train-clean-100, CMU ARCTIC and speechocean762, in part transcribed by Moonshine",
}


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    network, found = load_module(source, PART, transcriber_of)
    said = release_module(target, PART, network, INFO | found.metadata["info"])
    load_module(target, PART, transcriber_of)
    print(said)


if __name__ == "__main__":
    main()
