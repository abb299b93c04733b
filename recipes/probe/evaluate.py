"""Measure the information on speakers, sentences, words and phones in features, compared with MFCC.

python recipes/probe/evaluate.py recipes/probe/conf/base.yaml manifest=DATA/manifest.csv
"""

import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from features import Steps, measure, speaker_vectors, step_features
from recordings import Recording, align_all, load, parallel, read_rows, train_rows
from settings import ProbeRecipe
from tasks import (
    WORD_PARTS,
    Table,
    by_speakers,
    few_shot,
    identification,
    matrix,
    sentences,
    verification,
    voices,
    word_splits,
    words,
)

import vcae
from vcae.config import load_config, to_dict
from vcae.errors import DataError, VcaeError

# Training recordings from which features are standardised.
N_SCALE = 150


def markdown(rows: Table) -> str:
    """Return rows, the first of them the head, as a table in markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def run(recipe: ProbeRecipe, say: Callable[[str], None]) -> dict[str, Table]:
    """Run the recipe's tasks, print the table of each when it is done, and write all of them to the output folder."""
    rows, output = read_rows(recipe), Path(recipe.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    dev = [row for row in rows if row["split"] == recipe.split]
    tested, train = load(recipe, dev), load(recipe, train_rows(recipe, rows))
    if len({r.speaker for r in tested}) < 2 or not train:
        raise DataError(
            f"{recipe.manifest} needs two speakers of the split {recipe.split!r} and some of {recipe.train_split!r}"
        )
    found: dict[str, Table] = {}

    def keep(name: str, table: Table) -> None:
        found[name] = table
        with (output / f"{name}.csv").open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows(table)
        say(f"\n{name}\n\n{markdown(table)}")

    speakers = [r.speaker for r in tested]
    if {"verification", "identification"} & set(recipe.tasks):
        systems = voices(recipe, tested, train)
        for name, task in (("verification", verification), ("identification", identification)):
            if name in recipe.tasks:
                keep(name, task(recipe, systems, speakers))
    if {"sentences", "words", "matrix"} & set(recipe.tasks):
        _content(recipe, rows, dev, tested, train, keep)
    facts = {"recipe": to_dict(recipe), "version": vcae.__version__, "tables": found}
    (output / "results.json").write_text(json.dumps(facts, indent=1) + "\n")
    return found


def _content(
    recipe: ProbeRecipe,
    rows: list[dict[str, str]],
    dev: list[dict[str, str]],
    tested: list[Recording],
    train: list[Recording],
    keep: Callable[[str, Table], None],
) -> None:
    encoders, scale = step_features(recipe), train[:: max(len(train) // N_SCALE, 1)]

    def features(recordings: list[Recording]) -> dict[str, Steps]:
        return {name: measure(name, encode, recordings, scale) for name, encode in encoders.items()}

    corpora = [row for row in rows if row["corpus"] in recipe.corpora]
    if "sentences" in recipe.tasks:
        for name, wanted in (
            ("sentences-unseen", parallel(dev, 10**6, recipe.seed)),
            ("sentences-seen", parallel(corpora, recipe.n_sentences, recipe.seed)),
        ):
            if wanted:
                recordings = load(recipe, wanted)
                items = sentences(recordings, features(recordings), recipe.sentence_s)
                keep(name, few_shot(recipe, items, by_speakers(items, (1, 2, 3))))
    if {"words", "matrix"} & set(recipe.tasks):
        examples = load(recipe, parallel(corpora, recipe.n_prompts, recipe.seed)) if "words" in recipe.tasks else []
        both = [*tested, *examples]
        aligned, steps = align_all(recipe, both), features(both)
        if "words" in recipe.tasks:
            items_of_words = words(recipe, both, aligned, steps, len(tested))
            if items_of_words is not None:
                keep("words", few_shot(recipe, items_of_words, word_splits(recipe, items_of_words), WORD_PARTS))
        if "matrix" in recipe.tasks:
            own = {name: Steps(name, s.values[: len(tested)]) for name, s in steps.items()}
            keep("matrix", matrix(recipe, tested, aligned[: len(tested)], own, speaker_vectors(recipe, tested)))


def main() -> None:
    recipe = load_config(ProbeRecipe, sys.argv[1], sys.argv[2:])
    start = time.perf_counter()
    run(recipe, lambda text: print(text, flush=True))
    print(f"\nwrote {recipe.output_dir}/results.json after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
