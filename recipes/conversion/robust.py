"""Train the encoder on degraded speech: `python recipes/conversion/robust.py recipes/conversion/conf/robust.yaml [section.name=value ...]`."""

import sys
from pathlib import Path

from vcae import checkpoint
from vcae.config import load_config, to_dict
from vcae.training.config import RobustRecipe
from vcae.training.robust import RobustObjective
from vcae.training.run import train


def main() -> None:
    recipe = load_config(RobustRecipe, sys.argv[1], sys.argv[2:])

    def save(objective: RobustObjective, path: Path, step: int) -> None:
        checkpoint.save(path, autoencoder=objective.model, info={"step": step, "seed": recipe.train.seed})

    train(lambda n: RobustObjective(recipe), recipe.data, recipe.train, to_dict(recipe), save)


if __name__ == "__main__":
    main()
