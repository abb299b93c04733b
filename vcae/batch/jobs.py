"""What there is to do and what became of it: files of a folder, rows of a table, lines of a report. No import of torch here."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from vcae.errors import ConfigError, DataError
from vcae.files import write_file

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".caf", ".w64", ".rf64")
REPORT = "report.jsonl"


@dataclass(frozen=True)
class Job:
    """One file to make of another.

    Attributes:
        source: The file to read.
        speakers: Each as `--speaker` takes it.
        output: The file to write.
        known: What a report says of this output: `key` and `sha256`; None if nothing, or if it is to be made again anyway.
    """

    source: str
    speakers: tuple[str, ...]
    output: str
    known: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        source, speakers, output: As in the job.
        status: What was done, such as `converted`; or `skipped` (was done before) or `failed`.
        reason: Why it failed, or what was wrong with the source all the same.
        key: Hash of all that decides the result: the source's content, the voice's, the settings, the checkpoint.
        sha256: Of the output.
        n_bytes: Of the output.
        duration_s: Of the sound.
        elapsed_s: That it took.
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


def plan_folder(
    folder: Path,
    speakers: tuple[str, ...],
    out_dir: Path,
    pattern: str | None = None,
    suffixes: Collection[str] = SUFFIXES,
    ending: str = ".wav",
) -> list[Job]:
    """List what is to be made of a folder's files, in the order of their names; the tree is kept.

    Args:
        folder: Searched with all below it; links to folders are not followed, and hidden files and `out_dir` are left out.
        speakers: Of the voice.
        out_dir: Where outputs go. Two sources that differ in their suffix alone keep it: `a.mp3.wav`.
        pattern: Such as `*.flac` or `day1/*`: of the name or of the path below the folder; all `suffixes` when None.
        suffixes: In lower case.
        ending: Suffix of the outputs.

    Raises:
        ConfigError: If there is nothing to convert.
    """
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        here = Path(root)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (here / name).resolve() != out_dir.resolve()
        )
        found += [(here / name).relative_to(folder) for name in sorted(names) if not name.startswith(".")]
    if pattern is None:
        chosen = [path for path in found if path.suffix.lower() in suffixes]
    else:
        chosen = [path for path in found if fnmatch(path.name, pattern) or fnmatch(path.as_posix(), pattern)]
    if not chosen:
        kind = "sound files" if suffixes is SUFFIXES else f"{', '.join(suffixes)} files"
        wanted = kind if pattern is None else f"files like {pattern!r}"
        raise ConfigError(f"{folder} holds no {wanted} among its {len(found)} files; give another folder or --glob")
    shared = Counter(path.with_suffix("") for path in chosen)
    names_out = [path.with_suffix(ending) if shared[path.with_suffix("")] == 1 else Path(f"{path}{ending}") for path in chosen]
    return [Job(str(folder / path), speakers, str(out_dir / name)) for path, name in zip(chosen, names_out, strict=True)]


def plan_pairs(table: Path, out_dir: Path) -> list[Job]:
    """List the conversions of a CSV with the columns source, speaker and, if wanted, output.

    Args:
        table: Paths in it are relative to it. A speaker is what `--speaker` takes; several are set apart by ';'.
        out_dir: Where outputs go: as the column output says, else `SPEAKER/SOURCE.wav`.

    Raises:
        DataError: If it cannot be read, lacks a column, is empty, or names an output twice or outside `out_dir`.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{table} cannot be read as a table ({error}); give a CSV with the columns source and speaker"
        ) from error
    if not rows or not {"source", "speaker"} <= set(rows[0]):
        have = ", ".join(str(key) for key in rows[0]) if rows else "no rows"
        raise DataError(f"{table} has {have}; the columns source and speaker are needed, output may be added")
    jobs, seen = [], set[str]()
    for number, row in enumerate(rows, 2):
        source, speakers = (row["source"] or "").strip(), [s.strip() for s in (row["speaker"] or "").split(";") if s.strip()]
        if not source or not speakers:
            raise DataError(f"{table}, line {number}: source is {source!r} and speaker {row['speaker']!r}; both are needed")
        stated = (row.get("output") or "").strip()
        name = (
            Path(stated)
            if stated
            else Path("+".join(Path(s).stem for s in speakers)) / _below(Path(source)).with_suffix(".wav")
        )
        if name.is_absolute() or ".." in name.parts:
            raise DataError(f"{table}, line {number}: output is {stated!r}; it must be a path below --out-dir")
        output = str(out_dir / name)
        if output in seen:
            raise DataError(
                f"{table}, line {number}: {output} is the output of an earlier line too; name others in a column output"
            )
        seen.add(output)
        jobs.append(Job(str(table.parent / source), tuple(_beside(table, s) for s in speakers), output))
    return jobs


def _below(path: Path) -> Path:
    return Path(path.name) if path.is_absolute() or ".." in path.parts else path


def _beside(table: Path, speaker: str) -> str:
    path, colon, weight = speaker.rpartition(":")
    candidate = table.parent / speaker
    if candidate.exists():
        return str(candidate)
    if colon and (table.parent / path).exists():
        return f"{table.parent / path}:{weight}"
    return speaker


def read_report(path: Path) -> dict[str, dict[str, Any]]:
    """Return the last line about each output of a report; a line that a killed run left unfinished is passed over."""
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
    """Write one line a job."""
    write_file(path, "".join(report_line(outcome) for outcome in outcomes))


def report_line(outcome: Outcome) -> str:
    """Return an outcome as a line of JSON."""
    return json.dumps(asdict(outcome)) + "\n"


def failed(job: Job, reason: str) -> Outcome:
    """Return the outcome of a job that could not be done, its reason on one line."""
    return Outcome(job.source, job.speakers, job.output, "failed", " ".join(reason.split()))
