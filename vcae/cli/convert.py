"""`vcae convert`: the words of a source in the voice of one or several references."""

from __future__ import annotations

import sys
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Annotated

import typer

from vcae.batch.jobs import is_table
from vcae.batch.workers import Converter
from vcae.cli.common import CheckpointOption, Device, DeviceOption, OutputOption, RateOption, SeedOption, choices, say
from vcae.cli.run import work
from vcae.cli.sources import MANY, Run, takes_many
from vcae.errors import ConfigError
from vcae.options import AUTO, ConvertOptions
from vcae.voice.speakers import speaker_files


class Loudness(str, Enum):
    """Loudness of the result."""

    source = "source"
    flat = "flat"
    running = "running"


class Channels(str, Enum):
    """Channels of the result."""

    keep = "keep"
    mono = "mono"
    separate = "separate"


class Engine(str, Enum):
    """Engines for many conversions."""

    local = "local"
    ray = "ray"


SpeakerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--speaker",
        "-s",
        metavar="VOICE",
        help="Target voice: an audio clip or the name of a saved voice; repeat it for more clips, or mix voices with weights: a.wav:0.7.",
    ),
]
# Group of the options of delivery in --help.
MANNER = "How it is said"
SpeedOption = Annotated[
    float, typer.Option("--speed", metavar="0.5..2", help="Factor on the speed; the pitch is kept.", rich_help_panel=MANNER)
]
FormantOption = Annotated[
    float,
    typer.Option(
        "--formant", metavar="SEMITONES", help="Shift of the formants: 3 sounds smaller, -3 larger.", rich_help_panel=MANNER
    ),
]
ExpressionOption = Annotated[
    float,
    typer.Option("--expression", metavar="0..2", help="0: monotone, 1: as it is, 2: twice the melody.", rich_help_panel=MANNER),
]
WatermarkOption = Annotated[
    bool,
    typer.Option(
        "--watermark/--no-watermark",
        help="Mark the sound inaudibly as made by vcae, which `vcae info` finds, or not.",
    ),
]
# Options without effect, accepted until version 0.3.
MatchOption = Annotated[str | None, typer.Option("--match", hidden=True)]
DetailOption = Annotated[str | None, typer.Option("--detail", hidden=True)]


def tell_ignored(**given: str | None) -> None:
    """Say on standard error which of the given options have no effect any more."""
    for name, value in given.items():
        if value is not None:
            say(f"warning: --{name} has no effect any more; leave it out", sys.stderr)


@takes_many
def convert(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Recordings to convert: sound files, folders, patterns, '-' for a wav on standard input; or a CSV with the columns source, "
            "speaker[, output].",
            metavar="SOURCES",
        ),
    ],
    run: Run,
    speaker: SpeakerOption = None,
    output: OutputOption = None,
    pitch: Annotated[
        str,
        typer.Option(metavar="auto|keep|SEMITONES", help="auto: the voice's range; keep: the source's; a number: semitones."),
    ] = "auto",
    strength: Annotated[
        float, typer.Option(metavar="0..1", help="0: the source's own voice, 1: the voice of --speaker.")
    ] = 1.0,
    loudness: Annotated[
        Loudness,
        typer.Option(
            metavar=choices(Loudness), help="source: follow its loudness; flat: only its level; running: follow it in one pass."
        ),
    ] = Loudness.source,
    match: MatchOption = None,
    detail: DetailOption = None,
    denoise: Annotated[
        bool | None,
        typer.Option(
            "--denoise/--no-denoise",
            help="Denoise the source and the clips of --speaker first, or not. By default, noisy ones are.",
            show_default=False,
        ),
    ] = None,
    rate: RateOption = None,
    channels: Annotated[
        Channels,
        typer.Option(
            metavar=choices(Channels),
            help="keep: the mix is converted and placed as the source's voice was; mono; separate: each channel by itself.",
        ),
    ] = Channels.keep,
    mono: Annotated[bool, typer.Option("--mono", help="The same as --channels mono.")] = False,
    speed: SpeedOption = 1.0,
    formant: FormantOption = 0.0,
    expression: ExpressionOption = 1.0,
    watermark: WatermarkOption = True,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = "default",
    engine: Annotated[
        Engine, typer.Option(metavar=choices(Engine), help="Processes of this machine, or a Ray cluster.", rich_help_panel=MANY)
    ] = Engine.local,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address of a Ray cluster, such as auto; without it one is started here.",
            rich_help_panel=MANY,
        ),
    ] = None,
) -> None:
    """Convert SOURCES to the voice of --speaker.

    Example: vcae convert talk.mp3 --speaker friend.wav -o talk-as-friend.wav
    """
    if mono and channels == Channels.separate:
        raise ConfigError("--mono and --channels separate contradict each other; give one of the two")
    kept = Channels.mono.value if mono else channels.value
    cleaned = AUTO if denoise is None else denoise
    options = ConvertOptions(pitch, strength, loudness.value, seed, cleaned, speed, formant, expression, watermark, rate, kept)
    tell_ignored(match=match, detail=detail)
    voices = tuple(speaker or ())
    if not voices and not is_table(sources):
        raise ConfigError("no --speaker was given; give at least one clip or a saved voice of the target voice")
    clips = speaker_files(voices)
    build = partial(Converter, options, voices, checkpoint, device.value)
    work(build, sources, output, replace(run, engine=engine.value, address=address), voices, clips)
