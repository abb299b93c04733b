"""Train the denoiser: `python recipes/denoise/train.py recipes/denoise/conf/base.yaml [section.name=value ...]`."""

import sys
from pathlib import Path

from vcae.checkpoint import save_module
from vcae.config import load_config, to_dict
from vcae.model.denoiser import PART
from vcae.training.config import DenoiseRecipe
from vcae.training.denoise import DenoiseObjective
from vcae.training.run import train


def main() -> None:
    recipe = load_config(DenoiseRecipe, sys.argv[1], sys.argv[2:])

    def save(objective: DenoiseObjective, path: Path, step: int) -> None:
        facts = {"step": step, "seed": recipe.train.seed}
        save_module(path, PART, objective.model, to_dict(recipe.model), facts)

    train(lambda n: DenoiseObjective(recipe), recipe.data, recipe.train, to_dict(recipe), save)


if __name__ == "__main__":
    main()
