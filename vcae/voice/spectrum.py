"""Linear map of spectra that gives conversions the mean and the covariance of a voice's recordings.

What is converted to a voice differs from its recordings by remains of the speakers that it comes from, and by what the decoder got wrong. Both
are measured on conversions of many sentences, and removed where they are the same in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vcae.audio.frames import active_frames

# Added to all variances, relative to their mean, so that directions that hardly vary are not stretched.
REGULARISATION = 0.03
# Fewest frames of a class (unvoiced, voiced) for a map, and for a distance.
MIN_FRAMES, MIN_COMPARED = 160, 40
N_CLASSES = 2


@dataclass(frozen=True)
class SpectrumMap:
    """Map of log-mel frames x to x @ weight + bias, for unvoiced (0) and voiced (1) frames.

    Attributes:
        weight: (2, n_mels, n_mels), symmetric.
        bias: (2, n_mels), natural log magnitude.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, mel: Tensor, f0: Tensor) -> Tensor:
        """Map a log-mel (1, n_mels, T) with F0 (1, T) in Hz, 0 where unvoiced."""
        frames = mel[0].T
        unvoiced, voiced = (frames @ weight + bias for weight, bias in zip(self.weight, self.bias, strict=True))
        return torch.where(f0[0, :, None] > 0, voiced, unvoiced).T[None]

    def to(self, device: torch.device) -> SpectrumMap:
        """Move it to a device."""
        return SpectrumMap(self.weight.to(device), self.bias.to(device))

    def scaled(self, strength: float) -> SpectrumMap:
        """Return the map between none (0) and this one (1)."""
        identity = torch.eye(self.weight.shape[-1], device=self.weight.device)
        return SpectrumMap(torch.lerp(identity.expand_as(self.weight), self.weight, strength), strength * self.bias)


@dataclass(frozen=True)
class Spectra:
    """Mean and covariance of active log-mel frames, unvoiced (0) and voiced (1) ones.

    Attributes:
        mean: (2, n_mels).
        covariance: (2, n_mels, n_mels).
        n: Frames of each class.
    """

    mean: Tensor
    covariance: Tensor
    n: tuple[int, int]

    @classmethod
    def measure(cls, mels: Sequence[Tensor], f0s: Sequence[Tensor]) -> Spectra:
        """Measure log-mels (1, n_mels, T) with F0 (1, T) in Hz, 0 where unvoiced; all frames have equal weights."""
        frames = torch.cat([mel[0].T for mel in mels]).double()
        active = torch.cat([active_frames(mel)[0, 0] > 0 for mel in mels])
        voiced = torch.cat([f0[0] > 0 for f0 in f0s])
        classes = [frames[active & (voiced == bool(kind))] for kind in range(N_CLASSES)]
        # A class without frames gets zeros, and is not used.
        enough = [x if len(x) > 1 else x.new_zeros(2, x.shape[1]) for x in classes]
        return cls(
            torch.stack([x.mean(0) for x in enough]),
            torch.stack([torch.cov(x.T) for x in enough]),
            (len(classes[0]), len(classes[1])),
        )


def fit_map(have: Spectra, wanted: Spectra) -> SpectrumMap:
    """Return the optimal transport map from one Gaussian to another in each class; a class with too few frames stays as it is.

    Args:
        have: Spectra of conversions to a voice.
        wanted: Spectra of the voice's recordings.

    Source: Knott and Smith, On the optimal mapping of distributions (1984); equation 2.40 of Peyre and Cuturi, Computational Optimal Transport
    (2019).
    """
    weights, biases = [], []
    for kind in range(N_CLASSES):
        n_mels = have.mean.shape[1]
        if min(have.n[kind], wanted.n[kind]) < MIN_FRAMES:
            weights.append(torch.eye(n_mels, dtype=torch.float64))
            biases.append(torch.zeros(n_mels, dtype=torch.float64))
            continue
        added = REGULARISATION * have.covariance[kind].diagonal().mean() * torch.eye(n_mels, dtype=torch.float64)
        root = _root(have.covariance[kind] + added)
        inverse = torch.linalg.inv(root)
        weight = inverse @ _root(root @ (wanted.covariance[kind] + added) @ root) @ inverse
        weights.append(weight)
        biases.append(wanted.mean[kind] - have.mean[kind] @ weight)
    return SpectrumMap(torch.stack(weights).float(), torch.stack(biases).float())


def mean_map(parts: Sequence[tuple[SpectrumMap | None, float]]) -> SpectrumMap | None:
    """Return the mean of maps by weights that sum to 1; None, no map, changes nothing. None if there is no map."""
    known = [part.scaled(share) for part, share in parts if part is not None]
    if not known:
        return None
    identity = torch.eye(known[0].weight.shape[-1], device=known[0].weight.device)
    return SpectrumMap(
        identity + torch.stack([part.weight - identity for part in known]).sum(0),
        torch.stack([part.bias for part in known]).sum(0),
    )


def distance_db(first: Spectra, second: Spectra) -> float:
    """Return the distance of spectra in dB: of means and standard deviations, root mean square over bands, mean of the classes that both have.

    It is the Wasserstein distance of Gaussians without their correlations, which a few seconds are too short to measure.

    Source: Dowson and Landau, The Frechet distance between multivariate normal distributions (1982).
    """
    found = []
    for kind in range(N_CLASSES):
        if min(first.n[kind], second.n[kind]) < MIN_COMPARED:
            continue
        deviations = [spectra.covariance[kind].diagonal().sqrt() for spectra in (first, second)]
        square = (first.mean[kind] - second.mean[kind]).square() + (deviations[0] - deviations[1]).square()
        found.append(float(square.mean().sqrt()))
    return 20 / math.log(10) * sum(found) / len(found) if found else math.nan


def _root(covariance: Tensor) -> Tensor:
    """Return the symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
