"""Synthetic faults in clean speech, with their times: clicks, dropouts, clipping, hum, splices, codec damage.

python recipes/anomaly/faults.py CLEAN.wav click OUT.wav    one of: click dropout clipping hum splice codec
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.signal import istft, stft

from vcae.audio.io import Sound, read_sound, resample, write_sound
from vcae.errors import ConfigError, VcaeError

SAMPLE_RATE = 16000
# Smallest distance of faults from both ends, in s.
MARGIN_S = 0.3
FRAME = 512


@dataclass(frozen=True)
class Fault:
    """Kind and position of a fault, in s; a splice is a point, with equal start and end."""

    kind: str
    start_s: float
    end_s: float


def _place(wav: np.ndarray, length_s: float, rng: np.random.Generator) -> tuple[int, int]:
    """Return start and end, in samples, of a random section of speech rather than of a pause: one of the louder half of several."""
    n, margin = round(length_s * SAMPLE_RATE), round(MARGIN_S * SAMPLE_RATE)
    last = max(len(wav) - margin - n, margin + 1)
    starts = rng.integers(margin, last, size=16)
    level = [float(np.square(wav[s : s + n]).mean()) for s in starts]
    start = int(starts[np.argsort(level)[rng.integers(8, 16)]])
    return start, min(start + n, len(wav))


def click(wav: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Add a decaying pulse of 2 ms, as high as the loudest sample."""
    start, _ = _place(wav, 0.01, rng)
    at = np.arange(32)
    out = wav.copy()
    pulse = rng.choice([-1.0, 1.0]) * np.exp(-at / 6) * np.cos(np.pi * at * rng.uniform(0.3, 0.8))
    out[start : start + len(at)] += (np.abs(wav).max() * rng.uniform(0.7, 1.0) * pulse)[: len(out) - start]
    return out, [(start, start + len(at))]


def dropout(wav: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Set 40 to 150 ms to zero, as a lost packet does."""
    start, end = _place(wav, rng.uniform(0.04, 0.15), rng)
    out = wav.copy()
    out[start:end] = 0
    return out, [(start, end)]


def clipping(wav: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Drive 0.3 to 0.6 s 12 to 20 dB too high and cut it off at the loudest sample."""
    start, end = _place(wav, rng.uniform(0.3, 0.6), rng)
    out, top = wav.copy(), float(np.abs(wav).max())
    out[start:end] = np.clip(out[start:end] * 10 ** (rng.uniform(12, 20) / 20), -top, top)
    return out, [(start, end)]


def hum(wav: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Add 0.5 to 1 s of 50 or 60 Hz with harmonics, 10 to 16 dB under the speech."""
    start, end = _place(wav, rng.uniform(0.5, 1.0), rng)
    t = np.arange(end - start) / SAMPLE_RATE
    mains_hz = rng.choice([50, 60])
    tone = sum(np.sin(2 * np.pi * mains_hz * k * t + rng.uniform(0, 6)) / k**0.5 for k in range(1, 21))
    tone *= 10 ** (-rng.uniform(10, 16) / 20) * np.sqrt(np.square(wav).mean() / np.square(tone).mean())
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.005)
    out = wav.copy()
    out[start:end] += tone * fade
    return out, [(start, end)]


def splice(wav: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Cut 0.2 to 0.5 s out and join the ends without a cross-fade."""
    start, end = _place(wav, rng.uniform(0.2, 0.5), rng)
    return np.concatenate([wav[:start], wav[end:]]), [(start, start)]


def codec(wav: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Code 0.2 to 0.4 s with far too few bits: magnitudes in steps of 12 dB, and only the loudest quarter of the bins."""
    start, end = _place(wav, rng.uniform(0.2, 0.4), rng)
    _, _, spectrum = stft(wav[start:end], nperseg=FRAME)
    level = 20 * np.log10(np.abs(spectrum) + 1e-9)
    coarse = 10 ** (np.round(level / 12) * 12 / 20) * np.exp(1j * np.angle(spectrum))
    lost = (level < level.max(axis=0) - 6) & (rng.random(spectrum.shape) < 0.75)
    _, made = istft(np.where(lost, 0, coarse), nperseg=FRAME)
    out = wav.copy()
    out[start:end] = np.resize(made, end - start)
    return out, [(start, end)]


MAKERS: dict[str, Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, list[tuple[int, int]]]]] = {
    "click": click,
    "dropout": dropout,
    "clipping": clipping,
    "hum": hum,
    "splice": splice,
    "codec": codec,
}
KINDS = tuple(MAKERS)


def make_fault(wav: np.ndarray, kind: str, seed: int) -> tuple[np.ndarray, list[Fault]]:
    """Put a fault into speech.

    Args:
        wav: (N,) at 16 kHz, 1 s or longer.
        kind: One of `KINDS`.
        seed: The same seed makes the same fault.

    Returns:
        The samples, float32, and where the fault is.

    Raises:
        ConfigError: If there is no such kind, or the recording is shorter than 1 s.
    """
    if kind not in MAKERS:
        raise ConfigError(f"there is no fault {kind!r}; allowed are {', '.join(KINDS)}")
    if len(wav) < SAMPLE_RATE:
        raise ConfigError(f"the recording has {len(wav) / SAMPLE_RATE:.2f} s; at least 1 s is needed")
    out, spans = MAKERS[kind](wav.astype(np.float64), np.random.default_rng([seed, KINDS.index(kind)]))
    return out.astype(np.float32), [Fault(kind, a / SAMPLE_RATE, b / SAMPLE_RATE) for a, b in spans]


def main() -> None:
    source, kind, output = sys.argv[1:4]
    sound = read_sound(source)
    wav, faults = make_fault(resample(sound.wav, sound.sample_rate, SAMPLE_RATE), kind, 0)
    write_sound(output, Sound(wav, SAMPLE_RATE), f"fault: {kind}", force=True)
    print(f"wrote {output}: " + ", ".join(f"{f.kind} from {f.start_s:.3f} to {f.end_s:.3f} s" for f in faults))


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
