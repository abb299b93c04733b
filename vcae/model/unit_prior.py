"""The prior of units: which unit follows the last ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.config import from_dict, positive

PART = "unit_prior"


@dataclass(frozen=True)
class UnitPriorConfig:
    """Settings of the prior of units.

    Attributes:
        n_units: Number of different units.
        context: Number of units that are seen.
        unit_dim: Numbers that describe a unit.
        width: Width of the hidden layers.
    """

    n_units: int = 1024
    context: int = 8
    unit_dim: int = 64
    width: int = 256

    def __post_init__(self) -> None:
        positive(self, "n_units", "context", "unit_dim", "width", where=PART)


class UnitPrior(nn.Module):
    """Predict a unit from the last ones.

    Shape:
        - past: (N, context) int64, the last unit at the end; before the first unit stands the number `n_units`
        - logits: (N, n_units) in nats

    Source: Bengio et al., A neural probabilistic language model (2003); the units are described alike at both ends as in Press and Wolf,
    Using the output embedding to improve language models (2017).
    """

    def __init__(self, config: UnitPriorConfig) -> None:
        super().__init__()
        self.config = config
        self.units = nn.Embedding(config.n_units + 1, config.unit_dim)
        self.hidden = nn.Sequential(
            nn.Linear(config.context * config.unit_dim, config.width),
            nn.GELU(),
            nn.Linear(config.width, config.width),
            nn.GELU(),
            nn.Linear(config.width, config.unit_dim),
        )
        self.bias = nn.Parameter(torch.zeros(config.n_units))

    def forward(self, past: Tensor) -> Tensor:
        return F.linear(self.hidden(self.units(past).flatten(1)), self.units.weight[:-1], self.bias)


def contexts(units: Tensor, config: UnitPriorConfig) -> Tensor:
    """Return the context (T, context) of each unit of a sequence (T,)."""
    padded = F.pad(units, (config.context, 0), value=config.n_units)
    return padded[:-1].unfold(0, config.context, 1)


def unit_prior_of(sizes: dict[str, Any]) -> UnitPrior:
    """Build a prior of units from its config as plain data, as stored in a file."""
    return UnitPrior(from_dict(UnitPriorConfig, sizes, PART))
