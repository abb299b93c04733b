"""Settings of this recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vcae.config import positive, require
from vcae.training.config import AutoencoderRecipe


@dataclass(frozen=True)
class LadderRecipe:
    """All numbers of `recipes/ladder`."""

    # What the rungs have in common; its content.latent_dim and kl_weight are each rung's own.
    autoencoder: AutoencoderRecipe
    # Numbers a step of the plain rungs.
    dims: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    # KL weights of the variational rungs, which start from the plain one of so many numbers, and their steps.
    kl_weights: tuple[float, ...] = ()
    variational_dim: int = 16
    variational_steps: int = 250
    # Where the plain rungs are joined, and what stands beside them.
    output: str = "runs/ladder/ladder.safetensors"
    info: Mapping[str, Any] = field(default_factory=dict)
    # Measured on: a CSV with the columns path and split.
    manifest: str = "DATA/manifest.csv"
    split: str = "dev"
    # Recordings of at least so long that are made into sound and judged, and batches of training data that PCA is fitted on.
    n_files: int = 10
    min_s: float = 3.0
    pca_batches: int = 60
    seed: int = 0
    output_dir: str = "out/ladder"

    def __post_init__(self) -> None:
        require(
            len(self.dims) > 0 and all(1 <= n <= 1024 for n in (*self.dims, self.variational_dim)),
            f"dims is {self.dims} and variational_dim {self.variational_dim}; give at least one, each of 1 to 1024",
        )
        require(len(set(self.dims)) == len(self.dims), f"dims is {self.dims}; each may stand there once")
        require(all(w >= 0 for w in self.kl_weights), f"kl_weights is {self.kl_weights}; none may be negative")
        require(
            not self.kl_weights or self.variational_dim in self.dims,
            f"variational_dim is {self.variational_dim}, which is none of dims ({self.dims}); add it there",
        )
        positive(self, "n_files", "pca_batches", "variational_steps")
