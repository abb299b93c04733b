"""What does one job after another, whatever the work is. No import of torch here."""

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
    """What a worker made of one source.

    Attributes:
        duration_s: Of the sound.
        sentence: What is said of it, such as `6.7 s denoised`.
        facts: What was measured and how it was made, as plain data.
        damage: What was wrong with the source all the same, a line each.
        value: What is collected, where nothing is written.
        sample_rate: Of the sound that was written, in Hz; None where none was.
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
    """What connects a worker with who waits for it.

    Attributes:
        tell: Called with the share of a source that is done, 0 to 1.
        stdin: Where `-` is read from.
        stdout: Where `-` is written to.
    """

    tell: Callable[[float], object] = lambda share: None
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None

    def counted(self, blocks: Iterable[np.ndarray], duration_s: float, sample_rate: int) -> Iterator[np.ndarray]:
        """Yield blocks (n,), and tell how much of the duration they are."""
        done = 0
        for block in blocks:
            yield block
            done += len(block)
            self.tell(min(done / max(duration_s * sample_rate, 1), 1.0))


class Worker(ABC):
    """Does job after job; what it does is said by those that inherit from it.

    Attributes:
        verb: What becomes of a source.
        ending: Suffix of its outputs, where they are not named.
        sources: Suffixes of the files that it takes from a folder.
        columns: That a table needs.
        file: The checkpoint that it works with.
        device: Where it computes.
    """

    verb: ClassVar[str] = "made"
    ending: ClassVar[str] = ".wav"
    sources: ClassVar[Collection[str]] = SUFFIXES
    columns: ClassVar[tuple[str, ...]] = ("source",)
    file: ModelFile
    device: str

    @classmethod
    def outputs(cls) -> Collection[str]:
        """Return the suffixes that an output may have."""
        from vcae.audio.io import FORMATS

        return FORMATS

    @classmethod
    def open(cls, source: str, stdin: BinaryIO | None = None) -> AbstractContextManager[Any]:
        """Open a source, so that a bad one is told first.

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
        """Return what decides the result beside the source, the checkpoint and the version, as plain data."""

    @abstractmethod
    def make(self, job: Job, source: Any, talk: Talk) -> Made:
        """Write the output of an opened source; or return what is collected of it, where the job has no output.

        Raises:
            VcaeError: If that cannot be done.
        """

    def about(self) -> dict[str, Any]:
        """Return what all outputs of this worker have in common, as plain data."""
        return {"device": self.device, "checkpoint": self.file.path.stem, "sha256": self.file.sha256}

    def comment(self) -> str:
        """Return the provenance that an output carries."""
        return provenance(self.file, self.verb)

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
        """Return the outcome of a job that was done before, if what it made is there and would be made again."""
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
