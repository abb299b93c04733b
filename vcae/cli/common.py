"""Shared parts of the commands: option types and output. Without torch."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TextIO, TypeVar

import typer

from vcae.batch.jobs import plain
from vcae.errors import AudioError, VcaeError

P = ParamSpec("P")
R = TypeVar("R")
EXIT_USER_ERROR = 2
log = logging.getLogger(__name__)


class Device(str, Enum):
    """Devices to compute on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


def choices(kind: type[Enum]) -> str:
    """Return the values of an option for --help, such as `auto|cpu`."""
    return "|".join(member.value for member in kind)


OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Output file; its suffix sets the format, '-' is a wav on standard output."
    ),
]
DeviceOption = Annotated[
    Device, typer.Option(metavar=choices(Device), help="Device to compute on; auto uses a GPU if there is one.")
]
CheckpointOption = Annotated[
    str, typer.Option(metavar="NAME|FILE", help="Name of a shipped checkpoint or path of a .safetensors file.")
]
SeedOption = Annotated[
    int, typer.Option(min=0, metavar="N", help="Seed of the vocoder's noise: the same seed gives the same file.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing output file.")]
RateOption = Annotated[
    int | None,
    typer.Option(
        "--rate",
        metavar="HZ",
        help="Sample rate of the result; by default that of the source, and at least 16000.",
        show_default=False,
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")]


# Library messages name an argument as Python does, `force=True`.
_ARGUMENT = re.compile(r"`(\w+)=([^`]+)`")


def as_option(text: str) -> str:
    """Replace Python arguments in a message of the library by command-line options: `force=True` by --force."""

    def option(found: re.Match[str]) -> str:
        name, value = found[1].replace("_", "-"), found[2].strip("'")
        return f"--{name}" if value == "True" else f"--{name} {value}"

    return _ARGUMENT.sub(option, text)


def user_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn a VcaeError into one line on stderr and exit code 2; every other exception keeps its traceback."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except VcaeError as error:
            log.debug("the error is from here:", exc_info=True)
            with contextlib.suppress(VcaeError, BrokenPipeError):
                say(as_option(f"error: {error}"), sys.stderr)
            raise typer.Exit(EXIT_USER_ERROR) from None
        except BrokenPipeError:
            say("error: standard output was closed by its reader before all was written", sys.stderr)
            raise typer.Exit(EXIT_USER_ERROR) from None

    return guarded


def output_path(output: str | None, inputs: list[str], suffix: str, ending: str = ".wav") -> str:
    """Return the output path: as given, standard output for standard input, else `NAME.SUFFIX.wav` in the current folder.

    Args:
        output: Path given by the user, or None.
        inputs: The source first, then all other files that are read.
        suffix: Suffix of the default name.
        ending: Ending after it.

    Raises:
        AudioError: If the output would replace one of the inputs.
    """
    if any("\0" in name for name in (output or "", *inputs)):
        raise AudioError("a path has a zero byte, which is not allowed in a file name")
    chosen = (
        output if output is not None else "-" if inputs[0] == "-" else f"{Path(inputs[0]).stem}{suffix and '.'}{suffix}{ending}"
    )
    for name in inputs:
        if name != "-" and chosen != "-" and os.path.realpath(name) == os.path.realpath(chosen):
            raise AudioError(f"{chosen} is an input too; choose another output with -o, so that the recording is not lost")
    return chosen


@contextmanager
def progress(doing: str, quiet: bool) -> Iterator[Callable[..., None]]:
    """Show a progress bar on a terminal's stderr.

    Yields:
        A function to call with the fraction done, 0 to 1, and a note; percent and time left are shown from its first call on.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda share, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        *(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}")),
        *(TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(doing, total=None, note="")
        yield lambda share, note="": bar.update(task, total=1.0, completed=share, note=note)


def report(values: dict[str, Any], sentence: str, output: str, quiet: bool, as_json: bool) -> None:
    """Print the result as a sentence or as JSON; on stderr if the sound goes to standard output."""
    if quiet:
        return
    text = json.dumps(plain(values)) if as_json else sentence
    say(text, sys.stderr if output == "-" else sys.stdout)


def say(text: str, stream: TextIO) -> None:
    """Write a single line, even if a name in it has newlines or characters outside of the terminal's encoding."""
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(" ".join(text.split()).encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AudioError(f"standard output could not be written ({error.strerror}); send it elsewhere") from error


class Stopwatch:
    """Stopwatch that returns the seconds since its creation."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self._start
