"""Join the trained plain rungs into one file: `python recipes/ladder/join.py recipes/ladder/conf/base.yaml [name=value ...]`."""

import sys
from pathlib import Path

from settings import LadderRecipe

from vcae import checkpoint
from vcae.config import load_config
from vcae.errors import VcaeError
from vcae.files import hash_file
from vcae.tasks.ladder import describe_ladder, save_ladder


def main() -> None:
    recipe = load_config(LadderRecipe, sys.argv[1], sys.argv[2:])
    runs = Path(recipe.autoencoder.train.output_dir)
    parts = {dim: checkpoint.load(runs / str(dim) / "last.safetensors") for dim in recipe.dims}
    rungs = {dim: part.autoencoder for dim, part in parts.items() if part.autoencoder is not None}
    training = {str(dim): part.metadata["info"] for dim, part in parts.items()}
    path = Path(recipe.output)
    save_ladder(path, rungs, {**recipe.info, "training": training})
    digest = hash_file(path)
    path.with_suffix(".sha256").write_text(f"{digest}  {path.name}\n")
    sizes = describe_ladder(path)["parameters"]
    print(f"wrote {path}: {len(sizes)} rungs, {path.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
