"""Train every rung: `python recipes/ladder/train.py recipes/ladder/conf/base.yaml [section.name=value ...]`.

Each rung has its own folder below `autoencoder.train.output_dir`; finished rungs are skipped, interrupted ones resumed.
"""

import dataclasses
import sys
from pathlib import Path

from rungs import rungs
from settings import LadderRecipe

from vcae import checkpoint
from vcae.config import load_config, to_dict
from vcae.errors import VcaeError
from vcae.training.config import AutoencoderRecipe
from vcae.training.objectives import AutoencoderObjective
from vcae.training.run import train


def train_rung(name: str, recipe: AutoencoderRecipe) -> None:
    def save(objective: AutoencoderObjective, path: Path, step: int) -> None:
        checkpoint.save(path, autoencoder=objective.model, info={"step": step, "seed": recipe.train.seed})

    print(f"rung {name}", file=sys.stderr)
    train(lambda n: AutoencoderObjective(recipe, n), recipe.data, recipe.train, to_dict(recipe), save)


def main() -> None:
    ladder = load_config(LadderRecipe, sys.argv[1], sys.argv[2:])
    for name, rung in rungs(ladder).items():
        output = Path(rung.train.output_dir) / name
        train_rung(name, dataclasses.replace(rung, train=dataclasses.replace(rung.train, output_dir=str(output))))


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
