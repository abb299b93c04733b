"""The prior of voices: a small variational autoencoder of the numbers that describe one, to draw new ones from."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vcae.model.config import VoicePriorConfig

# Logarithms of deviations lie within this of 0.
MAX_LOG_DEVIATION = 5.0
# What weights are multiplied by before training.
SMALL = 0.1


def gaussian_divergence(mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Return the divergence in nats of each N(mean, deviation) from N(0, 1), of any shape."""
    return 0.5 * (mean.square() + torch.exp(2 * log_deviation) - 1) - log_deviation


def free_divergence(divergence: Tensor, free_nats: float) -> Tensor:
    """Return the mean over a batch of divergences (B, D), summed over D, each of which costs nothing below `free_nats`.

    Source: Kingma et al., Improving variational inference with inverse autoregressive flow (2016), appendix C.8.
    """
    return divergence.mean(dim=0).clamp(min=free_nats).sum()


def annealed(step: int, anneal_steps: int) -> float:
    """Return the weight of the divergence, growing from 0 to 1 over so many steps.

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
    """A variational autoencoder of described voices in whitened form.

    Encoder and decoder are each a matrix with a network beside it; near 0, where both begin, the prior is a standard Gaussian, so that
    whatever is learned is what a voice is beyond one. How surely a feature is known depends on the latent too.

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
        """Return mean and log deviation of the latent of features."""
        mean, log_deviation = (self.encoder_matrix(features) + self.encoder_network(features)).chunk(2, dim=-1)
        return mean, log_deviation.clamp(-MAX_LOG_DEVIATION, MAX_LOG_DEVIATION)

    def decode(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log deviation of the features of a latent."""
        mean, log_deviation = self.decoder_network(latent).chunk(2, dim=-1)
        return self.decoder_matrix(latent) + mean, (self.log_deviation + log_deviation).clamp(
            -MAX_LOG_DEVIATION, MAX_LOG_DEVIATION
        )

    def sample(self, latent: Tensor, noise: Tensor) -> Tensor:
        """Return features (B, F) of a latent drawn from the prior, for noise (B, F) of deviation 1."""
        mean, log_deviation = self.decode(latent)
        return mean + noise * log_deviation.exp()

    def forward(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log density of features under their reconstruction (B,), and the divergences (B, latent_dim), for noise (B, latent_dim)."""
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
