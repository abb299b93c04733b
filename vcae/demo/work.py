"""Jobs without a page: what the tabs and the HTTP service both do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcae import AudioError, Model, Sound, Voice, load_voice, mix_voices, write_sound
from vcae.demo.limits import MAX_REFERENCES, read_upload, read_uploads
from vcae.demo.studio import Studio
from vcae.tasks.convert import Conversion, ConvertOptions, convert, hear_voice
from vcae.tasks.provenance import provenance

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Converted:
    """A conversion as a file.

    Attributes:
        path: Of the sound.
        source: What was said.
        made: What was made of it.
        sound: The result as a sound.
    """

    path: Path
    source: Sound
    made: Conversion
    sound: Sound


def gather_voice(studio: Studio, model: Model, clips: Sequence[str | Path], saved: Sequence[str | Path]) -> Voice:
    """Return the voice of clips and of saved voices; where there are both, or several saved ones, all are mixed evenly.

    Raises:
        AudioError: If there is neither, or a clip cannot be used.
        CheckpointError: If a saved voice cannot be used.
    """
    if not clips and not saved:
        raise AudioError("the voice is missing; upload or record a clip of it, or choose a saved voice")
    voices = [load_voice(Path(path), model) for path in saved]
    if clips:
        limit = studio.limits.seconds
        sounds = read_uploads(clips, "the voice", MAX_REFERENCES, limit, limit)
        voices.append(hear_voice(model, sounds))
    return mix_voices(voices, [1.0] * len(voices))


def convert_files(
    studio: Studio,
    source: str | Path | None,
    clips: Sequence[str | Path],
    saved: Sequence[str | Path],
    options: ConvertOptions,
    check: Callable[[], None],
    report: Report = lambda share, what: None,
) -> Converted:
    """Convert a source file to the voice of clips or saved voices, into a new file.

    Args:
        studio: Whose models and folder are used.
        source: Sound file.
        clips: Sound files of the voice.
        saved: Files of saved voices.
        options: How.
        check: Called often; what it raises ends the work.
        report: Told the share done, 0 to 1, and what is being done.

    Raises:
        AudioError: For unusable sound.
        CheckpointError: For unusable saved voices.
    """
    report(0.02, "reading")
    sound = read_upload(source, "the recording to convert", studio.limits.seconds)
    model = studio.model()
    check()
    report(0.1, "listening to the voice")
    voice = gather_voice(studio, model, clips, saved)
    check()
    report(0.3, "listening to the words")

    def progress(share: float) -> None:
        check()
        report(0.4 + 0.5 * share, "speaking")

    made = convert(model, sound, voice, options, progress)
    result = Sound(made.wav.numpy(), model.sample_rate, "converted")
    path = studio.new_file(f"{_stem(source)}.converted.wav")
    write_sound(path, result, provenance(model.checkpoint, "converted"))
    return Converted(path, sound, made, result)


def _stem(source: str | Path | None) -> str:
    return Path(source or "recording").stem[:60] or "recording"


def hertz(value: float) -> str:
    """Return a median F0 for people."""
    return "no voiced sound" if math.isnan(value) else f"{value:.0f} Hz"
