"""The `vcae` command, with one file per command. Without torch, so that --help answers at once."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
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
    doctor,
    edit,
    embed,
    evaluate,
    export,
    generate,
    info,
    plot,
    say,
    shelf,
    speak,
    stream,
    train,
    transcribe,
    units,
    voice,
)
from vcae.cli.common import EXIT_USER_ERROR, user_errors
from vcae.cli.defaults import set_defaults
from vcae.cli.help import App
from vcae.environment import prepare_command
from vcae.signals import exit_on_signals
from vcae.version import __version__

# Panels of `vcae --help`.
MAIN, RESEARCH, SERVING = "Commands", "Research", "In a browser, over HTTP"

app = App(
    help="Voice conversion on a laptop, offline: the words of one recording in the voice of another.",
    pretty_exceptions_enable=False,
)
app.command("convert", rich_help_panel=MAIN)(convert.convert)
app.command("reconstruct", rich_help_panel=RESEARCH)(copy.reconstruct)
app.command("vocode", rich_help_panel=RESEARCH)(copy.vocode)
app.command("units", rich_help_panel=MAIN)(units.units)
app.command("speak", rich_help_panel=MAIN)(speak.speak)
app.command("say", rich_help_panel=MAIN)(say.say)
app.command("edit", rich_help_panel=MAIN)(edit.edit)
app.command("transcribe", rich_help_panel=MAIN)(transcribe.transcribe)
app.command("compress", rich_help_panel=MAIN)(codec.compress)
app.command("decompress", rich_help_panel=MAIN)(codec.decompress)
app.command("denoise", rich_help_panel=MAIN)(denoise.denoise)
app.command("embed", rich_help_panel=RESEARCH)(embed.embed)
app.command("stream", rich_help_panel=MAIN)(stream.stream)
app.command("plot", rich_help_panel=RESEARCH)(plot.plot)
app.command("interpolate", rich_help_panel=MAIN)(generate.interpolate)
app.command("info", rich_help_panel=MAIN)(info.info)
app.command("doctor", rich_help_panel=MAIN)(doctor.doctor)
app.command("demo", rich_help_panel=SERVING)(demo.demo)
app.command("serve", rich_help_panel=SERVING)(demo.serve)
app.command("evaluate", rich_help_panel=RESEARCH)(evaluate.evaluate)
shelf.register(voice.app)
train.register(voice.app)
app.add_typer(voice.app, name="voice", rich_help_panel=MAIN)
app.add_typer(generate.app, name="generate", rich_help_panel=MAIN)
anomaly_classes.register(anomaly.app)
app.add_typer(anomaly.app, name="anomaly", rich_help_panel=RESEARCH)
app.add_typer(export.app, name="export", rich_help_panel=RESEARCH)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vcae {__version__}")
        raise typer.Exit


@app.callback()
@user_errors
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="VCAE_CONFIG",
            show_envvar=False,
            metavar="FILE",
            help="TOML file with defaults of options, in place of config.toml in your folder for settings (vcae doctor says which).",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Voice conversion on a laptop, offline: the words of one recording in the voice of another."""
    set_defaults(ctx, config)


def main() -> None:
    """Run the command line."""
    exit_on_signals()
    prepare_command()
    _fill_in_closed_streams()
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.addLevelName(level, logging.getLevelName(level).lower())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    code: object = 0
    broken: OSError | None = None
    try:
        app(prog_name=None if sys.argv[0].endswith("__main__.py") else "vcae")
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
