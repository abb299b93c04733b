"""Refinement of the base layer's mel: adds the detail that a decoder trained on distances smooths away."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vcae.codec.config import PolishConfig
from vcae.model.blocks import ConvNeXtStack


class Polish(nn.Module):
    """Add the fine structure of recordings to the base layer's mel, in the voice of the speaker embedding.

    Shape:
        - base: (B, n_mels, T), normalised per band
        - speaker_embedding: (B, speaker_dim)
        - output: (B, n_mels, T), normalised
    """

    def __init__(self, config: PolishConfig, n_mels: int, speaker_dim: int) -> None:
        super().__init__()
        self.config, self.speaker_dim = config, speaker_dim
        self.input = nn.Conv1d(n_mels, config.width, 5, padding=2)
        self.stack = ConvNeXtStack(config.width, config.n_blocks, speaker_dim)
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, n_mels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, base: Tensor, speaker_embedding: Tensor) -> Tensor:
        x = self.stack(self.input(base), None, speaker_embedding)
        change: Tensor = self.output(self.norm(x.transpose(1, 2)))
        return base + change.transpose(1, 2)

    @property
    def reach(self) -> int:
        """Receptive field in frames to each side."""
        return 2 + 3 * self.config.n_blocks


class MelCritic(nn.Module):
    """Discriminator of recorded and generated mel patches, conditioned on the base layer's mel. Used in training only.

    Shape:
        - mel, base: (B, n_mels, T), normalised; output: list of feature maps, of which the last is the score

    Source: patches and the condition, Isola et al., Image-to-image translation with conditional adversarial networks (2017); on mels, Kumar et al.,
    MelGAN (2019), with its feature matching.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = (
            (2, channels, (5, 5), (2, 2)),
            (channels, 2 * channels, (5, 5), (2, 2)),
            (2 * channels, 2 * channels, (5, 3), (2, 1)),
        )
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.spectral_norm(
                nn.Conv2d(n_in, n_out, kernel, stride, padding=(kernel[0] // 2, kernel[1] // 2))
            )
            for n_in, n_out, kernel, stride in sizes
        )
        self.verdict = nn.utils.parametrizations.spectral_norm(nn.Conv2d(2 * channels, 1, 3, padding=1))

    def forward(self, mel: Tensor, base: Tensor) -> list[Tensor]:
        x, maps = torch.stack([mel, base], dim=1), []
        for layer in self.layers:
            x = nn.functional.leaky_relu(layer(x), 0.2)
            maps.append(x)
        return [*maps, self.verdict(x)]
