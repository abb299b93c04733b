"""`vcae export`: models in formats of other runtimes."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vcae.cli.common import CheckpointOption, ForceOption, JsonOption, QuietOption, choices, report, user_errors
from vcae.cli.help import App
from vcae.environment import prepare
from vcae.errors import ConfigError

app = App(help="Models for other runtimes.")


@app.callback()
def _group() -> None:
    """Models for other runtimes."""


class Bits(str, Enum):
    """Bits of a weight."""

    full = "32"
    half = "16"
    eight = "8"


@app.command("onnx")
@user_errors
def onnx(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the graphs, made if it is missing.")],
    bits: Annotated[
        Bits, typer.Option(metavar=choices(Bits), help="Bits of a weight; 16 keeps the shipped checkpoint as it is.")
    ] = Bits.half,
    checkpoint: CheckpointOption = "default",
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Write the models of a conversion as ONNX graphs, which vcae-light and the page in web/ run without torch.

    Example: vcae export onnx graphs
    """
    prepare()
    try:
        import onnx as _  # noqa: F401
    except ImportError as error:
        raise ConfigError("onnx is not installed; run: pip install 'vcae[export]'") from error
    from vcae.engine.engine import Engine
    from vcae.export.onnx import export_onnx

    files = export_onnx(Engine(checkpoint, "cpu"), folder, int(bits.value), force)
    size = sum(file.stat().st_size for file in files)
    values = {"folder": str(folder), "files": [file.name for file in files], "bytes": size, "bits": int(bits.value)}
    report(values, f"{folder}: {len(files)} files, {size / 1e6:.1f} MB", str(folder), quiet, json)
