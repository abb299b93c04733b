"""Localisation of anomalies in a recording: faults to a few ms, and frames of high anomaly score.

Each kind of place is reported from the strength that normal recordings reach about once a minute, so that usual events are not reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vcae.anomaly import faults
from vcae.anomaly.faults import KINDS as FAULTS
from vcae.anomaly.faults import fault_strengths

# Time resolution of the search for clicks, in s.
GRAIN_S = 0.004
# Range of distances of the neighbouring peaks that a peak is compared with, in s.
NEAR_S, FAR_S = 0.008, 0.06
# Block length in s for the statistics of normal recordings, from the strongest value of each block; and blocks per false alarm.
BLOCK_S, BLOCKS_PER_ALARM = 1.0, 60
# Lowest alarm limit of each kind, and lowest distance between usual strength and alarm: nats of a step above its
# neighbours, standard deviations of a frame, log odds of a fault.
LEAST = {"step": (1.0, 1.0), "frame": (3.0, 2.0), **dict.fromkeys(FAULTS, (1.0, 3.0))}
# Strength of a dropout of 20 ms or more.
DROPOUT_STRENGTH = 100.0
# Places closer than this in s are merged.
APART_S = 0.15


@dataclass(frozen=True)
class Place:
    """Place of an anomaly in a recording.

    Attributes:
        time_s: Time of its strongest point.
        start_s: Start.
        end_s: End.
        strength: Strength relative to normal recordings: 1 is reached about once a minute, 0 in most seconds.
        kind: frame (high anomaly score), step (unpredictable sample), or the name of a fault.
    """

    time_s: float
    start_s: float
    end_s: float
    strength: float
    kind: str


def _robust(values: np.ndarray) -> np.ndarray:
    """Standardise values (n,) by their median and a robust estimate of the standard deviation."""
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return np.asarray((values - middle) / max(spread, 1e-6))


def click_strength(wav: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the log ratio (N // grain,), in nats, of each grain's peak of the linear prediction error to the peaks around it.

    Speech can be predicted well from neighbouring samples, a click or a splice cannot.

    Source: Godsill and Rayner, Digital Audio Restoration (1998), chapter 5 (detection of clicks by prediction error).
    """
    from scipy.signal import lfilter

    grain = max(1, round(GRAIN_S * sample_rate))
    n = len(wav) // grain
    error = np.zeros(len(wav))
    # Blocks are long enough for a stable predictor, and short enough to hold one sound.
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
    # Relative to the largest peak around it, as voice pulses and noise come in series but clicks are isolated.
    around = np.stack([padded[far + k : far + k + n] for k in places]).max(0)
    return np.asarray(np.log(peaks + 1e-5) - np.log(np.maximum(around, float(np.median(peaks))) + 1e-5))


def _predictor(piece: np.ndarray, order: int) -> np.ndarray:
    from scipy.linalg import solve_toeplitz

    r = np.array([piece[: len(piece) - k] @ piece[k:] for k in range(order + 1)])
    r[0] = r[0] * (1 + 1e-4) + 1e-9
    return np.concatenate([[1.0], -solve_toeplitz(r[:-1], r[1:])])


def find_dropouts(wav: np.ndarray, sample_rate: int, least_s: float = 0.005) -> list[tuple[float, float]]:
    """Return start and end in s of runs of equal samples inside a sound, which lost packets and muting cause."""
    same = np.flatnonzero(np.diff(np.concatenate([[1], (np.diff(wav) != 0).astype(np.int8), [1]])))
    runs = same.reshape(-1, 2)
    long = runs[(runs[:, 1] - runs[:, 0]) >= least_s * sample_rate]
    # Silence at the beginning or the end of a file is not a dropout.
    inside = [(a, b) for a, b in long if a > 0 and b < len(wav) - 1]
    return [(float(a) / sample_rate, float(b + 1) / sample_rate) for a, b in inside]


@dataclass(frozen=True)
class Track:
    """Strength of one kind of place over time: value k of `values` (T,) covers the `step_s` seconds from k * step_s + offset_s on."""

    values: np.ndarray
    step_s: float
    offset_s: float = 0.0


@dataclass(frozen=True)
class Limit:
    """Strength that normal recordings reach: `usual` in most seconds, `alarm` about once a minute."""

    usual: float
    alarm: float


def tracks_of(wav: np.ndarray, sample_rate: int, frame_scores: np.ndarray, hop_s: float) -> dict[str, Track]:
    """Return the strength over time of each kind of place in a recording (N,); faults are detected at 16 kHz only."""
    found = {
        "step": Track(click_strength(wav, sample_rate), max(1, round(GRAIN_S * sample_rate)) / sample_rate),
        # Frame t is centred on the time t * hop.
        "frame": Track(_robust(np.log(frame_scores + 1e-3)), hop_s, -hop_s / 2),
    }
    if sample_rate == faults.SAMPLE_RATE:
        step_s = faults.HOP / faults.SAMPLE_RATE
        odds = fault_strengths(torch.from_numpy(np.ascontiguousarray(wav, dtype=np.float32))).numpy()
        found |= {kind: Track(values, step_s, -step_s / 2) for kind, values in zip(FAULTS, odds, strict=True)}
    return found


def limits_of(normal: Sequence[Mapping[str, Track]]) -> dict[str, Limit]:
    """Return the limits of normal recordings by kind, from the tracks of each recording."""
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
    """Return the strength of a recording's strongest fault or step, whether above its limit or not; frames are not included."""
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
    """Find the places where a recording differs from normal ones or has faults.

    Args:
        wav: (N,).
        sample_rate: Hz.
        frame_scores: (T,), from `Detector.score`.
        hop_s: Seconds from frame to frame.
        most: Largest number of places to return.
        limits: Limits of normal recordings by kind (`Detector.limits`); moderate defaults for kinds without one.

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
