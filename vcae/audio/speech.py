"""Speech activity of recordings, and checks of references: too short, clipped, noisy or whispered. Without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vcae.errors import AudioError

# Speech that all references together need, and that they should have for a similar voice, in seconds.
MIN_SPEECH_S = 0.5
GOOD_SPEECH_S = 3.0
# A shorter voiced run is a chance detection. A run whose log-F0 changes by less per frame is a tone; in speech it changes by 0.02.
MIN_RUN_FRAMES = 4
MIN_PITCH_STEP = 0.002
# Active frames within this distance of a voiced run count as speech, for consonants.
NEAR_S = 0.08
# Margin around speech that is kept, and the longest pause that is kept.
AROUND_S = 0.25
PAUSE_S = 0.8
# Level range (5th to 95th percentile). Below the first a recording is steady noise and not speech, below the second it is noisy speech.
# The latter is judged if there is this much speech, in seconds.
STEADY_DB = 2.2
NOISY_DB = 15.0
# References below this are denoised: noise in them is taken for part of the voice. It is between clean recordings and those with noise 20 dB
# below the speech; what denoising does for them is in docs/results.md, hard conditions.
NOISY_REFERENCE_DB = 22.0
MIN_JUDGED_S = 2.0
# A whisper has no voiced runs, but its spectrum changes as speech does: by this standard deviation in dB of WHISPER_BANDS bands relative to
# their mean, in steps of WHISPER_FRAMES. Speech with and without its voicing has 6.2 to 7.1, sounds of ESC-10 0.8 to 4.6, steady and modulated
# noise below 1. It is judged from this many seconds of sound on. Speech converted to whispers (linear prediction of VCTK, excited by noise) had a
# cosine of .66 with their speakers and .73 with the nearest other one; converted to the same clips with voicing, .80 and .71.
WHISPER_DB, WHISPER_RANGE_DB, MIN_WHISPER_S = 5.2, 10.0, 1.0
WHISPER_BANDS, WHISPER_FRAMES = 10, 6
# Runs of at least CLIP_RUN samples within 1.5 % of the peak are clipped; a warning is given above this fraction of samples.
CLIP_LEVEL, CLIP_RUN, MAX_CLIPPED = 0.985, 3, 0.002
NATS_TO_DB = 20 / math.log(10)


@dataclass(frozen=True)
class Speech:
    """Speech activity of a recording.

    Attributes:
        keep: (T,) bool, frames to use: speech and short pauses, without silence at the ends and sounds other than speech.
        speech_s: Seconds of speech.
        range_db: Level range of the speech and its surroundings in dB; 0 without speech.
        whispered: Whether it is speech without voicing, which is not counted as speech.
    """

    keep: np.ndarray
    speech_s: float
    range_db: float
    whispered: bool = False


def find_speech(mel: np.ndarray, f0: np.ndarray, active: np.ndarray, frame_rate: float) -> Speech:
    """Find speech in a recording by its voiced runs with changing F0; without any, recognise a whisper by its changing spectrum.

    Args:
        mel: (n_mels, T), natural log magnitude.
        f0: (T,) in Hz, 0 where unvoiced.
        active: (T,) bool, frames that carry sound.
        frame_rate: Hz.
    """
    levels = mel.mean(axis=0)
    voiced = _moving_runs(f0)
    # Only near possible speech, so that long silence does not hide it.
    near = levels[_widen(voiced, round(frame_rate))]
    range_db = _range_db(near) if len(near) else 0.0
    if range_db < STEADY_DB:
        voiced[:] = False
    spoken = _widen(voiced, round(NEAR_S * frame_rate)) & active
    whispered = spoken.sum() < MIN_SPEECH_S * frame_rate and _is_whisper(mel, active, frame_rate)
    keep = _close(_widen(voiced, round(AROUND_S * frame_rate)), round(PAUSE_S * frame_rate))
    return Speech(keep, float(spoken.sum()) / frame_rate, range_db, whispered)


def _range_db(levels: np.ndarray) -> float:
    return float(np.quantile(levels, 0.95) - np.quantile(levels, 0.05)) * NATS_TO_DB


def _is_whisper(mel: np.ndarray, active: np.ndarray, frame_rate: float) -> bool:
    """Return whether the shape of the spectrum changes in the active frames as that of speech does."""
    if active.sum() < MIN_WHISPER_S * frame_rate or _range_db(mel.mean(axis=0)) < WHISPER_RANGE_DB:
        return False
    n = len(active) // WHISPER_FRAMES * WHISPER_FRAMES
    bands = np.stack(
        [band.mean(axis=0)[:n].reshape(-1, WHISPER_FRAMES).mean(axis=1) for band in np.array_split(mel, WHISPER_BANDS)]
    )
    shape = (bands - bands.mean(axis=0))[:, active[:n].reshape(-1, WHISPER_FRAMES).mean(axis=1) > 0.5]
    return bool(shape.shape[1]) and float(shape.std(axis=1).mean()) * NATS_TO_DB >= WHISPER_DB


def is_noisy(speech: Speech, below_db: float = NOISY_DB) -> bool:
    """Return whether speech is so noisy that it should be denoised: less than `below_db` between speech and pauses."""
    return speech.speech_s >= MIN_JUDGED_S and speech.range_db < below_db


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return start and stop of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _moving_runs(f0: np.ndarray) -> np.ndarray:
    kept = np.zeros(len(f0), bool)
    for start, stop in _runs(f0 > 0):
        if stop - start >= MIN_RUN_FRAMES and np.median(np.abs(np.diff(np.log(f0[start:stop])))) >= MIN_PITCH_STEP:
            kept[start:stop] = True
    return kept


def _widen(mask: np.ndarray, n: int) -> np.ndarray:
    wide = np.zeros(len(mask), bool)
    for start, stop in _runs(mask):
        wide[max(start - n, 0) : stop + n] = True
    return wide


def _close(mask: np.ndarray, n: int) -> np.ndarray:
    """Fill gaps of up to n frames between true ones."""
    runs = _runs(mask)
    closed: np.ndarray = mask.copy()
    for (_, stop), (start, _) in pairwise(runs):
        if start - stop <= n:
            closed[stop:start] = True
    return closed


def check_references(speech: Sequence[Speech], wavs: Sequence[np.ndarray], names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Check the quality of references.

    Args:
        speech: Speech activity of each.
        wavs: Their samples as they were given.
        names: Names for messages.

    Returns:
        Indices of the references with speech; and warnings, one sentence each.

    Raises:
        AudioError: If there is less than `MIN_SPEECH_S` of speech in all of them.
    """
    kept, warnings, whispers = list[int](), list[str](), list[str]()
    for n, (found, wav, name) in enumerate(zip(speech, wavs, names, strict=True)):
        if _clipped(wav) > MAX_CLIPPED:
            warnings.append(f"{name} is clipped, and so will the voice be; record it at a lower level")
        if found.whispered:
            whispers.append(name)
            warnings.append(f"{name} is whispered, and it was left out")
            continue
        if not found.keep.any():
            warnings.append(f"no speech was found in {name}, and it was left out")
            continue
        # A shorter clip may be speech without a pause.
        if is_noisy(found):
            warnings.append(f"{name} is noisy ({found.range_db:.0f} dB between speech and pauses); denoise it first")
        kept.append(n)
    total, where = sum(found.speech_s for found in speech), names[0] if len(names) == 1 else f"the {len(names)} references"
    if (total < MIN_SPEECH_S or not kept) and whispers:
        raise AudioError(
            f"{whispers[0]} is whispered; a whisper lacks the pitch and much of the sound of a voice, and speech converted to it is like "
            f"somebody else's; give {GOOD_SPEECH_S:g} s or more of voiced speech"
        )
    if total < MIN_SPEECH_S or not kept:
        raise AudioError(f"{total:.1f} s of speech found in {where}; give {GOOD_SPEECH_S:g} s or more")
    if total < GOOD_SPEECH_S:
        warnings.append(
            f"only {total:.1f} s of speech found in {where}; give {GOOD_SPEECH_S:g} s or more for a voice that is like it"
        )
    return kept, warnings


def _clipped(wav: np.ndarray) -> float:
    """Return the fraction of samples in runs at the peak."""
    peak = float(np.abs(wav).max(initial=0.0))
    if peak <= 0:
        return 0.0
    return sum(
        stop - start for sign in (1, -1) for start, stop in _runs(sign * wav >= CLIP_LEVEL * peak) if stop - start >= CLIP_RUN
    ) / len(wav)
