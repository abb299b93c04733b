"""The watermark of synthetic speech: an inaudible pattern of small level changes that says that vcae made a sound, and which version.

Time and frequency are divided into cells, and the level of each is raised or lowered by `CHANGE_DB`, as a fixed pattern of random
signs says. The pattern repeats every two seconds. A detector does not need the unmarked sound: it compares the level of each cell with its
neighbours', adds up the periods, and correlates the result with the pattern at all shifts, as the beginning may have been cut off. The bands
are those that a telephone or a low bit rate leave.

Source: spread spectrum, Cox et al., Secure spread spectrum watermarking for multimedia (1997), as level changes of time-frequency cells,
Bender et al., Techniques for data hiding (1996), which the sound itself masks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vcae.audio.loudness import PEAK_LIMIT
from vcae.version import __version__

# Edges of the bands in Hz. Below 1 kHz, where a voice's harmonics are resolved, changes cost the most naturalness; above 4 kHz nearly none.
EDGES_HZ = np.concatenate([np.arange(1000.0, 4000.0, 62.5), np.arange(4000.0, 7001.0, 125.0)])
N_BANDS = len(EDGES_HZ) - 1
CHANGE_DB = np.where(EDGES_HZ[:-1] < 4000, 1.5, 1.8)
# Cells in time, and their length; every other band has the pattern shifted by as many cells as the number of the version.
N_CELLS, CELL_S = 32, 0.064
# Versions by number, from 1 on.
VERSIONS = ("0.1",)
# Rate and frames of the detector: 8 ms apart, so that a cell has eight of them.
SAMPLE_RATE = 16000
N_FFT, HOP = 512, 128
PER_CELL = round(CELL_S * SAMPLE_RATE / HOP)
PERIOD = N_CELLS * PER_CELL
# Frames over which a cell's power is averaged, bound of its deviation from the neighbours in dB, and range below the loudest within which
# it counts.
SMOOTH, MAX_DB, RANGE_DB = 6, 3.0, 80.0
# A sound is taken for marked if chance alone would give such a correlation less often than this.
P_VALUE = 1e-5
# Most seconds in which a watermark is looked for.
MAX_S = 600.0
BLOCK = 4096


@dataclass(frozen=True)
class Watermark:
    """Result of a search for the watermark.

    Attributes:
        found: Whether the sound is marked.
        version: Version of vcae that made it, such as `0.1`; None if nothing was found or the number is not clear.
        p_value: Upper bound on the probability of such a correlation in a sound without a watermark.
    """

    found: bool
    version: str | None
    p_value: float


def version_number(version: str = __version__) -> int:
    """Return the number, 1 to 31, that marks a version of vcae; 0 for one that is not in `VERSIONS`."""
    series = ".".join(version.split(".")[:2])
    return VERSIONS.index(series) + 1 if series in VERSIONS else 0


@lru_cache(maxsize=4)
def _pattern(number: int) -> np.ndarray:
    """Return the signs of the cells: (N_CELLS, N_BANDS)."""
    size = N_CELLS * N_BANDS
    data = np.frombuffer(hashlib.shake_256(b"vcae watermark 1").digest(size // 8 + 1), np.uint8)
    signs = np.unpackbits(data)[:size].reshape(N_CELLS, N_BANDS) * 2.0 - 1.0
    signs[:, 1::2] = np.roll(signs[:, 1::2], number, axis=0)
    return signs


class Marker:
    """Marks a sound block by block; blocks of any length give the same result.

    Args:
        sample_rate: Hz.
        number: Number of the version, 0 to 31.
    """

    _n_dims: int | None

    def __init__(self, sample_rate: int, number: int | None = None) -> None:
        self.hop = 2 ** round(math.log2(CELL_S / 2 * sample_rate)) // 2
        self._rate, self._number = sample_rate, version_number() if number is None else number
        self._window = np.sqrt(np.hanning(2 * self.hop + 1)[:-1])
        bands = np.searchsorted(EDGES_HZ, np.fft.rfftfreq(2 * self.hop, 1 / sample_rate), side="right") - 1
        self._bins = np.flatnonzero((bands >= 0) & (bands < N_BANDS))
        self._bands = bands[self._bins]
        self._rest, self._tail = np.zeros((0, 0)), np.zeros((0, 0))
        self._frame = self._taken = self._given = 0
        self._skip, self._n_dims = self.hop, None

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Mark samples (n,) or (n, channels), float32, and return those that are ready: at first fewer."""
        x = block[None] if block.ndim == 1 else block.T
        if self._n_dims is None:
            # The first frame is centred on the first sample.
            self._rest, self._tail = np.zeros((len(x), self.hop)), np.zeros((len(x), self.hop))
            self._n_dims = block.ndim
        self._taken += x.shape[1]
        made = self._mark(x)
        skipped = min(self._skip, made.shape[1])
        self._skip -= skipped
        return self._give(made[:, skipped:])

    def finish(self) -> np.ndarray:
        """Return the remaining samples, so that the marked sound is as long as the given one."""
        if self._n_dims is None:
            return np.zeros(0, np.float32)
        left = self._taken - self._given
        made = self._mark(np.zeros((len(self._rest), 2 * self.hop)))[:, self._skip :]
        return self._give(made[:, :left])

    def _give(self, made: np.ndarray) -> np.ndarray:
        self._given += made.shape[1]
        limited: np.ndarray = np.clip(made, -PEAK_LIMIT, PEAK_LIMIT).astype(np.float32)
        return np.asarray(limited[0] if self._n_dims == 1 else limited.T)

    def _mark(self, x: np.ndarray) -> np.ndarray:
        x, n = np.concatenate([self._rest, x], axis=1), 2 * self.hop
        count = max((x.shape[1] - n) // self.hop + 1, 0)
        self._rest = x[:, count * self.hop :]
        if not count:
            return np.zeros((len(x), 0))
        frames = self.change(np.lib.stride_tricks.sliding_window_view(x, n, axis=1)[:, :: self.hop], self._frame)
        self._frame += count
        early, late = frames[..., : self.hop], frames[..., self.hop :]
        late = np.concatenate([self._tail[:, None], late], axis=1)
        self._tail = late[:, -1]
        return np.asarray((early + late[:, :-1]).reshape(len(x), -1))

    def cells(self, first: int, n: int) -> np.ndarray:
        """Return the cells (n,), 0 to `N_CELLS` - 1, of frames from number `first` on."""
        return np.asarray(((first + np.arange(n)) * self.hop / (self._rate * CELL_S)).astype(int) % N_CELLS)

    def gains(self) -> np.ndarray:
        """Return the factor of each bin in each cell: (N_CELLS, hop + 1)."""
        change = (CHANGE_DB * math.log(10) / 20)[self._bands]
        gains = np.ones((N_CELLS, self.hop + 1))
        # The mean power stays.
        gains[:, self._bins] = np.exp(change * _pattern(self._number)[:, self._bands]) / np.sqrt(np.cosh(2 * change))
        return gains

    def change(self, frames: np.ndarray, first: int) -> np.ndarray:
        """Return frames (channels, T, 2 hop), of which the first has the number `first`, marked and windowed."""
        gain = self.gains()[self.cells(first, frames.shape[1])][:, self._bins]
        spectrum = np.fft.rfft(frames * self._window, axis=-1)
        spectrum[..., self._bins] *= gain
        return np.asarray(np.fft.irfft(spectrum, 2 * self.hop, axis=-1) * self._window)


def mark_blocks(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Mark a sound that comes in blocks (n,) or (n, channels), float32."""
    marker = Marker(sample_rate)
    for block in blocks:
        made = marker(block)
        if len(made):
            yield made
    yield marker.finish()


def mark(wav: np.ndarray, sample_rate: int, number: int | None = None) -> np.ndarray:
    """Mark a whole sound (N,) or (N, channels), float32, with the number of a version, this one's when None."""
    marker = Marker(sample_rate, number)
    return np.concatenate([marker(wav), marker.finish()])


def mark_window(wav: np.ndarray, start: int, sample_rate: int) -> np.ndarray:
    """Mark a window (n,) of a longer sound, whose first sample has the number `start`, a multiple of 256; its outer 256 samples fade.

    Args:
        wav: Samples at 16 kHz, a multiple of 256.
        start: Number of the first sample.
        sample_rate: Must be 16000 Hz.
    """
    marker = Marker(sample_rate)
    n, hop = 2 * marker.hop, marker.hop
    frames = marker.change(np.lib.stride_tricks.sliding_window_view(wav[None], n, axis=1)[:, ::hop], start // hop + 1)[0]
    made = np.zeros(len(wav))
    made[:-hop] += frames[:, :hop].reshape(-1)
    made[hop:] += frames[:, hop:].reshape(-1)
    return made


def _deviations(wav: np.ndarray) -> np.ndarray:
    """Return how far each cell is from its neighbours in time and frequency, in dB, every 8 ms: (T, N_BANDS); 0 where there is no sound."""
    from scipy.ndimage import uniform_filter1d

    bands = np.searchsorted(EDGES_HZ, np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE), side="right") - 1
    member = (bands[:, None] == np.arange(N_BANDS)).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wav, N_FFT // 2), N_FFT)[::HOP]
    window, powers = np.hanning(N_FFT).astype(np.float32), []
    for at in range(0, len(frames), BLOCK):
        spectrum = np.fft.rfft(frames[at : at + BLOCK] * window, axis=1)
        powers.append(np.square(np.abs(spectrum)).astype(np.float32) @ (member / member.sum(axis=0)))
    power = uniform_filter1d(np.concatenate(powers), SMOOTH, axis=0, mode="constant", origin=0)
    level = 10 * np.log10(power + 1e-12)
    loud = level > 10 * math.log10(float(np.quantile(power.max(axis=1), 0.98)) + 1e-12) - RANGE_DB
    for axis, step in ((0, PER_CELL), (1, 1)):
        width = [(step, step), (0, 0)] if axis == 0 else [(0, 0), (step, step)]
        wide, n = np.pad(level, width, mode="edge"), level.shape[axis]
        level = level - 0.5 * (wide.take(range(n), axis) + wide.take(range(2 * step, n + 2 * step), axis))
    return np.asarray(np.clip(level, -MAX_DB, MAX_DB) * loud)


def _best(folded: np.ndarray) -> tuple[float, float, int]:
    """Return the largest correlation of one period (PERIOD, N_BANDS) with the pattern: as a number of standard deviations, that of the
    bands that hold the version alone, and the version's number.
    """
    cells, signs = folded.reshape(N_CELLS, PER_CELL, N_BANDS), _pattern(0)
    fixed, shifted = (
        np.fft.irfft(
            np.einsum(
                "tpb,tb->tp",
                np.fft.rfft(cells[..., first::2], axis=0),
                np.conj(np.fft.rfft(signs[:, first::2], axis=0)),
            ),
            N_CELLS,
            axis=0,
        )
        for first in (0, 1)
    )
    # For random signs the correlation's variance is the sum of squares.
    both = np.sqrt(np.square(cells).sum(axis=(0, 2)) + 1e-9)
    scores = np.stack([(fixed + np.roll(shifted, -number, axis=0)) / both for number in range(N_CELLS)])
    number, shift, phase = np.unravel_index(int(scores.argmax()), scores.shape)
    half = shifted[(shift + number) % N_CELLS, phase] / math.sqrt(np.square(cells[:, phase, 1::2]).sum() + 1e-9)
    return float(scores.max()), float(half), int(number)


def find_watermark(wav: np.ndarray, sample_rate: int) -> Watermark:
    """Look for the watermark in the first ten minutes of a sound: in all of it, and in parts of 4 s, 8 s and so on, as some may have been cut out.

    Args:
        wav: (N,) or (N, channels), which are averaged.
        sample_rate: Hz.

    Returns:
        The result. Its p-value is Hoeffding's bound for a pattern of random signs, times the number of shifts, versions and parts.
    """
    from vcae.audio.io import resample

    wav = (wav if wav.ndim == 1 else wav.mean(axis=1))[: round(MAX_S * sample_rate)].astype(np.float32)
    found = _deviations(resample(wav, sample_rate, SAMPLE_RATE))
    found = np.pad(found, ((0, -len(found) % PERIOD), (0, 0))).reshape(-1, PERIOD, N_BANDS)
    parts, length = [found.sum(axis=0)], 2
    while length < len(found):
        parts += [found[at : at + length].sum(axis=0) for at in range(0, len(found), length)]
        length *= 2
    score, half, number = max(_best(part) for part in parts)
    p_value = min(1.0, len(parts) * N_CELLS * PERIOD * math.exp(-0.5 * max(score, 0.0) ** 2))
    if p_value >= P_VALUE:
        return Watermark(False, None, p_value)
    clear = N_CELLS * math.exp(-0.5 * max(half, 0.0) ** 2) < 0.01
    return Watermark(True, VERSIONS[number - 1] if clear and 0 < number <= len(VERSIONS) else None, p_value)
