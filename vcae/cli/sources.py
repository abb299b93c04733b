"""SOURCES, and the options that all commands on recordings share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from vcae.cli.common import ForceOption, JsonOption, QuietOption, user_errors
from vcae.cli.help import hints_of

MANY = "Many files"
# What all commands do with a source that cannot be used.
RULE = "A source that cannot be used is named, and the others are done: the exit code is 1, or 2 if it was the only one."
SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Sound files, folders of them, patterns such as 'day1/*.wav', a CSV with the column source, or '-' for standard input.",
        metavar="SOURCES",
    ),
]
OutDirOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder for the outputs of all sources, and for report.jsonl; subfolders are preserved.",
        rich_help_panel=MANY,
    ),
]
GlobOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN", help="Files of a folder to use, such as '*.flac'; by default all sound files.", rich_help_panel=MANY
    ),
]
JobsOption = Annotated[int, typer.Option(min=0, metavar="N", help="Worker processes; 0: one per core.", rich_help_panel=MANY)]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Skip files that an earlier run into the same folder completed.", rich_help_panel=MANY)
]


@dataclass(frozen=True)
class Run:
    """Options common to all commands on recordings.

    Attributes:
        out_dir: Folder of the outputs of all sources and of the report; None for a single output.
        glob: Pattern of the files of a folder to use, or None.
        jobs: Worker processes; 0 for one per core.
        resume: Skip completed outputs.
        force: Replace existing outputs.
        quiet: Print nothing but errors.
        json: Print the report as JSON.
        engine: `local` processes, or `ray`.
        address: Address of a Ray cluster; None starts one on this machine.
    """

    out_dir: OutDirOption = None
    glob: GlobOption = None
    jobs: JobsOption = 0
    resume: ResumeOption = False
    force: ForceOption = False
    quiet: QuietOption = False
    json: JsonOption = False
    engine: str = field(default="local", metadata={"own": True})
    address: str | None = field(default=None, metadata={"own": True})


def takes_many(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with a parameter `run`, which is replaced by the options of `Run`; errors become single lines."""
    hints, shared = hints_of(command), hints_of(Run)
    guarded, given = user_errors(command), [f for f in fields(Run) if not f.metadata.get("own")]

    def wrapped(**options: Any) -> None:
        guarded(run=Run(**{f.name: options.pop(f.name) for f in given}), **options)

    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values() if p.name != "run"]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    more = [inspect.Parameter(f.name, kind, default=f.default, annotation=shared[f.name]) for f in given]
    wrapped.__name__ = command.__name__
    wrapped.__doc__ = (command.__doc__ or "").replace("\n\n    Example:", f"\n\n    {RULE}\n\n    Example:")
    wrapped.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in (*own, *more)}
    return wrapped
