"""Many files at once: what there is to do, what was done before, and the worker that does one after another.

No import of torch until a worker starts, so that a wrong folder or table is told at once.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcae.errors import AudioError, ConfigError, DataError, VcaeError
from vcae.files import hash_file, provenance, write_file
from vcae.version import __version__

if TYPE_CHECKING:
    from vcae.audio.io import SoundReader
    from vcae.engine.engine import Engine
    from vcae.voice.voice import Voice

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".caf", ".w64", ".rf64")
REPORT = "report.jsonl"
# Voices that a worker keeps, when a table names many.
MAX_VOICES = 64


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


@dataclass(frozen=True)
class Settings:
    """What all jobs of a run share.

    Attributes:
        checkpoint: Name or path.
        device: As `--device`.
        options: Fields of `vcae.options.ConvertOptions`.
        speakers: Of every job, where one voice is asked for; it is heard at the start, so that a bad one ends the run there.
    """

    checkpoint: str = "default"
    device: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    speakers: tuple[str, ...] = ()

    def worker(self) -> Worker:
        """Return what does the jobs; made in a process of its own.

        Raises:
            VcaeError: If the settings cannot be used.
        """
        return Converter(self)


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


class Worker:
    """Does job after job; what it does is said by those that inherit from it.

    Attributes:
        verb: What becomes of a source.
    """

    verb = "made"

    def __call__(self, job: Job) -> Outcome:
        """Do a job; whatever goes wrong is its outcome and not an exception."""
        started = time.perf_counter()
        try:
            outcome = self._do(job)
        except VcaeError as error:
            outcome = _failed(job, str(error))
        except Exception as error:  # One bad file must not stop the rest.
            outcome = _failed(job, f"unexpected {type(error).__name__}: {error}")
        return replace(outcome, elapsed_s=round(time.perf_counter() - started, 3))

    def _do(self, job: Job) -> Outcome:
        output = Path(job.output)
        with self._open(job) as source:
            facts = {"source": hash_file(Path(job.source)), "version": __version__, "suffix": output.suffix.lower()}
            key = hashlib.sha256(json.dumps(facts | self._facts(job), sort_keys=True).encode()).hexdigest()
            done = Outcome(job.source, job.speakers, job.output, self.verb, "", key)
            if job.known is not None and job.known.get("key") == key and output.is_file():
                digest = hash_file(output)
                if digest == job.known.get("sha256"):
                    seconds, reason = float(job.known.get("duration_s") or 0), str(job.known.get("reason") or "")
                    n_bytes = output.stat().st_size
                    return replace(done, status="skipped", reason=reason, sha256=digest, n_bytes=n_bytes, duration_s=seconds)
            if os.path.realpath(output) == os.path.realpath(job.source):
                raise AudioError(f"{output} is the source itself; choose another --out-dir")
            seconds, reason = self._make(job, source)
        size, digest = output.stat().st_size, hash_file(output)
        return replace(done, reason=reason, sha256=digest, n_bytes=size, duration_s=round(seconds, 3))

    def _open(self, job: Job) -> AbstractContextManager[Any]:
        """Open the source, so that a bad one is told first."""
        raise NotImplementedError

    def _facts(self, job: Job) -> dict[str, Any]:
        """Return what decides the result beside the source, as plain data."""
        raise NotImplementedError

    def _make(self, job: Job, source: Any) -> tuple[float, str]:
        """Write the output; return the sound's duration in seconds, and what was wrong with the source if anything was."""
        raise NotImplementedError


class Converter(Worker):
    """What converts: loads the model once, hears each voice once.

    Args:
        settings: Of the run.

    Raises:
        VcaeError: If the checkpoint, the options or the voice of all jobs cannot be used.
    """

    verb = "converted"

    def __init__(self, settings: Settings) -> None:
        from vcae.config import from_dict
        from vcae.options import ConvertOptions
        from vcae.tasks.model import load

        self._options = from_dict(ConvertOptions, dict(settings.options), "options")
        self._model = load(settings.checkpoint, settings.device)
        self._voices = Voices(self._model, self._options.denoise)
        if settings.speakers:
            self._voices.find(settings.speakers)

    def _open(self, job: Job) -> AbstractContextManager[SoundReader]:
        from vcae.audio.io import SoundReader

        return SoundReader(job.source)

    def _facts(self, job: Job) -> dict[str, Any]:
        return {
            "voice": self._voices.find(job.speakers)[1],
            "options": asdict(self._options),
            "checkpoint": self._model.checkpoint.sha256,
        }

    def _make(self, job: Job, source: SoundReader) -> tuple[float, str]:
        from vcae.audio.io import check_output, write_blocks
        from vcae.tasks.convert import convert_long

        check_output(job.output, force=True)
        done = convert_long(self._model, source, self._voices.find(job.speakers)[0], self._options)
        comment = provenance(self._model.checkpoint, self.verb)
        write_blocks(job.output, done.blocks, self._model.sample_rate, comment, force=True)
        return done.duration_s, ""


class Voices:
    """Hears each voice once, and keeps it while there are not too many."""

    def __init__(self, model: Engine, denoise: bool = False) -> None:
        self._model, self._denoise = model, denoise
        self._known: dict[tuple[str, ...], tuple[Voice, str]] = {}

    def find(self, speakers: tuple[str, ...]) -> tuple[Voice, str]:
        """Return a voice, and what its files are, as JSON.

        Args:
            speakers: Each as `--speaker` takes it.

        Raises:
            VcaeError: If it cannot be used.
        """
        from vcae.voice.speakers import find_voice, parse_speaker, read_clips

        if speakers not in self._known:
            parsed = [parse_speaker(text) for text in speakers]
            voice = find_voice(self._model, parsed, read_clips(parsed), self._denoise)
            facts = [(hash_file(speaker.path), speaker.weight) for speaker in parsed]
            while len(self._known) >= MAX_VOICES:
                self._known.pop(next(iter(self._known)))
            self._known[speakers] = voice, json.dumps(facts)
        return self._known[speakers]


def _failed(job: Job, reason: str) -> Outcome:
    return Outcome(job.source, job.speakers, job.output, "failed", " ".join(reason.split()))
