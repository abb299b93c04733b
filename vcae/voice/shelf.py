"""The folder of saved voices. Without torch, so that a wrong name is reported at once."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vcae.errors import ConfigError

SUFFIX = ".safetensors"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def voices_folder() -> Path:
    """Return the folder of saved voices: `$VCAE_VOICES`, or `vcae/voices` in the user's data folder."""
    chosen = os.environ.get("VCAE_VOICES")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "vcae" / "voices"


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
