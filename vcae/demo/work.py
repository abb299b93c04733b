"""Jobs that the tabs and the HTTP service share, without the page."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vcae import AudioError, BitstreamError, Sound, Voice, load_voice, mix_voices, write_sound
from vcae.codec.base import Damage
from vcae.codec.vcz import SUFFIX, CheckedStream
from vcae.demo.limits import MAX_REFERENCES, read_code, read_upload, read_uploads
from vcae.demo.studio import Studio
from vcae.engine.denoise import shared_cleaner
from vcae.engine.engine import Engine
from vcae.files import provenance
from vcae.options import AUTO, ConvertOptions
from vcae.tasks.convert import Conversion, LongConversion, convert, convert_long
from vcae.tasks.copy import reconstruct
from vcae.tasks.embed import embed
from vcae.tasks.embed_files import format_embeddings
from vcae.voice.voice import voice_from_sounds

Report = Callable[[float, str], None]
# Seconds of sound that are converted at a time for an answer that is streamed.
STREAM_SECTION_S = 3.0


@dataclass(frozen=True)
class Converted:
    """Conversion as a file.

    Attributes:
        path: File of the result.
        source: The source.
        made: The conversion.
        sound: The result as a sound.
    """

    path: Path
    source: Sound
    made: Conversion
    sound: Sound


@dataclass(frozen=True)
class Denoised:
    """Denoised recording as a file.

    Attributes:
        path: File of the result.
        source: The noisy recording.
        sound: The result.
    """

    path: Path
    source: Sound
    sound: Sound


@dataclass(frozen=True)
class Compressed:
    """Recording as a compressed file.

    Attributes:
        path: The compressed file.
        source: The recording.
        n_bytes: Size of the file.
    """

    path: Path
    source: Sound
    n_bytes: int


@dataclass(frozen=True)
class Decoded:
    """Sound decoded from a compressed file.

    Attributes:
        path: File of the sound.
        sound: The sound.
        data: The compressed file.
        whole_s: Duration by the header in seconds; a damaged file may have less.
        damage: Parts that could not be decoded.
        speech_s: Seconds of speech from which the target voice was measured; 0 for the original voice.
    """

    path: Path
    sound: Sound
    data: bytes
    whole_s: float
    damage: tuple[Damage, ...]
    speech_s: float


def gather_voice(
    studio: Studio, model: Engine, clips: Sequence[str | Path], saved: Sequence[str | Path], denoise: bool | str = AUTO
) -> Voice:
    """Return the voice of clips and of saved voices; if there are both, or several saved ones, all are mixed evenly.

    With `denoise` True the clips are denoised first, by `auto` noisy ones.

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
        voices.append(voice_from_sounds(model, sounds, denoise))
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
        studio: Models and folder to use.
        source: Sound file.
        clips: Sound files of the voice.
        saved: Files of saved voices.
        options: Options of the conversion.
        check: Called often; an exception that it raises ends the work.
        report: Called with the fraction done, 0 to 1, and a description of the present work.

    Raises:
        AudioError: For unusable sound.
        CheckpointError: For unusable saved voices.
    """
    report(0.02, "reading")
    # Channels are kept; the options say what becomes of them.
    sound = read_upload(source, "the recording to convert", studio.limits.seconds, mixed=False)
    model = studio.model()
    check()
    report(0.1, "listening to the voice")
    voice = gather_voice(studio, model, clips, saved, options.denoise)
    check()
    report(0.3, "listening to the words")

    def progress(share: float) -> None:
        check()
        report(0.4 + 0.5 * share, "speaking")

    made = convert(model, sound, voice, options, progress)
    result = Sound(made.wav.numpy(), made.sample_rate, "converted")
    path = studio.new_file(f"{_stem(source)}.converted.wav")
    write_sound(path, result, provenance(model.checkpoint, "converted"))
    return Converted(path, sound, made, result)


def convert_stream(
    studio: Studio,
    source: str | Path,
    clips: Sequence[str | Path],
    saved: Sequence[str | Path],
    options: ConvertOptions,
    check: Callable[[], None],
) -> LongConversion:
    """Convert a source file as `convert_files` does, but return the sound while it is made."""
    sound = read_upload(source, "the recording to convert", studio.limits.seconds, mixed=False)
    model = studio.model()
    check()
    voice = gather_voice(studio, model, clips, saved, options.denoise)
    check()
    return convert_long(model, sound, voice, options, STREAM_SECTION_S, lambda share: check())


def denoise_file(
    studio: Studio,
    source: str | Path | None,
    strength: float,
    check: Callable[[], None],
    report: Report = lambda share, what: None,
) -> Denoised:
    """Denoise a source file into a new file. Arguments as in `convert_files`, and the strength, 0 to 1.

    Raises:
        AudioError: For unusable sound.
        ConfigError: For a strength that is not allowed.
    """
    report(0.02, "reading")
    sound = read_upload(source, "the recording to denoise", studio.limits.seconds, mixed=False)
    check()
    report(0.1, "listening")
    cleaner = shared_cleaner(studio.model().device.type)
    cleaned, blocks, n = cleaner.clean(sound, strength), [], 0
    for block in cleaned.channel_blocks():
        check()
        blocks.append(block)
        n += len(block)
        report(0.2 + 0.7 * min(n / cleaned.sample_rate / sound.duration_s, 1.0), "denoising")
    wav = np.concatenate(blocks)
    result = Sound(wav[:, 0] if cleaned.n_channels == 1 else wav, cleaned.sample_rate, "denoised")
    path = studio.new_file(f"{_stem(source)}.denoised.wav")
    write_sound(path, result, provenance(cleaner.file, "denoised"))
    return Denoised(path, sound, result)


def compress_file(
    studio: Studio,
    source: str | Path | None,
    kbps: float,
    check: Callable[[], None],
    report: Report = lambda share, what: None,
) -> Compressed:
    """Compress a source file into a new file. Arguments as in `convert_files`, and the bit rate in kbit/s.

    Raises:
        AudioError: For unusable sound.
        ConfigError: For a rate that is not allowed.
    """
    report(0.02, "reading")
    sound = read_upload(source, "the recording to compress", studio.limits.seconds)
    check()
    report(0.05, "waking the codec")

    def progress(share: float) -> None:
        check()
        report(0.1 + 0.85 * share, "compressing")

    data = studio.codec().compress(sound, kbps, progress)
    path = studio.new_file(_stem(source) + SUFFIX)
    path.write_bytes(data)
    return Compressed(path, sound, len(data))


def decompress_file(
    studio: Studio,
    file: str | Path | None,
    voice: tuple[Sequence[str | Path], Sequence[str | Path]] | None,
    check: Callable[[], None],
    report: Report = lambda share, what: None,
    strict: bool = False,
    seed: int = 0,
) -> Decoded:
    """Decode a compressed file into a new file; its name does not matter.

    Args:
        studio: As in `convert_files`.
        file: The compressed file.
        voice: Clips and saved voices of the target voice; None for the original voice.
        check: As in `convert_files`.
        report: As in `convert_files`.
        strict: Raise for damage.
        seed: Seed of the vocoder's noise.

    Raises:
        BitstreamError: If it is not a compressed file, too long, or nothing of it could be decoded.
        AudioError: For unusable clips.
        CheckpointError: For unusable saved voices.
    """
    limits = studio.limits
    report(0.02, "reading")
    name, data = read_code(file, limits.code_bytes)
    report(0.05, "waking the codec")
    codec = studio.codec()
    whole_s = codec.stream(io.BytesIO(data), name=name).header.duration_s
    if whole_s > limits.seconds:
        raise BitstreamError(f"{name} is {whole_s:.0f} s long; at most {limits.seconds:g} s are allowed")
    if len(data) > limits.code_bytes:
        raise BitstreamError(f"{name} is larger than any compressed speech of {limits.seconds:g} s; get a fresh copy of it")
    check()
    other = None
    if voice is not None:
        report(0.1, "listening to the voice")
        other = gather_voice(studio, codec.model, *voice)

    def progress(share: float) -> None:
        check()
        report(0.2 + 0.75 * share, "decoding")

    progress(0.0)
    stream = codec.stream(io.BytesIO(data), other, strict, name, seed, progress)
    sound = Sound(np.concatenate(list(CheckedStream(stream, name))), codec.sample_rate, "decompressed")
    path = studio.new_file(f"{_stem(file)}.decompressed.wav")
    write_sound(path, sound, provenance(codec.file, "decompressed"))
    return Decoded(path, sound, data, whole_s, tuple(stream.damage), 0.0 if other is None else other.speech_s)


@dataclass(frozen=True)
class Measured:
    """Features of a recording as a file.

    Attributes:
        path: The .npz file.
        shape: Number of rows, and dimension.
        duration_s: Duration of the recording in seconds.
        cosine: Cosine of the two voices if there are two recordings, or None.
    """

    path: Path
    shape: tuple[int, int]
    duration_s: float
    cosine: float | None


def embed_file(
    studio: Studio, source: str | Path | None, other: str | Path | None, what: str, check: Callable[[], None]
) -> Measured:
    """Extract a source file's features into a new file, and compare its voice with another.

    Args:
        studio: Models and folder to use.
        source: Sound file.
        other: Another sound file, or None.
        what: Kind of features, as in `vcae.tasks.embed.embed`.
        check: Called between steps; an exception that it raises ends the work.

    Raises:
        AudioError: For unusable sound.
        ConfigError: For an unknown `what`.
    """
    limit, model = studio.limits.seconds, studio.model()
    sound = read_upload(source, "the recording", limit)
    second = None if other is None else read_upload(other, "the other recording", limit)
    check()
    found = embed(model, sound, what)
    check()
    cosine = None
    if second is not None:
        voices = [embed(model, each).values[0] for each in (sound, second)]
        cosine = float(np.dot(*voices))
    path = studio.new_file(f"{_stem(source)}.{what}.npz")
    facts = {"what": what, "checkpoint": model.checkpoint.path.stem, "sha256": model.checkpoint.sha256}
    path.write_bytes(format_embeddings([replace(found, name=Path(str(source)).name)], ".npz", facts))
    return Measured(path, (found.values.shape[0], found.values.shape[1]), sound.duration_s, cosine)


def rebuild_file(
    studio: Studio, source: str | Path | None, code_dim: int, check: Callable[[], None]
) -> tuple[Path, Sound, Sound]:
    """Copy a source file through a bottleneck of `code_dim` values per step into a new file; return that, the source and the copy.

    Raises:
        AudioError: For unusable sound.
        ConfigError: If there is no autoencoder of this size.
    """
    sound, model = read_upload(source, "the recording", studio.limits.seconds), studio.model()
    check()
    made = reconstruct(model, sound, code_dim=code_dim)
    path = studio.new_file(f"{_stem(source)}.rebuilt-{code_dim}.wav")
    write_sound(path, made, provenance(model.checkpoint, f"reconstructed from {code_dim} values per step"))
    return path, sound, made


def _stem(source: str | Path | None) -> str:
    return Path(source or "recording").stem[:60] or "recording"


def hertz(value: float) -> str:
    """Format a median F0."""
    return "no voiced sound" if math.isnan(value) else f"{value:.0f} Hz"
