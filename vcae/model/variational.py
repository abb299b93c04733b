"""The variational bottleneck: a Gaussian latent, and its KL divergence from the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Initial log-variance: samples near the mean, so that the decoder gets information from the start.
FIRST_LOG_VARIANCE = -3.0


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions.

    Attributes:
        mean: (B, D, T).
        log_variance: (B, D, T), natural logarithm.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self) -> Tensor:
        """Return a sample (B, D, T) through which gradients reach mean and variance.

        Source: Kingma and Welling, Auto-encoding variational Bayes (2014), section 2.4.
        """
        return self.mean + torch.exp(0.5 * self.log_variance) * torch.randn_like(self.mean)

    def kl(self) -> Tensor:
        """Return the KL divergence from the standard normal prior (B, D, T), in nats.

        Source: Kingma and Welling (2014), appendix B.
        """
        mean, log_variance = self.mean.float(), self.log_variance.float()
        return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def log_variance_head(width: int, latent_dim: int) -> nn.Conv1d:
    """Return a layer from features (B, width, T) to log-variances (B, latent_dim, T), initialised to `FIRST_LOG_VARIANCE` everywhere."""
    head = nn.Conv1d(width, latent_dim, 1)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, FIRST_LOG_VARIANCE)  # type: ignore[arg-type]
    return head


def free_bits(kl: Tensor, floor_bits: float) -> Tensor:
    """Return the KL divergence with free bits, in nats per step: each dimension's mean over the batch, but at least the floor.

    Args:
        kl: (B, D, T), in nats.
        floor_bits: Bits per step that cost a dimension nothing, so that no dimension collapses at the beginning.

    Returns:
        (), the sum over dimensions, floors included; a dimension at its floor has no gradient.

    Source: Kingma et al., Improved variational inference with inverse autoregressive flow (2016), appendix C.8.
    """
    return kl.mean(dim=(0, 2)).clamp(min=floor_bits * math.log(2)).sum()


def kl_weight(weight: float, step: int, warmup_steps: int) -> float:
    """Return the weight of the KL divergence at a step: linear from 0 to `weight` at `warmup_steps`, then constant.

    Source: Bowman et al., Generating sentences from a continuous space (2016), section 3.1.
    """
    return weight * min(1.0, step / warmup_steps) if warmup_steps else weight
