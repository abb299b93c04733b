"""Sound files: reading of all formats of libsndfile and ffmpeg's libraries as mono, and atomic writing with a provenance tag."""

from __future__ import annotations

import io
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from vcae.audio.channels import ChannelMeter, mix_down
from vcae.audio.containers import Layout, Part, PartFile, examine
from vcae.audio.media import SOUND_FORMATS, VIDEO_FORMATS, MediaFile, open_container, write_media
from vcae.audio.samples import SampleArray
from vcae.errors import AudioError
from vcae.files import ADDRESS, STDIO, check_target, replacing, writing

log = logging.getLogger(__name__)

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 8000, 192000
# Most channels of a file with a limited length, as more would need too much memory.
MAX_CHANNELS = 8
# Output formats of libsndfile by suffix: (format, subtype). All carry a comment tag.
SNDFILE_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
# Sample rates in Hz of the formats that do not have all.
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
FORMAT_RATES = {
    ".opus": (8000, 12000, 16000, 24000, 48000),
    ".mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    **dict.fromkeys((".m4a", ".mp4", ".mov", ".mkv"), AAC_RATES),
}
# Suffixes of outputs; a video output takes the pictures of its source.
FORMATS = (*SNDFILE_FORMATS, *SOUND_FORMATS, *VIDEO_FORMATS)
# With more channels than this, which is a damaged header as a rule, they are averaged without a look at each.
MAX_MEASURED = 64
# Samples of all channels per read.
BLOCK_SAMPLES = 1 << 19


@dataclass(frozen=True, eq=False, repr=False)
class Sound(SampleArray):
    """Signal with its sample rate, mono as a rule. NumPy and PyTorch accept it like its array of samples.

    Attributes:
        wav: (N,) float32, usually -1..1; (N, channels) from what keeps channels, as `vcae.denoise` does.
        sample_rate: Hz.
        name: Origin, for messages.
        comment: Provenance, which `save` writes into the file.
        warnings: Problems of the file that did not prevent reading it, one sentence each.
    """

    wav: np.ndarray
    sample_rate: int
    name: str = "audio"
    comment: str = ""
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Sound({self.duration_s:.2f} s at {self.sample_rate} Hz, {self.name!r})"

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the sound to a file and return its path.

        Args:
            path: File to write; its suffix sets the format: wav, flac, ogg, opus, aiff, mp3, or one of PyAV's.
            force: Replace an existing file.

        Raises:
            AudioError: If the suffix is unknown, the file exists and `force` is off, the sound is silent, or writing fails.
        """
        write_sound(path, self, self.comment, force)
        return Path(path)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.wav) / self.sample_rate

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.wav.ndim == 1 else self.wav.shape[1]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the samples (N,), as a `SoundReader` does: the mean of the active channels, with inverted ones turned."""
        if self.wav.ndim == 1:
            yield self.wav
            return
        meter = ChannelMeter(self.channels)
        meter.add(self.wav)
        yield mix_down(self.wav, meter.weights())

    def channel_blocks(self) -> Iterator[np.ndarray]:
        """Yield the samples (N, channels), as a `SoundReader` does."""
        yield self.wav.reshape(len(self.wav), -1)


class SoundReader:
    """Reader of a sound file, or of a video's sound track, in blocks. Use it in a `with` statement.

    Attributes:
        name: Name for messages.
        sample_rate: Hz.
        channels: Channels of the file; they are mixed to mono.
        has_video: Whether the file is a video.
        warnings: Problems of the file that do not prevent reading it, one sentence each; complete after reading.

    Args:
        path: A file, or `-` for `stdin`.
        stdin: Standard input, from which a whole file is read; a large one is stored on disk.
        name: Name for messages; the path when None.
        max_s: Longest duration allowed; checked by the header, before anything is decoded, and during decoding.

    Raises:
        AudioError: If the file is missing, a folder, empty, not audio, too long, or its sample rate is not supported.
    """

    def __init__(
        self, path: str | Path, stdin: BinaryIO | None = None, name: str | None = None, max_s: float | None = None
    ) -> None:
        self._max_s, self._warnings = max_s, list[str]()
        self._media: MediaFile | None = None
        if str(path) == STDIO:
            self.name, self.file = name or "standard input", _take_in(stdin)
        else:
            # As an open file, so that its suffix does not matter: a .raw may be a wav.
            self.name = name or str(path)
            self.file = _open(_check_file(Path(path), self.name), self.name)
        try:
            self._layout = examine(self.file) or Layout((Part(0, self.file.seek(0, 2)),))
            opened = self._open()
            with closing(opened):
                self.sample_rate, self.channels = int(opened.samplerate), int(opened.channels)
                check_rate(self.sample_rate, self.name)
                _check_length(opened.frames, self.sample_rate, self.channels, self.name, max_s)
                self.has_video = isinstance(opened, MediaFile) and opened.has_video
                # An MP3's length may be an estimate, and so may a media file's; the other formats state it.
                exact = not isinstance(opened, MediaFile) and opened.format != "MP3" and len(self._layout.parts) == 1
                self._expected = opened.frames if exact and not self._layout.cut else 0
                self._is_float = not isinstance(opened, MediaFile) and opened.subtype in ("FLOAT", "DOUBLE")
        except BaseException:
            self.file.close()
            raise

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems of the file that do not prevent reading it."""
        return tuple(dict.fromkeys(f"{self.name} {line}" for line in self._warnings))

    def _open(self, part: Part | None = None) -> Any:
        """Open the file, or a part of it, with a library that can read it."""
        part = part or self._layout.parts[0]
        whole = part.patches == {} and part == Part(0, self.file.seek(0, 2))
        self.file.seek(0)
        try:
            return _forward((_descriptor(self.file) if whole else None) or PartFile(self.file, part))
        except (OSError, RuntimeError, ValueError) as error:
            try:
                return MediaFile(self.file, self.name)
            except OSError:
                raise _unreadable(self.name, error) from error

    def _decode(self) -> Iterator[np.ndarray]:
        """Yield the samples (n, channels) of all parts, float32, from the start. Can be called again."""
        n = 0
        for part in self._layout.parts:
            with closing(self._open(part)) as opened:
                for block in self._blocks_of(opened, part):
                    n += len(block)
                    _check_length(n, self.sample_rate, self.channels, self.name, self._max_s)
                    yield block
        if self._layout.cut:
            stated, seconds = self._layout.stated_s, n / self.sample_rate
            of = f" of {stated:.2f}" if stated and stated > seconds else ""
            self._warn(f"is cut off: {seconds:.2f}{of} s could be read; get a whole copy of it")
        if 0 < n < self._expected < 1 << 60:
            of = f"{n / self.sample_rate:.2f} of {self._expected / self.sample_rate:.2f} s"
            self._warn(f"is cut off or damaged: {of} could be read; get a whole copy of it")

    def _blocks_of(self, opened: Any, part: Part) -> Iterator[np.ndarray]:
        rate, channels = int(opened.samplerate), int(opened.channels)
        if isinstance(opened, MediaFile):
            try:
                yield from opened.blocks()
            except OSError as error:
                raise _unreadable(self.name, error) from error
            self._warnings += [line for line in opened.warnings if line not in self._warnings]
            return
        blocks = self._sndfile_blocks(opened, channels, part)
        if (rate, channels) == (self.sample_rate, self.channels):
            yield from blocks
            return
        # A part with another format than the first: the mean of its channels is used in every channel.
        for mono in resample_blocks((block.mean(axis=1) for block in blocks), rate, self.sample_rate):
            yield np.repeat(mono[:, None], self.channels, axis=1)

    def _sndfile_blocks(self, opened: Any, channels: int, part: Part) -> Iterator[np.ndarray]:
        n = 0
        while True:
            try:
                block = opened.read(max(BLOCK_SAMPLES // channels, 1), dtype="float32", always_2d=True)
            except (OSError, RuntimeError) as error:
                yield from self._after_error(part, n, error)
                return
            if not len(block):
                return
            n += len(block)
            yield block

    def _after_error(self, part: Part, n: int, error: Exception) -> Iterator[np.ndarray]:
        """Yield the samples after the first n of a part where libsndfile failed, such as in a FLAC that is cut off; ffmpeg goes on."""
        found = 0
        try:
            with closing(MediaFile(cast(BinaryIO, PartFile(self.file, part)), self.name)) as media:
                for block in media.blocks():
                    found += len(block)
                    rest = block[max(len(block) - max(found - n, 0), 0) :]
                    if len(rest):
                        yield rest
        except (OSError, AudioError):
            if found <= n:
                raise _unreadable(self.name, error) from error
        if not found:
            raise _unreadable(self.name, error) from error
        if not self._expected:
            self._warn(f"is cut off or damaged: {max(found, n) / self.sample_rate:.2f} s could be read; get a whole copy of it")

    def _warn(self, line: str) -> None:
        if line not in self._warnings:
            self._warnings.append(line)

    def _measure(self, most: int | None) -> ChannelMeter:
        """Measure the first `most` samples."""
        meter = ChannelMeter(self.channels)
        for block in self._decode():
            meter.add(block)
            if most is not None and meter.n >= most:
                break
        if meter.full_scale != 1:
            self._warn(_other_scale(meter))
        return meter

    def _weights(self, most: int | None) -> np.ndarray:
        """Return the weights of the channels, by the first `most` samples."""
        if self.channels > MAX_MEASURED:
            return np.full(self.channels, 1 / self.channels)
        if self.channels == 1 and not self._is_float:
            return np.ones(1)
        meter = self._measure(most)
        return meter.weights() / meter.full_scale

    def blocks(self, first_s: float | None = None) -> Iterator[np.ndarray]:
        """Yield the sound as mono blocks (n,), float32: the mean of the active channels, with inverted ones turned.

        Args:
            first_s: Seconds from the beginning that are used to find the active channels; all when None.

        Raises:
            AudioError: If the file is empty, damaged, too long, or has invalid samples, which are counted up to the end.
        """
        weights = self._weights(None if first_s is None else round(first_s * self.sample_rate))
        for block in self._checked():
            yield mix_down(block, weights)

    def channel_blocks(self) -> Iterator[np.ndarray]:
        """Yield the sound as blocks (n, channels), float32, with all channels as they are.

        Raises:
            AudioError: As `blocks`.
        """
        full_scale = self._measure(None).full_scale if self._is_float and self.channels <= MAX_MEASURED else 1.0
        for block in self._checked():
            yield block if full_scale == 1 else (block / full_scale).astype(np.float32)

    def _checked(self) -> Iterator[np.ndarray]:
        """Yield the samples (n, channels) up to the first invalid one, and raise AudioError at the end if there was any."""
        for note in self._layout.notes:
            self._warn(note)
        n = bad = 0
        for block in self._decode():
            n += len(block)
            bad += block.size - int(np.isfinite(block).sum())
            if not bad:
                yield block
        _check_samples(n, bad, self.name)

    def read(self, first_s: float | None = None) -> Sound:
        """Return the sound, or its first `first_s` seconds. Can be called once.

        Raises:
            AudioError: As `blocks`.
        """
        blocks, n = [], 0
        most = None if first_s is None else round(first_s * self.sample_rate)
        for block in self.blocks(first_s):
            blocks.append(block)
            n += len(block)
            if most is not None and n >= most:
                break
        return Sound(np.concatenate(blocks)[:most], self.sample_rate, self.name, warnings=self.warnings)

    def read_channels(self) -> Sound:
        """Return the sound with its channels: (N, channels), or (N,) if there is one.

        Raises:
            AudioError: As `blocks`.
        """
        wav = np.concatenate(list(self.channel_blocks()))
        return Sound(wav[:, 0] if self.channels == 1 else wav, self.sample_rate, self.name, warnings=self.warnings)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> SoundReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _other_scale(meter: ChannelMeter) -> str:
    scale = f"{meter.full_scale:.0f}"
    return f"has floats up to {meter.peak:.0f} where 1 is full scale; they were treated as integers of up to {scale} and divided by it"


def _descriptor(file: BinaryIO) -> int | None:
    """Return the descriptor of an open file on disk; None for one in memory."""
    return file.fileno() if isinstance(file, io.BufferedReader) else None


def _take_in(stdin: BinaryIO | None) -> BinaryIO:
    spool = tempfile.SpooledTemporaryFile(max_size=1 << 26, prefix="vcae-")  # noqa: SIM115, closed by its reader
    try:
        if stdin is not None:
            shutil.copyfileobj(stdin, spool, 1 << 20)
    except OSError as error:
        raise AudioError(
            f"standard input could not be stored ({error.strerror}); free space in {tempfile.gettempdir()}, or set TMPDIR to another folder"
        ) from error
    if not spool.tell():
        raise AudioError("standard input is empty; pipe a wav file into it")
    spool.seek(0)
    return cast(BinaryIO, spool)


def _check_file(file: Path, name: str) -> Path:
    try:
        if not file.exists():
            if ADDRESS.match(name):
                raise AudioError(f"{name} is an address, and only files are read; download it and give the path of the file")
            raise AudioError(f"{name} does not exist; check the path")
        if file.is_dir():
            raise AudioError(f"{name} is a folder; give one sound file")
        if not file.is_file():
            raise AudioError(f"{name} is not a regular file but a device or a pipe; pipe it into standard input and give '-'")
        if not os.access(file, os.R_OK):
            raise AudioError(f"{name} cannot be read; check its permissions")
        if file.stat().st_size == 0:
            raise AudioError(f"{name} is an empty file (0 bytes); give a file with at least 0.5 s of sound")
    except (OSError, ValueError) as error:
        # For example a name that is too long, a circle of links, or a zero byte.
        raise AudioError(f"{name!r:.200} is not a path that can be opened ({error}); check it") from error
    return file


def _open(file: Path, name: str) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise AudioError(f"{name} cannot be read ({error.strerror}); check its permissions") from error


def _forward(source: PartFile | int) -> Any:
    import soundfile

    class Forward(soundfile.SoundFile):  # type: ignore[misc]
        """Sound file that is read from start to end only, as seeking in an MP3 prints warnings on standard error."""

        def seekable(self) -> bool:
            return False

    return Forward(source, closefd=False)


def _unreadable(name: str, error: Exception) -> AudioError:
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    return AudioError(
        f"{name} is not a sound file that can be read ({reason}); give wav, flac, mp3, ogg, opus, aiff, m4a, wma, amr or a video"
    )


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


def check_sound(wav: np.ndarray, sample_rate: int, name: str, mixed: bool = True) -> Sound:
    """Check an array of samples and mix it down.

    Args:
        wav: (N,) or (N, channels), floating point.
        sample_rate: Hz.
        name: Name for messages.
        mixed: Mix the channels to mono; otherwise they are kept.

    Returns:
        The mono sound, or the sound with its channels.

    Raises:
        AudioError: For an unsupported rate, no samples, or samples that are not finite.
    """
    check_rate(sample_rate, name)
    _check_samples(wav.shape[0], int(wav.size - np.isfinite(wav).sum()), name)
    columns = wav if wav.ndim == 2 else wav[:, None]
    meter = ChannelMeter(columns.shape[1])
    meter.add(columns)
    warnings = () if meter.full_scale == 1 else (f"{name} {_other_scale(meter)}",)
    for line in warnings:
        log.warning("%s", line)
    if mixed or columns.shape[1] == 1:
        weights = meter.weights() if wav.ndim == 2 else np.ones(1)
        samples = mix_down(columns, weights / meter.full_scale)
    else:
        samples = (columns / meter.full_scale).astype(np.float32)
    return Sound(samples, int(sample_rate), name, warnings=warnings)


def read_sound(
    path: str | Path,
    stdin: BinaryIO | None = None,
    name: str | None = None,
    max_s: float | None = None,
    first_s: float | None = None,
    mixed: bool = True,
) -> Sound:
    """Read a sound file.

    Args:
        path: A file in a format of libsndfile (wav, flac, mp3, ogg, opus, aiff ...) or of ffmpeg's libraries (m4a, aac, wma, amr, videos ...),
            or `-` for `stdin`.
        stdin: Standard input, from which a whole file is read.
        name: Name for messages; the path when None.
        max_s: Longest duration allowed; checked by the header, before anything is decoded, and during decoding.
        first_s: Read only the first seconds.
        mixed: Mix the channels to mono; otherwise they are kept, and `first_s` is ignored.

    Returns:
        The sound at its own rate. Problems that did not prevent reading are in its warnings, and logged.

    Raises:
        AudioError: If the file is missing, a folder, empty, not audio, damaged, too long or has invalid samples.
    """
    with SoundReader(path, stdin, name, max_s) as reader:
        sound = reader.read(first_s) if mixed else reader.read_channels()
    for line in sound.warnings:
        log.warning("%s", line)
    return sound


def _check_length(n_frames: int, sample_rate: int, channels: int, name: str, max_s: float | None) -> None:
    if max_s is None:
        return
    if channels > MAX_CHANNELS:
        raise AudioError(f"{name} has {channels} channels; at most {MAX_CHANNELS} are allowed, so mix it down")
    # A header with an unknown length has an impossibly large number.
    if n_frames < 1 << 60 and n_frames > max_s * sample_rate:
        raise AudioError(f"{name} is {n_frames / sample_rate:.0f} s long; at most {max_s:g} s are allowed, so cut it")


def resample(wav: np.ndarray, sample_rate: int, new_sample_rate: int) -> np.ndarray:
    """Resample a signal (N,) with soxr at high quality; float32 out."""
    return np.concatenate(list(resample_blocks([wav], sample_rate, new_sample_rate)))


def resample_blocks(blocks: Iterable[np.ndarray], sample_rate: int, new_sample_rate: int) -> Iterator[np.ndarray]:
    """Apply `resample` to a signal in blocks (n,) or (n, channels), with bit-identical results."""
    if sample_rate == new_sample_rate:
        yield from (block.astype(np.float32, copy=False) for block in blocks)
        return
    import soxr

    stream, nothing = None, np.zeros(0, np.float32)
    for block in blocks:
        if stream is None:
            nothing = np.zeros((0, *block.shape[1:]), np.float32)
            channels = 1 if block.ndim == 1 else block.shape[1]
            stream = soxr.ResampleStream(sample_rate, new_sample_rate, channels, dtype="float32", quality="HQ")
        yield stream.resample_chunk(np.ascontiguousarray(block, dtype=np.float32))
    yield nothing if stream is None else stream.resample_chunk(nothing, last=True)


def check_output(path: str | Path, force: bool = False) -> None:
    """Check that a sound file can be written to a path, before any work is done.

    Args:
        path: Path of the output; `-` for standard output.
        force: Replace an existing file.

    Raises:
        AudioError: If the suffix is unknown, the file exists and `force` is off, it is a folder, or its folder is not writable.
    """
    check_target(path, force, FORMATS, AudioError)


def rate_of(path: str | Path, rate: int, asked: int | None = None) -> int:
    """Return the sample rate in Hz at which a sound is written to a file.

    Args:
        path: The file; `-` for a wav on standard output.
        rate: Wanted rate; where the format lacks it, the next higher one of the format is used.
        asked: Rate that the user asked for, which is used in place of `rate`; None without one.

    Raises:
        AudioError: If the format does not have the rate asked for.
    """
    suffix = ".wav" if str(path) == STDIO else Path(path).suffix.lower()
    rates = FORMAT_RATES.get(suffix, ())
    if asked is None:
        return next((r for r in rates if r >= rate), rates[-1]) if rates else rate
    if rates and asked not in rates:
        raise AudioError(
            f"{suffix} has no sample rate of {asked} Hz; it has {', '.join(map(str, rates))}: choose one, or another suffix"
        )
    return asked


def channels_of(path: str | Path, channels: int) -> int:
    """Return how many of `channels` a file keeps: all of them, or 1 where the format takes fewer."""
    suffix = ".wav" if str(path) == STDIO else Path(path).suffix.lower()
    most = 2 if suffix == ".mp3" or suffix not in SNDFILE_FORMATS else MAX_CHANNELS
    return channels if channels <= most else 1


def check_pictures(path: str | Path, source: object) -> None:
    """Check that a video output has a video source, before any work is done.

    Args:
        path: Path of the output.
        source: A `SoundReader`, or any other source, which has no pictures.

    Raises:
        AudioError: If the output is a video and the source is not.
    """
    suffix = Path(path).suffix.lower()
    if str(path) != STDIO and suffix in VIDEO_FORMATS and not getattr(source, "has_video", False):
        name = getattr(source, "name", "the source")
        raise AudioError(
            f"{path} would be a video and {name} has no pictures; take a sound file's suffix, such as .m4a or .wav"
        )


def write_sound(
    path: str | Path, sound: Sound, comment: str | None = None, force: bool = False, stdout: BinaryIO | None = None
) -> None:
    """Write a sound atomically: under a temporary name that is renamed at the end.

    Args:
        path: Output; its suffix sets the format. `-` writes a wav to `stdout`.
        sound: The sound, -1..1.
        comment: Provenance, stored in the file's comment tag; the sound's own when None.
        force: Replace an existing file.
        stdout: Standard output, for `-`.

    Raises:
        AudioError: If `check_output` raises for the path, the sound is silent, or writing fails.
    """
    channels = 1 if sound.wav.ndim == 1 else sound.wav.shape[1]
    said = sound.comment if comment is None else comment
    write_blocks(path, [sound.wav], sound.sample_rate, said, force, stdout, channels=channels)


def write_blocks(
    path: str | Path,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    comment: str,
    force: bool = False,
    stdout: BinaryIO | None = None,
    source: object = None,
    channels: int = 1,
) -> None:
    """Write a sound that comes in blocks (n,), or (n, channels), in memory bounded by a block.

    Args:
        path: As in `write_sound`.
        blocks: The sound.
        sample_rate: Hz.
        comment: As in `write_sound`.
        force: Likewise.
        stdout: Likewise.
        source: What it was made from: a `SoundReader`, whose pictures a video takes.
        channels: Channels of the blocks; where the format takes fewer (`channels_of`), they are mixed to mono.

    Raises:
        AudioError: As `write_sound`; if a video is asked for, and the source has none.
    """
    check_output(path, force)
    check_pictures(path, source)
    kept = channels_of(path, channels)
    if kept == 1:
        blocks = (block if block.ndim == 1 else block.mean(axis=1) for block in blocks)
    if str(path) == STDIO:
        if stdout is None:
            raise AudioError("there is no standard output to write to; name a file")
        # A wav's header says how long it is, so it is made before it is sent.
        with writing("standard output", AudioError), tempfile.TemporaryFile(prefix="vcae-", buffering=0) as made:
            _encode(made, blocks, sample_rate, ("WAV", "PCM_16"), comment, path, kept)
            made.seek(0)
            shutil.copyfileobj(made, stdout, 1 << 20)
            stdout.flush()
        return
    suffix = Path(path).suffix.lower()
    with replacing(path, AudioError) as temporary:
        if suffix in SNDFILE_FORMATS:
            with temporary.open("w+b", buffering=0) as out:
                _encode(cast(BinaryIO, out), blocks, sample_rate, SNDFILE_FORMATS[suffix], comment, path, kept)
            return
        kind = SOUND_FORMATS.get(suffix) or VIDEO_FORMATS[suffix]
        video = source.file if suffix in VIDEO_FORMATS and isinstance(source, SoundReader) else None
        peaks = [0.0]
        write_media(
            temporary,
            blocks,
            sample_rate,
            kind,
            comment,
            video,
            lambda b: peaks.append(float(np.abs(b).max(initial=0.0))),
            kept,
        )
        _check_peak(max(peaks), path)


class _CarefulFile:
    """An unbuffered file for libsndfile that keeps the first exception of writing, which a callback from C could only print."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.readinto = file.seek, file.tell, file.readinto  # type: ignore[attr-defined]
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        """Write, and report success even after an error, which is kept."""
        left = memoryview(data)
        while left and self.error is None:
            try:
                left = left[self._file.write(left) :]
            except (OSError, SystemExit, KeyboardInterrupt) as error:
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
        if comment:
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
    _check_peak(peak, path)


def _check_peak(peak: float, path: str | Path) -> None:
    if not np.isfinite(peak) or peak < 1e-5:
        raise AudioError(f"the result for {path} is silent (peak {peak:.1e}) and was not written; please report the input")


def read_comment(path: str | Path) -> str:
    """Return the comment tag of a sound file, empty if it has none."""
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as opened:
            return str(opened.comment or "")
    except RuntimeError:
        with open(path, "rb") as file:
            container = open_container(file, str(path))
            with container:
                return {name.lower(): text for name, text in container.metadata.items()}.get("comment", "")
