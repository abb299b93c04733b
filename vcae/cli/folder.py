"""Commands on a folder or a table: plans, shows progress, writes the report."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcae.cli.common import Stopwatch, say
from vcae.errors import ConfigError
from vcae.files import remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable

    from vcae.batch.jobs import Job, Outcome
    from vcae.batch.workers import Settings

FAILED = 1
INTERRUPTED = 130
OutDirOption = Annotated[Path | None, typer.Option(help="Folder for the outputs of a folder; its tree is kept.")]
GlobOption = Annotated[str | None, typer.Option(help="Which files of a folder, such as '*.flac'; all that fit by default.")]
JobsOption = Annotated[int, typer.Option(min=0, help="Worker processes for a folder; 0: one a core.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Skip what a run before has done rightly.")]


@dataclass(frozen=True)
class Run:
    """How many files are to be made.

    Attributes:
        out_dir: Where outputs and the report go.
        glob: Which files of a folder, or None.
        jobs: Worker processes; 0 for one a core.
        resume: Skip what is done.
        force: Make again what is done.
        quiet: Print nothing but errors.
        json: Print the summary as JSON.
        engine: `local` processes, or `ray`.
        address: Of a Ray cluster; None starts one on this machine.
        verb: What becomes of a file: the status of an outcome.
    """

    out_dir: Path
    glob: str | None
    jobs: int
    resume: bool
    force: bool
    quiet: bool
    json: bool
    engine: str = "local"
    address: str | None = None
    verb: str = "converted"


def is_many(source: str) -> bool:
    """Say whether a source is a folder or a table rather than a recording."""
    return source != "-" and (os.path.isdir(source) or Path(source).suffix.lower() == ".csv")


def needed_folder(source: str, output: str | None, out_dir: Path | None) -> Path:
    """Return the folder that the outputs of a folder or table go to.

    Raises:
        ConfigError: If it was not said, or a file was.
    """
    if output is not None or out_dir is None:
        kind = "a folder" if os.path.isdir(source) else "a table"
        raise ConfigError(f"{source} is {kind}; say with --out-dir, and not with -o, where its outputs are to go")
    return out_dir


def refuse_folder_options(source: str, out_dir: Path | None, glob: str | None, jobs: int, resume: bool) -> None:
    """Refuse the options that are for a folder.

    Raises:
        ConfigError: If one was given.
    """
    if out_dir is not None or glob is not None or resume or jobs:
        raise ConfigError(f"{source} is no folder; --out-dir, --glob, --jobs and --resume are for one, so use -o")


def convert_many(source: str, settings: Settings, run: Run) -> None:
    """Convert all recordings of a folder, or all rows of a table, and end with a summary.

    Raises:
        ConfigError: If there is nothing to do, or outputs exist and neither --resume nor --force is given.
        DataError: For an unusable table.
        typer.Exit: 1 if a conversion failed, 130 after Ctrl-C.
    """
    from vcae.batch.jobs import plan_folder, plan_pairs

    folder = Path(source)
    jobs = plan_folder(folder, settings.speakers, run.out_dir, run.glob) if folder.is_dir() else plan_pairs(folder, run.out_dir)
    do_many(jobs, settings, run)


def do_many(jobs: list[Job], settings: Settings, run: Run) -> None:
    """Do jobs, and end with a summary.

    Raises:
        ConfigError: If outputs exist and neither --resume nor --force is given.
        typer.Exit: 1 if one failed, 130 after Ctrl-C.
    """
    from vcae.batch.jobs import REPORT, write_report

    report = run.out_dir / REPORT
    jobs = _with_history(jobs, report, run)
    _make_folder(run.out_dir)
    parents = {Path(job.output).parent for job in jobs}
    for parent in parents:
        remove_leftovers(parent)
    watch, done, interrupted = Stopwatch(), dict[str, "Outcome"](), False
    with _progress(len(jobs), run) as advance:
        try:
            for outcome in _outcomes(jobs, settings, run, report):
                done[outcome.output] = outcome
                advance(outcome)
        except KeyboardInterrupt:
            interrupted = True
    # Again: a worker of a run killed just before may have been dying still.
    for parent in parents:
        remove_leftovers(parent)
    ordered = [done[job.output] for job in jobs if job.output in done]
    if not interrupted:
        write_report(report, ordered)
    _summarise(ordered, len(jobs), watch(), report, run, interrupted)


def _with_history(jobs: list[Job], report: Path, run: Run) -> list[Job]:
    from vcae.batch.jobs import read_report

    if run.resume:
        known = read_report(report)
        return [replace(job, known=known.get(job.output)) for job in jobs]
    there = sum(Path(job.output).exists() for job in jobs)
    if there and not run.force:
        raise ConfigError(
            f"{there} of {len(jobs)} outputs are in {run.out_dir} already; add --resume to keep those that are right, or --force to "
            "make all again"
        )
    return jobs


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "no permission"
    except OSError as error:
        reason = error.strerror
    if reason:
        raise ConfigError(f"{folder} cannot be written to ({reason}); choose another --out-dir")


def _outcomes(jobs: list[Job], settings: Settings, run: Run, report: Path) -> Iterator[Outcome]:
    """Do the jobs, and add a line to the report after each, so that a killed run knows what it did."""
    from vcae.batch.jobs import report_line
    from vcae.batch.pool import run_jobs
    from vcae.batch.ray_pool import run_jobs_on_ray

    def size(job: Job) -> int:
        try:
            return os.stat(job.source).st_size
        except (OSError, ValueError):
            return 0

    longest_first = sorted(jobs, key=size, reverse=True)
    try:
        with report.open("a" if run.resume else "w", encoding="utf-8") as lines:
            # A line that a killed run left unfinished must not run into the next.
            lines.write("\n" if run.resume else "")
            n = run.jobs or _cores()
            on_ray = run.engine == "ray"
            outcomes = (
                run_jobs_on_ray(longest_first, settings, n, run.address) if on_ray else run_jobs(longest_first, settings, n)
            )
            for outcome in outcomes:
                lines.write(report_line(outcome))
                lines.flush()
                yield outcome
    except OSError as error:
        raise ConfigError(f"{report} could not be written ({error.strerror}); choose another --out-dir") from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _progress(total: int, run: Run) -> Iterator[Callable[[Outcome], None]]:
    if run.quiet or not sys.stderr.isatty():
        yield lambda outcome: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    doing = run.verb.removesuffix("ed") + "ing"
    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    watch, seconds, failed = Stopwatch(), 0.0, 0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(doing, total=total, rate="")

        def advance(outcome: Outcome) -> None:
            nonlocal seconds, failed
            seconds += outcome.duration_s if outcome.status == run.verb else 0.0
            failed += outcome.status == "failed"
            rate = f"{seconds / watch():.0f} times real time" + (f", {failed} failed" if failed else "")
            bar.update(task, advance=1, rate=rate)

        yield advance


def _summarise(outcomes: list[Outcome], total: int, elapsed: float, report: Path, run: Run, interrupted: bool) -> None:
    counts = {status: sum(o.status == status for o in outcomes) for status in (run.verb, "skipped", "failed")}
    seconds = sum(o.duration_s for o in outcomes if o.status == run.verb)
    n_bytes = sum(o.n_bytes for o in outcomes if o.status == run.verb)
    for outcome in outcomes:
        if outcome.status == "failed":
            named = outcome.reason.startswith(" ".join(outcome.source.split()))
            say(f"failed: {outcome.reason if named else f'{outcome.source}: {outcome.reason}'}", sys.stderr)
        elif outcome.reason:
            say(f"damaged: {outcome.source}: {outcome.reason}", sys.stderr)
    values: dict[str, Any] = {
        "total": total,
        **counts,
        "interrupted": interrupted,
        "n_bytes": n_bytes,
        "duration_s": round(seconds, 3),
        "elapsed_s": round(elapsed, 3),
        "report": str(report),
    }
    rate = f", {n_bytes} bytes, {8e-3 * n_bytes / seconds:.2f} kbit/s," if run.verb == "compressed" and seconds else ""
    sentence = (
        f"{counts[run.verb]} {run.verb}, {counts['skipped']} skipped, {counts['failed']} failed of {total}: {seconds:.1f} s of sound{rate} "
        f"in {elapsed:.1f} s, {seconds / max(elapsed, 1e-9):.1f} times real time; {report}"
    )
    if interrupted:
        # A second Ctrl-C while this is said changes nothing.
        with contextlib.suppress(KeyboardInterrupt):
            say(f"interrupted: {sentence}; the same command with --resume goes on", sys.stderr)
        raise typer.Exit(INTERRUPTED)
    if not run.quiet:
        say(json.dumps(values) if run.json else sentence, sys.stdout)
    if counts["failed"]:
        raise typer.Exit(FAILED)
