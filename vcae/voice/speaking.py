"""Decoding of content in a voice, with corrections by the voice's reference."""

from __future__ import annotations

import torch
from torch import Tensor

from vcae.audio.frames import active_levels
from vcae.audio.sections import LazySections, SectionRunner, Sections
from vcae.engine.decoding import decode_sections
from vcae.engine.engine import Engine
from vcae.engine.listening import frame_levels
from vcae.voice.matching import FULL_MATCH_S, correct_errors, map_quantiles, section_quantiles
from vcae.voice.retrieval import REACH, retrieve
from vcae.voice.voice import Voice

# Strength of matching each band's distribution to the reference's; at full strength it matches the average voice better, but a quarter of the
# words are lost.
DISTRIBUTION = 0.25
# Seconds of sound in the source from which that strength applies; it is reduced in proportion for shorter ones, whose distribution is unreliable.
DISTRIBUTION_S = 6.0
# Default strength of retrieval, and seconds of reference speech from which it applies.
MATCH_BY_LENGTH = (0.5, 10.0)


def default_match(model: Engine, voice: Voice) -> float:
    """Return the default strength of retrieval.

    It is 0 if the decoder attends to the reference; otherwise it grows with the seconds of reference speech, as with few frames the
    nearest one often has another content.
    """
    if model.autoencoder.decoder.attention:
        return 0.0
    return MATCH_BY_LENGTH[0] * min(1.0, voice.speech_s / MATCH_BY_LENGTH[1])


def default_detail(model: Engine) -> float:
    """Return the default strength of the source's detail: 1 if the code is narrow and continuous, else 0."""
    return 1.0 if model.autoencoder.quantizer is None and not model.autoencoder.decoder.attention else 0.0


@torch.inference_mode()
def speak(model: Engine, latent: Tensor, f0: Tensor, voice: Voice, match: float | str = "auto") -> Tensor:
    """Decode content in a voice, correct its systematic errors, and pull it towards frames of the reference.

    Args:
        model: Model whose autoencoder has a speaker part.
        latent: (1, D, ceil(T / stride)).
        f0: (1, T) in Hz, 0 where unvoiced.
        voice: Target voice.
        match: Strength of retrieval, 0 to 1; `auto` depends on the seconds of reference speech.

    Returns:
        (1, n_mels, T), natural log magnitude.
    """
    n = f0.shape[-1]
    whole = LazySections(latent.shape[-1], lambda start, stop: latent[..., start:stop])
    return speak_sections(model, whole, f0, voice, match, None, SectionRunner(n, False, model.device)).read(0, n)


def speak_sections(
    model: Engine,
    latent: Sections,
    f0: Tensor,
    voice: Voice,
    match: float | str,
    detail: Sections | None,
    runner: SectionRunner,
) -> Sections:
    """Apply `speak` by sections: statistics of the whole recording are measured in passes over stored sections.

    Args:
        model: As in `speak`.
        latent: Of ceil(T / stride) steps.
        f0: (1, T) in Hz, 0 where unvoiced.
        voice: Target voice.
        match: As in `speak`.
        detail: Of T frames, from `detail_sections`, to add to the decoder's mel; or None.
        runner: Runner of computations over the sections.

    Returns:
        The mel, of T frames.
    """
    autoencoder, n = model.autoencoder, f0.shape[-1]
    stride, trust = autoencoder.config.content.stride, min(1.0, voice.speech_s / FULL_MATCH_S)
    decoded = decode_sections(model, latent, f0, voice.speaker_embedding, voice.decoder, reference=voice.reference)

    def corrected(start: int, stop: int) -> Tensor:
        mel = decoded.read(start, stop)
        mel = mel if detail is None else mel + detail.read(start, stop)
        code = latent.read(start // stride, -(-stop // stride))
        return correct_errors(mel, code, f0[:, start:stop], stride, voice.errors, trust)

    mel: Sections = runner.store(LazySections(n, corrected, multiple=stride))
    heard_s = float(active_levels(frame_levels(mel, runner)).sum()) / model.mel_config.frame_rate
    distribution = DISTRIBUTION * trust * min(1.0, heard_s / DISTRIBUTION_S)
    mel = _distributed(mel, f0, voice, distribution, runner)
    strength = default_match(model, voice) if isinstance(match, str) else match
    if strength == 0:
        return mel
    matched = mel

    def retrieved(start: int, stop: int) -> Tensor:
        section = matched.read(start, stop)
        return retrieve(section, autoencoder.normalize(section), f0[:, start:stop], voice.frames, strength)

    return _distributed(runner.store(LazySections(n, retrieved, REACH)), f0, voice, distribution, runner)


def _distributed(mel: Sections, f0: Tensor, voice: Voice, strength: float, runner: SectionRunner) -> LazySections:
    have = section_quantiles(mel, f0, active_levels(frame_levels(mel, runner))[0, 0] > 0, runner)
    return LazySections(
        mel.n, lambda start, stop: map_quantiles(mel.read(start, stop), f0[:, start:stop], have, voice.quantiles, strength)
    )
