"""Sound devices, by the optional package sounddevice."""

from __future__ import annotations

from typing import Any

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


def device_of(name: str) -> int | str | None:
    """Return a device as sounddevice takes it: its number, a part of its name, or None for `default`."""
    return None if name == "default" else int(name) if name.isdigit() else name
