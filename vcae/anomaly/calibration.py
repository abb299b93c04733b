"""From raw scores to a probability under the normal data, so that one number means the same for every model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vcae.errors import DataError

# Probabilities are kept above this: beyond it a tail fitted to some dozens of recordings says nothing more.
LEAST = 1e-12


@dataclass(frozen=True)
class Tail:
    """How scores of normal recordings that were held out are spread.

    Attributes:
        scores: (n,), of held-out normal recordings.
        kind: gamma: a gamma distribution of the scores above their lowest, by moments; empirical: shares of the scores.
    """

    scores: np.ndarray
    kind: str = "gamma"

    def __post_init__(self) -> None:
        if len(self.scores) < 2 or not np.isfinite(self.scores).all():
            raise DataError(f"{len(self.scores)} scores of held-out normal recordings; at least 2 finite ones are needed")

    @cached_property
    def gamma(self) -> tuple[float, float, float]:
        """Shape, offset and scale of a gamma distribution with the scores' mean and deviation.

        The offset lies one deviation under the lowest score. The deviation is that of a t-like prediction: with few
        recordings the tail is wider than the scores' own.
        """
        n = len(self.scores)
        mean = float(self.scores.mean())
        deviation = max(float(self.scores.std(ddof=1)) * float(np.sqrt(1 + 1 / n)), 1e-6 * max(abs(mean), 1e-6))
        offset = float(self.scores.min()) - deviation
        shape = ((mean - offset) / deviation) ** 2
        return shape, offset, deviation**2 / (mean - offset)

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
