"""The speaker encoder: the voice as one unit vector."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.model.blocks import ConvNeXtStack
from vcae.model.config import SpeakerConfig


class SpeakerEncoder(nn.Module):
    """Encode a normalised mel of any length into a speaker embedding by attentive statistics.

    Shape:
        - mel: (B, n_mels, T), normalised
        - weight: (B, 1, T), 1.0 on active frames; only these are used
        - mask: (B, 1, T), 1.0 on valid frames, or None
        - speaker_embedding: (B, speaker_dim), unit norm

    Source: Okabe et al., Attentive Statistics Pooling for Deep Speaker Embedding (2018).
    """

    def __init__(self, config: SpeakerConfig, n_mels: int) -> None:
        super().__init__()
        self.input = nn.Conv1d(n_mels, config.width, 5, padding=2)
        self.stack = ConvNeXtStack(config.width, config.n_blocks)
        # Receptive field of a frame's features before pooling, in frames to each side.
        self.reach = 2 + self.stack.reach
        self.attention = nn.Sequential(nn.Conv1d(config.width, 64, 1), nn.Tanh(), nn.Conv1d(64, config.width, 1))
        self.output = nn.Linear(2 * config.width, config.speaker_dim)

    def forward(self, mel: Tensor, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        x, score = self.attend(mel, weight, mask)
        share = torch.softmax(score, dim=-1)
        return self.embed((x * share).sum(dim=-1), (x.square() * share).sum(dim=-1))

    def attend(self, mel: Tensor, weight: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the features to pool and their attention scores (logits): two tensors (B, width, T)."""
        x = self.stack(self.input(mel if mask is None else mel * mask), mask)
        return x, self.attention(x).float().masked_fill(weight == 0, -1e4)

    def embed(self, mean: Tensor, mean_square: Tensor) -> Tensor:
        """Return the embedding (B, speaker_dim) for a pooled mean and mean square (B, width)."""
        pooled = torch.cat([mean, (mean_square - mean.square()).clamp(min=1e-4).sqrt()], dim=1)
        return F.normalize(self.output(pooled).float(), dim=-1)


class AttentivePool:
    """Attentive pooling of `SpeakerEncoder.forward`, accumulated section by section.

    The softmax extends over all sections: sums are kept relative to the largest score so far.

    Args:
        encoder: The encoder whose features are pooled.
    """

    def __init__(self, encoder: SpeakerEncoder) -> None:
        self._encoder = encoder
        device = encoder.output.weight.device
        self._largest, self._total, self._sums, self._squares = (
            torch.full((1, 1), value, device=device) for value in (-math.inf, 0.0, 0.0, 0.0)
        )

    def add(self, x: Tensor, score: Tensor) -> None:
        """Add frames: two tensors (1, width, n) from `SpeakerEncoder.attend`."""
        if not x.shape[-1]:
            return
        top = torch.maximum(self._largest, score.amax(dim=-1))
        share, fade = torch.exp(score - top[..., None]), torch.exp(self._largest - top)
        self._total = self._total * fade + share.sum(dim=-1)
        self._sums = self._sums * fade + (x * share).sum(dim=-1)
        self._squares = self._squares * fade + (x.square() * share).sum(dim=-1)
        self._largest = top

    def scale(self, factor: float) -> None:
        """Multiply the weight of everything added so far by a factor."""
        self._total, self._sums, self._squares = self._total * factor, self._sums * factor, self._squares * factor

    def embed(self) -> Tensor:
        """Return the embedding (1, speaker_dim) of all frames added."""
        return self._encoder.embed(self._sums / self._total, self._squares / self._total)
