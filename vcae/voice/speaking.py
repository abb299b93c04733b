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
from vcae.voice.voice import Voice

# Strength of matching each band's distribution to the reference's; at full strength it matches the average voice better, but a quarter of the
# words are lost.
DISTRIBUTION = 0.25
# Seconds of sound in the source from which that strength applies; it is reduced in proportion for shorter ones, whose distribution is unreliable.
DISTRIBUTION_S = 6.0


@torch.inference_mode()
def speak(
    model: Engine, latent: Tensor, f0: Tensor, voice: Voice, distribution: float = DISTRIBUTION, full_s: float = DISTRIBUTION_S
) -> Tensor:
    """Decode content in a voice, correct its systematic errors, and move the distribution of each band towards the voice's.

    Args:
        model: Model whose autoencoder has a speaker part.
        latent: (1, D, ceil(T / stride)).
        f0: (1, T) in Hz, 0 where unvoiced.
        voice: Target voice.
        distribution: Strength of matching each band's distribution to the reference's, 0 to 1.
        full_s: Seconds of sound from which that strength applies.

    Returns:
        (1, n_mels, T), natural log magnitude.
    """
    n = f0.shape[-1]
    whole = LazySections(latent.shape[-1], lambda start, stop: latent[..., start:stop])
    runner = SectionRunner(n, False, model.device)
    return speak_sections(model, whole, f0, voice, runner, distribution, full_s).read(0, n)


def speak_sections(
    model: Engine,
    latent: Sections,
    f0: Tensor,
    voice: Voice,
    runner: SectionRunner,
    distribution: float = DISTRIBUTION,
    full_s: float = DISTRIBUTION_S,
) -> Sections:
    """Apply `speak` by sections: statistics of the whole recording are measured in passes over stored sections.

    Args:
        model: As in `speak`.
        latent: Of ceil(T / stride) steps.
        f0: (1, T) in Hz, 0 where unvoiced.
        voice: Target voice.
        runner: Runner of computations over the sections.
        distribution: As in `speak`.
        full_s: Likewise.

    Returns:
        The mel, of T frames.
    """
    autoencoder, n = model.autoencoder, f0.shape[-1]
    stride, trust = autoencoder.config.content.stride, min(1.0, voice.speech_s / FULL_MATCH_S)
    decoded = decode_sections(model, latent, f0, voice.speaker_embedding, voice.decoder, reference=voice.reference)

    def corrected(start: int, stop: int) -> Tensor:
        mel = decoded.read(start, stop)
        code = latent.read(start // stride, -(-stop // stride))
        return correct_errors(mel, code, f0[:, start:stop], stride, voice.errors, trust)

    mel: Sections = runner.store(LazySections(n, corrected, multiple=stride))
    heard_s = float(active_levels(frame_levels(mel, runner)).sum()) / model.mel_config.frame_rate
    return _distributed(mel, f0, voice, distribution * trust * min(1.0, heard_s / full_s), runner)


def _distributed(mel: Sections, f0: Tensor, voice: Voice, strength: float, runner: SectionRunner) -> LazySections:
    have = section_quantiles(mel, f0, active_levels(frame_levels(mel, runner))[0, 0] > 0, runner)

    def matched(start: int, stop: int) -> Tensor:
        made = map_quantiles(mel.read(start, stop), f0[:, start:stop], have, voice.quantiles, strength)
        return made if voice.spectrum_map is None else voice.spectrum_map(made, f0[:, start:stop])

    return LazySections(mel.n, matched)
