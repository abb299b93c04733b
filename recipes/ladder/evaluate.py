"""Measure every rung and principal components of the same size, and draw the picture.

python recipes/ladder/evaluate.py recipes/ladder/conf/base.yaml manifest=DATA/manifest.csv [--no-judge]
"""

import argparse
import csv
import json
import random
import sys
from pathlib import Path

import numpy as np
from measure import Copy, decode_draw, decode_mean, fit_components, rate, rms_db, squared_errors, training_mels
from picture import draw
from rungs import rungs
from settings import LadderRecipe

import vcae
from vcae import checkpoint
from vcae.audio.io import read_sound, write_sound
from vcae.config import load_config
from vcae.engine.engine import DECODED_CORRECTIONS
from vcae.engine.listening import Analysis
from vcae.errors import DataError, VcaeError
from vcae.evaluation import tables as listed
from vcae.evaluation.run import judge_table
from vcae.tasks.copy import resynthesise

Row = dict[str, float | str]
JUDGES = ("pesq", "stoi", "distillmos")


def recordings(recipe: LadderRecipe, model: vcae.Model) -> tuple[list[Path], list[Analysis], list[int]]:
    """Return the paths and analyses of the split's recordings, and the indices of those that are synthesised."""
    with Path(recipe.manifest).open(newline="", encoding="utf-8") as opened:
        rows = [row for row in csv.DictReader(opened) if row["split"] == recipe.split]
    paths = [(Path(recipe.manifest).parent / row["path"]).resolve() for row in rows]
    sounds = [read_sound(path) for path in paths]
    long = [n for n, sound in enumerate(sounds) if sound.duration_s >= recipe.min_s]
    if len(long) < recipe.n_files:
        raise DataError(f"{recipe.manifest} has {len(long)} recordings of {recipe.min_s} s in {recipe.split!r}; ask for fewer")
    seen = [model.analyse(sound.wav, sound.sample_rate, sound.name) for sound in sounds]
    return paths, seen, random.Random(recipe.seed).sample(long, recipe.n_files)


def measure(recipe: LadderRecipe, seen: list[Analysis]) -> tuple[list[Row], dict[str, Copy]]:
    """Return a row of results for each code, and its copying function."""
    mels = [s.mel for s in seen]
    config = recipe.autoencoder.model
    components = fit_components(training_mels(recipe), config.content.stride)
    steps_a_second = config.mel.frame_rate / config.content.stride
    rows: list[Row] = []
    copies: dict[str, Copy] = {"vocoder": lambda mel: mel}
    for name, rung in rungs(recipe).items():
        path = Path(recipe.autoencoder.train.output_dir) / name / "last.safetensors"
        model = checkpoint.load(path).autoencoder
        assert model is not None
        dim = rung.model.content.latent_dim
        own = squared_errors(decode_mean(model), mels)
        row: Row = {"rung": name, "dim": dim, "numbers_s": dim * steps_a_second, "mel_db": rms_db(own)}
        copies[f"ae-{name}"] = decode_mean(model)
        if rung.model.content.variational:
            drawn = squared_errors(decode_draw(model, recipe.seed), mels)
            row |= {"bits_s": rate(model, mels), "drawn_mel_db": rms_db(drawn)}
        else:
            copies[f"pca-{name}"] = components.copy(dim)
            linear = squared_errors(copies[f"pca-{name}"], mels)
            better = np.mean(own[:, 0] < linear[:, 0])
            row |= {"pca_mel_db": rms_db(linear), "better_than_pca": float(better)}
        rows.append(row)
        print(", ".join(f"{key} {value if isinstance(value, str) else format(value, '.4g')}" for key, value in row.items()))
    return rows, copies


def judge(args: argparse.Namespace, out: Path, copies: list[listed.Copy]) -> dict[str, dict[str, float]]:
    """Write the table of copies, judge them, and return the means by label; empty if PESQ is missing."""
    listed.write_table(out / "pairs.csv", copies)
    if args.no_judge:
        print(f"not judged; judge the copies: vcae evaluate {out / 'pairs.csv'}")
        return {}
    report = judge_table(out / "pairs.csv", JUDGES)
    print("\n".join([*report.missing, *report.problems]))
    means = report.means()
    return means if all("pesq_wb" in found for found in means.values()) else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--no-judge", action="store_true", help="only errors of the mel")
    args = parser.parse_args()
    recipe = load_config(LadderRecipe, args.config, args.settings)
    out, model = Path(recipe.output_dir), vcae.load(device="cpu")
    out.mkdir(parents=True, exist_ok=True)
    paths, seen, chosen = recordings(recipe, model)
    rows, copies = measure(recipe, seen)
    pairs = []
    for label, copy in copies.items():
        n_corrections = None if label == "vocoder" else DECODED_CORRECTIONS
        for n in chosen:
            made = resynthesise(model, seen[n], copy(seen[n].mel), label, n_corrections=n_corrections)
            write_sound(out / f"{label}_{n:03d}.wav", made, "copied by vcae", force=True)
            pairs.append(listed.Copy(out / f"{label}_{n:03d}.wav", paths[n], label=label))
    scores = judge(args, out, pairs)
    (out / "results.json").write_text(json.dumps({"rows": rows, "scores": scores}, indent=1) + "\n")
    draw(rows, scores, out / "ladder.png")
    print(f"wrote {out}/results.json and {out}/ladder.png")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
