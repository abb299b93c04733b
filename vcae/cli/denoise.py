"""`vcae denoise`: remove noise from recordings of speech."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from vcae.batch.workers import Denoiser
from vcae.cli.common import Device, DeviceOption, OutputOption, RateOption
from vcae.cli.run import work
from vcae.cli.sources import Run, SourcesArgument, takes_many
from vcae.options import DENOISE_STRENGTH, check_rate, check_strength


@takes_many
def denoise(
    sources: SourcesArgument,
    run: Run,
    output: OutputOption = None,
    strength: Annotated[float, typer.Option(metavar="0..1", help="0: unchanged, 1: full denoising.")] = DENOISE_STRENGTH,
    rate: RateOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Remove noise from the speech of SOURCES.

    Example: vcae denoise talk.mp3 -o clean.wav
    """
    build = partial(Denoiser, check_strength(strength), device.value, check_rate(rate))
    work(build, sources, output, run)
