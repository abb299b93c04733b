"""`vcae embed`: recordings to features for other tasks."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcae.cli.common import (
    CheckpointOption,
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    QuietOption,
    Stopwatch,
    output_path,
    report,
    say,
    user_errors,
    working,
)
from vcae.cli.units import find_recordings, progress
from vcae.errors import AudioError
from vcae.files import STDIO, check_target, write_file

if TYPE_CHECKING:
    from vcae.tasks.embed import Embedding
    from vcae.tasks.model import Model

FAILED = 1


class What(str, Enum):
    """What is measured."""

    speaker = "speaker"
    content = "content"
    mel = "mel"


class Pool(str, Enum):
    """How the rows of a recording become fewer."""

    none = "none"
    mean = "mean"
    steps = "steps"


def expand(given: Sequence[str]) -> list[str]:
    """Replace patterns that are no file's name by the files they fit, in order.

    Raises:
        AudioError: If a pattern fits none.
    """
    found: list[str] = []
    for item in given:
        if not glob.has_magic(item) or os.path.lexists(item):
            found.append(item)
            continue
        fitting = sorted(path for path in glob.glob(item, recursive=True) if os.path.isfile(path))
        if not fitting:
            raise AudioError(f"no file fits {item}; check the pattern")
        found += fitting
    return found


@user_errors
def embed(
    files: Annotated[
        list[str], typer.Argument(help="Sound files, folders, patterns such as '*.wav', or '-' for standard input.")
    ],
    what: Annotated[
        What, typer.Option(help="speaker: a unit vector a file; content: what is said, row by row; mel: the log-mel.")
    ] = What.speaker,
    pool: Annotated[
        Pool,
        typer.Option(help="Rows of content and mel: all; mean: one, their mean; steps: the means of --n-steps equal parts."),
    ] = Pool.none,
    n_steps: Annotated[int, typer.Option(min=1, max=10000, help="Rows of --pool steps.")] = 20,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="An .npz or .parquet file, or '-' for npz on standard output; NAME.WHAT.npz without it."
        ),
    ] = None,
    checkpoint: CheckpointOption = "default",
    device: DeviceOption = Device.auto,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Write features of FILES for other tasks: who speaks, what is said, or the mel, with names and times."""
    from vcae.tasks.embed_files import SUFFIXES, format_embeddings, need_writer

    recordings = find_recordings(expand(files))
    target = output_path(output, [path for path, _ in recordings], what.value, ".npz")
    check_target(target, force, SUFFIXES)
    need_writer(target)
    watch = Stopwatch()
    with working("loading the model", quiet):
        from vcae.tasks.model import load

        model = load(checkpoint, device.value)
    made, failures = _embed_all(model, recordings, what.value, (pool.value, n_steps), quiet)
    facts = {
        "what": what.value,
        "pool": pool.value,
        "checkpoint": model.checkpoint.path.stem,
        "sha256": model.checkpoint.sha256,
    }
    suffix = ".npz" if target == STDIO else Path(target).suffix.lower()
    write_file(target, format_embeddings(made, suffix, facts), sys.stdout.buffer)
    n_rows, dim, elapsed = sum(len(e.values) for e in made), made[0].values.shape[1], watch()
    values = {
        "output": target,
        "n_files": len(made),
        "n_rows": n_rows,
        "n_features": dim,
        "failed": failures,
        **facts,
        "device": str(model.device),
        "elapsed_s": round(elapsed, 3),
    }
    sentence = (
        f"wrote {target}: {what.value} of {len(made)} file{'s' * (len(made) != 1)}, {n_rows} row{'s' * (n_rows != 1)} of {dim} numbers, "
        f"{elapsed:.1f} s on {model.device} with checkpoint {model.checkpoint.path.stem}"
    )
    report(values, sentence, target, quiet, json)
    if failures:
        raise typer.Exit(FAILED)


def _embed_all(
    model: Model, recordings: Sequence[tuple[str, str]], what: str, pool: tuple[str, int], quiet: bool
) -> tuple[list[Embedding], list[str]]:
    """Return the features of all files that can be read, and the paths of the others, each told of on stderr.

    Raises:
        AudioError: If none can be read.
    """
    from dataclasses import replace

    from vcae.audio.io import SoundReader
    from vcae.tasks.embed import embed

    made: list[Embedding] = []
    failures: list[str] = []
    with progress("embedding", len(recordings), quiet) as advance:
        for path, name in recordings:
            try:
                with SoundReader(path, sys.stdin.buffer) as reader:
                    made.append(replace(embed(model, reader, what, *pool), name=name))
            except AudioError as error:
                if len(recordings) == 1:
                    raise
                failures.append(path)
                say(f"error: {error}", sys.stderr)
            advance()
    if not made:
        raise AudioError(f"none of the {len(recordings)} files could be used; nothing was written")
    return made, failures
