"""Train the autoencoder: `python recipes/autoencoder/train.py recipes/autoencoder/conf/base.yaml [section.name=value ...]`."""

import sys
from pathlib import Path

from vcae import checkpoint
from vcae.config import load_config, to_dict
from vcae.training.config import AutoencoderRecipe
from vcae.training.objectives import AutoencoderObjective
from vcae.training.run import train


def main() -> None:
    recipe = load_config(AutoencoderRecipe, sys.argv[1], sys.argv[2:])

    def save(objective: AutoencoderObjective, path: Path, step: int) -> None:
        checkpoint.save(path, autoencoder=objective.model, info={"step": step, "seed": recipe.train.seed})

    train(lambda n: AutoencoderObjective(recipe, n), recipe.data, recipe.train, to_dict(recipe), save)


if __name__ == "__main__":
    main()
