"""The band above a model's: that of the source, moved to the new sound; or noise where the source has none.

A model's sound ends below 8 kHz. In short frames, the source's spectrum above that gets the envelope that the new sound has in the octave
below (the guide band) instead of the source's, so that it has the rhythm and the pulses of the new voice. In the long run its level in
each band follows a reference, if that has the band. The way of filling a band by its neighbour is that of spectral band replication.

Source: Dietz, Liljeryd, Kjorling and Kunz, Spectral Band Replication, a Novel Approach in Audio Coding (AES 112, 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Hop between frames, and half a frame, in seconds: short enough for the pulses of a low voice.
HOP_S = 0.004
# Band of the new sound whose envelope the band above follows, in Hz; resampling filters pass all of it.
GUIDE_HZ = (5000.0, 7000.0)
# Edges in Hz of the bands whose levels are measured; the last band has no upper edge.
EDGES_HZ = (8000, 9000, 10000, 11500, 13500, 16000, 20000)
# Smallest width of the highest band, in Hz.
MIN_WIDTH_HZ = 500
# A source has a band above the model's if its lowest part is within this of the guide band. Speech has -18 to 0 dB.
PRESENT_DB = -28.0
# Largest changes of a band's level towards the reference's, in dB.
MAX_CUT_DB, MAX_RAISE_DB = 20.0, 10.0
# Seconds of a reference at which half of that change is made, and weight of the source's levels at the beginning.
HALF_TRUST_S = 2.0
# Largest power above the model's band in a frame, relative to that of the guide band: 18 dB.
MAX_SHARE = 64.0
# Levels without a source, in dB relative to the guide band: medians of 50 voices, by benchmarks/high_band.py.
LIKELY_DB = (-6.3, -9.4, -12.9, -17.4, -21.6, -30.7, -51.6)
# Samples that are processed at a time.
PIECE = 1 << 18
TINY = 1e-12


@dataclass(frozen=True)
class BandProfile:
    """Long-term levels above the model's band.

    Attributes:
        levels_db: Power density of each band of `EDGES_HZ` in dB relative to that of the guide band; shorter for a lower sample rate.
        seconds: Length of the recording in seconds.
    """

    levels_db: tuple[float, ...]
    seconds: float

    @property
    def present(self) -> bool:
        """Whether the recording has a band above the model's."""
        return bool(self.levels_db) and self.levels_db[0] > PRESENT_DB


def has_high_band(sample_rate: int) -> bool:
    """Return whether sound of a sample rate in Hz has a band above the model's."""
    return sample_rate / 2 > EDGES_HZ[0] + MIN_WIDTH_HZ


class _Bands:
    """Frames and bands at a sample rate."""

    def __init__(self, sample_rate: int) -> None:
        self.hop = max(round(HOP_S * sample_rate), 8)
        n_fft = 2 * self.hop
        self.window = np.sin(np.pi * (np.arange(n_fft) + 0.5) / n_fft).astype(np.float32)
        self.hertz = np.fft.rfftfreq(n_fft, 1 / sample_rate)
        self.guide = slice(*np.searchsorted(self.hertz, GUIDE_HZ))
        edges = [edge for edge in EDGES_HZ if edge < sample_rate / 2 - MIN_WIDTH_HZ]
        starts = np.searchsorted(self.hertz, edges)
        self.slices = [slice(*pair) for pair in zip(starts, [*starts[1:], len(self.hertz)], strict=True)]
        # Band of each bin: below the first edge the first one.
        self.of_bin = np.clip(np.searchsorted(edges, self.hertz, side="right") - 1, 0, None)

    def spectra(self, wav: np.ndarray) -> np.ndarray:
        """Return the spectra (frames, bins) of samples (n,): frames of two hops, one at each hop."""
        frames = np.lib.stride_tricks.sliding_window_view(wav, 2 * self.hop)[:: self.hop]
        return np.asarray(np.fft.rfft(frames * self.window, axis=1))

    def densities(self, power: np.ndarray, parts: Sequence[slice]) -> np.ndarray:
        """Return the mean power per bin of each part of the spectrum: (frames, parts)."""
        return np.stack([power[:, part].mean(axis=1) for part in parts], axis=1)


class BandMeter:
    """Measurement of a recording's levels above the model's band, block by block.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate, self._bands, self._n = sample_rate, _Bands(sample_rate), 0
        self._rest = np.zeros(0, np.float32)
        self._sums = np.zeros(1 + len(self._bands.slices))

    def add(self, wav: np.ndarray) -> None:
        """Add samples (n,)."""
        for start in range(0, len(wav), PIECE):
            self._add(wav[start : start + PIECE])

    def _add(self, wav: np.ndarray) -> None:
        self._n += len(wav)
        joined = np.concatenate([self._rest, wav])
        n = len(joined) // self._bands.hop - 1
        if n > 0:
            power = np.square(np.abs(self._bands.spectra(joined[: (n + 1) * self._bands.hop])))
            self._sums += self._bands.densities(power, [self._bands.guide, *self._bands.slices]).sum(axis=0)
            joined = joined[n * self._bands.hop :]
        self._rest = joined

    def profile(self) -> BandProfile:
        """Return the levels so far."""
        levels = 10 * np.log10((self._sums[1:] + TINY) / (self._sums[0] + TINY))
        return BandProfile(tuple(float(level) for level in levels), self._n / self._sample_rate)


def mean_bands(parts: Sequence[tuple[BandProfile | None, float]]) -> BandProfile | None:
    """Return the weighted mean of levels, in the bands that all known ones have; None without any."""
    known = [(profile, weight) for profile, weight in parts if profile is not None and weight > 0]
    if not known:
        return None
    n = min(len(profile.levels_db) for profile, _ in known)
    total = sum(weight for _, weight in known)
    levels = sum(weight / total * np.array(profile.levels_db[:n]) for profile, weight in known)
    return BandProfile(tuple(float(x) for x in np.asarray(levels)), sum(profile.seconds for profile, _ in known))


def measure_bands(wav: np.ndarray, sample_rate: int) -> BandProfile | None:
    """Return the levels of a recording (N,) above the model's band; None if it has no such band."""
    if not has_high_band(sample_rate):
        return None
    meter = BandMeter(sample_rate)
    meter.add(wav)
    profile = meter.profile()
    return profile if profile.present else None


class HighBand:
    """Adds the band above a model's to its sound, block by block. The output does not depend on how the input is split into blocks.

    A sample is returned when the next hop of both inputs is complete.

    Attributes:
        delay_ms: Longest delay of a sample, without the time of the computation.

    Args:
        sample_rate: Sample rate of both inputs and of the output, in Hz.
        lowpass: The resampler that brings the model's sound to this rate: a function of samples (n,) at `model_rate`, which returns all of them.
        model_rate: Sample rate of the model, in Hz.
        source: Levels of the source; None if they are unknown and it has the band.
        target: Levels of the reference; None if it lacks the band.
        seed: Seed of the noise.
    """

    def __init__(
        self,
        sample_rate: int,
        lowpass: Callable[[np.ndarray], np.ndarray],
        model_rate: int,
        source: BandProfile | None = None,
        target: BandProfile | None = None,
        seed: int = 0,
    ) -> None:
        self._bands, self._seed = _Bands(sample_rate), seed
        self.delay_ms = 1000 * 2 * self._bands.hop / sample_rate
        self._moved = source is None or source.present
        self._gain = _missing(lowpass, model_rate, sample_rate, self._bands.hertz)
        self._target, self._prior = target, source if self._moved else BandProfile(LIKELY_DB, HALF_TRUST_S)
        # Frames so far, and sums of the power densities of the guide band and of the bands above.
        self._sums = np.zeros(2 + len(self._bands.slices))
        hop = self._bands.hop
        # The hop before the first frame is silence, and its output is dropped.
        self._low, self._source = np.zeros(hop, np.float32), np.zeros(hop, np.float32)
        self._tail = np.zeros(hop, np.float32)
        self._n = self._frames = 0

    def __call__(self, low: np.ndarray, source: np.ndarray) -> np.ndarray:
        """Add samples of the model's sound (n,) and of the source (n,), and return the sum of both bands that is ready."""
        self._n += len(low)
        self._low, self._source = np.concatenate([self._low, low]), np.concatenate([self._source, source])
        hop, n = self._bands.hop, len(self._low) // self._bands.hop - 1
        if n <= 0:
            return np.zeros(0, np.float32)
        high = self._high(self._low[: (n + 1) * hop], self._source[: (n + 1) * hop])
        frames = np.fft.irfft(high, axis=1).astype(np.float32) * self._bands.window
        early, late = frames[:, :hop], frames[:, hop:]
        made = early + np.concatenate([self._tail[None], late[:-1]])
        self._tail = late[-1]
        out = self._low[: n * hop] + made.reshape(-1)
        self._low, self._source = self._low[n * hop :], self._source[n * hop :]
        first = hop if self._frames == 0 else 0
        self._frames += n
        return np.asarray(out[first:], dtype=np.float32)

    def finish(self) -> np.ndarray:
        """Return the rest after the last input; the output is as long as the input."""
        hop, total = self._bands.hop, self._n
        given = max(self._frames - 1, 0) * hop
        silence = np.zeros(2 * hop, np.float32)
        return self(silence, silence)[: total - given]

    def _high(self, low: np.ndarray, source: np.ndarray) -> np.ndarray:
        """Return the spectra (frames, bins) of the band above for the frames of both inputs."""
        bands = self._bands
        power = np.square(np.abs(bands.spectra(low)))
        guide = power[:, bands.guide].mean(axis=1, keepdims=True)
        if self._moved:
            spectra = bands.spectra(source)
            own = np.square(np.abs(spectra[:, bands.guide])).mean(axis=1, keepdims=True)
            high = spectra * np.sqrt(guide / (own + TINY))
        else:
            likely = 10 ** (np.array(LIKELY_DB) / 10)
            high = self._noise(len(power)) * np.sqrt(guide * likely[bands.of_bin])
        high = high * self._gain
        if self._target is not None:
            high = high * self._correction(guide, np.square(np.abs(high)), self._target)[:, bands.of_bin]
        total = np.square(np.abs(high)).sum(axis=1, keepdims=True)
        most = MAX_SHARE * guide * (bands.guide.stop - bands.guide.start)
        return np.asarray(high * np.sqrt(np.minimum(1.0, most / (total + TINY))))

    def _noise(self, n: int) -> np.ndarray:
        """Return spectra (n, bins) of white noise with a mean power of 1 per bin; a frame's depends on its number and the seed."""
        size = 2 * self._bands.hop
        frames = [
            np.random.default_rng((self._seed, self._frames + k)).standard_normal(size, dtype=np.float32) for k in range(n)
        ]
        return np.asarray(np.fft.rfft(np.stack(frames) * self._bands.window, axis=1) / np.sqrt(size / 2))

    def _correction(self, guide: np.ndarray, power: np.ndarray, target: BandProfile) -> np.ndarray:
        """Return the gains (frames, bands) that bring the levels so far towards the reference's.

        Levels are measured as they come out, because what a source's band becomes depends on the new sound, too. The source's levels
        count at the beginning, with the weight of `HALF_TRUST_S`.

        Args:
            guide: (frames, 1), power density of the guide band.
            power: (frames, bins) of the band above before the correction.
            target: Levels of the reference.
        """
        n = len(self._bands.slices)
        rows = np.concatenate([np.ones_like(guide), guide, self._bands.densities(power, self._bands.slices)], axis=1)
        sums = np.cumsum(np.concatenate([self._sums[None], rows]), axis=0)[1:]
        self._sums = sums[-1]
        wanted = _padded(target.levels_db, n)
        prior = 10 ** (_padded((self._prior or target).levels_db, n) / 10)
        weight = sums[:, 1:2] / sums[:, :1] * HALF_TRUST_S / HOP_S
        have = 10 * np.log10((sums[:, 2:] + weight * prior + TINY) / (sums[:, 1:2] + weight + TINY))
        trust = target.seconds / (target.seconds + HALF_TRUST_S)
        return np.asarray(10 ** (np.clip(trust * (wanted - have), -MAX_CUT_DB, MAX_RAISE_DB) / 20))


def _padded(levels_db: Sequence[float], n: int) -> np.ndarray:
    """Return n levels; those of a recording with a lower rate go on as its last one."""
    known = np.array(levels_db[:n])
    return np.pad(known, (0, n - len(known)), mode="edge")


def _missing(lowpass: Callable[[np.ndarray], np.ndarray], model_rate: int, sample_rate: int, hertz: np.ndarray) -> np.ndarray:
    """Return the gain of each frequency that complements the power response of the resampler."""
    n = model_rate // 4
    impulse = np.zeros(n, np.float32)
    impulse[n // 2] = 1.0
    response = np.abs(np.fft.rfft(lowpass(impulse))) * model_rate / sample_rate
    at = np.interp(hertz, np.linspace(0, sample_rate / 2, len(response)), response)
    return np.asarray(np.sqrt(np.clip(1 - np.square(at), 0, 1)) * (hertz > GUIDE_HZ[1]))
