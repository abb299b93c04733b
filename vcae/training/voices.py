"""Fitting the prior of voices to voice features of groups of recordings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vcae.model.voice_prior import VoicePrior, annealed, free_divergence
from vcae.training.config import GeneratorRecipe

# Shrinkage of the correlations within speakers, as there are few recordings of each.
WITHIN_SHRINKAGE = 0.05
# Lowest variance of a feature within speakers, as a fraction of its total variance.
FLOOR = 1e-4
MAX_GRADIENT = 5.0
# Steps over which the KL weight grows from 0 to 1, and free nats per latent dimension.
ANNEAL_STEPS, FREE_NATS = 300, 0.02
DRAWS = 256


@dataclass(frozen=True)
class WhitenedVoices:
    """Whitened voice features and the whitening map.

    Attributes:
        features: (n, F), with unit variance over the training voices.
        maps: `mean`, `whiten`, `unwhiten`, `quantile_mean`, `quantile_basis`, as in `vcae.voice.space.VoiceSpace`.
        speakers: (n,), speaker of each voice.
        held: (n,), true for voices of held-out speakers.
    """

    features: Tensor
    maps: dict[str, Tensor]
    speakers: Tensor
    held: Tensor


def whiten_voices(
    embedding: Tensor, pitch: Tensor, quantiles: Tensor, speakers: Tensor, held: Tensor, n_components: int
) -> WhitenedVoices:
    """Whiten voice features: equal variance within speakers in all directions, and uncorrelated dimensions between speakers.

    Args:
        embedding: (n, speaker_dim), speaker embeddings.
        pitch: (n, 2), median and standard deviation of log-F0.
        quantiles: (n, ...), any shape: quantiles of the mel bands.
        speakers: (n,), speaker of each voice.
        held: (n,), true for held-out voices.
        n_components: Principal components of the quantiles.
    """
    learned, flat = ~held, quantiles.float().flatten(1)
    quantile_mean = flat[learned].mean(0)
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(int(learned.sum()), generator=generator)[:6000]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        basis = torch.svd_lowrank(flat[learned][some] - quantile_mean, q=2 * n_components, niter=4)[2][:, :n_components]
    numbers = torch.cat([embedding, pitch, (flat - quantile_mean) @ basis], dim=1).double()
    mean = numbers[learned].mean(0)
    x = numbers - mean
    within = _within_covariance(x[learned], speakers[learned])
    first = torch.linalg.inv(torch.linalg.cholesky(within)).T
    scattered = x[learned] @ first
    values, vectors = torch.linalg.eigh(scattered.T @ scattered / len(scattered))
    whiten = first @ vectors.flip(1) / values.flip(0).clamp(min=WITHIN_SHRINKAGE).sqrt()
    maps = {"mean": mean, "whiten": whiten, "unwhiten": torch.linalg.inv(whiten)}
    maps |= {"quantile_mean": quantile_mean, "quantile_basis": basis}
    return WhitenedVoices((x @ whiten).float(), {k: v.float() for k, v in maps.items()}, speakers, held)


def _within_covariance(x: Tensor, speakers: Tensor) -> Tensor:
    known, at = torch.unique(speakers, return_inverse=True)
    means = torch.zeros(len(known), x.shape[1], dtype=x.dtype).index_add(0, at, x) / at.bincount()[:, None]
    scatter = x - means[at]
    within = scatter.T @ scatter / max(len(x) - len(known), 1)
    shrunk: Tensor = (1 - WITHIN_SHRINKAGE) * within + WITHIN_SHRINKAGE * torch.diag(within.diag() + FLOOR * x.var(0))
    return shrunk


def fit_voice_prior(
    voices: WhitenedVoices, recipe: GeneratorRecipe, say: Callable[[str], None] = lambda line: None
) -> VoicePrior:
    """Fit the autoencoder to the voices that are not held out.

    Args:
        voices: From `whiten_voices`.
        recipe: Settings.
        say: Called with lines of progress.
    """
    learned = voices.features[~voices.held]
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        prior = VoicePrior(recipe.model, recipe.dropout)
        optimizer = torch.optim.AdamW(prior.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, recipe.max_steps, pct_start=0.1)
        for step in range(recipe.max_steps):
            batch = learned[torch.randint(len(learned), (recipe.batch_size,))]
            batch = batch + recipe.noise * torch.randn_like(batch)
            likely, divergence = prior(batch, torch.randn(len(batch), recipe.model.latent_dim))
            loss = annealed(step, ANNEAL_STEPS) * free_divergence(divergence, FREE_NATS) - likely.mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(prior.parameters(), MAX_GRADIENT)
            optimizer.step()
            schedule.step()
            if (step + 1) % 250 == 0:
                say(
                    f"step {step + 1}: loss {float(loss.detach()):.2f}, divergence {float(divergence.detach().mean(0).sum()):.2f} nats"
                )
    return prior.eval().requires_grad_(False)


def gaussian_likelihood(learned: Tensor, tested: Tensor, shrinkage: float) -> float:
    """Return the mean log density in nats of `tested` (n, F) under a Gaussian fitted to `learned`; shrinkage 1 makes it diagonal."""
    covariance = torch.cov(learned.T.double())
    # A little shrinkage is always left, so that the covariance of few voices is invertible.
    shrinkage = max(shrinkage, 1e-6)
    covariance = (1 - shrinkage) * covariance + shrinkage * torch.diag(covariance.diag())
    gaussian = torch.distributions.MultivariateNormal(learned.double().mean(0), covariance)
    return float(gaussian.log_prob(tested.double()).mean())  # type: ignore[no-untyped-call]


def likelihoods(voices: WhitenedVoices, prior: VoicePrior, seed: int = 0) -> dict[str, float]:
    """Return the log likelihoods of held-out speakers under the prior and two Gaussians, in nats per voice.

    The diagonal Gaussian is fitted to the features before whitening; its density is converted by the determinant of the map.
    """
    learned, tested = voices.features[~voices.held], voices.features[voices.held]
    unwhiten = voices.maps["unwhiten"].double()
    volume = float(torch.linalg.slogdet(unwhiten).logabsdet)
    raw_learned, raw_tested = learned.double() @ unwhiten, tested.double() @ unwhiten
    # Its shrinkage is chosen on the test voices themselves, in its favour.
    shrunk = max(gaussian_likelihood(learned, tested, s) for s in (0.0, 0.1, 0.3, 1.0))
    return {
        "prior": float(prior.log_likelihood(tested, DRAWS, torch.Generator().manual_seed(seed)).mean()),
        "full": max(shrunk, *(gaussian_likelihood(raw_learned, raw_tested, s) + volume for s in (0.01, 0.03, 0.1))),
        "diagonal": gaussian_likelihood(raw_learned, raw_tested, 1.0) + volume,
        "standard": -0.5 * float(tested.square().sum(1).mean()) - 0.5 * tested.shape[1] * math.log(2 * math.pi),
    }
