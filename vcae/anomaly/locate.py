"""Where in a recording something is wrong: steps of level in fine time, and frames that the detector did not expect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Grain of the fine search, in s.
GRAIN_S = 0.004
# Peaks this far from a step, from and to, are those around it, in s.
NEAR_S, FAR_S = 0.008, 0.06
# Deviations over the usual from which unexpected frames are reported; nats over those around from which a click is, and how many
# deviations a nat counts for.
LEAST_STRENGTH, LEAST_CLICK, CLICK_WEIGHT = 3.0, 1.0, 5.0
# Strength of a dropout of 20 ms or more.
DROPOUT_STRENGTH = 100.0
# Places nearer than this are one.
APART_S = 0.15


@dataclass(frozen=True)
class Place:
    """A place where something is wrong.

    Attributes:
        time_s: Of the worst of it.
        start_s: Where it begins.
        end_s: Where it ends.
        strength: Deviations over what is usual in this recording, or what counts for as many.
        kind: frame (the detector did not expect it), click (a step or a spike in the signal), dropout (digital silence).
    """

    time_s: float
    start_s: float
    end_s: float
    strength: float
    kind: str


def _robust(values: np.ndarray) -> np.ndarray:
    """Return values (n,) in robust deviations over their median."""
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return np.asarray((values - middle) / max(spread, 1e-6))


def click_strength(wav: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return how far each grain's sharpest step stands out, (N // grain,) in nats: the peak of the prediction's error over those around.

    Speech is predicted by its neighbours to within a little; a click or a splice is not.

    Source: Godsill and Rayner, Digital Audio Restoration (1998), chapter 5 (detection of clicks by prediction error).
    """
    from scipy.signal import lfilter

    grain = max(1, round(GRAIN_S * sample_rate))
    n = len(wav) // grain
    error = np.zeros(len(wav))
    # Blocks long enough for a stable prediction, short enough for one sound.
    block, order = 1024, 24
    for start in range(0, len(wav), block // 2):
        piece = wav[max(0, start - order) : start + block].astype(np.float64)
        if len(piece) < 4 * order:
            continue
        a = _predictor(piece, order)
        made = lfilter(a, [1.0], piece)[min(start, order) :]
        error[start : start + block // 2] = made[: block // 2]
    peaks = np.abs(error[: n * grain]).reshape(n, grain).max(1)
    near, far = round(NEAR_S / GRAIN_S), round(FAR_S / GRAIN_S)
    padded = np.pad(peaks, far, mode="reflect" if n > far else "edge")
    places = np.r_[-far : -near + 1, near : far + 1]
    # Over the largest of the peaks around it: pulses of a voice and noise come in series, a click comes alone.
    around = np.stack([padded[far + k : far + k + n] for k in places]).max(0)
    return np.asarray(np.log(peaks + 1e-5) - np.log(np.maximum(around, float(np.median(peaks))) + 1e-5))


def _predictor(piece: np.ndarray, order: int) -> np.ndarray:
    from scipy.linalg import solve_toeplitz

    r = np.array([piece[: len(piece) - k] @ piece[k:] for k in range(order + 1)])
    r[0] = r[0] * (1 + 1e-4) + 1e-9
    return np.concatenate([[1.0], -solve_toeplitz(r[:-1], r[1:])])


def find_dropouts(wav: np.ndarray, sample_rate: int, least_s: float = 0.005) -> list[tuple[float, float]]:
    """Return start and end in s of runs of equal samples inside a sound, as lost packets and muted parts leave them."""
    same = np.flatnonzero(np.diff(np.concatenate([[1], (np.diff(wav) != 0).astype(np.int8), [1]])))
    runs = same.reshape(-1, 2)
    long = runs[(runs[:, 1] - runs[:, 0]) >= least_s * sample_rate]
    # Silence that a file begins or ends with is no dropout.
    inside = [(a, b) for a, b in long if a > 0 and b < len(wav) - 1]
    return [(float(a) / sample_rate, float(b + 1) / sample_rate) for a, b in inside]


def _groups(strength: np.ndarray, step_s: float, offset_s: float, least: float, kind: str) -> list[Place]:
    places: list[Place] = []
    hot = np.flatnonzero(strength >= least)
    if not len(hot):
        return places
    for run in np.split(hot, np.flatnonzero(np.diff(hot) * step_s > APART_S) + 1):
        top = int(run[np.argmax(strength[run])])
        at = (run[0] * step_s + offset_s, (run[-1] + 1) * step_s + offset_s)
        places.append(Place(top * step_s + offset_s + step_s / 2, float(at[0]), float(at[1]), float(strength[top]), kind))
    return places


def locate(wav: np.ndarray, sample_rate: int, frame_scores: np.ndarray, hop_s: float, most: int = 20) -> list[Place]:
    """Find where a recording is unlike normal ones, and unlike itself.

    Args:
        wav: (N,).
        sample_rate: Hz.
        frame_scores: (T,), from `Detector.score`.
        hop_s: Seconds from frame to frame.
        most: Places to return at most.

    Returns:
        Places, the strongest first.
    """
    gaps = find_dropouts(wav, sample_rate)
    places = [Place((a + b) / 2, a, b, DROPOUT_STRENGTH * min(1.0, (b - a) / 0.02), "dropout") for a, b in gaps]
    places += _groups(CLICK_WEIGHT * click_strength(wav, sample_rate), GRAIN_S, 0.0, CLICK_WEIGHT * LEAST_CLICK, "click")
    # A centred frame t stands for the time t * hop.
    places += _groups(_robust(np.log(frame_scores + 1e-3)), hop_s, -hop_s / 2, LEAST_STRENGTH, "frame")
    kept: list[Place] = []
    for place in sorted(places, key=lambda p: -p.strength):
        if not any(p.start_s - APART_S < place.time_s < p.end_s + APART_S for p in kept):
            kept.append(place)
    return kept[:most]
