"""Placement of a mono sound among the channels of a recording, as the recording's own voice was placed.

For each frequency, two things are measured over a third of a second: the level of each channel relative to the mix from which the mono
sound was made, and the phase of each channel relative to the loudest one, which holds the delay between them. They change slowly, unlike
the sound itself.

Source: Breebaart, van de Par, Kohlrausch and Schuijers, Parametric Coding of Stereo Audio (EURASIP JASP, 2005).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from vcae.audio.loudness import RunningLimiter

# Hop between frames in seconds; a frame has four hops.
HOP_S = 0.016
OVERLAP = 4
# Frames before and after a frame over which level and phase are measured: a third of a second in all.
NEAR = 10
# Levels are measured over this width of frequency in Hz, as the mix has notches where channels with a delay cancel each other.
WIDTH_HZ = 300.0
# Largest level of a channel relative to the mix: 12 dB.
MAX_GAIN = 4.0
# Another channel becomes the reference of the phases when its power is this many times larger.
HYSTERESIS = 4.0
# Samples that are placed at a time.
PIECE = 1 << 16
TINY = 1e-12


class Taker:
    """Reader of any number of samples at a time from blocks.

    Args:
        blocks: (n,) or (n, channels) each.
    """

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks, self._rest, self._n = iter(blocks), list[np.ndarray](), 0

    def __call__(self, n: int) -> np.ndarray:
        """Return the next n samples; after the end, the last ones are zero."""
        while self._n < n and (block := next(self._blocks, None)) is not None:
            self._rest.append(block)
            self._n += len(block)
        joined = np.concatenate(self._rest)
        self._rest, self._n = [joined[n:]], len(joined) - min(n, len(joined))
        return np.pad(joined[:n], ((0, n - len(joined[:n])), *((0, 0),) * (joined.ndim - 1)))


def place(
    blocks: Iterable[np.ndarray], mix: Iterable[np.ndarray], channels: Iterable[np.ndarray], sample_rate: int, n_channels: int
) -> Iterator[np.ndarray]:
    """Yield a mono sound placed among channels, (n, channels).

    Args:
        blocks: The mono sound, (n,) each.
        mix: The mix of the channels from which it was made, (n,) each.
        channels: The channels of the recording, (n, channels) each.
        sample_rate: Sample rate of all three, in Hz.
        n_channels: Number of channels.
    """
    placement, mixed, separate = Placement(sample_rate, n_channels), Taker(mix), Taker(channels)
    for block in blocks:
        for start in range(0, len(block), PIECE):
            piece = block[start : start + PIECE]
            yield placement(piece, mixed(len(piece)), separate(len(piece)))
    yield placement.finish()


class Placement:
    """Places a mono sound among channels, block by block. The output does not depend on how the input is split into blocks.

    Args:
        sample_rate: Hz.
        n_channels: Number of channels.
    """

    def __init__(self, sample_rate: int, n_channels: int) -> None:
        self._n_channels, self._hop = n_channels, round(HOP_S * sample_rate)
        self._size = OVERLAP * self._hop
        n = np.arange(self._size)
        # Squares of the window sum to one over the overlapping frames.
        self._window = (np.sin(np.pi * (n + 0.5) / self._size) * np.sqrt(2 / OVERLAP)).astype(np.float32)
        self._width = max(round(WIDTH_HZ * self._size / sample_rate), 1)
        # Frames begin before the sound, so that each sample has all its frames; what is before the sound is dropped.
        self._skip = self._size - self._hop
        bins = self._size // 2 + 1
        self._input = np.zeros((self._skip, n_channels + 2), np.float32)
        self._spectra = np.zeros((NEAR, bins, n_channels + 2), np.complex64)
        self._tail = np.zeros((self._skip, n_channels), np.float32)
        self._loudest = self._taken = self._given = 0
        self._limiter = RunningLimiter(n_channels)

    def __call__(self, wav: np.ndarray, mix: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """Add samples and return the output that is ready, (n', channels).

        Args:
            wav: (n,), the sound to place.
            mix: (n,), the mix of the channels from which it was made.
            channels: (n, channels) of the recording.
        """
        self._taken += len(wav)
        return self._limiter(self._run(np.concatenate([wav[:, None], mix[:, None], channels], axis=1)))

    def finish(self) -> np.ndarray:
        """Return the rest after the last input; the output is as long as the input."""
        left = self._taken - self._given
        silence = np.zeros((self._size + (2 * NEAR + OVERLAP) * self._hop, self._n_channels + 2), np.float32)
        last = self._run(silence)[:left]
        return np.concatenate([self._limiter(last), self._limiter.finish()])

    def _run(self, block: np.ndarray) -> np.ndarray:
        self._input = np.concatenate([self._input, block])
        n = (len(self._input) - self._size) // self._hop + 1
        if n > 0:
            frames = np.lib.stride_tricks.sliding_window_view(self._input, self._size, axis=0)[:: self._hop][:n]
            spectra = np.fft.rfft(frames * self._window, axis=2).astype(np.complex64)
            self._spectra = np.concatenate([self._spectra, spectra.transpose(0, 2, 1)])
            self._input = self._input[n * self._hop :]
        ready = len(self._spectra) - 2 * NEAR
        if ready <= 0:
            return np.zeros((0, self._n_channels), np.float32)
        placed = self._place(ready)
        self._spectra = self._spectra[ready:]
        made = np.concatenate([self._tail, np.zeros((ready * self._hop, self._n_channels), np.float32)])
        for k, frame in enumerate(np.fft.irfft(placed, axis=1).astype(np.float32) * self._window[:, None]):
            made[k * self._hop : k * self._hop + self._size] += frame
        self._tail = made[ready * self._hop :]
        skipped = min(self._skip, ready * self._hop)
        self._skip -= skipped
        self._given += ready * self._hop - skipped
        return np.asarray(made[skipped : ready * self._hop])

    def _place(self, n: int) -> np.ndarray:
        """Return the spectra (n, bins, channels) of the placed sound for the first n frames that have all neighbours."""
        wav, mix, channels = self._spectra[..., 0], self._spectra[..., 1], self._spectra[..., 2:]
        power = _near(np.square(np.abs(channels)), n)
        mixed = _near(np.square(np.abs(mix)), n)
        gain = np.sqrt((self._wide(power) + TINY) / (self._wide(mixed[..., None]) + TINY))
        gain = np.minimum(gain, MAX_GAIN)
        loudest = np.array([self._follow(levels) for levels in power.sum(axis=1)])
        cross = np.zeros((n, *channels.shape[1:]), np.complex64)
        for k in np.unique(loudest):
            cross[loudest == k] = _near(channels * channels[..., k : k + 1].conj(), n)[loudest == k]
        phase = cross / (np.abs(cross) + TINY)
        return np.asarray(wav[NEAR : NEAR + n, :, None] * gain * phase)

    def _wide(self, power: np.ndarray) -> np.ndarray:
        """Average powers (n, bins, channels) over neighbouring bins."""
        from scipy.ndimage import uniform_filter1d

        return np.asarray(uniform_filter1d(power, self._width, axis=1, mode="nearest"))

    def _follow(self, levels: np.ndarray) -> int:
        """Return the channel whose phases are the reference: the loudest one, until another has four times its power."""
        if levels.max() > HYSTERESIS * levels[self._loudest]:
            self._loudest = int(levels.argmax())
        return self._loudest


def _near(x: np.ndarray, n: int) -> np.ndarray:
    """Return the sum of each of n frames and its neighbours."""
    total = x[:n].copy()
    for k in range(1, 2 * NEAR + 1):
        total += x[k : k + n]
    return np.asarray(total)
