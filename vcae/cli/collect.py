"""Results of many sources that are collected in one output, or read for one result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import typer

from vcae.batch.jobs import Job, Outcome, plan
from vcae.batch.worker import Talk, Worker
from vcae.cli.common import progress
from vcae.cli.defaults import given
from vcae.cli.many import FAILED, INTERRUPTED, Build, Jobs, bar, outcomes, say_failed, say_left_out, say_warnings
from vcae.cli.sources import Run
from vcae.errors import AudioError, ConfigError, VcaeError

T = TypeVar("T")


@dataclass
class Collected:
    """Results collected from all sources.

    Attributes:
        made: Outcomes of the sources that could be used, in order.
        failed: The other sources, which were reported on stderr.
    """

    made: list[Outcome] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def leave(self) -> None:
        """End the command with 1 if a source failed.

        Raises:
            typer.Exit: If a source failed.
        """
        if self.failed:
            raise typer.Exit(FAILED)


def plan_collected(worker: type[Worker], sources: Sequence[str], run: Run) -> list[Job]:
    """Plan the jobs whose results are collected in one output.

    Raises:
        VcaeError: If there are none, or --resume is given without --out-dir.
    """
    if run.resume and run.out_dir is None and given("resume"):
        raise ConfigError("--resume needs --out-dir: results that are collected in one output are always computed completely")
    left_out = list[str]()
    jobs = plan(sources, None, (), worker.ending, worker.sources, run.glob, worker.columns, left_out)
    return Jobs({job.source: job for job in jobs}.values(), left_out)


def collect(
    jobs: Sequence[Job],
    build: Build,
    run: Run,
    each: Callable[[Outcome], object] = lambda outcome: None,
    each_failed: Callable[[Outcome], object] | None = None,
) -> Collected:
    """Collect the results of all sources: of a single one in this process, of several in worker processes.

    Args:
        jobs: From `plan_collected`.
        build: Function that builds a worker; it is pickled for other processes.
        run: The common options.
        each: Called with each successful outcome, in the order of the sources.
        each_failed: Called with each failed outcome likewise, for results that have a row for it; without it, nothing is collected if all fail.

    Raises:
        VcaeError: If the only source cannot be used.
        typer.Exit: 130 after Ctrl-C.
    """
    found = Collected()
    say_left_out(getattr(jobs, "left_out", ()), run)

    def take(outcome: Outcome) -> None:
        if outcome.status == "failed":
            found.failed.append(outcome.source)
            if each_failed is not None:
                each_failed(outcome)
            return
        found.made.append(outcome)
        each(outcome)

    worker = build()
    if len(jobs) == 1:
        take(_collect_one(jobs[0], worker, run))
        return found
    here = len(jobs) <= worker.few and not run.jobs
    waiting, order = dict[str, Outcome](), iter(jobs)
    turn = next(order, None)
    with bar(jobs, worker, run) as advance:
        try:
            for outcome in map(worker, jobs) if here else outcomes(jobs, worker, build, run):
                advance(outcome)
                if outcome.status == "failed":
                    say_failed(outcome)
                say_warnings(outcome.facts)
                waiting[outcome.source] = outcome
                while turn is not None and turn.source in waiting:
                    take(waiting.pop(turn.source))
                    turn = next(order, None)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    if not found.made and each_failed is None:
        # There is nothing to write.
        found.leave()
    return found


def _collect_one(job: Job, worker: Worker, run: Run) -> Outcome:
    with worker.open(job.source, sys.stdin.buffer) as opened, progress(worker.doing, run.quiet) as tell:
        worker.start()
        made = worker.make(job, opened, Talk(tell, sys.stdin.buffer)).of(opened)
    say_warnings(made.facts)
    facts = {**made.facts, **worker.about()}
    return Outcome(job.source, job.speakers, "", worker.verb, duration_s=made.duration_s, facts=facts, value=made.value)


class Failures:
    """Failures among files that are read one after another: each is reported and the rest are used, but the only one raises.

    Args:
        total: Number of files.

    Attributes:
        n: Number of failures so far.
    """

    def __init__(self, total: int) -> None:
        self.total, self.n = total, 0

    def tell(self, source: str, error: VcaeError) -> None:
        """Report the failure of a source on stderr.

        Raises:
            VcaeError: If it is the only one, or all have failed.
        """
        if self.total == 1:
            raise error
        self.n += 1
        say_failed(Outcome(source, (), "", "failed", " ".join(str(error).split())))
        if self.n == self.total:
            raise AudioError(f"none of the {self.total} files could be used; the lines above say why")

    def __str__(self) -> str:
        return f"; {self.n} failed" if self.n else ""

    def leave(self) -> None:
        """End the command with 1 if a source failed.

        Raises:
            typer.Exit: If a source failed.
        """
        if self.n:
            raise typer.Exit(FAILED)


def read_each(paths: Sequence[str], read: Callable[[str], T], doing: str, quiet: bool) -> tuple[list[tuple[int, T]], Failures]:
    """Read recordings one after another, for commands with one result from all of them.

    Args:
        paths: Paths of the recordings.
        read: Function that reads one; a VcaeError means that it cannot be used.
        doing: Text of the progress bar.
        quiet: Show no progress bar.

    Returns:
        The index and the result of each usable recording; and the failures, which were reported on stderr.

    Raises:
        VcaeError: If the only one cannot be used, or none of several.
    """
    failures, found = Failures(len(paths)), list[tuple[int, T]]()
    with progress(doing, quiet) as tell:
        for n, path in enumerate(paths):
            try:
                found.append((n, read(path)))
            except VcaeError as error:
                failures.tell(path, error)
            tell((n + 1) / len(paths))
    return found, failures
