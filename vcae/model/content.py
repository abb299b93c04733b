"""The content encoder: what is said, with the voice normalised away and a narrow neck."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.config import ContentConfig
from vcae.model.blocks import ConvNeXtStack, InstanceNorm


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

    def forward(self, mel: Tensor, weight: Tensor, mask: Tensor | None = None) -> Tensor:
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
        latent: Tensor = self.output(x)
        if c.normalize_latent:
            latent = self.instance_norm(latent, self.pool_weight(weight))
        return latent if mask is None else latent * kept

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
