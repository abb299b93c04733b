"""Folders of recordings to compress, and of compressed files to decompress. No import of torch until a worker starts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from vcae.batch.workers import Job, Settings, Voices, Worker
from vcae.files import check_target, provenance, write_file

if TYPE_CHECKING:
    from vcae.audio.io import SoundReader


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
