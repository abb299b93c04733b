"""The content encoder: what is said, with the voice normalised away and a narrow neck."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.errors import ConfigError
from vcae.model.blocks import ConvNeXtStack, InstanceNorm
from vcae.model.config import ContentConfig
from vcae.model.variational import Gaussian, log_variance_head


class ContentEncoder(nn.Module):
    """Encode a normalised mel into the content latent.

    Shape:
        - mel: (B, n_mels, T), normalised
        - weight: (B, 1, T), 1.0 on frames that carry sound; statistics are taken there
        - mask: (B, 1, T), 1.0 on valid frames, or None
        - latent: (B, latent_dim, ceil(T / stride))
    """

    def __init__(self, config: ContentConfig, n_mels: int) -> None:
        super().__init__()
        self.config = config
        self.input = nn.Conv1d(n_mels, config.width, 5, padding=2)
        self.normalized = nn.ModuleList(ConvNeXtStack(config.width, 1) for _ in range(config.n_normalized))
        self.free = ConvNeXtStack(config.width, max(config.n_blocks - config.n_normalized, 1))
        self.instance_norm = InstanceNorm()
        self.output = nn.Conv1d(config.width, config.latent_dim, 1) if config.project else nn.Identity()
        self.log_variance = log_variance_head(config.width, config.latent_dim) if config.variational else None

    def forward(self, mel: Tensor, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        x, kept = self._steps(mel, weight, mask)
        return self._mean(x, weight, kept)

    def posterior(self, mel: Tensor, weight: Tensor, mask: Tensor | None = None) -> Gaussian:
        """Return the Gaussian of a variational latent, whose mean is what `forward` gives.

        Raises:
            ConfigError: If the latent is not variational.
        """
        if self.log_variance is None:
            raise ConfigError("this encoder is not variational; set content.variational to true and train it")
        x, kept = self._steps(mel, weight, mask)
        log_variance = self.log_variance(x)
        return Gaussian(self._mean(x, weight, kept), log_variance if kept is None else log_variance * kept)

    def _steps(self, mel: Tensor, weight: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the features (B, width, ceil(T / stride)) that the latent is read from, and which steps are valid, or None for all."""
        c = self.config
        x = self.instance_norm(mel, weight) if c.n_normalized else mel
        x = self.input(x if mask is None else x * mask)
        for stack in self.normalized:
            x = self.instance_norm(stack(x, mask), weight)
        valid = torch.ones_like(weight) if mask is None else mask
        kept = (self._pool(valid) > 0).float()
        x = self._pool_valid(x if c.early_pool else self.free(x, mask), valid)
        if c.early_pool:
            x = self.free(x, None if mask is None else kept)
        return x, None if mask is None else kept

    def _mean(self, x: Tensor, weight: Tensor, kept: Tensor | None) -> Tensor:
        latent: Tensor = self.output(x)
        if self.config.normalize_latent:
            latent = self.instance_norm(latent, self.pool_weight(weight))
        return latent if kept is None else latent * kept

    def pool(self, x: Tensor) -> Tensor:
        """Average x (B, D, T) over each stride: (B, D, ceil(T / stride)), the last one over what is there."""
        return self._pool_valid(x, torch.ones_like(x[:, :1]))

    def pool_weight(self, weight: Tensor) -> Tensor:
        """Return how much each pooled step counts (B, 1, ceil(T / stride)) from what each frame counts (B, 1, T)."""
        return self._pool(weight)

    def _pool_valid(self, x: Tensor, valid: Tensor) -> Tensor:
        return self._pool(x * valid) / self._pool(valid).clamp(min=1e-3)

    def _pool(self, x: Tensor) -> Tensor:
        stride = self.config.stride
        return F.avg_pool1d(F.pad(x, (0, -x.shape[-1] % stride)), stride)
