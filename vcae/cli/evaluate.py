"""`vcae evaluate`: score conversions or copies, and compare systems pair by pair."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcae.cli.common import (
    CheckpointOption,
    Device,
    DeviceOption,
    JsonOption,
    QuietOption,
    as_option,
    progress,
    report,
    say,
    user_errors,
)
from vcae.errors import DataError
from vcae.evaluation.tables import CONVERSIONS, COPIES, Table, columns_text, read_tables

if TYPE_CHECKING:
    from rich.console import Console

FAILED, INTERRUPTED = 1, 130
TABLES_HELP = (
    f"CSV of conversions with the columns {columns_text(CONVERSIONS)}; or of copies with {columns_text(COPIES)}; or the report.jsonl "
    "of a command with --out-dir, or its folder. Paths are relative to it."
)


@user_errors
def evaluate(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLES", help=TABLES_HELP)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the report and its cache.")
    ] = Path("evaluation"),
    paired: Annotated[
        bool,
        typer.Option("--paired", help="Print the paired difference of each system to the first one, with 95 % intervals."),
    ] = False,
    copies: Annotated[bool, typer.Option("--copies", help="Treat conversions as copies of their sources.")] = False,
    judges: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Names of judges, separated by commas, such as whisper,distillmos; by default all."),
    ] = None,
    whisper: Annotated[
        str, typer.Option(metavar="NAME|FOLDER", help="Whisper's model: a name, or a folder in faster-whisper's format.")
    ] = "tiny.en",
    align: Annotated[
        bool,
        typer.Option("--align/--no-align", help="Align copies by a shift of up to 0.25 s, for PESQ, STOI and mel."),
    ] = True,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Write the page with players.")] = True,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Draw the mels on the page.")] = True,
    jobs: Annotated[int, typer.Option(min=0, metavar="N", help="Number of processes; 0: one per core.")] = 0,
    checkpoint: CheckpointOption = "default",
    device: DeviceOption = Device.cpu,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Score the conversions, or copies, listed in TABLES; write scores.csv, means.json and a page with players.

    Word error rates of two recognisers, naturalness, similarity to the target voice; for copies also PESQ, STOI and mel distance. The
    independent judges are installed with the extra `eval` and need no network. Readings are cached in the output folder: after an
    interruption the same command resumes, and only changed files are read again. Exits with 1 if a judge, a table or a file failed.
    Recordings are always judged in pairs, so it takes tables; after a command with --out-dir, its folder, which has report.jsonl.

    Example: vcae evaluate pairs.csv -o report
    """
    from rich.console import Console

    found = _or_fail(lambda: read_tables(tables, copies))
    from vcae.environment import allowed_cores
    from vcae.evaluation.judges import choose_judges
    from vcae.evaluation.page import write_page
    from vcae.evaluation.paired import compare_systems, differences_table, plain_difference
    from vcae.evaluation.report import judge_rows, plain_means, table, write_data

    names = None if judges is None else [name.strip() for name in judges.split(",") if name.strip()]
    chosen, missing = choose_judges(found.copies, names, whisper, checkpoint, device.value, align)
    for problem in [*found.problems, *missing]:
        say(problem, sys.stderr)
    try:
        with progress("judging", quiet) as tell:
            judged = judge_rows(
                found.rows,
                chosen,
                missing,
                output,
                jobs or allowed_cores(),
                lambda done, total: tell(done / max(total, 1), f"{done} of {total}"),
            )
    except KeyboardInterrupt:
        say(f"interrupted: the readings are in {output}; run the same command again to resume", sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    for problem in [*judged.missing[len(missing) :], *judged.problems]:
        say(problem, sys.stderr)
    differences, said = compare_systems(judged) if paired else ([], [])
    for line in said:
        say(line, sys.stderr)
    facts = {"tables": ", ".join(path.name for path in tables), "rows": len(judged.rows)}
    write_data(judged, output, facts, [plain_difference(d) for d in differences])
    written = write_page(judged, output, facts, pictures, differences) if page else output / "means.json"
    if not quiet and not json:
        console = Console(width=None if sys.stdout.isatty() else 200)
        _show(console, table(judged))
        if paired:
            _show(console, differences_table(differences))
    values = {
        "page": str(written) if page else None,
        "folder": str(output),
        "n": len(judged.rows),
        "means": plain_means(judged),
        "missing": judged.missing,
        "problems": [*found.problems, *judged.problems],
        "judges": judged.judges,
        **({"differences": [plain_difference(d) for d in differences]} if paired else {}),
    }
    kind = "copies" if found.copies else "conversions"
    whisper_from = f"; {judged.judges['whisper'].partition(', ')[0]}" if "whisper" in judged.judges else ""
    report(values, f"wrote {written}: {len(judged.rows)} {kind}{whisper_from}", str(written), quiet, json)
    if judged.missing or found.problems or judged.problems:
        raise typer.Exit(FAILED)


def _or_fail(read: Callable[[], Table]) -> Table:
    """Read tables; if none can be used, report that and exit with 1, as for one of several."""
    try:
        return read()
    except DataError as error:
        say(as_option(f"error: {error}"), sys.stderr)
        raise typer.Exit(FAILED) from None


def _show(console: Console, lines: list[list[str]]) -> None:
    from rich.table import Table as Shown

    shown = Shown(*lines[0], box=None)
    for line in lines[1:]:
        shown.add_row(*line)
    # A pipe has no width, so the table must not be cut off.
    console.print(shown)
