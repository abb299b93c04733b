"""Copies of a recording: through the whole autoencoder, or through the vocoder alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vcae.audio.io import Sound
from vcae.audio.loudness import follow_envelope
from vcae.tasks.model import DECODED_CORRECTIONS

if TYPE_CHECKING:
    from vcae.tasks.model import Analysis, Model


@torch.inference_mode()
def reconstruct(model: Model, sound: Sound, seed: int = 0) -> Sound:
    """Rebuild a recording from its content, its own speaker embedding and its F0.

    Args:
        model: With an autoencoder.
        sound: At least 0.5 s.
        seed: Of the vocoder's noise.

    Returns:
        The copy at the model's rate, with the original's level.
    """
    seen = model.analyse(sound.wav, sound.sample_rate, sound.name)
    autoencoder = model.autoencoder
    speaker = autoencoder.encode_speaker(seen.mel) if autoencoder.speaker_encoder is not None else None
    mel = autoencoder.decode(autoencoder.encode_content(seen.mel), seen.f0, speaker)
    return _finish(model, seen, mel, sound.name, seed, DECODED_CORRECTIONS)


@torch.inference_mode()
def vocode(model: Model, sound: Sound, seed: int = 0) -> Sound:
    """Rebuild a recording from its mel and F0 (copy synthesis). Arguments and result as `reconstruct`."""
    seen = model.analyse(sound.wav, sound.sample_rate, sound.name)
    return _finish(model, seen, seen.mel, sound.name, seed)


def _finish(model: Model, seen: Analysis, mel: torch.Tensor, name: str, seed: int, n_corrections: int | None = None) -> Sound:
    recording = torch.from_numpy(seen.wav)[None]
    wav = model.vocode(mel, seen.f0, len(seen.wav), seed, n_corrections, recording)[0].numpy()
    return Sound(follow_envelope(wav, seen.wav, seen.level), model.sample_rate, name)
