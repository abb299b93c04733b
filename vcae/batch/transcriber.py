"""Worker that transcribes; the transcripts are collected, or written to a file each. Torch is imported at start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcae.batch.jobs import Job
from vcae.batch.worker import EngineWorker, Made, Talk
from vcae.files import write_file
from vcae.model_file import DEFAULT, FoundFile, find

if TYPE_CHECKING:
    from vcae.audio.io import SoundReader


class TranscriptWriter(EngineWorker):
    """Worker that transcribes recordings.

    Args:
        kind: `words`, `phones` or `letters`.
        form: Format of the files, such as `srt`.
        device: As in `choose_device`.
    """

    verb, doing = "transcribed", "transcribing"
    ending = ".txt"

    def __init__(self, kind: str = "words", form: str = "text", device: str = "auto") -> None:
        super().__init__(DEFAULT, device)
        self._kind, self._form, self._transcriber = kind, form, FoundFile(find("transcriber"))

    def start(self) -> None:
        """Load the content encoder and the transcriber."""
        from vcae.text.transcribe import shared_transcriber

        shared_transcriber(self.device)

    @classmethod
    def outputs(cls) -> tuple[str, ...]:
        """Return the suffixes of transcripts."""
        from vcae.text.transcript import SUFFIXES

        return tuple(SUFFIXES)

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the kind of symbols, the format and the transcriber."""
        return {"as": self._kind, "form": self._form, "name": job.name, "transcriber": self._transcriber.sha256}

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Transcribe a recording."""
        from vcae.text.transcribe import transcribe_source
        from vcae.text.transcript import format_transcript

        made = transcribe_source(self.engine, source, self._kind, job.name)
        if job.output:
            write_file(job.output, format_transcript(made, self._form), talk.stdout)
        n = len([symbol for symbol in made.symbols if symbol.label != " "])
        return Made(made.duration_s, f"{n} {self._kind}, {made.duration_s:.1f} s", {f"n_{self._kind}": n}, value=made)
