"""The `vcae` command, with one file per command. Without torch, so that --help answers at once."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from vcae.cli import (
    anomaly,
    anomaly_classes,
    codec,
    convert,
    copy,
    demo,
    denoise,
    embed,
    evaluate,
    generate,
    info,
    plot,
    stream,
    units,
    voice,
)
from vcae.cli.common import EXIT_USER_ERROR
from vcae.environment import prepare
from vcae.version import __version__

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
app.command("compress")(codec.compress)
app.command("decompress")(codec.decompress)
app.command("denoise")(denoise.denoise)
app.command("embed")(embed.embed)
app.command("stream")(stream.stream)
app.command("plot")(plot.plot)
app.command("interpolate")(generate.interpolate)
app.command("info")(info.info)
app.command("demo")(demo.demo)
app.command("serve")(demo.serve)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(voice.app, name="voice")
app.add_typer(generate.app, name="generate")
anomaly_classes.register(anomaly.app)
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
    prepare()
    _fill_in_closed_streams()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    code: object = 0
    broken: OSError | None = None
    try:
        app()
    except SystemExit as done:
        code = done.code
    except OSError as error:
        broken = error
    try:
        sys.stdout.flush()
    except OSError as error:
        # Unwritten output has nowhere to go, and Python would try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        broken = None
        if not code:
            sys.stderr.write(f"error: standard output could not be written ({error.strerror})\n")
            code = EXIT_USER_ERROR
    if broken is not None:
        raise broken
    sys.exit(code)  # type: ignore[arg-type]


def _fill_in_closed_streams() -> None:
    """Open the descriptors of closed standard streams, so that no other file gets them; writing to a closed one stays an error."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, mode))
