"""Workers that measure units, features, scores and classes; results are collected or written to a file each. Torch is imported at start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcae.batch.jobs import Job, plain
from vcae.batch.worker import EngineWorker, Made, Talk, Worker
from vcae.errors import ConfigError
from vcae.files import write_file
from vcae.model_file import FoundFile, find

if TYPE_CHECKING:
    from vcae.anomaly.detector import Detector, Threshold
    from vcae.anomaly.openset import OpenSetClassifier
    from vcae.audio.io import SoundReader


class UnitReader(EngineWorker):
    """Worker that encodes recordings as units.

    Args:
        form: Format of the files: `jsonl`, `textgrid` or `text`.
        collapse: Merge runs of equal units.
        pictures: Paths of pictures of mel and units, by name of the source.
        checkpoint, device: As in `EngineWorker`.
    """

    verb, doing = "encoded", "encoding"

    def __init__(
        self,
        form: str = "jsonl",
        collapse: bool = False,
        pictures: Mapping[str, str] | None = None,
        checkpoint: str = "vq",
        device: str = "auto",
    ) -> None:
        super().__init__(checkpoint, device)
        self._form, self._collapse, self._pictures = form, collapse, pictures or {}

    def start(self) -> None:
        """Load the checkpoint, and check that it has units."""
        if self._pictures:
            from vcae.figures.plot import need_matplotlib

            need_matplotlib()
        if self.engine.autoencoder.quantizer is None:
            raise ConfigError("this checkpoint has a continuous latent and no units; use the checkpoint 'vq'")

    @classmethod
    def outputs(cls) -> tuple[str, ...]:
        """Return the suffixes of files of units."""
        from vcae.tasks.unit_files import SUFFIXES

        return tuple(SUFFIXES)

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the format."""
        return {"form": self._form, "collapse": self._collapse, "name": job.name}

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Encode a recording as units."""
        from vcae.engine.listening import analyse
        from vcae.tasks.unit_files import format_units
        from vcae.tasks.units import recording_units

        seen = analyse(self.engine, source)
        units = recording_units(self.engine, seen, job.name)
        units = units.collapse() if self._collapse else units
        if job.name in self._pictures:
            from vcae.figures.plot import draw_units

            draw_units(self._pictures[job.name], seen.mel[0], units, self.engine.mel_config)
        if job.output:
            write_file(job.output, format_units([units], self._form), talk.stdout)
        said = f"{len(units.units)} units, {units.duration_s:.1f} s"
        return Made(units.duration_s, said, {"n_units": len(units.units)}, value=units)


class Embedder(EngineWorker):
    """Worker that extracts features.

    Args:
        what: Kind of features: `speaker`, `content` or `mel`.
        pool: Pooling over time: `none`, `mean` or `steps`.
        n_steps: Number of rows with `steps`.
        checkpoint, device: As in `EngineWorker`.
    """

    verb, doing = "embedded", "embedding"
    ending = ".npz"

    def __init__(
        self, what: str = "speaker", pool: str = "none", n_steps: int = 20, checkpoint: str = "default", device: str = "auto"
    ) -> None:
        super().__init__(checkpoint, device)
        self._what, self._pool, self._n_steps = what, pool, n_steps

    def start(self) -> None:
        """Load the checkpoint, and check that it has what is needed."""
        if self._what == "speaker":
            self.engine.autoencoder.the_speaker_encoder()
        super().start()

    @classmethod
    def outputs(cls) -> tuple[str, ...]:
        """Return the suffixes of files of features."""
        from vcae.tasks.embed_files import SUFFIXES

        return SUFFIXES

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the kind of features and their pooling."""
        return {"what": self._what, "pool": self._pool, "n_steps": self._n_steps, "name": job.name}

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Extract the features of a recording."""
        from vcae.tasks.embed import embed
        from vcae.tasks.embed_files import format_embeddings

        found = replace(embed(self.engine, source, self._what, self._pool, self._n_steps), name=job.name)
        facts = {"what": self._what, "pool": self._pool}
        if job.output:
            said = facts | {"checkpoint": self.file.path.stem, "sha256": self.file.sha256}
            write_file(job.output, format_embeddings([found], Path(job.output).suffix.lower(), said), talk.stdout)
        rows, dim = found.values.shape
        sentence = f"{self._what}, {rows} row{'s' * (rows != 1)} of {dim} values"
        return Made(float(found.end_s[-1]), sentence, facts | {"n_rows": rows, "n_features": dim}, value=found)


class ModelWorker(Worker):
    """Base class of workers that need a file of a detector or classifier, and the CPU."""

    ending = ".json"
    device = "cpu"
    file: FoundFile

    @classmethod
    def outputs(cls) -> tuple[str, ...]:
        """Return the suffix of a file with a single row."""
        return (cls.ending,)


class Scorer(ModelWorker):
    """Worker that scores recordings with an anomaly detector.

    Args:
        model: File of the detector.
        threshold: Threshold to use instead of the detector's own.
        places: Locate the anomalies.
        pictures: Paths of pictures, by name of the source.
    """

    verb, doing = "scored", "scoring"

    def __init__(
        self,
        model: Path,
        threshold: float | None = None,
        places: bool = False,
        pictures: Mapping[str, str] | None = None,
    ) -> None:
        self._threshold, self._places, self._pictures = threshold, places, pictures or {}
        self.file = FoundFile(find(model))

    @cached_property
    def _detector(self) -> Detector:
        from vcae.anomaly.detector import Detector

        return Detector.load(self.file.path)

    @cached_property
    def _at(self) -> Threshold:
        return self._detector.decide(self._threshold)

    def start(self) -> None:
        """Load the detector."""
        if self._pictures:
            from vcae.figures.plot import need_matplotlib

            need_matplotlib()
        _ = self._at

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the settings that determine the row."""
        return {"threshold": self._threshold, "places": self._places}

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Score a recording, and draw it if a picture was requested."""
        from vcae.anomaly.locate import Place, locate
        from vcae.anomaly.plot import draw_anomaly
        from vcae.audio.io import resample

        sound, mel = source.read(), self._detector.config.mel
        found = self._detector.score(sound)
        row: dict[str, Any] = {
            "path": job.source,
            "score": found.score,
            "p_value": found.p_value,
            "anomalous": self._at.verdict(found.score),
            "threshold": self._at.value if self._at.chosen else None,
            "reason": self._at.reason,
            "peak_s": round(float(found.frame_scores.argmax()) * found.hop_s, 3),
            "error": "",
            "members": dict(found.members),
        }
        spots: list[Place] = []
        if self._places or job.name in self._pictures:
            wav = resample(sound.wav, sound.sample_rate, mel.sample_rate)
            spots = locate(wav, mel.sample_rate, found.frame_scores, found.hop_s, limits=self._detector.limits)
        if self._places:
            row["places"] = [
                {name: round(getattr(s, name), 3) for name in ("time_s", "start_s", "end_s")}
                | {"kind": s.kind, "strength": round(s.strength, 1)}
                for s in spots
            ]
        if job.name in self._pictures:
            draw_anomaly(self._pictures[job.name], found, mel, job.name, [(s.start_s, s.end_s) for s in spots])
        verdict = {True: "anomalous, ", False: "normal, ", None: ""}[row["anomalous"]]
        return _row(job, row, sound.duration_s, f"{verdict}score {found.score:.3f}", talk)


class Classifier(ModelWorker):
    """Worker that classifies recordings, possibly as unknown.

    Args:
        model: File of the classifier.
        by: Score that decides whether a recording is unknown; the model's choice when None.
        threshold: Threshold of that score; the model's own when None.
    """

    verb, doing = "classified", "classifying"

    def __init__(self, model: Path, by: str | None = None, threshold: float | None = None) -> None:
        self._by, self._threshold = by, threshold
        self.file = FoundFile(find(model))

    @cached_property
    def _classifier(self) -> OpenSetClassifier:
        from vcae.anomaly.openset import OpenSetClassifier

        return OpenSetClassifier.load(self.file.path)

    def start(self) -> None:
        """Load the classifier."""
        _ = self._classifier

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the settings that determine the row."""
        return {"by": self._by, "threshold": self._threshold}

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Classify a recording."""
        from vcae.anomaly.openset import check_wav
        from vcae.audio.io import resample

        sound = source.read()
        check_wav(sound.wav, sound.sample_rate, sound.name)
        wav = resample(sound.wav, sound.sample_rate, self._classifier.config.mel.sample_rate)
        found = self._classifier.classify(wav, self._by, self._threshold)
        row = {
            "file": job.source,
            "class": found.label or "unknown",
            "best": found.best,
            "confidence": round(found.confidence, 4),
        }
        row |= {name: round(value, 5) for name, value in found.scores.items()} | {"by": found.by, "threshold": found.threshold}
        likely = "" if found.label else f", nearest {found.best}"
        sentence = (
            f"{row['class']}{likely}, confidence {found.confidence:.2f} "
            f"({found.by} {found.scores[found.by]:.3g} {'<=' if found.label else '>'} {found.threshold:.3g})"
        )
        return _row(job, row, sound.duration_s, sentence, talk)


def _row(job: Job, row: dict[str, Any], duration_s: float, sentence: str, talk: Talk) -> Made:
    if job.output:
        write_file(job.output, json.dumps(plain(row)) + "\n", talk.stdout)
    return Made(duration_s, sentence, row, value=(row, sentence))
