"""Scores: a number and a weight each, and what many of them say of a system.

A system's figure is the weighted mean over its files, so that error rates count words, not files.
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
# What a judge takes in (the files it hears at once) and returns as plain data; what a row's scores are made of.
Reader = Callable[..., Any]
Readings = Callable[..., Any]


@dataclass(frozen=True)
class Column:
    """A score: its key, a heading, what it is, which way is better (1 up, -1 down, 0 neither), and whether the short table shows it."""

    key: str
    heading: str
    meaning: str
    better: int
    headline: bool = True


@dataclass(frozen=True)
class Score:
    """A value, and how much it counts in a mean; nan where there is none."""

    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


NONE = Score(math.nan, 0.0)


class Judge:
    """What scores rows, in two steps: it reads files, which takes long and is remembered; from what was read come the scores.

    Attributes:
        name: By which it is chosen.
        packages: What has to be installed: the module by the name that pip knows.
    """

    name: ClassVar[str] = ""
    packages: ClassVar[dict[str, str]] = {}

    def identity(self) -> str:
        """Return what decides a reading beside the sound: versions, weights, options. One that changes is read anew.

        Raises:
            DataError: If the judge is not installed or lacks its weights.
        """
        raise NotImplementedError

    def columns(self, copies: bool) -> Sequence[Column]:
        """Return what it scores of conversions, or of copies; nothing if they are not its business."""
        raise NotImplementedError

    def needs(self, row: Row) -> Sequence[tuple[Path, ...]]:
        """Return the files that it has to read for a row; those in one tuple are heard at once."""
        raise NotImplementedError

    def open(self) -> Reader:
        """Load it and return what reads: sounds (N,) at 16 kHz, as many as a tuple of `needs` has files, to plain data."""
        raise NotImplementedError

    def score(self, row: Row, read: Readings) -> dict[str, Score]:
        """Return a row's scores by column key.

        Args:
            row: What is judged.
            read: Returns what was read of the files that it is given; None if that failed.
        """
        raise NotImplementedError

    def texts(self, row: Row, read: Readings) -> tuple[list[str], list[str]] | None:
        """Return the words that were to be heard and those that were; None if words are not its business, or were not read."""
        return None


def version(package: str) -> str:
    """Return a package's name and version, for a judge's identity."""
    return f"{package} {importlib.metadata.version(package)}"


def load_wav(path: Path) -> np.ndarray:
    """Return a file (N,) float32 at 16 kHz, as every judge hears it."""
    sound = read_sound(path)
    wav = resample(sound.wav, sound.sample_rate, SAMPLE_RATE)
    peak = float(np.abs(wav).max())
    return wav / peak if peak > 1 else wav


def mean(scores: Sequence[Score]) -> float:
    """Return the weighted mean of the scores that are numbers; nan when there are none."""
    kept = [s for s in scores if not math.isnan(s.value) and s.weight > 0]
    return sum(s.value * s.weight for s in kept) / sum(s.weight for s in kept) if kept else math.nan


def interval(scores: Sequence[Score], seed: int = 0) -> Interval:
    """Return the weighted mean and its 95 % interval, from files drawn anew with replacement (percentile bootstrap).

    Source: Efron, Bootstrap methods: another look at the jackknife (1979); for word error rates Bisani and Ney, Bootstrap estimates for
    confidence intervals in ASR performance evaluation (2004).
    """
    kept = [s for s in scores if not math.isnan(s.value) and s.weight > 0]
    if not kept:
        return Interval(math.nan, math.nan, math.nan)
    drawn = _draw(np.array([(s.value, s.weight) for s in kept])[None], seed)[0]
    return Interval(mean(kept), *(float(q) for q in np.quantile(drawn, (0.025, 0.975))))


def paired_difference(first: Sequence[Score], second: Sequence[Score], seed: int = 0) -> tuple[Interval, int]:
    """Return by how much the second system's figure is above the first's, with its 95 % interval, and the number of pairs.

    Pairs are drawn anew with replacement, both systems' scores of a pair together; error rates are pooled over words in each draw.

    Args:
        first: Scores of one system.
        second: Scores of the other, of the same pairs in the same order; a pair that one of them lacks counts for neither.
        seed: Of the draws.
    """
    both = [(a, b) for a, b in zip(first, second, strict=True) if not math.isnan(a.value + b.value) and a.weight * b.weight > 0]
    if not both:
        return Interval(math.nan, math.nan, math.nan), 0
    systems = np.array([[(s.value, s.weight) for s in side] for side in zip(*both, strict=True)])
    drawn = _draw(systems, seed)
    low, high = np.quantile(drawn[1] - drawn[0], (0.025, 0.975))
    return Interval(mean([b for _, b in both]) - mean([a for a, _ in both]), float(low), float(high)), len(both)


def _draw(systems: np.ndarray, seed: int) -> np.ndarray:
    """Return the means (systems, N_RESAMPLES) of values and weights (systems, n, 2) drawn with replacement, the same draw for all."""
    n = systems.shape[1]
    index = np.random.default_rng(seed).integers(0, n, (N_RESAMPLES, n))
    value, weight = systems[..., 0][:, index], systems[..., 1][:, index]
    means: np.ndarray = (value * weight).sum(-1) / weight.sum(-1)
    return means
