"""Judges of naturalness: predicted mean opinion scores of listeners."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from vcae.audio.f0 import SAMPLE_RATE
from vcae.evaluation.scores import NONE, Column, Judge, Reader, Readings, Score, version
from vcae.evaluation.tables import Row


class DistillMos(Judge):
    """DistillMOS (Stahl and Gamper, Distillation and pruning for scalable self-supervised representation-based speech quality assessment, 2025)."""

    name = "distillmos"
    packages: ClassVar[dict[str, str]] = {"distillmos": "distillmos"}

    def identity(self) -> str:
        """Return the version; the weights are the package's."""
        return version("distillmos")

    def columns(self, copies: bool) -> Sequence[Column]:
        """Return what it scores."""
        what = "the reference" if copies else "the source"
        return (
            Column("distillmos", "DistillMOS", "naturalness, 1 to 5, predicted by DistillMOS", 1),
            Column(
                "distillmos_source",
                f"DistillMOS of {what}",
                f"naturalness of {what}, 1 to 5, predicted by DistillMOS",
                0,
                False,
            ),
        )

    def needs(self, row: Row) -> Sequence[tuple[Path, ...]]:
        """Return the conversion and its source."""
        return ((row.judged,), (row.original,))

    def open(self) -> Reader:
        """Load the model."""
        import torch

        # It prints the path of its weights, which does not belong in a report.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            import distillmos

            model = distillmos.ConvTransformerSQAModel().eval()

        def read(wav: np.ndarray) -> float:
            with torch.inference_mode():
                return float(model(torch.from_numpy(wav)[None]))

        return read

    def score(self, row: Row, read: Readings) -> dict[str, Score]:
        """Return the columns' scores."""
        values = {"distillmos": read(row.judged), "distillmos_source": read(row.original)}
        return {key: NONE if value is None else Score(value) for key, value in values.items()}


class Dnsmos(Judge):
    """DNSMOS: opinion scores of noisy speech (Reddy et al., 2021 and 2022). It reacts to noise and clicks, but hardly to muffled speech."""

    name = "dnsmos"
    packages: ClassVar[dict[str, str]] = {"speechmos": "speechmos"}

    def identity(self) -> str:
        """Return the version; the weights are the package's."""
        return version("speechmos")

    def columns(self, copies: bool) -> Sequence[Column]:
        """Return what it scores."""
        return (
            Column("ovrl", "DNSMOS OVRL", "overall quality, 1 to 5, predicted by DNSMOS", 1),
            Column("p808", "DNSMOS P.808", "quality after P.808, 1 to 5, predicted by DNSMOS", 1, False),
        )

    def needs(self, row: Row) -> Sequence[tuple[Path, ...]]:
        """Return the conversion."""
        return ((row.judged,),)

    def open(self) -> Reader:
        """Load the models."""
        from speechmos import dnsmos

        def read(wav: np.ndarray) -> dict[str, float]:
            found = dnsmos.run(wav, SAMPLE_RATE)
            return {"ovrl": float(found["ovrl_mos"]), "p808": float(found["p808_mos"])}

        return read

    def score(self, row: Row, read: Readings) -> dict[str, Score]:
        """Return the columns' scores."""
        found = read(row.judged)
        return {key: NONE if found is None else Score(found[key]) for key in ("ovrl", "p808")}
