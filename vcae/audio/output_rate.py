"""A model's sound at another sample rate, with the band above the model's (`HighBand`), for files and live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from vcae.audio.high_band import PIECE, BandProfile, HighBand, has_high_band
from vcae.audio.loudness import RunningLimiter
from vcae.audio.pcm import QuickResampler


class _Resampler(Protocol):
    """Resampler of a stream."""

    def __call__(self, wav: np.ndarray) -> np.ndarray:
        """Add samples (n,) and return the output that is ready."""

    def finish(self) -> np.ndarray:
        """Return the rest."""


class _GoodResampler:
    """Resampler of a stream with soxr at high quality, with a delay of 20 to 115 ms."""

    def __init__(self, sample_rate: int, new_sample_rate: int) -> None:
        import soxr

        self._stream = None
        if sample_rate != new_sample_rate:
            self._stream = soxr.ResampleStream(sample_rate, new_sample_rate, 1, dtype="float32", quality="HQ")

    def __call__(self, wav: np.ndarray) -> np.ndarray:
        """Add samples (n,) and return the output that is ready."""
        wav = wav.astype(np.float32, copy=False)
        return wav if self._stream is None else np.asarray(self._stream.resample_chunk(wav))

    def finish(self) -> np.ndarray:
        """Return the rest."""
        nothing = np.zeros(0, np.float32)
        return nothing if self._stream is None else np.asarray(self._stream.resample_chunk(nothing, last=True))


class OutputRate:
    """Changes the sample rate of a model's sound to a given one, and adds the band above the model's, block by block.

    The output is as long as the source at that rate, to a sample, and does not depend on how the inputs are split into blocks.

    Args:
        model_rate: Sample rate of the model's sound, in Hz.
        source_rate: Sample rate of its source, in Hz.
        sample_rate: Sample rate of the output, in Hz.
        source: Levels of the source above the model's band; None if they are unknown.
        target: Levels of the reference; None if they are unknown.
        seed: Seed of the noise that replaces a missing band.
        quick: Resample with a delay under 2 ms, for live sound.

    Attributes:
        delay_ms: Delay from input to output, in ms; of the quick resampler only.
    """

    def __init__(
        self,
        model_rate: int,
        source_rate: int,
        sample_rate: int,
        source: BandProfile | None = None,
        target: BandProfile | None = None,
        seed: int = 0,
        quick: bool = False,
    ) -> None:
        kind = QuickResampler if quick else _GoodResampler
        self._up: _Resampler = kind(model_rate, sample_rate)
        self._across: _Resampler = kind(source_rate, sample_rate)
        self._high = None
        self.delay_ms = sum(r.delay_ms for r in (self._up, self._across) if isinstance(r, QuickResampler))
        if has_high_band(sample_rate):

            def lowpass(wav: np.ndarray) -> np.ndarray:
                up = kind(model_rate, sample_rate)
                return np.concatenate([up(wav), up.finish()])

            # Without a band in the source there is none to move, whatever was measured.
            source = source if has_high_band(source_rate) else BandProfile((), 0.0)
            self._high = HighBand(sample_rate, lowpass, model_rate, source, target, seed)
            self.delay_ms += self._high.delay_ms
        # The limiter takes longer than live sound can wait.
        self._limiter = None if quick else RunningLimiter(1)
        self._low, self._source = np.zeros(0, np.float32), np.zeros(0, np.float32)

    @property
    def missing(self) -> int:
        """Samples of the model's sound, at the output's rate, that wait for the source."""
        return len(self._low) - len(self._source)

    def hear(self, wav: np.ndarray) -> None:
        """Add samples (n,) of the source, at its rate."""
        self._source = np.concatenate([self._source, self._across(wav)])

    def __call__(self, wav: np.ndarray) -> np.ndarray:
        """Add samples (n,) of the model's sound, at its rate, and return the output that is ready."""
        self._low = np.concatenate([self._low, self._up(wav)])
        return self._join(min(len(self._low), len(self._source)))

    def finish(self) -> np.ndarray:
        """Return the rest of the output after the last inputs, as long as the source."""
        self._low = np.concatenate([self._low, self._up.finish()])
        self._source = np.concatenate([self._source, self._across.finish()])
        n = len(self._source)
        self._low = np.pad(self._low[:n], (0, max(n - len(self._low), 0)))
        pieces = [self._join(n)]
        if self._high is not None:
            pieces.append(self._limited(self._high.finish()))
        if self._limiter is not None:
            pieces.append(self._limiter.finish()[:, 0])
        return np.concatenate(pieces)

    def _join(self, n: int) -> np.ndarray:
        """Return the output for the next n samples of both."""
        low, source = self._low[:n], self._source[:n]
        self._low, self._source = self._low[n:], self._source[n:]
        return self._limited(low if self._high is None else self._high(low, source))

    def _limited(self, wav: np.ndarray) -> np.ndarray:
        return wav if self._limiter is None else self._limiter(wav[:, None])[:, 0]


def change_rate(output: OutputRate, blocks: Iterable[np.ndarray], source: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield a model's sound at another rate; the source is read as far as it is needed.

    Args:
        output: Change of the rate.
        blocks: The model's sound, (n,) each.
        source: The source, (n,) each.
    """
    source = (block[start : start + PIECE] for block in source for start in range(0, len(block), PIECE))
    for block in blocks:
        made = [output(block)]
        while output.missing > 0 and (heard := next(source, None)) is not None:
            output.hear(heard)
            made.append(output(np.zeros(0, np.float32)))
        yield np.concatenate(made)
    for heard in source:
        output.hear(heard)
    yield output.finish()
