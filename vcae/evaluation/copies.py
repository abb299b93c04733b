"""Judges of copies: measures that compare a copy with its reference sample by sample or band by band."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from vcae.audio.f0 import SAMPLE_RATE
from vcae.evaluation.scores import NONE, Column, Judge, Reader, Readings, Score, version
from vcae.evaluation.tables import Copy, Row

MAX_SHIFT_S = 0.25
N_FFT, HOP_LENGTH, N_MELS = 1024, 256, 80
# Below the reference's peak, in dB: quieter bands count as equally quiet.
FLOOR_DB = -80.0


def align(degraded: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift a copy (N,) at 16 kHz by the lag of greatest cross-correlation, at most `MAX_SHIFT_S`, and cut both to a common length.

    The pulses of a vocoder may be shifted against the recording's; the lag found for such copies is that of the pulses, so do not align them.
    """
    n = 1 << math.ceil(math.log2(len(degraded) + len(reference)))
    correlation = np.fft.irfft(np.fft.rfft(degraded, n) * np.conj(np.fft.rfft(reference, n)), n)
    most = int(MAX_SHIFT_S * SAMPLE_RATE)
    lags = np.concatenate([np.arange(most + 1), np.arange(-most, 0)])
    lag = int(lags[np.argmax(correlation[lags])])
    shifted = degraded[lag:] if lag > 0 else np.concatenate([np.zeros(-lag, degraded.dtype), degraded])
    return cut(shifted, reference)


def cut(degraded: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both, cut to the shorter one's length."""
    n = min(len(degraded), len(reference))
    return degraded[:n], reference[:n]


@dataclass(frozen=True)
class Comparison(Judge):
    """Base class of judges that compare a copy with its reference.

    Attributes:
        aligned: Shift the copy by the lag of greatest correlation, see `align`.
    """

    aligned: bool = True
    column: ClassVar[Column]

    def identity(self) -> str:
        """Return the package's version, and whether copies are aligned."""
        return f"{', '.join(map(version, self.packages))}{', aligned' if self.aligned else ''}"

    def columns(self, copies: bool) -> Sequence[Column]:
        """Return the column of scores; copies only."""
        return (self.column,) if copies else ()

    def needs(self, row: Row) -> Sequence[tuple[Path, ...]]:
        """Return the copy with its reference."""
        return ((row.judged, row.original),) if isinstance(row, Copy) else ()

    def compare(self, degraded: np.ndarray, reference: np.ndarray) -> float:
        """Return the score of a copy (N,) at 16 kHz against its reference (N,); nan if there is none."""
        raise NotImplementedError

    def open(self) -> Reader:
        """Return the function that compares a copy with its reference."""
        put = align if self.aligned else cut
        return lambda degraded, reference: self.compare(*put(degraded, reference))

    def score(self, row: Row, read: Readings) -> dict[str, Score]:
        """Return the column's score."""
        value = read(row.judged, row.original)
        return {self.column.key: NONE if value is None else Score(value)}


@dataclass(frozen=True)
class Pesq(Comparison):
    """PESQ for wide-band speech (ITU-T P.862.2)."""

    name: ClassVar[str] = "pesq"
    packages: ClassVar[dict[str, str]] = {"pesq": "pesq"}
    column: ClassVar[Column] = Column("pesq_wb", "PESQ-wb", "wide-band PESQ against the reference, 1 to 4.64", 1)

    def compare(self, degraded: np.ndarray, reference: np.ndarray) -> float:
        """Return PESQ; nan if it finds no utterance."""
        from pesq import NoUtterancesError, pesq

        if not degraded.any() or not reference.any():
            return math.nan
        try:
            return float(pesq(SAMPLE_RATE, reference, degraded, "wb"))
        except NoUtterancesError:
            return math.nan


@dataclass(frozen=True)
class Stoi(Comparison):
    """Short-time objective intelligibility (Taal et al., 2011)."""

    name: ClassVar[str] = "stoi"
    packages: ClassVar[dict[str, str]] = {"pystoi": "pystoi"}
    column: ClassVar[Column] = Column("stoi", "STOI", "short-time objective intelligibility against the reference, 0 to 1", 1)

    def compare(self, degraded: np.ndarray, reference: np.ndarray) -> float:
        """Return STOI."""
        from pystoi import stoi

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(stoi(reference, degraded, SAMPLE_RATE, extended=False))


@dataclass(frozen=True)
class MelDistance(Comparison):
    """Mean absolute difference of the log-mel power, both floored under the reference's peak."""

    name: ClassVar[str] = "mel"
    packages: ClassVar[dict[str, str]] = {"librosa": "librosa"}
    column: ClassVar[Column] = Column(
        "mel_db",
        "mel dB",
        f"mean difference of the log-mel, {N_MELS} bands, floor {-FLOOR_DB:g} dB under the reference's peak, in dB",
        -1,
    )

    def compare(self, degraded: np.ndarray, reference: np.ndarray) -> float:
        """Return the distance in dB."""
        a, b = _mel_power(degraded), _mel_power(reference)
        floor = b.max() * 10 ** (FLOOR_DB / 10)
        if floor <= 0:
            return math.nan
        return float(np.abs(10 * np.log10(np.maximum(a, floor)) - 10 * np.log10(np.maximum(b, floor))).mean())


@functools.lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    from librosa.filters import mel

    filters: np.ndarray = mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=N_MELS, fmin=0, fmax=SAMPLE_RATE // 2)
    return filters


def _mel_power(wav: np.ndarray) -> np.ndarray:
    import librosa

    power: np.ndarray = _mel_filters() @ np.abs(librosa.stft(wav, n_fft=N_FFT, hop_length=HOP_LENGTH)) ** 2
    return power
