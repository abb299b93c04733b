"""Train the vocoder: `python recipes/vocoder/train.py recipes/vocoder/conf/base.yaml [section.name=value ...]`."""

import sys
from pathlib import Path

from vcae import checkpoint
from vcae.config import load_config, to_dict
from vcae.training.adversarial import AdversarialVocoderObjective
from vcae.training.config import VocoderRecipe
from vcae.training.objectives import VocoderObjective
from vcae.training.run import train


def main() -> None:
    recipe = load_config(VocoderRecipe, sys.argv[1], sys.argv[2:])

    def save(objective: VocoderObjective, path: Path, step: int) -> None:
        checkpoint.save(path, vocoder=objective.model, info={"step": step, "seed": recipe.train.seed})

    make = VocoderObjective if recipe.critic is None else AdversarialVocoderObjective
    train(lambda n: make(recipe), recipe.data, recipe.train, to_dict(recipe), save)


if __name__ == "__main__":
    main()
