"""Write the content latents of transcribed speech.

python recipes/transcribe/prepare.py recipes/transcribe/conf/base.yaml manifest=DATA/manifest.csv

With `split=dev latents=cache/transcribed-dev.safetensors` those of the speakers for the test.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from vcae.audio.io import SoundReader
from vcae.audio.sections import SectionRunner
from vcae.config import load_config
from vcae.engine.engine import Engine
from vcae.engine.listening import analyse_sections
from vcae.errors import DataError, VcaeError
from vcae.training.config import TranscriberRecipe
from vcae.training.transcriber import Reading, write_readings

MIN_S = 0.5


def transcribed(manifest: str, split: str) -> list[tuple[Path, str, str]]:
    """Return path, speaker (with its corpus) and transcript of each transcribed recording of a split.

    Raises:
        DataError: If the manifest cannot be read, or has none.
    """
    try:
        with open(manifest, encoding="utf-8", newline="") as opened:
            rows = [row for row in csv.DictReader(opened) if row.get("transcript") and row["split"] == split]
            folder = Path(manifest).parent
            found = [(folder / row["path"], f"{row['corpus']}/{row['speaker']}", row["transcript"]) for row in rows]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{manifest} cannot be read ({error!r}); path, speaker, corpus, split and transcript are needed"
        ) from error
    if not found:
        raise DataError(
            f"{manifest} has no transcripts of the split {split!r}; fill its column transcript, or choose another split"
        )
    return found


@torch.inference_mode()
def read_latents(recipe: TranscriberRecipe, console: Console) -> Iterator[Reading]:
    """Yield the recordings; those that cannot be used are named and left out."""
    engine = Engine(recipe.checkpoint)
    for path, speaker, text in track(transcribed(recipe.manifest, recipe.split), description="latents", console=console):
        try:
            with SoundReader(str(path)) as source:
                heard, _ = analyse_sections(
                    engine, source, MIN_S, lambda n: SectionRunner(n, False, engine.device), with_f0=False
                )
        except VcaeError as error:
            console.print(f"left out: {error}", soft_wrap=True)
            continue
        latent = engine.autoencoder.encode_latent(heard.mel.read(0, heard.mel.n))
        yield Reading(speaker, text, latent[0].T.half().cpu())


def main() -> None:
    recipe = load_config(TranscriberRecipe, sys.argv[1], sys.argv[2:])
    readings = list(read_latents(recipe, Console(stderr=True)))
    if not readings:
        raise DataError(f"no recording of {recipe.manifest} could be used; the lines above say why")
    Path(recipe.latents).parent.mkdir(parents=True, exist_ok=True)
    write_readings(recipe.latents, readings)
    print(f"{recipe.latents}: {len(readings)} recordings of {len({r.speaker for r in readings})} speakers")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
