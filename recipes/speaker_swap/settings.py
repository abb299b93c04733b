"""Settings of this recipe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SwapRecipe:
    """Settings of `recipes/speaker_swap`."""

    first: str
    second: str
    output_dir: str = "out/speaker_swap"
    pitch: str = "auto"
    seed: int = 0
    checkpoint: str = "default"
