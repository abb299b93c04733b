"""Calibration of raw scores to p-values under the normal data, which have the same meaning for every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vcae.errors import DataError

# Smallest p-value; a tail fitted to some dozens of recordings is not reliable below it.
LEAST = 1e-12
# Prior mean of the skewness, the number of scores it weighs as much as, and the lowest skewness.
SKEWNESS, SKEWNESS_WEIGHT, LEAST_SKEWNESS = 0.7, 30.0, 0.1


@dataclass(frozen=True)
class Tail:
    """Distribution of the scores of held-out normal recordings.

    Attributes:
        scores: (n,), scores of held-out normal recordings.
        kind: gamma: a gamma distribution with an offset, fitted by moments; empirical: fractions of the scores.
    """

    scores: np.ndarray
    kind: str = "gamma"

    def __post_init__(self) -> None:
        if len(self.scores) < 2 or not np.isfinite(self.scores).all():
            raise DataError(f"{len(self.scores)} scores of held-out normal recordings; at least 2 finite ones are needed")

    @cached_property
    def mean(self) -> float:
        """Mean of the scores."""
        return float(self.scores.mean())

    @cached_property
    def deviation(self) -> float:
        """Standard deviation of the scores, a little larger for few scores, as their mean is uncertain too."""
        n = len(self.scores)
        return max(float(self.scores.std(ddof=1)) * float(np.sqrt(1 + 1 / n)), 1e-6 * max(abs(self.mean), 1e-3))

    @cached_property
    def gamma(self) -> tuple[float, float, float]:
        """Shape, offset and scale of the gamma distribution with the scores' mean, standard deviation and skewness.

        The skewness of few scores is unreliable, so it is shrunk to a moderate one, with a tail somewhat longer than a Gaussian's.
        """
        n = len(self.scores)
        third = float((((self.scores - self.mean) / self.deviation) ** 3).mean())
        skewness = max((n * third + SKEWNESS_WEIGHT * SKEWNESS) / (n + SKEWNESS_WEIGHT), LEAST_SKEWNESS)
        shape = 4 / skewness**2
        scale = self.deviation * skewness / 2
        return shape, self.mean - shape * scale, scale

    def standardize(self, score: np.ndarray) -> np.ndarray:
        """Return scores in standard deviations above the mean of the held-out ones."""
        return np.asarray((score - self.mean) / self.deviation)

    def log_p_value(self, score: np.ndarray | float) -> np.ndarray:
        """Return the natural log of the p-value: the fraction of normal recordings that would score at least as high."""
        from scipy.stats import gamma

        values = np.atleast_1d(np.asarray(score, dtype=np.float64))
        if self.kind == "empirical":
            above = (self.scores[None, :] >= values[:, None]).sum(1)
            return np.asarray(np.log((above + 1) / (len(self.scores) + 1)))
        shape, offset, scale = self.gamma
        return np.asarray(np.maximum(gamma.logsf(values - offset, shape, scale=scale), np.log(LEAST)))

    def p_value(self, score: float) -> float:
        """Return the p-value: the fraction of normal recordings that would score at least as high, 0..1."""
        return float(np.exp(self.log_p_value(score)[0]))


def combine(tails: Mapping[str, Tail], scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Combine the scores of members, each (n,), into one (n,): the weighted mean of their standardised scores.

    A member that overfits varies widely on held-out recordings, so standardising gives it a low weight. Log probabilities
    instead would let a single member decide in their far tails; standardised scores did better on machines and sound classes.
    """
    if len(scores) == 1:
        return next(iter(scores.values()))
    found = [weights.get(name, 1.0) * tails[name].standardize(values) for name, values in scores.items()]
    return np.asarray(np.sum(found, axis=0) / sum(weights.get(name, 1.0) for name in scores))
