"""Mixing of channels to mono without dead channels and without cancellation of antiphase ones."""

from __future__ import annotations

import math

import numpy as np

# A channel this far below the loudest one (-20 dB) is ignored, as it would only make the mean quieter.
DEAD_POWER = 1e-2
# Channels with a lower correlation than this are inverted, so that they do not cancel each other.
ANTIPHASE = -0.5
# Floats should be within -1..1; above this (24 dB) they have another scale, and the smallest scale that contains them is used.
MAX_FLOAT = 16.0
# Time constant in which a running measurement forgets, in seconds.
MEMORY_S = 1.0
SCALES = (float(1 << 15), float(1 << 23), float(1 << 31))


class ChannelMeter:
    """Measurement of levels and correlations of a recording's channels.

    Args:
        n_channels: Number of channels.

    Attributes:
        peak: Largest magnitude of the finite samples.
    """

    def __init__(self, n_channels: int) -> None:
        self.n: float = 0
        self.peak = 0.0
        self._sum, self._products = np.zeros(n_channels), np.zeros((n_channels, n_channels))

    def add(self, block: np.ndarray) -> None:
        """Add the next samples (n, channels)."""
        block = np.nan_to_num(np.asarray(block, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        self.n += len(block)
        self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
        self._sum += block.sum(axis=0)
        self._products += block.T @ block

    def forget(self, share: float) -> None:
        """Reduce the weight of all samples so far to a share of it."""
        self.n *= share
        self._sum *= share
        self._products *= share

    @property
    def full_scale(self) -> float:
        """Full scale: 1, or 2^15, 2^23 or 2^31 if integers were stored as floats."""
        if self.peak <= MAX_FLOAT:
            return 1.0
        return next((scale for scale in SCALES if self.peak <= scale), SCALES[-1])

    def weights(self, before: np.ndarray | None = None) -> np.ndarray:
        """Return the weights of the channels (channels,): the mean of the active ones, with the sign of antiphase ones inverted.

        Args:
            before: Earlier weights in a stream, whose signs stay unless the channels clearly contradict them.
        """
        mean = self._sum / max(self.n, 1)
        # Without the DC offset.
        covariance = self._products / max(self.n, 1) - np.outer(mean, mean)
        power = covariance.diagonal().clip(min=0)
        loudest = int(power.argmax())
        if power[loudest] <= 0:
            return np.full(len(power), 1 / len(power))
        alive = power >= DEAD_POWER * power[loudest]
        alike = covariance[loudest] / np.sqrt(np.maximum(power * power[loudest], 1e-30))
        inverted = np.zeros(len(power), bool) if before is None else before * before[loudest] < 0
        signs = np.where(alike < np.where(inverted, -ANTIPHASE, ANTIPHASE), -1.0, 1.0)
        return np.asarray(alive * signs / alive.sum())


class RunningMixer:
    """Mixer of a stream's channels to mono by the rule of `ChannelMeter.weights`, on the last seconds so far.

    Changes of the weights are spread over a block. A microphone pair with one dead or inverted capsule so costs neither level nor voice.

    Args:
        n_channels: Number of channels.
        sample_rate: Hz.
    """

    def __init__(self, n_channels: int, sample_rate: int) -> None:
        self._meter, self._memory = ChannelMeter(n_channels), MEMORY_S * sample_rate
        self._weights: np.ndarray | None = None

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Mix the next samples (n, channels) to one channel (n,), float32."""
        if block.shape[1] == 1:
            return np.ascontiguousarray(block[:, 0], dtype=np.float32)
        self._meter.forget(math.exp(-len(block) / self._memory))
        self._meter.add(block)
        wanted = self._meter.weights(self._weights)
        before = wanted if self._weights is None else self._weights
        if float(before @ wanted) < 0:
            # The same up to the sign, which is not audible; a change of it would be.
            wanted = -wanted
        self._weights = wanted
        share = np.arange(1, len(block) + 1)[:, None] / max(len(block), 1)
        return np.asarray((block * (before + share * (wanted - before))).sum(axis=1), dtype=np.float32)


def mix_down(block: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mix samples (n, channels) to one channel (n,), float32."""
    if block.shape[1] == 1 and weights[0] == 1:
        return np.ascontiguousarray(block[:, 0], dtype=np.float32)
    if (weights == 1 / len(weights)).all():
        return np.ascontiguousarray(block.mean(axis=1), dtype=np.float32)
    return np.asarray(block @ weights, dtype=np.float32)
