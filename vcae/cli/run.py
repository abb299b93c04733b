"""Running a command on one recording or many: a file, several, a folder, a table or a pipe, for all commands in the same way."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from vcae.batch.jobs import REPORT, Job, Outcome, append_report, is_table, plan, read_report, write_report
from vcae.batch.worker import Talk, Worker
from vcae.cli.common import Stopwatch, output_path, progress, report, say
from vcae.cli.defaults import given
from vcae.cli.many import FAILED, INTERRUPTED, Build, Jobs, bar, outcomes, say_failed, say_left_out, say_warnings
from vcae.cli.sources import Run
from vcae.errors import AudioError, ConfigError
from vcae.files import STDIO, check_target, remove_leftovers


def work(
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
    worker = build()
    ending = worker.ending if ending is None else ending
    if run.out_dir is not None:
        if output is not None:
            raise ConfigError("-o names one output, and --out-dir a folder for one of each source; give one of the two")
        left_out = list[str]()
        jobs = plan(sources, run.out_dir, tuple(speakers), ending, worker.sources, run.glob, worker.columns, left_out)
        _work_many(Jobs(worker.split(jobs, run.out_dir), left_out), worker, build, run)
        return
    source = _only(sources, run)
    target = output_path(output, [source, *inputs], worker.verb if name is None else name, ending)
    check_target(target, run.force, worker.outputs(), AudioError)
    with worker.open(source, sys.stdin.buffer) as opened, progress(worker.doing, run.quiet) as tell:
        worker.check(target, opened, run.force)
        watch = Stopwatch()
        worker.start()
        job = Job(source, tuple(speakers), target, "standard input" if source == STDIO else Path(source).name)
        made = worker.make(job, opened, Talk(tell, sys.stdin.buffer, sys.stdout.buffer)).of(opened)
        elapsed = watch()
    say_warnings(made.facts)
    for line in made.damage:
        say(f"damaged: {'standard input' if source == STDIO else source}: {line}", sys.stderr)
    about = worker.about()
    values = {"source": source, "output": target, "duration_s": round(made.duration_s, 3), **made.facts, **about}
    by = f" with checkpoint {about['checkpoint']}" if "checkpoint" in about else ""
    sentence = f"wrote {target}: {made.sentence}, {elapsed:.1f} s on {about['device']}{by}"
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
    if any(value and given(name) for name, value in (("glob", run.glob), ("jobs", run.jobs), ("resume", run.resume))):
        raise ConfigError(f"{source} is one recording; --glob, --jobs and --resume go with --out-dir")
    return source


def _work_many(jobs: Jobs, worker: Worker, build: Build, run: Run) -> None:
    """Process jobs in worker processes, write the report, and print a summary."""
    assert run.out_dir is not None
    path = run.out_dir / REPORT
    known = _with_history(jobs, path, run)
    _make_folder(run.out_dir)
    say_left_out(jobs.left_out, run)
    parents = {Path(job.output).parent for job in jobs}
    for parent in parents:
        remove_leftovers(parent)
    watch, done, interrupted = Stopwatch(), dict[str, Outcome](), False
    with bar(jobs, worker, run) as advance:
        try:
            for outcome in _reported(outcomes(known, worker, build, run), path):
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


def _reported(found: Iterator[Outcome], path: Path) -> Iterator[Outcome]:
    """Append a line to the report after each outcome, so that a killed run can be resumed."""
    try:
        for outcome in found:
            append_report(path, outcome)
            yield outcome
    except OSError as error:
        raise ConfigError(f"{path} could not be written ({error.strerror}); choose another --out-dir") from error


def _summarise(outcomes: list[Outcome], total: int, elapsed: float, path: Path, run: Run, verb: str, interrupted: bool) -> None:
    counts = {status: sum(o.status == status for o in outcomes) for status in (verb, "skipped", "failed")}
    seconds = sum(o.duration_s for o in outcomes if o.status == verb)
    n_bytes = sum(o.n_bytes for o in outcomes if o.status == verb)
    for outcome in outcomes:
        if outcome.status == "failed":
            say_failed(outcome)
        elif outcome.reason:
            say(f"damaged: {outcome.source}: {outcome.reason}", sys.stderr)
    # What is said of a voice is the same for every source.
    lines = dict.fromkeys(line for outcome in outcomes for line in outcome.facts.get("warnings", ()))
    say_warnings({"warnings": [*lines]})
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
