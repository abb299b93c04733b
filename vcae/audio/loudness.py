"""RMS level: scale inputs to the models' level, and outputs to the source's level or loudness envelope."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

import numpy as np

from vcae.audio.high_pass import HighPass

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
# Levels are measured after this Butterworth high-pass, which attenuates 60 Hz hum by 25 dB.
SAMPLE_RATE = 16000
LOW_CUT_HZ, LOW_CUT_ORDER = 85.0, 8
# Rumble is removed if its power exceeds this fraction of the sound's own: a high-pass at 72 Hz, with an impulse response of 0.2 s.
MAX_RUMBLE = 0.5
RUMBLE_HZ, LOW_CUT_S = 72.0, 0.2
# Quantile of frame power and of frame peaks that clicks are measured against: more than 4 times that power, or twice that peak, is a click.
LOUD = 0.98
MAX_POWER = 4.0
MAX_CREST = 2.0
# A DC offset of at most this fraction of the active level is not removed.
MAX_OFFSET = 0.1
# Attack and release of the limiter's gain in samples; 10 ms at 16 kHz.
LIMITER_WINDOW = 160
# A function that returns samples `start` to `stop` of a signal: (n,).
Read = Callable[[int, int], np.ndarray]


class LevelMeter:
    """Measures a signal's RMS level, peak and DC offset section by section; the level is that of a voice's range, without hum and rumble.

    Args:
        sample_rate: Hz.

    Attributes:
        n: Number of samples so far.
        low, high: Smallest and largest sample so far; `low` is at most 0 and `high` at least 0.
    """

    def __init__(self, sample_rate: int = SAMPLE_RATE) -> None:
        self.n, self.low, self.high = 0, 0.0, 0.0
        self._sample_rate, self._sum, self._squares = sample_rate, 0.0, 0.0
        self._powers, self._peaks = list[np.ndarray](), list[np.ndarray]()
        self._rest = np.zeros(0)
        self._filter: HighPass | None = None

    def add(self, wav: np.ndarray) -> None:
        """Add the next section (n,)."""
        if not len(wav):
            return
        wav = wav.astype(np.float64)
        if self._filter is None:
            self._filter = HighPass(self._sample_rate, LOW_CUT_HZ, LOW_CUT_ORDER, float(wav[0]))
        self.n += len(wav)
        self.low, self.high = (float(bound) for bound in (wav.min(initial=self.low), wav.max(initial=self.high)))
        self._sum, self._squares = self._sum + float(wav.sum()), self._squares + float(wav @ wav)
        heard = np.concatenate([self._rest, self._filter(wav)])
        whole = len(heard) // FRAME * FRAME
        frames = heard[:whole].reshape(-1, FRAME)
        self._powers.append(np.square(frames).mean(axis=1))
        self._peaks.append(np.abs(frames).max(axis=1))
        self._rest = heard[whole:].copy()

    @property
    def peak(self) -> float:
        """Largest magnitude."""
        return max(self.high, -self.low)

    @property
    def mean(self) -> float:
        """Mean of all samples."""
        return self._sum / max(self.n, 1)

    def has_offset(self) -> bool:
        """Return whether the DC offset is large enough to be removed."""
        return abs(self.mean) > MAX_OFFSET * self.level()

    def has_rumble(self) -> bool:
        """Return whether there is enough power below a voice's range, DC aside, to be removed."""
        whole = self._squares / max(self.n, 1) - self.mean**2
        return self.n >= FRAME and whole > (1 + MAX_RUMBLE) * float(self.powers()[: self.n // FRAME].mean())

    @property
    def peak_of_sound(self) -> float:
        """Largest magnitude without clicks, which are samples far above the peaks of the loudest fiftieth of the frames."""
        if self.n < 2 * FRAME:
            return self.peak
        peaks = np.concatenate(self._peaks)
        usual = float(np.quantile(peaks, LOUD))
        return min(self.peak, MAX_CREST * usual) if usual > 0 else self.peak

    def changed(self, offset: float = 0.0, gain: float = 1.0, most: float = math.inf) -> LevelMeter:
        """Return the measurements of the same signal minus `offset`, times `gain`, clipped at `most`."""
        meter = LevelMeter(self._sample_rate)
        meter.n, meter.low, meter.high = self.n, max(gain * (self.low - offset), -most), min(gain * (self.high - offset), most)
        meter._sum = gain * (self._sum - self.n * offset)
        meter._squares = gain**2 * max(self._squares - 2 * offset * self._sum + self.n * offset**2, 0.0)
        meter._rest = self._rest * gain
        meter._powers, meter._peaks = [gain**2 * x for x in self._powers], [np.minimum(gain * x, most) for x in self._peaks]
        return meter

    def stretched(self, n: int, speed: float) -> LevelMeter:
        """Return the measurements of the same signal said faster: `n` samples, each for `speed` of these; powers and peaks are interpolated."""
        meter, powers = LevelMeter(self._sample_rate), self.powers()
        peaks = np.concatenate(self._peaks) if self._peaks else np.zeros(0)
        meter.n, meter.low, meter.high = n, self.low, self.high
        meter._sum, meter._squares = self._sum / speed, self._squares / speed

        def resampled(x: np.ndarray, n: int) -> np.ndarray:
            return np.interp((np.arange(n) + 0.5) * speed - 0.5, np.arange(len(x)), x) if len(x) else np.zeros(n)

        frames, rest = divmod(n, FRAME)
        spoken = resampled(powers, frames + (rest > 0))
        meter._powers, meter._peaks = [spoken[:frames]], [resampled(peaks, frames)]
        if rest:
            # The last frame's power counts its missing samples as zeros.
            meter._rest = np.full(rest, math.sqrt(float(spoken[-1]) * FRAME / rest))
        return meter

    def powers(self) -> np.ndarray:
        """Return the mean square of each frame of 256 samples, the last frame zero-padded."""
        if len(self._powers) > 1:
            self._powers, self._peaks = [np.concatenate(self._powers)], [np.concatenate(self._peaks)]
        last = [np.square(self._rest).sum(keepdims=True) / FRAME] if len(self._rest) else []
        return np.concatenate([*self._powers, *last])

    def level(self, range_db: float = 30.0) -> float:
        """Return the RMS level over the active frames, those within `range_db` of the loudest; 0.0 for silence.

        No frame counts for more than `MAX_POWER` times the power of the loudest fiftieth: so a click does not raise the level.
        """
        power = self.powers()
        if self.n < FRAME:
            return float(np.sqrt(power[0] * FRAME / self.n)) if self.n else 0.0
        power = power[: self.n // FRAME]
        top = float(np.quantile(power, LOUD))
        if top <= 0:
            return float(np.sqrt(power.max()))
        power = np.minimum(power, MAX_POWER * top)
        return float(np.sqrt(power[power >= top * 10 ** (-range_db / 10)].mean()))

    @classmethod
    def of(cls, wav: np.ndarray, sample_rate: int = SAMPLE_RATE) -> LevelMeter:
        """Measure a whole signal (N,)."""
        meter = cls(sample_rate)
        meter.add(wav)
        return meter

    @property
    def gain(self) -> float:
        """Gain that brings the signal to `TARGET_LEVEL`, or its peak to `PEAK_LIMIT` if that gain is smaller, clicks ignored; 1 for silence."""
        level = self.level()
        return 1.0 if level <= 0 or self.peak <= 0 else min(TARGET_LEVEL / level, PEAK_LIMIT / self.peak_of_sound)


def active_level(wav: np.ndarray, sample_rate: int = SAMPLE_RATE) -> float:
    """Return the RMS level of a signal (N,) over its active frames, without hum and rumble; 0.0 for silence."""
    return LevelMeter.of(wav, sample_rate).level()


def normalize_level(wav: np.ndarray) -> np.ndarray:
    """Scale a signal (N,) to an active level of `TARGET_LEVEL`, or to a peak of `PEAK_LIMIT` if that gain is smaller.

    Clicks do not count for the peak and are clipped at `PEAK_LIMIT`.
    """
    return np.clip(wav * LevelMeter.of(wav).gain, -PEAK_LIMIT, PEAK_LIMIT).astype(np.float32)


@lru_cache(maxsize=4)
def _low_cut(sample_rate: int) -> np.ndarray:
    from scipy.signal import firwin

    taps = round(LOW_CUT_S * sample_rate) // 2 * 2 + 1
    return np.asarray(firwin(taps, RUMBLE_HZ, pass_zero=False, fs=sample_rate))


def cut_reach(sample_rate: int) -> int:
    """Return the receptive field of `cut_rumble` to each side, in samples."""
    return len(_low_cut(sample_rate)) // 2


def cut_rumble(wav: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Remove frequencies below a voice's range from a signal (N,) with a linear-phase filter; float32 out."""
    from scipy.signal import oaconvolve

    kernel = _low_cut(sample_rate)
    half = len(kernel) // 2
    # The edges are repeated, so that they do not ring.
    return np.asarray(oaconvolve(np.pad(wav, half, mode="edge"), kernel, mode="valid"), dtype=np.float32)


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


def follow_envelope_running(sections: Iterable[np.ndarray], wanted: LevelMeter, level: float) -> Iterator[np.ndarray]:
    """Follow an envelope as `follow_envelope` does in one pass: a section is returned as soon as its sound and the next 0.15 s are there.

    The level of the whole is not known then, so it is that of the envelope, up to the bounds of the gain.

    Args:
        sections: The signal to change, (n,) each, at about the level of `wanted`.
        wanted: Measurements of the signal that gives the envelope.
        level: Active level of the result.
    """
    target = wanted.level()
    if target <= 0:
        yield from sections
        return
    floor, half = target**2 * 1e-6, SMOOTH_FRAMES // 2 + 1
    wanted_db = _envelope_db(wanted.powers(), floor)
    meter, limiter, kept, done = LevelMeter(), RunningLimiter(1), np.zeros(0, np.float32), 0

    def ready(n_known: int, stop: int) -> np.ndarray:
        """Return the kept samples up to `stop`, from the powers of the first `n_known` frames."""
        first = max(done // FRAME - 2 * half, 0)
        present_db = _envelope_db(meter.powers()[first:n_known], floor)
        n = min(len(present_db), len(wanted_db) - first)
        gain_db = np.clip(wanted_db[first : first + n] - present_db[:n], -MAX_CUT_DB, MAX_RAISE_DB)
        at = np.interp(np.arange(done, stop), (first + np.arange(n) + 0.5) * FRAME, gain_db)
        return np.asarray(kept[: stop - done] * 10 ** (at / 20) * (level / target), np.float32)

    for section in sections:
        meter.add(section)
        kept = np.concatenate([kept, section])
        # The envelope of a frame needs the frames around it, and the gain between two frames both.
        stop = (meter.n // FRAME - half - 1) * FRAME
        if stop > done:
            block = ready(meter.n // FRAME, stop)
            kept, done = kept[stop - done :], stop
            yield limiter(block[:, None])[:, 0]
    if len(kept):
        yield limiter(ready(len(meter.powers()), meter.n)[:, None])[:, 0]
    yield limiter.finish()[:, 0]


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
    return np.asarray(wav * _limiter_gain(magnitude, window))


def _limiter_gain(magnitude: np.ndarray, window: int) -> np.ndarray:
    """Return the gain of each sample for `limit_peaks`."""
    needed = np.minimum(1.0, PEAK_LIMIT / np.maximum(magnitude, 1e-12))
    # A weighted mean of minima over the same window never exceeds the gain that a sample needs.
    half = window // 2
    lowest = _window_minimum(np.pad(needed, 2 * half, mode="edge"), 2 * half + 1)
    weights = np.hanning(2 * half + 3)[1:-1]
    gain = np.convolve(lowest, weights / weights.sum(), mode="valid")
    # Rounding can leave the sum of weights slightly below 1; samples away from peaks must not change.
    gain[gain > 1 - 1e-9] = 1.0
    return np.asarray(gain)


def _window_minimum(x: np.ndarray, size: int) -> np.ndarray:
    """Return the minimum of each `size` successive values of (N,): (N - size + 1,).

    Source: van Herk, A fast algorithm for local minimum and maximum filters on rectangular and octagonal kernels (1992).
    """
    blocks = np.pad(x, (0, -len(x) % size), constant_values=np.inf).reshape(-1, size)
    from_start = np.minimum.accumulate(blocks, axis=1).ravel()
    to_end = np.minimum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    n = len(x) - size + 1
    return np.asarray(np.minimum(to_end[:n], from_start[size - 1 : size - 1 + n]))


class RunningLimiter:
    """Limiter of the peaks of a stream by the rule of `limit_peaks`, with the same gain for all channels.

    A sample is returned when the samples of the next `LIMITER_WINDOW` are there.

    Args:
        n_channels: Number of channels.
    """

    def __init__(self, n_channels: int) -> None:
        self._wav, self._before = np.zeros((0, n_channels), np.float32), 0

    def __call__(self, block: np.ndarray, ahead: int = LIMITER_WINDOW) -> np.ndarray:
        """Add samples (n, channels) and return the output that is ready, all but the last `ahead` samples."""
        self._wav = np.concatenate([self._wav, block])
        stop = max(len(self._wav) - ahead, self._before)
        magnitude = np.abs(self._wav).max(axis=1, initial=0.0)
        limited = self._wav
        if magnitude.max(initial=0.0) > PEAK_LIMIT:
            limited = (self._wav * _limiter_gain(magnitude, LIMITER_WINDOW)[:, None]).astype(np.float32)
        out, drop = limited[self._before : stop], max(stop - LIMITER_WINDOW, 0)
        self._wav, self._before = self._wav[drop:], stop - drop
        return np.asarray(out)

    def finish(self) -> np.ndarray:
        """Return the rest after the last input."""
        return self(self._wav[:0], 0)
