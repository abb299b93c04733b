"""Look-ups in the reference, frame by frame: what the target voice sounds like where it says what the source says."""

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
    """Steps of a recording of the target voice, in no order: M of them.

    Attributes:
        keys: (B, M, latent_dim), their content latents.
        values: (B, M, reference_width), what they sound like, from `ReferenceEncoder`.
        log_weights: (B, M), added to the scores of a look-up; a step of weight 0 (minus infinity) is never found. None: all count alike.
    """

    keys: Tensor
    values: Tensor
    log_weights: Tensor | None = None

    @classmethod
    def join(cls, references: list[Reference], weights: list[float]) -> Reference:
        """Join references of several voices; each weighs as much in a look-up as its weight says, however many steps it has."""
        logs = [
            (torch.zeros(r.keys.shape[:2], device=r.keys.device) if r.log_weights is None else r.log_weights)
            + torch.log(torch.tensor(w / r.keys.shape[1], device=r.keys.device))
            for r, w in zip(references, weights, strict=True)
        ]
        return cls(torch.cat([r.keys for r in references], 1), torch.cat([r.values for r in references], 1), torch.cat(logs, 1))


class ReferenceEncoder(nn.Module):
    """Encode a normalised mel into what each of its steps sounds like.

    Shape:
        - mel: (B, n_mels, T), normalised
        - values: (B, ceil(T / stride), width)
    """

    def __init__(self, n_mels: int, width: int, n_blocks: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        # Frames to each side that a value depends on.
        self.reach = 2 + n_blocks * (KERNEL // 2)
        self.input = nn.Conv1d(n_mels, width, 5, padding=2)
        self.stack = ConvNeXtStack(width, n_blocks)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.stack(self.input(mel))
        pad = -x.shape[-1] % self.stride
        # The last step averages over what is there.
        counts = F.avg_pool1d(F.pad(torch.ones_like(x[:1, :1]), (0, pad)), self.stride)
        pooled: Tensor = F.avg_pool1d(F.pad(x, (0, pad)), self.stride) / counts
        return pooled.transpose(1, 2)


class ReferenceAttention(nn.Module):
    """Attend from the decoder's frames to the reference's steps: queries of the decoder, keys of content, values of sound.

    Keys by content make it a look-up of how the target says the same; it knows nothing of order. The output starts at zero.

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
        """Return x with what was found added; `gate` (B, 1, 1) scales it, None for 1."""

        def heads(y: Tensor) -> Tensor:
            return y.view(*y.shape[:2], N_HEADS, -1).transpose(1, 2)

        bias = None if reference.log_weights is None else reference.log_weights[:, None, None, :].to(x.dtype)
        query, key, value = self.query(self.norm(x)), self.key(reference.keys), self.value(reference.values)
        if bias is not None:
            bias = bias.to(query.dtype)
        found = F.scaled_dot_product_attention(heads(query), heads(key), heads(value), attn_mask=bias)
        y: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return x + (y if gate is None else y * gate)
