"""Settings of this recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vcae.config import within


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
    # A checkpoint that the autoencoder was trained on from, whose weights are mixed in, and the share of the autoencoder's own ones.
    earlier: str | None = None
    share: float = 1.0
    # Likewise for the vocoder.
    earlier_vocoder: str | None = None
    vocoder_share: float = 1.0
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        within(self, 0, 1, "share", "vocoder_share")
