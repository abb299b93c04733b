"""Voice conversion: the source's words in the reference's voice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ, log_f0_statistics
from vcae.audio.frames import active_levels
from vcae.audio.loudness import LevelMeter, follow_envelope_sections, set_level_sections
from vcae.audio.sections import Computed, Kept, Sections, Workshop
from vcae.engine.denoise import shared_cleaner
from vcae.engine.listening import Heard, Source, frame_levels, hear_content, hear_speaker, listen
from vcae.errors import AudioError
from vcae.model.decoder import log_f0_mean
from vcae.options import ConvertOptions, parse_pitch, parse_share
from vcae.tasks.model import DECODED_CORRECTIONS, MIN_SOURCE_S, Analysis
from vcae.voice.detail import hear_detail
from vcae.voice.matching import FULL_MATCH_S, correct_errors, map_quantiles, section_quantiles
from vcae.voice.retrieval import REACH as RETRIEVAL_REACH
from vcae.voice.retrieval import retrieve
from vcae.voice.voice import Voice, decode_voice, describe_voice, interpolate_voices

if TYPE_CHECKING:
    from vcae.audio.io import Sound
    from vcae.model.decoder import Decoder
    from vcae.tasks.model import Model

MIN_REFERENCE_S = 1.0
# Of a longer recording of a voice, so much of its beginning is heard.
MAX_REFERENCE_S = 600.0
# Seconds of a source that are in memory at a time.
SECTION_S = 10.0
# The reference's spread of log-F0 is taken over within these bounds: short clips measure it badly.
SPREAD_BOUNDS = (0.7, 1.4)
# How far each band is distributed as the reference's: fully, it takes more of the voice's average and costs a quarter of the words.
DISTRIBUTION = 0.25
# Seconds of sound in the source from which it counts so much, and in proportion less: a short one does not know its own distribution.
DISTRIBUTION_S = 6.0
# How far frames are drawn to the reference's own, and the seconds of speech from which they are.
MATCH_BY_LENGTH = (0.5, 10.0)


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


def default_match(speech_s: float) -> float:
    """Return how far to draw frames to a reference's own by default, from its seconds of speech.

    With little to choose from, the nearest frame says something else too often; with a minute it seldom does.
    """
    return MATCH_BY_LENGTH[0] * min(1.0, speech_s / MATCH_BY_LENGTH[1])


@torch.inference_mode()
def speak(model: Model, latent: Tensor, f0: Tensor, voice: Voice, match: float | str = "auto") -> Tensor:
    """Decode content in a voice, put its averages right by the voice's own frames, and draw it towards these.

    Args:
        model: With an autoencoder that has a speaker part.
        latent: (1, D, ceil(T / stride)).
        f0: (1, T) in Hz, 0 where unvoiced.
        voice: Whose.
        match: 0 to 1, how far frames are drawn to the voice's own; `auto` decides by how much of it was heard.

    Returns:
        (1, n_mels, T), natural log magnitude.
    """
    n = f0.shape[-1]
    whole = Computed(latent.shape[-1], lambda start, stop: latent[..., start:stop])
    return speak_sections(model, whole, f0, voice, match, None, Workshop(n, False, model.device)).read(0, n)


def speak_sections(
    model: Model, latent: Sections, f0: Tensor, voice: Voice, match: float | str, detail: Sections | None, work: Workshop
) -> Sections:
    """Do what `speak` does by sections: what hangs on the whole is measured in passes over what is kept.

    Args:
        model: As in `speak`.
        latent: Of ceil(T / stride) steps.
        f0: (1, T) in Hz, 0 where unvoiced.
        voice: Whose.
        match: As in `speak`.
        detail: Of T steps, to add to the decoder's mel, from `hear_detail`; or None.
        work: How to go through it.

    Returns:
        The mel, of T steps.
    """
    autoencoder, n = model.autoencoder, f0.shape[-1]
    stride, trust = autoencoder.config.content.stride, min(1.0, voice.speech_s / FULL_MATCH_S)
    decoded = decode_sections(model, latent, f0, voice.speaker_embedding, voice.decoder)

    def corrected(start: int, stop: int) -> Tensor:
        mel = decoded.read(start, stop)
        mel = mel if detail is None else mel + detail.read(start, stop)
        code = latent.read(start // stride, -(-stop // stride))
        return correct_errors(mel, code, f0[:, start:stop], stride, voice.errors, trust)

    mel: Sections = work.keep(Computed(n, corrected, multiple=stride))
    heard_s = float(active_levels(frame_levels(mel, work)).sum()) / model.mel_config.frame_rate
    distribution = DISTRIBUTION * trust * min(1.0, heard_s / DISTRIBUTION_S)
    mel = _distributed(mel, f0, voice, distribution, work)
    strength = default_match(voice.speech_s) if isinstance(match, str) else match
    if strength == 0:
        return mel
    matched = mel

    def retrieved(start: int, stop: int) -> Tensor:
        section = matched.read(start, stop)
        return retrieve(section, autoencoder.normalize(section), f0[:, start:stop], voice.frames, strength)

    return _distributed(work.keep(Computed(n, retrieved, RETRIEVAL_REACH)), f0, voice, distribution, work)


def _distributed(mel: Sections, f0: Tensor, voice: Voice, strength: float, work: Workshop) -> Computed:
    have = section_quantiles(mel, f0, active_levels(frame_levels(mel, work))[0, 0] > 0, work)
    return Computed(
        mel.n, lambda start, stop: map_quantiles(mel.read(start, stop), f0[:, start:stop], have, voice.quantiles, strength)
    )


def decode_sections(
    model: Model,
    latent: Sections,
    f0: Tensor,
    speaker_embedding: Tensor,
    decoder: Decoder | None = None,
    f0_mean: Tensor | None = None,
) -> Computed:
    """Decode as `decode_voice` does, by sections: content of ceil(T / stride) steps and F0 (1, T) to a mel of T steps.

    `f0_mean` (1, 1) is the mean log-F0 to relate F0 to, its own when None.
    """
    stride, mean = model.autoencoder.config.content.stride, log_f0_mean(f0) if f0_mean is None else f0_mean
    reach = (decoder or model.autoencoder.decoder).reach

    def compute(start: int, stop: int) -> Tensor:
        code = latent.read(start // stride, -(-stop // stride))
        return decode_voice(model, code, f0[:, start:stop], speaker_embedding, decoder, mean)

    return Computed(f0.shape[-1], compute, reach, stride)


def convert_f0(f0: Tensor, voice: Voice, pitch: str | float = "auto") -> Tensor:
    """Move F0 to the reference's range, keep it, or shift it.

    Args:
        f0: (1, T) in Hz, 0 where unvoiced.
        voice: Whose median and (bounded) spread of log-F0 are taken with `auto`.
        pitch: `auto`, `keep`, or semitones.

    Returns:
        (1, T) in Hz, 0 where unvoiced.
    """
    return move_f0(f0, voice, pitch, log_f0_statistics(f0[0]))


class Pitched(Protocol):
    """A voice, or whatever else has a range of F0."""

    @property
    def log_f0_median(self) -> float:
        """Natural log of Hz; nan when nothing is known."""

    @property
    def log_f0_spread(self) -> float:
        """In nats; nan likewise."""


def move_f0(f0: Tensor, voice: Pitched, pitch: str | float, statistics: tuple[float, float]) -> Tensor:
    """Do what `convert_f0` does with F0 (1, T) of a recording whose median and spread of log-F0 are known."""
    pitch = parse_pitch(pitch)
    voiced = f0 > 0
    if pitch == "keep" or not bool(voiced.any()):
        return f0
    log_f0 = torch.log(f0.clamp(min=F0_MIN_HZ))
    if pitch == "auto":
        median, spread = statistics
        if math.isnan(voice.log_f0_median):
            return f0
        ratio = min(max(voice.log_f0_spread / max(spread, 1e-3), SPREAD_BOUNDS[0]), SPREAD_BOUNDS[1])
        log_f0 = voice.log_f0_median + (log_f0 - median) * ratio
    else:
        log_f0 = log_f0 + float(pitch) * math.log(2) / 12
    return torch.where(voiced, torch.exp(log_f0).clamp(F0_MIN_HZ, F0_MAX_HZ), torch.zeros_like(f0))


def hear_voice(model: Model, references: Sequence[Sound], denoise: bool = False) -> Voice:
    """Describe the voice of clips, at least 1 s each, weighted by their seconds of sound; cleaned first with `denoise`.

    Raises:
        AudioError: For unusable audio, or none.
    """
    if not references:
        raise AudioError("no reference was given; name at least one clip of the voice to take")
    if denoise:
        references = [shared_cleaner(model.device.type).sound(reference) for reference in references]
    return describe_voice(model, [model.analyse_sound(r, MIN_REFERENCE_S) for r in references])


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
    model: Model,
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
    model: Model,
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
        source = shared_cleaner(model.device.type).clean(source)
    heard, work = listen(model, source, MIN_SOURCE_S, lambda n: Workshop(step, n > step, model.device))
    own = hear_speaker(model, heard.mel, heard.active, work)
    latent = hear_content(model, heard.mel, heard.active, work)
    if options.strength < 1:
        voice = interpolate_voices(describe_voice(model, [_beginning(model, heard)]), voice, options.strength)
    told(0.0)
    f0 = convert_f0(heard.f0, voice, options.pitch)
    detail, kept = None, parse_share("detail", options.detail)
    if isinstance(kept, str):
        kept = 0.0 if model.autoencoder.quantizer is not None else 1.0
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


def _beginning(model: Model, heard: Heard) -> Analysis:
    n = min(heard.mel.n, round(MAX_REFERENCE_S * model.mel_config.frame_rate))
    return Analysis(np.zeros(0, np.float32), heard.mel.read(0, n), heard.f0[:, :n], heard.level)


@torch.inference_mode()
def _sound(
    model: Model,
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
