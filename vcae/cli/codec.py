"""`vcae compress` and `vcae decompress`: recordings to a few hundred bytes per second, and back, in any voice."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from vcae.batch.workers import Compressor, Decompressor
from vcae.cli.common import Device, DeviceOption, OutputOption, SeedOption
from vcae.cli.convert import SpeakerOption
from vcae.cli.run import work
from vcae.cli.sources import Run, SourcesArgument, takes_many
from vcae.options import check_kbps
from vcae.voice.speakers import speaker_files


@takes_many
def compress(
    sources: SourcesArgument,
    run: Run,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Output file, .vcz; '-' is standard output. Without it, NAME.vcz here."
        ),
    ] = None,
    kbps: Annotated[
        float, typer.Option(metavar="KBIT/S", help="Target bit rate, 0.6 to 6 kbit/s, such as 0.6, 1.5, 3 or 6.")
    ] = 1.5,
    device: DeviceOption = Device.auto,
) -> None:
    """Compress the speech of SOURCES.

    Example: vcae compress talk.wav -o talk.vcz --kbps 1.5
    """
    build = partial(Compressor, check_kbps(kbps), device.value)
    work(build, sources, output, run, name="")


@takes_many
def decompress(
    sources: Annotated[
        list[str],
        typer.Argument(
            help=".vcz files, folders of them, patterns, a CSV with the column source, or '-' for standard input.",
            metavar="SOURCES",
        ),
    ],
    run: Run,
    output: OutputOption = None,
    speaker: SpeakerOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail for a damaged file, and write nothing.")] = False,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
) -> None:
    """Decode compressed SOURCES, in their own voice or another.

    Damaged parts are concealed and reported.

    Example: vcae decompress talk.vcz -o talk-again.wav
    """
    voices = tuple(speaker or ())
    clips = speaker_files(voices)
    build = partial(Decompressor, voices, strict, seed, device.value)
    work(build, sources, output, run, voices, clips)
