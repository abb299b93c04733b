"""`vcae voice` delete, rename, show, play, export and import: saved voices as files, without measuring them again."""

from __future__ import annotations

import json as json_module
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vcae.cli.common import (
    CheckpointOption,
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    OutputOption,
    QuietOption,
    SeedOption,
    progress,
    say,
    user_errors,
)
from vcae.cli.devices import device_of, need_sounddevice
from vcae.cli.voice import describe, sentence
from vcae.errors import AudioError, CheckpointError, ConfigError
from vcae.files import check_target, provenance, write_file
from vcae.voice.shelf import SUFFIX, saved_path, voice_path

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a saved voice.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to `vcae voice`."""
    app.command("show")(show)
    app.command("play")(play)
    app.command("rename")(rename)
    app.command("delete")(delete)
    app.command("export")(export)
    app.command("import")(import_voice)


@user_errors
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAMES", help="Names of saved voices.")],
    force: Annotated[bool, typer.Option("--force", help="Do not ask.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Delete saved voices, after a question on a terminal.

    Example: vcae voice delete alice --force
    """
    paths = [saved_path(name) for name in names]
    if not force:
        if not sys.stdin.isatty():
            raise ConfigError(f"{', '.join(names)} would be deleted for good; add --force to do so")
        if not typer.confirm(f"Delete {', '.join(map(str, paths))}?"):
            raise typer.Exit(1)
    for name, path in zip(names, paths, strict=True):
        path.unlink(missing_ok=True)
        if not quiet:
            say(f"deleted {name}: {path}", sys.stdout)


@user_errors
def rename(
    name: NameArgument,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rename a saved voice.

    Example: vcae voice rename alice alice-2024
    """
    path, target = saved_path(name), voice_path(new)
    _check_free(new, target, force)
    os.replace(path, target)
    if not quiet:
        say(f"{name} is called {new} now: {target}", sys.stdout)


@user_errors
def show(name: NameArgument, json: JsonOption = False) -> None:
    """Show what is stored with a saved voice: its speech and pitch, its checkpoint, its clips and its author.

    Example: vcae voice show alice
    """
    path = saved_path(name)
    row = describe(path)
    if "error" in row:
        raise CheckpointError(row["error"])
    row["bytes"] = path.stat().st_size
    if json:
        typer.echo(json_module.dumps(row))
        return
    say(f"{name}: {sentence(row)}", sys.stdout)
    for key, value in {
        "file": path,
        "bytes": row["bytes"],
        "recordings": row.get("recordings", 0),
        **row["provenance"],
    }.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        if text and key != "clips":
            say(f"  {key}: {text}", sys.stdout)


@user_errors
def play(
    name: NameArgument,
    output: OutputOption = None,
    device_out: Annotated[
        str, typer.Option(metavar="DEVICE", help="Loudspeaker, by number or name; 'default' is the system's.")
    ] = "default",
    seed: SeedOption = 0,
    device: DeviceOption = Device.auto,
    checkpoint: CheckpointOption = "default",
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Play up to ten seconds of a saved voice's recordings, as the vocoder speaks them; or write them to a file with -o.

    Example: vcae voice play alice
    """
    path = saved_path(name)
    from vcae.audio.io import check_output, write_sound

    if output is not None:
        check_output(output, force)
    devices = None if output is not None else need_sounddevice()
    with progress("loading the model", quiet):
        from vcae.tasks.model import load
        from vcae.voice.file import load_voice
        from vcae.voice.sample import voice_sample

        model = load(checkpoint, device.value)
        sound = voice_sample(model, load_voice(path), name, seed=seed)
    if devices is None:
        assert output is not None
        write_sound(output, sound, provenance(model.checkpoint, "vocoded"), force, sys.stdout.buffer)
        said = f"wrote {output}"
    else:
        try:
            devices.play(sound.wav, sound.sample_rate, device=device_of(device_out), blocking=True)
        except (devices.PortAudioError, ValueError) as error:
            raise AudioError(f"no loudspeaker {device_out!r} can be used ({error}); write a file with -o instead") from error
        said = "played"
    if not quiet:
        say(f"{said} {sound.duration_s:.1f} s of {name}", sys.stderr if output == "-" else sys.stdout)


@user_errors
def export(
    name: NameArgument,
    output: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="File to write (.safetensors); NAME.safetensors in this folder by default."),
    ] = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy a saved voice to a file, for another machine or person.

    Example: vcae voice export alice alice.safetensors
    """
    path = saved_path(name)
    target = Path(name + SUFFIX) if output is None else output
    check_target(target, force, (SUFFIX,), CheckpointError)
    write_file(target, path.read_bytes(), refuse=CheckpointError)
    if not quiet:
        say(f"wrote {target}: the voice {name}, {target.stat().st_size} bytes", sys.stdout)


@user_errors
def import_voice(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File of a voice (.safetensors), from `export`.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Its name here; by default the file's.")] = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a voice's file, and save it under a name.

    Example: vcae voice import alice.safetensors
    """
    chosen = file.stem if name is None else name
    target = voice_path(chosen)
    _check_free(chosen, target, force)
    from vcae.voice.file import load_voice

    load_voice(file)
    write_file(target, file.read_bytes(), refuse=CheckpointError)
    if not quiet:
        say(f"saved {chosen}: {target}", sys.stdout)


def _check_free(name: str, path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise ConfigError(f"a voice called {name} exists ({path}); add --force to replace it, or take another name")
