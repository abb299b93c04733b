"""Level: bring inputs to the models' level, and give outputs the source's."""

from __future__ import annotations

import numpy as np

# RMS of the frames that carry sound, in training data and in every input of the models (-24.4 dBFS).
TARGET_LEVEL = 0.06
PEAK_LIMIT = 0.98
# A signal whose active level lies under this (-80 dBFS) counts as silent.
SILENCE_LEVEL = 1e-4
FRAME = 256
# Envelope following: length of the smoothing window, and bounds of the gain relative to the overall level.
SMOOTH_FRAMES = 15
MAX_RAISE_DB = 6.0
MAX_CUT_DB = 20.0


def active_level(wav: np.ndarray, frame: int = FRAME, range_db: float = 30.0) -> float:
    """Return the RMS over the frames that carry sound.

    Args:
        wav: (N,).
        frame: Samples a frame.
        range_db: Frames this far under the loudest are left out.

    Returns:
        RMS, 0.0 for silence.
    """
    n = len(wav) // frame
    if n == 0:
        return float(np.sqrt(np.mean(np.square(wav, dtype=np.float64)))) if len(wav) else 0.0
    power = np.square(wav[: n * frame].reshape(n, frame), dtype=np.float64).mean(axis=1)
    top = float(np.quantile(power, 0.98))
    if top <= 0:
        return float(np.sqrt(power.max()))
    return float(np.sqrt(power[power >= top * 10 ** (-range_db / 10)].mean()))


def normalize_level(wav: np.ndarray) -> np.ndarray:
    """Scale a signal (N,) so that its active frames have `TARGET_LEVEL`, or its peak `PEAK_LIMIT` if that comes first."""
    level, peak = active_level(wav), float(np.abs(wav).max(initial=0.0))
    if level <= 0 or peak <= 0:
        return wav
    return (wav * min(TARGET_LEVEL / level, PEAK_LIMIT / peak)).astype(np.float32)


def set_level(wav: np.ndarray, level: float) -> np.ndarray:
    """Scale a signal (N,) to an active level, its peaks limited to `PEAK_LIMIT`."""
    return np.asarray(limit_peaks(wav * (level / max(active_level(wav), 1e-12))), dtype=np.float32)


def _envelope_db(wav: np.ndarray, floor: float) -> np.ndarray:
    padded = np.pad(wav.astype(np.float64), (0, -len(wav) % FRAME))
    power = np.square(padded).reshape(-1, FRAME).mean(axis=1)
    window = np.hanning(SMOOTH_FRAMES + 2)[1:-1]
    n = len(power)
    first = len(window) // 2
    weight = np.convolve(np.ones(n), window)[first : first + n]
    return np.asarray(10 * np.log10(np.convolve(power, window)[first : first + n] / weight + floor))


def follow_envelope(wav: np.ndarray, source: np.ndarray, level: float | None = None) -> np.ndarray:
    """Give a signal the loudness envelope of another one, and its level.

    The envelope is smoothed over 15 frames of 16 ms: syllables are followed, the sound inside them is left alone. It is
    followed upwards by at most `MAX_RAISE_DB` and downwards by at most `MAX_CUT_DB`, so pauses stay pauses.

    Args:
        wav: (N,), what to shape.
        source: (N,), whose envelope to take, at the same rate.
        level: Active level of the result; that of `source` when None.

    Returns:
        (N,) float32, its peaks limited to `PEAK_LIMIT`.
    """
    wanted, present = active_level(source), active_level(wav)
    if present <= 0 or wanted <= 0:
        return wav
    scaled = wav * (wanted / present)
    floor = wanted**2 * 1e-6
    gain_db = _envelope_db(source, floor) - _envelope_db(scaled, floor)
    gain_db = np.clip(gain_db, -MAX_CUT_DB, MAX_RAISE_DB)
    centres = (np.arange(len(gain_db)) + 0.5) * FRAME
    shaped = scaled * 10 ** (np.interp(np.arange(len(wav)), centres, gain_db) / 20)
    shaped *= (wanted if level is None else level) / max(active_level(shaped), 1e-12)
    return limit_peaks(shaped).astype(np.float32)


def limit_peaks(wav: np.ndarray, window: int = 160) -> np.ndarray:
    """Turn peaks over `PEAK_LIMIT` down, smoothly and only around them, so that the level stays.

    Args:
        wav: (N,).
        window: Samples over which the gain comes and goes; 10 ms at 16 kHz.

    Returns:
        (N,), nowhere over `PEAK_LIMIT`.
    """
    magnitude = np.abs(wav)
    if magnitude.max(initial=0.0) <= PEAK_LIMIT:
        return wav
    from scipy.ndimage import minimum_filter1d

    needed = np.minimum(1.0, PEAK_LIMIT / np.maximum(magnitude, 1e-12))
    # A weighted mean of minima over the same reach is never over the gain that a sample needs.
    half = window // 2
    lowest = minimum_filter1d(np.pad(needed, half, mode="edge"), 2 * half + 1)
    weights = np.hanning(2 * half + 3)[1:-1]
    gain = np.convolve(lowest, weights / weights.sum(), mode="valid")
    # A sum of weights may come out a hair under 1: where no peak is near, nothing may change.
    gain[gain > 1 - 1e-9] = 1.0
    return np.asarray(wav * gain)
