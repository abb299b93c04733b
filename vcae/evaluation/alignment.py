"""Forced alignment of phones and words to a transcript, by pocketsphinx (extra `eval`)."""

from __future__ import annotations

import functools
import importlib.util
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from vcae.audio.f0 import SAMPLE_RATE
from vcae.errors import DataError

# Pauses and noises among pocketsphinx's phones; `<sil>` and the like among its words.
SILENT_PHONES = ("SIL", "+SPN+", "+NSN+")
FRAME_S = 0.01
# A frame's analysis window of 25.6 ms begins at the frame, so the boundary before the frame is this much later.
DELAY_S = (0.0256 - FRAME_S) / 2
# Silence before the first word and after the last, in seconds, and the beam (None: pocketsphinx's default), tried in turn. The second
# pass is unreliable: recordings that fail with one margin pass with another.
ATTEMPTS = ((0.1, None), (0.2, None), (0.3, None), (0.15, None), (0.1, 1e-80), (0.2, 1e-80), (0.3, 1e-120))
ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"]
ONES += ["fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


@dataclass(frozen=True)
class Interval:
    """Labelled interval in seconds: a phone in ARPAbet without stress, or a word in lower case."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Alignment:
    """Phones (including pauses) and words of a recording, in order."""

    phones: tuple[Interval, ...]
    words: tuple[Interval, ...]


def spell_number(number: int) -> str:
    """Write a whole number below a million in words, as it is read aloud in English."""
    if number < 20:
        return ONES[number]
    if number < 100:
        rest = f" {ONES[number % 10]}" if number % 10 else ""
        return TENS[number // 10 - 2] + rest
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = f" {spell_number(number % size)}" if number % size else ""
    return f"{spell_number(number // size)} {name}{rest}"


def normalize_transcript(transcript: str) -> list[str]:
    """Return the words of a transcript as a pronouncing dictionary writes them: lower case, numbers in words, no punctuation."""
    text = transcript.lower().replace("\u2019", "'")
    text = re.sub(r"\d{1,6}", lambda found: f" {spell_number(int(found[0]))} ", text)
    words = (word.strip("'") for word in re.sub(r"[^a-z']", " ", text).split())
    return [word for word in words if word]


@functools.lru_cache(maxsize=4)
def _decoder(beam: float | None) -> Any:
    if importlib.util.find_spec("pocketsphinx") is None:
        raise DataError("alignment needs pocketsphinx, which is not installed; pip install 'vcae[eval]'")
    from pocketsphinx import Decoder

    common: dict[str, Any] = {"samprate": SAMPLE_RATE, "loglevel": "FATAL", "cmn": "batch", "backtrace": False}
    beams = {} if beam is None else {"beam": beam, "pbeam": beam, "wbeam": beam}
    return Decoder(**common, **beams, lm=None)


def _samples(wav: np.ndarray, margin_s: float) -> bytes:
    peak = float(np.abs(wav).max(initial=0.0))
    level = 0.5 / peak if peak > 0 else 1.0
    rng = np.random.default_rng(0)
    margin = np.zeros(round(margin_s * SAMPLE_RATE))
    padded = np.concatenate([margin, wav * level, margin]) * 32767
    # A little noise, as the logarithm of digital silence is not finite.
    return np.asarray(padded + rng.uniform(-3, 3, len(padded))).astype(np.int16).tobytes()


def _listen(decoder: Any, samples: bytes) -> None:
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()


def _intervals(entries: Any, margin_s: float, end_s: float) -> tuple[Interval, ...]:
    found = []
    for entry in entries:
        start = min(max(entry.start * FRAME_S + DELAY_S - margin_s, 0.0), end_s)
        end = min(max((entry.start + entry.duration) * FRAME_S + DELAY_S - margin_s, 0.0), end_s)
        if end > start:
            found.append(Interval(re.sub(r"\(\d+\)$", "", entry.name), round(start, 3), round(end, 3)))
    return tuple(found)


def align(wav: np.ndarray, transcript: str) -> Alignment:
    """Find start and end of each phone and word of a sentence.

    A first pass finds the pronunciations and pauses, a second one the phones' boundaries; several margins of silence and beams are tried.

    Args:
        wav: (N,) float, at 16 kHz.
        transcript: The spoken words, in English.

    Returns:
        Phones (ARPAbet without stress; `SILENT_PHONES` are pauses) and words, with a resolution of 10 ms.

    Raises:
        DataError: If pocketsphinx is missing, a word is not in its dictionary, or the sentence does not fit the sound.
    """
    words = normalize_transcript(transcript)
    if not words:
        raise DataError(f"the transcript {transcript!r} has no words; give the spoken words")
    unknown = sorted({word for word in words if _decoder(None).lookup_word(word) is None})
    if unknown:
        raise DataError(f"pocketsphinx's dictionary lacks {', '.join(unknown)} of {transcript!r}; leave this recording out")
    reason: object = ""
    for margin_s, beam in ATTEMPTS:
        samples = _samples(np.asarray(wav, dtype=np.float64), margin_s)
        try:
            decoder = _decoder(beam)
            decoder.set_align_text(" ".join(words))
            _listen(decoder, samples)
            if decoder.hyp() is None:
                raise RuntimeError("no path to the end of the sentence")
            decoder.set_alignment()
            _listen(decoder, samples)
            found = decoder.get_alignment()
            if found is None:
                raise RuntimeError("no boundaries of the phones")
            end_s = len(wav) / SAMPLE_RATE
            spoken = (word for word in found.words() if not word.name.startswith(("<", "+", "[")))
            return Alignment(_intervals(found.phones(), margin_s, end_s), _intervals(spoken, margin_s, end_s))
        except RuntimeError as error:
            # After a failure, a decoder may fail for all further recordings.
            _decoder.cache_clear()
            reason = error
    raise DataError(
        f"{len(wav) / SAMPLE_RATE:.1f} s of sound could not be aligned with {transcript!r} ({reason}); check that these words are "
        "spoken, or leave this recording out"
    )
