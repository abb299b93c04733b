"""Write the latents of the speech and the phones of the text.

python recipes/text/prepare.py recipes/text/conf/base.yaml manifest=DATA/manifest.csv
"""

import csv
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from settings import TextRecipe
from texts import collect_text

from vcae.audio.io import SoundReader
from vcae.audio.sections import SectionRunner
from vcae.config import load_config
from vcae.engine.engine import Engine
from vcae.engine.listening import analyse_sections
from vcae.errors import DataError, VcaeError
from vcae.training.decipher_data import Speech, write_speech, write_text

MIN_S = 0.5


def chosen_rows(recipe: TextRecipe) -> list[dict[str, str]]:
    """Return rows of the speech to learn from, of the speakers that are kept for the test, and of the split dev.

    Only those with a transcript, to score by.

    Raises:
        DataError: If the manifest cannot be read, or has none.
    """
    both = set(recipe.speech_corpora) & set(recipe.text_corpora)
    if both:
        names = ", ".join(sorted(both))
        raise DataError(f"{names} is in speech_corpora and in text_corpora; speech and text must have no speaker in common")
    try:
        with open(recipe.manifest, encoding="utf-8", newline="") as opened:
            rows = [row for row in csv.DictReader(opened) if row["transcript"]]
            dev = [row for row in rows if row["split"] == "dev"]
            held = [row for row in rows if speaker_of(row) in recipe.held_speakers]
            rest = [row for row in rows if row["corpus"] in recipe.speech_corpora and row not in held and row not in dev]
    except (OSError, KeyError) as error:
        needed = "path, speaker, corpus, split and transcript are needed"
        raise DataError(f"{recipe.manifest} cannot be read ({error!r}); {needed}") from error
    if not rest:
        wanted = ", ".join(recipe.speech_corpora)
        raise DataError(f"{recipe.manifest} has no transcribed recordings of {wanted}; choose other speech_corpora")
    chance = random.Random(0)
    sets = ((rest, recipe.n_recordings), (held, recipe.n_tests), (dev, recipe.n_tests))
    return [row for rows, n in sets for row in chance.sample(rows, min(n, len(rows)))]


def speaker_of(row: dict[str, str]) -> str:
    """Return the corpus and the speaker of a row."""
    return f"{row['corpus']}/{row['speaker']}"


@torch.inference_mode()
def read_latents(recipe: TextRecipe, console: Console) -> Iterator[Speech]:
    """Yield the recordings; those that cannot be used are named and left out."""
    engine, folder = Engine(recipe.checkpoint), Path(recipe.manifest).parent
    for row in track(chosen_rows(recipe), description="latents", console=console):
        try:
            with SoundReader(str(folder / row["path"])) as source:
                taken, _ = analyse_sections(
                    engine, source, MIN_S, lambda n: SectionRunner(n, False, engine.device), with_f0=False
                )
        except VcaeError as error:
            console.print(f"left out: {error}", soft_wrap=True)
            continue
        encoder = engine.autoencoder.content_encoder
        latent = engine.autoencoder.encode_latent(taken.mel.read(0, taken.mel.n))[0].T
        active = encoder.pool_weight(taken.active)[0, 0] >= 0.5
        yield Speech(row["path"], speaker_of(row), row["split"], row["transcript"], latent.half(), active)


def main() -> None:
    recipe = load_config(TextRecipe, sys.argv[1], sys.argv[2:])
    console = Console(stderr=True)
    for path in (recipe.speech, recipe.text):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    speech = list(read_latents(recipe, console))
    write_speech(recipe.speech, speech)
    text = collect_text(recipe.manifest, recipe.text_corpora, recipe.books, recipe.piece_phones)
    write_text(recipe.text, text)
    steps = sum(len(one.latent) for one in speech)
    print(f"{recipe.speech}: {len(speech)} recordings, {steps} steps; {recipe.text}: {sum(map(len, text.sequences))} phones")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
