"""Voice conversion: the source's words in the reference's voice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vcae.audio.f0 import log_f0_statistics
from vcae.audio.frames import n_frames
from vcae.audio.high_band import BandProfile, has_high_band
from vcae.audio.io import MAX_CHANNELS, resample_blocks
from vcae.audio.loudness import SILENCE_LEVEL, LevelMeter, follow_envelope_running, follow_envelope_sections, set_level_sections
from vcae.audio.output_rate import OutputRate, change_rate
from vcae.audio.overlap_add import overlap_add
from vcae.audio.placement import Taker, place
from vcae.audio.sections import SectionRunner, Sections, StoredSections
from vcae.audio.stretch import stretch_f0, stretch_mel
from vcae.audio.watermark import mark_blocks
from vcae.engine.denoise import shared_cleaner
from vcae.engine.engine import DECODED_CORRECTIONS, Engine
from vcae.engine.listening import (
    MIN_SOURCE_S,
    Analysis,
    MeasuredSource,
    MultichannelSource,
    OneChannel,
    SectionedAnalysis,
    Source,
    analyse_sections,
    encode_content_sections,
    output_rate,
)
from vcae.options import ConvertOptions
from vcae.voice.formant import shift_formants
from vcae.voice.pitch import convert_f0, scale_f0
from vcae.voice.speaking import speak_sections
from vcae.voice.speech import is_noisy
from vcae.voice.voice import MAX_REFERENCE_S, Voice, describe_voice, interpolate_voices

# Length of a section of the source in seconds.
SECTION_S = 10.0
# Seconds from frame to frame of the source at another speed: for its band above the model's, where there are pulses, and for the levels and
# delays of its channels, which change slowly.
HIGH_HOP_S, PLACED_HOP_S = 0.004, 0.032


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Attributes:
        wav: (N,), or (N, channels) if the source has several and they are not mixed, at `sample_rate`.
        sample_rate: Hz.
        f0: (1, T) the F0 that was synthesised, in Hz.
        mel: (1, n_mels, T) the mel that was synthesised.
        source_f0_hz: Median F0 of the source; nan if nothing is voiced.
        output_f0_hz: Median F0 of the output; nan if nothing is voiced.
        reference_speech_s: Seconds of active frames in the references.
        denoised: Whether the source was denoised first.
    """

    wav: Tensor
    sample_rate: int
    f0: Tensor
    mel: Tensor
    source_f0_hz: float
    output_f0_hz: float
    reference_speech_s: float
    denoised: bool


@dataclass(frozen=True)
class LongConversion:
    """Conversion whose sound is synthesised section by section during iteration.

    Attributes:
        blocks: The sound, (n,) or (n, channels) float32 each, at `sample_rate`; can be iterated over once.
        sample_rate: Hz.
        channels: Number of channels.
        f0: As in `Conversion`, as are the other numbers.
        mel: The mel that is synthesised.
        duration_s: Length of the sound in seconds.
    """

    blocks: Iterator[np.ndarray]
    sample_rate: int
    channels: int
    f0: Tensor
    mel: Sections
    source_f0_hz: float
    output_f0_hz: float
    reference_speech_s: float
    denoised: bool
    duration_s: float


def convert(
    model: Engine,
    source: MultichannelSource,
    voice: Voice,
    options: ConvertOptions | None = None,
    progress: Callable[[float], object] | None = None,
) -> Conversion:
    """Convert a source to a voice.

    Args:
        model: Model whose autoencoder has a speaker part.
        source: At least 0.5 s.
        voice: From `voice_from_sounds`, `mix_voices` or `load_voice`.
        options: Options of the conversion; the defaults when None.
        progress: Called with the fraction of the sound that is done, 0 to 1; an exception that it raises ends the work.

    Returns:
        The sound, as long as the source divided by the speed, with its level, at the rate of the options.

    Raises:
        AudioError: For unusable audio.
        ConfigError: For a checkpoint without a speaker part.
    """
    done = convert_long(model, source, voice, options, progress=progress)
    wav = torch.from_numpy(np.concatenate(list(done.blocks)))
    mel = done.mel.read(0, done.mel.n).cpu()
    return Conversion(
        wav, done.sample_rate, done.f0, mel, done.source_f0_hz, done.output_f0_hz, done.reference_speech_s, done.denoised
    )


@torch.inference_mode()
def convert_long(
    model: Engine,
    source: MultichannelSource,
    voice: Voice,
    options: ConvertOptions | None = None,
    section_s: float = SECTION_S,
    progress: Callable[[float], object] | None = None,
) -> LongConversion:
    """Convert a source of any length as `convert` does, in nearly constant memory.

    Statistics of the whole recording (levels, moments, quantiles, F0) are measured in passes over sections that are stored on
    disk. The sound differs by less than a thousandth between lengths of sections.

    Args:
        model: As in `convert`.
        source: A `Sound`, or a `SoundReader`.
        voice: As in `convert`.
        options: As in `convert`.
        section_s: Length of a section in seconds; a shorter source is a single section in memory.
        progress: As in `convert`: 0 after the analysis of the source, the rest during the iteration over `blocks`.

    Returns:
        The conversion, whose sound is synthesised during iteration.

    Raises:
        AudioError: For unusable audio, or a full disk.
        ConfigError: For a checkpoint without a speaker part.
    """
    options = options or ConvertOptions()
    n_channels = source.channels if source.channels <= MAX_CHANNELS and options.channels != "mono" else 1
    if n_channels > 1 and options.channels == "separate":
        return _convert_separately(model, source, voice, options, section_s, progress)
    step = max(round(section_s * model.mel_config.frame_rate), 1)
    notify = progress or (lambda share: None)
    measured = MeasuredSource(source)
    heard, runner, denoised = _analyse(model, measured, step, options.denoise)
    latent = encode_content_sections(model, heard.mel, heard.active, runner)
    if options.strength < 1:
        voice = interpolate_voices(describe_voice(model, [_beginning(model, heard)]), voice, options.strength)
    notify(0.0)
    f0 = scale_f0(convert_f0(heard.f0, voice, options.pitch), options.expression)
    mel = shift_formants(speak_sections(model, latent, f0, voice, runner), f0, model.mel_config, options.formant)
    n = round(heard.wav.n / options.speed)
    if options.speed != 1:
        frames = n_frames(n, model.mel_config.hop_length)
        f0, mel = stretch_f0(f0, frames, options.speed), stretch_mel(mel, frames, options.speed)
    rate = output_rate(source.sample_rate, options.rate, model.sample_rate)
    blocks = _sound(model, mel, f0, heard, n, options, runner, notify)
    if rate != model.sample_rate:
        levels = None if denoised else measured.profile()
        blocks = _at_rate(model, source, levels, voice, options, blocks, rate, denoised, heard.duration_s)
    if options.watermark:
        blocks = mark_blocks(blocks, rate)
    if n_channels > 1:
        mix, channels = (
            _in_time(x, source.sample_rate, rate, options.speed, heard.duration_s, PLACED_HOP_S)
            for x in (source.blocks(), source.channel_blocks())
        )
        blocks = place(blocks, mix, channels, rate, n_channels)
    return LongConversion(
        blocks,
        rate,
        n_channels,
        f0.cpu(),
        mel,
        math.exp(log_f0_statistics(heard.f0[0])[0]),
        math.exp(log_f0_statistics(f0[0])[0]),
        voice.speech_s,
        denoised,
        heard.duration_s / options.speed,
    )


def _convert_separately(
    model: Engine,
    source: MultichannelSource,
    voice: Voice,
    options: ConvertOptions,
    section_s: float,
    progress: Callable[[float], object] | None,
) -> LongConversion:
    """Convert each channel by itself; silent ones stay silent. The numbers and the mel are those of the loudest channel."""
    meters = [LevelMeter(source.sample_rate) for _ in range(source.channels)]
    for block in source.channel_blocks():
        for meter, samples in zip(meters, block.T, strict=True):
            meter.add(samples)
    levels = [meter.level() for meter in meters]
    loudest = int(np.argmax(levels))
    shares = dict[int, float]()

    def part(index: int) -> Callable[[float], object]:
        def notify(share: float) -> None:
            shares[index] = share
            if progress is not None:
                progress(sum(shares.values()) / len(active))

        return notify

    active = [index for index, level in enumerate(levels) if level >= SILENCE_LEVEL or index == loudest]
    alone = replace(options, channels="mono")
    made = {n: convert_long(model, OneChannel(source, n), voice, alone, section_s, part(n)) for n in active}
    first = made[loudest]
    takers = {n: Taker(done.blocks) for n, done in made.items() if n != loudest}

    def joined() -> Iterator[np.ndarray]:
        for block in filter(len, first.blocks):
            columns = [np.zeros(len(block), np.float32)] * source.channels
            columns[loudest] = block
            for n, taker in takers.items():
                columns[n] = taker(len(block))
            yield np.stack(columns, axis=1)

    denoised = any(done.denoised for done in made.values())
    return replace(first, blocks=joined(), channels=source.channels, denoised=denoised)


def _at_rate(
    model: Engine,
    source: Source,
    levels: BandProfile | None,
    voice: Voice,
    options: ConvertOptions,
    blocks: Iterator[np.ndarray],
    rate: int,
    denoised: bool,
    duration_s: float,
) -> Iterator[np.ndarray]:
    """Yield the sound at another rate than the model's."""
    heard = (_cleaned(model, source, source.sample_rate) if denoised else source).blocks()
    if options.speed == 1:
        change = OutputRate(model.sample_rate, source.sample_rate, rate, levels, voice.bands, options.seed)
        return change_rate(change, blocks, heard)
    known = levels if has_high_band(source.sample_rate) else BandProfile((), 0.0)
    change = OutputRate(model.sample_rate, rate, rate, known, voice.bands, options.seed)
    return change_rate(change, blocks, _in_time(heard, source.sample_rate, rate, options.speed, duration_s, HIGH_HOP_S))


def _in_time(
    blocks: Iterator[np.ndarray], source_rate: int, rate: int, speed: float, duration_s: float, hop_s: float
) -> Iterator[np.ndarray]:
    """Yield a recording at the rate and the speed of the result."""
    resampled = resample_blocks(blocks, source_rate, rate)
    if speed == 1:
        return resampled
    return overlap_add(resampled, round(duration_s * rate / speed), speed, round(hop_s * rate))


def _analyse(model: Engine, source: Source, step: int, denoise: bool | str) -> tuple[SectionedAnalysis, SectionRunner, bool]:
    """Return the analysis of the source, denoised first if asked for or if it is noisy; its runner; and whether it was denoised."""

    def analysed(source: Source) -> tuple[SectionedAnalysis, SectionRunner]:
        return analyse_sections(model, source, MIN_SOURCE_S, lambda n: SectionRunner(step, n > step, model.device))

    if denoise is not True:
        heard, runner = analysed(source)
        if not denoise or not is_noisy(_beginning(model, heard), model.mel_config.frame_rate):
            return heard, runner, False
    return *analysed(_cleaned(model, source)), True


def _cleaned(model: Engine, source: Source, sample_rate: int | None = None) -> Source:
    return shared_cleaner(model.device.type).clean_mono(source, sample_rate=sample_rate)


def _beginning(model: Engine, heard: SectionedAnalysis) -> Analysis:
    n = min(heard.mel.n, round(MAX_REFERENCE_S * model.mel_config.frame_rate))
    return Analysis(np.zeros(0, np.float32), heard.mel.read(0, n), heard.f0[:, :n], heard.level)


@torch.inference_mode()
def _sound(
    model: Engine,
    mel: Sections,
    f0: Tensor,
    heard: SectionedAnalysis,
    n: int,
    options: ConvertOptions,
    runner: SectionRunner,
    notify: Callable[[float], object],
) -> Iterator[np.ndarray]:
    wanted = heard.meter if options.speed == 1 else heard.meter.stretched(n, options.speed)
    if options.loudness == "running":

        def synthesised() -> Iterator[np.ndarray]:
            n_done = 0
            for section in model.vocode_sections(mel, f0, n, options.seed, DECODED_CORRECTIONS, runner):
                n_done += section.shape[-1]
                notify(n_done / n)
                yield section[0].numpy()

        yield from follow_envelope_running(synthesised(), wanted, heard.level)
        return
    meter, wav = LevelMeter(), StoredSections(runner.on_disk, torch.device("cpu"))
    for section in model.vocode_sections(mel, f0, n, options.seed, DECODED_CORRECTIONS, runner):
        meter.add(section[0].numpy())
        wav.append(section[None])
        notify(wav.n / n)

    def read(start: int, stop: int) -> np.ndarray:
        return wav.read(start, stop)[0, 0].numpy()

    samples = runner.step * model.mel_config.hop_length
    if options.loudness == "source":
        yield from follow_envelope_sections(read, meter, wanted, heard.level, samples)
    else:
        yield from set_level_sections(read, meter, heard.level, samples)
