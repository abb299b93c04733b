"""Learn all systems and measure them: `python recipes/text/measure.py recipes/text/conf/base.yaml manifest=DATA/manifest.csv`."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from settings import TextRecipe
from synthesis import score_speech
from systems import N_PHONES, Material, Reader, cipher, criticised, deciphered, oracle_key, paired, transcribed_phones
from texts import NUMBERS, read_dictionary

from vcae.config import load_config
from vcae.engine.engine import Engine
from vcae.errors import VcaeError
from vcae.evaluation.readability import collapse_phones, permuted_errors, word_share
from vcae.model.ngram import Ngram
from vcae.text.errors import error_rate
from vcae.training.decipher_data import Speech, Text, read_speech, read_text

# Systems without chance.
WITH_TRANSCRIPTS = ("paired", "oracle key")


class Table:
    """Scores of readers on recordings that none of them learned from.

    Args:
        material: Speech and text of the readers.
        tests: Recordings of each test set.
        held: Text that no reader learned from.
        words: Phones of the words that count.
    """

    def __init__(self, material: Material, tests: dict[str, list[Speech]], held: Text, words: Sequence[Sequence[int]]) -> None:
        self.material, self.words = material, words
        known = {name: [(one, transcribed_phones(one)) for one in chosen] for name, chosen in tests.items()}
        self.tests = {name: [(one, right) for one, right in pairs if right] for name, pairs in known.items()}
        self.ngram = Ngram([s[s > 0] for s in held.sequences], N_PHONES, material.recipe.held_order)

    def score(self, reader: Reader) -> dict[str, float]:
        """Return the scores of a reader."""
        found: dict[str, float] = {}
        rows = []
        for name, pairs in self.tests.items():
            read = [(right, collapse_phones(reader(one))) for one, right in pairs]
            permuted = permuted_errors(read, N_PHONES - 1, 10)
            found |= {f"errors_{name}": error_rate(read), f"permuted_{name}": float(np.mean(permuted))}
            found[f"permuted_least_{name}"] = min(permuted)
            found[f"length_{name}"] = sum(len(made) for _, made in read) / sum(len(right) for right, _ in read)
            rows += [made for _, made in read]
        return found | self._readability(rows)

    def truth(self) -> dict[str, float]:
        """Return the readability of the transcripts."""
        return self._readability([right for pairs in self.tests.values() for _, right in pairs])

    def _readability(self, rows: Sequence[Sequence[int]]) -> dict[str, float]:
        whole = [np.array(row) for row in rows if row]
        return {"bits": self.ngram.bits(whole) if whole else float("nan"), "words": word_share(rows, self.words)}


def remember(reader: Reader) -> Reader:
    """Return a reader that reads each recording once."""
    known: dict[str, np.ndarray] = {}

    def read(one: Speech) -> np.ndarray:
        if one.name not in known:
            known[one.name] = reader(one)
        return known[one.name]

    return read


def learn_all(material: Material, recipe: TextRecipe) -> Iterator[tuple[str, list[Reader]]]:
    """Yield each system with its readers, one for each seed."""
    single: dict[str, Callable[[int], Reader]] = {
        "paired": lambda _: paired(material),
        "oracle key": lambda _: oracle_key(material),
        "no critic": partial(cipher, material),
        "decipherment": partial(deciphered, material),
    }
    for name, learn in single.items():
        if name in recipe.systems:
            yield name, [remember(learn(seed)) for seed in (recipe.seeds[:1] if name in WITH_TRANSCRIPTS else recipe.seeds)]
    names = ("critic", "critic and REINFORCE")
    if set(names) & set(recipe.systems):
        for name, readers in zip(names, zip(*(criticised(material, seed) for seed in recipe.seeds), strict=True), strict=True):
            if name in recipe.systems:
                yield name, [remember(reader) for reader in readers]


def split(speech: Sequence[Speech], recipe: TextRecipe) -> tuple[list[Speech], dict[str, list[Speech]]]:
    """Return the recordings to learn from, and those of each test set."""
    dev = [one for one in speech if one.split == "dev"]
    others = [one for one in speech if one.split != "dev"]
    held = [one for one in others if one.speaker in recipe.held_speakers]
    train = [one for one in others if one.speaker not in recipe.held_speakers]
    tests = {"held": held[: recipe.n_tests], "dev": dev[: recipe.n_tests]}
    return train[: recipe.n_recordings], {name: chosen for name, chosen in tests.items() if chosen}


def main() -> None:
    recipe = load_config(TextRecipe, sys.argv[1], sys.argv[2:])
    text, said = read_text(recipe.text), read_dictionary()
    train, tests = split(read_speech(recipe.speech), recipe)
    # Every tenth piece of the text is kept to measure readability.
    learned = Text([s for n, s in enumerate(text.sequences) if n % 10], text.words)
    held = Text(text.sequences[::10], text.words)
    frequent = [word for word, n in text.words.items() if n >= recipe.word_count]
    material = Material(train, learned, recipe)
    table = Table(material, tests, held, [[NUMBERS[phone] for phone in said[word][0]] for word in frequent])
    rows: list[dict[str, object]] = [{"system": "transcripts", **table.truth()}]
    show(rows[0])
    engine, folder = Engine(recipe.checkpoint), Path(recipe.manifest).parent
    for name, readers in learn_all(material, recipe):
        likelihoods = [material.likelihood(reader) for reader in readers]
        best = int(np.argmax(likelihoods))
        unit_errors, cosine = score_speech(engine, material, readers[best], [*tests.values()][-1][: recipe.n_spoken], folder)
        for n, reader in enumerate(readers):
            row = {
                "system": name,
                "seed": recipe.seeds[n],
                "chosen": n == best,
                "likelihood": likelihoods[n],
                **table.score(reader),
            }
            rows.append(row | ({"unit_errors": unit_errors, "cosine": cosine} if n == best else {}))
            show(rows[-1])
    output = Path(recipe.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def show(row: dict[str, object]) -> None:
    """Print a row of the table."""
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}), flush=True)


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
