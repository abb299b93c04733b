"""Voice conversion: the source's words in the reference's voice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ, log_f0_statistics
from vcae.audio.frames import active_frames
from vcae.audio.loudness import follow_envelope
from vcae.errors import AudioError, ConfigError
from vcae.tasks.matching import FULL_MATCH_S, Errors, band_quantiles, correct_errors, match_quantiles, measure_errors

if TYPE_CHECKING:
    from vcae.audio.io import Sound
    from vcae.tasks.model import Analysis, Model

MIN_REFERENCE_S = 1.0
# The reference's spread of log-F0 is taken over within these bounds: short clips measure it badly.
SPREAD_BOUNDS = (0.7, 1.4)


@dataclass(frozen=True)
class Voice:
    """What is known of a voice to convert to.

    Attributes:
        speaker_embedding: (1, speaker_dim), unit norm.
        log_f0_median: Natural log of Hz; nan when the reference has no voiced frame.
        log_f0_spread: In nats; nan likewise.
        quantiles: (n_mels, Q) of unvoiced and of voiced frames, the distribution of each mel band.
        errors: What the autoencoder gets wrong about this voice.
        speech_s: Seconds of sound, pauses left out.
    """

    speaker_embedding: Tensor
    log_f0_median: float
    log_f0_spread: float
    quantiles: tuple[Tensor | None, Tensor | None]
    errors: Errors
    speech_s: float


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


@torch.inference_mode()
def describe_voice(model: Model, references: Sequence[Analysis]) -> Voice:
    """Describe the voice of one or several references, each weighted by its seconds of sound."""
    total, speech_s = torch.zeros(()), 0.0
    for seen in references:
        seconds = float(active_frames(seen.mel).sum()) / model.mel_config.frame_rate
        total = total.to(model.device) + seconds * model.autoencoder.encode_speaker(seen.mel)
        speech_s += seconds
    embedding = torch.nn.functional.normalize(total, dim=-1)
    mels, f0s = [seen.mel for seen in references], [seen.f0 for seen in references]
    latents = [model.autoencoder.encode_content(mel) for mel in mels]
    copies = [model.autoencoder.decode(latent, f0, embedding) for latent, f0 in zip(latents, f0s, strict=True)]
    errors = measure_errors(mels, copies, latents, f0s, model.autoencoder.config.content.stride)
    return Voice(embedding, *log_f0_statistics(torch.cat(f0s, dim=1)[0]), band_quantiles(mels, f0s), errors, speech_s)


@torch.inference_mode()
def speak(model: Model, latent: Tensor, f0: Tensor, voice: Voice, match: float = 1.0) -> Tensor:
    """Decode content (1, D, ceil(T / stride)) and F0 (1, T) in a voice, matched (0 to 1) to the voice's own frames.

    Returns:
        (1, n_mels, T), natural log magnitude.
    """
    strength = match * min(1.0, voice.speech_s / FULL_MATCH_S)
    mel = model.autoencoder.decode(latent, f0, voice.speaker_embedding)
    mel = correct_errors(mel, latent, f0, model.autoencoder.config.content.stride, voice.errors, strength)
    return match_quantiles(mel, f0, voice.quantiles, strength)


def parse_pitch(pitch: str | float) -> str | float:
    """Check a pitch setting: `auto`, `keep`, or semitones from -36 to 36.

    Raises:
        ConfigError: For anything else.
    """
    if pitch in ("auto", "keep"):
        return pitch
    try:
        semitones = float(pitch)
    except ValueError:
        semitones = math.nan
    if not abs(semitones) <= 36:
        raise ConfigError(f"pitch is {pitch!r}; allowed are auto, keep, or semitones from -36 to 36")
    return semitones


def convert_f0(f0: Tensor, voice: Voice, pitch: str | float = "auto") -> Tensor:
    """Move F0 to the reference's range, keep it, or shift it.

    Args:
        f0: (1, T) in Hz, 0 where unvoiced.
        voice: Whose median and (bounded) spread of log-F0 are taken with `auto`.
        pitch: `auto`, `keep`, or semitones.

    Returns:
        (1, T) in Hz, 0 where unvoiced.
    """
    pitch = parse_pitch(pitch)
    voiced = f0 > 0
    if pitch == "keep" or not bool(voiced.any()):
        return f0
    log_f0 = torch.log(f0.clamp(min=F0_MIN_HZ))
    if pitch == "auto":
        median, spread = log_f0_statistics(f0[0])
        if math.isnan(voice.log_f0_median):
            return f0
        ratio = min(max(voice.log_f0_spread / max(spread, 1e-3), SPREAD_BOUNDS[0]), SPREAD_BOUNDS[1])
        log_f0 = voice.log_f0_median + (log_f0 - median) * ratio
    else:
        log_f0 = log_f0 + float(pitch) * math.log(2) / 12
    return torch.where(voiced, torch.exp(log_f0).clamp(F0_MIN_HZ, F0_MAX_HZ), torch.zeros_like(f0))


@torch.inference_mode()
def convert(
    model: Model, source: Sound, references: Sequence[Sound], pitch: str | float = "auto", seed: int = 0, match: float = 1.0
) -> Conversion:
    """Convert a source to the voice of the references.

    Args:
        model: A model whose checkpoint has an autoencoder with a speaker part.
        source: At least 0.5 s.
        references: Clips of the voice to take, at least 1 s each; weighted by their seconds of sound.
        pitch: `auto` moves log-F0 to the references' median and bounded spread, `keep` leaves it, a number shifts it by semitones.
        seed: Of the vocoder's noise.
        match: How far the mel is matched to the references' own frames; 0 leaves it as it was decoded.

    Returns:
        The sound, as long as the source at the model's rate, with the source's loudness envelope and level.

    Raises:
        AudioError: For unusable audio.
        ConfigError: For a bad pitch, or a checkpoint without a speaker part.
    """
    pitch = parse_pitch(pitch)
    if not references:
        raise AudioError("no reference was given; name at least one clip of the voice to take")
    seen = model.analyse(source.wav, source.sample_rate, source.name)
    heard = [model.analyse(r.wav, r.sample_rate, r.name, MIN_REFERENCE_S) for r in references]
    voice = describe_voice(model, heard)
    f0 = convert_f0(seen.f0, voice, pitch)
    mel = speak(model, model.autoencoder.encode_content(seen.mel), f0, voice, match)
    wav = model.vocode(mel, f0, len(seen.wav), seed)[0].numpy()
    return Conversion(
        torch.from_numpy(follow_envelope(wav, seen.wav, seen.level)),
        f0.cpu(),
        mel.cpu(),
        math.exp(log_f0_statistics(seen.f0[0])[0]),
        math.exp(log_f0_statistics(f0[0])[0]),
        voice.speech_s,
    )
