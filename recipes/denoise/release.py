"""Store a trained denoiser for shipping: `python recipes/denoise/release.py runs/denoise/last.safetensors vcae/weights/denoiser.safetensors`."""

import sys
from pathlib import Path

from vcae.checkpoint import load_module, save_module
from vcae.config import to_dict
from vcae.files import hash_file
from vcae.model.denoiser import PART, denoiser_of

INFO = {
    "name": "denoiser",
    "author": "The vcae developers",
    "license": "CC BY 4.0 (weights); see the model card for the training data's licences",
    "training_data": "LibriSpeech train-clean-100 (251 readers), speechocean762 (128 adults), CMU ARCTIC (5 voices), Kathleen (1 voice); "
    "ESC-10, folds 1 to 4; the recordings of recipes/prepare/noises.csv; synthetic noises and rooms; a teacher, DeepFilterNet 3",
}


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    network, found = load_module(source, PART, denoiser_of)
    save_module(target, PART, network, to_dict(network.config), INFO | found.metadata["info"], half=True, eight_bit=True)
    target.with_suffix(".sha256").write_text(f"{hash_file(target)}  {target.name}\n")
    load_module(target, PART, denoiser_of)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, sha256 {hash_file(target)}")


if __name__ == "__main__":
    main()
