"""Voice conversion: the source's words in the reference's voice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ, log_f0_statistics
from vcae.audio.frames import active_frames
from vcae.audio.loudness import follow_envelope, set_level
from vcae.errors import AudioError, ConfigError
from vcae.tasks.detail import source_detail
from vcae.tasks.matching import FULL_MATCH_S, correct_errors, match_quantiles
from vcae.tasks.model import DECODED_CORRECTIONS
from vcae.tasks.retrieval import retrieve
from vcae.tasks.voice import Voice, decode_voice, describe_voice, interpolate_voices

if TYPE_CHECKING:
    from vcae.audio.io import Sound
    from vcae.tasks.model import Model

MIN_REFERENCE_S = 1.0
# The reference's spread of log-F0 is taken over within these bounds: short clips measure it badly.
SPREAD_BOUNDS = (0.7, 1.4)
LOUDNESS = ("source", "flat")
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
def speak(
    model: Model, latent: Tensor, f0: Tensor, voice: Voice, match: float | str = "auto", detail: Tensor | None = None
) -> Tensor:
    """Decode content in a voice, put its averages right by the voice's own frames, and draw it towards these.

    Args:
        model: With an autoencoder that has a speaker part.
        latent: (1, D, ceil(T / stride)).
        f0: (1, T) in Hz, 0 where unvoiced.
        voice: Whose.
        match: 0 to 1, how far frames are drawn to the voice's own; `auto` decides by how much of it was heard.
        detail: (1, n_mels, T) to add to the decoder's mel, from `source_detail`.

    Returns:
        (1, n_mels, T), natural log magnitude.
    """
    autoencoder = model.autoencoder
    trust = min(1.0, voice.speech_s / FULL_MATCH_S)
    mel = decode_voice(model, latent, f0, voice.speaker_embedding, voice.decoder)
    if detail is not None:
        mel = mel + detail
    mel = correct_errors(mel, latent, f0, autoencoder.config.content.stride, voice.errors, trust)
    heard_s = float(active_frames(mel).sum()) / model.mel_config.frame_rate
    distribution = DISTRIBUTION * trust * min(1.0, heard_s / DISTRIBUTION_S)
    mel = match_quantiles(mel, f0, voice.quantiles, distribution)
    strength = default_match(voice.speech_s) if isinstance(match, str) else match
    if strength == 0:
        return mel
    mel = retrieve(mel, autoencoder.normalize(mel), f0, voice.frames, strength)
    return match_quantiles(mel, f0, voice.quantiles, distribution)


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


def parse_share(name: str, value: str | float) -> str | float:
    """Check a setting that is `auto`, or 0 to 1.

    Raises:
        ConfigError: For anything else.
    """
    if value == "auto":
        return value
    try:
        share = float(value)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ConfigError(f"{name} is {value!r}; allowed are auto, or 0 to 1")
    return share


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


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Attributes:
        pitch: `auto` moves log-F0 to the voice's median and bounded spread, `keep` leaves it, a number shifts it by semitones.
        strength: From the source's own voice (0) to the one asked for (1).
        match: How far frames are drawn to the voice's own, 0 to 1; `auto` decides by the length of the reference.
        detail: How much of the source's detail is kept that its code leaves out; it carries words, and a trace of the source's voice.
            `auto` keeps all of it beside a continuous code and none beside units, which are to be all that is sent.
        loudness: `source` follows the source's envelope; `flat` only takes its level.
        seed: Of the vocoder's noise.

    Raises:
        ConfigError: For a value that is not allowed.
    """

    pitch: str | float = "auto"
    strength: float = 1.0
    match: str | float = "auto"
    detail: str | float = "auto"
    loudness: str = "source"
    seed: int = 0

    def __post_init__(self) -> None:
        parse_pitch(self.pitch)
        parse_share("match", self.match)
        parse_share("detail", self.detail)
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"strength is {self.strength}; allowed are 0 to 1")
        if self.loudness not in LOUDNESS:
            raise ConfigError(f"loudness is {self.loudness!r}; allowed are {' and '.join(LOUDNESS)}")


def hear_voice(model: Model, references: Sequence[Sound]) -> Voice:
    """Describe the voice of clips, at least 1 s each, weighted by their seconds of sound.

    Raises:
        AudioError: For unusable audio, or none.
    """
    if not references:
        raise AudioError("no reference was given; name at least one clip of the voice to take")
    return describe_voice(model, [model.analyse(r.wav, r.sample_rate, r.name, MIN_REFERENCE_S) for r in references])


@torch.inference_mode()
def convert(
    model: Model,
    source: Sound,
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
    options = options or ConvertOptions()
    seen = model.analyse(source.wav, source.sample_rate, source.name)
    autoencoder = model.autoencoder
    latent, own = autoencoder.encode_content(seen.mel), autoencoder.encode_speaker(seen.mel)
    if options.strength < 1:
        voice = interpolate_voices(describe_voice(model, [seen]), voice, options.strength)
    if progress is not None:
        progress(0.0)
    f0 = convert_f0(seen.f0, voice, options.pitch)
    detail, kept = None, parse_share("detail", options.detail)
    if isinstance(kept, str):
        kept = 0.0 if autoencoder.quantizer is not None else 1.0
    if kept:
        detail = kept * source_detail(seen.mel, autoencoder.decode(latent, seen.f0, own))
    mel = speak(model, latent, f0, voice, parse_share("match", options.match), detail)
    wav = model.vocode(mel, f0, len(seen.wav), options.seed, DECODED_CORRECTIONS, progress=progress)[0].numpy()
    shaped = follow_envelope(wav, seen.wav, seen.level) if options.loudness == "source" else set_level(wav, seen.level)
    return Conversion(
        torch.from_numpy(shaped),
        f0.cpu(),
        mel.cpu(),
        math.exp(log_f0_statistics(seen.f0[0])[0]),
        math.exp(log_f0_statistics(f0[0])[0]),
        voice.speech_s,
    )
