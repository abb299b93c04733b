"""Settings of this recipe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluateRecipe:
    """Settings of `recipes/evaluate`."""

    # CSV with the columns path, speaker, split, duration_s[, transcript].
    manifest: str
    split: str = "dev"
    n_pairs: int = 132
    seed: int = 0
    min_s: float = 1.5
    # Judge the conversions; otherwise they are only made and listed.
    judge: bool = True
    # Seconds of the target's speech given to the systems; one clip when 0.
    reference_s: float = 0.0
    systems: tuple[str, ...] = ("vcae", "world-statistics", "world-nearest", "target")
    checkpoint: str = "default"
    output_dir: str = "out/evaluate"
