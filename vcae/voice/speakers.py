"""Values of `--speaker`: clips, saved voices, and mixes of them. Torch is imported when a voice is measured."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vcae.errors import ConfigError

if TYPE_CHECKING:
    from vcae.audio.io import Sound
    from vcae.engine.engine import Engine
    from vcae.voice.voice import Voice

# Longest clip of a voice; only the beginning of a longer one is used.
MAX_CLIP_S = 600.0


@dataclass(frozen=True)
class Speaker:
    """Value of one --speaker: a clip or the file of a saved voice, with its weight if one was given."""

    path: Path
    saved: bool
    weight: float | None


def parse_speaker(text: str) -> Speaker:
    """Parse a --speaker: a clip, or a saved voice's name or file, optionally followed by `:WEIGHT` for a mix.

    Raises:
        ConfigError: If it is neither a file nor a saved voice, or its weight is not a number.
    """
    from vcae.voice.shelf import NAME, SUFFIX, voice_path, voices_folder

    what, colon, number = text.rpartition(":")
    weight = None
    if colon and not os.path.exists(text):
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"the weight in --speaker {text} is {number!r}; write it as --speaker {what}:0.7")
        text = what
    if NAME.fullmatch(text) and not os.path.exists(text) and voice_path(text).exists():
        return Speaker(voice_path(text), True, weight)
    if not os.path.exists(text) and not Path(text).suffix:
        names = sorted(p.stem for p in voices_folder().glob(f"*{SUFFIX}"))
        raise ConfigError(f"no file and no saved voice is called {text!r}; saved voices: {', '.join(names) or 'none'}")
    return Speaker(Path(text), Path(text).suffix == SUFFIX, weight)


def read_clips(speakers: list[Speaker]) -> dict[Path, Sound]:
    """Read the clips among the speakers, before a model is loaded, so that unusable ones are reported at once."""
    from vcae.audio.io import read_sound

    return {s.path: read_sound(str(s.path), first_s=MAX_CLIP_S) for s in speakers if not s.saved}


def find_voice(model: Engine, speakers: list[Speaker], clips: dict[Path, Sound], denoise: bool = False) -> Voice:
    """Return the voice of all speakers: clips without weights are one voice; with a weight or a saved voice among them, all are mixed.

    With `denoise`, clips are denoised first; saved voices are unchanged.
    """
    from vcae.voice.file import load_voice
    from vcae.voice.voice import mix_voices, voice_from_sounds

    if all(s.weight is None and not s.saved for s in speakers):
        return voice_from_sounds(model, list(clips.values()), denoise)
    voices = [load_voice(s.path, model) if s.saved else voice_from_sounds(model, [clips[s.path]], denoise) for s in speakers]
    return mix_voices(voices, [1.0 if s.weight is None else s.weight for s in speakers])
