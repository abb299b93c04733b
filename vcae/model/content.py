"""The content encoder: speech content, with the voice removed by normalisation and a narrow bottleneck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.errors import ConfigError
from vcae.model.blocks import ConvNeXtStack, InstanceNorm
from vcae.model.config import ContentConfig
from vcae.model.variational import Gaussian, log_variance_head

X = TypeVar("X")
# Kernel of the first convolution.
INPUT_KERNEL = 5


class Way(Protocol[X]):
    """Backend that runs the encoder's operations: on a whole mel, by sections, or live. The encoder defines their order."""

    def normalize(self, x: X) -> X:
        """Give each channel zero mean and unit deviation over time, as `InstanceNorm` does."""

    def map(self, x: X, function: Callable[[Tensor, Tensor | None], Tensor], reach: int) -> X:
        """Apply a function of x (B, D, T) and mask (B, 1, T) with a receptive field of `reach` steps to each side."""

    def pool(self, x: X) -> X:
        """Average over each stride, as `ContentEncoder.pool` does; later operations work on pooled steps."""


class ContentEncoder(nn.Module):
    """Encode a normalised mel into the content latent.

    Shape:
        - mel: (B, n_mels, T), normalised
        - weight: (B, 1, T), 1.0 on active frames, over which the normalisation statistics are computed
        - mask: (B, 1, T), 1.0 on valid frames, or None
        - latent: (B, latent_dim, ceil(T / stride))
    """

    def __init__(self, config: ContentConfig, n_mels: int) -> None:
        super().__init__()
        self.config = config
        self.input = nn.Conv1d(n_mels, config.width, INPUT_KERNEL, padding=INPUT_KERNEL // 2)
        self.normalized = nn.ModuleList(ConvNeXtStack(config.width, 1) for _ in range(config.n_normalized))
        self.free = ConvNeXtStack(config.width, max(config.n_blocks - config.n_normalized, 1))
        self.instance_norm = InstanceNorm()
        self.output = nn.Conv1d(config.width, config.latent_dim, 1) if config.project else nn.Identity()
        self.log_variance = log_variance_head(config.width, config.latent_dim) if config.variational else None

    def forward(self, mel: Tensor, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        way = _Whole(self, weight, mask)
        return way.masked(self.run(mel, way))

    def posterior(self, mel: Tensor, weight: Tensor, mask: Tensor | None = None) -> Gaussian:
        """Return the Gaussian of a variational latent; its mean is the result of `forward`.

        Raises:
            ConfigError: If the latent is not variational.
        """
        if self.log_variance is None:
            raise ConfigError("this encoder is not variational; set content.variational to true and train it")
        way = _Whole(self, weight, mask)
        x = self.features(mel, way)
        return Gaussian(way.masked(self.latent(x, way)), way.masked(self.log_variance(x)))

    def run(self, mel: X, way: Way[X]) -> X:
        """Return the latent of a normalised mel, computed by the given backend; the only place that defines the order of the layers."""
        return self.latent(self.features(mel, way), way)

    def features(self, mel: X, way: Way[X]) -> X:
        """Return the features (B, width, ceil(T / stride)) from which the latent is projected."""
        x = way.normalize(mel) if self.config.n_normalized else mel
        x = way.map(x, self._enter, INPUT_KERNEL // 2)
        for stack in self.normalized:
            assert isinstance(stack, ConvNeXtStack)
            x = way.normalize(way.map(x, stack, stack.reach))
        if self.config.early_pool:
            return way.map(way.pool(x), self.free, self.free.reach)
        return way.pool(way.map(x, self.free, self.free.reach))

    def latent(self, features: X, way: Way[X]) -> X:
        """Return the latent for the result of `features`."""
        latent = way.map(features, self._leave, 0)
        return way.normalize(latent) if self.config.normalize_latent else latent

    def _enter(self, x: Tensor, mask: Tensor | None) -> Tensor:
        entered: Tensor = self.input(x if mask is None else x * mask)
        return entered

    def _leave(self, x: Tensor, mask: Tensor | None) -> Tensor:
        left: Tensor = self.output(x)
        return left

    @property
    def reach(self) -> int:
        """Receptive field of a latent step in frames to each side, apart from the moments of the whole recording."""
        way = _Reach(self.config.stride)
        self.run(None, way)
        return way.frames

    def pool(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Average x (B, D, T) over each stride: (B, D, ceil(T / stride)), the last one over the remaining frames."""
        valid = torch.ones_like(x[:, :1]) if mask is None else mask
        return self._pool(x * valid) / self._pool(valid).clamp(min=1e-3)

    def pool_weight(self, weight: Tensor) -> Tensor:
        """Return the weights of the pooled steps (B, 1, ceil(T / stride)) for the weights of the frames (B, 1, T)."""
        return self._pool(weight)

    def _pool(self, x: Tensor) -> Tensor:
        stride = self.config.stride
        return F.avg_pool1d(F.pad(x, (0, -x.shape[-1] % stride)), stride)


class _Whole:
    """Backend for a whole mel at once, padded where there is a mask."""

    def __init__(self, encoder: ContentEncoder, weight: Tensor, mask: Tensor | None) -> None:
        self._encoder, self._weight, self._mask = encoder, weight, mask

    def normalize(self, x: Tensor) -> Tensor:
        normalized: Tensor = self._encoder.instance_norm(x, self._weight)
        return normalized

    def map(self, x: Tensor, function: Callable[[Tensor, Tensor | None], Tensor], reach: int) -> Tensor:
        return function(x, self._mask)

    def pool(self, x: Tensor) -> Tensor:
        pooled = self._encoder.pool(x, self._mask)
        self._weight = self._encoder.pool_weight(self._weight)
        self._mask = None if self._mask is None else (self._encoder.pool_weight(self._mask) > 0).float()
        return pooled

    def masked(self, x: Tensor) -> Tensor:
        return x if self._mask is None else x * self._mask


class _Reach:
    """Backend that computes nothing but the sum of the receptive fields."""

    def __init__(self, stride: int) -> None:
        self.frames, self._stride, self._frames_a_step = 0, stride, 1

    def normalize(self, x: None) -> None:
        return None

    def map(self, x: None, function: Callable[[Tensor, Tensor | None], Tensor], reach: int) -> None:
        self.frames += reach * self._frames_a_step

    def pool(self, x: None) -> None:
        self._frames_a_step = self._stride
