"""Tables of sounds to judge: their columns, defined once here for the help, the documentation and every message."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vcae.batch.jobs import REPORT
from vcae.errors import DataError

DEFAULT_LABEL = "all"


@dataclass(frozen=True)
class Field:
    """Column of a table: name, synonyms, meaning, and whether it is required."""

    name: str
    aliases: tuple[str, ...]
    meaning: str
    needed: bool = True

    def find(self, header: Sequence[str]) -> str | None:
        """Return the name of this column in a header, or None."""
        return next((name for name in (self.name, *self.aliases) if name in header), None)


CONVERSIONS = (
    Field("converted", ("output",), "the conversion to judge"),
    Field("source", (), "the recording that was converted"),
    Field(
        "target_ref", ("speaker", "speakers"), "a recording of the target voice, preferably not the one given to the converter"
    ),
    Field("transcript", (), "the spoken words, in English", needed=False),
    Field("label", (), "name of the system", needed=False),
)
COPIES = (
    Field("degraded", ("converted", "output"), "the copy to judge"),
    Field("reference", ("source",), "the recording that it is a copy of"),
    Field("transcript", (), "the spoken words, in English", needed=False),
    Field("label", (), "name of the system", needed=False),
)


@dataclass(frozen=True)
class Conversion:
    """Converted recording.

    Attributes:
        converted: The file to judge.
        source: The recording that was converted.
        target_ref: An utterance of the target voice, preferably not the one given to the converter; None if there is no recording of it.
        transcript: The spoken words; empty if unknown.
        label: Name of the system.
    """

    converted: Path
    source: Path
    target_ref: Path | None
    transcript: str = ""
    label: str = DEFAULT_LABEL

    @property
    def judged(self) -> Path:
        """The file to judge."""
        return self.converted

    @property
    def original(self) -> Path:
        """The recording that was converted."""
        return self.source

    @property
    def files(self) -> dict[str, Path]:
        """The files by the names of their columns."""
        target = {} if self.target_ref is None else {"target_ref": self.target_ref}
        return {"source": self.source, **target, "converted": self.converted}


@dataclass(frozen=True)
class Copy:
    """Copy of a recording by a vocoder, a codec or a denoiser: the same speech in the same voice.

    Attributes:
        degraded: The file to judge.
        reference: The original recording.
        transcript: The spoken words; empty if unknown.
        label: Name of the system.
    """

    degraded: Path
    reference: Path
    transcript: str = ""
    label: str = DEFAULT_LABEL

    @property
    def judged(self) -> Path:
        """The file to judge."""
        return self.degraded

    @property
    def original(self) -> Path:
        """The original recording."""
        return self.reference

    @property
    def files(self) -> dict[str, Path]:
        """The files by the names of their columns."""
        return {"reference": self.reference, "degraded": self.degraded}


Row = Conversion | Copy


@dataclass(frozen=True)
class Table:
    """Contents of a table.

    Attributes:
        rows: Conversions, or copies.
        copies: Whether the rows are copies.
        problems: A message for each row that cannot be judged, or only in part.
    """

    rows: list[Row]
    copies: bool
    problems: list[str]


def columns_text(fields: Sequence[Field]) -> str:
    """Format the columns for help and messages, such as `converted (or output), source[, label]`."""
    names = [f.name + (f" (or {', '.join(f.aliases)})" if f.aliases else "") for f in fields if f.needed]
    return ", ".join(names) + "".join(f"[, {f.name}]" for f in fields if not f.needed)


def read_table(path: Path, copies: bool = False) -> Table:
    """Read a table of conversions or of copies: a CSV, or the report.jsonl of a command run on a folder.

    Paths are absolute, or relative to the table's folder or, if nothing is there, to the current one. The target is the first speaker that
    is a sound file. A row with missing files is left out and listed in `problems`.

    Args:
        path: The table.
        copies: Treat conversions as copies of their sources.

    Raises:
        DataError: If the file cannot be read, lacks a column or has no rows.
    """
    lines = _read_lines(path)
    header = list(lines[0][1])
    fields = COPIES if copies or (COPIES[0].name in header and COPIES[1].name in header) else CONVERSIONS
    named = {field.name: field.find(header) for field in fields}
    missing = [field.name for field in fields if field.needed and named[field.name] is None]
    if missing:
        raise DataError(
            f"{path} has the columns {', '.join(header)} and lacks {', '.join(missing)}; conversions have {columns_text(CONVERSIONS)}, "
            f"copies {columns_text(COPIES)}"
        )
    rows: list[Row] = []
    problems = []
    for place, line in lines:
        values = {name: line.get(column) if column else None for name, column in named.items()}
        if line.get("status") == "failed":
            problems.append(f"{place} of {path}: not made, so not judged: {line.get('reason') or 'no reason given'}")
            continue
        try:
            rows.append(_copy(path, values) if fields is COPIES else _conversion(path, values))
        except DataError as error:
            problems.append(f"{place} of {path}: {error}")
            continue
        last = rows[-1]
        if isinstance(last, Conversion) and last.target_ref is None:
            problems.append(
                f"{place} of {path}: {_text(values['target_ref'])!r} is not a sound file, so the voice is not compared with the target"
            )
    return Table(rows, fields is COPIES, problems)


def read_tables(paths: Sequence[Path], copies: bool = False) -> Table:
    """Read several tables as one. If two use the same label, the table's name is added to it.

    Args:
        paths: The tables, or folders with a report.jsonl. One that cannot be used, or has another kind of rows than those before it, is
            left out and listed in `problems`.
        copies: Treat conversions as copies of their sources.

    Raises:
        DataError: If none of them can be used.
    """
    found: dict[Path, Table] = {}
    wrong = []
    for path in dict.fromkeys(path / REPORT if path.is_dir() else path for path in paths):
        try:
            table = read_table(path, copies)
            if any(other.copies != table.copies for other in found.values()):
                kinds = ("conversions", "copies")
                raise DataError(
                    f"{path} lists {kinds[table.copies]} where the table before lists {kinds[not table.copies]}; judge them apart"
                )
            found[path] = table
        except DataError as error:
            wrong.append(str(error))
    if not found:
        raise DataError("; ".join(wrong))
    labels = [label for table in found.values() for label in {row.label for row in table.rows}]
    alike = len(labels) > len(set(labels))
    rows: list[Row] = []
    for path, table in found.items():
        alone = len({row.label for row in table.rows}) == 1
        for row in table.rows:
            name = _table_name(path, list(found))
            rows.append(replace(row, label=(name if alone else f"{name}: {row.label}")) if alike else row)
    problems = [problem for table in found.values() for problem in table.problems]
    return Table(rows, next(iter(found.values())).copies, wrong + problems)


def _table_name(path: Path, paths: Sequence[Path]) -> str:
    for name in (lambda p: p.stem, lambda p: p.resolve().parent.name, str):
        if len({name(p) for p in paths}) == len(paths):
            return name(path)
    return str(path)


def _read_lines(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    columns = f"conversions have {columns_text(CONVERSIONS)}, copies {columns_text(COPIES)}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"the table {path} does not exist; make one: {columns}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise DataError(f"the table {path} cannot be read ({reason}); give a CSV, or a report.jsonl: {columns}") from error
    found = _jsonl_lines(path, text) if path.suffix.lower() == ".jsonl" else _csv_lines(path, text)
    if not found:
        raise DataError(f"the table {path} has no rows; give a row for each file to judge: {columns}")
    return found


def _csv_lines(path: Path, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        rows = list(csv.DictReader(text.splitlines(), strict=True))
    except csv.Error as error:
        raise DataError(f"the table {path} is not a CSV ({error}); check its quotes") from error
    # The csv module puts surplus cells of a row under None.
    return [(f"line {n}", {k: v for k, v in row.items() if k is not None}) for n, row in enumerate(rows, 2)]


def _jsonl_lines(path: Path, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    last: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for n, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            # The last line may be incomplete after a killed run.
            continue
        if isinstance(row, dict):
            # The last line of an output counts.
            last[str(row.get("output", n))] = f"line {n}", row
    return list(last.values())


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    return "" if value is None else str(value).strip()


def _conversion(path: Path, values: Mapping[str, Any]) -> Conversion:
    converted, source = (_file(path, name, values[name]) for name in ("converted", "source"))
    target = _target(path, values["target_ref"])
    return Conversion(converted, source, target, _text(values["transcript"]), _text(values["label"]) or DEFAULT_LABEL)


def _copy(path: Path, values: Mapping[str, Any]) -> Copy:
    degraded, reference = (_file(path, name, values[name]) for name in ("degraded", "reference"))
    return Copy(degraded, reference, _text(values["transcript"]), _text(values["label"]) or DEFAULT_LABEL)


def _file(table: Path, column: str, value: object) -> Path:
    text = _text(value)
    if not text:
        raise DataError(f"no {column} is given; each row needs one")
    found = _find(table, text)
    if found is None:
        raise DataError(f"the {column} {table.parent / text} does not exist; paths are relative to the table's folder")
    return found


def _find(table: Path, text: str) -> Path | None:
    for path in (table.parent / text, Path(text)):
        if path.is_file():
            return path
    return None


def _target(table: Path, value: object) -> Path | None:
    """Return the first speaker that is a sound file; its name may end in a colon and a weight, as in `--speaker`."""
    speakers = [str(v) for v in value] if isinstance(value, list | tuple) else _text(value).split(";")
    names = [speaker.strip() for speaker in speakers if speaker.strip()]
    if not names:
        raise DataError("no target_ref is given; each row needs one")
    for path in _candidates(table, names):
        if path is not None and path.suffix.lower() != ".safetensors":
            return path
    if len(names) == 1 and (table.parent / names[0]).suffix:
        raise DataError(f"the target_ref {table.parent / names[0]} does not exist; paths are relative to the table's folder")
    return None


def _candidates(table: Path, names: Sequence[str]) -> Iterator[Path | None]:
    for name in names:
        yield _find(table, name)
        stem, colon, _ = name.rpartition(":")
        if colon:
            yield _find(table, stem)


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write conversions, or copies, as a CSV, with paths inside its folder relative to it.

    Raises:
        DataError: If there are no rows, or of both kinds.
    """
    if len({type(row) for row in rows}) != 1:
        raise DataError(f"{len(rows)} rows of {len({type(row) for row in rows})} kinds for {path}; give rows of one kind")
    fields = COPIES if isinstance(rows[0], Copy) else CONVERSIONS
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow([field.name for field in fields])
        for row in rows:
            values = [getattr(row, field.name) for field in fields]
            writer.writerow([_relative(value, path.parent) if isinstance(value, Path) else value or "" for value in values])


def _relative(file: Path, folder: Path) -> str:
    file, folder = file.resolve(), folder.resolve()
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
