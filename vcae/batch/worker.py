"""Base class of workers, which process one job after another. Without torch."""

from __future__ import annotations

import hashlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from vcae.batch.jobs import SUFFIXES, Job, Outcome, failed
from vcae.errors import AudioError, VcaeError
from vcae.files import ModelFile, check_target, hash_file, provenance
from vcae.version import __version__

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Made:
    """Result of a worker for one source.

    Attributes:
        duration_s: Duration of the sound.
        sentence: Summary, such as `6.7 s denoised`.
        facts: Measurements and settings, as plain data.
        damage: Warnings about the source.
        value: Result to collect if no file is written.
        sample_rate: Sample rate of the written sound in Hz; None if no sound was written.
    """

    duration_s: float
    sentence: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    damage: tuple[str, ...] = ()
    value: Any = None
    sample_rate: int | None = None

    def of(self, source: Any) -> Made:
        """Return the same with what is to be said of its source: what was wrong with it, and what became of its form."""
        facts, sentence = dict(self.facts), self.sentence
        warnings = tuple(getattr(source, "warnings", ()))
        if warnings:
            facts["warnings"] = [*facts.get("warnings", ()), *warnings]
        if self.sample_rate is not None and hasattr(source, "channels"):
            form = {"sample_rate": self.sample_rate, "channels": 1}
            given = {"source_sample_rate": source.sample_rate, "source_channels": source.channels}
            facts |= form | given
            if (source.sample_rate, source.channels) != (self.sample_rate, 1):
                sentence += f", {_form(self.sample_rate, 1)} (source: {_form(source.sample_rate, source.channels)})"
        return replace(self, facts=facts, sentence=sentence)


def _form(sample_rate: int, channels: int) -> str:
    return f"{sample_rate / 1000:g} kHz {({1: 'mono', 2: 'stereo'}).get(channels, f'{channels} channels')}"


@dataclass
class Talk:
    """Connection of a worker to its caller: progress callback and standard streams.

    Attributes:
        tell: Called with the fraction of a source that is done, 0 to 1.
        stdin: Stream to read for `-`.
        stdout: Stream to write for `-`.
    """

    tell: Callable[[float], object] = lambda share: None
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None

    def counted(self, blocks: Iterable[np.ndarray], duration_s: float, sample_rate: int) -> Iterator[np.ndarray]:
        """Yield blocks (n,), and report the fraction of the duration so far."""
        done = 0
        for block in blocks:
            yield block
            done += len(block)
            self.tell(min(done / max(duration_s * sample_rate, 1), 1.0))


class Worker(ABC):
    """Base class of workers, which load a model once and process one job after another.

    Attributes:
        verb: Status of a processed source, such as `converted`.
        ending: Default suffix of outputs.
        sources: Suffixes of the files that are taken from a folder.
        columns: Required columns of a table.
        file: The checkpoint.
        device: Device to compute on.
    """

    verb: ClassVar[str] = "made"
    ending: ClassVar[str] = ".wav"
    sources: ClassVar[Collection[str]] = SUFFIXES
    columns: ClassVar[tuple[str, ...]] = ("source",)
    file: ModelFile
    device: str

    @classmethod
    def outputs(cls) -> Collection[str]:
        """Return the allowed suffixes of outputs."""
        from vcae.audio.io import FORMATS

        return FORMATS

    @classmethod
    def open(cls, source: str, stdin: BinaryIO | None = None) -> AbstractContextManager[Any]:
        """Open a source, so that an unusable one is reported before any work.

        Raises:
            VcaeError: If it cannot be used.
        """
        from vcae.audio.io import SoundReader

        return SoundReader(source, stdin)

    @classmethod
    def check(cls, output: str, source: Any, force: bool) -> None:
        """Refuse an output that could not be written, or a video of an opened source that is none.

        Raises:
            VcaeError: Then.
        """
        check_target(output, force, cls.outputs(), AudioError)
        from vcae.audio.io import check_pictures

        check_pictures(output, source)

    @abstractmethod
    def settings(self, job: Job) -> dict[str, Any]:
        """Return, as plain data, what determines the result besides the source, the checkpoint and the version."""

    @abstractmethod
    def make(self, job: Job, source: Any, talk: Talk) -> Made:
        """Process an opened source: write its output, or return the result to collect if the job has no output.

        Raises:
            VcaeError: If the source cannot be processed.
        """

    def about(self) -> dict[str, Any]:
        """Return the facts common to all outputs of this worker, as plain data."""
        return {"device": self.device, "checkpoint": self.file.path.stem, "sha256": self.file.sha256}

    def comment(self) -> str:
        """Return the provenance comment of an output."""
        return provenance(self.file, self.verb)

    def __call__(self, job: Job) -> Outcome:
        """Process a job; errors become its outcome instead of an exception."""
        started = time.perf_counter()
        try:
            outcome = self._do(job)
        except VcaeError as error:
            outcome = failed(job, str(error))
        except Exception as error:  # One bad file must not stop the rest.
            outcome = failed(job, f"unexpected {type(error).__name__}: {error}")
        return replace(outcome, elapsed_s=round(time.perf_counter() - started, 3))

    def _do(self, job: Job) -> Outcome:
        done = Outcome(job.source, job.speakers, job.output, self.verb)
        with self.open(job.source) as source:
            if job.output:
                done = replace(done, key=self._key(job))
                before = self._before(job, done)
                if before is not None:
                    return before
                if os.path.realpath(job.output) == os.path.realpath(job.source):
                    raise AudioError(f"{job.output} is the source itself; choose another --out-dir")
                self.check(job.output, source, True)
            made = self.make(job, source, Talk()).of(source)
        done = replace(done, reason="; ".join(made.damage), duration_s=round(made.duration_s, 3), value=made.value)
        done = replace(done, facts={**made.facts, **self.about()})
        if not job.output:
            return done
        output = Path(job.output)
        return replace(done, sha256=hash_file(output), n_bytes=output.stat().st_size)

    def _key(self, job: Job) -> str:
        facts = {"source": hash_file(Path(job.source)), "version": __version__, "suffix": Path(job.output).suffix.lower()}
        facts |= {"checkpoint": self.file.sha256} | self.settings(job)
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _before(self, job: Job, done: Outcome) -> Outcome | None:
        """Return the outcome of a job completed by an earlier run, if its output exists and would be the same."""
        known, output = job.known, Path(job.output)
        if known is None or known.get("key") != done.key or not output.is_file():
            return None
        digest = hash_file(output)
        if digest != known.get("sha256"):
            return None
        seconds, reason = float(known.get("duration_s") or 0), str(known.get("reason") or "")
        return replace(
            done,
            status="skipped",
            reason=reason,
            sha256=digest,
            n_bytes=output.stat().st_size,
            duration_s=seconds,
            facts=dict(known.get("facts") or {}),
        )
