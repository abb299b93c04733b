"""Several channels as one: none that is dead, and none against another's phase."""

from __future__ import annotations

import numpy as np

# A channel this much below the loudest one carries nothing of its own (-20 dB): with it, the mean would only be quieter.
DEAD_POWER = 1e-2
# Channels that are more alike upside down than this are turned, so that they do not cancel each other.
ANTIPHASE = -0.5
# Floats are meant to lie within -1..1; beyond this (24 dB) they are numbers of another scale. Then the least that holds them is taken.
MAX_FLOAT = 16.0
SCALES = (float(1 << 15), float(1 << 23), float(1 << 31))


class ChannelMeter:
    """Measure how the channels of a recording go together.

    Args:
        n_channels: How many.

    Attributes:
        peak: Largest magnitude of the finite samples.
    """

    def __init__(self, n_channels: int) -> None:
        self.n, self.peak = 0, 0.0
        self._sum, self._products = np.zeros(n_channels), np.zeros((n_channels, n_channels))

    def add(self, block: np.ndarray) -> None:
        """Take in the next samples (n, channels)."""
        block = np.nan_to_num(np.asarray(block, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        self.n += len(block)
        self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
        self._sum += block.sum(axis=0)
        self._products += block.T @ block

    @property
    def full_scale(self) -> float:
        """What a full sample is: 1, or 2^15, 2^23 or 2^31 where integers were written as floats."""
        if self.peak <= MAX_FLOAT:
            return 1.0
        return next((scale for scale in SCALES if self.peak <= scale), SCALES[-1])

    def weights(self) -> np.ndarray:
        """Return what to multiply each channel by, (channels,): the mean of those that carry sound, none against another's phase."""
        mean = self._sum / max(self.n, 1)
        # Without the offset, which is no sound.
        covariance = self._products / max(self.n, 1) - np.outer(mean, mean)
        power = covariance.diagonal().clip(min=0)
        loudest = int(power.argmax())
        if power[loudest] <= 0:
            return np.full(len(power), 1 / len(power))
        alive = power >= DEAD_POWER * power[loudest]
        alike = covariance[loudest] / np.sqrt(np.maximum(power * power[loudest], 1e-30))
        signs = np.where(alike < ANTIPHASE, -1.0, 1.0)
        return np.asarray(alive * signs / alive.sum())


def mix_down(block: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return samples (n, channels) as one channel (n,), float32."""
    if block.shape[1] == 1 and weights[0] == 1:
        return np.ascontiguousarray(block[:, 0], dtype=np.float32)
    if (weights == 1 / len(weights)).all():
        return np.ascontiguousarray(block.mean(axis=1), dtype=np.float32)
    return np.asarray(block @ weights, dtype=np.float32)
