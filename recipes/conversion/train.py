"""Train a wide code on conversions: `python recipes/conversion/train.py recipes/conversion/conf/base.yaml [section.name=value ...]`."""

import sys
from pathlib import Path

from vcae import checkpoint
from vcae.config import load_config, to_dict
from vcae.training.config import ConversionRecipe
from vcae.training.conversion import ConversionObjective
from vcae.training.run import train


def main() -> None:
    recipe = load_config(ConversionRecipe, sys.argv[1], sys.argv[2:])

    def save(objective: ConversionObjective, path: Path, step: int) -> None:
        checkpoint.save(path, autoencoder=objective.model, info={"step": step, "seed": recipe.train.seed})

    train(lambda n: ConversionObjective(recipe), recipe.data, recipe.train, to_dict(recipe), save)


if __name__ == "__main__":
    main()
