"""Voices: measured from clips, and mixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vcae.audio.f0 import log_f0_statistics
from vcae.audio.frames import active_frames
from vcae.audio.io import Sound
from vcae.engine.decoding import decode_voice
from vcae.engine.denoise import shared_cleaner
from vcae.engine.engine import Engine, Samples, as_sound
from vcae.engine.listening import Analysis, analyse
from vcae.errors import AudioError, ConfigError
from vcae.model.decoder import Decoder
from vcae.model.reference import Reference
from vcae.voice.matching import Errors, Quantiles, band_quantiles, measure_errors
from vcae.voice.retrieval import Frames, keep_frames

MIN_REFERENCE_S = 1.0
# Of a longer recording of a voice, so much of its beginning is heard.
MAX_REFERENCE_S = 600.0


# Of the recordings that a voice was measured on, this much is kept with it, so that another checkpoint can measure it again.
KEPT_S = 60.0


@dataclass(frozen=True)
class Recording:
    """What is kept of a recording of a voice.

    Attributes:
        mel: (1, n_mels, T) float16, natural log magnitude.
        f0: (1, T) in Hz, 0 where unvoiced.
    """

    mel: Tensor
    f0: Tensor


@dataclass(frozen=True)
class Voice:
    """What is known of a voice to convert to.

    Attributes:
        speaker_embedding: (1, speaker_dim), unit norm.
        log_f0_median: Natural log of Hz; nan when the reference has no voiced frame.
        log_f0_spread: In nats; nan likewise.
        quantiles: (n_mels, Q) of unvoiced and of voiced frames, the distribution of each mel band.
        errors: What the autoencoder gets wrong about this voice.
        frames: What it sounds like, frame by frame.
        speech_s: Seconds of sound, pauses left out.
        decoder: A decoder fine-tuned to this voice; None takes the checkpoint's.
        reference: What the decoder may look up of the voice; None where it looks up nothing, or nothing is known.
        recordings: What it was measured on, at most `KEPT_S` in all; none of a mixed or invented voice.
    """

    speaker_embedding: Tensor
    log_f0_median: float
    log_f0_spread: float
    quantiles: Quantiles
    errors: Errors
    frames: Frames
    speech_s: float
    decoder: Decoder | None = None
    reference: Reference | None = None
    recordings: tuple[Recording, ...] = ()


@torch.inference_mode()
def describe_voice(model: Engine, references: Sequence[Analysis], decoder: Decoder | None = None) -> Voice:
    """Describe the voice of one or several references, each weighted by its seconds of sound.

    Args:
        model: A model whose checkpoint has an autoencoder with a speaker part.
        references: At least one.
        decoder: Fine-tuned to this voice, or None.
    """
    total, speech_s = torch.zeros((), device=model.device), 0.0
    for seen in references:
        seconds = float(active_frames(seen.mel).sum()) / model.mel_config.frame_rate
        total = total + seconds * model.autoencoder.encode_speaker(seen.mel)
        speech_s += seconds
    embedding = torch.nn.functional.normalize(total, dim=-1)
    mels, f0s = [seen.mel for seen in references], [seen.f0 for seen in references]
    latents = [model.autoencoder.encode_content(mel) for mel in mels]
    copies = [decode_voice(model, latent, f0, embedding, decoder) for latent, f0 in zip(latents, f0s, strict=True)]
    errors = measure_errors(mels, copies, latents, f0s, model.autoencoder.config.content.stride)
    frames = keep_frames(mels, [model.autoencoder.normalize(mel) for mel in mels], f0s)
    statistics = log_f0_statistics(torch.cat(f0s, dim=1)[0])
    reference = describe_reference(model, mels)
    quantiles, recordings = band_quantiles(mels, f0s), _keep(references, round(KEPT_S * model.mel_config.frame_rate))
    return Voice(embedding, *statistics, quantiles, errors, frames, speech_s, decoder, reference, recordings)


def describe_reference(model: Engine, mels: Sequence[Tensor]) -> Reference | None:
    """Return what the decoder may look up in log-mels (1, n_mels, T) of a voice, every step alike; None where it looks up nothing."""
    known = [model.autoencoder.encode_reference(mel) for mel in mels]
    found = [reference for reference in known if reference is not None]
    return Reference.join(found, [float(r.keys.shape[1]) for r in found]) if found else None


def _keep(references: Sequence[Analysis], n: int) -> tuple[Recording, ...]:
    """Return the first n frames of the references."""
    kept = []
    for seen in references:
        if n > 0:
            kept.append(Recording(seen.mel[..., :n].half(), seen.f0[:, :n]))
        n -= seen.mel.shape[-1]
    return tuple(kept)


def measure_again(model: Engine, recordings: Sequence[Recording]) -> Voice:
    """Describe the voice of recordings that another checkpoint of the same mel kept with it."""
    nothing = np.zeros(0, np.float32)
    return describe_voice(
        model, [Analysis(nothing, r.mel.float().to(model.device), r.f0.to(model.device), 1.0) for r in recordings]
    )


def hear_voice(model: Engine, references: Sequence[Sound], denoise: bool = False) -> Voice:
    """Describe the voice of clips, at least 1 s each, weighted by their seconds of sound; cleaned first with `denoise`.

    Raises:
        AudioError: For unusable audio, or none.
    """
    if not references:
        raise AudioError("no reference was given; name at least one clip of the voice to take")
    if denoise:
        cleaner = shared_cleaner(model.device.type)
        references = [cleaner.sound(reference) for reference in references]
    return describe_voice(model, [analyse(model, r, MIN_REFERENCE_S) for r in references])


def measure_voice(
    model: Engine, clips: Samples | Sequence[Samples], sample_rate: int | None = None, denoise: bool = False
) -> Voice:
    """Measure the voice of samples.

    Args:
        model: With an autoencoder that has a speaker part.
        clips: One clip, as `as_sound` takes it, or several; at least 1 s each; they count by their seconds of speech.
        sample_rate: Of samples, in Hz.
        denoise: Clean the clips first.

    Raises:
        AudioError: For unusable audio.
        ConfigError: For a checkpoint without a speaker part.
    """
    several = [clips] if isinstance(clips, Samples) else list(clips)
    return hear_voice(model, [as_sound(clip, sample_rate, f"reference {n + 1}") for n, clip in enumerate(several)], denoise)


def mix_voices(voices: Sequence[Voice], weights: Sequence[float]) -> Voice:
    """Mix voices.

    Embeddings, log-F0, its spread and the bands' quantiles are averaged by weight; errors and frames are looked up in all of them.

    Args:
        voices: At least one.
        weights: One for each, not negative, not all 0; only their ratios count.

    Raises:
        ConfigError: For unusable weights.
    """
    if len(voices) != len(weights) or not voices:
        raise ConfigError(f"{len(voices)} voices and {len(weights)} weights were given; each voice needs one weight")
    total = sum(weights)
    if not all(math.isfinite(w) and w >= 0 for w in weights) or total <= 0:
        raise ConfigError(f"the voices' weights are {list(weights)}; they must not be negative and not all 0")
    kept = [(voice, w / total) for voice, w in zip(voices, weights, strict=True) if w > 0]
    if len(kept) == 1:
        return kept[0][0]
    if any(voice.decoder is not None for voice, _ in kept):
        raise ConfigError(
            "a fine-tuned voice cannot be mixed, nor taken at a strength under 1; save it from its clips to mix it"
        )
    embedding = torch.nn.functional.normalize(torch.stack([w * v.speaker_embedding for v, w in kept]).sum(0), dim=-1)
    quantiles = tuple(_mean([(v.quantiles[i], w) for v, w in kept]) for i in (0, 1))
    # Each voice weighs as much in a look-up as in the mix, however many frames it brings.
    errors = Errors(
        torch.cat([v.errors.keys for v, _ in kept]),
        torch.cat([v.errors.values for v, _ in kept]),
        torch.cat([v.errors.log_weights + math.log(w / len(v.errors.keys)) for v, w in kept]),
        sum(w * v.errors.bandwidth for v, w in kept),
    )
    frames = Frames(
        torch.cat([v.frames.keys for v, _ in kept]),
        torch.cat([v.frames.envelopes for v, _ in kept]),
        torch.cat([v.frames.log_weights + math.log(w / len(v.frames.keys)) for v, w in kept]),
    )
    return Voice(
        embedding,
        _mean_number([(v.log_f0_median, w) for v, w in kept]),
        _mean_number([(v.log_f0_spread, w) for v, w in kept]),
        (quantiles[0], quantiles[1]),
        errors,
        frames,
        sum(w * v.speech_s for v, w in kept),
        reference=_mean_reference([(v.reference, w) for v, w in kept]),
    )


def _mean(parts: list[tuple[Tensor | None, float]]) -> Tensor | None:
    known = [(x, w) for x, w in parts if x is not None]
    if not known:
        return None
    return torch.stack([x * w for x, w in known]).sum(0) / sum(w for _, w in known)


def _mean_reference(parts: list[tuple[Reference | None, float]]) -> Reference | None:
    known = [(reference, w) for reference, w in parts if reference is not None]
    return Reference.join([r for r, _ in known], [w for _, w in known]) if known else None


def _mean_number(parts: list[tuple[float, float]]) -> float:
    known = [(x, w) for x, w in parts if not math.isnan(x)]
    return sum(x * w for x, w in known) / sum(w for _, w in known) if known else math.nan


def interpolate_voices(source: Voice, target: Voice, strength: float) -> Voice:
    """Return the voice between the source's own (0) and the target's (1), as trustworthy as the target's.

    Raises:
        ConfigError: If the strength is not within 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength is {strength}; allowed are 0 (the source's own voice) to 1 (the reference's)")
    return replace(mix_voices([source, target], [1 - strength, strength]), speech_s=target.speech_s)
