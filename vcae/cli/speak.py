"""`vcae speak`: unit sequences to speech in any voice."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcae.batch.jobs import is_table, name_targets
from vcae.batch.unit_speaker import UnitSpeaker
from vcae.cli.common import CheckpointOption, Device, DeviceOption, SeedOption, choices
from vcae.cli.convert import (
    ExpressionOption,
    FormantOption,
    MatchOption,
    SpeakerOption,
    SpeedOption,
    WatermarkOption,
    tell_ignored,
)
from vcae.cli.run import work
from vcae.cli.sources import Run, takes_many
from vcae.errors import ConfigError
from vcae.files import STDIO
from vcae.options import SpeakOptions
from vcae.voice.speakers import speaker_files

if TYPE_CHECKING:
    from vcae.tasks.unit_files import Units


class Durations(str, Enum):
    """Sources of the durations of units."""

    auto = "auto"
    file = "file"
    predicted = "predicted"


@takes_many
def speak(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Files of units from `vcae units`, or of plain numbers; folders of them, patterns, a CSV with the columns source, speaker"
            "[, output], or '-' for standard input.",
            metavar="SOURCES",
        ),
    ],
    run: Run,
    speaker: SpeakerOption = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Sound file; '-' is a wav on standard output. For a file of several sequences, a folder, as with --out-dir.",
        ),
    ] = None,
    pitch: Annotated[
        str, typer.Option(metavar="auto|SEMITONES", help="auto: the voice's range; a number: semitones above it.")
    ] = "auto",
    durations: Annotated[
        Durations,
        typer.Option(
            metavar=choices(Durations),
            help="auto: the units' own times if they have them; file: only these; predicted: the model's.",
        ),
    ] = Durations.auto,
    speed: SpeedOption = 1.0,
    formant: FormantOption = 0.0,
    expression: ExpressionOption = 1.0,
    watermark: WatermarkOption = True,
    match: MatchOption = None,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = "vq",
) -> None:
    """Speak the units of SOURCES in the voice of --speaker.

    Example: vcae speak talk.jsonl --speaker friend.wav -o said.wav
    """
    options = SpeakOptions(pitch, durations.value, seed, speed, formant, expression, watermark)
    tell_ignored(match=match)
    voices = tuple(speaker or ())
    if not voices and not is_table(sources):
        raise ConfigError("no --speaker was given; give at least one clip or a saved voice of the target voice")
    clips = speaker_files(voices)
    piped: Sequence[Units] = ()
    if sources == [STDIO] or (len(sources) == 1 and output is not None):
        piped, output, run = _only_file(sources[0], output, run)
    build = partial(UnitSpeaker, options, voices, piped, checkpoint, device.value)
    work(build, sources, output, run, voices, clips)


def _only_file(source: str, output: str | None, run: Run) -> tuple[Sequence[Units], str | None, Run]:
    """Return the sequences of a single file, its output, and the options; with a folder for the outputs if there are several.

    Raises:
        ConfigError: If there are several sequences, and no folder for the outputs.
        DataError: If the file cannot be used.
    """
    from vcae.tasks.unit_files import read_units

    if source != STDIO and (os.path.isdir(source) or is_table([source]) or not os.path.lexists(source)):
        return (), output, run
    sequences = read_units(source, sys.stdin.buffer)
    piped = sequences if source == STDIO else ()
    to_folder = output is not None and output != STDIO and _is_folder(output)
    if len(sequences) == 1:
        if to_folder:
            output = str(name_targets(Path(str(output)), [sequences[0].name], ".wav")[0])
        return piped, output, run
    if run.out_dir is None:
        if not to_folder:
            raise ConfigError(f"{source} has {len(sequences)} sequences; give a folder for them with --out-dir")
        run, output = replace(run, out_dir=Path(str(output))), None
    return piped, output, run


def _is_folder(output: str) -> bool:
    return Path(output).is_dir() or output.endswith(("/", os.sep)) or not Path(output).suffix
