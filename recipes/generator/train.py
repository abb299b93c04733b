"""Learn the prior of voices from the features that describe.py wrote, and save it with recordings for voice samples.

python recipes/generator/train.py recipes/generator/conf/base.yaml
"""

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from vcae.audio.mel import LogMel
from vcae.checkpoint import load, read_tensors
from vcae.config import load_config
from vcae.errors import CheckpointError, VcaeError
from vcae.model.weights import hash_weights
from vcae.model_file import find, read_header
from vcae.training.config import GeneratorRecipe
from vcae.training.data import SpeechCache
from vcae.training.voices import WhitenedVoices, fit_voice_prior, likelihoods, whiten_voices
from vcae.voice.space import VoiceSpace, save_priors

# Speakers of the recordings for voice samples.
BANK_SPEAKERS = 2


def read_voices(recipe: GeneratorRecipe, path: Path) -> tuple[WhitenedVoices, torch.Tensor, list[float]]:
    """Return whitened voices and, for speakers at the original speed, their mean embeddings and the range of median log-F0."""
    tensors, names = read_tensors(path)[0], read_header(path)["speakers"].split("\n")
    people = sorted({name.split("@")[0] for name in names})
    number = torch.tensor([people.index(name.split("@")[0]) for name in names])
    speaker = tensors["speaker"]
    held = (number % recipe.hold_out_every == 0)[speaker]
    sums = torch.zeros(len(names), tensors["embedding"].shape[1]).index_add(0, speaker, tensors["embedding"])
    real = torch.tensor(["@" not in name for name in names]) & (speaker.bincount(minlength=len(names)) > 0)
    known = torch.nn.functional.normalize(sums[real], dim=-1)
    medians = (
        torch.zeros(len(names)).index_add(0, speaker, tensors["pitch"][:, 0].float())[real]
        / speaker.bincount(minlength=len(names))[real]
    )
    parts = (tensors["embedding"], tensors["pitch"], tensors["quantiles"])
    return whiten_voices(*parts, speaker, held, recipe.model.quantile_dim), known, [float(medians.min()), float(medians.max())]


def bank(recipe: GeneratorRecipe, log_mel: LogMel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mel and F0 of the beginnings of utterances by speakers spread over the range of F0."""
    cache, found = SpeechCache(recipe.data), []
    for name, utterances in zip(cache.speakers, cache.by_speaker, strict=True):
        long = [u for u in utterances if u.n_frames > recipe.bank_frames and "@" not in name and recipe.bank_corpus in name]
        if long:
            wav, f0 = cache.crop(long[0], 0, recipe.bank_frames)
            found.append((float(np.median(f0[f0 > 0])) if (f0 > 0).any() else 0.0, wav, f0[:-1]))
    found.sort(key=lambda item: item[0])
    at = [(2 * n + 1) * len(found) // (2 * BANK_SPEAKERS) for n in range(BANK_SPEAKERS)]
    mels = [log_mel(torch.from_numpy(found[i][1])[None])[..., : recipe.bank_frames] for i in at]
    return torch.cat(mels, dim=2), torch.from_numpy(np.concatenate([found[i][2] for i in at]))[None]


def run(recipe: GeneratorRecipe) -> None:
    """Train the prior, print the likelihoods of held-out speakers, and save it."""
    folder, started = Path(recipe.output_dir), time.monotonic()
    voices, known, medians = read_voices(recipe, folder / "described.safetensors")
    prior = fit_voice_prior(voices, recipe, print)
    nats = likelihoods(voices, prior)
    print(json.dumps({"nats_a_voice": nats, "held_out_voices": int(voices.held.sum()), "features": voices.features.shape[1]}))
    base = load(recipe.checkpoint)
    if base.autoencoder is None:
        raise CheckpointError(f"{recipe.checkpoint} has no autoencoder; give default")
    space = VoiceSpace(**voices.maps)
    speaker_sha256 = hash_weights(base.autoencoder.the_speaker_encoder())
    facts = {"speaker_sha256": speaker_sha256, "limit": recipe.limit, "directions": recipe.directions, "medians": medians}
    facts |= {"info": dict(recipe.info), "nats_a_voice": nats}
    heard = bank(recipe, LogMel(base.autoencoder.config.mel))
    save_priors(Path(recipe.output), prior, space, known, heard, facts)
    digest = hashlib.sha256(find(recipe.output).read_bytes()).hexdigest()
    Path(recipe.output).with_suffix(".sha256").write_text(f"{digest}  {Path(recipe.output).name}\n", encoding="utf-8")
    print(f"wrote {recipe.output}, {Path(recipe.output).stat().st_size} bytes, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    try:
        run(load_config(GeneratorRecipe, sys.argv[1], sys.argv[2:]))
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
