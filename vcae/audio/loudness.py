"""RMS level: scale inputs to the models' level, and outputs to the source's level or loudness envelope."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

# RMS of the frames that carry sound, in training data and in every input of the models (-24.4 dBFS).
TARGET_LEVEL = 0.06
PEAK_LIMIT = 0.98
# A signal whose active level is below this (-80 dBFS) counts as silent.
SILENCE_LEVEL = 1e-4
FRAME = 256
# Envelope following: length of the smoothing window, and bounds of the gain relative to the overall level.
SMOOTH_FRAMES = 15
MAX_RAISE_DB = 6.0
MAX_CUT_DB = 20.0
# A DC offset of at most this fraction of the active level is not removed.
MAX_OFFSET = 0.1
# Attack and release of the limiter's gain in samples; 10 ms at 16 kHz.
LIMITER_WINDOW = 160
# A function that returns samples `start` to `stop` of a signal: (n,).
Read = Callable[[int, int], np.ndarray]


class LevelMeter:
    """Measures a signal's RMS level, peak and DC offset section by section.

    Attributes:
        n: Number of samples so far.
        low, high: Smallest and largest sample so far; `low` is at most 0 and `high` at least 0.
    """

    def __init__(self) -> None:
        self.n, self.low, self.high = 0, 0.0, 0.0
        self._powers, self._means = list[np.ndarray](), list[np.ndarray]()
        self._rest = np.zeros(0, np.float32)

    def add(self, wav: np.ndarray) -> None:
        """Add the next section (n,)."""
        self.n += len(wav)
        self.low, self.high = (float(bound) for bound in (wav.min(initial=self.low), wav.max(initial=self.high)))
        wav = np.concatenate([self._rest, wav]) if len(self._rest) else wav
        whole = len(wav) // FRAME * FRAME
        frames = wav[:whole].reshape(-1, FRAME)
        self._powers.append(np.square(frames, dtype=np.float64).mean(axis=1))
        self._means.append(frames.mean(axis=1, dtype=np.float64))
        self._rest = wav[whole:].copy()

    @property
    def peak(self) -> float:
        """Largest magnitude."""
        return max(self.high, -self.low)

    @property
    def mean(self) -> float:
        """Mean of all samples."""
        total = sum(float(means.sum()) for means in self._means) * FRAME + float(self._rest.sum(dtype=np.float64))
        return total / max(self.n, 1)

    def has_offset(self) -> bool:
        """Return whether the DC offset is large enough to be removed."""
        return abs(self.mean) > MAX_OFFSET * self.changed(self.mean).level()

    def changed(self, offset: float = 0.0, gain: float = 1.0) -> LevelMeter:
        """Return the measurements of the same signal after subtracting `offset` and multiplying by `gain`."""
        meter = LevelMeter()
        meter.n, meter.low, meter.high = self.n, gain * (self.low - offset), gain * (self.high - offset)
        meter._rest = (self._rest - np.float32(offset)) * np.float32(gain)
        meter._means = [gain * (means - offset) for means in self._means]
        meter._powers = [
            gain**2 * np.maximum(powers - 2 * offset * means + offset**2, 0)
            for powers, means in zip(self._powers, self._means, strict=True)
        ]
        return meter

    def powers(self) -> np.ndarray:
        """Return the mean square of each frame of 256 samples, the last frame zero-padded."""
        if len(self._powers) > 1:
            self._powers, self._means = [np.concatenate(self._powers)], [np.concatenate(self._means)]
        last = [np.square(self._rest, dtype=np.float64).sum(keepdims=True) / FRAME] if len(self._rest) else []
        return np.concatenate([*self._powers, *last])

    def level(self, range_db: float = 30.0) -> float:
        """Return the RMS level over the active frames, those within `range_db` of the loudest; 0.0 for silence."""
        power = self.powers()
        if self.n < FRAME:
            return float(np.sqrt(power[0] * FRAME / self.n)) if self.n else 0.0
        power = power[: self.n // FRAME]
        top = float(np.quantile(power, 0.98))
        if top <= 0:
            return float(np.sqrt(power.max()))
        return float(np.sqrt(power[power >= top * 10 ** (-range_db / 10)].mean()))

    @classmethod
    def of(cls, wav: np.ndarray) -> LevelMeter:
        """Measure a whole signal (N,)."""
        meter = cls()
        meter.add(wav)
        return meter

    @property
    def gain(self) -> float:
        """Gain that brings the signal to `TARGET_LEVEL`, or its peak to `PEAK_LIMIT` if that gain is smaller; 1 for silence."""
        level = self.level()
        return 1.0 if level <= 0 or self.peak <= 0 else min(TARGET_LEVEL / level, PEAK_LIMIT / self.peak)


def active_level(wav: np.ndarray) -> float:
    """Return the RMS level of a signal (N,) over its active frames, 0.0 for silence."""
    return LevelMeter.of(wav).level()


def normalize_level(wav: np.ndarray) -> np.ndarray:
    """Scale a signal (N,) to an active level of `TARGET_LEVEL`, or to a peak of `PEAK_LIMIT` if that gain is smaller."""
    return (wav * LevelMeter.of(wav).gain).astype(np.float32)


def set_level(wav: np.ndarray, level: float) -> np.ndarray:
    """Scale a signal (N,) to an active level, its peaks limited to `PEAK_LIMIT`."""
    return next(set_level_sections(lambda start, stop: wav[start:stop], LevelMeter.of(wav), level, max(len(wav), 1)))


def set_level_sections(read: Read, present: LevelMeter, level: float, step: int) -> Iterator[np.ndarray]:
    """Apply `set_level` in sections of `step` samples to the signal that `read` returns and `present` has measured."""
    factor = level / max(present.level(), 1e-12)
    yield from _limit_sections(lambda start, stop: read(start, stop) * factor, present.n, present.peak * factor, step)


def _envelope_db(power: np.ndarray, floor: float) -> np.ndarray:
    window = np.hanning(SMOOTH_FRAMES + 2)[1:-1]
    n = len(power)
    first = len(window) // 2
    weight = np.convolve(np.ones(n), window)[first : first + n]
    return np.asarray(10 * np.log10(np.convolve(power, window)[first : first + n] / weight + floor))


def follow_envelope(wav: np.ndarray, source: np.ndarray, level: float | None = None) -> np.ndarray:
    """Give a signal the loudness envelope and the level of another one.

    The envelope is smoothed over 15 frames of 16 ms, so the gain follows syllables and does not change the sound within them. It
    amplifies by at most `MAX_RAISE_DB` and attenuates by at most `MAX_CUT_DB`, so pauses stay pauses.

    Args:
        wav: (N,), the signal to change.
        source: (N,), the signal that gives the envelope, at the same rate.
        level: Active level of the result; that of `source` when None.

    Returns:
        (N,) float32, its peaks limited to `PEAK_LIMIT`.
    """

    def read(start: int, stop: int) -> np.ndarray:
        return wav[start:stop]

    return next(follow_envelope_sections(read, LevelMeter.of(wav), LevelMeter.of(source), level, max(len(wav), 1)))


def follow_envelope_sections(
    read: Read, present: LevelMeter, wanted: LevelMeter, level: float | None, step: int
) -> Iterator[np.ndarray]:
    """Apply `follow_envelope` in sections.

    Args:
        read: Returns samples of the signal to change; the signal is read twice.
        present: Measurements of the signal to change.
        wanted: Measurements of the signal that gives the envelope.
        level: As in `follow_envelope`.
        step: Samples per section.
    """
    n, target = present.n, wanted.level()
    if present.level() <= 0 or target <= 0:
        yield from (read(start, min(start + step, n)) for start in range(0, n, step))
        return
    scale, floor = target / present.level(), target**2 * 1e-6
    gain_db = _envelope_db(wanted.powers(), floor) - _envelope_db(present.powers() * scale**2, floor)
    gain_db = np.clip(gain_db, -MAX_CUT_DB, MAX_RAISE_DB)
    centres = (np.arange(len(gain_db)) + 0.5) * FRAME

    def shaped(start: int, stop: int) -> np.ndarray:
        gain = 10 ** (np.interp(np.arange(start, stop), centres, gain_db) / 20)
        return np.asarray(read(start, stop) * scale * gain)

    meter = LevelMeter()
    for start in range(0, n, step):
        meter.add(shaped(start, min(start + step, n)))
    yield from set_level_sections(shaped, meter, target if level is None else level, step)


def _limit_sections(read: Read, n: int, peak: float, step: int) -> Iterator[np.ndarray]:
    context = LIMITER_WINDOW if peak > PEAK_LIMIT else 0
    for start in range(0, n, step):
        stop = min(start + step, n)
        first = max(start - context, 0)
        limited = limit_peaks(read(first, min(stop + context, n)))
        yield limited[start - first : stop - first].astype(np.float32)


def limit_peaks(wav: np.ndarray, window: int = LIMITER_WINDOW) -> np.ndarray:
    """Attenuate peaks over `PEAK_LIMIT` smoothly and only around them, so that the level stays the same.

    Args:
        wav: (N,).
        window: Attack and release of the gain in samples.

    Returns:
        (N,), nowhere over `PEAK_LIMIT`.
    """
    magnitude = np.abs(wav)
    if magnitude.max(initial=0.0) <= PEAK_LIMIT:
        return wav
    from scipy.ndimage import minimum_filter1d

    needed = np.minimum(1.0, PEAK_LIMIT / np.maximum(magnitude, 1e-12))
    # A weighted mean of minima over the same window never exceeds the gain that a sample needs.
    half = window // 2
    lowest = minimum_filter1d(np.pad(needed, half, mode="edge"), 2 * half + 1)
    weights = np.hanning(2 * half + 3)[1:-1]
    gain = np.convolve(lowest, weights / weights.sum(), mode="valid")
    # Rounding can leave the sum of weights slightly below 1; samples away from peaks must not change.
    gain[gain > 1 - 1e-9] = 1.0
    return np.asarray(wav * gain)
