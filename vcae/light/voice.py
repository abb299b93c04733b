"""Voices measured without torch, as `vcae.voice` measures them with torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vcae.audio.high_band import BandProfile, mean_bands, measure_bands
from vcae.audio.io import Sound
from vcae.audio.speech import NOISY_REFERENCE_DB, check_references
from vcae.errors import AudioError
from vcae.light.analysis import Analysis, analyse, noisy
from vcae.light.arrays import active_frames, band_quantiles, log_f0_mean, log_f0_statistics
from vcae.light.denoise import denoised
from vcae.light.graphs import Graphs
from vcae.options import AUTO

MIN_REFERENCE_S = 0.5
# Values of vcae.voice.matching and vcae.voice.voice, which a test compares.
BANDWIDTH, BANDWIDTH_FRAMES, BANDWIDTH_EXPONENT = 0.3, 625, 0.25
VOICING_WEIGHT, MAX_MEMORY = 2.0, 7500
KEPT_S = 60.0


@dataclass(frozen=True)
class Voice:
    """Voice to convert to.

    Attributes:
        speaker_embedding: (1, speaker_dim), unit norm.
        log_f0_median: Median of log-F0, natural log of Hz; nan if nothing is voiced.
        log_f0_spread: Standard deviation of log-F0 in nats.
        quantiles: (n_mels, Q) of unvoiced and of voiced frames, or None.
        error_keys: (N, latent_dim + 1), content and weighted voicing of frames of the reference.
        error_values: (N, n_mels), errors of the autoencoder at these frames.
        bandwidth: Kernel bandwidth of the errors.
        keys: (1, M, latent_dim), content of the reference's steps.
        values: (1, M, reference_width), their sound.
        speech_s: Seconds of sound, without pauses.
        bands: Levels above the models' band; None if no clip has that band.
        warnings: Problems of the clips, a sentence each.
    """

    speaker_embedding: np.ndarray
    log_f0_median: float
    log_f0_spread: float
    quantiles: list[np.ndarray | None]
    error_keys: np.ndarray
    error_values: np.ndarray
    bandwidth: float
    keys: np.ndarray
    values: np.ndarray
    speech_s: float
    bands: BandProfile | None
    warnings: tuple[str, ...]


def measure_voice(graphs: Graphs, clips: Sequence[Sound], denoise: bool | str = AUTO) -> Voice:
    """Measure the voice of clips.

    Args:
        graphs: Graphs of the models.
        clips: At least one, each at most ten minutes, with 0.5 s of speech in all.
        denoise: Denoise the clips first: True, False, or `auto`, which denoises noisy ones only.

    Raises:
        AudioError: For unusable audio, no clips, or too little speech.
    """
    if not clips:
        raise AudioError("no reference was given; name at least one clip of the target voice")
    seen = [_analyse(graphs, clip, denoise) for clip in clips]
    speech = [found.speech(graphs.frame_rate) for found in seen]
    used, warnings = check_references(speech, [clip.wav for clip in clips], [clip.name for clip in clips])
    known = [line for clip in clips for line in clip.warnings]
    bands = mean_bands([(measure_bands(clip.wav, clip.sample_rate), clip.duration_s) for clip in clips])
    return _describe(graphs, [seen[n].cut(speech[n].keep) for n in used], bands, (*known, *warnings))


def _analyse(graphs: Graphs, clip: Sound, denoise: bool | str) -> Analysis:
    if denoise is not True:
        seen = analyse(graphs, clip, MIN_REFERENCE_S)
        if not denoise or not noisy(graphs, seen, NOISY_REFERENCE_DB):
            return seen
    return analyse(graphs, denoised(graphs, clip), MIN_REFERENCE_S)


def encode_content(graphs: Graphs, mel: np.ndarray, active: np.ndarray | None = None) -> np.ndarray:
    """Return the content latent (1, latent_dim, ceil(T / stride)) of a log-mel (n_mels, T)."""
    weight = active_frames(mel) if active is None else active
    return graphs.run("content", mel=mel[None], active=weight[None, None].astype(np.float32))[0]


def error_keys(latent: np.ndarray, f0: np.ndarray, stride: int) -> np.ndarray:
    """Return the keys (T, latent_dim + 1) of frames for a latent (1, latent_dim, S) and F0 (T,)."""
    code = np.repeat(latent[0], stride, axis=1)[:, : len(f0)]
    return np.asarray(np.concatenate([code, VOICING_WEIGHT * (f0 > 0)[None]]).T, np.float32)


def _describe(graphs: Graphs, parts: list[Analysis], bands: BandProfile | None, warnings: tuple[str, ...]) -> Voice:
    stride = graphs.settings["stride"]
    total, speech_s = np.zeros(1, np.float32), 0.0
    for part in parts:
        seconds = float(part.active.sum()) / graphs.frame_rate
        weight = part.active[None, None].astype(np.float32)
        total = total + np.float32(seconds) * graphs.run("speaker", mel=part.mel[None], active=weight)[0]
        speech_s += seconds
    embedding = (total / np.linalg.norm(total)).astype(np.float32)
    latents = [encode_content(graphs, part.mel, part.active) for part in parts]
    copies = [decode(graphs, latent, part.f0, embedding) for latent, part in zip(latents, parts, strict=True)]
    active = np.concatenate([part.active for part in parts])
    keys = np.concatenate([error_keys(latent, part.f0, stride) for latent, part in zip(latents, parts, strict=True)])[active]
    errors = np.concatenate([(part.mel - copy).T for part, copy in zip(parts, copies, strict=True)])[active]
    step = -(-len(keys) // MAX_MEMORY)
    keys, errors = np.ascontiguousarray(keys[::step]), np.ascontiguousarray(errors[::step])
    bandwidth = BANDWIDTH * max(1.0, len(keys) / BANDWIDTH_FRAMES) ** -BANDWIDTH_EXPONENT
    f0, frames = np.concatenate([part.f0 for part in parts]), np.concatenate([part.mel for part in parts], axis=1)
    quantiles = [band_quantiles(frames[:, active & (f0 <= 0)]), band_quantiles(frames[:, active & (f0 > 0)])]
    steps, sounds = _reference(graphs, parts)
    statistics = log_f0_statistics(f0)
    return Voice(embedding, *statistics, quantiles, keys, errors, bandwidth, steps, sounds, speech_s, bands, warnings)


def _reference(graphs: Graphs, parts: list[Analysis]) -> tuple[np.ndarray, np.ndarray]:
    """Return keys and values of the first `KEPT_S` seconds, rounded as in a saved voice."""
    keys, values, left = [], [], round(KEPT_S * graphs.frame_rate)
    for part in parts:
        if left > 0:
            mel = part.mel[:, :left].astype(np.float16).astype(np.float32)
            keys.append(encode_content(graphs, mel).transpose(0, 2, 1))
            values.append(graphs.run("reference", mel=mel[None])[0])
        left -= part.mel.shape[1]
    return np.concatenate(keys, axis=1), np.concatenate(values, axis=1)


def decode(
    graphs: Graphs,
    latent: np.ndarray,
    f0: np.ndarray,
    embedding: np.ndarray,
    f0_mean: float | None = None,
    voice: Voice | None = None,
) -> np.ndarray:
    """Decode content and F0 to a log-mel (n_mels, T), with attention to a voice's reference if one is given.

    Args:
        graphs: Graphs of the models.
        latent: (1, latent_dim, ceil(T / stride)).
        f0: (T,) in Hz, 0 where unvoiced.
        embedding: (1, speaker_dim).
        f0_mean: Mean log-F0 of the whole recording; that of `f0` when None.
        voice: Voice with the reference.
    """
    width = graphs.settings["reference_width"]
    keys = np.zeros((1, 1, latent.shape[1]), np.float32) if voice is None else voice.keys
    values = np.zeros((1, 1, width), np.float32) if voice is None else voice.values
    mean = log_f0_mean(f0) if f0_mean is None else f0_mean
    n = keys.shape[1]
    weight = np.full((1, n), -math.log(n), np.float32)
    made = graphs.run(
        "decoder",
        latent=latent,
        f0=f0[None],
        f0_mean=np.full((1, 1), mean, np.float32),
        speaker_embedding=embedding,
        keys=keys,
        values=values,
        log_weights=weight,
        gate=np.full((1, 1, 1), 0.0 if voice is None else 1.0, np.float32),
    )
    return np.asarray(made[0][0])
