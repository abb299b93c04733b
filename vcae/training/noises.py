"""Noises that are made, not recorded: each kind is a recipe with random numbers, at unit level."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

Maker = Callable[[np.random.Generator, int, int], np.ndarray]


def coloured(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Make noise whose level falls by -3 to 12 dB an octave, with broad bumps: fans, rain, wind, traffic far away; some of it swells."""
    hz = np.fft.rfftfreq(n, 1 / sample_rate)
    slope = rng.uniform(-3, 12)
    knots = np.interp(np.log2(np.maximum(hz, 30)), np.linspace(np.log2(30), np.log2(sample_rate / 2), 9), rng.normal(0, 5, 9))
    gain = 10 ** ((knots - slope * np.log2(np.maximum(hz, 60) / 1000)) / 20)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * gain, n)
    return np.asarray(noise * swells(rng, n, sample_rate))


def swells(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Draw a gain that stays (half of the time), beats regularly, or wanders as gusts do."""
    kind = rng.random()
    if kind < 0.5:
        return np.ones(n)
    if kind < 0.75:
        return 1 + rng.uniform(0.2, 1) * np.sin(
            2 * np.pi * rng.uniform(0.2, 25) * np.arange(n) / sample_rate + rng.uniform(0, 6)
        )
    n_knots = max(int(n / sample_rate * rng.uniform(0.5, 4)), 2)
    return 10 ** (np.interp(np.linspace(0, n_knots, n), np.arange(n_knots + 1), rng.normal(0, 8, n_knots + 1)) / 20)


def harmonics(phase: np.ndarray, f0: np.ndarray, rng: np.random.Generator, sample_rate: int, fall: float) -> np.ndarray:
    """Sum partials on a phase in cycles, under 7.5 kHz, of random strength, falling as k to the power -fall."""
    total = np.zeros(len(phase))
    for k in range(1, 25):
        strength = k**-fall * rng.uniform(0.1, 1)
        if strength > 3e-3 and k * float(f0.min()) < 7500:
            total += strength * np.sin(2 * np.pi * (k * phase + rng.random())) * (k * f0 < 7500)
    return total


def hum(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Make hums: mains, transformers, horns: steady partials of one to three tones, some of them on and off."""
    total = np.zeros(n)
    for _ in range(rng.integers(1, 4)):
        f0 = np.full(n, np.exp(rng.uniform(np.log(45), np.log(900))))
        total += rng.uniform(0.3, 1) * harmonics(np.cumsum(f0) / sample_rate, f0, rng, sample_rate, rng.uniform(0.3, 2))
    if rng.random() < 0.4:
        total *= np.repeat(rng.random(n // 4000 + 1) < 0.6, 4000)[:n]
    return total + rng.uniform(0, 0.1) * rng.standard_normal(n)


def sweep(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Make sirens, alarms, gears: tones that rise and fall, or jump between pitches."""
    time, rate = np.arange(n) / sample_rate, np.exp(rng.uniform(np.log(0.1), np.log(8)))
    turn = (rate * time + rng.random()) % 1
    shape = (np.sin(2 * np.pi * turn), 4 * np.abs(turn - 0.5) - 1, 2 * turn - 1, np.sign(turn - 0.5))[rng.integers(4)]
    f0 = np.exp(rng.uniform(np.log(150), np.log(2500))) * 2 ** (rng.uniform(0.1, 1.2) * shape)
    return harmonics(np.cumsum(f0) / sample_rate, f0, rng, sample_rate, rng.uniform(0.5, 2.5)) + 0.03 * rng.standard_normal(n)


def engine(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Make engines, drills, hammers: pulses of noise at a wavering rate, through resonances."""
    n_knots = max(int(n / sample_rate * 2), 2)
    waver = np.interp(np.linspace(0, n_knots, n), np.arange(n_knots + 1), np.cumsum(rng.normal(0, 0.05, n_knots + 1)))
    rate = np.exp(rng.uniform(np.log(8), np.log(300))) * np.exp(waver)
    turn = np.cumsum(rate) / sample_rate
    pulses = np.exp(-(turn % 1) * rng.uniform(1, 12))
    noise = pulses * rng.standard_normal(n) + rng.uniform(0, 1) * (pulses - pulses.mean())
    total = rng.uniform(0, 0.5) * noise
    for _ in range(rng.integers(1, 5)):
        total = total + rng.uniform(0.2, 1) * resonate(noise, rng, sample_rate, 50, 5000, 2, 15)
    whine = harmonics(turn, rate, rng, sample_rate, rng.uniform(0.5, 1.5))
    return np.asarray(total + rng.uniform(0, 0.3) * whine * np.std(total))


def resonate(
    x: np.ndarray, rng: np.random.Generator, sample_rate: int, low: float, high: float, q_min: float, q_max: float
) -> np.ndarray:
    """Pass a signal through one resonance at a random place from `low` to `high` Hz, of a random sharpness, at unit level."""
    angle = 2 * np.pi * np.exp(rng.uniform(np.log(low), np.log(high))) / sample_rate
    radius = np.exp(-angle / 2 / np.exp(rng.uniform(np.log(q_min), np.log(q_max))))
    y = lfilter([1, 0, -1], [1, -2 * radius * np.cos(angle), radius**2], x)
    return np.asarray(y / max(float(np.std(y)), 1e-9))


def impacts(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Make knocks, keys, dishes, shots, steps: bursts at random or regular times, ringing in a few resonances."""
    hits, rate = np.zeros(n), np.exp(rng.uniform(np.log(0.7), np.log(30)))
    if rng.random() < 0.4:
        times = np.arange(rng.random() / rate, n / sample_rate, 1 / rate)
    else:
        times = rng.uniform(0, n / sample_rate, max(rng.poisson(rate * n / sample_rate), 1))
    length = int(np.exp(rng.uniform(np.log(0.001), np.log(0.15))) * sample_rate) + 1
    burst = np.exp(-4 * np.arange(length) / length)
    for at in (times * sample_rate).astype(int):
        piece = burst[: n - at] * 10 ** (rng.normal(0, 5) / 20)
        hits[at : at + length] += piece * rng.standard_normal(len(piece))
    total = rng.uniform(0.1, 1) * hits / max(float(np.std(hits)), 1e-9)
    for _ in range(rng.integers(0, 5)):
        total = total + rng.uniform(0.2, 1) * resonate(hits, rng, sample_rate, 80, 6500, 2, 120)
    return total + rng.uniform(0, 0.05) * rng.standard_normal(n)


def music(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Play notes of a scale, with attacks and decays, some with vibrato; a beat under some of it."""
    total, fall, decay = np.zeros(n), rng.uniform(0.6, 2), rng.uniform(0.1, 3)
    root, beat = rng.uniform(80, 250), rng.uniform(0.12, 0.6)
    for k in range(int(n / sample_rate / beat)):
        for _ in range(rng.integers(0, 4)):
            at = int(k * beat * sample_rate)
            m = min(int(rng.uniform(1, 5) * beat * sample_rate), n - at)
            time = np.arange(m) / sample_rate
            vibrato = 1 + rng.choice([0.0, 0.01]) * np.sin(2 * np.pi * 5.5 * time)
            f0 = root * 2 ** (float(rng.choice([0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 19, 24])) / 12) * vibrato
            note = harmonics(np.cumsum(f0) / sample_rate, f0, rng, sample_rate, fall)
            total[at : at + m] += (
                note * np.exp(-time / decay) * np.minimum(time / 0.01, 1) * np.minimum((m - np.arange(m)) / 200, 1)
            )
    if rng.random() < 0.5:
        total = total / max(float(np.std(total)), 1e-9) + rng.uniform(0.2, 1) * unit(impacts(rng, n, sample_rate))
    return total + 1e-3 * rng.standard_normal(n)


def calls(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Make barks, cries, crowing, birds, horns, coughs: short tones that glide or rough noise, through resonances, with pauses between them.

    All calls of one noise are of one kind, each somewhat different.
    """
    total, at = np.zeros(n), int(rng.uniform(0, 0.5) * sample_rate)
    length, pause = np.exp(rng.uniform(np.log(0.06), np.log(1.2))), np.exp(rng.uniform(np.log(0.05), np.log(1.5)))
    low, glide, rough = np.exp(rng.uniform(np.log(200), np.log(3000))), rng.uniform(0, 0.8), rng.random() * rng.choice([0.1, 1])
    fall, shape_seed = rng.uniform(0.2, 2), int(rng.integers(1 << 30))
    while at < n - sample_rate // 50:
        m = min(int(length * rng.uniform(0.7, 1.4) * sample_rate), n - at)
        place = np.linspace(0, 1, m)
        bend = np.interp(
            place, np.linspace(0, 1, 5), np.random.default_rng(shape_seed).uniform(-1, 1, 5) + rng.normal(0, 0.15, 5)
        )
        f0 = (
            low
            * 2 ** (glide * bend)
            * (1 + 0.02 * rng.random() * np.sin(2 * np.pi * rng.uniform(4, 40) * place * m / sample_rate))
        )
        call = unit(harmonics(np.cumsum(f0) / sample_rate, f0, rng, sample_rate, fall)) + rough * rng.standard_normal(m)
        same = np.random.default_rng(shape_seed)
        for _ in range(same.integers(0, 4)):
            call = call + same.uniform(0.3, 1.5) * resonate(call, same, sample_rate, 300, 5000, 1, 8)
        rise, end = rng.uniform(0.01, 0.3), rng.uniform(0.05, 0.6)
        total[at : at + m] += (
            10 ** (rng.normal(0, 3) / 20) * unit(call) * np.minimum(place / rise, 1) * np.minimum((1 - place) / end, 1)
        )
        at += m + int(pause * rng.uniform(0.5, 2) * sample_rate)
    return total + 1e-3 * rng.standard_normal(n)


def unit(x: np.ndarray) -> np.ndarray:
    """Scale to a standard deviation of one."""
    return x / max(float(np.std(x)), 1e-9)


MAKERS: dict[str, Maker] = {
    "coloured": coloured,
    "hum": hum,
    "sweep": sweep,
    "engine": engine,
    "impacts": impacts,
    "music": music,
    "calls": calls,
}


def make_noise(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Return a noise (n,) of a random kind at unit level, one in three with a second kind under it."""
    names = list(MAKERS)
    noise = unit(MAKERS[names[rng.integers(len(names))]](rng, n, sample_rate))
    if rng.random() < 1 / 3:
        noise = noise + rng.uniform(0.1, 1) * unit(MAKERS[names[rng.integers(len(names))]](rng, n, sample_rate))
    return unit(noise)
