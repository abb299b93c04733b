"""Describe voices from random groups of crops of each speaker of a prepared cache.

python recipes/generator/describe.py recipes/generator/conf/base.yaml
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from vcae.audio.f0 import HOP_LENGTH, log_f0_statistics
from vcae.audio.frames import active_frames
from vcae.audio.mel import LogMel
from vcae.checkpoint import load, write_tensors
from vcae.config import load_config
from vcae.errors import CheckpointError, VcaeError
from vcae.model.autoencoder import Autoencoder
from vcae.training.config import GeneratorRecipe
from vcae.training.data import SpeechCache
from vcae.voice.matching import band_quantiles

# Random groups have 2 to this many crops.
GROUP_SIZE = 5


def crops(
    cache: SpeechCache, speaker: int, recipe: GeneratorRecipe, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut crops of a speaker's recordings, several from long ones: sound (n, samples) and F0 (n, frames)."""
    n_hops = round(recipe.crop_s * 62.5)
    utterances = cache.by_speaker[speaker]
    wavs, f0s = [], []
    for n in range(recipe.n_crops):
        one = utterances[n % len(utterances)] if n < len(utterances) else utterances[int(rng.integers(len(utterances)))]
        start = int(rng.integers(0, max(one.n_samples // HOP_LENGTH - n_hops, 0) + 1))
        wav, f0 = cache.crop(one, start, n_hops)
        wavs.append(wav)
        f0s.append(f0)
    return torch.from_numpy(np.stack(wavs)), torch.from_numpy(np.stack(f0s))


@torch.inference_mode()
def describe(
    autoencoder: Autoencoder,
    log_mel: LogMel,
    wavs: torch.Tensor,
    f0s: torch.Tensor,
    recipe: GeneratorRecipe,
    rng: np.random.Generator,
) -> list[tuple[torch.Tensor, ...]]:
    """Compute voice features of random groups of a speaker's crops, as `vcae.voice.voice.describe_voice` does."""
    mels = log_mel(wavs)
    f0s = f0s[:, : mels.shape[-1]]
    seconds = active_frames(mels).sum(dim=(1, 2))
    embeddings = autoencoder.encode_speaker(mels) * seconds[:, None]
    found = []
    for _ in range(recipe.n_groups):
        chosen = rng.permutation(len(wavs))[: int(rng.integers(1, GROUP_SIZE + 1)) + 1].tolist()
        median, spread = log_f0_statistics(f0s[chosen].flatten())
        unvoiced, voiced = band_quantiles([mels[i : i + 1] for i in chosen], [f0s[i : i + 1] for i in chosen])
        if unvoiced is None or voiced is None or not np.isfinite(median + spread):
            continue
        embedding = torch.nn.functional.normalize(embeddings[chosen].sum(0), dim=0)
        found.append((embedding, torch.tensor([median, spread]), torch.stack([unvoiced, voiced]).half()))
    return found


def run(recipe: GeneratorRecipe) -> None:
    """Compute voice features of every speaker of the recipe's cache and write them."""
    cache, model = SpeechCache(recipe.data), load(recipe.checkpoint)
    if model.autoencoder is None:
        raise CheckpointError(f"{recipe.checkpoint} has no autoencoder; give default")
    log_mel, rows, started = LogMel(model.autoencoder.config.mel), [], time.monotonic()
    for speaker in range(len(cache.speakers)):
        rng = np.random.default_rng([recipe.seed, speaker])
        found = describe(model.autoencoder, log_mel, *crops(cache, speaker, recipe, rng), recipe, rng)
        rows += [(torch.tensor(speaker), *row) for row in found]
        if speaker % 100 == 0:
            print(f"{speaker} of {len(cache.speakers)} speakers, {time.monotonic() - started:.0f} s", flush=True)
    names = ("speaker", "embedding", "pitch", "quantiles")
    tensors = {name: torch.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    path = Path(recipe.output_dir) / "described.safetensors"
    write_tensors(path, tensors, {"speakers": "\n".join(cache.speakers), "sha256": model.sha256})
    print(f"{len(rows)} groups of {len(cache.speakers)} speakers in {path}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    try:
        run(load_config(GeneratorRecipe, sys.argv[1], sys.argv[2:]))
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
