"""Train the codec's polish: `python recipes/codec/polish.py recipes/codec/conf/polish.yaml [section.name=value ...]`."""

import sys
from pathlib import Path

from vcae.codec import files
from vcae.config import load_config, to_dict
from vcae.training.config import PolishRecipe
from vcae.training.polish import PolishObjective
from vcae.training.run import train


def main() -> None:
    recipe = load_config(PolishRecipe, sys.argv[1], sys.argv[2:])

    def save(objective: PolishObjective, path: Path, step: int) -> None:
        files.save_polish(path, objective.model, {"step": step, "seed": recipe.train.seed})

    train(lambda n: PolishObjective(recipe), recipe.data, recipe.train, to_dict(recipe), save)


if __name__ == "__main__":
    main()
