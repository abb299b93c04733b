"""Train the codec: `python recipes/codec/train.py recipes/codec/conf/base.yaml [section.name=value ...]`."""

import sys
from pathlib import Path

from vcae.codec import files
from vcae.config import load_config, to_dict
from vcae.training.codec import CodecObjective
from vcae.training.config import CodecRecipe
from vcae.training.run import train


def main() -> None:
    recipe = load_config(CodecRecipe, sys.argv[1], sys.argv[2:])

    def save(objective: CodecObjective, path: Path, step: int) -> None:
        files.save_networks(path, objective.model, objective.codebook_size, {"step": step, "seed": recipe.train.seed})

    train(lambda n: CodecObjective(recipe), recipe.data, recipe.train, to_dict(recipe), save)


if __name__ == "__main__":
    main()
