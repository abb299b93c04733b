"""Building blocks shared by the encoders, the decoder and the vocoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.audio.frames import weighted_moments

KERNEL = 7
EXPANSION = 3


class _Block(nn.Module):
    """One ConvNeXt block in the layout (B, T, D) that its stack uses inside.

    The depthwise convolution is written as seven shifted products: on a CPU, forward and backward take 3 ms
    where Conv1d takes 7 (32 x 94 frames of 256 channels, one core).
    """

    def __init__(self, width: int, condition_dim: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Parameter(torch.randn(KERNEL, width) / KERNEL**0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width, elementwise_affine=condition_dim == 0)
        self.modulation = nn.Linear(condition_dim, 2 * width) if condition_dim else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)
        self.expand = nn.Linear(width, EXPANSION * width)
        self.reduce = nn.Linear(EXPANSION * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor, mask: Tensor | None, condition: Tensor | None) -> Tensor:
        y = x if mask is None else x * mask
        n = y.shape[1]
        y = F.pad(y, (0, 0, KERNEL // 2, KERNEL // 2))
        y = sum((y[:, k : k + n] * self.depthwise[k] for k in range(KERNEL)), start=self.bias)
        y = self.norm(y)
        if self.modulation is not None:
            gain, shift = self.modulation(condition).unsqueeze(1).chunk(2, dim=-1)
            y = y * (1 + gain) + shift
        out: Tensor = x + self.scale * self.reduce(F.gelu(self.expand(y)))
        return out


class ConvNeXtStack(nn.Module):
    """A stack of ConvNeXt blocks, each with its layer norm optionally modulated by a condition (AdaLN).

    Shape:
        - x: (B, width, T)
        - mask: (B, 1, T) or None
        - condition: (B, condition_dim) or None
        - output: (B, width, T)

    Source: Liu et al., A ConvNet for the 2020s (2022); for audio, Siuzdak, Vocos (2023); AdaLN, Peebles and Xie (2023).
    """

    def __init__(self, width: int, n_blocks: int, condition_dim: int = 0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, condition_dim, 1 / n_blocks) for _ in range(n_blocks))

    @property
    def reach(self) -> int:
        """Receptive field of an output frame, in frames to each side."""
        return len(self.blocks) * (KERNEL // 2)

    def forward(self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        x = x.transpose(1, 2)
        mask = None if mask is None else mask.transpose(1, 2)
        for block in self.blocks:
            x = block(x, mask, condition)
        return x.transpose(1, 2)


class InstanceNorm(nn.Module):
    """Normalise each channel over the time of one item, with weighted frames and no learned scale.

    This removes the properties that are constant over an utterance: channel, average spectrum, much of the voice.

    Shape:
        - x: (B, D, T); weight: (B, 1, T); output: (B, D, T)

    Source: Chou et al., One-shot Voice Conversion by Separating Speaker and Content Representations with Instance
    Normalization (2019).
    """

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        mean, deviation = weighted_moments(x.float(), weight, eps=1e-4)
        return (x - mean) / deviation
