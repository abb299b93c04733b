"""Units on a trained autoencoder: codebooks by k-means, then prosody and the prior of units; encoders and decoder stay as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.audio.f0 import HOP_LENGTH, SAMPLE_RATE
from vcae.audio.frames import active_frames
from vcae.audio.mel import LogMel
from vcae.checkpoint import load
from vcae.config import positive
from vcae.errors import CheckpointError, DataError
from vcae.model.autoencoder import Autoencoder
from vcae.model.config import ProsodyConfig, QuantizerConfig
from vcae.model.quantizer import ResidualQuantizer
from vcae.model.unit_prior import UnitPrior, UnitPriorConfig, contexts
from vcae.training.data import SpeechCache
from vcae.training.prosody import prosody_losses

# Largest gradient norm.
CLIP_NORM = 1.0
# Share of the steps in which the learning rate grows.
WARMUP = 0.05


@dataclass(frozen=True)
class UnitTrainingRecipe:
    """Settings of `recipes/vq`."""

    # Shipped checkpoint whose autoencoder gets units.
    checkpoint: str = "default"
    # Prepared speech (`recipes/prepare`), speech that is not trained on, and the hours of the first and the second that are used.
    data: str = "cache/train"
    held_data: str = "cache/dev"
    hours: float = 2.5
    held_hours: float = 0.2
    quantizer: QuantizerConfig = field(default_factory=lambda: QuantizerConfig(codebook_size=1024))
    prosody: ProsodyConfig = field(default_factory=ProsodyConfig)
    # Steps of active speech that the codebooks are fitted on, and iterations of k-means.
    n_points: int = 100_000
    kmeans_steps: int = 25
    # Steps and batch of the prosody's training, and length of a crop in steps of the latent.
    prosody_steps: int = 500
    prosody_batch: int = 32
    crop_steps: int = 50
    # The prior of units, and steps and batch of its training.
    prior: UnitPriorConfig = field(default_factory=UnitPriorConfig)
    prior_steps: int = 800
    prior_batch: int = 2048
    learning_rate: float = 2e-3
    seed: int = 0
    output: str = "out/vq/vq.safetensors"
    prior_output: str = "out/vq/babble.safetensors"
    # Metadata stored with the weights: author, data, licence.
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        positive(self, "hours", "held_hours", "n_points", "kmeans_steps", "prosody_steps", "prosody_batch", "crop_steps")
        positive(self, "prior_steps", "prior_batch", "learning_rate")


@dataclass(frozen=True)
class Spoken:
    """An utterance.

    Attributes:
        latent: (T, latent_dim) content latent.
        active: (T,) whether there is speech.
        f0: (T * stride,) in Hz, 0 where unvoiced.
    """

    latent: Tensor
    active: Tensor
    f0: Tensor


def with_units(recipe: UnitTrainingRecipe) -> Autoencoder:
    """Return the autoencoder of the recipe's checkpoint with a quantizer and a prosody predictor that are not trained yet.

    Raises:
        CheckpointError: If the checkpoint has no autoencoder, or has units already.
    """
    found = load(recipe.checkpoint)
    if found.autoencoder is None or found.autoencoder.quantizer is not None:
        raise CheckpointError(f"{found.path} has no autoencoder with a continuous latent; give a checkpoint that has one")
    torch.manual_seed(recipe.seed)
    model = Autoencoder(replace(found.autoencoder.config, quantizer=recipe.quantizer, prosody=recipe.prosody))
    model.load_state_dict(model.state_dict() | found.autoencoder.state_dict())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("prosody."))
    return model.eval()


@torch.inference_mode()
def encode_cache(model: Autoencoder, folder: str, hours: float, seed: int) -> list[Spoken]:
    """Encode random utterances of a cache, about `hours` in total.

    Raises:
        DataError: If the cache is missing.
    """
    cache, log_mel, stride = SpeechCache(folder), LogMel(model.config.mel), model.config.content.stride
    found, left = [], hours * 3600 * SAMPLE_RATE
    for at in np.random.default_rng(seed).permutation(len(cache.utterances)):
        utterance = cache.utterances[at]
        wav, f0 = cache.crop(utterance, 0, utterance.n_samples // HOP_LENGTH)
        mel = log_mel(torch.from_numpy(wav)[None])
        latent, active = model.encode_latent(mel)[0].T, active_frames(mel)[0, 0, ::stride] > 0
        n = len(latent)
        pitch = F.pad(torch.from_numpy(f0), (0, max(n * stride - len(f0), 0)))[: n * stride]
        found.append(Spoken(latent.clone(), active.clone(), pitch.clone()))
        left -= utterance.n_samples
        if left <= 0:
            break
    return found


def fit_codebooks(model: Autoencoder, speech: Sequence[Spoken], recipe: UnitTrainingRecipe) -> None:
    """Fit the codebooks to latents of active speech.

    Raises:
        DataError: If there are fewer latents than codes.
    """
    assert isinstance(model.quantizer, ResidualQuantizer)
    latent = torch.cat([s.latent[s.active] for s in speech])
    if len(latent) < recipe.quantizer.codebook_size:
        raise DataError(f"{len(latent)} steps of speech are too few for {recipe.quantizer.codebook_size} codes; raise hours")
    torch.manual_seed(recipe.seed)
    model.quantizer.fit(latent[torch.randperm(len(latent))[: recipe.n_points]], recipe.kmeans_steps)


def left_over(model: Autoencoder, speech: Sequence[Spoken]) -> list[float]:
    """Return the share of the variance of active latents that is left after each codebook."""
    assert model.quantizer is not None
    latent = torch.cat([s.latent[s.active] for s in speech])
    codes = model.quantizer.encode(latent.T[None])
    stages = range(1, codes.shape[1] + 1)
    return [float((latent - model.quantizer.decode(codes[:, :n])[0].T).var() / latent.var()) for n in stages]


def first_codes(model: Autoencoder, speech: Sequence[Spoken]) -> list[Tensor]:
    """Return the units (T,) of utterances: the codes of the first stage."""
    quantizer = model.quantizer
    assert quantizer is not None
    return [quantizer.encode(s.latent.T[None])[0, 0] for s in speech]


def _schedule(steps: int, learning_rate: float) -> Callable[[int], float]:
    """Return the learning rate by step: a linear warm-up, then half a cosine."""

    def rate(step: int) -> float:
        done = step / steps
        return learning_rate * min(1.0, (done + 1 / steps) / WARMUP) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return rate


def _train(network: nn.Module, losses: Iterator[Tensor], steps: int, learning_rate: float) -> Iterator[float]:
    """Minimise losses, one at a step, and yield each."""
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, (0.9, 0.98), weight_decay=0.01)
    rate = _schedule(steps, learning_rate)
    network.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate(step)
        loss = next(losses)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimizer.step()
        yield float(loss.detach())
    network.eval().requires_grad_(False)


def _crops(
    codes: Sequence[Tensor], f0: Sequence[Tensor], n_steps: int, batch: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return random crops of codes (B, 1, n_steps) and F0 (B, n_steps * stride); longer utterances are drawn more often."""
    long = [n for n, c in enumerate(codes) if len(c) >= n_steps]
    if not long:
        raise DataError(f"no utterance has {n_steps} steps; lower crop_steps")
    lengths = np.array([len(codes[n]) for n in long], dtype=np.float64)
    chosen = [long[n] for n in rng.choice(len(long), batch, p=lengths / lengths.sum())]
    starts = [int(rng.integers(len(codes[n]) - n_steps + 1)) for n in chosen]
    stride = len(f0[chosen[0]]) // len(codes[chosen[0]])
    cut = [codes[n][at : at + n_steps] for n, at in zip(chosen, starts, strict=True)]
    pitch = [f0[n][at * stride : (at + n_steps) * stride] for n, at in zip(chosen, starts, strict=True)]
    return torch.stack(cut)[:, None], torch.stack(pitch)


def train_prosody(
    model: Autoencoder, codes: Sequence[Tensor], f0: Sequence[Tensor], recipe: UnitTrainingRecipe
) -> Iterator[float]:
    """Train the prosody predictor on units and their F0; yield the loss of each step.

    Raises:
        DataError: If all utterances are shorter than a crop.
    """
    assert model.prosody is not None
    rng = np.random.default_rng([recipe.seed, 1])

    def losses() -> Iterator[Tensor]:
        while True:
            yield prosody_losses(model, *_crops(codes, f0, recipe.crop_steps, recipe.prosody_batch, rng))["prosody"]

    yield from _train(model.prosody, losses(), recipe.prosody_steps, recipe.learning_rate)


@torch.inference_mode()
def held_prosody(
    model: Autoencoder, codes: Sequence[Tensor], f0: Sequence[Tensor], recipe: UnitTrainingRecipe
) -> dict[str, float]:
    """Return the losses of the prosody predictor on crops of speech that it was not trained on."""
    rng = np.random.default_rng([recipe.seed, 2])
    found = prosody_losses(model, *_crops(codes, f0, recipe.crop_steps, 8 * recipe.prosody_batch, rng))
    return {name: float(value) for name, value in found.items()}


def train_prior(codes: Sequence[Tensor], recipe: UnitTrainingRecipe) -> tuple[UnitPrior, Iterator[float]]:
    """Return a prior of units, and the losses of its training, which is done as they are read."""
    torch.manual_seed(recipe.seed)
    prior = UnitPrior(replace(recipe.prior, n_units=recipe.quantizer.codebook_size))
    nn.init.normal_(prior.units.weight, std=recipe.prior.unit_dim**-0.5)
    past, units = torch.cat([contexts(c, prior.config) for c in codes]), torch.cat(list(codes))
    rng = np.random.default_rng([recipe.seed, 3])

    def losses() -> Iterator[Tensor]:
        while True:
            at = torch.from_numpy(rng.integers(len(units), size=recipe.prior_batch))
            yield F.cross_entropy(prior(past[at]), units[at])

    return prior, _train(prior, losses(), recipe.prior_steps, recipe.learning_rate)


@torch.inference_mode()
def bits_a_unit(prior: UnitPrior, codes: Sequence[Tensor]) -> float:
    """Return the bits per unit of utterances under a prior."""
    total = sum(float(F.cross_entropy(prior(contexts(c, prior.config)), c, reduction="sum")) for c in codes)
    return total / sum(map(len, codes)) / math.log(2)
