"""Outlier exposure: a classifier between normal sounds and a bank of others, so that not every rare sound looks anomalous."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcae.anomaly.distance import Gaussian
from vcae.checkpoint import read_tensors
from vcae.errors import CheckpointError

BANK = Path(__file__).with_name("others.safetensors")
# Features of the classifier, with one kernel each; the kernels are averaged.
KINDS = ("statistics", "modulation", "encoder")
# Support vector machine: cost, and width of the kernel as a fraction of the mean squared distance between normal clips.
COST, WIDTH = 1.0, 0.5
# Features are scaled by the geometric mean of the standard deviations of normal clips and of others, the latter with this weight.
OTHERS_SCALE = 0.3
# Largest number of normal clips that are used, evenly spaced; the time grows with its square.
MAX_NORMAL = 2000
# Sounds of the bank that are nearer than this fraction of the normal clips, by every kind of feature, are left out.
NORMAL_SHARE = 0.9

Features = Mapping[str, np.ndarray]


@lru_cache(maxsize=1)
def shipped_bank() -> dict[str, np.ndarray]:
    """Return the features (n, D) of the shipped other sounds, by kind.

    Raises:
        CheckpointError: If the file is missing or damaged.
    """
    tensors, _ = read_tensors(BANK)
    missing = sorted(set(KINDS) - set(tensors))
    if missing:
        raise CheckpointError(f"{BANK} lacks {', '.join(missing)}; reinstall vcae")
    return {kind: tensors[kind].double().numpy() for kind in KINDS}


@dataclass(frozen=True)
class _Space:
    """Kernel on one kind of features, which are standardised by `mean` and `scale`: exp(-gamma * squared distance)."""

    mean: np.ndarray
    scale: np.ndarray
    gamma: float

    @classmethod
    def fit(cls, normal: np.ndarray, others: np.ndarray) -> _Space:
        own = normal.std(0)
        own = own + 0.1 * np.median(own) + 1e-3
        scale = own ** (1 - OTHERS_SCALE) * (others.std(0) + 1e-3) ** OTHERS_SCALE
        mean = normal.mean(0)
        spread = float((((normal - mean) / scale) ** 2).sum(1).mean())
        return cls(mean, scale, WIDTH / max(2 * spread, 1e-6))

    def kernel(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the kernel (n, m) of features (n, D) and (m, D)."""
        a, b = (rows - self.mean) / self.scale, (columns - self.mean) / self.scale
        squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
        return np.asarray(np.exp(-self.gamma * np.maximum(squared, 0)))


@dataclass(frozen=True)
class Exposure:
    """Support vector machine between normal clips and others.

    Attributes:
        spaces: Kernel of each kind of features.
        vectors: (k, D) by kind, the support vectors.
        coefficients: (k,), positive for normal clips.
        offset: Offset of the decision function.

    Source: Hendrycks et al., Deep Anomaly Detection with Outlier Exposure (2019), for the idea; Cortes and Vapnik, Support-Vector
    Networks (1995), for the machine.
    """

    spaces: Mapping[str, _Space]
    vectors: Features
    coefficients: np.ndarray
    offset: float

    @classmethod
    def fit(cls, normal: Features, others: Features) -> Exposure:
        """Fit to features (n, D) of normal clips and (m, D) of others, by kind."""
        from sklearn.svm import SVC

        n = len(next(iter(normal.values())))
        chosen = np.unique(np.linspace(0, n - 1, min(n, MAX_NORMAL)).round().astype(int))
        normal = {kind: values[chosen] for kind, values in normal.items()}
        spaces = {kind: _Space.fit(values, others[kind]) for kind, values in normal.items()}
        rows = {kind: np.concatenate([values, others[kind]]) for kind, values in normal.items()}
        kernel = np.mean([space.kernel(rows[kind], rows[kind]) for kind, space in spaces.items()], axis=0)
        labels = np.r_[np.ones(len(chosen)), np.zeros(len(kernel) - len(chosen))]
        machine = SVC(C=COST, class_weight="balanced", kernel="precomputed").fit(kernel, labels)
        deciding = machine.support_
        vectors = {kind: values[deciding] for kind, values in rows.items()}
        return cls(spaces, vectors, machine.dual_coef_[0].copy(), float(machine.intercept_[0]))

    def score(self, features: Features) -> np.ndarray:
        """Return the scores (n,) of features (n, D) by kind: positive on the side of the other sounds."""
        kernels = [space.kernel(features[kind], self.vectors[kind]) for kind, space in self.spaces.items()]
        return np.asarray(-(np.mean(kernels, axis=0) @ self.coefficients + self.offset))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to save."""
        found = {"coefficients": torch.from_numpy(self.coefficients), "offset": torch.tensor(self.offset)}
        for kind, space in self.spaces.items():
            found |= {
                f"{kind}.mean": torch.from_numpy(space.mean),
                f"{kind}.scale": torch.from_numpy(space.scale),
                f"{kind}.gamma": torch.tensor(space.gamma),
                f"{kind}.vectors": torch.from_numpy(self.vectors[kind]),
            }
        return {name: value.float().contiguous() for name, value in found.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Exposure:
        """Rebuild the classifier from `tensors()`."""
        values = {name: value.double().numpy() for name, value in tensors.items()}
        kinds = [kind for kind in KINDS if f"{kind}.vectors" in values]
        spaces = {k: _Space(values[f"{k}.mean"], values[f"{k}.scale"], float(values[f"{k}.gamma"])) for k in kinds}
        vectors = {k: values[f"{k}.vectors"] for k in kinds}
        return cls(spaces, vectors, values["coefficients"], float(values["offset"]))


def leave_out_normal(others: Features, normal: Features, held_out: Features) -> dict[str, np.ndarray]:
    """Return the other sounds without those that could be normal, such as speech where the normal recordings are speech.

    Args:
        others: (m, D) by kind, features of other sounds.
        normal: (n, D) by kind, features of normal clips.
        held_out: (n,) by kind, log distance of each normal clip from the rest.
    """
    like = np.ones(len(next(iter(others.values()))), bool)
    for kind, values in others.items():
        distance = np.log(Gaussian.fit(normal[kind]).distance(values) + 1e-3)
        like &= distance <= np.quantile(held_out[kind], NORMAL_SHARE)
    return {kind: values[~like] for kind, values in others.items()}
