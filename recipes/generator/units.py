"""Count units of a prepared cache, and measure the bits per unit of another cache under the counts and under the prior of babble.

python recipes/generator/units.py recipes/generator/conf/base.yaml
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from vcae.audio.f0 import HOP_LENGTH
from vcae.audio.mel import LogMel
from vcae.checkpoint import load, write_tensors
from vcae.config import load_config
from vcae.errors import CheckpointError, VcaeError
from vcae.tasks.babble import babbler
from vcae.training.config import GeneratorRecipe
from vcae.training.data import SpeechCache
from vcae.training.units import bits_a_unit

# Total of pseudo-counts added to the successors of a unit, in proportion to the frequencies of units.
PSEUDO_COUNTS = 20.0


def pairs(units: torch.Tensor, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each unit except the last of an utterance (m,), and its successor (m,)."""
    within = torch.ones(len(units) - 1, dtype=torch.bool)
    within[ends[:-1] - 1] = False
    return units[:-1][within], units[1:][within]


def counted_bits(
    learned: torch.Tensor, ends: torch.Tensor, tested: torch.Tensor, tested_ends: torch.Tensor
) -> tuple[float, float]:
    """Return the bits per tested unit under add-one smoothed unigram counts, and under bigram counts that back off to them."""
    n = babbler().prior.config.n_units
    unigram = (torch.bincount(learned, minlength=n).double() + 1) / (len(learned) + n)
    before, after = pairs(learned, ends)
    counts = torch.bincount(before * n + after, minlength=n * n).double().view(n, n)
    bigram = (counts + PSEUDO_COUNTS * unigram) / (counts.sum(1, keepdim=True) + PSEUDO_COUNTS)
    first = tested[torch.cat([tested_ends.new_zeros(1), tested_ends[:-1]])]
    left, right = pairs(tested, tested_ends)
    bits = -torch.log2(bigram[left, right]).sum() - torch.log2(unigram[first]).sum()
    return float(-torch.log2(unigram[tested]).mean()), float(bits / len(tested))


@torch.inference_mode()
def run(recipe: GeneratorRecipe) -> None:
    """Write the units and the ends of utterances; print the bits per unit."""
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
            codes.append(loaded.autoencoder.encode_units(log_mel(torch.from_numpy(wav)[None]))[0, 0].short())
            if n % 500 == 0:
                print(f"{split}: {n} of {len(order)}, {time.monotonic() - started:.0f} s", flush=True)
        tensors[f"{split}.units"] = torch.cat(codes)
        tensors[f"{split}.ends"] = torch.tensor([len(c) for c in codes]).cumsum(0)
    write_tensors(Path(recipe.output_dir) / "units.safetensors", tensors, {"sha256": loaded.sha256})
    learned, tested = ((tensors[f"{split}.units"].long(), tensors[f"{split}.ends"]) for split in ("train", "held"))
    single, pair = counted_bits(*learned, *tested)
    ends = tested[1].tolist()
    pieces = torch.split(tested[0], [stop - start for start, stop in zip([0, *ends], ends, strict=False)])
    bits = {"unigram": single, "bigram": pair, "prior": bits_a_unit(babbler().prior, pieces)}
    print(json.dumps({"bits_a_unit": bits, "counted": len(learned[0]), "tested": len(tested[0])}))


if __name__ == "__main__":
    try:
        run(load_config(GeneratorRecipe, sys.argv[1], sys.argv[2:]))
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
