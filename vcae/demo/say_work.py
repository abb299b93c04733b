"""The job of the tab Say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vcae import ConfigError, Sound, write_sound
from vcae.audio.watermark import mark_blocks
from vcae.demo.studio import Studio
from vcae.demo.work import Report, gather_voice
from vcae.files import provenance
from vcae.options import SayOptions
from vcae.text.say import say_sentences
from vcae.text.spelling import sentences

# Longest text on the page: about two minutes.
MAX_CHARACTERS = 2000


def say_file(
    studio: Studio,
    text: str,
    clips: Sequence[str | Path],
    saved: Sequence[str | Path],
    options: SayOptions,
    check: Callable[[], None],
    report: Report = lambda share, what: None,
) -> tuple[Path, Sound]:
    """Say a text in the voice of clips or saved voices, into a new file; return it and its sound.

    Args:
        studio: Models and folder to use.
        text: The text.
        clips: Sound files of the voice.
        saved: Files of saved voices.
        options: Options of the speech.
        check: Called between sentences; an exception that it raises ends the work.
        report: Called with the fraction done, 0 to 1, and a description of the present work.

    Raises:
        AudioError: For unusable clips, or without any voice.
        CheckpointError: For unusable saved voices.
        ConfigError: For a text that is missing or too long.
        DataError: For a text without an English word.
    """
    if not text.strip():
        raise ConfigError("the text is missing; write what is to be said")
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"the text has {len(text)} characters; at most {MAX_CHARACTERS} are allowed here")
    total = sum(len(sentence.words) for sentence in sentences(text))
    model = studio.model()
    check()
    report(0.05, "listening to the voice")
    voice = gather_voice(studio, model, clips, saved)
    said, n_words = [], 0
    report(0.2, "speaking")
    for sentence in say_sentences(model, text, voice, options):
        check()
        said.append(sentence.wav)
        n_words += len(sentence.words)
        report(0.2 + 0.75 * n_words / total, "speaking")
    sound = Sound(np.concatenate(list(mark_blocks(said, model.sample_rate))), model.sample_rate, "said")
    path = studio.new_file("said.wav")
    write_sound(path, sound, provenance(model.checkpoint, "said"))
    return path, sound
