"""Units of a few steps each: nearest centroids of the latent, with a penalty on every change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def segment(distances: np.ndarray, penalty: float) -> np.ndarray:
    """Return the unit of each step (T,) with the least sum of distances (T, K) and of a penalty for each change of the unit.

    Source: Kamper and van Niekerk, Towards unsupervised phone and word segmentation using self-supervised vector-quantized neural networks (2021).
    """
    cost, back = distances[0].copy(), np.empty(distances.shape, np.int32)
    stay = np.arange(distances.shape[1])
    for t in range(1, len(distances)):
        best = int(cost.argmin())
        change = cost[best] + penalty
        back[t] = np.where(cost <= change, stay, best)
        cost = np.minimum(cost, change) + distances[t]
    units = np.empty(len(distances), np.int64)
    units[-1] = cost.argmin()
    for t in range(len(distances) - 1, 0, -1):
        units[t - 1] = back[t, units[t]]
    return units


def merge(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the units without repetitions, and the step at which each one begins."""
    starts = np.flatnonzero(np.concatenate([[True], units[1:] != units[:-1]]))
    return units[starts], starts


def squared_distances(latent: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the squared distance (T, K) of each step of a latent (T, D) from each centroid (K, D)."""
    apart: np.ndarray = (latent**2).sum(axis=1)[:, None] - 2 * latent @ centroids.T + (centroids**2).sum(axis=1)[None]
    least: np.ndarray = np.maximum(apart, 0)
    return least


def choose_penalty(distances: Sequence[np.ndarray], n_units: float, n_tries: int = 10) -> float:
    """Return the penalty with which recordings with distances (T, K) have `n_units` units in all, by bisection.

    Args:
        distances: Of each recording.
        n_units: Number of units wanted in all.
        n_tries: Number of bisections.
    """
    low, high = 0.0, 10 * float(np.mean([np.median(d) for d in distances]))
    for _ in range(n_tries):
        middle = (low + high) / 2
        found = sum(len(merge(segment(d, middle))[0]) for d in distances)
        low, high = (middle, high) if found > n_units else (low, middle)
    return (low + high) / 2
