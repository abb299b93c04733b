"""Unit sequences with their times, and their files: JSON lines, Praat's TextGrid, plain text. Without torch.

A unit is one step of the content code, `step_s` long, of frames centred on multiples of the mel's hop. Step i therefore lasts from
i * step_s minus half a frame (8 ms) to the same point of step i + 1; the first step starts at 0 and the last one ends with the recording,
so that the steps cover a recording without gaps.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from vcae.audio.config import MelConfig
from vcae.errors import DataError

MEL = MelConfig()
FORMATS = {"jsonl": ".jsonl", "textgrid": ".TextGrid", "text": ".txt"}
# Formats by suffix in lower case.
SUFFIXES = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".textgrid": "textgrid", ".txt": "text"}
TEXT_VERSION = "1"
HEADER = "# vcae units "
TIER, FACTS_TIER = "units", "vcae"
# Default length of a step for units with times.
STEP_S = 0.032
DECIMALS = 7
WHOLE = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, repr=False)
class Units:
    """Sequence of units.

    Attributes:
        name: Name of the recording, with its folders if there are several recordings.
        units: One number per step, or per run of equal ones if collapsed.
        lengths: Duration of each unit in steps; None if unknown.
        n_samples: Length of the recording at 16 kHz; None if unknown.
        step_s: Length of a step in seconds.
        codebook_size: Number of units of the model; None if unknown.
        checkpoint: Name of the model's checkpoint; None if unknown.
        sha256: SHA-256 of the checkpoint's file; None if unknown.
        where: File and line, for messages.
    """

    name: str
    units: tuple[int, ...]
    lengths: tuple[int, ...] | None
    n_samples: int | None
    step_s: float = STEP_S
    codebook_size: int | None = None
    checkpoint: str | None = None
    sha256: str | None = None
    where: str = ""

    def __repr__(self) -> str:
        steps = "of unknown lengths" if self.lengths is None else f"{self.duration_s:.2f} s"
        return f"Units({self.name!r}, {len(self.units)} units, {steps}: {' '.join(map(str, self.units[:8]))}{' ...' * (len(self.units) > 8)})"

    @property
    def collapsed(self) -> bool:
        """Whether a unit may last more than one step."""
        return self.lengths is None or any(length != 1 for length in self.lengths)

    def collapse(self) -> Units:
        """Merge runs of equal units; their times are those of the run."""
        runs = [list(run) for _, run in itertools.groupby(range(len(self.units)), key=self.units.__getitem__)]
        lengths = None if self.lengths is None else tuple(sum(self.lengths[i] for i in run) for run in runs)
        return replace(self, units=tuple(self.units[run[0]] for run in runs), lengths=lengths)

    def times(self) -> list[tuple[float, float]]:
        """Return start and end of each unit in seconds; they cover the recording without gaps.

        Raises:
            DataError: If the units have no lengths.
        """
        if self.lengths is None:
            raise DataError(f"{self.where or self.name} has units without times")
        step = step_samples(self.step_s)
        ends = [end * step - MEL.hop_length // 2 for end in itertools.accumulate(self.lengths)]
        ends[-1] = self.duration_samples
        seconds = [0.0, *(round(end / MEL.sample_rate, DECIMALS) for end in ends)]
        return list(itertools.pairwise(seconds))

    @property
    def duration_samples(self) -> int:
        """Length of the recording in samples; if unknown, the position of the last frame's centre."""
        if self.n_samples is not None:
            return self.n_samples
        return natural_samples(sum(self.lengths or (1,)), self.step_s)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return round(self.duration_samples / MEL.sample_rate, DECIMALS)


def step_samples(step_s: float) -> int:
    """Return the length of a step in samples."""
    return round(step_s * MEL.sample_rate)


def count_steps(n_samples: int, step_s: float) -> int:
    """Return the number of steps of a recording: one for each `stride` of its 1 + N // hop_length frames, counting a partial one."""
    return n_samples // step_samples(step_s) + 1


def natural_samples(n_steps: int, step_s: float) -> int:
    """Return the length in samples of a sound of whole steps: up to the centre of its last frame, as from a vocoder."""
    return n_steps * step_samples(step_s) - MEL.hop_length


# ---- Writing


def format_units(sequences: Sequence[Units], form: str) -> str:
    """Return the text of a file of units.

    Args:
        sequences: Sequences to write; one for `textgrid`.
        form: `jsonl`, `textgrid` or `text`.

    Raises:
        DataError: For an unknown format, several sequences in a TextGrid, or units without times in one.
    """
    if form == "jsonl":
        return "".join(json.dumps(_json(units), ensure_ascii=False) + "\n" for units in sequences)
    if form == "text":
        return _text(sequences)
    if form != "textgrid":
        raise DataError(f"units cannot be written as {form!r}; allowed are {', '.join(FORMATS)}")
    if len(sequences) != 1:
        raise DataError(f"a TextGrid holds one recording, not {len(sequences)}; write one file each")
    return _textgrid(sequences[0])


def _facts(units: Units) -> dict[str, Any]:
    return {
        "file": units.name,
        "checkpoint": units.checkpoint,
        "sha256": units.sha256,
        "codebook_size": units.codebook_size,
        "step_s": units.step_s,
        "n_samples": units.duration_samples if units.lengths is not None else units.n_samples,
        "duration_s": units.duration_s if units.lengths is not None else None,
        "collapsed": units.collapsed,
    }


def _json(units: Units) -> dict[str, Any]:
    made = _facts(units) | {"units": list(units.units)}
    if units.lengths is not None:
        starts, ends = zip(*units.times(), strict=True)
        made |= {"start_s": list(starts), "end_s": list(ends)}
    return made


def _text(sequences: Sequence[Units]) -> str:
    lines, last = [], ""
    for units in sequences:
        facts = _facts(units)
        shown = {key: facts[key] for key in ("checkpoint", "sha256", "codebook_size", "step_s", "collapsed")}
        # Values are percent-encoded, so that they have no blanks.
        words = (f"{k}={quote(str(v).lower() if isinstance(v, bool) else str(v))}" for k, v in shown.items() if v is not None)
        header = f"{HEADER}{TEXT_VERSION} {' '.join(words)}"
        if header != last:
            lines.append(header)
            last = header
        name = " ".join(units.name.split()) or "units"
        name = f"./{name}" if name.startswith("#") else name
        lines.append(f"{name}\t{' '.join(map(str, units.units))}")
    return "".join(line + "\n" for line in lines)


def _textgrid(units: Units) -> str:
    from praatio.utilities.textgrid_io import getTextgridAsStr

    end = units.duration_s
    intervals = [(start, stop, str(unit)) for unit, (start, stop) in zip(units.units, units.times(), strict=True)]
    # A bracket in a file's name would look like an item to readers that search for "item [".
    facts = json.dumps(_facts(units), ensure_ascii=False).replace("[", "\\u005b")
    tiers = [
        {"class": "IntervalTier", "name": name, "xmin": 0.0, "xmax": end, "entries": entries}
        for name, entries in ((TIER, intervals), (FACTS_TIER, [(0.0, end, facts)]))
    ]
    return str(getTextgridAsStr({"xmin": 0.0, "xmax": end, "tiers": tiers}, "long_textgrid", includeBlankSpaces=False))


# ---- Reading


def read_units(path: str | Path, stdin: Any = None) -> list[Units]:
    """Read a file of units; its format is recognised by its content.

    Args:
        path: JSON lines, a TextGrid or plain text, or `-` for `stdin`, a binary stream.
        stdin: Standard input.

    Returns:
        At least one sequence, each of at least one unit.

    Raises:
        DataError: If the file is missing, has no units, or is of another kind; with the line.
    """
    if str(path) == "-":
        name, data = "standard input", b"" if stdin is None else stdin.read()
    else:
        name, file = str(path), Path(path)
        if file.is_dir():
            raise DataError(f"{name} is a folder; give one file of units")
        try:
            data = file.read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{name} does not exist; check the path") from error
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error.strerror}); check its permissions") from error
    return parse_units(_decode(data, name), name)


def _decode(data: bytes, name: str) -> str:
    try:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # Praat writes UTF-16 for text beyond ASCII.
            text = data.decode("utf-16")
        else:
            text = data.decode("utf-8-sig", "surrogateescape") if b"\0" not in data else ""
    except UnicodeError:
        text = ""
    if data and (not text or "\0" in text):
        raise DataError(f"{name} is not a file of units but binary; give JSON lines, a TextGrid or text from `vcae units`")
    return text


def parse_units(text: str, name: str) -> list[Units]:
    """Parse units from text, as `read_units` does; `name` is for messages."""
    start = text.lstrip()
    if not start:
        raise DataError(f"{name} holds no units; give units from `vcae units`, or numbers separated by blanks")
    if start.startswith(('File type = "ooTextFile', '"ooTextFile')):
        return [_parse_textgrid(text, name)]
    # Not `splitlines`, which also splits at characters that may be part of a file's name.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    found = (
        [_parse_json(line, f"{name}, line {n + 1}") for n, line in enumerate(lines)]
        if start[0] == "{"
        else _parse_text(lines, name)
    )
    if not found:
        raise DataError(f"{name} holds no units, only comments; give units from `vcae units`, or numbers separated by blanks")
    return found


def _number(word: str, where: str, position: int) -> int:
    if not WHOLE.fullmatch(word):
        shown = word if len(word) <= 20 else word[:20] + "..."
        raise DataError(f"{where}, unit {position}: {shown!r} is not a number; give whole numbers separated by blanks")
    return int(word)


def _parse_text(lines: Sequence[str], name: str) -> list[Units]:
    found: list[Units] = []
    header: dict[str, str] | None = None
    for n, line in enumerate(lines, 1):
        where = f"{name}, line {n}"
        if line.startswith(HEADER.rstrip()):
            header = _parse_header(line, where)
        if line.startswith("#"):
            continue
        title, tab, numbers = line.partition("\t")
        # Without a header, tabs may separate numbers as well as a name from its units.
        if not tab or (header is None and WHOLE.fullmatch(title.strip())):
            title, numbers = "", line
        units = tuple(_number(word, where, position) for position, word in enumerate(numbers.split(), 1))
        if not units:
            raise DataError(f"{where} is empty; remove the line, or give at least one unit")
        facts = header or {}
        stated = facts.get("collapsed")
        collapsed = stated == "true" if stated else all(a != b for a, b in itertools.pairwise(units))
        lengths = None if collapsed else (1,) * len(units)
        found.append(_checked(title or f"line-{n}", units, lengths, None, facts, where))
    return found


def _parse_header(line: str, where: str) -> dict[str, str]:
    words = line.split()
    if words[3:4] != [TEXT_VERSION]:
        raise DataError(
            f"{where}: units of version {''.join(words[3:4])!r}; this version of vcae reads {TEXT_VERSION}: update vcae"
        )
    pairs = (word.partition("=") for word in words[4:])
    return {key: unquote(value) for key, _, value in pairs}


def _parse_json(line: str, where: str) -> Units:
    if not line.strip():
        raise DataError(f"{where} is empty; remove the line, or give at least one unit")
    try:
        made = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON ({error}); give one object per line") from error
    if not isinstance(made, dict) or not isinstance(made.get("units"), list):
        raise DataError(f'{where} has no list of units; give an object such as {{"units": [7, 7, 41]}}')
    for position, unit in enumerate(made["units"], 1):
        if type(unit) is not int:
            raise DataError(f"{where}, unit {position}: {json.dumps(unit)[:20]} is not a number; give whole numbers")
    units = tuple(made["units"])
    if not units:
        raise DataError(f"{where} is empty; remove the line, or give at least one unit")
    step_s = _step(made, where)
    lengths: tuple[int, ...] | None = None
    n_samples = made.get("n_samples")
    if made.get("collapsed") is False:
        lengths = (1,) * len(units)
    elif made.get("start_s") is not None or made.get("end_s") is not None:
        lengths, heard = _lengths(made.get("start_s"), made.get("end_s"), len(units), step_s, n_samples, where)
        n_samples = heard if n_samples is None else n_samples
    elif "collapsed" not in made and any(a == b for a, b in itertools.pairwise(units)):
        lengths = (1,) * len(units)
    name = made.get("file")
    return _checked(
        name if isinstance(name, str) and name else where.rpartition(", ")[2].replace(" ", "-"),
        units,
        lengths,
        n_samples,
        made,
        where,
    )


def _step(facts: dict[str, Any] | dict[str, str], where: str) -> float:
    value = facts.get("step_s", STEP_S)
    try:
        step_s = float(value)
    except (TypeError, ValueError):
        step_s = math.nan
    if not MEL.hop_length <= step_s * MEL.sample_rate <= MEL.sample_rate:
        raise DataError(f"{where}: step_s is {value!r}; a number of seconds such as {STEP_S} is needed")
    return step_s


def _checked(
    name: str,
    units: tuple[int, ...],
    lengths: tuple[int, ...] | None,
    n_samples: Any,
    facts: dict[str, Any] | dict[str, str],
    where: str,
) -> Units:
    step_s = _step(facts, where)
    # A length that does not match the units is ignored: the units were edited.
    fits = type(n_samples) is int and n_samples > 0 and lengths is not None and count_steps(n_samples, step_s) == sum(lengths)
    codebook_size = str(facts.get("codebook_size", ""))
    return Units(
        name,
        units,
        lengths,
        n_samples if fits else None,
        step_s,
        int(codebook_size) if codebook_size.isdigit() else None,
        str(facts["checkpoint"]) if facts.get("checkpoint") else None,
        str(facts["sha256"]) if facts.get("sha256") else None,
        where,
    )


def _lengths(starts: Any, ends: Any, n: int, step_s: float, n_samples: Any, where: str) -> tuple[tuple[int, ...], int]:
    """Return the steps of each unit, at least 1, and the total length in samples, from times in seconds."""
    for key, times in (("start_s", starts), ("end_s", ends)):
        if not isinstance(times, list) or len(times) != n:
            given = len(times) if isinstance(times, list) else 0
            raise DataError(f"{where}: {given} times in {key} for {n} units; give one each, or leave start_s and end_s out")
        for position, time in enumerate(times, 1):
            if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < 1e6:
                raise DataError(f"{where}, unit {position}: {key} is {time!r}; seconds are needed")
    for position, (end, start) in enumerate(zip(ends, starts[1:], strict=False), 2):
        if abs(start - end) > step_s / 2:
            raise DataError(
                f"{where}, unit {position}: it starts at {start:g} s and the one before ends at {end:g} s; close the gap"
            )
    for position, (start, end) in enumerate(zip(starts, ends, strict=True), 1):
        if end < start:
            raise DataError(f"{where}, unit {position}: it ends at {end:g} s, before it starts at {start:g} s")
    samples = round(ends[-1] * MEL.sample_rate)
    if type(n_samples) is int and abs(n_samples - samples) <= 1:
        samples = n_samples
    step = step_samples(step_s)
    marks = [round((end * MEL.sample_rate + MEL.hop_length // 2) / step) for end in ends[:-1]]
    marks.append(count_steps(samples, step_s))
    lengths, placed = [], 0
    for mark in marks:
        lengths.append(max(mark - placed, 1))
        placed += lengths[-1]
    return tuple(lengths), samples


def _parse_textgrid(text: str, name: str) -> Units:
    from praatio.utilities.errors import PraatioException
    from praatio.utilities.textgrid_io import parseTextgridStr

    try:
        tiers = {tier["name"]: list(tier["entries"]) for tier in parseTextgridStr(text, includeEmptyIntervals=True)["tiers"]}
        entries = [(float(start), float(end), str(label)) for start, end, label in tiers.get(TIER, [])]
    except (PraatioException, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{name} is a damaged TextGrid ({error}); get a fresh copy of it") from error
    if TIER not in tiers:
        raise DataError(
            f"{name} has no tier called {TIER!r}, only {', '.join(map(repr, tiers)) or 'none'}; rename the tier of the units"
        )
    if not entries:
        raise DataError(f"{name} holds no units: the tier {TIER!r} is empty")
    units = []
    for position, (start, end, label) in enumerate(entries, 1):
        if not label.strip():
            raise DataError(f"{name}, unit {position}: the interval from {start:g} to {end:g} s is empty; give it a unit")
        units.append(_number(label.strip(), name, position))
    facts: dict[str, Any] = {}
    if tiers.get(FACTS_TIER):
        try:
            facts = dict(json.loads(tiers[FACTS_TIER][0][2]))
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{name}: the tier {FACTS_TIER!r} is damaged ({error}); restore it, or remove it") from error
    starts, ends = [start for start, _, _ in entries], [end for _, end, _ in entries]
    lengths, samples = _lengths(starts, ends, len(units), _step(facts, name), facts.get("n_samples"), name)
    title = facts.get("file")
    return _checked(title if isinstance(title, str) and title else Path(name).stem, tuple(units), lengths, samples, facts, name)
