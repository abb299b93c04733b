"""Worker that speaks unit sequences; a file of several becomes as many sounds. Torch is imported when it starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from vcae.batch.jobs import Job, name_targets, unique_names
from vcae.batch.worker import EngineWorker, Made, Talk
from vcae.batch.workers import Voices
from vcae.errors import VcaeError
from vcae.files import STDIO
from vcae.options import SpeakOptions
from vcae.tasks.unit_files import SUFFIXES, Units, read_units
from vcae.voice.speakers import parse_speaker, read_clips


class UnitSpeaker(EngineWorker):
    """Worker that speaks unit sequences in a voice.

    Args:
        options: Options of the speech.
        speakers: Voice of all jobs, if there is one; it is measured at the start, so that an unusable one raises at once.
        piped: Sequences that were read from standard input, for the source `-`.
        checkpoint, device: As in `EngineWorker`.
    """

    verb, doing = "spoken", "speaking"
    sources = tuple(SUFFIXES)
    columns = ("source", "speaker")

    def __init__(
        self,
        options: SpeakOptions,
        speakers: tuple[str, ...] = (),
        piped: Sequence[Units] = (),
        checkpoint: str = "vq",
        device: str = "auto",
    ) -> None:
        super().__init__(checkpoint, device)
        self._options, self._speakers, self._piped, self._voices = options, speakers, piped, Voices()
        self._last: tuple[object, list[Units]] = None, []

    def start(self) -> None:
        """Read the clips of the voice of all jobs, load the checkpoint, and measure the voice."""
        clips = read_clips([parse_speaker(text) for text in self._speakers])
        super().start()
        if self._speakers:
            self._voices.find(self.engine, self._speakers, clips)

    def open(self, source: str, stdin: BinaryIO | None = None) -> AbstractContextManager[list[Units]]:
        """Read the sequences of a file; those of the last one are kept, as each of its jobs opens it."""
        if source == STDIO:
            return nullcontext(list(self._piped) or read_units(source, stdin))
        try:
            known = os.stat(source)
            which: object = (source, known.st_mtime_ns, known.st_size)
        except (OSError, ValueError):
            which = None
        last = self._last
        if which is None or last[0] != which:
            last = self._last = which, read_units(source)
        return nullcontext(last[1])

    def split(self, jobs: Sequence[Job], out_dir: Path) -> list[Job]:
        """Return a job for each sequence of each file; if there are several files, those of a file are in a folder named after it."""
        found: list[Job] = []
        for job in jobs:
            try:
                with self.open(job.source) as sequences:
                    names = [sequence.name for sequence in sequences]
            except VcaeError:
                if len(jobs) == 1:
                    raise
                # A worker will say why it cannot be used.
                names = []
            if len(names) < 2:
                found.append(job)
                continue
            folder = out_dir if len(jobs) == 1 else Path(job.output).with_suffix("")
            outputs = name_targets(folder, names, self.ending)
            found += [replace(job, output=str(outputs[n]), part=n) for n in range(len(names))]
        named = [job.output for job in found]
        return [replace(job, output=name) for job, name in zip(found, unique_names(named, named), strict=True)]

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the voice and the options."""
        return {"voice": self._voices.describe(job.speakers), "options": asdict(self._options)}

    def digest(self, job: Job) -> str:
        """Return a hash of a job's sequence."""
        with self.open(job.source) as sequences:
            content = replace(sequences[job.part], where="")
            return hashlib.sha256(repr(asdict(content)).encode("utf-8", "surrogateescape")).hexdigest()

    def make(self, job: Job, source: list[Units], talk: Talk) -> Made:
        """Speak a sequence."""
        from vcae.audio.io import Sound, write_sound
        from vcae.tasks.units import speak_units

        units = source[job.part]
        voice = self._voices.find(self.engine, job.speakers)
        done = speak_units(self.engine, units, voice, self._options)
        sound = Sound(done.wav.numpy(), self.engine.sample_rate)
        write_sound(job.output, sound, self.comment(), True, talk.stdout)
        predicted = units.lengths is None or self._options.durations == "predicted"
        facts = {
            "speaker": list(job.speakers),
            "units": units.name,
            "n_units": len(units.units),
            "n_samples": len(sound.wav),
            "output_f0_hz": round(done.output_f0_hz, 1),
            **asdict(self._options),
            "durations": "predicted" if predicted else "file",
            **({"warnings": list(voice.warnings)} if voice.warnings else {}),
        }
        said = f"{sound.duration_s:.1f} s in the voice of {', '.join(job.speakers)}"
        return Made(sound.duration_s, said, facts)
