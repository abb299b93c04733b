"""Adapt the transcriber and the acoustic model to a checkpoint with another content encoder, by a linear map between the two latents.

python recipes/release/follow.py OLD NEW MANIFEST OUTPUT_DIR

OLD is the checkpoint that both were trained with, NEW the one to follow; recordings of the manifest's split `train` are encoded by both. The
map from the new latent to the old one becomes part of the transcriber's first layer, and that from the old to the new one of the acoustic
model's last layer. It prints how much of each latent's variance its map explains, on recordings that it was not fitted on.
"""

import csv
import random
import sys
from pathlib import Path

import torch
from torch import Tensor

from vcae.audio.io import read_sound, resample
from vcae.audio.mel import LogMel
from vcae.checkpoint import load, load_module
from vcae.model import acoustic, transcriber
from vcae.training.release import release_module

N_RECORDINGS = 400
LONGEST_S = 12.0
# Added to the diagonal of the latents' covariance.
RIDGE = 1e-3


@torch.inference_mode()
def encode_both(paths: list[Path], old: str, new: str) -> tuple[Tensor, Tensor]:
    """Return the old and the new latents (N, latent_dim) of recordings."""
    models = [load(name).autoencoder for name in (old, new)]
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for path in paths:
        sound = read_sound(path)
        for model, latents in zip(models, found, strict=True):
            mel = model.config.mel
            wav = torch.from_numpy(resample(sound.wav, sound.sample_rate, mel.sample_rate))
            latents.append(model.encode_latent(LogMel(mel)(wav[None, : int(LONGEST_S * mel.sample_rate)]))[0].T)
    return torch.cat(found[0]), torch.cat(found[1])


def fit(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return matrix (D, D) and offset (D,) with target = source @ matrix + offset, fitted on the first four fifths; print what the rest says."""
    n = len(source) * 4 // 5
    means = source[:n].mean(0), target[:n].mean(0)
    x, y = source[:n] - means[0], target[:n] - means[1]
    matrix = torch.linalg.solve(x.T @ x / n + RIDGE * torch.eye(x.shape[1]), x.T @ y / n)
    offset = means[1] - means[0] @ matrix
    left = target[n:] - source[n:] @ matrix - offset
    whole = target[n:].var()
    print(
        f"explained: {1 - float(left.var() / whole):.3f} (without a map {1 - float((target[n:] - source[n:]).var() / whole):.3f})"
    )
    return matrix, offset


@torch.no_grad()
def map_input(layer: torch.nn.Conv1d, matrix: Tensor, offset: Tensor) -> None:
    """Make a convolution of latents apply x @ matrix + offset first."""
    weight = layer.weight.clone()
    layer.weight.copy_(torch.einsum("okn,ik->oin", weight, matrix))
    layer.bias.add_(torch.einsum("okn,k->o", weight, offset))


@torch.no_grad()
def map_output(layer: torch.nn.Linear, matrix: Tensor, offset: Tensor) -> None:
    """Make a layer whose first outputs are a latent apply latent @ matrix + offset to it."""
    n = len(offset)
    layer.weight[:n] = matrix.T @ layer.weight[:n]
    layer.bias[:n] = layer.bias[:n] @ matrix + offset


def main() -> None:
    old, new, manifest, output = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    with open(manifest, encoding="utf-8", newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if row["split"] == "train"]
    random.Random(0).shuffle(rows)
    before, after = encode_both([manifest.parent / row["path"] for row in rows[:N_RECORDINGS]], old, new)
    output.mkdir(parents=True, exist_ok=True)

    reader, found = load_module("transcriber", transcriber.PART, transcriber.transcriber_of)
    matrix, offset = fit(after, before)
    map_input(reader.input, matrix, offset)
    print(release_module(output / "transcriber.safetensors", transcriber.PART, reader, found.metadata["info"]))

    speaker, found = load_module("acoustic", acoustic.PART, acoustic.acoustic_of)
    matrix, offset = fit(before, after)
    map_output(speaker.output, matrix, offset)
    print(release_module(output / "acoustic.safetensors", acoustic.PART, speaker, found.metadata["info"], eight_bit=True))


if __name__ == "__main__":
    main()
