"""`vcae reconstruct` and `vcae vocode`: copies of recordings by the autoencoder, or by the vocoder alone."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from vcae.batch.workers import Reconstructor, Vocoder
from vcae.cli.common import CheckpointOption, Device, DeviceOption, OutputOption, RateOption, SeedOption
from vcae.cli.run import work
from vcae.cli.sources import Run, SourcesArgument, takes_many
from vcae.options import check_rate

CodeDimOption = Annotated[
    int | None,
    typer.Option(
        "--code-dim",
        metavar="N",
        help="Use a plain autoencoder with a bottleneck of this many values per 32 ms step: 1, 2, 4, 8, 16, 32 or 64.",
    ),
]


@takes_many
def reconstruct(
    sources: SourcesArgument,
    run: Run,
    output: OutputOption = None,
    code_dim: CodeDimOption = None,
    rate: RateOption = None,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = "default",
) -> None:
    """Copy SOURCES by the whole autoencoder in their own voice, and the vocoder.

    Example: vcae reconstruct talk.wav -o copy.wav
    """
    work(partial(Reconstructor, code_dim, seed, checkpoint, device.value, check_rate(rate)), sources, output, run)


@takes_many
def vocode(
    sources: SourcesArgument,
    run: Run,
    output: OutputOption = None,
    rate: RateOption = None,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = "default",
) -> None:
    """Copy SOURCES by the vocoder alone, from their mel and F0 (copy synthesis).

    Example: vcae vocode talk.wav -o copy.wav
    """
    work(partial(Vocoder, None, seed, checkpoint, device.value, check_rate(rate)), sources, output, run)
