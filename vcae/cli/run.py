"""Running commands on many files: all commands accept a file, several, a folder, a table or a pipe, and handle failures in the same way."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from vcae.batch.jobs import REPORT, Job, Outcome, is_table, plan, read_report, report_line, write_report
from vcae.batch.worker import Talk, Worker
from vcae.cli.common import (
    ForceOption,
    JsonOption,
    QuietOption,
    Stopwatch,
    as_option,
    output_path,
    progress,
    report,
    say,
    user_errors,
)
from vcae.environment import allowed_cores
from vcae.errors import AudioError, ConfigError, VcaeError
from vcae.files import STDIO, check_target, remove_leftovers

FAILED = 1
INTERRUPTED = 130
# Files that a folder run leaves out are named up to this many.
MAX_NAMED = 10
MANY = "Many files"
SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Sound files, folders of them, patterns such as 'day1/*.wav', a CSV with the column source, or '-' for standard input.",
        metavar="SOURCES",
    ),
]
OutDirOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder for the outputs of all sources, and for report.jsonl; subfolders are preserved.",
        rich_help_panel=MANY,
    ),
]
GlobOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN", help="Files of a folder to use, such as '*.flac'; by default all sound files.", rich_help_panel=MANY
    ),
]
JobsOption = Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.", rich_help_panel=MANY)]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Skip files that an earlier run into the same folder completed.", rich_help_panel=MANY)
]
Build = Callable[[], Worker]
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """Options common to all commands on recordings.

    Attributes:
        out_dir: Folder of the outputs of all sources and of the report; None for a single output.
        glob: Pattern of the files of a folder to use, or None.
        jobs: Worker processes; 0 for one per core.
        resume: Skip completed outputs.
        force: Replace existing outputs.
        quiet: Print nothing but errors.
        json: Print the report as JSON.
        engine: `local` processes, or `ray`.
        address: Address of a Ray cluster; None starts one on this machine.
    """

    out_dir: OutDirOption = None
    glob: GlobOption = None
    jobs: JobsOption = 0
    resume: ResumeOption = False
    force: ForceOption = False
    quiet: QuietOption = False
    json: JsonOption = False
    engine: str = field(default="local", metadata={"own": True})
    address: str | None = field(default=None, metadata={"own": True})


def takes_many(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with a parameter `run`, which is replaced by the options of `Run`; errors become single lines."""
    hints, shared = get_type_hints(command, include_extras=True), get_type_hints(Run, include_extras=True)
    guarded, given = user_errors(command), [f for f in fields(Run) if not f.metadata.get("own")]

    def wrapped(**options: Any) -> None:
        guarded(run=Run(**{f.name: options.pop(f.name) for f in given}), **options)

    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values() if p.name != "run"]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    more = [inspect.Parameter(f.name, kind, default=f.default, annotation=shared[f.name]) for f in given]
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in (*own, *more)}
    return wrapped


def work(
    worker: type[Worker],
    build: Build,
    sources: Sequence[str],
    output: str | None,
    run: Run,
    speakers: Sequence[str] = (),
    inputs: Sequence[str] = (),
    name: str | None = None,
    ending: str | None = None,
) -> None:
    """Process sources: a single one to `output`, in this process; any number to `run.out_dir`, in worker processes.

    Args:
        worker: Class of the worker.
        build: Function that builds a worker; it is pickled for other processes.
        sources: Files, folders, patterns, a table, or `-`.
        output: Output of a single source; None for a name made from the source's.
        run: The common options.
        speakers: Target voice of all sources.
        inputs: Other files that are read, which an output must not replace.
        name: Ending of the output's name after the source's; the worker's verb when None.
        ending: Suffix of the outputs; the worker's when None.

    Raises:
        VcaeError: If the only source cannot be used, or options contradict each other.
        typer.Exit: 1 if one of several failed, 130 after Ctrl-C.
    """
    ending = worker.ending if ending is None else ending
    if run.out_dir is not None:
        if output is not None:
            raise ConfigError("-o names one output, and --out-dir a folder for one of each source; give one of the two")
        left_out = list[str]()
        jobs = plan(sources, run.out_dir, tuple(speakers), ending, worker.sources, run.glob, worker.columns, left_out)
        _work_many(Jobs(jobs, left_out), worker, build, run)
        return
    source = _only(sources, run)
    target = output_path(output, [source, *inputs], worker.verb if name is None else name, ending)
    check_target(target, run.force, worker.outputs(), AudioError)
    with worker.open(source, sys.stdin.buffer) as opened, progress(_doing(worker), run.quiet) as tell:
        worker.check(target, opened, run.force)
        watch = Stopwatch()
        does = build()
        job = Job(source, tuple(speakers), target, "standard input" if source == STDIO else Path(source).name)
        made = does.make(job, opened, Talk(tell, sys.stdin.buffer, sys.stdout.buffer)).of(opened)
        elapsed = watch()
    _say_warnings(made.facts)
    for line in made.damage:
        say(f"damaged: {'standard input' if source == STDIO else source}: {line}", sys.stderr)
    about = does.about()
    values = {"source": source, "output": target, "duration_s": round(made.duration_s, 3), **made.facts, **about}
    sentence = f"wrote {target}: {made.sentence}, {elapsed:.1f} s on {about['device']} with checkpoint {about['checkpoint']}"
    report({**values, "elapsed_s": round(elapsed, 3)}, sentence, target, run.quiet, run.json)


def _only(sources: Sequence[str], run: Run) -> str:
    """Return the only recording; raise if there are several and no --out-dir."""
    source = sources[0]
    kind = None
    if len(sources) > 1:
        kind = f"{len(sources)} sources were given"
    elif is_table(sources):
        kind = f"{source} is a table"
    elif source != STDIO and os.path.isdir(source):
        kind = f"{source} is a folder"
    elif any(c in source for c in "*?[") and not os.path.lexists(source):
        kind = f"{source} is a pattern"
    if kind is not None:
        raise ConfigError(f"{kind}; give a folder for the outputs with --out-dir instead of -o")
    if run.glob is not None or run.resume or run.jobs:
        raise ConfigError(f"{source} is one recording; --glob, --jobs and --resume go with --out-dir")
    return source


def _doing(worker: type[Worker]) -> str:
    return worker.verb.removesuffix("ed") + "ing"


class Jobs(list[Job]):
    """Jobs, and the files of folders that are not among them.

    Args:
        jobs: The jobs.
        left_out: Names of the other files.
    """

    def __init__(self, jobs: Iterable[Job], left_out: Sequence[str] = ()) -> None:
        super().__init__(jobs)
        self.left_out = left_out


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
    if run.resume and run.out_dir is None:
        raise ConfigError("--resume needs --out-dir: results that are collected in one output are always computed completely")
    left_out = list[str]()
    jobs = plan(sources, None, (), worker.ending, worker.sources, run.glob, worker.columns, left_out)
    return Jobs({job.source: job for job in jobs}.values(), left_out)


def collect(
    jobs: Sequence[Job], worker: type[Worker], build: Build, run: Run, each: Callable[[Outcome], object] = lambda outcome: None
) -> Collected:
    """Collect the results of all sources: of a single one in this process, of several in worker processes.

    Args:
        jobs: From `plan_collected`.
        worker: Class of the worker.
        build: Function that builds a worker; it is pickled for other processes.
        run: The common options.
        each: Called with each successful outcome, in the order of the sources.

    Raises:
        VcaeError: If the only source cannot be used.
        typer.Exit: 130 after Ctrl-C.
    """
    found = Collected()
    _say_left_out(getattr(jobs, "left_out", ()), run)

    def take(outcome: Outcome) -> None:
        if outcome.status == "failed":
            found.failed.append(outcome.source)
            return
        found.made.append(outcome)
        each(outcome)

    if len(jobs) == 1:
        take(_collect_one(jobs[0], worker, build, run))
        return found
    waiting, order = dict[str, Outcome](), iter(jobs)
    turn = next(order, None)
    with _bar(jobs, worker, run) as advance:
        try:
            for outcome in _outcomes(list(jobs), build, run):
                advance(outcome)
                if outcome.status == "failed":
                    _say_failed(outcome)
                _say_warnings(outcome.facts)
                waiting[outcome.source] = outcome
                while turn is not None and turn.source in waiting:
                    take(waiting.pop(turn.source))
                    turn = next(order, None)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    if not found.made:
        # There is nothing to write.
        found.leave()
    return found


def _collect_one(job: Job, worker: type[Worker], build: Build, run: Run) -> Outcome:
    with worker.open(job.source, sys.stdin.buffer) as opened, progress(_doing(worker), run.quiet) as tell:
        does = build()
        made = does.make(job, opened, Talk(tell, sys.stdin.buffer)).of(opened)
    _say_warnings(made.facts)
    facts = {**made.facts, **does.about()}
    return Outcome(job.source, job.speakers, "", worker.verb, duration_s=made.duration_s, facts=facts, value=made.value)


class Failures:
    """Failures among recordings that are read one after another: each is reported and the rest are used, but the only one raises.

    Args:
        total: Number of recordings.

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
        _say_failed(Outcome(source, (), "", "failed", " ".join(str(error).split())))
        if self.n == self.total:
            raise AudioError(f"none of the {self.total} recordings could be used; the lines above say why")

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


def _say_left_out(names: Sequence[str], run: Run) -> None:
    """Name the files of folders that are not worked on, as far as one can read them."""
    if names and not run.quiet:
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        say(f"left out, by suffix: {', '.join(names[:MAX_NAMED])}{more}; name a file, or --glob, to have it tried", sys.stderr)


def _say_warnings(facts: Mapping[str, Any]) -> None:
    for line in facts.get("warnings", ()):
        say(f"warning: {line}", sys.stderr)


def _say_failed(outcome: Outcome) -> None:
    named = " ".join(outcome.source.split()) in outcome.reason
    say(as_option(f"failed: {outcome.reason if named else f'{outcome.source}: {outcome.reason}'}"), sys.stderr)


def _work_many(jobs: list[Job], worker: type[Worker], build: Build, run: Run) -> None:
    """Process jobs in worker processes, write the report, and print a summary."""
    assert run.out_dir is not None
    if any(job.source == STDIO for job in jobs):
        raise ConfigError("standard input is a single recording; give its output with -o instead of --out-dir")
    path = run.out_dir / REPORT
    left_out = getattr(jobs, "left_out", ())
    jobs = _with_history(jobs, path, run)
    _make_folder(run.out_dir)
    _say_left_out(left_out, run)
    parents = {Path(job.output).parent for job in jobs}
    for parent in parents:
        remove_leftovers(parent)
    watch, done, interrupted = Stopwatch(), dict[str, Outcome](), False
    with _bar(jobs, worker, run) as advance:
        try:
            for outcome in _reported(_outcomes(jobs, build, run), path, run):
                done[outcome.output] = outcome
                advance(outcome)
        except KeyboardInterrupt:
            interrupted = True
    # Again, as workers of a run that was just killed may have written until now.
    for parent in parents:
        remove_leftovers(parent)
    ordered = [done[job.output] for job in jobs if job.output in done]
    if not interrupted:
        write_report(path, ordered)
        if len(jobs) == 1 and ordered[0].status == "failed":
            raise AudioError(ordered[0].reason)
    _summarise(ordered, len(jobs), watch(), path, run, worker.verb, interrupted)


def _with_history(jobs: list[Job], path: Path, run: Run) -> list[Job]:
    if run.resume:
        known = read_report(path)
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


def _outcomes(jobs: list[Job], build: Build, run: Run) -> Iterator[Outcome]:
    """Process jobs in worker processes, the longest first."""
    from vcae.batch import pool, ray_pool

    longest_first, n = sorted(jobs, key=_size, reverse=True), run.jobs or allowed_cores()
    if run.engine == "ray":
        return ray_pool.run_jobs_on_ray(longest_first, build, n, run.address)
    return pool.run_jobs(longest_first, build, n)


def _size(job: Job) -> int:
    try:
        return os.stat(job.source).st_size
    except (OSError, ValueError):
        return 0


def _reported(outcomes: Iterator[Outcome], path: Path, run: Run) -> Iterator[Outcome]:
    """Append a line to the report after each outcome, so that a killed run can be resumed."""
    try:
        with path.open("a" if run.resume else "w", encoding="utf-8") as lines:
            # An incomplete line of a killed run must be ended.
            lines.write("\n" if run.resume else "")
            for outcome in outcomes:
                lines.write(report_line(outcome))
                lines.flush()
                yield outcome
    except OSError as error:
        raise ConfigError(f"{path} could not be written ({error.strerror}); choose another --out-dir") from error


@contextlib.contextmanager
def _bar(jobs: Sequence[Job], worker: type[Worker], run: Run) -> Iterator[Callable[[Outcome], None]]:
    """Show the fraction of all sources' bytes that is done; yields a function to call with each outcome."""
    sizes = {job.source: _size(job) for job in jobs}
    whole, watch = max(sum(_size(job) for job in jobs), 1), Stopwatch()
    n = n_failed = n_bytes = 0
    seconds = 0.0
    with progress(_doing(worker), run.quiet) as tell:

        def advance(outcome: Outcome) -> None:
            nonlocal n, n_failed, n_bytes, seconds
            n, n_failed, n_bytes = n + 1, n_failed + (outcome.status == "failed"), n_bytes + sizes[outcome.source]
            seconds += outcome.duration_s if outcome.status == worker.verb else 0.0
            failures = f", {n_failed} failed" if n_failed else ""
            tell(n_bytes / whole, f"{n} of {len(jobs)}, {seconds / watch():.0f} times real time{failures}")

        yield advance


def _summarise(outcomes: list[Outcome], total: int, elapsed: float, path: Path, run: Run, verb: str, interrupted: bool) -> None:
    counts = {status: sum(o.status == status for o in outcomes) for status in (verb, "skipped", "failed")}
    seconds = sum(o.duration_s for o in outcomes if o.status == verb)
    n_bytes = sum(o.n_bytes for o in outcomes if o.status == verb)
    for outcome in outcomes:
        if outcome.status == "failed":
            _say_failed(outcome)
        elif outcome.reason:
            say(f"damaged: {outcome.source}: {outcome.reason}", sys.stderr)
    # What is said of a voice is the same for every source.
    lines = dict.fromkeys(line for outcome in outcomes for line in outcome.facts.get("warnings", ()))
    _say_warnings({"warnings": [*lines]})
    values: dict[str, Any] = {
        "total": total,
        **counts,
        "interrupted": interrupted,
        "n_bytes": n_bytes,
        "duration_s": round(seconds, 3),
        "elapsed_s": round(elapsed, 3),
        "report": str(path),
    }
    rate = f", {n_bytes} bytes, {8e-3 * n_bytes / seconds:.2f} kbit/s," if verb == "compressed" and seconds else ""
    sentence = (
        f"{counts[verb]} {verb}, {counts['skipped']} skipped, {counts['failed']} failed of {total}: {seconds:.1f} s of sound{rate} "
        f"in {elapsed:.1f} s, {seconds / max(elapsed, 1e-9):.1f} times real time; {path}"
    )
    if interrupted:
        # A second Ctrl-C during this output is ignored.
        with contextlib.suppress(KeyboardInterrupt):
            say(f"interrupted: {sentence}; run the same command with --resume to continue", sys.stderr)
        raise typer.Exit(INTERRUPTED)
    if not run.quiet:
        say(json.dumps(values) if run.json else sentence, sys.stdout)
    if counts["failed"]:
        raise typer.Exit(FAILED)
