"""Align transcribed speech, and write its phones with their durations, F0 and content latents.

python recipes/say/prepare.py recipes/say/conf/prepare.yaml manifest=DATA/manifest.csv

The sound and its F0 come from the cache of recipes/prepare/cache.py; phones and pauses are aligned by pocketsphinx, and their stress is that of
the CMU Pronouncing Dictionary. Recordings that cannot be aligned are left out. A second run goes on where the first stopped.
"""

import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from settings import PrepareRecipe
from stresses import read_stresses, symbols_of

from vcae.audio.f0 import HOP_LENGTH, SAMPLE_RATE
from vcae.config import load_config
from vcae.engine.engine import Engine
from vcae.errors import DataError, VcaeError
from vcae.evaluation.alignment import align
from vcae.training.acoustic import Spoken, write_spoken
from vcae.training.data import SpeechCache


def transcripts(manifest: str) -> dict[tuple[str, str], str]:
    """Return the transcripts of a manifest by speaker (with its corpus) and name of the file.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with open(manifest, encoding="utf-8", newline="") as opened:
            rows = [row for row in csv.DictReader(opened) if row["transcript"]]
            return {(f"{row['corpus']}/{row['speaker']}", Path(row["path"]).name): row["transcript"] for row in rows}
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{manifest} cannot be read ({error!r}); path, speaker, corpus and transcript are needed") from error


@torch.inference_mode()
def read_speaker(
    recipe: PrepareRecipe, engine: Engine, speaker: str, texts: Mapping[tuple[str, str], str], stresses: Mapping[str, list[str]]
) -> Iterator[Spoken]:
    """Yield the recordings of a speaker that can be aligned."""
    cache = SpeechCache(recipe.cache)
    if speaker not in cache.speakers:
        raise DataError(f"the cache {recipe.cache} has no speaker {speaker}; prepare it with the same manifest")
    names = cache.names(speaker)
    for utterance, name in track(list(zip(cache.by_speaker[cache.speakers.index(speaker)], names, strict=True)), speaker):
        text = texts.get((speaker, name))
        if text is None:
            continue
        wav, f0 = cache.crop(utterance, 0, utterance.n_samples // HOP_LENGTH)
        try:
            found = align(wav, text)
        except DataError:
            continue
        symbols = symbols_of(found, stresses, len(wav) / SAMPLE_RATE)
        latent = engine.autoencoder.encode_latent(engine.log_mel(torch.from_numpy(wav)[None]))
        yield Spoken(speaker, text, *symbols, torch.from_numpy(np.asarray(f0, np.float32)), latent[0].T.half())


def main() -> None:
    recipe = load_config(PrepareRecipe, sys.argv[1], sys.argv[2:])
    texts, stresses, engine = transcripts(recipe.manifest), read_stresses(), Engine(recipe.checkpoint)
    folder = Path(recipe.spoken)
    folder.mkdir(parents=True, exist_ok=True)
    for speaker in recipe.speakers:
        path = folder / f"{speaker.replace('/', '-')}.safetensors"
        if not path.exists():
            found = list(read_speaker(recipe, engine, speaker, texts, stresses))
            if not found:
                raise DataError(f"no recording of {speaker} could be aligned; check its transcripts in {recipe.manifest}")
            write_spoken(path, found)
            seconds = sum(float(spoken.durations.sum()) for spoken in found)
            Console(stderr=True).print(f"{path}: {len(found)} recordings, {seconds / 60:.0f} minutes")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
