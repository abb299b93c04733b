"""Voice conversion: the source's words in the reference's voice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vcae.audio.f0 import log_f0_statistics
from vcae.audio.loudness import LevelMeter, follow_envelope_sections, set_level_sections
from vcae.audio.sections import Kept, Sections, Workshop
from vcae.engine.decoding import decode_sections
from vcae.engine.denoise import shared_cleaner
from vcae.engine.engine import DECODED_CORRECTIONS, Engine
from vcae.engine.listening import MIN_SOURCE_S, Analysis, Heard, Source, hear_content, hear_speaker, listen
from vcae.options import ConvertOptions, parse_share
from vcae.voice.detail import hear_detail
from vcae.voice.pitch import convert_f0
from vcae.voice.speaking import default_detail, speak_sections
from vcae.voice.voice import MAX_REFERENCE_S, Voice, describe_voice, interpolate_voices

# Seconds of a source that are in memory at a time.
SECTION_S = 10.0


@dataclass(frozen=True)
class Conversion:
    """A conversion and what was done.

    Attributes:
        wav: (N,), at the model's rate.
        f0: (1, T) the F0 that was synthesised, in Hz.
        mel: (1, n_mels, T) the mel that was synthesised.
        source_f0_hz: Median F0 of the source; nan when nothing is voiced.
        output_f0_hz: Median F0 of the output; nan likewise.
        reference_speech_s: Seconds of sound in the references, pauses left out.
    """

    wav: Tensor
    f0: Tensor
    mel: Tensor
    source_f0_hz: float
    output_f0_hz: float
    reference_speech_s: float


@dataclass(frozen=True)
class LongConversion:
    """A conversion whose sound is still to be made, section by section.

    Attributes:
        blocks: The sound, (n,) float32 each, at the model's rate; can be gone through once.
        f0: As in `Conversion`, and so are the numbers.
        mel: The mel that is synthesised.
        duration_s: Length of the source in seconds.
    """

    blocks: Iterator[np.ndarray]
    f0: Tensor
    mel: Sections
    source_f0_hz: float
    output_f0_hz: float
    reference_speech_s: float
    duration_s: float


def convert(
    model: Engine,
    source: Source,
    voice: Voice,
    options: ConvertOptions | None = None,
    progress: Callable[[float], object] | None = None,
) -> Conversion:
    """Convert a source to a voice.

    Args:
        model: A model whose checkpoint has an autoencoder with a speaker part.
        source: At least 0.5 s.
        voice: From `hear_voice`, `mix_voices` or `load_voice`.
        options: How; the defaults when None.
        progress: Called with the share of the sound that is made, 0 to 1; what it raises ends the work.

    Returns:
        The sound, as long as the source at the model's rate, with the source's level.

    Raises:
        AudioError: For unusable audio.
        ConfigError: For a checkpoint without a speaker part.
    """
    done = convert_long(model, source, voice, options, progress=progress)
    wav = torch.from_numpy(np.concatenate(list(done.blocks)))
    mel = done.mel.read(0, done.mel.n).cpu()
    return Conversion(wav, done.f0, mel, done.source_f0_hz, done.output_f0_hz, done.reference_speech_s)


@torch.inference_mode()
def convert_long(
    model: Engine,
    source: Source,
    voice: Voice,
    options: ConvertOptions | None = None,
    section_s: float = SECTION_S,
    progress: Callable[[float], object] | None = None,
) -> LongConversion:
    """Convert a source of any length as `convert` does, in memory that hardly grows with the length.

    What conversion needs to know of the whole (levels, moments, quantiles, F0) is measured in passes over sections that are kept on
    disk. Sections of another length give the same sound to less than a thousandth.

    Args:
        model: As in `convert`.
        source: A `Sound`, or a `SoundReader`.
        voice: As in `convert`.
        options: As in `convert`.
        section_s: Seconds of a section; a source of at most that many is one, and kept in memory.
        progress: As in `convert`: 0 once the source is heard, the rest while `blocks` are gone through.

    Returns:
        The sound, still to be made.

    Raises:
        AudioError: For unusable audio, or a full disk.
        ConfigError: For a checkpoint without a speaker part.
    """
    options = options or ConvertOptions()
    step = max(round(section_s * model.mel_config.frame_rate), 1)
    told = progress or (lambda share: None)
    if options.denoise:
        source = shared_cleaner(model.device.type).clean_mono(source)
    heard, work = listen(model, source, MIN_SOURCE_S, lambda n: Workshop(step, n > step, model.device))
    own = hear_speaker(model, heard.mel, heard.active, work)
    latent = hear_content(model, heard.mel, heard.active, work)
    if options.strength < 1:
        voice = interpolate_voices(describe_voice(model, [_beginning(model, heard)]), voice, options.strength)
    told(0.0)
    f0 = convert_f0(heard.f0, voice, options.pitch)
    detail, kept = None, parse_share("detail", options.detail)
    kept = default_detail(model) if isinstance(kept, str) else kept
    if kept:
        detail = hear_detail(heard.mel, decode_sections(model, latent, heard.f0, own), kept)
    mel = speak_sections(model, latent, f0, voice, parse_share("match", options.match), detail, work)
    return LongConversion(
        _sound(model, mel, f0, heard, options, work, told),
        f0.cpu(),
        mel,
        math.exp(log_f0_statistics(heard.f0[0])[0]),
        math.exp(log_f0_statistics(f0[0])[0]),
        voice.speech_s,
        heard.duration_s,
    )


def _beginning(model: Engine, heard: Heard) -> Analysis:
    n = min(heard.mel.n, round(MAX_REFERENCE_S * model.mel_config.frame_rate))
    return Analysis(np.zeros(0, np.float32), heard.mel.read(0, n), heard.f0[:, :n], heard.level)


@torch.inference_mode()
def _sound(
    model: Engine,
    mel: Sections,
    f0: Tensor,
    heard: Heard,
    options: ConvertOptions,
    work: Workshop,
    told: Callable[[float], object],
) -> Iterator[np.ndarray]:
    meter, wav = LevelMeter(), Kept(work.on_disk, torch.device("cpu"))
    for section in model.vocode_sections(mel, f0, heard.wav.n, options.seed, DECODED_CORRECTIONS, work):
        meter.add(section[0].numpy())
        wav.append(section[None])
        told(wav.n / heard.wav.n)

    def read(start: int, stop: int) -> np.ndarray:
        return wav.read(start, stop)[0, 0].numpy()

    samples = work.step * model.mel_config.hop_length
    if options.loudness == "source":
        yield from follow_envelope_sections(read, meter, heard.meter, heard.level, samples)
    else:
        yield from set_level_sections(read, meter, heard.level, samples)
