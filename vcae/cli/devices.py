"""Sound devices, by the optional package sounddevice."""

from __future__ import annotations

from typing import Any

import typer

from vcae.errors import ConfigError


def need_sounddevice() -> Any:
    """Return the package sounddevice.

    Raises:
        ConfigError: If it, or the system's PortAudio, is missing.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"sound devices cannot be used ({error}); pip install 'vcae[live]', and the system's PortAudio"
        ) from error
    return sounddevice


def list_devices(asked: bool) -> None:
    """Print the sound devices and end the command, if that is asked for.

    Raises:
        ConfigError: If sounddevice is missing, or there is no sound device.
    """
    if not asked:
        return
    sounddevice = need_sounddevice()
    devices = sounddevice.query_devices()
    if not len(devices):
        raise ConfigError("no sound device was found; connect one, or use standard input and output")
    usual = list(sounddevice.default.device)
    typer.echo("number  in  out  rate      name")
    for number, device in enumerate(devices):
        ends = [kind for kind, at in (("microphone", 0), ("loudspeaker", 1)) if usual[at] == number]
        name = device["name"] + (f"   (the usual {' and '.join(ends)})" if ends else "")
        counts = f"{device['max_input_channels']:2d}  {device['max_output_channels']:3d}"
        typer.echo(f"{number:6d}  {counts}  {device['default_samplerate']:5.0f} Hz  {name}")
    raise typer.Exit


def device_of(name: str) -> int | str | None:
    """Return a device as sounddevice takes it: its number, a part of its name, or None for `default`."""
    return None if name == "default" else int(name) if name.isdigit() else name
