"""The `vcae` command: gathers one file a command. Nothing here imports torch, so that --help answers at once."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from vcae import __version__
from vcae.cli import anomaly, convert, copy, demo, evaluate, info, plot, units, voice

app = typer.Typer(
    help="Voice conversion on a laptop, offline: the words of one recording in the voice of another.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("convert")(convert.convert)
app.command("reconstruct")(copy.reconstruct)
app.command("vocode")(copy.vocode)
app.command("units")(units.units)
app.command("speak")(units.speak)
app.command("plot")(plot.plot)
app.command("info")(info.info)
app.command("demo")(demo.demo)
app.command("serve")(demo.serve)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(voice.app, name="voice")
app.add_typer(anomaly.app, name="anomaly")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vcae {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Voice conversion on a laptop, offline: the words of one recording in the voice of another."""


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        app()
    except BrokenPipeError:
        # The reader of our output went away; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
