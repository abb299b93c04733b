"""Folders of recordings to denoise. No import of torch until a worker starts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vcae.batch.workers import Job, Settings, Worker
from vcae.files import provenance

if TYPE_CHECKING:
    from vcae.audio.io import SoundReader


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
