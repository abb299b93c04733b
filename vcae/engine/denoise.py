"""Denoising of recordings of any length, rate and number of channels in bounded memory, and of live sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vcae.audio.io import Sound, resample_blocks
from vcae.audio.loudness import SILENCE_LEVEL, TARGET_LEVEL, LevelMeter
from vcae.audio.pcm import QuickResampler
from vcae.audio.sections import StoredSections
from vcae.checkpoint import load_module
from vcae.engine.engine import Samples, as_sound, choose_device
from vcae.engine.listening import Source
from vcae.errors import AudioError
from vcae.files import provenance
from vcae.model.denoiser import PART, Denoiser, denoiser_of
from vcae.model.remainder import N_COMPARED, compared_powers, noise_left
from vcae.options import DENOISE_STRENGTH, check_strength

SHIPPED = "denoiser"
MIN_S = 0.1
# Seconds of a recording that are in memory at a time.
SECTION_S = 10.0
# The gain of the band above the network's is that of its highest octave, from this frequency in Hz.
GUIDE_HZ = 4000
# Frames whose gains are kept for the band above, in addition to those of the newest block: 16 s, more than the delay of resampling.
KEPT_GAINS = 1000
# Limits of the level relative to `TARGET_LEVEL`: the range of the training data. Recordings outside are scaled to them.
QUIETER, LOUDER = 10 ** (-24 / 20), 10 ** (8 / 20)


class ChannelSource(Protocol):
    """Source with channels: a `Sound`, or a `SoundReader` of a file."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    def channel_blocks(self) -> Iterator[np.ndarray]:
        """Yield samples (n, channels), float32."""


class RunningDenoiser:
    """Streaming denoiser. The output does not depend on how the input is split into blocks.

    A sample is returned when the next hop is complete: with hops of 16 ms, 16 to 32 ms after its input.

    Attributes:
        latency_ms: Longest delay of a sample, without the time of the computation.

    Args:
        network: The denoiser.
        n_channels: Number of channels, which are denoised independently.
        strength: Strength from 0 (unchanged) to 1 (full denoising): the rest of the input is mixed in. Where the noise is loud beside
            speech, more is: its square root.
    """

    def __init__(self, network: Denoiser, n_channels: int = 1, strength: float = DENOISE_STRENGTH) -> None:
        self._network, self._strength = network, check_strength(strength)
        self._hop = network.config.hop_length
        self.latency_ms = 1000 * 2 * self._hop / network.config.sample_rate
        self._window, self._device = network.window, network.window.device
        first = round(GUIDE_HZ * network.config.n_fft / network.config.sample_rate)
        self._guide = slice(first, network.config.n_fft // 2)
        self._memory = network.start(n_channels)
        self._compared = torch.zeros(n_channels, 3, N_COMPARED - 1, device=self._device)
        self._rest = np.zeros((n_channels, 0), np.float32)
        # The hop before the first frame is silence, and its output is dropped.
        self._last = torch.zeros(n_channels, self._hop, device=self._device)
        self._tail = torch.zeros(n_channels, self._hop, device=self._device)
        self._taken = self._given = 0
        self._started = False
        self._gains, self._forgotten = np.zeros((n_channels, 0), np.float32), 0

    @torch.inference_mode()
    def __call__(self, wav: np.ndarray) -> np.ndarray:
        """Process samples (channels, n) at the network's rate and return the available output (channels, n')."""
        self._taken += wav.shape[1]
        joined = np.concatenate([self._rest, wav], axis=1)
        whole = joined.shape[1] // self._hop * self._hop
        self._rest = joined[:, whole:]
        if not whole:
            return joined[:, :0]
        made = self._frames(torch.from_numpy(np.ascontiguousarray(joined[:, :whole])).to(self._device))
        if not self._started:
            self._started, made = True, made[:, self._hop :]
        self._given += made.shape[1]
        return made.cpu().numpy()

    def finish(self) -> np.ndarray:
        """Return the rest of the output after the last input; the total length equals that of the input."""
        left, taken = self._taken - self._given, self._taken
        made = self(np.zeros((len(self._rest), 2 * self._hop - self._rest.shape[1]), np.float32))
        self._taken = taken
        return made[:, :left]

    def gains(self, sample: np.ndarray) -> np.ndarray:
        """Return the gain of the upper half of the band at recent output positions (n,) in samples: (channels, n)."""
        at = np.arange(self._gains.shape[1]) + self._forgotten
        return np.stack([np.interp(sample / self._hop, at, gains) for gains in self._gains]).astype(np.float32)

    def _frames(self, wav: Tensor) -> Tensor:
        """Denoise complete hops (channels, n) and return as many, delayed by one hop."""
        n_fft, hop = self._network.config.n_fft, self._hop
        joined = torch.cat([self._last, wav], dim=1)
        self._last = joined[:, -hop:]
        spectrum = torch.fft.rfft(joined.unfold(1, n_fft, hop) * self._window).transpose(1, 2)
        clean, self._memory = self._network.filter(spectrum, self._memory)
        removed = spectrum - clean
        speech, noise = (torch.view_as_real(x).square().sum(dim=(1, 3)) for x in (clean, removed))
        compared = torch.cat([self._compared, compared_powers(speech, noise)], dim=2)
        self._compared = compared[:, :, -(N_COMPARED - 1) :]
        clean = clean + noise_left(compared, self._strength)[:, None] * removed
        powers = [x[:, self._guide].abs().square().sum(dim=1) + 1e-9 for x in (clean, spectrum)]
        gains = (powers[0] / powers[1]).sqrt().clamp(max=1.0).cpu().numpy()
        joined_gains = np.concatenate([self._gains, gains], axis=1)
        self._forgotten += max(joined_gains.shape[1] - gains.shape[1] - KEPT_GAINS, 0)
        self._gains = joined_gains[:, -(gains.shape[1] + KEPT_GAINS) :]
        frames = torch.fft.irfft(clean.transpose(1, 2), n_fft) * self._window
        # Two windows overlap at each sample, and their squares sum to one.
        early, late = frames[..., :hop], frames[..., hop:]
        before = torch.cat([self._tail[:, None], late[:, :-1]], dim=1)
        self._tail = late[:, -1]
        made: Tensor = (early + before).flatten(1)
        return made


class _Resampler(Protocol):
    """Resampler of a stream with channels."""

    def __call__(self, wav: np.ndarray, last: bool = False) -> np.ndarray:
        """Add samples (channels, n) and return the output that is ready; with `last`, all that is left."""


class _GoodResampler:
    """Resampler with soxr at high quality, with a delay of 20 to 115 ms."""

    def __init__(self, sample_rate: int, new_sample_rate: int, n_channels: int) -> None:
        import soxr

        self._stream = soxr.ResampleStream(sample_rate, new_sample_rate, n_channels, dtype="float32", quality="HQ")

    def __call__(self, wav: np.ndarray, last: bool = False) -> np.ndarray:
        return np.asarray(self._stream.resample_chunk(np.ascontiguousarray(wav.T), last=last).T)


class _LiveResampler:
    """Resampler with a delay under 2 ms."""

    def __init__(self, sample_rate: int, new_sample_rate: int, n_channels: int) -> None:
        self._streams = [QuickResampler(sample_rate, new_sample_rate) for _ in range(n_channels)]
        self.delay_ms = self._streams[0].delay_ms

    def __call__(self, wav: np.ndarray, last: bool = False) -> np.ndarray:
        made = np.stack([stream(samples) for stream, samples in zip(self._streams, wav, strict=True)])
        return np.concatenate([made, np.stack([stream.finish() for stream in self._streams])], axis=1) if last else made


class FullBandDenoiser:
    """Streaming denoiser for any sample rate: above the network's band, the gain is that of the band's highest octave.

    Attributes:
        latency_ms: Longest delay of a sample, without the time of the computation; with `quick` only.

    Args:
        network: The denoiser.
        sample_rate: Sample rate of the sound, in Hz.
        n_channels: Number of channels, which are denoised independently.
        strength: As for `RunningDenoiser`.
        quick: Resample with a delay under 2 ms, for live sound.
    """

    def __init__(
        self,
        network: Denoiser,
        sample_rate: int,
        n_channels: int = 1,
        strength: float = DENOISE_STRENGTH,
        quick: bool = False,
    ) -> None:
        own = network.config.sample_rate
        self._running, self._wide = RunningDenoiser(network, n_channels, strength), sample_rate > own
        self._ratio = own / sample_rate
        self._same = sample_rate == own
        kind = _LiveResampler if quick else _GoodResampler
        self._down: _Resampler = kind(sample_rate, own, n_channels)
        self._up: _Resampler = kind(own, sample_rate, n_channels)
        delays = [resampler.delay_ms for resampler in (self._down, self._up) if isinstance(resampler, _LiveResampler)]
        self.latency_ms = self._running.latency_ms + sum(delays)
        self._input = np.zeros((n_channels, 0), np.float32)
        self._low = np.zeros((n_channels, 0), np.float32)
        self._n_input = self._n_low = 0

    def __call__(self, wav: np.ndarray, last: bool = False) -> np.ndarray:
        """Process samples (channels, n) and return the available output; with `last`, all that is left."""
        if self._same:
            made = self._running(wav)
            return np.concatenate([made, self._running.finish()], axis=1) if last else made
        self._input = np.concatenate([self._input, wav], axis=1)
        low = self._down(wav, last)
        self._low = np.concatenate([self._low, low], axis=1)
        clean = self._running(low)
        if last:
            clean = np.concatenate([clean, self._running.finish()], axis=1)
        n = clean.shape[1]
        # Only the change of the band is resampled, so that unchanged sound stays bit-identical.
        change = clean - self._gains(self._n_low, n, 1.0) * self._low[:, :n]
        self._low, self._n_low = self._low[:, n:], self._n_low + n
        moved = self._up(change, last)
        n = self._input.shape[1] if last else min(moved.shape[1], self._input.shape[1])
        moved = np.pad(moved, ((0, 0), (0, max(n - moved.shape[1], 0))))[:, :n]
        made = self._gains(self._n_input, n, self._ratio) * self._input[:, :n] + moved
        self._input, self._n_input = self._input[:, n:], self._n_input + n
        return np.asarray(made, np.float32)

    def finish(self) -> np.ndarray:
        """Return the rest of the output after the last input; the total length equals that of the input."""
        return self(self._input[:, :0], last=True)

    def _gains(self, first: int, n: int, ratio: float) -> np.ndarray | float:
        return self._running.gains((first + np.arange(n)) * ratio) if self._wide and n else 1.0


@dataclass(frozen=True)
class Cleaned:
    """Denoised recording, computed while it is read; it can be used as a source.

    Attributes:
        name: For messages.
        sample_rate: Hz.
        n_channels: Number of channels of the recording.
        duration_s: Length in seconds.
    """

    name: str
    sample_rate: int
    n_channels: int
    duration_s: float
    _network: Denoiser
    _input: StoredSections
    _gain: float
    _strength: float

    def channel_blocks(self) -> Iterator[np.ndarray]:
        """Yield the denoised samples (n, channels), float32, at the original level. Can be called again."""
        step, n = round(SECTION_S * self.sample_rate), self._input.n
        band = FullBandDenoiser(self._network, self.sample_rate, self.n_channels, self._strength)
        for start in range(0, n, step):
            stop = min(start + step, n)
            made = band(self._input.read(start, stop)[0].numpy() * np.float32(self._gain), last=stop == n)
            if made.shape[1]:
                yield np.ascontiguousarray(np.clip(made / np.float32(self._gain), -1, 1).T)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the same mixed to mono: (n,)."""
        for block in self.channel_blocks():
            yield block[:, 0] if self.n_channels == 1 else block.mean(axis=1)


class Cleaner:
    """Denoiser with its weights on a device.

    Args:
        name: Name of a shipped file, or a path.
        device: See `choose_device`.

    Raises:
        CheckpointError: If the file cannot be loaded, or holds no denoiser.
        ConfigError: If the device is not available.
    """

    def __init__(self, name: str | Path = SHIPPED, device: str = "auto") -> None:
        self.device = choose_device(device)
        network, self.file = load_module(name, PART, denoiser_of)
        self.network = network.to(self.device).requires_grad_(False)

    def __repr__(self) -> str:
        return f"Cleaner({self.file.path.stem}, {self.sample_rate} Hz, {self.device})"

    @property
    def sample_rate(self) -> int:
        """Sample rate of the network, and of `running`, in Hz."""
        return self.network.config.sample_rate

    def clean(self, source: ChannelSource, strength: float = DENOISE_STRENGTH) -> Cleaned:
        """Read a recording and return it denoised, with its length, rate and channels.

        Args:
            source: A `Sound`, or a `SoundReader`; at least 0.1 s.
            strength: Strength from 0 (unchanged) to 1 (full denoising): the rest of the input is mixed in. Where the noise is loud beside
            speech, more is: its square root.

        Raises:
            AudioError: For unusable audio, or a full disk.
            ConfigError: For a strength that is not allowed.
        """
        check_strength(strength)
        meter, kept, channels = LevelMeter(), StoredSections(False, torch.device("cpu")), 1
        limit, on_disk = round(SECTION_S * source.sample_rate), False
        for block in source.channel_blocks():
            channels = block.shape[1]
            meter.add(block[:, 0] if channels == 1 else np.sqrt(np.square(block).mean(axis=1)))
            if meter.n > limit and not on_disk:
                memory, kept, on_disk = kept, StoredSections(True, torch.device("cpu")), True
                if memory.n:
                    kept.append(memory.read(0, memory.n))
            if len(block):
                kept.append(torch.from_numpy(np.ascontiguousarray(block.T))[None])
        duration_s = meter.n / source.sample_rate
        if duration_s < MIN_S:
            raise AudioError(f"{source.name} is {duration_s:.2f} s long; at least {MIN_S:g} s are needed")
        level = (meter.changed(meter.mean) if channels == 1 else meter).level()
        if level < SILENCE_LEVEL:
            raise AudioError(f"{source.name} is silent (level {level:.1e} of full scale); give a recording with sound in it")
        gain = min(max(level, TARGET_LEVEL * QUIETER), TARGET_LEVEL * LOUDER) / level
        return Cleaned(source.name, source.sample_rate, channels, duration_s, self.network, kept, gain, strength)

    def clean_mono(self, source: Source, strength: float = DENOISE_STRENGTH, sample_rate: int | None = None) -> Cleaned:
        """Denoise a recording mixed to mono, at a rate in Hz (the network's when None); the rest as in `clean`."""
        return self.clean(_Mono(source, sample_rate or self.sample_rate), strength)

    def sound(self, source: ChannelSource, strength: float = DENOISE_STRENGTH) -> Sound:
        """Return a denoised recording all at once, with its rate and channels; arguments and errors as in `clean`."""
        cleaned = self.clean(source, strength)
        wav = np.concatenate(list(cleaned.channel_blocks()))
        return Sound(wav[:, 0] if cleaned.n_channels == 1 else wav, cleaned.sample_rate, source.name)

    def running(self, n_channels: int = 1, strength: float = DENOISE_STRENGTH) -> RunningDenoiser:
        """Return a streaming denoiser at the network's rate."""
        return RunningDenoiser(self.network, n_channels, strength)

    def live(self, sample_rate: int, strength: float = DENOISE_STRENGTH) -> FullBandDenoiser:
        """Return a streaming denoiser of mono sound at a rate in Hz, which is quick enough for live sound."""
        return FullBandDenoiser(self.network, sample_rate, 1, strength, quick=True)


@lru_cache(maxsize=2)
def shared_cleaner(device: str) -> Cleaner:
    """Return the shipped denoiser on a device, loaded once per process."""
    return Cleaner(device=device)


class _Mono:
    """Source mixed to mono at another rate."""

    def __init__(self, source: Source, sample_rate: int) -> None:
        self.name, self.sample_rate, self._source = source.name, sample_rate, source

    def channel_blocks(self) -> Iterator[np.ndarray]:
        for block in resample_blocks(self._source.blocks(), self._source.sample_rate, self.sample_rate):
            yield block[:, None]


def denoise(wav: Samples, sample_rate: int | None = None, strength: float = DENOISE_STRENGTH, device: str = "auto") -> Sound:
    """Denoise a recording of speech.

    Args:
        wav: Samples, a sound, or the path of a file, in any form that `as_sound` accepts; at least 0.1 s.
        sample_rate: Sample rate of arrays, in Hz.
        strength: Strength from 0 (unchanged) to 1 (full denoising): the rest of the input is mixed in. Where the noise is loud beside
            speech, more is: its square root.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        The sound with its rate, channels and level: (N,), or (N, channels) if there are several.

    Raises:
        AudioError: For unusable audio.
        ConfigError: For a strength that is not allowed.
    """
    cleaner = shared_cleaner(choose_device(device).type)
    return replace(
        cleaner.sound(as_sound(wav, sample_rate, mixed=False), strength), comment=provenance(cleaner.file, "denoised")
    )
