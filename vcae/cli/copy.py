"""`vcae reconstruct` and `vcae vocode`: how much the autoencoder, or the vocoder alone, keeps of a recording."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from vcae.batch.workers import Reconstructor, Vocoder
from vcae.cli.common import CheckpointOption, Device, DeviceOption, OutputOption, SeedOption
from vcae.cli.run import Run, SourcesArgument, takes_many, work

CodeDimOption = Annotated[
    int | None,
    typer.Option(
        "--code-dim",
        help="Through a plain autoencoder of so many numbers a step (31.25 steps a second) instead: 1, 2, 4, 8, 16, 32 or 64.",
    ),
]


@takes_many
def reconstruct(
    sources: SourcesArgument,
    run: Run,
    output: OutputOption = None,
    code_dim: CodeDimOption = None,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = "default",
) -> None:
    """Pass SOURCES through the whole autoencoder in their own voice, and the vocoder."""
    work(Reconstructor, partial(Reconstructor, code_dim, seed, checkpoint, device.value), sources, output, run)


@takes_many
def vocode(
    sources: SourcesArgument,
    run: Run,
    output: OutputOption = None,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = "default",
) -> None:
    """Copy synthesis: SOURCES to mel and F0, and back by the vocoder alone."""
    work(Vocoder, partial(Vocoder, None, seed, checkpoint, device.value), sources, output, run)
