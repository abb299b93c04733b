"""Scores with weights, their means, and bootstrap intervals.

A system's score is the weighted mean over its files, so that error rates are over words, not files.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vcae.audio.f0 import SAMPLE_RATE
from vcae.audio.io import read_sound, resample
from vcae.evaluation.tables import Row

N_RESAMPLES = 2000
# A judge's function from sounds, as many as a tuple of `Judge.needs` has files, to plain data.
Reader = Callable[..., Any]
Readings = Callable[..., Any]


@dataclass(frozen=True)
class Column:
    """Column of scores: key, heading, meaning, better direction (1 up, -1 down, 0 neither), and whether the short table shows it."""

    key: str
    heading: str
    meaning: str
    better: int
    headline: bool = True


@dataclass(frozen=True)
class Score:
    """Value with its weight in a mean; nan if there is none."""

    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Interval:
    """Estimate with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


NONE = Score(math.nan, 0.0)


class Judge:
    """Base class of judges, which score rows in two steps: slow readings of files, which are cached, and scores computed from them.

    Attributes:
        name: Name of the judge.
        packages: Required packages: module names by pip's names.
    """

    name: ClassVar[str] = ""
    packages: ClassVar[dict[str, str]] = {}

    def identity(self) -> str:
        """Return what determines a reading besides the sound: versions, weights, options. If it changes, files are read again.

        Raises:
            DataError: If the judge is not installed or lacks its weights.
        """
        raise NotImplementedError

    def columns(self, copies: bool) -> Sequence[Column]:
        """Return the columns of scores for conversions, or for copies; empty if the judge does not apply."""
        raise NotImplementedError

    def needs(self, row: Row) -> Sequence[tuple[Path, ...]]:
        """Return the files to read for a row; files in one tuple are read together."""
        raise NotImplementedError

    def open(self) -> Reader:
        """Load the judge and return its function from sounds (N,) at 16 kHz, as many as a tuple of `needs` has files, to plain data."""
        raise NotImplementedError

    def score(self, row: Row, read: Readings) -> dict[str, Score]:
        """Return a row's scores by column key.

        Args:
            row: The conversion or copy.
            read: Function that returns the reading of the given files; None if it failed.
        """
        raise NotImplementedError

    def texts(self, row: Row, read: Readings) -> tuple[list[str], list[str]] | None:
        """Return the expected and the recognised words; None if the judge does not recognise words, or could not read the files."""
        return None


def version(package: str) -> str:
    """Return a package's name and version, for a judge's identity."""
    return f"{package} {importlib.metadata.version(package)}"


def load_wav(path: Path) -> np.ndarray:
    """Read a file as (N,) float32 at 16 kHz, in the form that all judges get."""
    sound = read_sound(path)
    wav = resample(sound.wav, sound.sample_rate, SAMPLE_RATE)
    peak = float(np.abs(wav).max())
    return wav / peak if peak > 1 else wav


def mean(scores: Sequence[Score]) -> float:
    """Return the weighted mean of the scores that are numbers; nan when there are none."""
    kept = [s for s in scores if not math.isnan(s.value) and s.weight > 0]
    return sum(s.value * s.weight for s in kept) / sum(s.weight for s in kept) if kept else math.nan


def interval(scores: Sequence[Score], seed: int = 0) -> Interval:
    """Return the weighted mean with its 95 % interval from resampled files (percentile bootstrap).

    Source: Efron, Bootstrap methods: another look at the jackknife (1979); for word error rates Bisani and Ney, Bootstrap estimates for
    confidence intervals in ASR performance evaluation (2004).
    """
    kept = [s for s in scores if not math.isnan(s.value) and s.weight > 0]
    if not kept:
        return Interval(math.nan, math.nan, math.nan)
    drawn = _draw(np.array([(s.value, s.weight) for s in kept])[None], seed)[0]
    return Interval(mean(kept), *(float(q) for q in np.quantile(drawn, (0.025, 0.975))))


def paired_difference(first: Sequence[Score], second: Sequence[Score], seed: int = 0) -> tuple[Interval, int]:
    """Return the second system's mean minus the first's with its 95 % interval, and the number of pairs.

    Pairs are resampled with replacement, both systems' scores of a pair together; error rates are pooled over words in each sample.

    Args:
        first: Scores of one system.
        second: Scores of the other for the same pairs in the same order; pairs that one of them lacks are ignored.
        seed: Seed of the bootstrap.
    """
    both = [(a, b) for a, b in zip(first, second, strict=True) if not math.isnan(a.value + b.value) and a.weight * b.weight > 0]
    if not both:
        return Interval(math.nan, math.nan, math.nan), 0
    systems = np.array([[(s.value, s.weight) for s in side] for side in zip(*both, strict=True)])
    drawn = _draw(systems, seed)
    low, high = np.quantile(drawn[1] - drawn[0], (0.025, 0.975))
    return Interval(mean([b for _, b in both]) - mean([a for a, _ in both]), float(low), float(high)), len(both)


def _draw(systems: np.ndarray, seed: int) -> np.ndarray:
    """Return the weighted means (systems, N_RESAMPLES) of resampled values and weights (systems, n, 2), with the same samples for all."""
    n = systems.shape[1]
    index = np.random.default_rng(seed).integers(0, n, (N_RESAMPLES, n))
    value, weight = systems[..., 0][:, index], systems[..., 1][:, index]
    means: np.ndarray = (value * weight).sum(-1) / weight.sum(-1)
    return means
