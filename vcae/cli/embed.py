"""`vcae embed`: recordings to features for other tasks."""

from __future__ import annotations

import sys
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcae.batch.listeners import Embedder
from vcae.cli.collect import collect, plan_collected
from vcae.cli.common import (
    CheckpointOption,
    Device,
    DeviceOption,
    Stopwatch,
    choices,
    output_path,
    report,
)
from vcae.cli.run import work
from vcae.cli.sources import Run, SourcesArgument, takes_many
from vcae.files import STDIO, check_target, write_file

if TYPE_CHECKING:
    from vcae.tasks.embed import Embedding


class What(str, Enum):
    """Kinds of features."""

    speaker = "speaker"
    content = "content"
    mel = "mel"


class Pool(str, Enum):
    """Pooling of a recording's rows."""

    none = "none"
    mean = "mean"
    steps = "steps"


@takes_many
def embed(
    sources: SourcesArgument,
    run: Run,
    what: Annotated[
        What,
        typer.Option(
            metavar=choices(What),
            help="speaker: one unit vector per file; content: rows of content features; mel: the log-mel.",
        ),
    ] = What.speaker,
    pool: Annotated[
        Pool,
        typer.Option(
            metavar=choices(Pool),
            help="Rows of content and mel: all; mean: one, their mean; steps: the means of --n-steps equal parts.",
        ),
    ] = Pool.none,
    n_steps: Annotated[int, typer.Option(min=1, max=10000, metavar="N", help="Rows of --pool steps.")] = 20,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="An .npz or .parquet file for all, or '-' for npz on standard output; NAME.WHAT.npz without it.",
        ),
    ] = None,
    checkpoint: CheckpointOption = "default",
    device: DeviceOption = Device.auto,
) -> None:
    """Write features of SOURCES for other tasks: speaker, content or mel, with names and times.

    Example: vcae embed talks/ -o voices.npz
    """
    from vcae.tasks.embed_files import SUFFIXES, format_embeddings, need_writer

    build = partial(Embedder, what.value, pool.value, n_steps, checkpoint, device.value)
    if run.out_dir is not None:
        work(build, sources, output, run)
        return
    jobs = plan_collected(Embedder, sources, run)
    target = output_path(output, [job.source for job in jobs], what.value, ".npz")
    check_target(target, run.force, SUFFIXES)
    need_writer(target)
    watch = Stopwatch()
    found = collect(jobs, build, run)
    made: list[Embedding] = [outcome.value for outcome in found.made]
    about = {name: found.made[0].facts[name] for name in ("what", "pool", "checkpoint", "sha256", "device")}
    device_name = about.pop("device")
    suffix = ".npz" if target == STDIO else Path(target).suffix.lower()
    write_file(target, format_embeddings(made, suffix, about), sys.stdout.buffer)
    n_rows, dim, elapsed = sum(len(e.values) for e in made), made[0].values.shape[1], watch()
    values = {"output": target, "n_files": len(made), "n_rows": n_rows, "n_features": dim, "failed": found.failed, **about}
    sentence = (
        f"wrote {target}: {what.value} of {len(made)} file{'s' * (len(made) != 1)}, {n_rows} row{'s' * (n_rows != 1)} of {dim} values, "
        f"{elapsed:.1f} s on {device_name} with checkpoint {about['checkpoint']}"
    )
    report({**values, "device": device_name, "elapsed_s": round(elapsed, 3)}, sentence, target, run.quiet, run.json)
    found.leave()
