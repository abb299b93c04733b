"""Processing of many sources in worker processes, with one progress bar, and one way to report failures."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vcae.batch.jobs import Job, Outcome
from vcae.batch.worker import Worker
from vcae.cli.common import Stopwatch, as_option, progress, say
from vcae.cli.sources import Run
from vcae.environment import allowed_cores
from vcae.files import STDIO

FAILED = 1
INTERRUPTED = 130
# Files that a folder run leaves out are named up to this many.
MAX_NAMED = 10
Build = Callable[[], Worker]


class Jobs(list[Job]):
    """Jobs, and the files of folders that are not among them.

    Args:
        jobs: The jobs.
        left_out: Names of the other files.
    """

    def __init__(self, jobs: Iterable[Job], left_out: Sequence[str] = ()) -> None:
        super().__init__(jobs)
        self.left_out = left_out


def outcomes(jobs: Sequence[Job], worker: Worker, build: Build, run: Run) -> Iterator[Outcome]:
    """Process jobs in worker processes, the longest first, after those that an earlier run completed, which need no model.

    Args:
        jobs: The jobs.
        worker: Worker of this process.
        build: Function that builds a worker; it is pickled for other processes.
        run: The common options.

    Raises:
        VcaeError: If a worker cannot be started.
    """
    n, rest = run.jobs or allowed_cores(), list(jobs)
    if run.resume:
        with ThreadPoolExecutor(n) as threads:
            finished = list(threads.map(worker.finished, jobs))
        yield from (outcome for outcome in finished if outcome is not None)
        rest = [job for job, outcome in zip(jobs, finished, strict=True) if outcome is None]
    if not rest:
        return
    rest.sort(key=size_of, reverse=True)
    from vcae.batch import pool, ray_pool

    if run.engine == "ray":
        yield from ray_pool.run_jobs_on_ray(rest, build, n, run.address)
    else:
        yield from pool.run_jobs(rest, build, n)


def size_of(job: Job) -> int:
    """Return the size of a job's source in bytes; 0 if there is none."""
    try:
        return os.stat(job.source).st_size
    except (OSError, ValueError):
        return 0


@contextlib.contextmanager
def bar(jobs: Sequence[Job], worker: Worker, run: Run) -> Iterator[Callable[[Outcome], None]]:
    """Show the fraction of all sources' bytes that is done; yields a function to call with each outcome."""
    sizes = {job.source: size_of(job) for job in jobs}
    whole, watch = max(sum(size_of(job) for job in jobs), 1), Stopwatch()
    n = n_failed = n_bytes = 0
    seconds = 0.0
    with progress(worker.doing, run.quiet) as tell:

        def advance(outcome: Outcome) -> None:
            nonlocal n, n_failed, n_bytes, seconds
            n, n_failed, n_bytes = n + 1, n_failed + (outcome.status == "failed"), n_bytes + sizes[outcome.source]
            seconds += outcome.duration_s if outcome.status == worker.verb else 0.0
            failures = f", {n_failed} failed" if n_failed else ""
            tell(n_bytes / whole, f"{n} of {len(jobs)}, {seconds / watch():.0f} times real time{failures}")

        yield advance


def say_left_out(names: Sequence[str], run: Run) -> None:
    """Name the files of folders that are left out, up to a number that can be read."""
    if names and not run.quiet:
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        say(f"left out, by suffix: {', '.join(names[:MAX_NAMED])}{more}; name a file, or --glob, to have it tried", sys.stderr)


def say_warnings(facts: Mapping[str, Any]) -> None:
    """Print the warnings among the measurements of a source on stderr."""
    for line in facts.get("warnings", ()):
        say(f"warning: {line}", sys.stderr)


def say_failed(outcome: Outcome) -> None:
    """Print a failure and its reason on stderr."""
    source = "standard input" if outcome.source == STDIO else " ".join(outcome.source.split())
    named = source in outcome.reason
    say(as_option(f"failed: {outcome.reason if named else f'{source}: {outcome.reason}'}"), sys.stderr)
