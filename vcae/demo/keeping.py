"""Keeping a new voice of a visitor: in the user's folder if the page is local, otherwise with the page."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

from vcae import ConfigError, __version__, save_voice
from vcae.demo.limits import read_upload
from vcae.demo.studio import Studio
from vcae.demo.voices import TWIN_CHECKPOINT, check_voice_name, keep_voice
from vcae.voice.shelf import voice_path
from vcae.voice.voice import voice_from_sounds


def save_here(studio: Studio, name: str, clip: str | Path, visitor: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Measure a voice from a clip and keep it.

    Args:
        studio: Models and folders to use.
        name: Name of the voice.
        clip: Sound file.
        visitor: Voices of the visitor.

    Returns:
        Key of its card, and the voices of the visitor now.

    Raises:
        ConfigError: If the name is not valid, or taken in the user's folder.
        AudioError: If the clip cannot be used.
    """
    name = check_voice_name(name, visitor)
    sound = read_upload(clip, "the clip of the voice", studio.limits.seconds)
    facts = {"clips": [Path(clip).name]}
    if studio.local:
        path = voice_path(name)
        if path.exists():
            raise ConfigError(f"a voice called {name} is saved already; take another name")
        voice = voice_from_sounds(studio.model(), [sound])
        made_at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        save_voice(voice, path, {"author": "", "made_by": f"vcae {__version__}", "made_at": made_at, **facts})
        return f"saved:{name}", dict(visitor)
    voice, twin = (voice_from_sounds(studio.model(checkpoint), [sound]) for checkpoint in ("default", TWIN_CHECKPOINT))
    _, now = keep_voice(studio, name, voice, twin, facts, visitor)
    return f"mine:{name}", now
