"""`vcae plot`: pictures of recordings with F0 and units, such as a conversion and its source."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vcae.batch.drawer import MAX_FILES, Drawer
from vcae.cli.collect import collect, plan_collected
from vcae.cli.common import CheckpointOption, Device, DeviceOption, report
from vcae.cli.run import work
from vcae.cli.sources import Run, SourcesArgument, takes_many
from vcae.errors import ConfigError, DataError
from vcae.files import STDIO, check_target, write_file


@takes_many
def plot(
    sources: SourcesArgument,
    run: Run,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Picture of all, .png or .svg; without it, NAME.png of the first source."
        ),
    ] = None,
    units: Annotated[bool, typer.Option("--units", help="Draw the units of --checkpoint below each.")] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Draw each in a column of its own, instead of one below the other.")
    ] = False,
    device: DeviceOption = Device.auto,
    checkpoint: CheckpointOption = "vq",
) -> None:
    """Draw the mel and F0 of SOURCES in one picture, on one scale of time, loudness and pitch; or with --out-dir, one picture of each.

    Example: vcae plot talk.wav copy.wav -o both.png
    """
    build = partial(Drawer, units, checkpoint, device.value)
    if run.out_dir is not None:
        if side_by_side:
            raise ConfigError("--side-by-side is for one picture of all, and --out-dir for one of each; give one of the two")
        work(build, sources, output, run)
        return
    jobs = plan_collected(Drawer, sources, run)
    if len(jobs) > MAX_FILES:
        raise DataError(
            f"{len(jobs)} recordings do not fit into a picture; at most {MAX_FILES} do, so draw fewer, or one picture of each with --out-dir"
        )
    target = output or ("recording.png" if jobs[0].source == STDIO else f"{Path(jobs[0].source).stem}.png")
    check_target(target, run.force, Drawer.outputs())
    found = collect(jobs, build, run)
    import torch

    from vcae.figures.plot import View, draw_views, picture_format

    views = [
        View(name, torch.from_numpy(mel), torch.from_numpy(f0), coded)
        for name, mel, f0, coded in (outcome.value for outcome in found.made)
    ]
    picture = draw_views(views, "png" if target == STDIO else picture_format(Path(target)), side_by_side)
    write_file(target, picture, sys.stdout.buffer)
    recordings = [{"file": view.name, "duration_s": round(view.seconds, 3), "panels": view.panels} for view in views]
    values = {"output": target, "recordings": recordings, "failed": found.failed}
    sentence = f"wrote {target}: {len(views)} recordings, {sum(view.seconds for view in views):.1f} s"
    report(values, sentence, target, run.quiet, run.json)
    found.leave()
