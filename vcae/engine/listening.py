"""Analysis of recordings of any length: level, samples, mel, F0, content and voice, each in passes of bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vcae.audio.f0 import estimate_f0_sections
from vcae.audio.frames import active_levels, n_frames
from vcae.audio.high_band import BandMeter, BandProfile, has_high_band
from vcae.audio.io import resample_blocks
from vcae.audio.loudness import PEAK_LIMIT, SILENCE_LEVEL, LevelMeter, cut_reach, cut_rumble
from vcae.audio.sections import LazySections, SectionRunner, Sections, StoredSections
from vcae.deprecation import renamed
from vcae.engine.engine import Engine
from vcae.errors import AudioError
from vcae.model.content import ContentEncoder
from vcae.model.speaker import AttentivePool

MIN_SOURCE_S = 0.5


class Source(Protocol):
    """Interface of inputs: a `Sound`, or a `SoundReader` of a file."""

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield mono samples (n,), float32."""


class MultichannelSource(Source, Protocol):
    """Interface of inputs with channels: a `Sound`, or a `SoundReader` of a file."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    def channel_blocks(self) -> Iterator[np.ndarray]:
        """Yield samples (n, channels), float32."""


class OneChannel:
    """Source that is one channel of another.

    Args:
        source: The source.
        index: Which channel, from 0.
    """

    channels = 1

    def __init__(self, source: MultichannelSource, index: int) -> None:
        self.name, self.sample_rate = f"channel {index + 1} of {source.name}", source.sample_rate
        self._source, self._index = source, index

    def channel_blocks(self) -> Iterator[np.ndarray]:
        """Yield samples (n, 1), float32."""
        for block in self._source.channel_blocks():
            yield block[:, self._index : self._index + 1]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield samples (n,), float32."""
        for block in self.channel_blocks():
            yield np.ascontiguousarray(block[:, 0])


class MeasuredSource:
    """Source that measures its levels above the models' band when it is read.

    Args:
        source: The source.
    """

    def __init__(self, source: Source) -> None:
        self.name, self.sample_rate, self._source = source.name, source.sample_rate, source
        self._meter: BandMeter | None = None

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield mono samples (n,), float32."""
        if not has_high_band(self.sample_rate):
            yield from self._source.blocks()
            return
        self._meter = BandMeter(self.sample_rate)
        for block in self._source.blocks():
            self._meter.add(block)
            yield block

    def profile(self) -> BandProfile | None:
        """Return the levels in the samples that were read last; None if its rate has no such band."""
        return None if self._meter is None else self._meter.profile()


def output_rate(source_rate: int, rate: int | None, model_rate: int) -> int:
    """Return the sample rate of an output in Hz: the one asked for, or else the source's, and at least the model's."""
    return max(source_rate, model_rate) if rate is None else rate


@dataclass(frozen=True)
class SectionedAnalysis:
    """Analysis of a recording of any length, to be read by sections.

    Attributes:
        wav: Samples (1, 1, N), at the model's rate and level.
        meter: Measurements of `wav`.
        mel: (1, n_mels, T), natural log magnitude.
        f0: (1, T) in Hz, 0 where unvoiced.
        active: (1, 1, T), 1.0 in active frames.
        level: RMS level of the active frames before it was changed.
        duration_s: Length in seconds.
    """

    wav: Sections
    meter: LevelMeter
    mel: StoredSections
    f0: Tensor
    active: Tensor
    level: float
    duration_s: float


@dataclass(frozen=True)
class Analysis:
    """Analysis of a whole signal.

    Attributes:
        wav: (N,) numpy, 16 kHz, at the models' level.
        mel: (1, n_mels, T), natural log magnitude.
        f0: (1, T) in Hz, 0 where unvoiced.
        level: RMS level of the active frames before it was changed.
    """

    wav: np.ndarray
    mel: Tensor
    f0: Tensor
    level: float


@dataclass(frozen=True)
class LeveledRecording:
    """Recording at a model's rate and level.

    Attributes:
        wav: Samples (1, 1, N).
        meter: Measurements of `wav`.
        gain: Gain that brought the recording to the models' level.
        level: RMS level of the active frames before that.
        duration_s: Length in seconds.
    """

    wav: Sections
    meter: LevelMeter
    gain: float
    level: float
    duration_s: float


def read_leveled(
    source: Source, sample_rate: int, hop_length: int, min_s: float, choose: Callable[[int], SectionRunner]
) -> tuple[LeveledRecording, SectionRunner]:
    """Read a recording once, resample it, and bring it to the models' level.

    Args:
        source: The recording.
        sample_rate: Target rate in Hz.
        hop_length: Samples from frame to frame.
        min_s: Shortest length allowed, in seconds.
        choose: Function that returns the runner for a number of frames.

    Raises:
        AudioError: If the recording is too short, silent, or cannot be read.
    """
    given, ready = LevelMeter(source.sample_rate), LevelMeter(sample_rate)

    def measured() -> Iterator[np.ndarray]:
        for block in source.blocks():
            given.add(block)
            yield block

    raw = _Spool(choose)
    for block in resample_blocks(measured(), source.sample_rate, sample_rate):
        ready.add(block)
        raw.append(block, n_frames(ready.n, hop_length))
    duration_s = given.n / source.sample_rate
    if duration_s < min_s:
        raise AudioError(f"{source.name} is {duration_s:.2f} s long; at least {min_s:g} s are needed")
    offset = ready.mean if ready.has_offset() else 0.0
    ready = ready.changed(offset)
    level = given.level()
    if level < SILENCE_LEVEL:
        raise AudioError(f"{source.name} is silent (level {level:.1e} of full scale); give a recording with sound in it")
    kept, runner = raw.finish(), choose(n_frames(ready.n, hop_length))
    wav: Sections = kept
    if offset:
        wav = LazySections(kept.n, lambda start, stop: kept.read(start, stop) - offset)
    if ready.has_rumble():
        wav, ready = _without_rumble(wav, sample_rate, hop_length, runner)
    gain = ready.gain
    # Clicks above full scale are clipped.
    clip = ready.peak * gain > PEAK_LIMIT * (1 + 1e-6)
    most = PEAK_LIMIT if clip else math.inf

    def levelled(start: int, stop: int) -> Tensor:
        samples = wav.read(start, stop) * gain
        return samples.clamp(-most, most) if clip else samples

    return LeveledRecording(
        LazySections(ready.n, levelled), ready.changed(gain=gain, most=most), gain, level, duration_s
    ), runner


def _without_rumble(wav: Sections, sample_rate: int, hop_length: int, runner: SectionRunner) -> tuple[Sections, LevelMeter]:
    """Return the samples without frequencies below a voice's range, and their measurements."""

    def cut(start: int, stop: int) -> Tensor:
        return torch.from_numpy(cut_rumble(wav.read(start, stop)[0, 0].numpy(), sample_rate))[None, None]

    clean, meter = LazySections(wav.n, cut, cut_reach(sample_rate)), LevelMeter(sample_rate)
    for start, stop in runner.spans(wav.n, hop_length):
        meter.add(clean.read(start, stop)[0, 0].numpy())
    return clean, meter


def analyse_sections(
    model: Engine, source: Source, min_s: float, choose: Callable[[int], SectionRunner], with_f0: bool = True
) -> tuple[SectionedAnalysis, SectionRunner]:
    """Analyse a recording of any length by sections.

    Args:
        model: Model that gives the sample rate and the mel.
        source: The recording.
        min_s: Shortest length allowed, in seconds.
        choose: Function that returns the runner for a number of frames.
        with_f0: Estimate F0, which takes most of the time; otherwise all frames are unvoiced.

    Raises:
        AudioError: If the recording is too short, silent, or cannot be read.
    """
    hop = model.mel_config.hop_length
    taken, runner = read_leveled(source, model.sample_rate, hop, min_s, choose)
    wav, n = taken.wav, n_frames(taken.wav.n, hop)
    mel = runner.store(_mel(model, wav, n))
    f0 = np.zeros(n, np.float32)
    if with_f0:
        f0 = estimate_f0_sections(lambda start, stop: wav.read(start, stop)[0, 0].numpy(), wav.n, taken.meter.peak)
    active = active_levels(frame_levels(mel, runner))
    heard = SectionedAnalysis(
        wav, taken.meter, mel, torch.from_numpy(f0).to(model.device)[None], active, taken.level, taken.duration_s
    )
    return heard, runner


@torch.inference_mode()
def analyse(engine: Engine, sound: Source, min_s: float = MIN_SOURCE_S) -> Analysis:
    """Analyse a whole sound: bring it to the models' rate and level, and compute mel and F0.

    Args:
        engine: Engine that gives the sample rate and the mel.
        sound: The sound.
        min_s: Shortest length allowed, in seconds.

    Raises:
        AudioError: If the sound is too short, silent, or cannot be read.
    """
    heard, _ = analyse_sections(engine, sound, min_s, lambda n: SectionRunner(n, False, engine.device))
    return Analysis(heard.wav.read(0, heard.wav.n)[0, 0].numpy(), heard.mel.read(0, heard.mel.n), heard.f0, heard.level)


class _Spool:
    """Store of a stream of samples of unknown length: in memory at first, then on disk."""

    def __init__(self, choose: Callable[[int], SectionRunner]) -> None:
        self._choose, self._kept, self._on_disk = choose, StoredSections(False, torch.device("cpu")), False

    def append(self, block: np.ndarray, n: int) -> None:
        """Add samples (n,), after which there are `n` frames."""
        if not self._on_disk and self._choose(n).on_disk:
            memory, self._kept, self._on_disk = self._kept, StoredSections(True, torch.device("cpu")), True
            if memory.n:
                self._kept.append(memory.read(0, memory.n))
        if len(block):
            self._kept.append(torch.from_numpy(block)[None, None])

    def finish(self) -> StoredSections:
        """Return the samples."""
        return self._kept


def _mel(model: Engine, wav: Sections, n: int) -> LazySections:
    hop, n_fft = model.mel_config.hop_length, model.mel_config.n_fft

    def compute(start: int, stop: int) -> Tensor:
        samples = wav.read(start * hop, wav.n if stop == n else (stop - 1) * hop)
        mel: Tensor = model.log_mel(samples[0].to(model.device))
        return mel

    # One frame more than the windows need, so that a section is never shorter than the reflection padding at its ends.
    return LazySections(n, compute, reach=-(-n_fft // (2 * hop)) + 1)


def frame_levels(mel: Sections, runner: SectionRunner) -> Tensor:
    """Return the mean level of each frame of a mel: (1, 1, T)."""
    return torch.cat([mel.read(start, stop).mean(dim=1, keepdim=True) for start, stop in runner.spans(mel.n)], dim=-1)


def _normalized(x: Sections, weight: Tensor, runner: SectionRunner) -> LazySections:
    """Normalise each channel over all time, as `InstanceNorm` does, by moments that are accumulated in an extra pass."""
    total, mean, squares = 0.0, torch.zeros(1), torch.zeros(1)
    for start, stop in runner.spans(x.n):
        section, w = x.read(start, stop).float(), weight[..., start:stop]
        count = float(w.sum())
        if not count:
            continue
        here = (section * w).sum(dim=-1, keepdim=True) / count
        spread = ((section - here).square() * w).sum(dim=-1, keepdim=True).cpu().double()
        step = here.cpu().double() - mean
        # Source: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances (1979).
        squares = squares + spread + step.square() * (total * count / (total + count))
        mean, total = mean + step * (count / (total + count)), total + count
    deviation = (squares / max(total, 1e-3) + 1e-4).sqrt().float().to(runner.device)
    centre = mean.float().to(runner.device)
    return LazySections(x.n, lambda start, stop: (x.read(start, stop) - centre) / deviation)


def encode_content_sections(model: Engine, mel: Sections, active: Tensor, runner: SectionRunner) -> Sections:
    """Encode the decoder's content input, ceil(T / stride) steps, as `Autoencoder.encode_content` does.

    Arguments as `encode_latent_sections`.
    """
    latent, quantizer = encode_latent_sections(model, mel, active, runner), model.autoencoder.quantizer
    if quantizer is None:
        return latent
    return LazySections(latent.n, lambda start, stop: quantizer.decode(quantizer.encode(latent.read(start, stop))))


def encode_latent_sections(model: Engine, mel: Sections, active: Tensor, runner: SectionRunner) -> Sections:
    """Encode the content latent, ceil(T / stride) steps, as `Autoencoder.encode_latent` does.

    Normalisation over time uses the moments of the whole recording, which takes one pass for each normalisation.

    Args:
        model: Model with an autoencoder.
        mel: Of T frames.
        active: (1, 1, T), 1.0 in active frames.
        runner: Runner of computations over the sections.
    """
    autoencoder = model.autoencoder
    start = LazySections(mel.n, lambda start, stop: autoencoder.normalize(mel.read(start, stop)))
    way = _BySections(autoencoder.content_encoder, start, active, runner)
    return way.finish(autoencoder.content_encoder.run(start, way))


class _BySections:
    """Backend that runs the content encoder by sections; inputs of normalisations are stored to get the moments of the whole."""

    def __init__(self, encoder: ContentEncoder, start: Sections, weight: Tensor, runner: SectionRunner) -> None:
        self._encoder, self._weight, self._runner = encoder, weight, runner
        # Sections that can be read again at no cost.
        self._cheap = start

    def normalize(self, x: Sections) -> Sections:
        self._cheap = _normalized(self.finish(x), self._weight, self._runner)
        return self._cheap

    def map(self, x: Sections, function: Callable[[Tensor, Tensor | None], Tensor], reach: int) -> Sections:
        return LazySections(x.n, lambda start, stop: function(x.read(start, stop), None), reach)

    def pool(self, x: Sections) -> Sections:
        stride = self._encoder.config.stride
        self._weight = self._encoder.pool_weight(self._weight)
        return LazySections(
            -(-x.n // stride), lambda start, stop: self._encoder.pool(x.read(start * stride, min(stop * stride, x.n)))
        )

    def finish(self, x: Sections) -> Sections:
        return x if x is self._cheap else self._runner.store(x)


def encode_speaker_sections(model: Engine, mel: Sections, active: Tensor, runner: SectionRunner) -> Tensor:
    """Encode the speaker embedding (1, speaker_dim), as `Autoencoder.encode_speaker` does.

    Raises:
        ConfigError: If this is a plain autoencoder, which has no speaker part.
    """
    encoder = model.autoencoder.the_speaker_encoder()
    pool = AttentivePool(encoder)
    for start, stop in runner.spans(mel.n):
        first, last = max(start - encoder.reach, 0), min(stop + encoder.reach, mel.n)
        attended = encoder.attend(model.autoencoder.normalize(mel.read(first, last)), active[..., first:last])
        x, score = (value[..., start - first : stop - first] for value in attended)
        pool.add(x, score)
    return pool.embed()


__getattr__ = renamed(
    __name__,
    {
        "Heard": "SectionedAnalysis",
        "Taken": "LeveledRecording",
        "take_in": "read_leveled",
        "listen": "analyse_sections",
        "hear_content": "encode_content_sections",
        "hear_latent": "encode_latent_sections",
        "hear_speaker": "encode_speaker_sections",
    },
)
