"""New voices: drawn, between two, brought to another checkpoint, and where they lie on the map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vcae.audio.sections import Computed, Workshop
from vcae.engine.decoding import decode_voice
from vcae.engine.engine import Engine
from vcae.engine.listening import Analysis
from vcae.errors import ConfigError
from vcae.voice.detail import source_detail
from vcae.voice.matching import Quantiles, measure_errors
from vcae.voice.pitch import move_f0
from vcae.voice.retrieval import keep_frames
from vcae.voice.space import Description, Priors, load_priors
from vcae.voice.speaking import speak_sections
from vcae.voice.voice import Origin, Voice, describe_voice, mix_voices

# How far draws may lie from the middle, as a multiple of what the training speakers do.
MAX_SPREAD = 2.0
# Draws that come too close to a training speaker are drawn again, so often.
MAX_DRAWS = 1000
# Seconds of speech as which a new voice counts: its frames were made, and drawn to them more sounds worse.
HEARD_S = 1.0


@lru_cache(maxsize=1)
def priors() -> Priors:
    """Return the shipped priors, read once.

    Raises:
        CheckpointError: If they are missing or damaged.
    """
    return load_priors()


@torch.inference_mode()
def new_voice(model: Engine, seed: int, spread: float = 1.0) -> Voice:
    """Draw a voice that nobody has.

    Args:
        model: Of the checkpoint that the prior was learned with: `default`.
        seed: The same seed gives the same voice.
        spread: How far from the average voice to draw: under 1 plainer ones, over 1 odder ones.

    Returns:
        A voice as `Model.voice` measures one, heard in speech of the training data that is converted to it.

    Raises:
        CheckpointError: For another checkpoint.
        ConfigError: For a seed or a spread that is not allowed, or a spread at which all draws are refused.
    """
    known = priors()
    known.check(model)
    return _audible(model, known, draw(known, seed, spread))


@torch.inference_mode()
def draw(known: Priors, seed: int, spread: float = 1.0) -> Description:
    """Draw what describes a new voice; see `new_voice`."""
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be 0 or more")
    if not 0 < spread <= MAX_SPREAD:
        raise ConfigError(f"spread is {spread}; allowed are more than 0, to {MAX_SPREAD:g}")
    generator, prior = torch.Generator().manual_seed(seed), known.prior
    for _ in range(MAX_DRAWS):
        latent = spread * torch.randn(1, prior.config.latent_dim, generator=generator)
        own = spread * torch.randn(1, prior.config.n_features, generator=generator)
        drawn = known.confine(known.space.describe(prior.sample(latent, own)))
        if known.is_new(drawn):
            return drawn
    raise ConfigError(
        f"of {MAX_DRAWS} draws with spread {spread:g} all were too close to a training speaker, or lower or higher than any; take another one"
    )


def _audible(model: Engine, known: Priors, drawn: Description) -> Voice:
    """Return the voice that was drawn with errors and frames as a recording of it would have them."""
    autoencoder, device = model.autoencoder, model.device
    mel, f0 = known.bank_mel.to(device), known.bank_f0.to(device)
    embedding = drawn.speaker_embedding.to(device)
    latent, own = autoencoder.encode_content(mel), autoencoder.encode_speaker(mel)
    moved = move_f0(f0, drawn, "auto", known.bank_pitch)
    copy = decode_voice(model, latent, moved, embedding)
    spoken = copy + source_detail(mel, decode_voice(model, latent, f0, own))
    errors = measure_errors([spoken], [copy], [latent], [moved], autoencoder.config.content.stride)
    frames = keep_frames([spoken], [autoencoder.normalize(spoken)], [moved])
    # The quantiles that were drawn tell of a recording's noise and room more than of a voice: followed, they cost .2 to .4 of DNSMOS.
    return Voice(
        embedding, drawn.log_f0_median, drawn.log_f0_spread, (None, None), errors, frames, HEARD_S, origin=Origin.of(model)
    )


@torch.inference_mode()
def between_voices(model: Engine, first: Voice, second: Voice, steps: int) -> list[Voice]:
    """Return voices from the first to the second, both included.

    What describes a voice goes straight through the latent space of the prior; what that leaves out of either voice is blended in by
    share, so that the ends are the voices themselves, wherever they lie. Errors and frames are looked up in both.

    Args:
        model: Of the checkpoint that the prior was learned with, and that measured the voices.
        first: Where to begin.
        second: Where to end.
        steps: How many voices, at least 2.

    Raises:
        ConfigError: For fewer steps, or a fine-tuned voice.
        CheckpointError: For another checkpoint.
    """
    if steps < 2:
        raise ConfigError(f"steps is {steps}; at least 2 are needed, the first voice and the second")
    if first.decoder is not None or second.decoder is not None:
        raise ConfigError(
            "a fine-tuned voice has a decoder of its own, and nothing lies between two decoders; save it from its clips"
        )
    known = priors()
    known.check(model)
    ends = [known.prior.encode(known.space.features(voice))[0] for voice in (first, second)]
    rebuilt = [known.space.describe(known.prior.decode(end)[0]) for end in ends]
    voices = [first]
    for n in range(1, steps - 1):
        share = n / (steps - 1)
        path = known.space.describe(known.prior.decode(torch.lerp(ends[0], ends[1], share))[0])
        rest = ((first, rebuilt[0], 1 - share), (second, rebuilt[1], share))
        voices.append(_on_path(path, rest, mix_voices([first, second], [1 - share, share])))
    return [*voices, second]


def _on_path(path: Description, rest: Sequence[tuple[Voice, Description, float]], mixed: Voice) -> Voice:
    embedding, median, spread = path.speaker_embedding, path.log_f0_median, path.log_f0_spread
    for voice, rebuilt, share in rest:
        embedding = embedding + share * (voice.speaker_embedding.cpu() - rebuilt.speaker_embedding)
        if not math.isnan(voice.log_f0_median):
            median += share * (voice.log_f0_median - rebuilt.log_f0_median)
            spread += share * (voice.log_f0_spread - rebuilt.log_f0_spread)
    device = mixed.speaker_embedding.device
    return replace(
        mixed,
        # Measured again, it would be a plain mix.
        parts=(),
        speaker_embedding=normalize(embedding, dim=-1).to(device),
        log_f0_median=math.nan if math.isnan(mixed.log_f0_median) else median,
        log_f0_spread=math.nan if math.isnan(mixed.log_f0_spread) else spread,
        quantiles=_quantiles_on_path(path, rest, mixed),
    )


def _quantiles_on_path(path: Description, rest: Sequence[tuple[Voice, Description, float]], mixed: Voice) -> Quantiles:
    found: list[Tensor | None] = []
    for n, blend in enumerate(mixed.quantiles):
        there, parts = path.quantiles[n], [(v.quantiles[n], r.quantiles[n], share) for v, r, share in rest]
        if blend is None or there is None or any(q is None for q, _, _ in parts):
            found.append(blend)
            continue
        for own, rebuilt, share in parts:
            assert own is not None
            assert rebuilt is not None
            there = there + share * (own.cpu() - rebuilt)
        found.append(there.cummax(dim=-1).values.to(blend.device))
    return found[0], found[1]


@dataclass(frozen=True)
class Place:
    """Where a voice lies on the map: the first two principal components of the training speakers' embeddings, and its median F0."""

    x: float
    y: float
    f0_hz: float


@torch.inference_mode()
def map_voices(voices: Sequence[Voice | Description], known: Priors | None = None) -> list[Place]:
    """Return where voices lie on the map of the training speakers, of the shipped priors or others."""
    points = torch.cat([voice.speaker_embedding.cpu() for voice in voices]) @ map_axes(known or priors())
    return [Place(float(x), float(y), math.exp(v.log_f0_median)) for (x, y), v in zip(points, voices, strict=True)]


def map_axes(known: Priors) -> Tensor:
    """Return the map's axes (speaker_dim, 2): the same signs on every machine."""
    axes: Tensor = torch.linalg.svd((known.known - known.known.mean(0)).double(), full_matrices=False).Vh[:2].T.float()
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    return axes * largest.sign()


@torch.inference_mode()
def carry_voice(model: Engine, voice: Voice, other: Engine) -> Voice:
    """Bring a voice to another checkpoint, which hears it anew in speech of the training data that is converted to it.

    Args:
        model: That measured the voice.
        voice: Of one checkpoint.
        other: Of the other, with the same mel.
    """
    known = priors()
    mel, f0 = known.bank_mel.to(model.device), known.bank_f0.to(model.device)
    moved = move_f0(f0, voice, "auto", known.bank_pitch)
    latent, own, n = model.autoencoder.encode_content(mel), model.autoencoder.encode_speaker(mel), mel.shape[-1]
    detail = source_detail(mel, decode_voice(model, latent, f0, own))
    parts = (Computed(latent.shape[-1], lambda a, b: latent[..., a:b]), Computed(n, lambda a, b: detail[..., a:b]))
    spoken = speak_sections(model, parts[0], moved, voice, "auto", parts[1], Workshop(n, False, model.device)).read(0, n)
    heard = describe_voice(other, [Analysis(np.zeros(0, np.float32), spoken, moved, 0.0)])
    median, spread, seconds = voice.log_f0_median, voice.log_f0_spread, min(voice.speech_s, heard.speech_s)
    return replace(heard, log_f0_median=median, log_f0_spread=spread, speech_s=seconds)
