"""The enhancement layer: the error of the base layer's mel as a latent, whose quantiser step depends on the quality."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.codec.config import CodecConfig
from vcae.model.blocks import ConvNeXtStack

# Powers of the quality that condition the networks.
CONDITIONS = 4


def condition(quality: Tensor) -> Tensor:
    """Return the powers (B, 4) of a quality (B,), 0 to 1."""
    return torch.stack([quality.pow(k) for k in range(CONDITIONS)], dim=1)


class Enhancement(nn.Module):
    """Code the difference between a mel and the base layer's mel, conditioned on the latter.

    Shape:
        - mel, base: (B, n_mels, T), normalised per band
        - quality: (B,), 0 to 1
        - latent: (B, latent_dim, ceil(T / 2))

    Source: transform coding with a learned prior, Ballé et al., End-to-end optimized image compression (2017); one model for all rates by steps
    that depend on the rate, Cui et al., Asymmetric gained deep image compression with continuous rate adaptation (2021).
    """

    def __init__(self, config: CodecConfig, n_mels: int) -> None:
        super().__init__()
        self.config, self.n_mels, width = config, n_mels, config.width
        self.analysis_input = nn.Conv1d(2 * n_mels, width, 5, padding=2)
        self.analysis = ConvNeXtStack(width, config.n_blocks, CONDITIONS)
        self.analysis_output = nn.Conv1d(width, config.latent_dim, 2, stride=2)
        self.synthesis_latent = nn.ConvTranspose1d(config.latent_dim, width, 2, stride=2)
        self.synthesis_input = nn.Conv1d(n_mels, width, 5, padding=2)
        self.synthesis = ConvNeXtStack(width, config.n_blocks, CONDITIONS)
        self.synthesis_norm = nn.LayerNorm(width)
        self.synthesis_output = nn.Linear(width, n_mels)
        nn.init.zeros_(self.synthesis_output.weight)
        # The logarithm of the quantiser's step is linear in the quality.
        self.log_step = nn.Parameter(torch.tensor([[0.0], [-2.5]]).repeat(1, config.latent_dim))

    def log_steps(self, quality: Tensor) -> Tensor:
        """Return the natural logarithms of the quantiser's step sizes (B, latent_dim)."""
        return self.log_step[0] + quality[:, None] * self.log_step[1]

    def encode(self, mel: Tensor, base: Tensor, quality: Tensor) -> Tensor:
        """Return the latent of a mel, before quantisation."""
        x = self.analysis(self.analysis_input(torch.cat([mel - base, base], dim=1)), None, condition(quality))
        x = F.pad(x, (0, x.shape[-1] % 2), mode="replicate")
        with torch.autocast(x.device.type, enabled=False):
            latent: Tensor = self.analysis_output(x.float())
            return latent

    def decode(self, latent: Tensor, base: Tensor, quality: Tensor) -> Tensor:
        """Return the mel for a quantised latent."""
        x = self.synthesis_latent(latent)[..., : base.shape[-1]] + self.synthesis_input(base)
        x = self.synthesis(x, None, condition(quality))
        change: Tensor = self.synthesis_output(self.synthesis_norm(x.transpose(1, 2)))
        return base + change.transpose(1, 2)

    @property
    def reach(self) -> int:
        """Receptive field of the analysis, and of the synthesis, in frames to each side."""
        return 4 + 3 * self.config.n_blocks
