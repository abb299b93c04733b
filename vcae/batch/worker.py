"""Base class of workers, which process one job after another. Without torch."""

from __future__ import annotations

import hashlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from vcae.audio.suffixes import SUFFIXES
from vcae.batch.jobs import Job, Outcome, failed
from vcae.errors import AudioError, ConfigError, VcaeError
from vcae.files import STDIO, ModelFile, check_target, hash_file, provenance
from vcae.model_file import DEFAULT, FoundFile, find
from vcae.version import __version__

if TYPE_CHECKING:
    import numpy as np

    from vcae.engine.engine import Engine


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
        channels: Channels of the written sound.
    """

    duration_s: float
    sentence: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    damage: tuple[str, ...] = ()
    value: Any = None
    sample_rate: int | None = None
    channels: int = 1

    def of(self, source: Any) -> Made:
        """Return the same with what is to be said of its source: what was wrong with it, and what became of its form."""
        facts, sentence = dict(self.facts), self.sentence
        warnings = tuple(getattr(source, "warnings", ()))
        if warnings:
            facts["warnings"] = [*facts.get("warnings", ()), *warnings]
        if self.sample_rate is not None and hasattr(source, "channels"):
            form = {"sample_rate": self.sample_rate, "channels": self.channels}
            given = {"source_sample_rate": source.sample_rate, "source_channels": source.channels}
            facts |= form | given
            if (source.sample_rate, source.channels) != (self.sample_rate, self.channels):
                sentence += f", {_form(self.sample_rate, self.channels)} (source: {_form(source.sample_rate, source.channels)})"
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

    A worker is built without torch: `start` loads the model, so that a wrong option is reported, and finished work skipped, at once.

    Attributes:
        verb: Status of a processed source, such as `converted`.
        doing: The same for a progress bar, such as `converting`.
        ending: Default suffix of outputs.
        sources: Suffixes of the files that are taken from a folder.
        columns: Required columns of a table.
        few: Number of sources up to which results are collected in one process, as others take longer to start.
        file: The checkpoint; None if none is needed.
    """

    verb: ClassVar[str] = "made"
    doing: ClassVar[str] = "making"
    ending: ClassVar[str] = ".wav"
    sources: ClassVar[Collection[str]] = SUFFIXES
    columns: ClassVar[tuple[str, ...]] = ("source",)
    few: ClassVar[int] = 1
    file: ModelFile | None

    @abstractmethod
    def start(self) -> None:
        """Load the model, if that has not been done.

        Raises:
            VcaeError: If the checkpoint, an option or the voice of all jobs cannot be used.
        """

    @property
    @abstractmethod
    def device(self) -> str:
        """Device to compute on, once started."""

    @classmethod
    def outputs(cls) -> Collection[str]:
        """Return the allowed suffixes of outputs."""
        from vcae.audio.io import FORMATS

        return FORMATS

    def split(self, jobs: Sequence[Job], out_dir: Path) -> list[Job]:
        """Return the jobs, with one for each part of a file of several parts.

        Args:
            jobs: A job for each file.
            out_dir: Folder of the outputs.

        Raises:
            VcaeError: If the only file cannot be used, or is standard input, from which a single recording is read.
        """
        if any(job.source == STDIO for job in jobs):
            raise ConfigError("standard input is a single recording; name an output for it instead of a folder")
        return list(jobs)

    def open(self, source: str, stdin: BinaryIO | None = None) -> AbstractContextManager[Any]:
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

    def digest(self, job: Job) -> str:
        """Return a hash of the content of a job's source."""
        return hash_file(Path(job.source))

    @abstractmethod
    def make(self, job: Job, source: Any, talk: Talk) -> Made:
        """Process an opened source: write its output, or return the result to collect if the job has no output.

        Raises:
            VcaeError: If the source cannot be processed.
        """

    def about(self) -> dict[str, Any]:
        """Return the facts common to all outputs of this worker, as plain data."""
        if self.file is None:
            return {"device": self.device}
        return {"device": self.device, "checkpoint": self.file.path.stem, "sha256": self.file.sha256}

    def comment(self) -> str:
        """Return the provenance comment of an output."""
        assert self.file is not None
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
                if os.path.realpath(job.output) == os.path.realpath(job.source):
                    raise AudioError(f"{job.output} is the source itself; choose another folder for the outputs")
                self.check(job.output, source, True)
            self.start()
            made = self.make(job, source, Talk()).of(source)
        done = replace(done, reason="; ".join(made.damage), duration_s=round(made.duration_s, 3), value=made.value)
        done = replace(done, facts={**made.facts, **self.about()})
        if not job.output:
            return done
        output = Path(job.output)
        return replace(done, sha256=hash_file(output), n_bytes=output.stat().st_size)

    def _key(self, job: Job) -> str:
        facts = {"source": self.digest(job), "version": __version__, "suffix": Path(job.output).suffix.lower()}
        facts |= {"checkpoint": "" if self.file is None else self.file.sha256} | self.settings(job)
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def finished(self, job: Job) -> Outcome | None:
        """Return the outcome of a job that an earlier run completed, if its output exists and would be the same; needs no model."""
        known, output = job.known, Path(job.output)
        if known is None or known.get("status") == "failed" or not output.is_file():
            return None
        try:
            key, digest = self._key(job), hash_file(output)
            n_bytes = output.stat().st_size
        except (OSError, VcaeError):
            return None
        if known.get("key") != key or known.get("sha256") != digest:
            return None
        return Outcome(
            job.source,
            job.speakers,
            job.output,
            "skipped",
            str(known.get("reason") or ""),
            key,
            digest,
            n_bytes,
            float(known.get("duration_s") or 0),
            facts=dict(known.get("facts") or {}),
        )


class EngineWorker(Worker):
    """Base class of workers that need a checkpoint of an autoencoder.

    Args:
        checkpoint: Name or path of the checkpoint.
        device: As in `choose_device`.

    Raises:
        CheckpointError: If there is no such checkpoint.
    """

    file: FoundFile

    def __init__(self, checkpoint: str = DEFAULT, device: str = "auto") -> None:
        self.file, self._device = FoundFile(find(checkpoint)), device

    @cached_property
    def engine(self) -> Engine:
        """The checkpoint on its device, loaded when it is first needed."""
        from vcae.engine.engine import Engine

        return Engine(self.file.path, self._device)

    @property
    def device(self) -> str:
        """Device to compute on."""
        return str(self.engine.device)

    def start(self) -> None:
        """Load the checkpoint."""
        _ = self.engine
