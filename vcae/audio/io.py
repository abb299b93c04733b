"""Sound files in and out: anything soundfile reads, as mono at the house rate; atomic, tagged files out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from vcae.errors import AudioError
from vcae.files import STDIO, check_target, replacing, writing

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
# Samples of all channels that are read at a time.
BLOCK_SAMPLES = 1 << 19


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

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the samples, as a `SoundReader` does."""
        yield self.wav

    def channel_blocks(self) -> Iterator[np.ndarray]:
        """Yield the samples as (N, 1), as a `SoundReader` does."""
        yield self.wav[:, None]


class SoundReader:
    """A sound file that is read in blocks. Use it in a `with` statement.

    Attributes:
        name: For messages.
        sample_rate: Hz.

    Args:
        path: A file, or `-` for `stdin`.
        stdin: Where `-` reads a whole file from; what does not fit into memory at ease is put on disk.
        name: For messages; the path when None.
        max_s: Longest allowed; judged by the header, before anything is decoded, and by what is decoded.

    Raises:
        AudioError: If the file is missing, is a folder, is empty, is no audio, is too long, or its sample rate is not supported.
    """

    def __init__(
        self, path: str | Path, stdin: BinaryIO | None = None, name: str | None = None, max_s: float | None = None
    ) -> None:
        self._max_s = max_s
        if str(path) == STDIO:
            self.name, self._file = name or "standard input", _take_in(stdin)
            source: BinaryIO | int = self._file
        else:
            # As an open file, so that its suffix says nothing: a .raw may well be a wav.
            self.name = name or str(path)
            self._file = _open(_check_file(Path(path), self.name), self.name)
            source = self._file.fileno()
        try:
            self._opened = _forward(source)
        except (OSError, RuntimeError, ValueError) as error:
            self._file.close()
            raise _unreadable(self.name, error) from error
        self.sample_rate = int(self._opened.samplerate)
        try:
            check_rate(self.sample_rate, self.name)
            _check_length(self._opened.frames, self.sample_rate, self._opened.channels, self.name, max_s)
        except AudioError:
            self.close()
            raise

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the sound as mono blocks (n,), float32. Can be called once, and not after `channel_blocks`.

        Raises:
            AudioError: If the file is empty, damaged, too long, or has bad samples; the latter are counted to the end.
        """
        for block in self.channel_blocks():
            mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
            yield np.ascontiguousarray(mono, dtype=np.float32)

    def channel_blocks(self) -> Iterator[np.ndarray]:
        """Yield the sound as blocks (n, channels), float32. Can be called once, and not after `blocks`.

        Raises:
            AudioError: As `blocks`.
        """
        # An MP3's length may be an estimate; the other formats state it.
        expected = 0 if self._opened.format == "MP3" else self._opened.frames
        n = bad = 0
        while True:
            try:
                block = self._opened.read(max(BLOCK_SAMPLES // self._opened.channels, 1), dtype="float32", always_2d=True)
            except (OSError, RuntimeError) as error:
                raise _unreadable(self.name, error) from error
            if not len(block):
                break
            n += len(block)
            _check_length(n, self.sample_rate, self._opened.channels, self.name, self._max_s)
            bad += block.size - int(np.isfinite(block).sum())
            if not bad:
                yield block
        if 0 < expected < 1 << 60 and n < expected:
            raise AudioError(f"{self.name} is truncated: {n} of {expected} samples could be read; get a whole copy of it")
        _check_samples(n, bad, self.name)

    def read(self, first_s: float | None = None) -> Sound:
        """Return the sound, or no more than so many seconds of it. Can be called once.

        Raises:
            AudioError: As `blocks`.
        """
        blocks, n = [], 0
        most = None if first_s is None else round(first_s * self.sample_rate)
        for block in self.blocks():
            blocks.append(block)
            n += len(block)
            if most is not None and n >= most:
                break
        return Sound(np.concatenate(blocks)[:most], self.sample_rate, self.name)

    def close(self) -> None:
        """Close the file."""
        self._opened.close()
        self._file.close()

    def __enter__(self) -> SoundReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _take_in(stdin: BinaryIO | None) -> BinaryIO:
    spool = tempfile.SpooledTemporaryFile(max_size=1 << 26, prefix="vcae-")  # noqa: SIM115, closed by its reader
    try:
        if stdin is not None:
            shutil.copyfileobj(stdin, spool, 1 << 20)
    except OSError as error:
        raise AudioError(
            f"standard input could not be taken in ({error.strerror}); make room in {tempfile.gettempdir()}, or name another folder in TMPDIR"
        ) from error
    if not spool.tell():
        raise AudioError("standard input is empty; pipe a wav file into it")
    spool.seek(0)
    return cast(BinaryIO, spool)


def _check_file(file: Path, name: str) -> Path:
    try:
        if not file.exists():
            raise AudioError(f"{name} does not exist; check the path")
        if file.is_dir():
            raise AudioError(f"{name} is a folder; give one sound file")
        if not file.is_file():
            raise AudioError(f"{name} is no regular file but a device or a pipe; pipe it into standard input and give '-'")
        if not os.access(file, os.R_OK):
            raise AudioError(f"{name} cannot be read; check its permissions")
        if file.stat().st_size == 0:
            raise AudioError(f"{name} is an empty file (0 bytes); give a file with at least 0.5 s of sound")
    except (OSError, ValueError) as error:
        # Too long a name, a circle of links, a zero byte.
        raise AudioError(f"{name!r:.200} is no path that can be opened ({error}); check it") from error
    return file


def _open(file: Path, name: str) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise AudioError(f"{name} cannot be read ({error.strerror}); check its permissions") from error


def _forward(source: BinaryIO | int) -> Any:
    import soundfile

    class Forward(soundfile.SoundFile):  # type: ignore[misc]
        """Read from the start to the end only: seeking between blocks makes an MP3's decoder complain on standard error."""

        def seekable(self) -> bool:
            return False

    return Forward(source, closefd=False)


def _unreadable(name: str, error: Exception) -> AudioError:
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    return AudioError(f"{name} is not a sound file that can be read ({reason}); give wav, flac, mp3, ogg, opus or aiff")


def check_rate(sample_rate: int, name: str) -> None:
    """Raise AudioError for a sample rate that is not supported."""
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{name} has a sample rate of {sample_rate} Hz; allowed are {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz, so resample it"
        )


def _check_samples(n: int, bad: int, name: str) -> None:
    if n == 0:
        raise AudioError(f"{name} holds 0 samples; give a file with at least 0.5 s of sound")
    if bad:
        raise AudioError(f"{name} holds {bad} samples that are NaN or infinite; repair or re-export the file")


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
    check_rate(sample_rate, name)
    _check_samples(wav.shape[0], int(wav.size - np.isfinite(wav).sum()), name)
    mono = wav.mean(axis=1) if wav.ndim == 2 else wav
    return Sound(np.ascontiguousarray(mono, dtype=np.float32), int(sample_rate), name)


def read_sound(
    path: str | Path,
    stdin: BinaryIO | None = None,
    name: str | None = None,
    max_s: float | None = None,
    first_s: float | None = None,
) -> Sound:
    """Read a sound file.

    Args:
        path: A file that soundfile reads (wav, flac, mp3, ogg, opus, aiff ...), or `-` for `stdin`.
        stdin: Where `-` reads a whole file from.
        name: For messages; the path when None.
        max_s: Longest allowed; judged by the header, before anything is decoded, and by what is decoded.
        first_s: Read no more than so many seconds of it.

    Returns:
        The sound, mixed to mono, at its own rate.

    Raises:
        AudioError: If the file is missing, is a folder, is empty, is no audio, is damaged, too long or has bad samples.
    """
    with SoundReader(path, stdin, name, max_s) as reader:
        return reader.read(first_s)


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
    return np.concatenate(list(resample_blocks([wav], sample_rate, new_sample_rate)))


def resample_blocks(blocks: Iterable[np.ndarray], sample_rate: int, new_sample_rate: int) -> Iterator[np.ndarray]:
    """Yield what `resample` makes of a signal that comes in blocks, bit for bit."""
    if sample_rate == new_sample_rate:
        yield from (block.astype(np.float32, copy=False) for block in blocks)
        return
    import soxr

    stream = soxr.ResampleStream(sample_rate, new_sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block.astype(np.float32, copy=False))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def check_output(path: str | Path, force: bool = False) -> None:
    """Refuse the path of a sound file that could not be written, before any work is done.

    Args:
        path: Of the output; `-` for standard output.
        force: Replace an existing file.

    Raises:
        AudioError: If the suffix is unknown, the file exists and `force` is off, it is a folder, or the place is not writable.
    """
    check_target(path, force, tuple(FORMATS), AudioError)


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
    write_blocks(path, [sound.wav], sound.sample_rate, comment, force, stdout)


def write_blocks(
    path: str | Path,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    comment: str,
    force: bool = False,
    stdout: BinaryIO | None = None,
    channels: int = 1,
) -> None:
    """Write a sound that comes in blocks (n,), or (n, channels), in memory bounded by a block. The rest is as in `write_sound`."""
    check_output(path, force)
    if str(path) == STDIO:
        if stdout is None:
            raise AudioError("there is no standard output to write to; name a file with -o")
        # A wav's header says how long it is, so it is made before it is sent.
        with writing("standard output", AudioError), tempfile.TemporaryFile(prefix="vcae-", buffering=0) as made:
            _encode(made, blocks, sample_rate, ("WAV", "PCM_16"), comment, path, channels)
            made.seek(0)
            shutil.copyfileobj(made, stdout, 1 << 20)
            stdout.flush()
        return
    with replacing(path, AudioError) as temporary, temporary.open("w+b", buffering=0) as out:
        _encode(cast(BinaryIO, out), blocks, sample_rate, FORMATS[Path(path).suffix.lower()], comment, path, channels)


class _CarefulFile:
    """An unbuffered file for libsndfile that keeps the first error of writing, which a callback from C could only print."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.readinto = file.seek, file.tell, file.readinto  # type: ignore[attr-defined]
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write, and say that all went well even if it did not."""
        left = memoryview(data)
        while left and self.error is None:
            try:
                left = left[self._file.write(left) :]
            except OSError as error:
                self.error = error
        return len(data)


def _encode(
    out: BinaryIO,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    kind: tuple[str, str],
    comment: str,
    path: str | Path,
    channels: int,
) -> None:
    import soundfile

    careful, peak = _CarefulFile(out), 0.0
    with soundfile.SoundFile(
        careful, "w", samplerate=sample_rate, channels=channels, format=kind[0], subtype=kind[1]
    ) as opened:
        opened.comment = comment
        for block in blocks:
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
            # In pieces: libsndfile's Vorbis encoder overflows its stack on one long write.
            for start in range(0, len(block), 65536):
                opened.write(np.clip(block[start : start + 65536], -1.0, 1.0))
                if careful.error is not None:
                    raise careful.error
    if careful.error is not None:
        raise careful.error
    if not np.isfinite(peak) or peak < 1e-5:
        raise AudioError(f"the result for {path} is silent (peak {peak:.1e}) and was not written; please report the input")


def read_comment(path: str | Path) -> str:
    """Return the comment tag of a sound file, empty when it has none."""
    import soundfile

    with soundfile.SoundFile(str(path)) as opened:
        return str(opened.comment or "")
