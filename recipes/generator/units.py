"""Write the units of a prepared cache's utterances at their own speed, and of a second cache's, for the prior of babble.

python recipes/generator/units.py recipes/generator/conf/base.yaml
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from vcae.audio.f0 import HOP_LENGTH
from vcae.audio.mel import LogMel
from vcae.checkpoint import load, write_tensors
from vcae.config import GeneratorRecipe, load_config
from vcae.errors import CheckpointError, VcaeError
from vcae.training.data import SpeechCache


@torch.inference_mode()
def run(recipe: GeneratorRecipe) -> None:
    """Write two rows of numbers: the units, and where each utterance ends."""
    loaded = load(recipe.discrete)
    if loaded.autoencoder is None:
        raise CheckpointError(f"{recipe.discrete} has no autoencoder; give vq")
    log_mel, tensors, started = LogMel(loaded.autoencoder.config.mel), {}, time.monotonic()
    for split, folder in (("train", recipe.data), ("held", recipe.held_data)):
        cache, codes = SpeechCache(folder), []
        chosen = [u for u in cache.utterances if "@" not in cache.speakers[u.speaker]]
        order = np.random.default_rng(recipe.seed).permutation(len(chosen))[: recipe.n_utterances]
        for n, at in enumerate(order):
            wav, _ = cache.crop(chosen[at], 0, chosen[at].n_samples // HOP_LENGTH)
            codes.append(loaded.autoencoder.encode_units(log_mel(torch.from_numpy(wav)[None]))[0, :2].short())
            if n % 500 == 0:
                print(f"{split}: {n} of {len(order)}, {time.monotonic() - started:.0f} s", flush=True)
        tensors[f"{split}.units"] = torch.cat(codes, dim=1)
        tensors[f"{split}.ends"] = torch.tensor([c.shape[1] for c in codes]).cumsum(0)
    write_tensors(Path(recipe.output_dir) / "units.safetensors", tensors, {"sha256": loaded.sha256})


if __name__ == "__main__":
    try:
        run(load_config(GeneratorRecipe, sys.argv[1], sys.argv[2:]))
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
