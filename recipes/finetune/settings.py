"""Settings of this recipe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FinetuneRecipe:
    """Settings of `recipes/finetune`: a folder of recordings of one voice, and the name of the saved voice."""

    clips: str
    name: str
