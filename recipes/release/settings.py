"""Settings of this recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ReleaseRecipe:
    """Settings of `recipes/release`."""

    autoencoder: str
    vocoder: str
    output: str
    # Refer to the vocoder of the shipped checkpoint of that name instead of copying it.
    share_vocoder: bool = False
    # The autoencoder's weights are stored in 8 bits instead of 16.
    eight_bit: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
