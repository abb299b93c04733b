"""Probes of features: speaker verification errors, and classification from few examples or by a linear probe. Functions of arrays only.

n recordings (or steps); features (n, D); labels (n,) of any sortable type.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vcae.errors import DataError

CLASSIFIERS = ("centroid", "logistic")


@dataclass(frozen=True)
class Estimate:
    """Estimate with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def cosines(features: np.ndarray) -> np.ndarray:
    """Return the cosines of all pairs of n vectors (n, D): (n, n)."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return np.asarray(unit @ unit.T)


def equal_error_rate(scores: np.ndarray, same: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Return the equal error rate: false rejection rate at the threshold where it equals the false acceptance rate.

    Args:
        scores: (m,), larger for more similar pairs.
        same: (m,) bool, true for trials of the same speaker.
        weight: (m,), weight of each trial; 1 when None.

    Raises:
        DataError: If trials of the same speaker or of different ones are missing.
    """
    weight = np.ones(len(scores)) if weight is None else weight
    total_same, total_other = float(weight[same].sum()), float(weight[~same].sum())
    if not total_same or not total_other:
        raise DataError(
            "trials of the same speaker and of different ones are needed; give several recordings of several speakers"
        )
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # Trials of equal score are accepted together.
    last = np.append(ranked[1:] != ranked[:-1], True)
    accepted = np.concatenate([[0.0], np.cumsum(np.where(same[order], 0, weight[order]))[last] / total_other])
    refused = np.concatenate([[1.0], 1 - np.cumsum(np.where(same[order], weight[order], 0))[last] / total_same])
    above = int(np.argmax(accepted >= refused))
    # Where the two curves cross, between two thresholds.
    gap = refused[above - 1] - accepted[above - 1], accepted[above] - refused[above]
    share = gap[0] / max(gap[0] + gap[1], 1e-12)
    return float(accepted[above - 1] + share * (accepted[above] - accepted[above - 1]))


def speaker_weights(speakers: Sequence[str], n: int, seed: int = 0) -> np.ndarray:
    """Return the weights of recordings (n, recordings) in n bootstrap samples of the speakers."""
    names, index = np.unique(np.asarray(speakers), return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)
    return np.asarray(counts[:, index], dtype=np.float64)


def verification_error(similarity: np.ndarray, speakers: Sequence[str], n_bootstrap: int = 200, seed: int = 0) -> Estimate:
    """Return the equal error rate over all pairs of different recordings, with a bootstrap interval over speakers.

    A speaker drawn k times has weight k in trials of the same speaker, and the product of both speakers' weights in trials of different
    ones; copies of a speaker are never compared as if they were different speakers.

    Args:
        similarity: (n, n), symmetric, larger for more similar recordings.
        speakers: (n,), speaker of each recording.
        n_bootstrap: Number of bootstrap samples.
        seed: Seed of the bootstrap; the same seed draws the same speakers for every system.

    Raises:
        DataError: If there are fewer than two speakers, or no speaker has two recordings.
    """
    names = np.asarray(speakers)
    first, second = np.triu_indices(len(names), 1)
    same, scores = names[first] == names[second], similarity[first, second]
    value = equal_error_rate(scores, same)
    drawn = []
    for counts in speaker_weights(speakers, n_bootstrap, seed):
        weight = np.where(same, counts[first], counts[first] * counts[second])
        if weight[same].sum() and weight[~same].sum():
            drawn.append(equal_error_rate(scores, same, weight))
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (math.nan, math.nan)
    return Estimate(value, float(low), float(high))


def within_whitening(features: np.ndarray, speakers: Sequence[str], shrinkage: float = 0.1) -> np.ndarray:
    """Return the matrix (D, D) that whitens features within speakers (WCCN).

    Args:
        features: (n, D), features of other speakers than those of the test.
        speakers: (n,), speaker of each row; those with one recording are not used.
        shrinkage: Fraction of a spherical covariance that is mixed in, 0 to 1.

    Raises:
        DataError: If no speaker has two recordings.

    Source: Hatch, Kajarekar and Stolcke, Within-Class Covariance Normalization for SVM-based Speaker Recognition (2006).
    """
    names = np.asarray(speakers)
    several = [s for s in np.unique(names) if (names == s).sum() > 1]
    if not several:
        raise DataError("no speaker has two recordings; whitening needs several of some")
    scatter = np.mean([np.cov(features[names == s].T) for s in several], axis=0)
    scatter = (1 - shrinkage) * scatter + shrinkage * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    return np.asarray(np.linalg.cholesky(np.linalg.inv(scatter)))


def draw_examples(labels: Sequence[str], n_examples: int, rng: np.random.Generator) -> np.ndarray:
    """Return indices of `n_examples` random examples of each class, without replacement; all of them for smaller classes."""
    names = np.asarray(labels)
    return np.concatenate([rng.permutation(np.flatnonzero(names == c))[:n_examples] for c in np.unique(names)])


def classify(train: np.ndarray, labels: Sequence[str], test: np.ndarray, classifier: str) -> np.ndarray:
    """Return the predicted class (n,) of each row of `test` (n, D), from examples `train` (m, D) with labels (m,).

    `centroid` chooses the class whose mean direction has the greatest cosine; `logistic` is logistic regression with C = 1 on features
    standardised by the examples' mean and standard deviation.

    Raises:
        DataError: For an unknown classifier, or examples of fewer than two classes.
    """
    names = np.unique(np.asarray(labels))
    if classifier not in CLASSIFIERS or len(names) < 2:
        raise DataError(
            f"classifier {classifier!r} with {len(names)} classes; allowed are {', '.join(CLASSIFIERS)} with two or more"
        )
    known = np.asarray(labels)
    if classifier == "centroid":
        unit = train / np.maximum(np.linalg.norm(train, axis=1, keepdims=True), 1e-12)
        means = np.stack([unit[known == c].mean(axis=0) for c in names])
        means = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return np.asarray(names[(test @ means.T).argmax(axis=1)])
    from sklearn.linear_model import LogisticRegression

    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = LogisticRegression(C=1.0, max_iter=300, tol=1e-3).fit((train - mean) / deviation, known)
    return np.asarray(found.predict((test - mean) / deviation))


def accuracy(predicted: np.ndarray, labels: Sequence[str]) -> float:
    """Return the balanced accuracy: the mean over classes of the fraction that is correct."""
    names = np.asarray(labels)
    return float(np.mean([np.mean(predicted[names == c] == c) for c in np.unique(names)]))


def bootstrap_mean(values: Sequence[float], groups: Sequence[str], n_bootstrap: int = 1000, seed: int = 0) -> Estimate:
    """Return the mean of values (m,) with a bootstrap interval over their groups, such as speakers."""
    given, names = np.asarray(values, dtype=np.float64), np.asarray(groups)
    kept = [given[names == g] for g in np.unique(names)]
    sums, sizes = np.array([g.sum() for g in kept]), np.array([len(g) for g in kept])
    at = np.random.default_rng(seed).integers(len(kept), size=(n_bootstrap, len(kept)))
    drawn = sums[at].sum(axis=1) / sizes[at].sum(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(given.mean()), float(low), float(high))
