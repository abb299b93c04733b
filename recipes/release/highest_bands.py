"""Let the highest mel bands that a decoder gives follow from those below, as they do in recordings.

python recipes/release/highest_bands.py CHECKPOINT MANIFEST OUTPUT

The networks that judge in the last rounds of recipes/conversion know little of what is above 7.5 kHz, so what conversions have there drifts: single
fricatives whistle. Recordings of the manifest's split `train` tell by linear regression how the highest bands depend on those below;
the regression becomes part of the decoder's last layer. It prints how much of their variance it explains, on recordings that it was not
fitted on.
"""

import argparse
import random
import sys
from pathlib import Path

import torch
from torch import Tensor

from vcae import checkpoint
from vcae.audio.io import read_sound, resample
from vcae.audio.mel import LogMel
from vcae.errors import CheckpointError, DataError, VcaeError
from vcae.model.autoencoder import Autoencoder
from vcae.training.cache import read_manifest

N_RECORDINGS = 600
LONGEST_S = 12.0
# Bands from here on follow; those from which they are predicted.
FIRST, PREDICTORS = 76, (56, 76)
# Added to the diagonal of the predictors' covariance.
RIDGE = 1e-3
# Frames this far below the loudest one of a recording, in nepers of mean band level, are not used.
QUIET = 5.0


@torch.inference_mode()
def read_bands(model: Autoencoder, paths: list[Path]) -> Tensor:
    """Return the normalised mels (N, n_mels) of the frames with sound."""
    log_mel, found = LogMel(model.config.mel), []
    for path in paths:
        sound = read_sound(path)
        wav = torch.from_numpy(resample(sound.wav, sound.sample_rate, model.config.mel.sample_rate))
        mel = log_mel(wav[None, : int(LONGEST_S * model.config.mel.sample_rate)])
        level = mel[0].mean(dim=0)
        found.append(model.normalize(mel)[0].T[level > level.max() - QUIET])
    return torch.cat(found)


def regress(bands: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights (highest, predictors) and offsets (highest,) that predict the highest bands of (N, n_mels)."""
    x, y = bands[:, slice(*PREDICTORS)].double(), bands[:, FIRST:].double()
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    covariance = a.T @ a / len(a) + RIDGE * torch.eye(a.shape[1], dtype=a.dtype)
    weights = torch.linalg.solve(covariance, a.T @ b / len(a)).T
    return weights, y.mean(dim=0) - weights @ x.mean(dim=0)


def explained(bands: Tensor, weights: Tensor, offsets: Tensor) -> float:
    """Return which part of the variance of the highest bands of (N, n_mels) is predicted."""
    y = bands[:, FIRST:].double()
    left = y - bands[:, slice(*PREDICTORS)].double() @ weights.T - offsets
    return float(1 - left.square().sum() / (y - y.mean(dim=0)).square().sum())


def fold(model: Autoencoder, weights: Tensor, offsets: Tensor) -> None:
    """Put the prediction in place of the rows of the decoder's last layer that give the highest bands."""
    layer = model.decoder.output
    rows, biases = layer.weight.detach().double(), layer.bias.detach().double()
    known = slice(*PREDICTORS)
    with torch.no_grad():
        layer.weight[FIRST:] = torch.einsum("kj,j...->k...", weights, rows[known]).float()
        layer.bias[FIRST:] = (weights @ biases[known] + offsets).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="with the autoencoder to change")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    try:
        found = checkpoint.load(args.checkpoint)
        if found.autoencoder is None:
            raise CheckpointError(f"{found.path} has no autoencoder; give a checkpoint that has one")
        paths = [row.path for row in read_manifest(args.manifest, "train")]
        if len(paths) <= N_RECORDINGS:
            raise DataError(
                f"{args.manifest} has {len(paths)} recordings of the split train; more than {N_RECORDINGS} are needed"
            )
    except VcaeError as error:
        sys.exit(f"error: {error}")
    random.Random(0).shuffle(paths)
    held = paths[N_RECORDINGS : N_RECORDINGS + N_RECORDINGS // 10]
    weights, offsets = regress(read_bands(found.autoencoder, paths[:N_RECORDINGS]))
    print(f"explained: {explained(read_bands(found.autoencoder, held), weights, offsets):.3f}")
    fold(found.autoencoder, weights, offsets)
    checkpoint.save(args.output, autoencoder=found.autoencoder, info=found.metadata["info"])


if __name__ == "__main__":
    main()
