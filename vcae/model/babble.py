"""A prior over units: a recurrent network that says which unit may come next, and draws whole sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vcae.config import BabbleConfig


class UnitPrior(nn.Module):
    """Say what comes after units, from all of them before it.

    Shape:
        - units: (B, S) int64; `none` stands before the first
        - logits: (B, S, n_units), of each unit given those before
    """

    def __init__(self, config: BabbleConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.none = config.n_units
        self.embedding = nn.Embedding(config.n_units + 1, config.embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.recurrence = nn.GRU(config.embedding_dim, config.width, batch_first=True)
        self.output = nn.Linear(config.width, config.n_units)

    def forward(self, units: Tensor) -> Tensor:
        before = torch.cat([torch.full_like(units[:, :1], self.none), units[:, :-1]], dim=1)
        logits, _ = self.step(before, None)
        return logits

    def step(self, before: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return logits (B, S, n_units) of what follows each of `before` (B, S), and the state (1, B, width) after them."""
        hidden, state = self.recurrence(self.dropout(self.embedding(before)), state)
        return self.output(self.dropout(hidden)), state

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
        """Draw a sequence of units (n,).

        Args:
            n: How many.
            generator: The same state draws the same sequence.
            temperature: Under 1 the likely is drawn more often, over 1 less.
            top_p: Only the likeliest units are drawn that together have this probability.
        """
        before, state, drawn = torch.full((1, 1), self.none), None, []
        for _ in range(n):
            logits, state = self.step(before, state)
            share = nucleus(torch.softmax(logits[0, 0].double() / temperature, dim=-1), top_p)
            before = torch.multinomial(share, 1, generator=generator)[None]
            drawn.append(before[0, 0])
        return torch.stack(drawn) if drawn else torch.zeros(0, dtype=torch.long)


def nucleus(share: Tensor, top_p: float) -> Tensor:
    """Return probabilities (K,) with all but the likeliest, which together reach `top_p`, set to 0, and the sum to 1.

    Source: Holtzman et al., The curious case of neural text degeneration (2020).
    """
    ordered, at = share.sort(descending=True)
    kept = torch.where(ordered.cumsum(0) - ordered < top_p, ordered, torch.zeros_like(ordered))
    return torch.zeros_like(share).scatter(0, at, kept / kept.sum())
