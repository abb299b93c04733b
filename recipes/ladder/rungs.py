"""The rungs of a ladder, by name: `16` has 16 numbers a step, `16-kl0.003` the same number and a KL weight of .003."""

import dataclasses

from vcae.config import AutoencoderRecipe, LadderRecipe


def rungs(ladder: LadderRecipe) -> dict[str, AutoencoderRecipe]:
    """Return what each rung is trained by: the plain ones, then the variational ones."""
    common = ladder.autoencoder

    def rung(dim: int, **content: bool) -> AutoencoderRecipe:
        chosen = dataclasses.replace(common.model.content, latent_dim=dim, **content)
        return dataclasses.replace(common, model=dataclasses.replace(common.model, content=chosen), kl_weight=0.0)

    found = {str(dim): rung(dim) for dim in ladder.dims}
    for weight in ladder.kl_weights:
        variational = rung(ladder.variational_dim, variational=True)
        found[f"{ladder.variational_dim}-kl{weight:g}"] = dataclasses.replace(variational, kl_weight=weight)
    return found
