"""Jobs and their outcomes: planned from files, folders or a table, and reported line by line. Without torch."""

from __future__ import annotations

import glob
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from vcae.audio.suffixes import SUFFIXES
from vcae.errors import AudioError, ConfigError, DataError
from vcae.files import STDIO, locked, write_file
from vcae.table import find_path, read_table

REPORT = "report.jsonl"
TABLE = ".csv"
EVERYTHING = "*"
# Longest name of a file or folder made from the name of a recording.
MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class Job:
    """Recording to process.

    Attributes:
        source: The file to read; `-` for standard input.
        speakers: Target voice, each part in the form of `parse_speaker`.
        output: The file to write; empty if results are collected.
        name: Path of the source within the deepest folder that contains all sources.
        known: `key` and `sha256` of this output in an earlier report; None if there are none, or if it is to be made again anyway.
        part: Position of what is to be processed in a file of several, such as a file of units.
    """

    source: str
    speakers: tuple[str, ...] = ()
    output: str = ""
    name: str = ""
    known: Mapping[str, Any] | None = None
    part: int = 0


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job.

    Attributes:
        source, speakers, output: As in the job.
        status: `failed`, `skipped` (completed by an earlier run), or the worker's verb, such as `converted`.
        reason: Reason of the failure, or a warning about the source.
        key: Hash of everything that determines the result: content of the source and of the voice, settings, checkpoint.
        sha256: SHA-256 of the output.
        n_bytes: Size of the output.
        duration_s: Duration of the sound.
        elapsed_s: Processing time.
        facts: Measurements, as plain data.
        value: Result to collect; not part of a report.
    """

    source: str
    speakers: tuple[str, ...]
    output: str
    status: str
    reason: str = ""
    key: str = ""
    sha256: str = ""
    n_bytes: int = 0
    duration_s: float = 0.0
    elapsed_s: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    value: Any = None


def find_sources(
    given: Sequence[str],
    suffixes: Collection[str] = SUFFIXES,
    pattern: str | None = None,
    leave_out: Path | None = None,
    left_out: list[str] | None = None,
) -> list[tuple[str, str]]:
    """Find the files to process and return their paths and names.

    A name is the path within the deepest folder that contains all sources, so that names are unique.

    Args:
        given: Files; folders, which are searched recursively without links to folders and hidden files; patterns such as
            `day1/*.wav`, unless a file has this name; or `-`, alone.
        suffixes: Suffixes of the files of a folder, in lower case.
        pattern: Pattern of the files of a folder instead, such as `*.flac` or `day1/*`, for the name or the path below the folder.
        leave_out: A folder that is not searched, as it is that of the outputs.
        left_out: List to which the names of files in folders that are not used are added; with a pattern none are added.

    Raises:
        AudioError: If a pattern matches no file, or `-` is not alone.
        ConfigError: If a folder has no suitable files.
    """
    if STDIO in given and len(given) > 1:
        raise AudioError("'-' is standard input and goes alone; name files, or pipe one recording")
    found: dict[str, str] = {}
    roots = []
    for item in _expanded(given):
        path = item if item == STDIO else os.path.abspath(item)
        if item != STDIO and os.path.isdir(item):
            roots.append(path)
            for below in _inside(Path(item), suffixes, pattern, leave_out, left_out):
                found.setdefault(os.path.join(path, below), str(Path(item) / below))
            continue
        roots += [] if item == STDIO else [os.path.dirname(path)]
        found.setdefault(path, item)
    try:
        root = os.path.commonpath(roots) if roots else ""
    except ValueError:  # On two drives.
        root = ""
    return [
        (shown, "standard input" if path == STDIO else Path(os.path.relpath(path, root) if root else path).as_posix())
        for path, shown in found.items()
    ]


def find_recordings(given: Sequence[str]) -> list[str]:
    """Find recordings that are read for one result, and return their paths.

    Args:
        given: As for `find_sources`; or one CSV, see `plan_table`.

    Raises:
        VcaeError: If there are none, or a table cannot be used.
    """
    return list(dict.fromkeys(job.source for job in plan(given, None)))


def _expanded(given: Sequence[str]) -> Iterator[str]:
    for item in given:
        if not glob.has_magic(item) or os.path.lexists(item):
            yield item
            continue
        fitting = sorted(path for path in glob.glob(item, recursive=True) if os.path.isfile(path))
        if not fitting:
            raise AudioError(f"no file fits {item}; check the pattern")
        yield from fitting


def _inside(
    folder: Path, suffixes: Collection[str], pattern: str | None, leave_out: Path | None, left_out: list[str] | None
) -> list[Path]:
    """Return the files of a folder, relative to it, sorted by name."""
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        here = Path(root)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (leave_out is None or (here / name).resolve() != leave_out.resolve())
        )
        found += [(here / name).relative_to(folder) for name in sorted(names) if not name.startswith(".")]
    if pattern is None:
        chosen = [path for path in found if path.suffix.lower() in suffixes and path.name != REPORT]
        if left_out is not None:
            left_out += [str(folder / path) for path in found if path.suffix.lower() not in suffixes and path.name != REPORT]
    else:
        fitting = (path for path in found if fnmatch(path.name, pattern) or fnmatch(path.as_posix(), pattern))
        # A report is what a run left beside its outputs.
        chosen = [path for path in fitting if path.name != REPORT or pattern == EVERYTHING]
    if not chosen:
        kind = "sound files" if suffixes is SUFFIXES else f"{', '.join(suffixes)} files"
        wanted = kind if pattern is None else "files" if pattern == EVERYTHING else f"files like {pattern!r}"
        raise ConfigError(f"{folder} holds no {wanted} among its {len(found)} files; give another folder or pattern")
    return chosen


def is_table(given: Sequence[str]) -> bool:
    """Return whether the arguments are a table of sources.

    Raises:
        AudioError: If a table is given with something else.
    """
    tables = [item for item in given if Path(item).suffix.lower() == TABLE and not os.path.isdir(item)]
    if tables and len(given) > 1:
        raise AudioError(f"{tables[0]} is a table and goes alone; name recordings, or one table")
    return bool(tables)


def plan(
    given: Sequence[str],
    out_dir: Path | None,
    speakers: tuple[str, ...] = (),
    ending: str = ".wav",
    suffixes: Collection[str] = SUFFIXES,
    pattern: str | None = None,
    columns: tuple[str, ...] = ("source",),
    left_out: list[str] | None = None,
) -> list[Job]:
    """Plan the jobs for files, folders or a table.

    Args:
        given: As for `find_sources`; or one CSV, see `plan_table`.
        out_dir: Folder of the outputs. Subfolders are preserved, and sources that differ only in their suffix keep it: `a.mp3.wav`. All
            outputs are different files. None if results are collected.
        speakers: Target voice.
        ending: Suffix of the outputs.
        suffixes: As in `find_sources`.
        pattern: As in `find_sources`.
        columns: Required columns of a table.
        left_out: List to which the names of files in folders that are not among the jobs are added.

    Raises:
        VcaeError: If there is nothing to do, or a table cannot be used.
    """
    if is_table(given):
        return plan_table(Path(given[0]), out_dir, speakers, ending, columns)
    found = find_sources(given, suffixes, pattern, out_dir, left_out)
    if out_dir is None:
        return [Job(path, speakers, "", name) for path, name in found]
    names = unique_names([str(Path(name).with_suffix(ending)) for _, name in found], [f"{name}{ending}" for _, name in found])
    return [Job(path, speakers, str(out_dir / made), name) for (path, name), made in zip(found, names, strict=True)]


def plan_table(
    table: Path,
    out_dir: Path | None,
    speakers: tuple[str, ...] = (),
    ending: str = ".wav",
    columns: tuple[str, ...] = ("source", "speaker"),
) -> list[Job]:
    """Plan the jobs of a CSV with the column source and, optionally, speaker and output; other columns are ignored.

    Args:
        table: The CSV, see `read_table`. Its paths are relative to it. A speaker is in the form of `parse_speaker`; several are separated by ';'.
        out_dir: Folder of the outputs, which are named by the column output, or else `[SPEAKER/]SOURCE.wav`. None if results are collected.
        speakers: Target voice of all rows, if the table has none.
        ending: Suffix of the outputs.
        columns: Required columns.

    Raises:
        DataError: If it cannot be read, lacks a column, is empty, or names an output twice or outside `out_dir`.
    """
    read = read_table(table, columns if out_dir is None else (*columns, "output"))
    wanted, several = " and ".join(columns), len(columns) > 1
    if not read.rows or not {*columns} <= {*read.columns}:
        raise DataError(
            f"{table} has {read.told if read.rows else 'no rows'}; the column{'s' if several else ''} {wanted} {'are' if several else 'is'} "
            "needed, separated by comma, semicolon or tab; output may be added"
        )
    if speakers and "speaker" in read.columns:
        raise ConfigError(f"{table} names its own speakers; give no other")
    jobs, named, seen = list[Job](), list[str](), dict[Any, int]()
    for number, row in read.rows:
        source, own = row["source"], [s.strip() for s in row.get("speaker", "").split(";") if s.strip()]
        if not source or ("speaker" in columns and not own):
            said = f"source is {source!r}" + (
                f" and speaker {row['speaker']!r}; both are needed" if "speaker" in columns else ""
            )
            raise DataError(f"{table}, line {number}: {said}")
        output = "" if out_dir is None else _output(table, number, out_dir, row, own, ending)
        # Outputs named in the table must be different files, and a repeated row is an error too.
        key: Any = _same_file(output) if row.get("output") else (source, *own)
        if output and key in seen:
            raise DataError(
                f"{table}, line {number}: {output} is the output of line {seen[key]} too; name others in a column output"
            )
        seen[key] = number
        named.append(output if row.get("output") else "")
        voices = tuple(_beside(table, s) for s in own) or speakers
        jobs.append(Job(str(find_path(source, table.parent)), voices, output, source))
    if out_dir is None:
        return jobs
    made = [Path(job.name.replace("\\", "/")).suffix + ending for job in jobs]
    outputs = unique_names(
        [job.output for job in jobs], [job.output.removesuffix(ending) + m for job, m in zip(jobs, made, strict=True)], named
    )
    return [replace(job, output=output) for job, output in zip(jobs, outputs, strict=True)]


def _same_file(path: str) -> str:
    """Return a key that is equal for names that some file systems treat as equal, by case or composition of accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def unique_names(short: Sequence[str], long: Sequence[str], fixed: Sequence[str] = ()) -> list[str]:
    """Choose unique names of outputs, also for file systems that ignore case.

    Args:
        short: Names to use if they are unique.
        long: Names to use otherwise, such as `a.mp3.wav` for `a.mp3`; if these are not unique either, they are numbered.
        fixed: Names that must not change, empty where there is none.
    """
    names, is_long = list(short), [bool(name) for name in (fixed or [""] * len(short))]
    while True:
        shared = Counter(_same_file(name) for name in names)
        change = [i for i, name in enumerate(names) if shared[_same_file(name)] > 1 and not is_long[i]]
        if not change:
            break
        for i in change:
            names[i], is_long[i] = long[i], True
    taken = {_same_file(name) for name in fixed if name}
    for i, name in enumerate(names):
        if fixed and fixed[i]:
            continue
        path, n = Path(name), 1
        while _same_file(names[i]) in taken:
            n += 1
            names[i] = str(path.with_name(f"{path.stem}.{n}{path.suffix}"))
        taken.add(_same_file(names[i]))
    return names


def name_targets(folder: Path, names: Sequence[str], suffix: str) -> list[Path]:
    """Return a file below a folder for each name, with its subfolders, and numbered if names are equal."""
    targets: list[Path] = []
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[\x00-\x1f\x7f\ud800-\udc7f\udd00-\udfff]", "_", name.replace("\\", "/"))
        parts = [_shorten(part) for part in PurePosixPath(plain).parts if part.strip("/. ")] or ["units"]
        if PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES:
            parts[-1] = PurePosixPath(parts[-1]).stem
        target, n = folder.joinpath(*parts[:-1], parts[-1] + suffix), 1
        # Some file systems ignore case.
        while str(target).lower() in taken:
            n += 1
            target = folder.joinpath(*parts[:-1], f"{parts[-1]}-{n}{suffix}")
        taken.add(str(target).lower())
        targets.append(target)
    return targets


def _shorten(part: str) -> str:
    part = part.replace(":", "_")
    return os.fsdecode(os.fsencode(part)[:MAX_NAME_BYTES]) if len(os.fsencode(part)) > MAX_NAME_BYTES else part


def _output(table: Path, number: int, out_dir: Path, row: Mapping[str, Any], speakers: list[str], ending: str) -> str:
    stated = row.get("output", "").replace("\\", "/" if os.sep == "/" else "\\")
    name = Path(stated) if stated else _below(Path(os.path.expanduser(row["source"].replace("\\", "/")))).with_suffix(ending)
    if not stated and speakers:
        name = Path("+".join(Path(s).stem for s in speakers)) / name
    if name.is_absolute() or ".." in name.parts:
        raise DataError(f"{table}, line {number}: output is {stated!r}; it must be a path below the folder of the outputs")
    return str(out_dir / name)


def _below(path: Path) -> Path:
    return Path(path.name) if path.is_absolute() or ".." in path.parts else path


def _beside(table: Path, speaker: str) -> str:
    candidate = find_path(speaker, table.parent)
    if candidate.exists():
        return str(candidate)
    path, colon, weight = speaker.rpartition(":")
    candidate = find_path(path, table.parent)
    return f"{candidate}:{weight}" if colon and path and candidate.exists() else speaker


def read_report(path: Path) -> dict[str, dict[str, Any]]:
    """Return the last line of each output in a report; an incomplete line of a killed run is ignored."""
    lines: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return lines
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            lines[row["output"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return lines


def write_report(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write a report with one line per job, after the lines of other outputs that it has already."""
    rows = [_row(outcome) for outcome in outcomes]
    with locked(path.parent):
        outputs = {row["output"] for row in rows}
        others = [row for output, row in read_report(path).items() if output not in outputs]
        write_file(path, "".join(json.dumps(row) + "\n" for row in (*others, *rows)))


def append_report(path: Path, outcome: Outcome) -> None:
    """Append a line to a report, which other runs may write to at the same time.

    Raises:
        OSError: If it cannot be written.
    """
    with locked(path.parent), path.open("a+b") as lines:
        # An incomplete line of a killed run must be ended.
        end = lines.seek(0, os.SEEK_END)
        if end:
            lines.seek(end - 1)
            ended = lines.read(1) == b"\n"
        else:
            ended = True
        lines.write((b"" if ended else b"\n") + report_line(outcome).encode())


def report_line(outcome: Outcome) -> str:
    """Return an outcome as a line of JSON, in which missing measurements are null."""
    return json.dumps(_row(outcome)) + "\n"


def _row(outcome: Outcome) -> dict[str, Any]:
    row = {name: value for name, value in asdict(outcome).items() if name != "value"}
    row["facts"] = plain(row["facts"])
    return row


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts with None in place of NaN, which JSON does not have."""
    return {name: None if isinstance(value, float) and value != value else value for name, value in facts.items()}


def failed(job: Job, reason: str) -> Outcome:
    """Return the outcome of a failed job, with its reason on one line."""
    return Outcome(job.source, job.speakers, job.output, "failed", " ".join(reason.split()))
