"""What does one job after another: a worker for each command. No import of torch until one starts."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vcae.batch.jobs import Job, Outcome, failed
from vcae.errors import AudioError, VcaeError
from vcae.files import check_target, hash_file, provenance, write_file
from vcae.version import __version__

if TYPE_CHECKING:
    from vcae.audio.io import SoundReader
    from vcae.engine.engine import Engine
    from vcae.voice.voice import Voice

# Voices that a worker keeps, when a table names many.
MAX_VOICES = 64


@dataclass(frozen=True)
class Settings:
    """What all jobs of a run share.

    Attributes:
        checkpoint: Name or path.
        device: As `--device`.
        options: Fields of `vcae.options.ConvertOptions`.
        speakers: Of every job, where one voice is asked for; it is heard at the start, so that a bad one ends the run there.
    """

    checkpoint: str = "default"
    device: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    speakers: tuple[str, ...] = ()

    def worker(self) -> Worker:
        """Return what does the jobs; made in a process of its own.

        Raises:
            VcaeError: If the settings cannot be used.
        """
        return Converter(self)


class Worker:
    """Does job after job; what it does is said by those that inherit from it.

    Attributes:
        verb: What becomes of a source.
    """

    verb = "made"

    def __call__(self, job: Job) -> Outcome:
        """Do a job; whatever goes wrong is its outcome and not an exception."""
        started = time.perf_counter()
        try:
            outcome = self._do(job)
        except VcaeError as error:
            outcome = failed(job, str(error))
        except Exception as error:  # One bad file must not stop the rest.
            outcome = failed(job, f"unexpected {type(error).__name__}: {error}")
        return replace(outcome, elapsed_s=round(time.perf_counter() - started, 3))

    def _do(self, job: Job) -> Outcome:
        output = Path(job.output)
        with self._open(job) as source:
            facts = {"source": hash_file(Path(job.source)), "version": __version__, "suffix": output.suffix.lower()}
            key = hashlib.sha256(json.dumps(facts | self._facts(job), sort_keys=True).encode()).hexdigest()
            done = Outcome(job.source, job.speakers, job.output, self.verb, "", key)
            if job.known is not None and job.known.get("key") == key and output.is_file():
                digest = hash_file(output)
                if digest == job.known.get("sha256"):
                    seconds, reason = float(job.known.get("duration_s") or 0), str(job.known.get("reason") or "")
                    n_bytes = output.stat().st_size
                    return replace(done, status="skipped", reason=reason, sha256=digest, n_bytes=n_bytes, duration_s=seconds)
            if os.path.realpath(output) == os.path.realpath(job.source):
                raise AudioError(f"{output} is the source itself; choose another --out-dir")
            seconds, reason = self._make(job, source)
        size, digest = output.stat().st_size, hash_file(output)
        return replace(done, reason=reason, sha256=digest, n_bytes=size, duration_s=round(seconds, 3))

    def _open(self, job: Job) -> AbstractContextManager[Any]:
        """Open the source, so that a bad one is told first."""
        raise NotImplementedError

    def _facts(self, job: Job) -> dict[str, Any]:
        """Return what decides the result beside the source, as plain data."""
        raise NotImplementedError

    def _make(self, job: Job, source: Any) -> tuple[float, str]:
        """Write the output; return the sound's duration in seconds, and what was wrong with the source if anything was."""
        raise NotImplementedError


class Converter(Worker):
    """What converts: loads the model once, hears each voice once.

    Args:
        settings: Of the run.

    Raises:
        VcaeError: If the checkpoint, the options or the voice of all jobs cannot be used.
    """

    verb = "converted"

    def __init__(self, settings: Settings) -> None:
        from vcae.config import from_dict
        from vcae.options import ConvertOptions
        from vcae.tasks.model import load

        self._options = from_dict(ConvertOptions, dict(settings.options), "options")
        self._model = load(settings.checkpoint, settings.device)
        self._voices = Voices(self._model, self._options.denoise)
        if settings.speakers:
            self._voices.find(settings.speakers)

    def _open(self, job: Job) -> AbstractContextManager[SoundReader]:
        from vcae.audio.io import SoundReader

        return SoundReader(job.source)

    def _facts(self, job: Job) -> dict[str, Any]:
        return {
            "voice": self._voices.find(job.speakers)[1],
            "options": asdict(self._options),
            "checkpoint": self._model.checkpoint.sha256,
        }

    def _make(self, job: Job, source: SoundReader) -> tuple[float, str]:
        from vcae.audio.io import check_output, write_blocks
        from vcae.tasks.convert import convert_long

        check_output(job.output, force=True)
        done = convert_long(self._model, source, self._voices.find(job.speakers)[0], self._options)
        comment = provenance(self._model.checkpoint, self.verb)
        write_blocks(job.output, done.blocks, self._model.sample_rate, comment, force=True)
        return done.duration_s, ""


class Voices:
    """Hears each voice once, and keeps it while there are not too many."""

    def __init__(self, model: Engine, denoise: bool = False) -> None:
        self._model, self._denoise = model, denoise
        self._known: dict[tuple[str, ...], tuple[Voice, str]] = {}

    def find(self, speakers: tuple[str, ...]) -> tuple[Voice, str]:
        """Return a voice, and what its files are, as JSON.

        Args:
            speakers: Each as `--speaker` takes it.

        Raises:
            VcaeError: If it cannot be used.
        """
        from vcae.voice.speakers import find_voice, parse_speaker, read_clips

        if speakers not in self._known:
            parsed = [parse_speaker(text) for text in speakers]
            voice = find_voice(self._model, parsed, read_clips(parsed), self._denoise)
            facts = [(hash_file(speaker.path), speaker.weight) for speaker in parsed]
            while len(self._known) >= MAX_VOICES:
                self._known.pop(next(iter(self._known)))
            self._known[speakers] = voice, json.dumps(facts)
        return self._known[speakers]


@dataclass(frozen=True)
class CompressSettings(Settings):
    """What all files of a run share.

    Attributes:
        kbps: The rate asked for.
    """

    kbps: float = 1.5

    def worker(self) -> Worker:
        """Return what compresses."""
        return Compressor(self)


@dataclass(frozen=True)
class DecompressSettings(Settings):
    """What all files of a run share.

    Attributes:
        strict: Refuse damage.
        seed: Of the vocoder's noise.
    """

    strict: bool = False
    seed: int = 0

    def worker(self) -> Worker:
        """Return what decompresses."""
        return Decompressor(self)


class Compressor(Worker):
    """What compresses: loads the codec once."""

    verb = "compressed"

    def __init__(self, settings: CompressSettings) -> None:
        from vcae.codec.codec import Codec

        self._kbps = settings.kbps
        self._codec = Codec(device=settings.device)

    def _open(self, job: Job) -> AbstractContextManager[SoundReader]:
        from vcae.audio.io import SoundReader

        return SoundReader(job.source)

    def _facts(self, job: Job) -> dict[str, Any]:
        return {"kbps": self._kbps, "checkpoint": self._codec.file.sha256}

    def _make(self, job: Job, source: SoundReader) -> tuple[float, str]:
        from vcae.codec.vcz import SUFFIX, duration_of

        check_target(job.output, True, (SUFFIX,))
        data = self._codec.compress(source, self._kbps)
        write_file(job.output, data)
        return duration_of(data), ""


class Decompressor(Worker):
    """What decompresses: loads the codec once, hears each voice once."""

    verb = "decompressed"

    def __init__(self, settings: DecompressSettings) -> None:
        from vcae.codec.codec import Codec

        self._strict, self._seed = settings.strict, settings.seed
        self._codec = Codec(device=settings.device)
        self._voices = Voices(self._codec.model)
        if settings.speakers:
            self._voices.find(settings.speakers)

    def _open(self, job: Job) -> AbstractContextManager[BinaryIO]:
        from vcae.codec.vcz import open_code

        return open_code(job.source)

    def _facts(self, job: Job) -> dict[str, Any]:
        voice = self._voices.find(job.speakers)[1] if job.speakers else ""
        return {"voice": voice, "strict": self._strict, "seed": self._seed, "checkpoint": self._codec.file.sha256}

    def _make(self, job: Job, source: BinaryIO) -> tuple[float, str]:
        from vcae.audio.io import write_blocks
        from vcae.codec.vcz import CheckedStream, damage_lines

        voice = self._voices.find(job.speakers)[0] if job.speakers else None
        stream = self._codec.stream(source, voice, self._strict, job.source, self._seed)
        comment = provenance(self._codec.file, self.verb)
        sound = CheckedStream(stream, job.source)
        write_blocks(job.output, sound, self._codec.sample_rate, comment, force=True)
        return sound.n_samples / self._codec.sample_rate, "; ".join(damage_lines(stream.damage))


@dataclass(frozen=True)
class DenoiseSettings(Settings):
    """What all files of a run share.

    Attributes:
        strength: From the recording as it is to all that can be taken away, 0 to 1.
    """

    strength: float = 1.0

    def worker(self) -> Worker:
        """Return what denoises."""
        return Denoising(self)


class Denoising(Worker):
    """What denoises: loads the network once."""

    verb = "denoised"

    def __init__(self, settings: DenoiseSettings) -> None:
        from vcae.engine.denoise import Cleaner

        self._strength = settings.strength
        self._cleaner = Cleaner(device=settings.device)

    def _open(self, job: Job) -> AbstractContextManager[SoundReader]:
        from vcae.audio.io import SoundReader

        return SoundReader(job.source)

    def _facts(self, job: Job) -> dict[str, Any]:
        return {"strength": self._strength, "checkpoint": self._cleaner.file.sha256}

    def _make(self, job: Job, source: SoundReader) -> tuple[float, str]:
        from vcae.audio.io import check_output, write_blocks

        check_output(job.output, force=True)
        cleaned = self._cleaner.clean(source, self._strength)
        comment = provenance(self._cleaner.file, self.verb)
        write_blocks(job.output, cleaned.blocks(), self._cleaner.sample_rate, comment, force=True)
        return cleaned.duration_s, ""
