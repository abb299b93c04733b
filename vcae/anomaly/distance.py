"""Distance from the normal data in a space of features: a Gaussian whose covariance is shrunk to a multiple of the identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian fitted to normal features.

    Attributes:
        mean: (D,).
        scale: (D,), features are divided by it.
        precision: (D, D), of the scaled features.
    """

    mean: np.ndarray
    scale: np.ndarray
    precision: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> Gaussian:
        """Fit to features (n, D), n >= 2.

        Source: Ledoit and Wolf, A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices (2004).
        """
        n, d = features.shape
        mean = features.mean(0)
        scale = features.std(0) + 1e-3
        x = (features - mean) / scale
        sample = x.T @ x / n
        target = np.trace(sample) / d
        spread = float(((sample - target * np.eye(d)) ** 2).sum())
        squares = x**2
        error = float((squares.T @ squares / n - sample**2).sum()) / n
        share = min(1.0, error / spread) if spread > 0 else 1.0
        shrunk = (1 - share) * sample + max(share, 1e-3) * max(target, 1e-6) * np.eye(d)
        return cls(mean, scale, np.linalg.inv(shrunk))

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distance of features (n, D), a number each, about 1 for normal ones."""
        x = (features - self.mean) / self.scale
        return np.asarray(np.sqrt(np.maximum(np.einsum("nd,de,ne->n", x, self.precision, x), 0) / x.shape[1]))
