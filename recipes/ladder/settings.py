"""Settings of this recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vcae.config import positive, require
from vcae.training.config import AutoencoderRecipe


@dataclass(frozen=True)
class LadderRecipe:
    """Settings of `recipes/ladder`."""

    # Common settings of all rungs; content.latent_dim and kl_weight are set for each rung.
    autoencoder: AutoencoderRecipe
    # Values per step of the plain rungs.
    dims: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    # KL weights of the variational rungs; their values per step, which are those of the plain rung they start from; and training steps.
    kl_weights: tuple[float, ...] = ()
    variational_dim: int = 16
    variational_steps: int = 250
    # File of all plain rungs, and its metadata.
    output: str = "runs/ladder/ladder.safetensors"
    info: Mapping[str, Any] = field(default_factory=dict)
    # Test data: a CSV with the columns path and split.
    manifest: str = "DATA/manifest.csv"
    split: str = "dev"
    # Number and shortest length of recordings that are synthesised and judged, and batches of training data for PCA.
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
        require(len(set(self.dims)) == len(self.dims), f"dims is {self.dims}; each size may be listed only once")
        require(all(w >= 0 for w in self.kl_weights), f"kl_weights is {self.kl_weights}; none may be negative")
        require(
            not self.kl_weights or self.variational_dim in self.dims,
            f"variational_dim is {self.variational_dim}, which is not one of dims ({self.dims}); add it there",
        )
        positive(self, "n_files", "pca_batches", "variational_steps")
