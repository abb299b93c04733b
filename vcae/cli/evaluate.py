"""`vcae evaluate`: score conversions, by vcae's own ears and by independent judges."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vcae.cli.common import CheckpointOption, Device, DeviceOption, JsonOption, QuietOption, report, user_errors


@user_errors
def evaluate(
    pairs: Annotated[Path, typer.Argument(help="CSV with the columns converted, source, target_ref[, transcript][, label].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report.")] = Path("evaluation"),
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Draw the mels.")] = True,
    checkpoint: CheckpointOption = "default",
    device: DeviceOption = Device.auto,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Score conversions listed in PAIRS; write a page with players, pictures and a table.

    The independent judges (Resemblyzer, DNSMOS, pocketsphinx) come with `pip install 'vcae[eval]'`; without them vcae's own speaker
    encoder and F0 are what is reported, labelled as its own.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table

    from vcae.evaluation.pairs import read_pairs
    from vcae.evaluation.report import judge_pairs, table, write_report

    rows = read_pairs(pairs)
    from vcae.evaluation.judges import choose_judges
    from vcae.tasks.model import load

    model = load(checkpoint, device.value)
    judges, missing = choose_judges(model)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("judging", total=len(rows))
        found = judge_pairs(rows, judges, missing, lambda done, _: bar.update(task, completed=done))
    facts = {"pairs": pairs.name, "checkpoint": model.checkpoint.path.stem, "sha256": model.checkpoint.sha256}
    page = write_report(found, output, facts, pictures)
    if not quiet and not json:
        shown = Table(*table(found)[0], box=None)
        for line in table(found)[1:]:
            shown.add_row(*line)
        # A pipe has no width: the table must not be cut to one.
        Console(width=None if sys.stdout.isatty() else 200).print(shown)
    note = f"; not scored by {', '.join(missing)}: pip install 'vcae[eval]' brings them" if missing else ""
    means = {label: {k: None if v != v else v for k, v in values.items()} for label, values in found.means().items()}
    values = {"page": str(page), "n": len(rows), "means": means, "missing": missing, **facts}
    report(values, f"wrote {page}: {len(rows)} conversions{note}", str(page), quiet, json)
