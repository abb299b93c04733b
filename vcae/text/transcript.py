"""Transcripts: symbols or words with times, and their files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vcae.errors import DataError

# Format of a file, and its suffix.
FORMATS = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "textgrid": ".TextGrid"}
SUFFIXES = {suffix.lower(): form for form, suffix in FORMATS.items()}
KINDS = ("words", "phones", "letters")
# A subtitle ends at a pause of this length, and before it is longer than this, in seconds or characters.
PAUSE_S, CUE_S, CUE_CHARACTERS = 0.6, 6.0, 80
# What the symbol of a pause between words is called among letters.
SPACE = " "


@dataclass(frozen=True)
class Symbol:
    """A word, phone or letter with its times in seconds."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcript:
    """Words, phones or letters of a recording.

    Attributes:
        name: The recording.
        kind: `words`, `phones` or `letters`.
        symbols: In order.
        duration_s: Length of the recording in seconds.
    """

    name: str
    kind: str
    symbols: tuple[Symbol, ...]
    duration_s: float

    @property
    def text(self) -> str:
        """The text: words and phones separated by blanks, letters as they are written."""
        if self.kind == "letters":
            return " ".join("".join(s.label for s in self.symbols).split())
        return " ".join(s.label for s in self.symbols)

    def cues(self) -> list[tuple[float, float, str]]:
        """Return start, end and text of pieces of a few seconds, for subtitles."""
        groups: list[list[Symbol]] = [[]]
        for symbol in self.symbols:
            if groups[-1] and self._ends(groups[-1], symbol):
                groups.append([])
            if groups[-1] or symbol.label != SPACE:
                groups[-1].append(symbol)
        made = []
        for group in filter(None, groups):
            text = Transcript(self.name, self.kind, tuple(group), self.duration_s).text
            made.append((group[0].start_s, group[-1].end_s, text))
        return made

    def _ends(self, group: Sequence[Symbol], after: Symbol) -> bool:
        """Return whether a piece ends before a symbol: never inside a word."""
        if after.start_s - group[-1].end_s > PAUSE_S:
            return True
        characters = sum(len(s.label) + (self.kind != "letters") for s in group)
        long = after.end_s - group[0].start_s > CUE_S or characters + len(after.label) > CUE_CHARACTERS
        return long and (self.kind != "letters" or after.label == SPACE)


def format_transcript(transcript: Transcript, form: str) -> str:
    """Return the text of a file.

    Raises:
        DataError: For an unknown format.
    """
    if form == "text":
        return transcript.text + "\n"
    if form == "json":
        return json.dumps(as_json(transcript), ensure_ascii=False) + "\n"
    if form == "srt":
        return "".join(
            f"{n}\n{_clock(a, ',')} --> {_clock(b, ',')}\n{text}\n\n" for n, (a, b, text) in enumerate(transcript.cues(), 1)
        )
    if form == "vtt":
        return "WEBVTT\n\n" + "".join(f"{_clock(a, '.')} --> {_clock(b, '.')}\n{text}\n\n" for a, b, text in transcript.cues())
    if form == "textgrid":
        return _textgrid(transcript)
    raise DataError(f"transcripts cannot be written as {form!r}; allowed are {', '.join(FORMATS)}")


def as_json(transcript: Transcript) -> dict[str, Any]:
    """Return the transcript as plain data."""
    return {
        "file": transcript.name,
        "as": transcript.kind,
        "text": transcript.text,
        "duration_s": round(transcript.duration_s, 3),
        transcript.kind: [
            {"label": s.label, "start_s": round(s.start_s, 3), "end_s": round(s.end_s, 3)} for s in transcript.symbols
        ],
    }


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _textgrid(transcript: Transcript) -> str:
    from praatio.utilities.textgrid_io import getTextgridAsStr

    entries, at, end = [], 0.0, round(transcript.duration_s, 3)
    for symbol in transcript.symbols:
        start, stop = round(symbol.start_s, 3), round(min(symbol.end_s, end), 3)
        label = re.sub(r"^ $", "", symbol.label)
        if label and stop > max(start, at):
            entries.append((max(start, at), stop, label))
            at = stop
    tier = {"class": "IntervalTier", "name": transcript.kind, "xmin": 0.0, "xmax": end, "entries": entries}
    return str(getTextgridAsStr({"xmin": 0.0, "xmax": end, "tiers": [tier]}, "long_textgrid", includeBlankSpaces=True))
