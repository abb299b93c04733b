"""Make the bank of other sounds for outlier exposure in `vcae anomaly`: features of speech and of synthetic sounds.

python recipes/anomaly/others.py recipes/anomaly/conf/others.yaml speech=SPEECH.csv
"""

import random
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from settings import OthersRecipe
from trials import read_manifest

import vcae
from vcae.anomaly.config import AnomalyConfig
from vcae.anomaly.exposure import KINDS
from vcae.anomaly.features import EncoderReader, MelReader
from vcae.anomaly.members import statistics_of
from vcae.anomaly.synthetic import SAMPLE_RATE, synthesize
from vcae.audio.io import read_sound, resample
from vcae.checkpoint import write_tensors
from vcae.config import load_config, to_dict
from vcae.errors import ConfigError, VcaeError
from vcae.files import hash_file

# Clips of one speaker at most.
PER_SPEAKER = 2


def speech_paths(recipe: OthersRecipe) -> list[str]:
    """Return the paths of recordings of sufficient length, a few per speaker, with speakers in turn.

    Raises:
        ConfigError: If there is no manifest, or it has too few.
    """
    if recipe.n_speech == 0:
        return []
    if recipe.speech is None:
        raise ConfigError("speech is not set; set it to the path of a manifest, or n_speech to 0")
    by_speaker: dict[str, list[str]] = defaultdict(list)
    for row in read_manifest(recipe.speech, ("path", "speaker", "split", "duration_s")):
        if row["split"] == recipe.speech_split and float(row["duration_s"]) >= recipe.seconds:
            by_speaker[row["speaker"]].append(row["path"])
    rng = random.Random(recipe.seed)
    speakers = rng.sample(sorted(by_speaker), len(by_speaker))
    drawn = {s: rng.sample(by_speaker[s], min(PER_SPEAKER, len(by_speaker[s]))) for s in speakers}
    found = [drawn[s][k] for k in range(PER_SPEAKER) for s in speakers if k < len(drawn[s])][: recipe.n_speech]
    if len(found) < recipe.n_speech:
        raise ConfigError(f"{recipe.speech} has {len(found)} such recordings, and n_speech is {recipe.n_speech}; lower it")
    return found


def sounds(recipe: OthersRecipe) -> list[np.ndarray]:
    """Return the sounds (N,) at 16 kHz: speech, then synthetic ones."""
    n = round(recipe.seconds * SAMPLE_RATE)
    found = []
    for path in track(speech_paths(recipe), "speech", console=Console(stderr=True)):
        sound = read_sound(path)
        found.append(np.ascontiguousarray(resample(sound.wav, sound.sample_rate, SAMPLE_RATE)[:n]))
    seeds = range(recipe.seed, recipe.seed + recipe.n_synthetic)
    return found + [synthesize(k, recipe.seconds) for k in track(seeds, "synthetic", console=Console(stderr=True))]


def make_bank(recipe: OthersRecipe) -> dict[str, torch.Tensor]:
    """Return the features (n, D) of the sounds by kind, in float16."""
    reader, encoder = MelReader(AnomalyConfig()), EncoderReader.shipped()
    rows: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for wav in track(sounds(recipe), "features", console=Console(stderr=True)):
        mel = reader(wav)
        for kind in KINDS:
            rows[kind].append(statistics_of(kind, wav, mel, encoder))
    return {kind: torch.from_numpy(np.stack(values)).half() for kind, values in rows.items()}


def main() -> None:
    recipe = load_config(OthersRecipe, sys.argv[1], sys.argv[2:])
    bank, path = make_bank(recipe), Path(recipe.output)
    info = {
        "author": "The vcae developers",
        "licence": "CC BY 4.0",
        "data": "LibriSpeech (Panayotov et al. 2015), speechocean762 (Zhang et al. 2021), CMU ARCTIC (Kominek and Black 2004), "
        "Kathleen (rhasspy, CC0); synthetic sounds",
        "recipe": {k: v for k, v in to_dict(recipe).items() if k not in ("speech", "output")},
        "version": vcae.__version__,
    }
    write_tensors(path, bank, {k: v if isinstance(v, str) else repr(v) for k, v in info.items()})
    digest = hash_file(path)
    path.with_suffix(".sha256").write_text(f"{digest}  {path.name}\n")
    print(f"wrote {path}: {len(bank[KINDS[0]])} sounds, {path.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
