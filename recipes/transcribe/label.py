"""Read the recordings that have no transcript: those for training with Moonshine, those of some readers with Whisper, for the test.

python recipes/transcribe/label.py recipes/transcribe/conf/label.yaml manifest=DATA/manifest.csv

Writes a copy of the manifest with the column transcript filled, the paths as whole paths, and the split `held` for the readers of the test.
What is read is kept beside it line by line, so a second run goes on where the first stopped. Whisper judges, so nothing is trained on its texts.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from settings import LabelRecipe

from vcae.audio.io import read_sound, resample
from vcae.config import load_config
from vcae.errors import DataError, VcaeError
from vcae.evaluation.recognisers import Moonshine, Recogniser, Whisper

SAMPLE_RATE = 16000
# A text with fewer or more characters in a second is not what was read.
CHARACTERS_PER_S = (5.0, 25.0)


def read_manifest(path: str) -> list[dict[str, str]]:
    """Return the rows of a manifest.

    Raises:
        DataError: If it cannot be read, or lacks a column.
    """
    try:
        with open(path, encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); give the manifest's path") from error
    lacking = {"path", "speaker", "corpus", "split", "duration_s", "transcript"} - set(rows[0] if rows else ())
    if lacking:
        raise DataError(f"{path} lacks {', '.join(sorted(lacking))}; add them")
    return rows


def label(rows: list[dict[str, str]], folder: Path, kept: Path, reader: Recogniser) -> dict[str, str]:
    """Return what a recogniser reads in each recording, by its path in the manifest; new texts are appended to `kept`."""
    known = dict(json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()) if kept.exists() else {}
    missing = [row["path"] for row in rows if row["path"] not in known]
    if missing:
        read = reader.open()
        with kept.open("a", encoding="utf-8") as lines:
            for path in track(missing, description=reader.name, console=Console(stderr=True)):
                sound = read_sound(folder / path)
                known[path] = read(resample(np.asarray(sound.wav), sound.sample_rate, SAMPLE_RATE))
                lines.write(json.dumps([path, known[path]], ensure_ascii=False) + "\n")
                lines.flush()
    return known


def main() -> None:
    recipe = load_config(LabelRecipe, sys.argv[1], sys.argv[2:])
    rows, output = read_manifest(recipe.manifest), Path(recipe.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(recipe.manifest).resolve().parent
    kept, wanted = [], []
    for row in rows:
        if row["transcript"]:
            kept.append(row)
        elif row["split"] == "train" and row["corpus"] == recipe.corpus:
            wanted.append(row)
    held = set(sorted({row["speaker"] for row in wanted})[:: recipe.test_every])
    for reader, split in ((Moonshine(), "train"), (Whisper(), "held")):
        part = [row for row in wanted if (row["speaker"] in held) == (split == "held")]
        if split == "train" and recipe.n_train:
            part = part[: recipe.n_train]
        texts = label(part, folder, output.with_suffix(f".{reader.name}.jsonl"), reader)
        for row in part:
            text = texts[row["path"]]
            if CHARACTERS_PER_S[0] <= len(text) / float(row["duration_s"]) <= CHARACTERS_PER_S[1]:
                kept.append({**row, "transcript": text, "split": split})
    with output.open("w", encoding="utf-8", newline="") as opened:
        table = csv.DictWriter(opened, list(rows[0]))
        table.writeheader()
        table.writerows({**row, "path": str(folder / row["path"])} for row in kept)
    print(f"{output}: {len(kept)} recordings with a transcript, some read here, {len(held)} of these for the test")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
