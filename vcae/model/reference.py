"""Attention to the reference: for each frame, the sound of the target voice at similar content."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.model.blocks import KERNEL, ConvNeXtStack

N_HEADS = 4
KEY_DIM = 32


@dataclass(frozen=True)
class Reference:
    """Steps of a recording of the target voice, in any order: M of them.

    Attributes:
        keys: (B, M, latent_dim), their content latents.
        values: (B, M, reference_width), features of their sound, from `ReferenceEncoder`.
        log_weights: (B, M), added to the attention scores; minus infinity masks a step. None gives all steps equal weights.
    """

    keys: Tensor
    values: Tensor
    log_weights: Tensor | None = None

    @classmethod
    def join(cls, references: list[Reference], weights: list[float]) -> Reference:
        """Join references of several voices; each has its weight in the attention, whatever its number of steps."""
        logs = [
            (torch.zeros(r.keys.shape[:2], device=r.keys.device) if r.log_weights is None else r.log_weights)
            + torch.log(torch.tensor(w / r.keys.shape[1], device=r.keys.device))
            for r, w in zip(references, weights, strict=True)
        ]
        return cls(torch.cat([r.keys for r in references], 1), torch.cat([r.values for r in references], 1), torch.cat(logs, 1))


class ReferenceEncoder(nn.Module):
    """Encode a normalised mel into features of the sound of its steps.

    Shape:
        - mel: (B, n_mels, T), normalised
        - values: (B, ceil(T / stride), width)
    """

    def __init__(self, n_mels: int, width: int, n_blocks: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        # Receptive field in frames to each side.
        self.reach = 2 + n_blocks * (KERNEL // 2)
        self.input = nn.Conv1d(n_mels, width, 5, padding=2)
        self.stack = ConvNeXtStack(width, n_blocks)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.stack(self.input(mel))
        pad = -x.shape[-1] % self.stride
        # The last step averages over the remaining frames.
        counts = F.avg_pool1d(F.pad(torch.ones_like(x[:1, :1]), (0, pad)), self.stride)
        pooled: Tensor = F.avg_pool1d(F.pad(x, (0, pad)), self.stride) / counts
        return pooled.transpose(1, 2)


class ReferenceAttention(nn.Module):
    """Attention from the decoder's frames to the reference's steps: queries from the decoder, keys from content, values from sound.

    With keys of content it finds the sound of the same content in the target's voice, independent of order. The output is initially zero.

    Shape:
        - x, output: (B, T, width)
        - reference: of M steps, B items

    Source: Bargum et al. (Interspeech 2026) attend to reference frames in a convolutional decoder; Vaswani et al., Attention Is All You
    Need (2017), equation 1.
    """

    def __init__(self, width: int, latent_dim: int, reference_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, N_HEADS * KEY_DIM)
        self.key = nn.Linear(latent_dim, N_HEADS * KEY_DIM)
        self.value = nn.Linear(reference_width, width)
        self.output = nn.Linear(width, width)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, reference: Reference, gate: Tensor | None = None) -> Tensor:
        """Return x plus the result of the attention, scaled by `gate` (B, 1, 1); None for 1."""

        def heads(y: Tensor) -> Tensor:
            return y.reshape(y.shape[0], y.shape[1], N_HEADS, y.shape[2] // N_HEADS).transpose(1, 2)

        bias = None if reference.log_weights is None else reference.log_weights[:, None, None, :].to(x.dtype)
        query, key, value = self.query(self.norm(x)), self.key(reference.keys), self.value(reference.values)
        if bias is not None:
            bias = bias.to(query.dtype)
        found = F.scaled_dot_product_attention(heads(query), heads(key), heads(value), attn_mask=bias)
        y: Tensor = self.output(found.transpose(1, 2).reshape(x.shape))
        return x + (y if gate is None else y * gate)
