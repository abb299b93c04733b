"""Where saved voices lie. No import of torch, so that a wrong name is told at once."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vcae.errors import ConfigError

SUFFIX = ".safetensors"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def voices_folder() -> Path:
    """Return where voices are kept: `$VCAE_VOICES`, or `vcae/voices` in the user's data folder."""
    chosen = os.environ.get("VCAE_VOICES")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "vcae" / "voices"


def voice_path(name: str) -> Path:
    """Return the file of a voice's name.

    Raises:
        ConfigError: If the name cannot be a file's.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name for a voice; take letters, digits, '.', '_' and '-', at most 64, a letter or digit first"
        )
    return voices_folder() / (name + SUFFIX)
