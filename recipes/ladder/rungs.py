"""The rungs of a ladder by name: `16` has 16 values per step, `16-kl0.003` the same size and a KL weight of .003."""

import dataclasses
from pathlib import Path

from settings import LadderRecipe

from vcae.training.config import AutoencoderRecipe


def rungs(ladder: LadderRecipe) -> dict[str, AutoencoderRecipe]:
    """Return the training settings of each rung: the plain ones, then the variational ones, which start from the plain one of their size."""
    common, runs = ladder.autoencoder, Path(ladder.autoencoder.train.output_dir)

    def rung(dim: int, **content: bool) -> AutoencoderRecipe:
        chosen = dataclasses.replace(common.model.content, latent_dim=dim, **content)
        return dataclasses.replace(common, model=dataclasses.replace(common.model, content=chosen), kl_weight=0.0)

    found = {str(dim): rung(dim) for dim in ladder.dims}
    for weight in ladder.kl_weights:
        found[f"{ladder.variational_dim}-kl{weight:g}"] = dataclasses.replace(
            rung(ladder.variational_dim, variational=True),
            kl_weight=weight,
            borrowed=str(runs / str(ladder.variational_dim) / "last.safetensors"),
            train=dataclasses.replace(common.train, max_steps=ladder.variational_steps),
        )
    return found
