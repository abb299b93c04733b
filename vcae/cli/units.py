"""`vcae units`: recordings to unit sequences."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcae.batch.jobs import is_table, name_targets
from vcae.batch.listeners import UnitReader
from vcae.cli.collect import Collected, collect, plan_collected
from vcae.cli.common import (
    CheckpointOption,
    Device,
    DeviceOption,
    choices,
    report,
)
from vcae.cli.run import work
from vcae.cli.sources import Run, SourcesArgument, takes_many
from vcae.errors import ConfigError, DataError
from vcae.files import STDIO, check_target, write_file

if TYPE_CHECKING:
    from vcae.tasks.unit_files import Units

CHECKPOINT = "vq"


class Format(str, Enum):
    """Formats of units."""

    jsonl = "jsonl"
    textgrid = "textgrid"
    text = "text"


def _is_folder(output: str, suffixes: Sequence[str]) -> bool:
    return Path(output).is_dir() or output.endswith(("/", os.sep)) or Path(output).suffix.lower() not in suffixes


def _keep_inputs(targets: Sequence[Path], inputs: Sequence[str]) -> None:
    """Check that no output replaces an input."""
    read = {str(Path(name).resolve()) for name in inputs if name != STDIO}
    for target in targets:
        if str(target.resolve()) in read:
            raise DataError(f"{target} is an input too; choose another output with -o, so that it is not lost")


@takes_many
def units(
    sources: SourcesArgument,
    run: Run,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="One file for all, or for several TextGrids a folder; without it, standard output.",
        ),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(metavar=choices(Format), help="Format; by default by the output's suffix: .jsonl, .TextGrid or .txt."),
    ] = None,
    collapse: Annotated[bool, typer.Option("--collapse", help="Merge runs of equal units.")] = False,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE|FOLDER", help="Draw mel and units: a .png for one recording, a folder for several."),
    ] = None,
    checkpoint: CheckpointOption = CHECKPOINT,
    device: DeviceOption = Device.auto,
) -> None:
    """Encode SOURCES as sequences of discrete units with their times.

    Example: vcae units talk.wav -o talk.jsonl --collapse
    """
    from vcae.tasks.unit_files import FORMATS, SUFFIXES, format_units

    output = None if output == STDIO else output
    form = format.value if format is not None else SUFFIXES.get(Path(output or "").suffix.lower(), "jsonl")
    jobs = plan_collected(UnitReader, sources, run)
    names = [job.name for job in jobs]
    several = len(jobs) > 1 or is_table(sources) or any(os.path.isdir(source) for source in sources)
    pictures = _picture_targets(plot, names, several)
    targets = [] if run.out_dir is not None else _unit_targets(output, form, names, several)
    _keep_inputs([*targets, *pictures], [job.source for job in jobs])
    for target in [*targets, *pictures]:
        check_target(target, run.force)
    drawn = dict(zip(names, map(str, pictures), strict=bool(pictures)))
    build = partial(UnitReader, form, collapse, drawn, checkpoint, device.value)
    if run.out_dir is not None:
        work(build, sources, output, run, ending=FORMATS[form])
        return
    found = collect(jobs, build, run)
    made: list[Units] = [outcome.value for outcome in found.made]
    if made and form == "textgrid" and output is not None:
        written = dict(zip(names, targets, strict=True))
        for one in made:
            write_file(written[one.name], format_units([one], form))
    elif made:
        write_file(str(targets[0]) if targets else STDIO, format_units(made, form), sys.stdout.buffer)
    if made and (output is not None or run.json):
        _report_units(output or STDIO, found, run)
    found.leave()


def _report_units(output: str, found: Collected, run: Run) -> None:
    n_units = sum(outcome.facts["n_units"] for outcome in found.made)
    total, first = sum(outcome.duration_s for outcome in found.made), found.made[0].facts
    about = {name: first[name] for name in ("device", "checkpoint", "sha256")}
    values = {
        "output": output,
        "n_files": len(found.made),
        "n_units": n_units,
        "duration_s": round(total, 3),
        "failed": found.failed,
    }
    sentence = (
        f"wrote {output}: {n_units} units of {len(found.made)} recording{'s' * (len(found.made) != 1)}, {total:.1f} s, "
        f"on {about['device']} with checkpoint {about['checkpoint']}"
    )
    report(values | about, sentence, output, run.quiet, run.json)


def _unit_targets(output: str | None, form: str, names: Sequence[str], several: bool) -> list[Path]:
    from vcae.tasks.unit_files import FORMATS, SUFFIXES

    suffix = FORMATS[form]
    if output is None:
        if form == "textgrid" and len(names) > 1:
            raise ConfigError(f"{len(names)} TextGrids do not fit on standard output; name a folder with -o")
        return []
    if form != "textgrid":
        return [Path(output)]
    if Path(output).suffix.lower() in SUFFIXES and not Path(output).is_dir():
        if several:
            raise ConfigError(f"{output} is one file, and a TextGrid holds one recording; name a folder and --format textgrid")
        return [Path(output)]
    return name_targets(Path(output), names, suffix)


def _picture_targets(plot: str | None, names: Sequence[str], several: bool) -> list[Path]:
    if plot is None:
        return []
    if not _is_folder(plot, [".png"]):
        if several:
            raise ConfigError(f"{plot} is one picture for {len(names)} recordings; name a folder with --plot")
        return [Path(plot)]
    if Path(plot).suffix and not Path(plot).is_dir() and not several:
        raise ConfigError(f"{plot} has the suffix {Path(plot).suffix!r}; pictures are .png")
    return name_targets(Path(plot), names, ".png")
