"""Distortion and rate of codes of a mel: plain and variational autoencoders, and principal components."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from settings import LadderRecipe
from torch import Tensor

from vcae.audio.frames import active_frames
from vcae.audio.mel import LogMel
from vcae.model.autoencoder import Autoencoder
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.trainer import VALIDATION_INDEX

DB = 20 / math.log(10)
# Function from a mel (1, n_mels, T) to its copy of the same shape.
Copy = Callable[[Tensor], Tensor]


def squared_errors(copy: Copy, mels: Iterable[Tensor]) -> np.ndarray:
    """Return for each mel (1, n_mels, T) the sum of its copy's squared errors in dB over active frames, and their number: (n, 2)."""
    found = []
    for mel in mels:
        error = (DB * (copy(mel) - mel)).square() * active_frames(mel)
        found.append((float(error.sum()), float(active_frames(mel).sum()) * mel.shape[1]))
    return np.array(found)


def rms_db(errors: np.ndarray) -> float:
    """Return the root mean squared error for a result of `squared_errors`."""
    return float(np.sqrt(errors[:, 0].sum() / errors[:, 1].sum()))


def decode_mean(model: Autoencoder) -> Copy:
    """Return the copying function of an autoencoder; a variational one decodes the mean."""

    @torch.inference_mode()
    def copy(mel: Tensor) -> Tensor:
        return model.decode(model.encode_content(mel), torch.zeros_like(mel[:, 0]), None)

    return copy


def decode_draw(model: Autoencoder, seed: int) -> Copy:
    """Return the copying function of a variational autoencoder that decodes a sample, to which its rate applies."""

    @torch.inference_mode()
    def copy(mel: Tensor) -> Tensor:
        torch.manual_seed(seed)
        return model.decode(model.encode_posterior(mel).sample(), torch.zeros_like(mel[:, 0]), None)

    return copy


@torch.inference_mode()
def rate(model: Autoencoder, mels: Sequence[Tensor]) -> float:
    """Return the KL divergence of a variational code from its prior over mels (1, n_mels, T), in bit/s."""
    c = model.config
    nats = sum(float(model.encode_posterior(mel).kl().sum()) for mel in mels)
    return nats / math.log(2) / (sum(mel.shape[-1] for mel in mels) / c.mel.frame_rate)


@dataclass(frozen=True)
class Components:
    """Principal components of stacked frames: the best linear code of each size by squared error.

    Attributes:
        mean: (stride * n_mels,).
        basis: (stride * n_mels, stride * n_mels), components as columns, the largest variance first.
        stride: Frames per step.
    """

    mean: Tensor
    basis: Tensor
    stride: int

    def copy(self, dim: int) -> Copy:
        """Return the copying function of the first `dim` components."""

        def through(mel: Tensor) -> Tensor:
            steps = stack(mel, self.stride) - self.mean
            made = steps @ self.basis[:, :dim] @ self.basis[:, :dim].T + self.mean
            return made.reshape(-1, mel.shape[1]).T[None, :, : mel.shape[-1]]

        return through


def stack(mel: Tensor, stride: int) -> Tensor:
    """Return stacks of `stride` frames of a mel (1, n_mels, T), padded by its last frame: (ceil(T / stride), stride * n_mels)."""
    rows = mel[0].T
    rows = torch.cat([rows, rows[-1:].expand(-len(rows) % stride, -1)])
    return rows.reshape(-1, stride * mel.shape[1])


def fit_components(mels: Iterable[Tensor], stride: int) -> Components:
    """Fit principal components to those steps of mels (1, n_mels, T) whose frames are all active."""
    steps = torch.cat([stack(mel, stride)[stack(active_frames(mel), stride).amin(dim=1) > 0] for mel in mels]).double()
    _, vectors = torch.linalg.eigh(torch.cov(steps.T))
    return Components(steps.mean(dim=0).float(), vectors.flip(1).float(), stride)


def training_mels(recipe: LadderRecipe) -> Iterable[Tensor]:
    """Yield mels (1, n_mels, T) of crops of the training data that were not used in a training step."""
    common = recipe.autoencoder
    log_mel = LogMel(common.model.mel)
    crops = CropDataset(SpeechCache(common.data.cache), common.data, recipe.seed)
    for n in range(recipe.pca_batches):
        yield from log_mel(crops[VALIDATION_INDEX + n]["wav"]).split(1)
