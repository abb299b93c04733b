"""From raw scores to a probability under the normal data, so that one number means the same for every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vcae.errors import DataError

# Probabilities are kept above this: beyond it a tail fitted to some dozens of recordings says nothing more.
LEAST = 1e-12
# The skewness that is expected before any scores are seen, how many scores that counts for, and the least.
SKEWNESS, SKEWNESS_WEIGHT, LEAST_SKEWNESS = 0.7, 30.0, 0.1


@dataclass(frozen=True)
class Tail:
    """How scores of normal recordings that were held out are spread.

    Attributes:
        scores: (n,), of held-out normal recordings.
        kind: gamma: a gamma distribution above an offset, by moments; empirical: shares of the scores.
    """

    scores: np.ndarray
    kind: str = "gamma"

    def __post_init__(self) -> None:
        if len(self.scores) < 2 or not np.isfinite(self.scores).all():
            raise DataError(f"{len(self.scores)} scores of held-out normal recordings; at least 2 finite ones are needed")

    @cached_property
    def mean(self) -> float:
        """Of the scores."""
        return float(self.scores.mean())

    @cached_property
    def deviation(self) -> float:
        """Of the scores, a little more with few of them: their mean is uncertain too."""
        n = len(self.scores)
        return max(float(self.scores.std(ddof=1)) * float(np.sqrt(1 + 1 / n)), 1e-6 * max(abs(self.mean), 1e-3))

    @cached_property
    def gamma(self) -> tuple[float, float, float]:
        """Shape, offset and scale of a gamma distribution with that mean and deviation, and the scores' skewness.

        With few scores, whose skewness says little, it is drawn to a moderate one: a tail somewhat longer than a Gaussian's.
        """
        n = len(self.scores)
        third = float((((self.scores - self.mean) / self.deviation) ** 3).mean())
        skewness = max((n * third + SKEWNESS_WEIGHT * SKEWNESS) / (n + SKEWNESS_WEIGHT), LEAST_SKEWNESS)
        shape = 4 / skewness**2
        scale = self.deviation * skewness / 2
        return shape, self.mean - shape * scale, scale

    def standardize(self, score: np.ndarray) -> np.ndarray:
        """Return scores in deviations above the mean of the held-out ones."""
        return np.asarray((score - self.mean) / self.deviation)

    def log_probability(self, score: np.ndarray | float) -> np.ndarray:
        """Return the natural log of the share of normal recordings that would score as high."""
        from scipy.stats import gamma

        values = np.atleast_1d(np.asarray(score, dtype=np.float64))
        if self.kind == "empirical":
            above = (self.scores[None, :] >= values[:, None]).sum(1)
            return np.asarray(np.log((above + 1) / (len(self.scores) + 1)))
        shape, offset, scale = self.gamma
        return np.asarray(np.maximum(gamma.logsf(values - offset, shape, scale=scale), np.log(LEAST)))

    def probability(self, score: float) -> float:
        """Return the share of normal recordings that would score as high, 0..1."""
        return float(np.exp(self.log_probability(score)[0]))


def combine(tails: Mapping[str, Tail], scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return one score (n,) from those of members, each (n,): the weighted mean of their deviations from held-out normal recordings.

    A member that follows the recordings it has seen is spread wide on those held out, and so weighs little. Deviations rather
    than log probabilities, whose far tails would let one member decide: measured on machines and sound classes.
    """
    if len(scores) == 1:
        return next(iter(scores.values()))
    found = [weights.get(name, 1.0) * tails[name].standardize(values) for name, values in scores.items()]
    return np.asarray(np.sum(found, axis=0) / sum(weights.get(name, 1.0) for name in scores))
