"""Files in which only a part of a recording's samples is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from vcae.audio.io import SNDFILE_FORMATS, Sound, check_output, write_sound
from vcae.errors import AudioError
from vcae.files import STDIO, replacing

# Bits of a sample in the integer formats.
BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
LOSSLESS = (".wav", ".flac", ".aiff", ".aif")


def write_spliced(
    path: str | Path,
    source: str | Path,
    sound: Sound,
    part: tuple[int, int],
    comment: str,
    force: bool = False,
    stdout: BinaryIO | None = None,
) -> bool:
    """Write a sound of which only a part differs from a file; return whether the rest has the very samples of that file.

    It has, if both files are without loss; the result then has the file's number of bits too.

    Args:
        path: As in `write_sound`.
        source: The file.
        sound: The whole sound.
        part: First sample that differs, and the one after the last, of the sound; after it, the file's last samples follow.
        comment: As in `write_sound`.
        force: Likewise.
        stdout: Likewise.

    Raises:
        AudioError: As `write_sound`.
    """
    suffix = Path(path).suffix.lower()
    given = _read_integers(source) if suffix in SNDFILE_FORMATS and suffix in LOSSLESS else None
    if given is None or str(path) == STDIO:
        write_sound(path, sound, comment, force, stdout)
        return False
    import soundfile

    samples, subtype = given
    start, stop = part
    bits = BITS[subtype]
    new = np.round(np.clip(sound.wav[start:stop].reshape(stop - start, -1), -1, 1) * 2.0 ** (bits - 1))
    new = new.clip(-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1).astype(np.int64) << (32 - bits)
    after = len(sound.wav) - stop
    whole = np.concatenate([samples[:start], new.astype(np.int32), samples[len(samples) - after :]])
    form = SNDFILE_FORMATS[suffix][0]
    check_output(path, force)
    with (
        replacing(path, AudioError) as temporary,
        soundfile.SoundFile(
            temporary,
            "w",
            samplerate=sound.sample_rate,
            channels=whole.shape[1],
            format=form,
            subtype=subtype if soundfile.check_format(form, subtype) else "PCM_24",
        ) as out,
    ):
        out.comment = comment
        out.write(whole)
    return bits <= 24 or soundfile.check_format(form, subtype)


def _read_integers(path: str | Path) -> tuple[np.ndarray, str] | None:
    """Return the samples (N, channels) of a file of integers, in the high bits, and its subtype; None for other files."""
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as opened:
            if opened.subtype not in BITS or opened.format not in ("WAV", "WAVEX", "FLAC", "AIFF"):
                return None
            return opened.read(dtype="int32", always_2d=True), opened.subtype
    except (soundfile.SoundFileError, OSError):
        return None
