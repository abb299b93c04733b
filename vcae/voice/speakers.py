"""Values of `--speaker`: clips, saved voices, and mixes of them. Torch is imported when a voice is measured."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vcae.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from vcae.audio.io import Sound
    from vcae.engine.engine import Engine
    from vcae.voice.voice import Voice

# Most seconds of a clip that are used, and how far a longer one is searched for seconds that are not pauses.
MAX_CLIP_S, MAX_SEARCHED_S = 600.0, 7200.0
# A second of a long clip is a pause if its power is this far below the 90th percentile, in dB.
PAUSE_DB = 25.0


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
    return {s.path: read_clip(s.path) for s in speakers if not s.saved}


def read_clip(path: Path, most_s: float = MAX_CLIP_S) -> Sound:
    """Read a clip; of a long one, only seconds that are not pauses, up to `most_s` of them.

    Raises:
        AudioError: If it cannot be used.
    """
    import numpy as np

    from vcae.audio.io import Sound, SoundReader

    with SoundReader(path) as reader:
        second, levels = reader.sample_rate, list[float]()
        for block in _seconds(reader.blocks(MAX_SEARCHED_S), second):
            levels.append(float(np.square(block, dtype=np.float64).mean()))
            if len(levels) >= MAX_SEARCHED_S:
                break
        least = float(np.quantile(levels, 0.9)) * 10 ** (-PAUSE_DB / 10) if len(levels) > most_s else 0.0
        chosen = [n for n, level in enumerate(levels) if level >= least][: round(most_s)]
        wanted, kept = set(chosen), list[np.ndarray]()
        for n, block in enumerate(_seconds(reader.blocks(MAX_SEARCHED_S), second)):
            if n in wanted:
                kept.append(block)
            if n >= chosen[-1]:
                break
        return Sound(np.concatenate(kept), second, str(path), warnings=reader.warnings)


def _seconds(blocks: Iterator[np.ndarray], second: int) -> Iterator[np.ndarray]:
    """Yield the samples of blocks in pieces of one second, and the rest."""
    import numpy as np

    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // second * second
        yield from (rest[start : start + second] for start in range(0, whole, second))
        rest = rest[whole:]
    if len(rest):
        yield rest


def find_voice(
    model: Engine, speakers: list[Speaker], clips: dict[Path, Sound], denoise: bool = False, log: bool = True
) -> Voice:
    """Return the voice of all speakers: clips without weights are one voice; with a weight or a saved voice among them, all are mixed.

    With `denoise`, clips are denoised first; saved voices are unchanged. With `log`, warnings about the clips are logged.
    """
    from vcae.voice.file import load_voice
    from vcae.voice.voice import log_warnings, mix_voices, voice_from_sounds

    if all(s.weight is None and not s.saved for s in speakers):
        voice = voice_from_sounds(model, list(clips.values()), denoise)
    else:
        voices = [
            load_voice(s.path, model) if s.saved else voice_from_sounds(model, [clips[s.path]], denoise) for s in speakers
        ]
        voice = mix_voices(voices, [1.0 if s.weight is None else s.weight for s in speakers])
    if log:
        log_warnings(voice)
    return voice
