"""Where in a recording something is wrong: faults in fine time, and frames that the detector did not expect.

Each kind of place is reported from the strength that normal recordings reach about once a minute, so that what is usual there is not named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vcae.anomaly import faults
from vcae.anomaly.faults import KINDS as FAULTS
from vcae.anomaly.faults import fault_strengths

# Grain of the fine search, in s.
GRAIN_S = 0.004
# Peaks this far from a step, from and to, are those around it, in s.
NEAR_S, FAR_S = 0.008, 0.06
# Normal recordings are looked at in blocks of a second; the strongest of each block says what is usual.
BLOCK_S, BLOCKS_PER_ALARM = 1.0, 60
# Strengths under which nothing is reported however quiet normal recordings are, and the least spread of those: nats of a step over
# those around, deviations of a frame, log odds of a fault.
LEAST = {"step": (1.0, 1.0), "frame": (3.0, 2.0), **dict.fromkeys(FAULTS, (1.0, 3.0))}
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
        strength: How far over what is usual in normal recordings: 1 is what they reach once a minute, 0 what they do in most seconds.
        kind: frame (the detector did not expect it), step (one sample does not follow from those before), or a fault's name.
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


@dataclass(frozen=True)
class Track:
    """How strong one kind of place is over time: value k of `values` (T,) stands for the time k * step_s + offset_s, and what follows it."""

    values: np.ndarray
    step_s: float
    offset_s: float = 0.0


@dataclass(frozen=True)
class Limit:
    """What normal recordings reach: `usual` in most seconds, `alarm` about once a minute."""

    usual: float
    alarm: float


def tracks_of(wav: np.ndarray, sample_rate: int, frame_scores: np.ndarray, hop_s: float) -> dict[str, Track]:
    """Return the strength of each kind of place over time in a recording (N,); faults are known at 16 kHz only."""
    found = {
        "step": Track(click_strength(wav, sample_rate), max(1, round(GRAIN_S * sample_rate)) / sample_rate),
        # A centred frame t stands for the time t * hop.
        "frame": Track(_robust(np.log(frame_scores + 1e-3)), hop_s, -hop_s / 2),
    }
    if sample_rate == faults.SAMPLE_RATE:
        step_s = faults.HOP / faults.SAMPLE_RATE
        odds = fault_strengths(torch.from_numpy(np.ascontiguousarray(wav, dtype=np.float32))).numpy()
        found |= {kind: Track(values, step_s, -step_s / 2) for kind, values in zip(FAULTS, odds, strict=True)}
    return found


def limits_of(normal: Sequence[Mapping[str, Track]]) -> dict[str, Limit]:
    """Return what normal recordings reach, by kind, of the tracks of each."""
    found = {}
    for kind in normal[0]:
        blocks: list[float] = []
        for tracks in normal:
            track = tracks[kind]
            n = max(1, round(len(track.values) * track.step_s / BLOCK_S))
            blocks += [float(part.max()) for part in np.array_split(track.values, n) if len(part)]
        least, spread = LEAST[kind]
        usual = float(np.median(blocks))
        alarm = max(float(np.quantile(blocks, 1 - 1 / BLOCKS_PER_ALARM)), least)
        found[kind] = Limit(min(usual, alarm - spread), alarm)
    return found


DEFAULT_LIMITS = {kind: Limit(least - spread, least) for kind, (least, spread) in LEAST.items()}


def _places(kind: str, track: Track, limit: Limit) -> list[Place]:
    strength = (track.values - limit.usual) / (limit.alarm - limit.usual)
    hot = np.flatnonzero(strength >= 1)
    if not len(hot):
        return []
    found = []
    for run in np.split(hot, np.flatnonzero(np.diff(hot) * track.step_s > APART_S) + 1):
        top = int(run[np.argmax(strength[run])])
        start, end = (float(k * track.step_s + track.offset_s) for k in (run[0], run[-1] + 1))
        middle = top * track.step_s + track.offset_s + track.step_s / 2
        found.append(Place(middle, max(start, 0.0), end, float(strength[top]), kind))
    return found


def strongest(wav: np.ndarray, sample_rate: int, tracks: Mapping[str, Track], limits: Mapping[str, Limit]) -> float:
    """Return the strength of a recording's strongest fault or step, whether it would be named or not; frames are for other members."""
    limits = limits or DEFAULT_LIMITS
    gaps = [DROPOUT_STRENGTH * min(1.0, (b - a) / 0.02) for a, b in find_dropouts(wav, sample_rate)]
    heights = [
        (float(track.values.max()) - limits[kind].usual) / (limits[kind].alarm - limits[kind].usual)
        for kind, track in tracks.items()
        if kind in limits and kind != "frame"
    ]
    return max([*gaps, *heights])


def locate(
    wav: np.ndarray,
    sample_rate: int,
    frame_scores: np.ndarray,
    hop_s: float,
    most: int = 20,
    limits: Mapping[str, Limit] | None = None,
) -> list[Place]:
    """Find where a recording is unlike normal ones, and unlike itself.

    Args:
        wav: (N,).
        sample_rate: Hz.
        frame_scores: (T,), from `Detector.score`.
        hop_s: Seconds from frame to frame.
        most: Places to return at most.
        limits: By kind, what normal recordings reach (`Detector.limits`); moderate ones where there are none.

    Returns:
        Places, the strongest first.
    """
    limits = limits or DEFAULT_LIMITS
    gaps = find_dropouts(wav, sample_rate)
    places = [Place((a + b) / 2, a, b, DROPOUT_STRENGTH * min(1.0, (b - a) / 0.02), "dropout") for a, b in gaps]
    for kind, track in tracks_of(wav, sample_rate, frame_scores, hop_s).items():
        if kind in limits:
            places += _places(kind, track, limits[kind])
    kept: list[Place] = []
    for place in sorted(places, key=lambda p: -p.strength):
        if not any(p.start_s - APART_S < place.time_s < p.end_s + APART_S for p in kept):
            kept.append(place)
    return kept[:most]
