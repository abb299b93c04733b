"""The folder of saved voices. Without torch, so that a wrong name is reported at once."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vcae.errors import ConfigError

SUFFIX = ".safetensors"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def voices_folder() -> Path:
    """Return the folder of saved voices: `$VCAE_VOICES`, or `vcae/voices` in the folder for programs' data.

    That is `$XDG_DATA_HOME` if set; else the system's: ~/.local/share on Linux, ~/Library/Application Support on macOS, %APPDATA% on
    Windows. Earlier versions used ~/.local/share everywhere; voices that are there already stay in use.
    """
    chosen, base = os.environ.get("VCAE_VOICES"), os.environ.get("XDG_DATA_HOME")
    if chosen:
        return Path(chosen)
    if base:
        return Path(base) / "vcae" / "voices"
    from platformdirs import user_data_path

    folder, earlier = (
        place / "voices"
        for place in (user_data_path("vcae", appauthor=False, roaming=True), Path.home() / ".local" / "share" / "vcae")
    )
    return earlier if earlier.is_dir() and not folder.is_dir() else folder


def voice_path(name: str) -> Path:
    """Return the file of a voice by its name.

    Raises:
        ConfigError: If the name is not valid for a file.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a valid voice name; use at most 64 letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    return voices_folder() / (name + SUFFIX)


def voice_target(name: str | Path) -> Path:
    """Return the file for saving a voice: a path with the suffix .safetensors, or the file of a voice's name.

    Raises:
        ConfigError: If the name is not valid.
    """
    return Path(name) if isinstance(name, Path) or name.endswith(SUFFIX) else voice_path(name)


def find_saved(name: str | Path) -> Path:
    """Return the file of a saved voice by its name, or a path unchanged.

    Raises:
        ConfigError: If no saved voice has this name.
    """
    if isinstance(name, Path) or name.endswith(SUFFIX) or os.path.isfile(name):
        return Path(name)
    if NAME.fullmatch(name) and voice_path(name).exists():
        return voice_path(name)
    raise ConfigError(f"no file and no saved voice is called {name!r}; saved voices: {saved_names()}")


def saved_path(name: str) -> Path:
    """Return the file of a saved voice by its name.

    Raises:
        ConfigError: If no saved voice has this name.
    """
    path = voice_path(name)
    if not path.exists():
        raise ConfigError(f"no saved voice is called {name!r}; saved voices: {saved_names()}")
    return path


def saved_names() -> str:
    """Return the names of the saved voices for a message, or `none`."""
    return ", ".join(sorted(path.stem for path in voices_folder().glob(f"*{SUFFIX}"))) or "none"
