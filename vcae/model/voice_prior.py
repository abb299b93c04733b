"""The prior of voices: a small variational autoencoder of voice features, from which new voices are sampled."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vcae.model.config import VoicePriorConfig

# Largest magnitude of a log standard deviation.
MAX_LOG_DEVIATION = 5.0
# Factor on the initial weights.
SMALL = 0.1


def gaussian_divergence(mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Return the KL divergence of each N(mean, deviation) from N(0, 1) in nats; any shape."""
    return 0.5 * (mean.square() + torch.exp(2 * log_deviation) - 1) - log_deviation


def free_divergence(divergence: Tensor, free_nats: float) -> Tensor:
    """Return the batch mean of KL divergences (B, D), at least `free_nats` in each dimension, summed over D.

    Source: Kingma et al., Improving variational inference with inverse autoregressive flow (2016), appendix C.8.
    """
    return divergence.mean(dim=0).clamp(min=free_nats).sum()


def annealed(step: int, anneal_steps: int) -> float:
    """Return the weight of the KL divergence, which grows from 0 to 1 over `anneal_steps`.

    Source: Bowman et al., Generating sentences from a continuous space (2016).
    """
    return min(1.0, step / max(anneal_steps, 1))


def gaussian_log_density(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Return the log density (...,) in nats of x (..., D) under independent Gaussians."""
    return -(0.5 * ((x - mean) * torch.exp(-log_deviation)).square() + log_deviation + 0.5 * math.log(2 * math.pi)).sum(dim=-1)


def _network(n_inputs: int, width: int, n_outputs: int, dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_inputs, width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(width, n_outputs),
    )


class VoicePrior(nn.Module):
    """Variational autoencoder of whitened voice features.

    Encoder and decoder are each a linear map plus a network; with the small initial weights the prior is a standard Gaussian, and
    training learns the difference from one. The standard deviation of each feature depends on the latent too.

    Shape:
        - features: (B, F), whitened
        - latent: (B, latent_dim)

    Source: Kingma and Welling, Auto-encoding variational Bayes (2014).
    """

    def __init__(self, config: VoicePriorConfig, dropout: float = 0.0) -> None:
        super().__init__()
        f, d = config.n_features, config.latent_dim
        self.config = config
        self.encoder_matrix, self.encoder_network = nn.Linear(f, 2 * d), _network(f, config.width, 2 * d, dropout)
        self.decoder_matrix, self.decoder_network = nn.Linear(d, f), _network(d, config.width, 2 * f, dropout)
        self.log_deviation = nn.Parameter(torch.zeros(f))
        with torch.no_grad():
            for network in (self.encoder_network, self.decoder_network):
                last = network[-1]
                assert isinstance(last, nn.Linear)
                last.weight.mul_(SMALL)
            self.encoder_matrix.weight.mul_(SMALL)
            self.decoder_matrix.weight.mul_(SMALL)

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of the latent (B, latent_dim) for features (B, F)."""
        mean, log_deviation = (self.encoder_matrix(features) + self.encoder_network(features)).chunk(2, dim=-1)
        return mean, log_deviation.clamp(-MAX_LOG_DEVIATION, MAX_LOG_DEVIATION)

    def decode(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of the features (B, F) for a latent (B, latent_dim)."""
        mean, log_deviation = self.decoder_network(latent).chunk(2, dim=-1)
        return self.decoder_matrix(latent) + mean, (self.log_deviation + log_deviation).clamp(
            -MAX_LOG_DEVIATION, MAX_LOG_DEVIATION
        )

    def sample(self, latent: Tensor, noise: Tensor) -> Tensor:
        """Return features (B, F) for a latent sampled from the prior and noise (B, F) of unit variance."""
        mean, log_deviation = self.decode(latent)
        return mean + noise * log_deviation.exp()

    def forward(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log density of features under their reconstruction (B,) and KL divergences (B, latent_dim), for noise (B, latent_dim)."""
        mean, log_deviation = self.encode(features)
        rebuilt = self.decode(mean + noise * log_deviation.exp())
        return gaussian_log_density(features, *rebuilt), gaussian_divergence(mean, log_deviation)

    @torch.no_grad()
    def log_likelihood(self, features: Tensor, n_draws: int, generator: torch.Generator) -> Tensor:
        """Return a lower bound (B,) of the log density in nats, tighter with more draws.

        Source: Burda et al., Importance weighted autoencoders (2016).
        """
        mean, log_deviation = self.encode(features)
        zero, weights = torch.zeros_like(mean), []
        for _ in range(n_draws):
            latent = mean + torch.randn(mean.shape, generator=generator) * log_deviation.exp()
            prior, posterior = gaussian_log_density(latent, zero, zero), gaussian_log_density(latent, mean, log_deviation)
            weights.append(gaussian_log_density(features, *self.decode(latent)) + prior - posterior)
        return torch.stack(weights).logsumexp(dim=0) - math.log(n_draws)
