"""New voices: sampling, interpolation between two voices, transfer to another checkpoint, and the map of voices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vcae.engine.decoding import decode_voice
from vcae.engine.engine import Engine
from vcae.engine.listening import Analysis
from vcae.errors import ConfigError
from vcae.model.weights import hash_weights
from vcae.voice.matching import Quantiles, measure_errors
from vcae.voice.pitch import move_f0
from vcae.voice.space import Description, Priors, load_priors
from vcae.voice.speaking import speak
from vcae.voice.voice import Origin, Recording, Voice, describe_reference, describe_voice, mix_voices

# Largest spread of samples, relative to that of the training speakers.
MAX_SPREAD = 2.0
# Most attempts at a sample that is not too close to a training speaker.
MAX_DRAWS = 1000
# Seconds of speech that a new voice counts as: its frames are synthetic, and pulling conversions more strongly to them sounds worse.
HEARD_S = 1.0


@lru_cache(maxsize=1)
def priors() -> Priors:
    """Return the shipped priors, loaded once.

    Raises:
        CheckpointError: If they are missing or damaged.
    """
    return load_priors()


@torch.inference_mode()
def new_voice(model: Engine, seed: int, spread: float = 1.0) -> Voice:
    """Generate a new voice by sampling the prior.

    Args:
        model: Model with the checkpoint of the prior, `default`.
        seed: The same seed gives the same voice.
        spread: Factor on the deviation from the average voice: below 1 for more ordinary voices, above 1 for more unusual ones.

    Returns:
        A voice like those of `Model.voice`, measured from speech of the training data that is converted to it.

    Raises:
        CheckpointError: For another checkpoint.
        ConfigError: For a seed or a spread that is not allowed, or a spread at which all samples are rejected.
    """
    known = priors()
    known.check(model)
    return _audible(model, known, draw(known, seed, spread))


@torch.inference_mode()
def draw(known: Priors, seed: int, spread: float = 1.0) -> Description:
    """Sample the features of a new voice; see `new_voice`."""
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
        f"all of {MAX_DRAWS} samples with spread {spread:g} were too close to a training speaker or outside of their range of F0; give another spread"
    )


def _audible(model: Engine, known: Priors, drawn: Description) -> Voice:
    """Return the sampled voice, with a reference for the decoder's attention: speech that is converted to it."""
    device = model.device
    mel, f0 = known.bank_mel.to(device), known.bank_f0.to(device)
    embedding = drawn.speaker_embedding.to(device)
    latent = model.autoencoder.encode_content(mel)
    moved = move_f0(f0, drawn, "auto", known.bank_pitch)
    spoken = decode_voice(model, latent, moved, embedding)
    # Without a recording the decoder cannot be wrong about one.
    errors = measure_errors([spoken], [spoken], [latent], [moved], model.autoencoder.config.content.stride)
    recording = Recording(spoken.half(), moved)
    # The sampled quantiles reflect a recording's noise and room more than a voice; using them costs .2 to .4 of DNSMOS.
    return Voice(
        embedding,
        drawn.log_f0_median,
        drawn.log_f0_spread,
        (None, None),
        errors,
        HEARD_S,
        reference=describe_reference(model, [recording.mel.float()]),
        recordings=(recording,),
        origin=Origin.of(model),
    )


@torch.inference_mode()
def between_voices(model: Engine, first: Voice, second: Voice, steps: int) -> list[Voice]:
    """Interpolate between two voices, both included.

    Features are interpolated linearly in the latent space of the prior; the residuals of both voices are added in proportion, so
    that the ends are the voices themselves. Errors and references of both are used.

    Args:
        model: Model with the checkpoint of the prior, which also measured the voices.
        first: First voice.
        second: Last voice.
        steps: Number of voices, at least 2.

    Raises:
        ConfigError: For fewer steps, or a fine-tuned voice.
        CheckpointError: For another checkpoint.
    """
    if steps < 2:
        raise ConfigError(f"steps is {steps}; at least 2 are needed, the first voice and the second")
    if first.decoder is not None or second.decoder is not None:
        raise ConfigError("a voice with its own decoder cannot be interpolated; train it again, or save it from its clips")
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
    """Place of a voice on the map: the first two principal components of the training speakers' embeddings, and median F0."""

    x: float
    y: float
    f0_hz: float


@torch.inference_mode()
def map_voices(voices: Sequence[Voice | Description], known: Priors | None = None) -> list[Place]:
    """Return the places of voices on the map of the training speakers, of the shipped priors or others."""
    points = torch.cat([voice.speaker_embedding.cpu() for voice in voices]) @ map_axes(known or priors())
    return [Place(float(x), float(y), math.exp(v.log_f0_median)) for (x, y), v in zip(points, voices, strict=True)]


def map_axes(known: Priors) -> Tensor:
    """Return the axes of the map (speaker_dim, 2), with the same signs on every machine."""
    axes: Tensor = torch.linalg.svd((known.known - known.known.mean(0)).double(), full_matrices=False).Vh[:2].T.float()
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    return axes * largest.sign()


@torch.inference_mode()
def carry_voice(model: Engine, voice: Voice, other: Engine) -> Voice:
    """Transfer a voice to another checkpoint, which measures it from speech of the training data converted to it.

    If both have the same speaker encoder, the voice keeps its speaker embedding.

    Args:
        model: Model that measured the voice.
        voice: The voice.
        other: Model with another checkpoint of the same mel.
    """
    known = priors()
    mel, f0 = known.bank_mel.to(model.device), known.bank_f0.to(model.device)
    moved = move_f0(f0, voice, "auto", known.bank_pitch)
    spoken = speak(model, model.autoencoder.encode_content(mel), moved, voice)
    heard = describe_voice(other, [Analysis(np.zeros(0, np.float32), spoken, moved, 0.0)])
    if _same_speaker_encoder(model, other):
        heard = replace(heard, speaker_embedding=voice.speaker_embedding.to(other.device))
    median, spread, seconds = voice.log_f0_median, voice.log_f0_spread, min(voice.speech_s, heard.speech_s)
    return replace(heard, log_f0_median=median, log_f0_spread=spread, speech_s=seconds)


def _same_speaker_encoder(model: Engine, other: Engine) -> bool:
    return len({hash_weights(engine.autoencoder.the_speaker_encoder()) for engine in (model, other)}) == 1
