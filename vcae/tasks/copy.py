"""Copies of a recording by the whole autoencoder, or by the vocoder alone."""

from __future__ import annotations

import numpy as np
import torch

from vcae.audio.high_band import BandProfile, measure_bands
from vcae.audio.io import Sound
from vcae.audio.loudness import follow_envelope
from vcae.audio.output_rate import OutputRate, change_rate
from vcae.engine.engine import DECODED_CORRECTIONS, Engine
from vcae.engine.listening import Analysis, analyse, output_rate
from vcae.errors import ConfigError
from vcae.model.autoencoder import Autoencoder
from vcae.model_file import DEFAULT, find
from vcae.options import check_rate
from vcae.tasks.ladder import load_rung


@torch.inference_mode()
def reconstruct(model: Engine, sound: Sound, seed: int = 0, code_dim: int | None = None, rate: int | None = None) -> Sound:
    """Reconstruct a recording from its content, its own speaker embedding and its F0, or from a plain autoencoder's code.

    Args:
        model: Model with an autoencoder; the default checkpoint if there is a `code_dim`.
        sound: At least 0.5 s.
        seed: Seed of the vocoder's noise.
        code_dim: Values per step of a plain autoencoder of the shipped ladder; None for the model's own autoencoder. The
            vocoder also uses the recording's F0 and pulse positions.
        rate: Sample rate of the result in Hz; None for that of the recording, and at least the model's.

    Returns:
        The copy, as long as the original, with its level.

    Raises:
        AudioError: For unusable audio.
        ConfigError: If the ladder has no autoencoder with `code_dim` values, or the model is not the default checkpoint.
    """
    autoencoder = model.autoencoder if code_dim is None else _rung(model, code_dim)
    seen = analyse(model, sound)
    speaker = autoencoder.encode_speaker(seen.mel) if autoencoder.speaker_encoder is not None else None
    mel = autoencoder.decode(autoencoder.encode_content(seen.mel), seen.f0, speaker)
    return _at_rate(model, resynthesise(model, seen, mel, sound.name, seed, DECODED_CORRECTIONS), sound, seed, rate)


def _rung(model: Engine, code_dim: int) -> Autoencoder:
    path = model.checkpoint.path
    if path.resolve() != find(DEFAULT).resolve():
        raise ConfigError(
            f"code_dim is {code_dim} with checkpoint {path.stem}; the ladder's autoencoders need checkpoint {DEFAULT}: "
            "leave one of the two out"
        )
    rung = load_rung(code_dim, model.device)
    if rung.config.mel != model.mel_config:
        raise ConfigError(f"the ladder has another mel than checkpoint {path.stem}: {rung.config.mel} and {model.mel_config}")
    return rung


@torch.inference_mode()
def vocode(model: Engine, sound: Sound, seed: int = 0, rate: int | None = None) -> Sound:
    """Copy a recording from its mel and F0 (copy synthesis). Arguments and result as `reconstruct`."""
    seen = analyse(model, sound)
    return _at_rate(model, resynthesise(model, seen, seen.mel, sound.name, seed), sound, seed, rate)


def _at_rate(model: Engine, made: Sound, sound: Sound, seed: int, rate: int | None) -> Sound:
    """Return a copy at the rate asked for, with the band above the model's of its original."""
    rate = output_rate(sound.sample_rate, check_rate(rate), model.sample_rate)
    if rate == made.sample_rate:
        return made
    levels = measure_bands(sound.wav, sound.sample_rate) or BandProfile((), 0.0)
    change = OutputRate(made.sample_rate, sound.sample_rate, rate, levels, seed=seed)
    wav = np.concatenate(list(change_rate(change, made.blocks(), sound.blocks())))
    return Sound(wav, rate, made.name)


def resynthesise(
    model: Engine, seen: Analysis, mel: torch.Tensor, name: str, seed: int = 0, n_corrections: int | None = None
) -> Sound:
    """Synthesise a mel (1, n_mels, T) derived from a recording with its F0, its pulse positions and its loudness.

    Args:
        model: Model with a vocoder.
        seen: Analysis of the recording.
        mel: Natural log magnitude.
        name: Name of the result.
        seed: Seed of the vocoder's noise.
        n_corrections: See `Engine.vocode`.
    """
    recording = torch.from_numpy(seen.wav)[None]
    wav = model.vocode(mel, seen.f0, len(seen.wav), seed, n_corrections, recording)[0].numpy()
    return Sound(follow_envelope(wav, seen.wav, seen.level), model.sample_rate, name)
