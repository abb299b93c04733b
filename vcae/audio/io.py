"""Sound files in and out: anything soundfile reads, as mono at the house rate; atomic, tagged files out."""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vcae.errors import AudioError

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 8000, 192000
# Of a file whose length is limited: more would take memory that the limit is to save.
MAX_CHANNELS = 8
# Output formats by suffix: (soundfile format, subtype). All carry a comment tag.
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
STDIO = "-"


@dataclass(frozen=True)
class Sound:
    """A mono signal.

    Attributes:
        wav: (N,) float32, -1..1 as a rule.
        sample_rate: Hz.
        name: Where it comes from, for messages.
    """

    wav: np.ndarray
    sample_rate: int
    name: str = "audio"

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.wav) / self.sample_rate


def check_sound(wav: np.ndarray, sample_rate: int, name: str) -> Sound:
    """Check an array of samples and mix it down.

    Args:
        wav: (N,) or (N, channels), floating point.
        sample_rate: Hz.
        name: For messages.

    Returns:
        The mono sound.

    Raises:
        AudioError: For an unsupported rate, no samples, or samples that are not finite.
    """
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{name} has a sample rate of {sample_rate} Hz; allowed are {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz, so resample it"
        )
    if wav.shape[0] == 0:
        raise AudioError(f"{name} holds 0 samples; give a file with at least 0.5 s of sound")
    bad = int(wav.size - np.isfinite(wav).sum())
    if bad:
        raise AudioError(f"{name} holds {bad} samples that are NaN or infinite; repair or re-export the file")
    mono = wav.mean(axis=1) if wav.ndim == 2 else wav
    return Sound(np.ascontiguousarray(mono, dtype=np.float32), int(sample_rate), name)


def read_sound(path: str | Path, stdin: BinaryIO | None = None, name: str | None = None, max_s: float | None = None) -> Sound:
    """Read a sound file.

    Args:
        path: A file that soundfile reads (wav, flac, mp3, ogg, opus, aiff ...), or `-` for `stdin`.
        stdin: Where `-` reads a whole file from.
        name: For messages; the path when None.
        max_s: Longest allowed; judged by the header, before anything is decoded, and by what is decoded.

    Returns:
        The sound, mixed to mono, at its own rate.

    Raises:
        AudioError: If the file is missing, is a folder, is empty, is no audio, is damaged, too long or has bad samples.
    """
    import soundfile

    source: BinaryIO | str
    if str(path) == STDIO:
        data = b"" if stdin is None else stdin.read()
        if not data:
            raise AudioError("standard input is empty; pipe a wav file into it")
        source, name = io.BytesIO(data), name or "standard input"
    else:
        file, name = Path(path), name or str(path)
        if not file.exists():
            raise AudioError(f"{name} does not exist; check the path")
        if file.is_dir():
            raise AudioError(f"{name} is a folder; give one sound file")
        if not os.access(file, os.R_OK):
            raise AudioError(f"{name} cannot be read; check its permissions")
        if file.stat().st_size == 0:
            raise AudioError(f"{name} is an empty file (0 bytes); give a file with at least 0.5 s of sound")
        source = str(file)
    try:
        with soundfile.SoundFile(source) as opened:
            # An MP3's length may be an estimate; the other formats state it.
            expected = 0 if opened.format == "MP3" else opened.frames
            _check_length(opened.frames, opened.samplerate, opened.channels, name, max_s)
            most = -1 if max_s is None else int(max_s * opened.samplerate) + 1
            wav = opened.read(most, dtype="float32", always_2d=True)
            sample_rate = opened.samplerate
    # A TypeError is what soundfile has for files named .raw, which say nothing of themselves.
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
        raise AudioError(
            f"{name} is not a sound file that can be read ({reason}); give wav, flac, mp3, ogg, opus or aiff"
        ) from error
    _check_length(len(wav), sample_rate, 1, name, max_s)
    if 0 < expected < 1 << 60 and len(wav) < expected:
        raise AudioError(f"{name} is truncated: {len(wav)} of {expected} samples could be read; get a whole copy of it")
    return check_sound(wav, sample_rate, name)


def _check_length(n_frames: int, sample_rate: int, channels: int, name: str, max_s: float | None) -> None:
    if max_s is None:
        return
    if channels > MAX_CHANNELS:
        raise AudioError(f"{name} has {channels} channels; at most {MAX_CHANNELS} are allowed, so mix it down")
    # A header of unknown length says so by a number that no file can have.
    if n_frames < 1 << 60 and n_frames > max_s * sample_rate:
        raise AudioError(f"{name} is {n_frames / sample_rate:.0f} s long; at most {max_s:g} s are allowed, so cut it")


def resample(wav: np.ndarray, sample_rate: int, new_sample_rate: int) -> np.ndarray:
    """Resample a signal (N,) with soxr at high quality; float32 out."""
    if sample_rate == new_sample_rate:
        return wav.astype(np.float32, copy=False)
    import soxr

    return np.asarray(soxr.resample(wav, sample_rate, new_sample_rate, quality="HQ"), dtype=np.float32)


def check_output(path: str | Path, force: bool = False) -> None:
    """Refuse an output path that could not be written, before any work is done.

    Raises:
        AudioError: If the suffix is unknown, the file exists and `force` is off, it is a folder, or the place is not writable.
    """
    if str(path) == STDIO:
        return
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise AudioError(f"{file} has the suffix {file.suffix!r}; allowed are {', '.join(FORMATS)}")
    if file.is_dir():
        raise AudioError(f"{file} is a folder; give a file name for the output")
    if file.exists() and not force:
        raise AudioError(f"{file} exists; add --force to replace it or choose another name with -o")
    parent = file.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise AudioError(f"{file} cannot be written: {parent} is not a writable folder; choose another place with -o")


def write_sound(path: str | Path, sound: Sound, comment: str, force: bool = False, stdout: BinaryIO | None = None) -> None:
    """Write a sound under a temporary name, then rename it: no half-written file is ever seen.

    Args:
        path: Output; the suffix names the format. `-` writes a wav to `stdout`.
        sound: What to write, -1..1.
        comment: Provenance, stored in the file's comment tag.
        force: Replace an existing file.
        stdout: Where `-` writes to.

    Raises:
        AudioError: If `check_output` refuses the path, the sound is silent, or writing fails.
    """
    check_output(path, force)
    peak = float(np.abs(sound.wav).max(initial=0.0))
    if not np.isfinite(peak) or peak < 1e-5:
        raise AudioError(f"the result for {path} is silent (peak {peak:.1e}) and was not written; please report the input")
    if str(path) == STDIO:
        if stdout is None:
            raise AudioError("there is no standard output to write to; name a file with -o")
        buffer = io.BytesIO()
        _encode(buffer, sound, "WAV", "PCM_16", comment)
        stdout.write(buffer.getvalue())
        stdout.flush()
        return
    file = Path(path)
    container, subtype = FORMATS[file.suffix.lower()]
    temporary = ""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".part")
        with os.fdopen(handle, "w+b") as out:
            _encode(out, sound, container, subtype, comment)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, file)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{file} could not be written ({reason}); choose another place with -o") from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _encode(out: BinaryIO, sound: Sound, container: str, subtype: str, comment: str) -> None:
    import soundfile

    with soundfile.SoundFile(out, "w", samplerate=sound.sample_rate, channels=1, format=container, subtype=subtype) as opened:
        opened.comment = comment
        # In pieces: libsndfile's Vorbis encoder overflows its stack on one long write.
        for start in range(0, len(sound.wav), 65536):
            opened.write(np.clip(sound.wav[start : start + 65536], -1.0, 1.0))


def read_comment(path: str | Path) -> str:
    """Return the comment tag of a sound file, empty when it has none."""
    import soundfile

    with soundfile.SoundFile(str(path)) as opened:
        return str(opened.comment or "")
