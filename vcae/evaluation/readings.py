"""Readings: results of judges on files, computed on several cores and cached in a file until a sound file or a judge changes."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from vcae.errors import ConfigError, VcaeError
from vcae.evaluation.scores import Judge, Reader, load_wav
from vcae.evaluation.tables import Row
from vcae.files import hash_file

CACHE = "readings.jsonl"
# Part of every key; to be raised when `load_wav` changes.
FORMAT = 1
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Files that a worker keeps in memory: a source is read by several judges one after another.
KEPT_WAVS = 8

Files = tuple[Path, ...]


@dataclass(frozen=True)
class Answer:
    """Result of a reading: a value, or the reason of a failure and whether the judge itself could not be opened."""

    value: Any = None
    reason: str = ""
    judge_failed: bool = False


@dataclass
class Readings:
    """Readings of all judges.

    Attributes:
        values: Readings by judge and files.
        problems: A message for each file or judge that failed.
        failed_judges: Names of judges that could not be opened.
        n_new: Number of new readings; the others were in the cache.
    """

    values: dict[tuple[str, Files], Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    failed_judges: list[str] = field(default_factory=list)
    n_new: int = 0

    def of(self, judge: Judge) -> Callable[..., Any]:
        """Return a function that looks up a judge's reading of files; it returns None if there is none."""
        return lambda *files: self.values.get((judge.name, files))


def read_all(
    rows: Sequence[Row],
    judges: Sequence[Judge],
    folder: Path | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Readings:
    """Run the judges on all files of all rows.

    Args:
        rows: Rows to judge.
        judges: From `choose_judges`.
        folder: Folder of the cache, which is indexed by the content of the files; no cache when None.
        jobs: Number of processes with one thread each; 1 uses this process.
        progress: Called with the number of readings done, including cached ones, and the total.

    Raises:
        ConfigError: If the folder cannot be written to.
    """
    wanted = list(dict.fromkeys((n, files) for n, judge in enumerate(judges) for row in rows for files in judge.needs(row)))
    found, keys, unreadable = Readings(), _keys(wanted, judges), set[str]()
    known = _load(folder)
    left = []
    for n, files in wanted:
        key = keys.get((n, files))
        if key in known:
            found.values[judges[n].name, files] = known[key]
        else:
            left.append((n, files))
    done = len(wanted) - len(left)
    if progress is not None:
        progress(done, len(wanted))
    answers = _in_processes(judges, left, jobs) if jobs > 1 and len(left) > 1 else _here(judges, left)
    with _Log(folder) as log:
        for (n, files), answer in answers:
            done += 1
            if answer.reason:
                unreadable.add(answer.reason)
                if answer.judge_failed and judges[n].name not in found.failed_judges:
                    found.failed_judges.append(judges[n].name)
            else:
                found.values[judges[n].name, files] = answer.value
                found.n_new += 1
                log.add(keys.get((n, files)), judges[n].name, files, answer.value)
            if progress is not None:
                progress(done, len(wanted))
    found.problems = sorted(unreadable)
    return found


def _keys(wanted: Iterable[tuple[int, Files]], judges: Sequence[Judge]) -> dict[tuple[int, Files], str]:
    """Return the key of each reading, computed from the judge's identity and the files' content; none for unreadable files."""
    identities = [judge.identity() for judge in judges]

    @functools.cache
    def digest(path: Path) -> str | None:
        try:
            return hash_file(path)
        except OSError:
            return None

    keys = {}
    for n, files in wanted:
        digests = [digest(path) for path in files]
        if None not in digests:
            said = json.dumps([FORMAT, judges[n].name, identities[n], digests])
            keys[n, files] = hashlib.sha256(said.encode()).hexdigest()
    return keys


def _load(folder: Path | None) -> dict[str | None, Any]:
    known: dict[str | None, Any] = {}
    if folder is None or not (folder / CACHE).is_file():
        return known
    for line in (folder / CACHE).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            known[str(row["key"])] = row["value"]
        except (ValueError, KeyError, TypeError):
            # The last line may be incomplete after a killed run.
            continue
    return known


class _Log:
    """Writer of the cache file; each reading is written at once, so that none is lost if a run stops."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / CACHE
        self._file: TextIO | None = None

    def __enter__(self) -> _Log:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("a", encoding="utf-8")
                # An incomplete line of a killed run must be ended.
                self._file.write("\n" if self._path.stat().st_size else "")
            except OSError as error:
                raise ConfigError(
                    f"{self._path} could not be written ({error.strerror}); choose another output folder"
                ) from error
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, key: str | None, judge: str, files: Files, value: Any) -> None:
        """Write a reading."""
        if self._file is not None and key is not None:
            row = {"key": key, "judge": judge, "files": [path.name for path in files], "value": value}
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()


class _Bench:
    """Judges of one process, each opened at its first use."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        self._judges = list(judges)
        self._opened: dict[int, Reader | str] = {}
        self._load = functools.lru_cache(maxsize=KEPT_WAVS)(load_wav)

    def read(self, n: int, files: Files) -> Answer:
        """Return a judge's reading of files; errors are returned as an `Answer`, not raised."""
        if n not in self._opened:
            try:
                self._opened[n] = self._judges[n].open()
            except Exception as error:  # Judges are other packages; their errors must not stop the rest.
                self._opened[n] = f"{self._judges[n].name} could not be opened ({_said(error)}); the others judge without it"
        reader = self._opened[n]
        if isinstance(reader, str):
            return Answer(reason=reader, judge_failed=True)
        try:
            wavs = [self._load(path) for path in files]
        except VcaeError as error:
            return Answer(reason=" ".join(str(error).split()))
        try:
            return Answer(reader(*wavs))
        except Exception as error:
            return Answer(reason=f"{self._judges[n].name} could not judge {files[0]} ({_said(error)})")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _here(judges: Sequence[Judge], left: Sequence[tuple[int, Files]]) -> Iterator[tuple[tuple[int, Files], Answer]]:
    bench = _Bench(judges)
    for n, files in left:
        yield (n, files), bench.read(n, files)


_bench: _Bench | None = None


def _start(judges: Sequence[Judge]) -> None:
    # The parent process handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    global _bench
    _bench = _Bench(judges)


def _serve(n: int, files: Files) -> Answer:
    if _bench is None:
        raise RuntimeError("the process was not prepared")
    return _bench.read(n, files)


def _in_processes(
    judges: Sequence[Judge], left: Sequence[tuple[int, Files]], jobs: int
) -> Iterator[tuple[tuple[int, Files], Answer]]:
    """Read in processes of one thread each; a reading that crashes its process is reported, and the others continue."""
    waiting = list(left)
    while waiting:
        finished: set[tuple[int, Files]] = set()
        try:
            for task, answer in _pool(judges, waiting, jobs):
                finished.add(task)
                yield task, answer
        except BrokenProcessPool:
            # It is unknown which of the running readings crashed, so each is tried on its own.
            waiting = [task for task in waiting if task not in finished]
            task = waiting.pop(0)
            yield task, _alone(judges, task)
            continue
        return


def _alone(judges: Sequence[Judge], task: tuple[int, Files]) -> Answer:
    try:
        return next(answer for _, answer in _pool(judges, [task], 1))
    except BrokenProcessPool:
        name, files = judges[task[0]].name, ", ".join(map(str, task[1]))
        return Answer(reason=f"{name} died over {files} (a crash, or too little memory; try fewer processes: `jobs=1`)")


def _pool(judges: Sequence[Judge], tasks: Sequence[tuple[int, Files]], jobs: int) -> Iterator[tuple[tuple[int, Files], Answer]]:
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context, initializer=_start, initargs=(tuple(judges),))
    try:
        running: dict[Future[Answer], tuple[int, Files]] = {pool.submit(_serve, *task): task for task in tasks}
        while running:
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
