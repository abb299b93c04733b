"""Content said in a voice: decoded, put right and drawn to what is known of it."""

from __future__ import annotations

import torch
from torch import Tensor

from vcae.audio.frames import active_levels
from vcae.audio.sections import Computed, Sections, Workshop
from vcae.engine.decoding import decode_sections
from vcae.engine.engine import Engine
from vcae.engine.listening import frame_levels
from vcae.voice.matching import FULL_MATCH_S, correct_errors, map_quantiles, section_quantiles
from vcae.voice.retrieval import REACH, retrieve
from vcae.voice.voice import Voice

# How far each band is distributed as the reference's: fully, it takes more of the voice's average and costs a quarter of the words.
DISTRIBUTION = 0.25
# Seconds of sound in the source from which it counts so much, and in proportion less: a short one does not know its own distribution.
DISTRIBUTION_S = 6.0
# How far frames are drawn to the reference's own, and the seconds of speech from which they are.
MATCH_BY_LENGTH = (0.5, 10.0)


def default_match(model: Engine, voice: Voice) -> float:
    """Return how far frames are drawn to a reference's own by default.

    Not at all where the decoder attends to the reference itself; else by its seconds of speech: with little to choose from, the nearest
    frame is too often one of another sound.
    """
    if model.autoencoder.decoder.attention:
        return 0.0
    return MATCH_BY_LENGTH[0] * min(1.0, voice.speech_s / MATCH_BY_LENGTH[1])


def default_detail(model: Engine) -> float:
    """Return how much of the source's detail is kept by default: all where the code is narrow and continuous, else none."""
    return 1.0 if model.autoencoder.quantizer is None and not model.autoencoder.decoder.attention else 0.0


@torch.inference_mode()
def speak(model: Engine, latent: Tensor, f0: Tensor, voice: Voice, match: float | str = "auto") -> Tensor:
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
    model: Engine, latent: Sections, f0: Tensor, voice: Voice, match: float | str, detail: Sections | None, work: Workshop
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
    decoded = decode_sections(model, latent, f0, voice.speaker_embedding, voice.decoder, reference=voice.reference)

    def corrected(start: int, stop: int) -> Tensor:
        mel = decoded.read(start, stop)
        mel = mel if detail is None else mel + detail.read(start, stop)
        code = latent.read(start // stride, -(-stop // stride))
        return correct_errors(mel, code, f0[:, start:stop], stride, voice.errors, trust)

    mel: Sections = work.keep(Computed(n, corrected, multiple=stride))
    heard_s = float(active_levels(frame_levels(mel, work)).sum()) / model.mel_config.frame_rate
    distribution = DISTRIBUTION * trust * min(1.0, heard_s / DISTRIBUTION_S)
    mel = _distributed(mel, f0, voice, distribution, work)
    strength = default_match(model, voice) if isinstance(match, str) else match
    if strength == 0:
        return mel
    matched = mel

    def retrieved(start: int, stop: int) -> Tensor:
        section = matched.read(start, stop)
        return retrieve(section, autoencoder.normalize(section), f0[:, start:stop], voice.frames, strength)

    return _distributed(work.keep(Computed(n, retrieved, REACH)), f0, voice, distribution, work)


def _distributed(mel: Sections, f0: Tensor, voice: Voice, strength: float, work: Workshop) -> Computed:
    have = section_quantiles(mel, f0, active_levels(frame_levels(mel, work))[0, 0] > 0, work)
    return Computed(
        mel.n, lambda start, stop: map_quantiles(mel.read(start, stop), f0[:, start:stop], have, voice.quantiles, strength)
    )
