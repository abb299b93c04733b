"""Judges of the voice: two speaker encoders, of which one is vcae's own, and the pitch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vcae.audio.f0 import SAMPLE_RATE, estimate_f0, log_f0_statistics
from vcae.evaluation.scores import NONE, Column, Judge, Reader, Readings, Score, version
from vcae.evaluation.tables import Conversion, Row
from vcae.files import hash_file
from vcae.model_file import find

# Resemblyzer's cosine at the equal error rate (LibriSpeech test-other).
EQUAL_ERROR_COSINE = 0.718


def _cosine(a: list[float] | None, b: list[float] | None) -> Score:
    """Return the cosine of two unit vectors."""
    return NONE if a is None or b is None else Score(float(np.dot(a, b)))


def _plain(vector: Any) -> list[float]:
    return [round(float(value), 6) for value in vector]


def _voices(row: Row) -> Sequence[tuple[Path, ...]]:
    target = (row.target_ref,) if isinstance(row, Conversion) and row.target_ref is not None else ()
    return [(path,) for path in (row.judged, row.original, *target)]


class Resemblyzer(Judge):
    """Cosine by the speaker encoder of Resemblyzer (Wan et al., Generalized End-to-End Loss, 2018)."""

    name = "resemblyzer"
    packages: ClassVar[dict[str, str]] = {"Resemblyzer": "resemblyzer"}

    def identity(self) -> str:
        """Return the version; the weights are the package's."""
        return version("Resemblyzer")

    def columns(self, copies: bool) -> Sequence[Column]:
        """Return what it scores."""
        if copies:
            return (Column("cosine", "speaker cosine", "Resemblyzer's cosine of the copy to the reference", 1),)
        return (
            Column("cosine_target", "cosine to target", "Resemblyzer's cosine to the target", 1),
            Column("cosine_source", "cosine to source", "Resemblyzer's cosine to the source", -1),
            Column("accepted", "accepted", f"share above the equal-error cosine of {EQUAL_ERROR_COSINE}", 1),
        )

    def needs(self, row: Row) -> Sequence[tuple[Path, ...]]:
        """Return the conversion, its source and its target."""
        return _voices(row)

    def open(self) -> Reader:
        """Load the model."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from resemblyzer import VoiceEncoder, preprocess_wav

        encoder = VoiceEncoder("cpu", verbose=False)

        def read(wav: np.ndarray) -> list[float]:
            spoken = preprocess_wav(wav, SAMPLE_RATE)
            # Its voice activity detector may leave almost nothing of a short clip.
            return _plain(encoder.embed_utterance(spoken if len(spoken) >= SAMPLE_RATE // 2 else wav))

        return read

    def score(self, row: Row, read: Readings) -> dict[str, Score]:
        """Return the columns' scores."""
        to_original = _cosine(read(row.judged), read(row.original))
        if not isinstance(row, Conversion):
            return {"cosine": to_original}
        to_target = NONE if row.target_ref is None else _cosine(read(row.judged), read(row.target_ref))
        accepted = NONE if math.isnan(to_target.value) else Score(float(to_target.value >= EQUAL_ERROR_COSINE))
        return {"cosine_target": to_target, "cosine_source": to_original, "accepted": accepted}


@dataclass(frozen=True)
class OwnSpeaker(Judge):
    """Cosine by vcae's own speaker encoder. The model judges itself here, so the independent encoder is more reliable.

    Attributes:
        checkpoint: Name or path of the checkpoint.
        device: Device to compute on.
    """

    checkpoint: str = "default"
    device: str = "cpu"
    name: ClassVar[str] = "own"

    def identity(self) -> str:
        """Return the checkpoint's hash."""
        path = find(self.checkpoint)
        return f"{path.stem} {hash_file(path)[:16]}"

    def columns(self, copies: bool) -> Sequence[Column]:
        """Return what it scores, of conversions alone."""
        if copies:
            return ()
        return (
            Column("own_target", "own cosine to target", "cosine to the target by vcae's own speaker encoder", 1, False),
            Column("own_source", "own cosine to source", "cosine to the source by vcae's own speaker encoder", -1, False),
        )

    def needs(self, row: Row) -> Sequence[tuple[Path, ...]]:
        """Return the conversion, its source and its target."""
        return _voices(row)

    def open(self) -> Reader:
        """Load the model."""
        from vcae.tasks.model import load

        model = load(self.checkpoint, self.device)

        def read(wav: np.ndarray) -> list[float]:
            mel = model.analyse(wav, SAMPLE_RATE).mel
            return _plain(model.autoencoder.encode_speaker(mel)[0].detach().cpu())

        return read

    def score(self, row: Row, read: Readings) -> dict[str, Score]:
        """Return the columns' scores."""
        target = row.target_ref if isinstance(row, Conversion) else None
        own_target = NONE if target is None else _cosine(read(row.judged), read(target))
        return {"own_target": own_target, "own_source": _cosine(read(row.judged), read(row.original))}


class Pitch(Judge):
    """Distance of the median F0 from the target's, by the F0 estimator of vcae."""

    name = "pitch"

    def identity(self) -> str:
        """Return the version of the estimator."""
        return version("swift-f0")

    def columns(self, copies: bool) -> Sequence[Column]:
        """Return what it scores, of conversions alone."""
        return (
            ()
            if copies
            else (Column("f0_semitones", "F0 distance, semitones", "median F0 against the target's, semitones", -1, False),)
        )

    def needs(self, row: Row) -> Sequence[tuple[Path, ...]]:
        """Return the conversion and its target."""
        target = row.target_ref if isinstance(row, Conversion) else None
        return () if target is None else ((row.judged,), (target,))

    def open(self) -> Reader:
        """Return a function that measures the median of log-F0."""
        import torch

        return lambda wav: float(log_f0_statistics(torch.from_numpy(estimate_f0(wav)))[0])

    def score(self, row: Row, read: Readings) -> dict[str, Score]:
        """Return the columns' scores."""
        target = row.target_ref if isinstance(row, Conversion) else None
        found = [None, None] if target is None else [read(row.judged), read(target)]
        if found[0] is None or found[1] is None:
            return {"f0_semitones": NONE}
        return {"f0_semitones": Score(abs(found[0] - found[1]) * 12 / math.log(2))}
