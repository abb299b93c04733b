"""Arithmetic of frames and F0 as in `vcae.audio`, `vcae.voice` and `vcae.vocoder`, in NumPy."""

from __future__ import annotations

import math

import numpy as np

# Values of vcae.audio.frames, vcae.voice.matching and vcae.voice.pitch, which a test compares.
ACTIVE_RANGE = 3.5
N_QUANTILES, OUTERMOST, MIN_FRAMES = 25, 0.02, 20
SPREAD_BOUNDS = (0.7, 1.4)
NOISE_BLOCK = 16384


def active_levels(level: np.ndarray) -> np.ndarray:
    """Mark the frames that carry sound, from their mean levels (T,): (T,) bool."""
    top = np.sort(level)[int((len(level) - 1) * 0.95)]
    return np.asarray(level > top - np.float32(ACTIVE_RANGE))


def active_frames(mel: np.ndarray) -> np.ndarray:
    """Mark the frames of a log-mel (n_mels, T) that carry sound: (T,) bool."""
    return active_levels(mel.mean(axis=0))


def log_f0_statistics(f0: np.ndarray) -> tuple[float, float]:
    """Return median and standard deviation of log-F0 of F0 (T,) in Hz, 0 where unvoiced; (nan, nan) without voiced frames."""
    voiced = f0[f0 > 0].astype(np.float64)
    if not len(voiced):
        return math.nan, math.nan
    # Of the float32 logarithms, as in vcae.audio.f0.
    low, middle, high = np.quantile(np.log(voiced), [0.16, 0.5, 0.84])
    return float(middle), float(high - low) / 2


def log_f0_mean(f0: np.ndarray) -> float:
    """Return the mean of log-F0 over voiced frames of F0 (T,); 0 without any."""
    voiced = f0[f0 > 0]
    return float(np.log(voiced).mean()) if len(voiced) else 0.0


def continuous_log_f0(f0: np.ndarray, default_hz: float = 150.0) -> np.ndarray:
    """Fill unvoiced frames of F0 (T,) by linear interpolation of log-F0: (T,), natural log of Hz."""
    at = np.flatnonzero(f0 > 0)
    if not len(at):
        return np.full(len(f0), math.log(default_hz), np.float32)
    return np.asarray(np.interp(np.arange(len(f0)), at, np.log(f0[at])), np.float32)


def move_f0(f0: np.ndarray, pitch: str | float, median: float, spread: float, lowest: float, highest: float) -> np.ndarray:
    """Move F0 (T,) to a voice's range, keep it, or shift it by semitones, see `vcae.voice.pitch.convert_f0`.

    Args:
        f0: In Hz, 0 where unvoiced.
        pitch: `auto`, `keep`, or semitones.
        median: Median of the voice's log-F0; nan if unknown.
        spread: Standard deviation of the voice's log-F0.
        lowest: Lowest F0 of the result in Hz.
        highest: Highest F0 of the result in Hz.
    """
    voiced = f0 > 0
    if pitch == "keep" or not voiced.any():
        return f0
    log_f0 = np.log(np.maximum(f0, np.float32(lowest)))
    if pitch == "auto":
        if math.isnan(median):
            return f0
        own_median, own_spread = log_f0_statistics(f0)
        ratio = min(max(spread / max(own_spread, 1e-3), SPREAD_BOUNDS[0]), SPREAD_BOUNDS[1])
        log_f0 = median + (log_f0 - own_median) * ratio
    else:
        log_f0 = log_f0 + float(pitch) * math.log(2) / 12
    return np.where(voiced, np.clip(np.exp(log_f0), lowest, highest), 0.0).astype(np.float32)


def pulse_turns(log_f0: np.ndarray, sample_rate: int, hop_length: int) -> np.ndarray:
    """Return the phase of the pulse train before each frame, in cycles, see `vcae.vocoder.excitation.PitchTrack`: (T,)."""
    exact = np.exp(log_f0).astype(np.float64)
    right = np.concatenate([exact[1:], exact[-1:]])
    advance = exact * hop_length + (right - exact) * (hop_length - 1) / 2
    return np.asarray((np.cumsum(advance) - advance) / sample_rate % 1, np.float32)


def white_noise(seed: int, start: int, stop: int) -> np.ndarray:
    """Return samples `start` to `stop` of the noise of `vcae.vocoder.excitation.white_noise`: (stop - start,)."""
    first, last = start // NOISE_BLOCK, -(-stop // NOISE_BLOCK)
    blocks = [
        np.random.default_rng([seed, i]).standard_normal((1, NOISE_BLOCK), dtype=np.float32)[0] for i in range(first, last)
    ]
    return np.concatenate(blocks)[start - first * NOISE_BLOCK : stop - first * NOISE_BLOCK]


def band_quantiles(frames: np.ndarray) -> np.ndarray | None:
    """Return the quantiles (n_mels, N_QUANTILES) of frames (n_mels, n); None for fewer than `MIN_FRAMES`."""
    n = frames.shape[1]
    if n < MIN_FRAMES:
        return None
    at = np.linspace(OUTERMOST, 1 - OUTERMOST, N_QUANTILES, dtype=np.float32) * np.float32(n - 1)
    left = np.minimum(np.floor(at).astype(int), n - 2)
    ordered = np.sort(frames, axis=1)
    share = (at - left).astype(np.float32)
    return np.asarray(ordered[:, left] + (ordered[:, left + 1] - ordered[:, left]) * share)


def map_quantiles(
    mel: np.ndarray, f0: np.ndarray, have: list[np.ndarray | None], wanted: list[np.ndarray | None], strength: float
) -> np.ndarray:
    """Move the quantiles of each band towards those of a voice, see `vcae.voice.matching.map_quantiles`.

    Args:
        mel: (n_mels, T).
        f0: (T,) in Hz, 0 where unvoiced.
        have: Quantiles of the recording, of unvoiced and of voiced frames.
        wanted: Those of the voice.
        strength: 0 to 1.
    """
    matched = mel.copy()
    rising = np.arange(N_QUANTILES, dtype=np.float32) * np.float32(1e-5)
    for present, goal, frames in zip(have, wanted, (f0 <= 0, f0 > 0), strict=True):
        if present is None or goal is None or not frames.any():
            continue
        for band, (old, new) in enumerate(zip(present + rising, goal + rising, strict=True)):
            x = mel[band, frames]
            moved = np.interp(x, old, new) + np.minimum(x - old[0], 0) + np.maximum(x - old[-1], 0)
            matched[band, frames] = x + strength * (moved - x)
    return np.asarray(matched)
