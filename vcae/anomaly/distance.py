"""Distance from the normal data in a space of features: a Gaussian, shrunk until some dozens of recordings suffice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Share of the identity in the covariance of the features, each scaled to unit deviation.
SHRINKAGE = 0.9
# Directions that are kept apart; there are no more than recordings.
MAX_RANK = 128
# Concentration steps of a trimmed fit (Rousseeuw and Van Driessen, 1999).
TRIM_ROUNDS = 3


@dataclass(frozen=True)
class Gaussian:
    """Gaussian fitted to normal features.

    Attributes:
        mean: (D,).
        scale: (D,), divisors of the features.
        axes: (k, D), orthonormal directions of largest variance of the scaled features.
        weights: (k,), fraction of the squared distance along each axis that its variance explains, 0..1.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, trim: float = 0.0) -> Gaussian:
        """Fit to features (n, D), n >= 2; with `trim`, repeatedly without the fraction of largest distance.

        The shrinkage is strong and fixed: with fewer recordings than features, estimated shrinkage (Ledoit and Wolf's) overfits
        directions in which other recordings do not vary.
        """
        kept = len(features) - round(trim * len(features))
        if kept < len(features):
            nearest = np.argsort(np.abs(features - np.median(features, axis=0)).mean(1))[:kept]
            for _ in range(TRIM_ROUNDS):
                nearest = np.argsort(cls.fit(features[nearest]).distance(features), kind="stable")[:kept]
            features = features[nearest]
        n = len(features)
        mean = features.mean(0)
        # The standard deviation of few numbers is uncertain, so none may be close to zero by chance.
        deviation = features.std(0)
        scale = deviation + 0.1 * float(np.median(deviation)) + 1e-3
        _, spread, axes = np.linalg.svd((features - mean) / scale, full_matrices=False)
        variance = spread[:MAX_RANK] ** 2 / n
        weights = 1 - SHRINKAGE / ((1 - SHRINKAGE) * variance + SHRINKAGE)
        return cls(mean, scale, axes[:MAX_RANK], weights)

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distances (n,) of features (n, D), scaled to about 1 for normal ones."""
        x = (features - self.mean) / self.scale
        squared = (x**2).sum(1) - (self.weights * (x @ self.axes.T) ** 2).sum(1)
        return np.asarray(np.sqrt(np.maximum(squared, 0) / (SHRINKAGE * x.shape[1])))
