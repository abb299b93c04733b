"""Join an autoencoder and a vocoder into one float16 (or, by `eight_bit`, 8-bit) checkpoint with its SHA-256.

python recipes/release/join.py recipes/release/conf/default.yaml
"""

import sys
from pathlib import Path
from typing import Any

from settings import ReleaseRecipe
from torch import nn

from vcae import checkpoint
from vcae.config import load_config
from vcae.errors import CheckpointError
from vcae.files import hash_file


def training(part: checkpoint.Checkpoint, name: str) -> dict[str, Any]:
    """Return the training metadata of a model, from its own checkpoint or from a joined one."""
    info = part.metadata["info"]
    return dict(info.get(f"{name}_training", info))


def mix(model: nn.Module, earlier: nn.Module | None, share: float) -> None:
    """Set the weights of a model to their mean with those that it was trained on from, its own counting with `share`.

    Source: Wortsman et al., Robust Fine-Tuning of Zero-Shot Models (2022).

    Raises:
        CheckpointError: If the two are not of one shape.
    """
    before = {} if earlier is None else earlier.state_dict()
    own = model.state_dict()
    if before.keys() != own.keys() or any(before[name].shape != value.shape for name, value in own.items()):
        raise CheckpointError(
            "the earlier checkpoint is not what the model was trained on from: its weights have other names or shapes"
        )
    model.load_state_dict(
        {name: before[name].lerp(value, share) if value.is_floating_point() else value for name, value in own.items()}
    )


def main() -> None:
    recipe = load_config(ReleaseRecipe, sys.argv[1], sys.argv[2:])
    parts = [checkpoint.load(recipe.autoencoder), checkpoint.load(recipe.vocoder)]
    if recipe.earlier is not None:
        mix(parts[0].autoencoder, checkpoint.load(recipe.earlier).autoencoder, recipe.share)
    if recipe.earlier_vocoder is not None:
        mix(parts[1].vocoder, checkpoint.load(recipe.earlier_vocoder).vocoder, recipe.vocoder_share)
    info = {
        **recipe.info,
        **{f"{name}_training": training(part, name) for name, part in zip(("autoencoder", "vocoder"), parts, strict=True)},
    }
    path = Path(recipe.output)
    own, shared = (None, recipe.vocoder) if recipe.share_vocoder else (parts[1].vocoder, None)
    checkpoint.save(path, parts[0].autoencoder, own, info, half=True, shared_vocoder=shared, eight_bit=recipe.eight_bit)
    digest = hash_file(path)
    path.with_suffix(".sha256").write_text(f"{digest}  {path.name}\n")
    checkpoint.load(path)
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    main()
