"""`vcae plot`: pictures of recordings with F0 and units, such as a conversion and its source."""

from __future__ import annotations

import sys
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
    progress,
    report,
    user_errors,
)
from vcae.errors import DataError
from vcae.files import check_target, write_file

if TYPE_CHECKING:
    from vcae.audio.io import Sound
    from vcae.figures.plot import View

MAX_FILES = 12
# Longest recording in a picture; longer ones would not be legible.
MAX_S = 120.0


@user_errors
def plot(
    audio: Annotated[
        list[str], typer.Argument(help="Sound files, such as a source and its conversion; '-' is standard input.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Picture (.png, .svg); NAME.png of the first file when not given.")
    ] = None,
    units: Annotated[bool, typer.Option("--units", help="Draw the units of --checkpoint below each.")] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Draw each in a column of its own, instead of one below the other.")
    ] = False,
    device: DeviceOption = Device.auto,
    checkpoint: CheckpointOption = "vq",
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Draw the mel and F0 of each AUDIO on one scale of time, loudness and pitch."""
    if len(audio) > MAX_FILES:
        raise DataError(f"{len(audio)} recordings do not fit into a picture; at most {MAX_FILES} do, so draw fewer")
    target = output or Path("recording.png" if audio[0] == "-" else f"{Path(audio[0]).stem}.png")
    check_target(target, force)
    from vcae.audio.io import read_sound
    from vcae.figures.plot import draw_views, need_matplotlib, picture_format

    form = picture_format(target)
    need_matplotlib()
    sounds = [read_sound(path, sys.stdin.buffer, max_s=MAX_S) for path in audio]
    with progress("drawing", quiet):
        views = _views(sounds, checkpoint if units else None, device.value)
        write_file(target, draw_views(views, form, side_by_side))
    values = {
        "output": str(target),
        "recordings": [{"file": view.name, "duration_s": round(view.seconds, 3), "panels": view.panels} for view in views],
    }
    total = sum(view.seconds for view in views)
    report(values, f"wrote {target}: {len(views)} recordings, {total:.1f} s", str(target), quiet, json)


def _views(sounds: list[Sound], checkpoint: str | None, device: str) -> list[View]:
    from vcae.figures.plot import view_sound

    names = [Path(sound.name).name for sound in sounds]
    if checkpoint is None:
        return [view_sound(sound, name) for sound, name in zip(sounds, names, strict=True)]
    from vcae.tasks.model import load
    from vcae.tasks.units import encode_units

    model = load(checkpoint, device)
    return [view_sound(s, name, encode_units(model, s, name)) for s, name in zip(sounds, names, strict=True)]
