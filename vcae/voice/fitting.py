"""Fitting of voices to a model, whichever checkpoint measured them."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from vcae.engine.engine import Engine
from vcae.errors import CheckpointError
from vcae.voice.matching import Errors
from vcae.voice.voice import Recording, Voice, describe_reference, measure_again, mix_voices


def fit_voice(model: Engine, voice: Voice, name: str = "the voice") -> Voice:
    """Return a voice for use with a model; the same one if the model's checkpoint measured it.

    A voice from another checkpoint is measured again from the recordings stored in it. A fine-tuned decoder belongs to its own
    checkpoint, and is not used with another one.

    Args:
        model: Model that uses the voice.
        voice: Voice measured by any checkpoint.
        name: Name of the voice, for messages.

    Raises:
        CheckpointError: If it was measured by another checkpoint and has no recordings that this model can use.
    """
    if voice.parts:
        fitted = [fit_voice(model, part, name) for part, _ in voice.parts]
        if all(new is old for new, (old, _) in zip(fitted, voice.parts, strict=True)):
            return voice
        return replace(mix_voices(fitted, [weight for _, weight in voice.parts]), speech_s=voice.speech_s)
    origin = voice.origin
    if origin is not None and origin.sha256 != model.checkpoint.sha256:
        if voice.recordings and origin.mel == model.mel_config:
            return replace(measure_again(model, voice.recordings), bands=voice.bands)
        raise CheckpointError(
            f"{name} was measured by checkpoint {origin.checkpoint} ({origin.sha256[:12]}...), which is not the one in use "
            f"({model.checkpoint.sha256[:12]}...), and it has no recordings to measure it again; save it again from its clips, or give its checkpoint"
        )
    if voice.speaker_embedding.device != model.device:
        voice = _to(voice, model.device)
    if voice.decoder_weights is not None:
        decoder = copy.deepcopy(model.autoencoder.decoder)
        try:
            # A file may hold only those parameters that were trained.
            given = {key: value.float() for key, value in voice.decoder_weights.items()}
            decoder.load_state_dict({**decoder.state_dict(), **given})
        except RuntimeError as error:
            raise CheckpointError(
                f"{name} has a decoder that does not match checkpoint {model.checkpoint.path.stem} "
                f"({' '.join(str(error).split())[:200]}); save it again from its clips"
            ) from error
        voice = replace(voice, decoder=decoder.eval(), decoder_weights=None)
    if voice.reference is None and voice.recordings and model.autoencoder.decoder.reference_encoder is not None:
        voice = replace(voice, reference=describe_reference(model, [r.mel.float() for r in voice.recordings]))
    return voice


def _to(voice: Voice, device: torch.device) -> Voice:
    """Move a voice's tensors to a device."""

    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device)

    errors = voice.errors
    return replace(
        voice,
        speaker_embedding=voice.speaker_embedding.to(device),
        quantiles=(moved(voice.quantiles[0]), moved(voice.quantiles[1])),
        errors=Errors(errors.keys.to(device), errors.values.to(device), errors.log_weights.to(device), errors.bandwidth),
        decoder=None if voice.decoder is None else voice.decoder.to(device),
        spectrum_map=None if voice.spectrum_map is None else voice.spectrum_map.to(device),
        reference=None,
        recordings=tuple(Recording(r.mel.to(device), r.f0.to(device)) for r in voice.recordings),
    )
