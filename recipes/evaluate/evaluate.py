"""Convert pairs of unseen speakers with vcae and classical peers, and judge all of them in one report.

python recipes/evaluate/evaluate.py recipes/evaluate/conf/base.yaml manifest=DATA/manifest.csv
"""

import sys
from pathlib import Path

import numpy as np
from rich.progress import Progress, track
from settings import EvaluateRecipe
from world import convert as convert_by_world

import vcae
from vcae.audio.io import Sound, read_sound, write_sound
from vcae.config import load_config
from vcae.errors import ConfigError, VcaeError
from vcae.evaluation.page import write_page
from vcae.evaluation.pairs import Pair, choose_pairs, read_references
from vcae.evaluation.report import table
from vcae.evaluation.run import judge_table
from vcae.evaluation.scores import load_wav
from vcae.evaluation.tables import Conversion, write_table
from vcae.options import ConvertOptions
from vcae.tasks.convert import convert
from vcae.voice.voice import voice_from_sounds

SYSTEMS = ("vcae", "world-statistics", "world-nearest", "target")


def make(system: str, recipe: EvaluateRecipe, model: vcae.Model, pair: Pair) -> np.ndarray:
    """Return a pair's conversion (N,) at 16 kHz by a system; the system `target` is real speech of the target, an upper bound of the scores."""
    root = Path(recipe.manifest).parent
    references = read_references(root, pair, recipe.reference_s)
    if system == "vcae":
        options = ConvertOptions(rate=model.sample_rate)
        return convert(model, read_sound(root / pair.source["path"]), voice_from_sounds(model, references), options).wav.numpy()
    if system == "target":
        return load_wav(root / pair.references[0]["path"])
    clips = [r.wav for r in references if r.sample_rate == model.sample_rate]
    if len(clips) < len(references):
        raise ConfigError("the WORLD peers read 16 kHz only; convert the manifest's files, or leave these systems out")
    return convert_by_world(load_wav(root / pair.source["path"]), clips, nearest=system == "world-nearest")


def main() -> None:
    recipe = load_config(EvaluateRecipe, sys.argv[1], sys.argv[2:])
    unknown = sorted(set(recipe.systems) - set(SYSTEMS))
    if unknown:
        raise ConfigError(f"systems has {unknown}; allowed are {', '.join(SYSTEMS)}")
    model = vcae.load(recipe.checkpoint)
    root, output = Path(recipe.manifest).parent, Path(recipe.output_dir)
    pairs = choose_pairs(Path(recipe.manifest), recipe.split, recipe.n_pairs, recipe.seed, recipe.min_s, recipe.reference_s)
    conversions = []
    for system in recipe.systems:
        for n, pair in enumerate(track(pairs, description=system)):
            path = output / "converted" / f"{n:03d}_{system}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            comment = "recorded" if system == "target" else f"converted by {system}"
            write_sound(path, Sound(make(system, recipe, model, pair), model.sample_rate), comment, force=True)
            source, judged = (root / row["path"] for row in (pair.source, pair.judged))
            conversions.append(Conversion(path, source, judged, pair.source.get("transcript", ""), system))
    write_table(output / "pairs.csv", conversions)
    if not recipe.judge:
        print(f"not judged; judge the conversions: vcae evaluate {output / 'pairs.csv'}")
        return
    with Progress() as bar:
        task = bar.add_task("judging", total=None)
        report = judge_table(output / "pairs.csv", progress=lambda done, total: bar.update(task, completed=done, total=total))
    facts = {
        "checkpoint": model.checkpoint.path.stem,
        "sha256": model.checkpoint.sha256,
        "pairs": len(pairs),
        "seed": recipe.seed,
    }
    page = write_page(report, output, {**facts, "reference_s": recipe.reference_s or "one clip"})
    print("\n".join([*report.missing, *report.problems]))
    rows = table(report)
    print("\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]))
    print(f"wrote {page}")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
