"""`vcae reconstruct` and `vcae vocode`: how much the autoencoder, or the vocoder alone, keeps of a recording."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vcae.cli.common import (
    CheckpointOption,
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    OutputOption,
    QuietOption,
    SeedOption,
    Stopwatch,
    output_path,
    report,
    user_errors,
    working,
)
from vcae.files import provenance

if TYPE_CHECKING:
    from collections.abc import Callable

    from vcae.audio.io import Sound
    from vcae.tasks.model import Model

SourceArgument = Annotated[str, typer.Argument(help="A sound file, or '-' for a wav on standard input.")]

CodeDimOption = Annotated[
    int | None,
    typer.Option(
        "--code-dim",
        help="Through a plain autoencoder of so many numbers a step (31.25 steps a second) instead: 1, 2, 4, 8, 16, 32 or 64.",
    ),
]


@user_errors
def reconstruct(
    source: SourceArgument,
    output: OutputOption = None,
    code_dim: CodeDimOption = None,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = "default",
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Pass SOURCE through the whole autoencoder in its own voice, and the vocoder."""
    from functools import partial

    from vcae.tasks.copy import reconstruct as work

    rung = partial(work, code_dim=code_dim)
    _run("reconstructed", rung, source, output, device, seed, checkpoint, force, quiet, json, code_dim)


@user_errors
def vocode(
    source: SourceArgument,
    output: OutputOption = None,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = "default",
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Copy synthesis: SOURCE to mel and F0, and back by the vocoder alone."""
    from vcae.tasks.copy import vocode as work

    _run("vocoded", work, source, output, device, seed, checkpoint, force, quiet, json)


def _run(
    verb: str,
    work: Callable[[Model, Sound, int], Sound],
    source: str,
    output: str | None,
    device: Device,
    seed: int,
    checkpoint: str,
    force: bool,
    quiet: bool,
    json: bool,
    code_dim: int | None = None,
) -> None:
    from vcae.audio.io import check_output, read_sound, write_sound
    from vcae.tasks.model import load

    target = output_path(output, [source], verb)
    check_output(target, force)
    sound = read_sound(source, sys.stdin.buffer)
    watch = Stopwatch()
    with working(f"{verb[:-1]}ing", quiet):
        model = load(checkpoint, device.value)
        result = work(model, sound, seed)
    said = verb if code_dim is None else f"{verb} from {code_dim} number{'s'[: code_dim > 1]} a step"
    write_sound(target, result, provenance(model.checkpoint, said), force, sys.stdout.buffer)
    values = {
        "source": source,
        "output": target,
        "duration_s": round(sound.duration_s, 3),
        **({} if code_dim is None else {"code_dim": code_dim}),
        "seed": seed,
        "device": str(model.device),
        "checkpoint": model.checkpoint.path.stem,
        "sha256": model.checkpoint.sha256,
        "elapsed_s": round(watch(), 3),
    }
    sentence = f"wrote {target}: {sound.duration_s:.1f} s {said} in {watch():.1f} s on {model.device} with checkpoint {model.checkpoint.path.stem}"
    report(values, sentence, target, quiet, json)
