"""Priors: small causal networks that predict the probabilities for the entropy coder.

They are trained here in floating point and used in integers (`vcae/codec/integer.py`), so every operation has an exact counterpart there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.codec.config import CodecConfig
from vcae.codec.pitch import MAX_MOVE, N_MOVES, N_PLACES, N_VOICINGS, REACH

# Upper bound of the activations of hidden layers.
CEILING = 8.0
# Past steps in the context of the codes' prior.
CODE_CONTEXT = 4
# Powers of the quality among the inputs of the latent's prior.
QUALITIES = 2
# Largest magnitude of the base-2 logarithm of the latent's scale, in steps.
MAX_LOG2_SCALE = 6.0


class ContextNetwork(nn.Module):
    """Network of two hidden layers over the sum of its inputs' embeddings: tables for symbols, a matrix for numbers.

    Shape:
        - symbols: (..., len(table_sizes)), integers
        - numbers: (..., n_numbers)
        - output: (..., n_outputs)
    """

    def __init__(self, table_sizes: Sequence[int], n_numbers: int, width: int, n_outputs: int) -> None:
        super().__init__()
        self.table_sizes = tuple(table_sizes)
        offsets = torch.tensor([0, *self.table_sizes]).cumsum(0)[:-1]
        self.register_buffer("offsets", offsets, persistent=False)
        self.table = nn.Parameter(torch.randn(sum(self.table_sizes), width) / math.sqrt(max(len(self.table_sizes), 1)))
        self.numbers = nn.Linear(n_numbers, width) if n_numbers else None
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, n_outputs)
        self.bias = nn.Parameter(torch.zeros(width))

    offsets: Tensor

    def forward(self, symbols: Tensor, numbers: Tensor | None = None) -> Tensor:
        x = F.embedding_bag((symbols + self.offsets).reshape(-1, len(self.table_sizes)), self.table, mode="sum").view(
            *symbols.shape[:-1], -1
        )
        x = x + self.bias
        if self.numbers is not None and numbers is not None:
            x = x + self.numbers(numbers)
        x = self.hidden(x.clamp(0, CEILING)).clamp(0, CEILING)
        output: Tensor = self.output(x)
        return output


def shifted(symbols: Tensor, by: int, fill: int) -> Tensor:
    """Shift symbols (B, S) to later steps by `by` (to earlier ones if negative), filling the gap with `fill`."""
    n = symbols.shape[-1]
    if by >= 0:
        return F.pad(symbols, (by, 0), value=fill)[:, :n]
    return F.pad(symbols, (0, -by), value=fill)[:, -by:]


def table_sizes(codebook_size: int) -> dict[str, tuple[int, ...]]:
    """Return, for each prior, the number of symbols of each of its inputs."""
    k = codebook_size + 1
    return {
        "first": (k,) * (2 * CODE_CONTEXT),
        "second": (k,) * (2 * CODE_CONTEXT + 1),
        "voicing": (k, k, k, N_VOICINGS + 1, N_VOICINGS + 1),
        "move": (k, k, N_VOICINGS + 1, N_VOICINGS + 1, N_MOVES, N_MOVES, N_PLACES),
        "latent": (k, k, k, N_VOICINGS + 1),
    }


class Priors(nn.Module):
    """Priors of all values in a block: two codes per step, voicing, moves of F0, and the enhancement layer's latent.

    No context extends beyond the block, so a block can be decoded alone. The codes of the whole block come first; the contexts of F0 and
    of the latent include them one step ahead.

    Shape:
        - codes: (B, 2, S); voicing, place: (B, S), from `vcae.codec.pitch.quantize_f0`; latent: (B, D, S); quality: (B,)
    """

    def __init__(self, config: CodecConfig, codebook_size: int) -> None:
        super().__init__()
        sizes, width, d = table_sizes(codebook_size), config.prior_width, config.latent_dim
        self.none = codebook_size
        self.latent_dim = d
        self.first = ContextNetwork(sizes["first"], 0, width, codebook_size)
        self.second = ContextNetwork(sizes["second"], 0, width, codebook_size)
        self.voicing = ContextNetwork(sizes["voicing"], 0, config.pitch_width, N_VOICINGS)
        self.move = ContextNetwork(sizes["move"], 0, config.pitch_width, N_MOVES)
        self.latent = ContextNetwork(sizes["latent"], 2 * d + QUALITIES, width, 2 * d)

    def code_context(self, codes: Tensor) -> Tensor:
        """Return the context of each step's codes: (B, S, 2 * CODE_CONTEXT)."""
        past = [shifted(codes[:, s], n, self.none) for n in range(1, CODE_CONTEXT + 1) for s in (0, 1)]
        return torch.stack(past, dim=-1)

    def code_bits(self, codes: Tensor) -> Tensor:
        """Return the cost of each code (B, 2, S), in bits."""
        known = self.code_context(codes)
        first = self.first(known)
        second = self.second(torch.cat([known, codes[:, 0, :, None]], dim=-1))
        return torch.stack([_bits(first, codes[:, 0]), _bits(second, codes[:, 1])], dim=1)

    def pitch_context(self, codes: Tensor, voicing: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the contexts of each step's voicing (B, S, 5) and move (B, S, 7), and the moves (B, S), counted from 0."""
        first, none = codes[:, 0], N_VOICINGS
        ahead = shifted(first, -1, self.none)
        before, before_that = shifted(voicing, 1, none), shifted(voicing, 2, none)
        # A place stays the same through unvoiced steps, so a move is 0 there.
        last = shifted(place, 1, 0)
        move = (place - last).clamp(-MAX_MOVE, MAX_MOVE) + MAX_MOVE
        known = torch.stack([first, codes[:, 1], ahead, before, before_that], dim=-1)
        moves = [shifted(move, n, MAX_MOVE) for n in (1, 2)]
        return known, torch.stack([first, ahead, voicing, before, *moves, last + REACH], dim=-1), move

    def pitch_bits(self, codes: Tensor, voicing: Tensor, place: Tensor) -> Tensor:
        """Return the cost of F0 (B, S), in bits; moves are coded in voiced steps only."""
        known, moving, move = self.pitch_context(codes, voicing, place)
        return _bits(self.voicing(known), voicing) + _bits(self.move(moving), move) * (voicing > 0)

    def latent_context(self, codes: Tensor, voicing: Tensor, latent: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Return the context of each step's latent: symbols (B, S, 4) and numbers (B, S, 2 * D + 2)."""
        first, n = codes[:, 0], latent.shape[-1]
        symbols = torch.stack([first, codes[:, 1], shifted(first, -1, self.none), voicing], dim=-1)
        past = [F.pad(latent, (by, 0))[..., :n].transpose(1, 2) for by in (1, 2)]
        powers = torch.stack([quality, quality.square()], dim=-1)[:, None].expand(-1, n, -1)
        return symbols, torch.cat([*past, powers], dim=-1)

    def latent_guess(self, codes: Tensor, voicing: Tensor, latent: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (B, D, S) and base-2 logarithm of the scale (B, D, S) of each latent, in the latent's own units."""
        output = self.latent(*self.latent_context(codes, voicing, latent, quality)).transpose(1, 2)
        return output[:, : self.latent_dim], output[:, self.latent_dim :]


def _bits(logits: Tensor, symbols: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), symbols.flatten(), reduction="none").view_as(symbols) / math.log(2)


def logistic_bits(value: Tensor, mean: Tensor, log2_scale: Tensor) -> Tensor:
    """Return the cost in bits of values, quantised with step 1, under a logistic distribution; differentiable."""
    scale = torch.exp2(log2_scale.clamp(-MAX_LOG2_SCALE, MAX_LOG2_SCALE))
    # By symmetry computed on the side where both tails are small, so that their difference stays precise.
    distance = -(value - mean).abs()
    mass = torch.sigmoid((distance + 0.5) / scale) - torch.sigmoid((distance - 0.5) / scale)
    return -torch.log2(mass.clamp(min=2.0**-16))
