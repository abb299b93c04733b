"""Listening to a recording of any length: its level, sound, mel, F0, content and voice, each in passes of bounded memory."""

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
from vcae.audio.io import resample_blocks
from vcae.audio.loudness import PEAK_LIMIT, SILENCE_LEVEL, LevelMeter, cut_reach, cut_rumble
from vcae.audio.sections import Computed, Kept, Sections, Workshop
from vcae.engine.engine import Engine
from vcae.errors import AudioError
from vcae.model.content import ContentEncoder
from vcae.model.speaker import AttentivePool

MIN_SOURCE_S = 0.5


class Source(Protocol):
    """What can be listened to: a `Sound`, or a `SoundReader` of a file."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield mono samples (n,), float32."""


@dataclass(frozen=True)
class Heard:
    """A recording as the models see it, to be read by sections.

    Attributes:
        wav: Of N steps with one number each, at the model's rate and level.
        meter: What was measured of `wav`.
        mel: Of T steps, natural log magnitude.
        f0: (1, T) in Hz, 0 where unvoiced.
        active: (1, 1, T), 1.0 in frames that carry sound.
        level: RMS of the active frames before the level was changed.
        duration_s: Length in seconds.
    """

    wav: Sections
    meter: LevelMeter
    mel: Kept
    f0: Tensor
    active: Tensor
    level: float
    duration_s: float


@dataclass(frozen=True)
class Analysis:
    """A signal as the models see it.

    Attributes:
        wav: (N,) numpy, 16 kHz, at the models' level.
        mel: (1, n_mels, T), natural log magnitude.
        f0: (1, T) in Hz, 0 where unvoiced.
        level: RMS of the active frames before the level was changed.
    """

    wav: np.ndarray
    mel: Tensor
    f0: Tensor
    level: float


@dataclass(frozen=True)
class Taken:
    """A recording at a model's rate and level.

    Attributes:
        wav: Of N steps with one number each.
        meter: What was measured of `wav`.
        gain: What brought the recording to the models' level.
        level: RMS of the active frames before that.
        duration_s: Length in seconds.
    """

    wav: Sections
    meter: LevelMeter
    gain: float
    level: float
    duration_s: float


def take_in(
    source: Source, sample_rate: int, hop_length: int, min_s: float, choose: Callable[[int], Workshop]
) -> tuple[Taken, Workshop]:
    """Take in a recording: once through it, for its samples and its level.

    Args:
        source: What to listen to.
        sample_rate: That it is wanted at, in Hz.
        hop_length: Samples from frame to frame.
        min_s: Shortest length allowed, in seconds.
        choose: Gives the way to go through so many frames.

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
    kept, work = raw.finish(), choose(n_frames(ready.n, hop_length))
    wav: Sections = kept
    if offset:
        wav = Computed(kept.n, lambda start, stop: kept.read(start, stop) - offset)
    if ready.has_rumble():
        wav, ready = _without_rumble(wav, sample_rate, hop_length, work)
    gain = ready.gain
    # What a click has over full scale is clipped.
    clip = ready.peak * gain > PEAK_LIMIT * (1 + 1e-6)
    most = PEAK_LIMIT if clip else math.inf

    def levelled(start: int, stop: int) -> Tensor:
        samples = wav.read(start, stop) * gain
        return samples.clamp(-most, most) if clip else samples

    return Taken(Computed(ready.n, levelled), ready.changed(gain=gain, most=most), gain, level, duration_s), work


def _without_rumble(wav: Sections, sample_rate: int, hop_length: int, work: Workshop) -> tuple[Sections, LevelMeter]:
    """Return samples without what lies below a voice, and what is measured of them."""

    def cut(start: int, stop: int) -> Tensor:
        return torch.from_numpy(cut_rumble(wav.read(start, stop)[0, 0].numpy(), sample_rate))[None, None]

    clean, meter = Computed(wav.n, cut, cut_reach(sample_rate)), LevelMeter(sample_rate)
    for start, stop in work.walk(wav.n, hop_length):
        meter.add(clean.read(start, stop)[0, 0].numpy())
    return clean, meter


def listen(
    model: Engine, source: Source, min_s: float, choose: Callable[[int], Workshop], with_f0: bool = True
) -> tuple[Heard, Workshop]:
    """Take in a recording as the models see it.

    Args:
        model: Whose rate and mel.
        source: What to listen to.
        min_s: Shortest length allowed, in seconds.
        choose: Gives the way to go through so many frames.
        with_f0: Without it no F0 is estimated, which takes most of the time: all frames count as unvoiced.

    Raises:
        AudioError: If the recording is too short, silent, or cannot be read.
    """
    hop = model.mel_config.hop_length
    taken, work = take_in(source, model.sample_rate, hop, min_s, choose)
    wav, n = taken.wav, n_frames(taken.wav.n, hop)
    mel = work.keep(_mel(model, wav, n))
    f0 = np.zeros(n, np.float32)
    if with_f0:
        f0 = estimate_f0_sections(lambda start, stop: wav.read(start, stop)[0, 0].numpy(), wav.n, taken.meter.peak)
    active = active_levels(frame_levels(mel, work))
    heard = Heard(wav, taken.meter, mel, torch.from_numpy(f0).to(model.device)[None], active, taken.level, taken.duration_s)
    return heard, work


@torch.inference_mode()
def analyse(engine: Engine, sound: Source, min_s: float = MIN_SOURCE_S) -> Analysis:
    """Bring a sound to the models' rate and level, all of it at once, and take its mel and F0.

    Args:
        engine: Whose rate and mel.
        sound: What to listen to.
        min_s: Shortest length allowed, in seconds.

    Raises:
        AudioError: If the sound is too short, silent, or cannot be read.
    """
    heard, _ = listen(engine, sound, min_s, lambda n: Workshop(n, False, engine.device))
    return Analysis(heard.wav.read(0, heard.wav.n)[0, 0].numpy(), heard.mel.read(0, heard.mel.n), heard.f0, heard.level)


class _Spool:
    """Samples of a number not known beforehand: in memory until they are too many."""

    def __init__(self, choose: Callable[[int], Workshop]) -> None:
        self._choose, self._kept, self._on_disk = choose, Kept(False, torch.device("cpu")), False

    def append(self, block: np.ndarray, n: int) -> None:
        """Add samples (n,), after which there are `n` frames."""
        if not self._on_disk and self._choose(n).on_disk:
            memory, self._kept, self._on_disk = self._kept, Kept(True, torch.device("cpu")), True
            if memory.n:
                self._kept.append(memory.read(0, memory.n))
        if len(block):
            self._kept.append(torch.from_numpy(block)[None, None])

    def finish(self) -> Kept:
        """Return the samples."""
        return self._kept


def _mel(model: Engine, wav: Sections, n: int) -> Computed:
    hop, n_fft = model.mel_config.hop_length, model.mel_config.n_fft

    def compute(start: int, stop: int) -> Tensor:
        samples = wav.read(start * hop, wav.n if stop == n else (stop - 1) * hop)
        mel: Tensor = model.log_mel(samples[0].to(model.device))
        return mel

    # One frame more than the windows reach, so that a section is never shorter than what is mirrored at its ends.
    return Computed(n, compute, reach=-(-n_fft // (2 * hop)) + 1)


def frame_levels(mel: Sections, work: Workshop) -> Tensor:
    """Return the mean level of each frame of a mel: (1, 1, T)."""
    return torch.cat([mel.read(start, stop).mean(dim=1, keepdim=True) for start, stop in work.walk(mel.n)], dim=-1)


def _normalized(x: Sections, weight: Tensor, work: Workshop) -> Computed:
    """Normalise each channel over all time, as `InstanceNorm` does, by moments that are added up in a pass of their own."""
    total, mean, squares = 0.0, torch.zeros(1), torch.zeros(1)
    for start, stop in work.walk(x.n):
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
    deviation = (squares / max(total, 1e-3) + 1e-4).sqrt().float().to(work.device)
    centre = mean.float().to(work.device)
    return Computed(x.n, lambda start, stop: (x.read(start, stop) - centre) / deviation)


def hear_content(model: Engine, mel: Sections, active: Tensor, work: Workshop) -> Sections:
    """Return the content that the decoder reads, ceil(T / stride) steps, as `Autoencoder.encode_content` does.

    Arguments as `hear_latent`.
    """
    latent, quantizer = hear_latent(model, mel, active, work), model.autoencoder.quantizer
    if quantizer is None:
        return latent
    return Computed(latent.n, lambda start, stop: quantizer.decode(quantizer.encode(latent.read(start, stop))))


def hear_latent(model: Engine, mel: Sections, active: Tensor, work: Workshop) -> Sections:
    """Return the content latent, ceil(T / stride) steps, as `Autoencoder.encode_latent` does.

    What is normalised over time is normalised by the moments of the whole: one pass for each time that this is done.

    Args:
        model: With an autoencoder.
        mel: Of T steps.
        active: (1, 1, T), 1.0 in frames that carry sound.
        work: How to go through it.
    """
    autoencoder = model.autoencoder
    start = Computed(mel.n, lambda start, stop: autoencoder.normalize(mel.read(start, stop)))
    way = _BySections(autoencoder.content_encoder, start, active, work)
    return way.finish(autoencoder.content_encoder.run(start, way))


class _BySections:
    """The content encoder section by section: what is normalised is kept, so that its moments are those of the whole."""

    def __init__(self, encoder: ContentEncoder, start: Sections, weight: Tensor, work: Workshop) -> None:
        self._encoder, self._weight, self._work = encoder, weight, work
        # What costs nothing to read again.
        self._cheap = start

    def normalize(self, x: Sections) -> Sections:
        self._cheap = _normalized(self.finish(x), self._weight, self._work)
        return self._cheap

    def map(self, x: Sections, function: Callable[[Tensor, Tensor | None], Tensor], reach: int) -> Sections:
        return Computed(x.n, lambda start, stop: function(x.read(start, stop), None), reach)

    def pool(self, x: Sections) -> Sections:
        stride = self._encoder.config.stride
        self._weight = self._encoder.pool_weight(self._weight)
        return Computed(
            -(-x.n // stride), lambda start, stop: self._encoder.pool(x.read(start * stride, min(stop * stride, x.n)))
        )

    def finish(self, x: Sections) -> Sections:
        return x if x is self._cheap else self._work.keep(x)


def hear_speaker(model: Engine, mel: Sections, active: Tensor, work: Workshop) -> Tensor:
    """Return the speaker embedding (1, speaker_dim), as `Autoencoder.encode_speaker` does.

    Raises:
        ConfigError: If this is a plain autoencoder, which has no speaker part.
    """
    encoder = model.autoencoder.the_speaker_encoder()
    pool = AttentivePool(encoder)
    for start, stop in work.walk(mel.n):
        first, last = max(start - encoder.reach, 0), min(stop + encoder.reach, mel.n)
        attended = encoder.attend(model.autoencoder.normalize(mel.read(first, last)), active[..., first:last])
        x, score = (value[..., start - first : stop - first] for value in attended)
        pool.add(x, score)
    return pool.embed()
