"""Voices: measured from clips, or mixed."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vcae.audio.config import MelConfig
from vcae.audio.f0 import log_f0_statistics
from vcae.audio.frames import active_frames
from vcae.audio.high_band import BandProfile, mean_bands, measure_bands
from vcae.audio.io import Sound
from vcae.audio.speech import NOISY_REFERENCE_DB
from vcae.deprecation import renamed
from vcae.engine.decoding import decode_voice
from vcae.engine.denoise import shared_cleaner
from vcae.engine.engine import Engine, Samples, as_sound
from vcae.engine.listening import Analysis, analyse
from vcae.errors import AudioError, ConfigError
from vcae.model.decoder import Decoder
from vcae.model.reference import Reference
from vcae.options import AUTO
from vcae.voice.matching import Errors, Quantiles, band_quantiles, measure_errors
from vcae.voice.spectrum import SpectrumMap, mean_map
from vcae.voice.speech import hear_speech, is_noisy

log = logging.getLogger(__name__)

MIN_REFERENCE_S = 0.5
# Longest recording of a voice; only the beginning of a longer one is used.
MAX_REFERENCE_S = 600.0


# Seconds of a voice's recordings that are stored with it, so that another checkpoint can measure it again.
KEPT_S = 60.0


@dataclass(frozen=True)
class Recording:
    """Recording of a voice, as stored with it.

    Attributes:
        mel: (1, n_mels, T) float16, natural log magnitude.
        f0: (1, T) in Hz, 0 where unvoiced.
    """

    mel: Tensor
    f0: Tensor


@dataclass(frozen=True)
class Origin:
    """The checkpoint that measured a voice.

    Attributes:
        checkpoint: Its name.
        sha256: SHA-256 of its file, hex.
        mel: Mel settings of its models.
    """

    checkpoint: str
    sha256: str
    mel: MelConfig

    @classmethod
    def of(cls, model: Engine) -> Origin:
        """Return the origin of the voices that this model measures."""
        return cls(model.checkpoint.path.stem, model.checkpoint.sha256, model.mel_config)


@dataclass(frozen=True, eq=False, repr=False)
class Voice:
    """Voice to convert to.

    Attributes:
        speaker_embedding: (1, speaker_dim), unit norm.
        log_f0_median: Median of log-F0, natural log of Hz; nan if the reference has no voiced frame.
        log_f0_spread: Standard deviation of log-F0 in nats; nan if the reference has no voiced frame.
        quantiles: (n_mels, Q) of unvoiced and of voiced frames, the distribution of each mel band.
        errors: Reconstruction errors of the autoencoder on this voice.
        speech_s: Seconds of sound, without pauses.
        decoder: Decoder fine-tuned to this voice; None for the checkpoint's.
        reference: Keys and values for the decoder's attention; None without attention, or if unknown.
        recordings: Recordings that it was measured on, at most `KEPT_S` in total; those of a generated voice are synthetic; empty for a mixed one.
        origin: Checkpoint that measured it; None if unknown.
        decoder_weights: Weights of a fine-tuned decoder that `fit_voice` has not built yet; None otherwise.
        parts: The mixed voices with their weights; empty for a voice that is not mixed.
        warnings: Problems of its clips that do not prevent their use, a sentence each.
        bands: Levels above the models' band; None if no clip has that band.
        spectrum_map: Map of decoded mels, of a trained voice; None otherwise.
    """

    speaker_embedding: Tensor
    log_f0_median: float
    log_f0_spread: float
    quantiles: Quantiles
    errors: Errors
    speech_s: float
    decoder: Decoder | None = None
    reference: Reference | None = None
    recordings: tuple[Recording, ...] = ()
    origin: Origin | None = None
    decoder_weights: Mapping[str, Tensor] | None = None
    parts: tuple[tuple[Voice, float], ...] = ()
    warnings: tuple[str, ...] = ()
    bands: BandProfile | None = None
    spectrum_map: SpectrumMap | None = None

    def __repr__(self) -> str:
        pitch = "unvoiced" if math.isnan(self.log_f0_median) else f"{math.exp(self.log_f0_median):.0f} Hz"
        own = (self.decoder, self.decoder_weights, self.spectrum_map)
        fitted = "" if all(part is None for part in own) else ", fine-tuned"
        mixed = f", a mix of {len(self.parts)}" if self.parts else ""
        measured = "" if self.origin is None else f", checkpoint {self.origin.checkpoint}"
        return f"Voice({self.speech_s:.1f} s of speech, {pitch}{mixed}{fitted}{measured})"


@torch.inference_mode()
def describe_voice(model: Engine, references: Sequence[Analysis], decoder: Decoder | None = None) -> Voice:
    """Measure the voice of one or several references, each weighted by its seconds of sound.

    Args:
        model: Model whose autoencoder has a speaker part.
        references: At least one analysed reference.
        decoder: Decoder fine-tuned to this voice, or None.
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
    statistics = log_f0_statistics(torch.cat(f0s, dim=1)[0])
    quantiles, recordings = band_quantiles(mels, f0s), _keep(references, round(KEPT_S * model.mel_config.frame_rate))
    # Of the recordings that a saved voice stores, and as rounded there, so that it sounds the same.
    reference = describe_reference(model, [recording.mel.float() for recording in recordings])
    origin = Origin.of(model)
    return Voice(embedding, *statistics, quantiles, errors, speech_s, decoder, reference, recordings, origin)


@torch.inference_mode()
def describe_reference(model: Engine, mels: Sequence[Tensor]) -> Reference | None:
    """Return the steps of log-mels (1, n_mels, T) of a voice for the decoder's attention, with equal weights; None if it has no attention."""
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
    """Measure a voice from the recordings stored with it by another checkpoint of the same mel."""
    nothing = np.zeros(0, np.float32)
    return describe_voice(
        model, [Analysis(nothing, r.mel.float().to(model.device), r.f0.to(model.device), 1.0) for r in recordings]
    )


def voice_from_sounds(model: Engine, references: Sequence[Sound], denoise: bool | str = AUTO) -> Voice:
    """Measure the voice of clips from the speech in them, weighted by its seconds; `denoise` is as of `measure_voice`.

    Raises:
        AudioError: For unusable audio, no clips, or too little speech.
    """
    if not references:
        raise AudioError("no reference was given; name at least one clip of the target voice")
    seen = [_analyse(model, reference, denoise) for reference in references]
    speech, warnings = hear_speech(model, seen, references)
    known = [line for reference in references for line in reference.warnings]
    bands = mean_bands([(measure_bands(r.wav, r.sample_rate), r.duration_s) for r in references])
    return replace(describe_voice(model, speech), warnings=(*known, *warnings), bands=bands)


def _analyse(model: Engine, reference: Sound, denoise: bool | str) -> Analysis:
    """Return the analysis of a reference, denoised first if asked for or if it is noisy."""
    if denoise is not True:
        seen = analyse(model, reference, MIN_REFERENCE_S)
        if not denoise or not is_noisy(seen, model.mel_config.frame_rate, NOISY_REFERENCE_DB):
            return seen
    return analyse(model, shared_cleaner(model.device.type).sound(reference), MIN_REFERENCE_S)


def measure_voice(
    model: Engine, clips: Samples | Sequence[Samples], sample_rate: int | None = None, denoise: bool | str = AUTO
) -> Voice:
    """Measure a voice.

    Args:
        model: Model whose autoencoder has a speaker part.
        clips: One clip, in any form that `as_sound` accepts, or several, with at least 0.5 s of speech in all; each counts by its speech.
        sample_rate: Sample rate of arrays, in Hz.
        denoise: Denoise the clips first: True, False, or `auto`, which denoises noisy ones only.

    Raises:
        AudioError: For unusable audio.
        ConfigError: For a checkpoint without a speaker part.
    """
    several = [clips] if isinstance(clips, Samples) else list(clips)
    sounds = [as_sound(clip, sample_rate, f"reference {n + 1}") for n, clip in enumerate(several)]
    voice = voice_from_sounds(model, sounds, denoise)
    # Warnings about a file were logged when it was read.
    log_warnings(voice, known=[line for sound in sounds for line in sound.warnings])
    return voice


def log_warnings(voice: Voice, known: Sequence[str] = ()) -> None:
    """Log a voice's warnings except the known ones."""
    for line in voice.warnings:
        if line not in known:
            log.warning("%s", line)


def mix_voices(voices: Sequence[Voice], weights: Sequence[float]) -> Voice:
    """Mix voices.

    Embeddings, median and standard deviation of log-F0, the bands' quantiles and the maps are averaged by weight; errors of all of them are used.

    Args:
        voices: At least one.
        weights: One for each voice, not negative, not all 0; only their ratios matter.

    Raises:
        ConfigError: For unusable weights, a voice with its own decoder, or voices that different checkpoints measured.
    """
    if len(voices) != len(weights) or not voices:
        raise ConfigError(f"{len(voices)} voices and {len(weights)} weights were given; each voice needs one weight")
    total = sum(weights)
    if not all(math.isfinite(w) and w >= 0 for w in weights) or total <= 0:
        raise ConfigError(f"the voices' weights are {list(weights)}; they must not be negative and not all 0")
    kept = [(voice, w / total) for voice, w in zip(voices, weights, strict=True) if w > 0]
    if len(kept) == 1:
        return kept[0][0]
    if any(voice.decoder is not None or voice.decoder_weights is not None for voice, _ in kept):
        raise ConfigError(
            "a voice with its own decoder cannot be mixed, nor used with a strength below 1; train it again, or save it from its clips"
        )
    origins = sorted({f"{v.origin.checkpoint} ({v.origin.sha256[:12]})" for v, _ in kept if v.origin is not None})
    if len(origins) > 1:
        raise ConfigError(
            f"the voices were measured by checkpoints {' and '.join(origins)}; load them for one model to mix them: load_voice(name, model)"
        )
    embedding = torch.nn.functional.normalize(torch.stack([w * v.speaker_embedding for v, w in kept]).sum(0), dim=-1)
    quantiles = tuple(_mean([(v.quantiles[i], w) for v, w in kept]) for i in (0, 1))
    # Each voice has its weight among the errors too, whatever their number.
    errors = Errors(
        torch.cat([v.errors.keys for v, _ in kept]),
        torch.cat([v.errors.values for v, _ in kept]),
        torch.cat([v.errors.log_weights + math.log(w / len(v.errors.keys)) for v, w in kept]),
        sum(w * v.errors.bandwidth for v, w in kept),
    )
    return Voice(
        embedding,
        _mean_number([(v.log_f0_median, w) for v, w in kept]),
        _mean_number([(v.log_f0_spread, w) for v, w in kept]),
        (quantiles[0], quantiles[1]),
        errors,
        sum(w * v.speech_s for v, w in kept),
        reference=_mean_reference([(v.reference, w) for v, w in kept]),
        origin=kept[0][0].origin,
        parts=tuple(kept),
        warnings=tuple(dict.fromkeys(line for v, _ in kept for line in v.warnings)),
        bands=mean_bands([(v.bands, w) for v, w in kept]),
        spectrum_map=mean_map([(v.spectrum_map, w) for v, w in kept]),
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
    """Return the voice between the source's own (0) and the target's (1), with the target's seconds of speech.

    Raises:
        ConfigError: If the strength is not within 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength is {strength}; allowed are 0 (the source's own voice) to 1 (the reference's)")
    return replace(mix_voices([source, target], [1 - strength, strength]), speech_s=target.speech_s)


__getattr__ = renamed(__name__, {"hear_voice": "voice_from_sounds"})
