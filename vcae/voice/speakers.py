"""Speakers as text: clips, saved voices, and mixes of them. Torch is imported when a voice is measured."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vcae.audio.suffixes import SUFFIXES
from vcae.errors import ConfigError
from vcae.files import ADDRESS
from vcae.options import AUTO
from vcae.voice.shelf import NAME, SUFFIX, saved_names, voice_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from vcae.audio.io import Sound
    from vcae.engine.engine import Engine
    from vcae.voice.voice import Voice

log = logging.getLogger(__name__)

# Most seconds of a clip that are used, and how far a longer one is searched for seconds that are not pauses.
MAX_CLIP_S, MAX_SEARCHED_S = 600.0, 7200.0
# A second of a long clip is a pause if its power is this far below the 90th percentile, in dB.
PAUSE_DB = 25.0


@dataclass(frozen=True)
class Speaker:
    """Speaker as text: a clip, a folder of clips, or the file of a saved voice, with its weight if one was given."""

    path: Path
    saved: bool
    weight: float | None

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The file, or the sound files of the folder and its subfolders, sorted; hidden ones are left out.

        Raises:
            ConfigError: If the folder has no sound files.
        """
        if not self.path.is_dir():
            return (self.path,)
        below = sorted(path for path in self.path.rglob("*") if path.suffix.lower() in SUFFIXES)
        found = [path for path in below if not any(part.startswith(".") for part in path.relative_to(self.path).parts)]
        if not found:
            raise ConfigError(f"{self.path} is a folder without sound files; give one with clips of the voice, or a clip")
        return tuple(found)


def parse_speaker(text: str) -> Speaker:
    """Parse a speaker: a clip, a folder of clips, or a saved voice's name or file, optionally followed by `:WEIGHT` for a mix.

    A file of a name comes first, then a saved voice, then a folder; `./alice` and `alice/` are always paths.

    Raises:
        ConfigError: If it is neither a file nor a saved voice, or its weight is not a number.
    """
    what, colon, number = text.rpartition(":")
    weight = None
    if ADDRESS.match(text) and not os.path.exists(text):
        raise ConfigError(f"{text} is an address, and only files are read; download it and give the path of the file")
    if colon and not os.path.exists(text) and (_is_number(number) or _is_voice(what)):
        weight = float(number) if _is_number(number) else math.nan
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"the weight of the speaker {text} is {number!r}; write a number from 0 on, such as {what}:0.7")
        text = what
    if _is_saved(text):
        return Speaker(voice_path(text), True, weight)
    if not os.path.exists(text) and not Path(text).suffix:
        raise ConfigError(f"no file and no saved voice is called {text!r}; saved voices: {saved_names()}")
    return Speaker(Path(text), Path(text).suffix == SUFFIX and not os.path.isdir(text), weight)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_saved(text: str) -> bool:
    return bool(NAME.fullmatch(text)) and not os.path.isfile(text) and voice_path(text).exists()


def _is_voice(text: str) -> bool:
    return os.path.exists(text) or _is_saved(text) or Path(text).suffix.lower() in SUFFIXES


def speaker_files(texts: Sequence[str]) -> list[str]:
    """Return the files of all speakers, each in the form of `parse_speaker`.

    Raises:
        ConfigError: As `parse_speaker`.
    """
    return [str(file) for text in texts for file in parse_speaker(text).files]


def read_clips(speakers: list[Speaker]) -> dict[Path, Sound]:
    """Read the clips among the speakers, before a model is loaded, so that unusable ones are reported at once.

    Of a folder, clips are read until they have `MAX_CLIP_S` seconds; the log says how many were left out.
    """
    clips: dict[Path, Sound] = {}
    for speaker in speakers:
        if speaker.saved:
            continue
        seconds = 0.0
        for n, file in enumerate(speaker.files):
            if seconds >= MAX_CLIP_S:
                log.warning("%d of %d clips in %s are enough; the others are not used", n, len(speaker.files), speaker.path)
                break
            clips[file] = read_clip(file, MAX_CLIP_S - seconds)
            seconds += clips[file].duration_s
    return clips


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
    model: Engine, speakers: list[Speaker], clips: dict[Path, Sound], denoise: bool | str = AUTO, log: bool = True
) -> Voice:
    """Return the voice of all speakers: clips without weights are one voice; with a weight or a saved voice among them, all are mixed.

    With `denoise` True clips are denoised first, by `auto` noisy ones; saved voices are unchanged. With `log`, warnings about the clips are logged.
    """
    from vcae.voice.file import load_voice
    from vcae.voice.voice import log_warnings, mix_voices, voice_from_sounds

    if all(s.weight is None and not s.saved for s in speakers):
        sounds = [clips[file] for s in speakers for file in s.files if file in clips]
        voice = voice_from_sounds(model, sounds, denoise)
    else:
        voices = [
            load_voice(s.path, model)
            if s.saved
            else voice_from_sounds(model, [clips[file] for file in s.files if file in clips], denoise)
            for s in speakers
        ]
        voice = mix_voices(voices, [1.0 if s.weight is None else s.weight for s in speakers])
    if log:
        log_warnings(voice)
    return voice
