"""The speaker encoder: who says it, as one unit vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.config import SpeakerConfig
from vcae.model.blocks import ConvNeXtStack


class SpeakerEncoder(nn.Module):
    """Encode a normalised mel of any length into a speaker embedding by attentive statistics.

    Shape:
        - mel: (B, n_mels, T), normalised
        - weight: (B, 1, T), 1.0 on frames that carry sound; only these are heard
        - mask: (B, 1, T), 1.0 on valid frames, or None
        - speaker_embedding: (B, speaker_dim), unit norm

    Source: Okabe et al., Attentive Statistics Pooling for Deep Speaker Embedding (2018).
    """

    def __init__(self, config: SpeakerConfig, n_mels: int) -> None:
        super().__init__()
        self.input = nn.Conv1d(n_mels, config.width, 5, padding=2)
        self.stack = ConvNeXtStack(config.width, config.n_blocks)
        self.attention = nn.Sequential(nn.Conv1d(config.width, 64, 1), nn.Tanh(), nn.Conv1d(64, config.width, 1))
        self.output = nn.Linear(2 * config.width, config.speaker_dim)

    def forward(self, mel: Tensor, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.stack(self.input(mel if mask is None else mel * mask), mask)
        score = self.attention(x).float().masked_fill(weight == 0, -1e4)
        share = torch.softmax(score, dim=-1)
        mean = (x * share).sum(dim=-1)
        variance = (x.square() * share).sum(dim=-1) - mean.square()
        pooled = torch.cat([mean, variance.clamp(min=1e-4).sqrt()], dim=1)
        return F.normalize(self.output(pooled).float(), dim=-1)
