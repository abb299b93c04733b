"""Synthetic sounds: random sums of noises, tones, chirps and strokes, for outlier exposure."""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 16000
# Range of the sources' frequencies in Hz; the highest is below half the sample rate.
LOWEST_HZ, HIGHEST_HZ = 40.0, 7600.0


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a log-uniform number."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _coloured_noise(rng: np.random.Generator, n: int) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(n))
    return np.asarray(np.fft.irfft(spectrum * np.maximum(np.fft.rfftfreq(n), 1e-4) ** rng.uniform(-1.2, 0.5), n))


def _band_noise(rng: np.random.Generator, n: int) -> np.ndarray:
    low = _between(rng, 60, 4000)
    high = min(low * _between(rng, 1.1, 7), HIGHEST_HZ)
    frequencies = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    # Slopes of 24 dB per octave outside of the band.
    gain = np.minimum(1, np.maximum(frequencies, 1) / low) ** 4 * np.minimum(1, high / np.maximum(frequencies, 1)) ** 4
    return np.asarray(np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * gain, n))


def _wander(rng: np.random.Generator, n: int, step: int) -> np.ndarray:
    """Return a random walk (n,) with a step every `step` samples, standardised to zero mean and unit variance."""
    walk = np.cumsum(rng.standard_normal(n // step + 2))
    values = np.interp(np.arange(n) / step, np.arange(len(walk)), walk)
    return np.asarray((values - values.mean()) / (values.std() + 1e-9))


def _harmonics(rng: np.random.Generator, n: int) -> np.ndarray:
    f0 = _between(rng, LOWEST_HZ, 1200)
    phase = 2 * np.pi * np.cumsum(f0 * np.exp(rng.choice([0.0, 0.02, 0.1]) * _wander(rng, n, 800))) / SAMPLE_RATE
    tilt, count = rng.uniform(-2, 0), int(min(40, HIGHEST_HZ / (1.3 * f0)))
    tones = [k**tilt * np.sin(k * phase + rng.uniform(0, 2 * np.pi)) for k in range(1, count + 1)]
    return np.asarray(np.sum(tones, axis=0))


def _partials(rng: np.random.Generator, n: int) -> np.ndarray:
    t = np.arange(n) / SAMPLE_RATE
    tones = [rng.uniform(0.1, 1) * np.sin(2 * np.pi * _between(rng, 80, 7000) * t) for _ in range(rng.integers(1, 10))]
    return np.asarray(np.sum(tones, axis=0))


def _chirps(rng: np.random.Generator, n: int) -> np.ndarray:
    period, start, end = rng.uniform(0.1, 2), _between(rng, 100, 7000), _between(rng, 100, 7000)
    frequency = start * (end / start) ** ((np.arange(n) / SAMPLE_RATE % period) / period)
    return np.asarray(np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE))


def _strokes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return an envelope of decaying strokes, regular or at random times."""
    rate, decay, regular = _between(rng, 0.3, 15), _between(rng, 0.005, 0.5), rng.random() < 0.5
    envelope = np.full(n, 1e-4)
    at = rng.uniform(0, 1 / rate)
    while at < n / SAMPLE_RATE:
        first = int(at * SAMPLE_RATE)
        length = min(n - first, int(6 * decay * SAMPLE_RATE) + 1)
        envelope[first : first + length] += rng.uniform(0.3, 1) * np.exp(-np.arange(length) / SAMPLE_RATE / decay)
        at += 1 / rate if regular else rng.exponential(1 / rate)
    return envelope


def _envelope(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return the envelope (n,) of a source: steady, periodic, in strokes, a random walk, or a single event."""
    kind = rng.integers(5)
    if kind == 0:
        return np.ones(n)
    if kind == 1:
        swing = np.sin(2 * np.pi * _between(rng, 0.5, 40) * np.arange(n) / SAMPLE_RATE)
        return np.asarray(1 + rng.uniform(0.2, 1) * swing)
    if kind == 2:
        return _strokes(rng, n)
    if kind == 3:
        return np.asarray(np.exp(rng.uniform(0.2, 1.2) * _wander(rng, n, 400)))
    start, end = np.sort(rng.integers(0, n, 2))
    envelope = np.full(n, 10 ** rng.uniform(-4, -1))
    envelope[start : max(end, start + SAMPLE_RATE // 20)] = 1
    return envelope


SOURCES = (_coloured_noise, _band_noise, _harmonics, _partials, _chirps)


def synthesize(seed: int, seconds: float = 5.0) -> np.ndarray:
    """Synthesise a sound of one to three sources with envelopes and a random filter, over a noise floor.

    Args:
        seed: The same seed gives the same sound.
        seconds: Duration.

    Returns:
        (N,) float32 at 16 kHz, with a peak of at most 1.
    """
    rng = np.random.default_rng(seed)
    n = round(seconds * SAMPLE_RATE)
    wav = np.zeros(n)
    for _ in range(rng.integers(1, 4)):
        source = SOURCES[rng.integers(len(SOURCES))](rng, n) * _envelope(rng, n)
        wav += source / (np.sqrt(np.square(source).mean()) + 1e-9) * 10 ** (rng.uniform(-20, 0) / 20)
    frequencies = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    gain_db = np.interp(np.log(frequencies + 50), np.linspace(np.log(50), np.log(8050), 7), 4 * rng.standard_normal(7))
    wav = np.fft.irfft(np.fft.rfft(wav) * 10 ** (gain_db / 20), n)
    wav *= 10 ** (rng.uniform(-30, 0) / 20) / np.abs(wav).max()
    floor = rng.standard_normal(n) * 10 ** (rng.uniform(-80, -30) / 20)
    return np.clip(wav + floor, -1, 1).astype(np.float32)
