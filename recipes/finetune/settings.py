"""Settings of this recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from vcae.training.config import PerturbConfig, TrainConfig


@dataclass(frozen=True)
class FinetuneRecipe:
    """Settings of `recipes/finetune`."""

    # A folder of recordings of one voice, and the name of the saved voice.
    clips: str
    name: str
    checkpoint: str = "default"
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    crop_s: float = 1.6
    reference_s: float = 2.4
    batch_size: int = 16
    train: TrainConfig = field(default_factory=TrainConfig)
