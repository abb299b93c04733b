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
    """A Gaussian fitted to normal features.

    Attributes:
        mean: (D,).
        scale: (D,), features are divided by it.
        axes: (k, D), orthonormal directions in which scaled normal features spread most.
        weights: (k,), how much of the squared distance along an axis its spread explains, 0..1.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, trim: float = 0.0) -> Gaussian:
        """Fit to features (n, D), n >= 2; with `trim`, again and again to all but the share that lies furthest.

        The shrinkage is strong and fixed: with fewer recordings than features, estimates of it (Ledoit and Wolf's) follow the
        recordings into directions that others do not share.
        """
        kept = len(features) - round(trim * len(features))
        if kept < len(features):
            nearest = np.argsort(np.abs(features - np.median(features, axis=0)).mean(1))[:kept]
            for _ in range(TRIM_ROUNDS):
                nearest = np.argsort(cls.fit(features[nearest]).distance(features), kind="stable")[:kept]
            features = features[nearest]
        n = len(features)
        mean = features.mean(0)
        # The deviation of n numbers is itself uncertain; none may look constant by chance.
        deviation = features.std(0)
        scale = deviation + 0.1 * float(np.median(deviation)) + 1e-3
        _, spread, axes = np.linalg.svd((features - mean) / scale, full_matrices=False)
        variance = spread[:MAX_RANK] ** 2 / n
        weights = 1 - SHRINKAGE / ((1 - SHRINKAGE) * variance + SHRINKAGE)
        return cls(mean, scale, axes[:MAX_RANK], weights)

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distance of features (n, D), a number each, about 1 for normal ones."""
        x = (features - self.mean) / self.scale
        squared = (x**2).sum(1) - (self.weights * (x @ self.axes.T) ** 2).sum(1)
        return np.asarray(np.sqrt(np.maximum(squared, 0) / (SHRINKAGE * x.shape[1])))
