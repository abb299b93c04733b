"""Train the content encoder by masked prediction: `python recipes/discovery/train.py recipes/discovery/conf/base.yaml [section.name=value ...]`."""

import sys
from pathlib import Path

from vcae import checkpoint
from vcae.config import load_config, to_dict
from vcae.training.config import DiscoveryRecipe
from vcae.training.discovery import MaskedPredictionObjective
from vcae.training.run import train


def main() -> None:
    recipe = load_config(DiscoveryRecipe, sys.argv[1], sys.argv[2:])

    def save(objective: MaskedPredictionObjective, path: Path, step: int) -> None:
        checkpoint.save(path, autoencoder=objective.model, info={"step": step, "seed": recipe.train.seed})

    train(lambda _: MaskedPredictionObjective(recipe), recipe.data, recipe.train, to_dict(recipe), save)


if __name__ == "__main__":
    main()
