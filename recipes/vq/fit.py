"""Give the autoencoder of a checkpoint units: codebooks by k-means, then prosody and the prior of babble.

python recipes/vq/fit.py recipes/vq/conf/base.yaml
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vcae.checkpoint import load, save
from vcae.config import load_config, to_dict
from vcae.errors import VcaeError
from vcae.files import hash_file
from vcae.model.unit_prior import PART
from vcae.training import units
from vcae.training.release import release_module
from vcae.training.resume import git_commit

LOG_EVERY = 50


def follow(name: str, losses: Iterator[float], started: float) -> float:
    """Read all losses, print some, and return the last one."""
    loss = 0.0
    for n, loss in enumerate(losses, 1):
        if n % LOG_EVERY == 0:
            print(f"{name}: step {n}, loss {loss:.3f}, {time.process_time() - started:.0f} s", flush=True)
    return loss


def main() -> None:
    recipe, started = load_config(units.UnitTrainingRecipe, sys.argv[1], sys.argv[2:]), time.process_time()
    model = units.with_units(recipe)
    speech = units.encode_cache(model, recipe.data, recipe.hours, recipe.seed)
    held = units.encode_cache(model, recipe.held_data, recipe.held_hours, recipe.seed)
    print(f"{len(speech)} utterances are encoded, {len(held)} held out, {time.process_time() - started:.0f} s", flush=True)
    units.fit_codebooks(model, speech, recipe)
    left = [round(share, 4) for share in units.left_over(model, held)]
    print(f"variance left by the codebooks: {left}, {time.process_time() - started:.0f} s", flush=True)
    codes, held_codes = units.first_codes(model, speech), units.first_codes(model, held)
    f0, held_f0 = [s.f0 for s in speech], [s.f0 for s in held]
    follow("prosody", units.train_prosody(model, codes, f0, recipe), started)
    prior, losses = units.train_prior(codes, recipe)
    follow("prior", losses, started)
    facts = {"variance_left": left, "held": units.held_prosody(model, held_codes, held_f0, recipe)}
    facts |= {"bits_a_unit": units.bits_a_unit(prior, held_codes), "cpu_s": round(time.process_time() - started)}
    settings = {key: value for key, value in to_dict(recipe).items() if key not in ("info", "output", "prior_output")}
    info = {**recipe.info, **facts, "recipe": settings, "git_commit": git_commit()}
    path = Path(recipe.output)
    shared = {"shared_vocoder": recipe.checkpoint, "shared_autoencoder": recipe.checkpoint}
    save(path, model, None, info, half=True, eight_bit=True, **shared)
    path.with_suffix(".sha256").write_text(f"{hash_file(path)}  {path.name}\n")
    print(json.dumps(facts))
    print(f"{path}: {path.stat().st_size} bytes, sha256 {load(path).sha256}")
    belongs = {**info, "checkpoint_sha256": hash_file(path)}
    print(release_module(Path(recipe.prior_output), PART, prior, belongs, eight_bit=True))


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
