"""Make the lexicon and its language model: `python recipes/transcribe/lexicon.py recipes/transcribe/conf/lexicon.yaml`.

The words are the most frequent of pocketsphinx's language model that its pronouncing dictionary has; the pairs of words are those
of the model that change a probability most, as often as they come.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
from settings import LexiconRecipe
from sphinx_model import PairModel, read_pair_model
from words import read_dictionary

from vcae.config import load_config
from vcae.errors import VcaeError
from vcae.files import hash_file
from vcae.model.transcriber import PHONES
from vcae.model_file import FORMAT
from vcae.text.lexicon import PART, load_lexicon, save_lexicon

START = "<s>"
WORD = re.compile(r"'?[a-z][a-z']*")
INFO = {
    "name": "words",
    "author": "The vcae developers",
    "license": "see the model card transcriber.md",
    "training_data": "CMU Pronouncing Dictionary and CMU's language model of American English, both as pocketsphinx ships them (BSD)",
}


def choose_words(model: PairModel, said: dict[str, list[tuple[str, ...]]], n_words: int) -> np.ndarray:
    """Return the numbers of the most frequent words that have a pronunciation, in the order of the alphabet."""
    order = np.argsort(-model.unigrams, kind="stable")
    known = [n for n in order.tolist() if model.words[n] in said and WORD.fullmatch(model.words[n])]
    return np.array(sorted(known[:n_words], key=lambda n: model.words[n]))


def choose_pairs(
    model: PairModel, number: np.ndarray, n_pairs: int
) -> tuple[dict[tuple[int, int], float], np.ndarray, np.ndarray]:
    """Return the log-probabilities of pairs, of single words, and what other words have after each word and, last, after the start.

    Args:
        model: The whole model.
        number: New number of each of its words: -1 for the start, -2 for those that are left out.
        n_pairs: Number of pairs to keep.
    """
    n_words = int(number.max()) + 1
    unigrams, backoffs = np.empty(n_words), np.empty(n_words + 1)
    unigrams[number[number >= 0]] = model.unigrams[number >= 0]
    backoffs[number[number >= -1]] = model.backoffs[number >= -1]
    first, second = number[model.firsts], number[model.seconds]
    usable = (first >= -1) & (second >= 0)
    first, second, likely = first[usable], second[usable], model.pairs[usable]
    # The start of a sentence is as frequent as its end.
    often = np.append(np.exp(unigrams), np.exp(model.unigrams[model.words.index("</s>")]))
    worth = often[first] * np.exp(likely) * (likely - backoffs[first] - unigrams[second])
    kept = np.argsort(-worth, kind="stable")[:n_pairs]
    first, second, likely = first[kept], second[kept], likely[kept]
    left = 1 - np.bincount(first + 1, np.exp(likely), n_words + 1)
    free = np.exp(unigrams).sum() - np.bincount(first + 1, np.exp(unigrams[second]), n_words + 1)
    backoffs = np.minimum(np.log(np.clip(left, 1e-3, 1) / np.clip(free, 1e-3, 1)), 0)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    return dict(zip(pairs, likely.tolist(), strict=True)), unigrams, np.roll(backoffs, -1)


def main() -> None:
    recipe = load_config(LexiconRecipe, sys.argv[1], sys.argv[2:])
    said, model = read_dictionary(), read_pair_model()
    chosen = choose_words(model, said, recipe.n_words)
    words, number = [model.words[n] for n in chosen], np.full(len(model.words), -2)
    number[chosen], number[model.words.index(START)] = np.arange(len(chosen)), -1
    bigrams, unigrams, backoffs = choose_pairs(model, number, recipe.n_pairs)
    phone = {symbol: 1 + n for n, symbol in enumerate(PHONES)}
    pronunciations = [
        (n, [phone[p] for p in phones]) for n, word in enumerate(words) for phones in said[word][: recipe.n_pronunciations]
    ]
    facts = {"format": FORMAT, PART: {"n_words": len(words), "n_pairs": len(bigrams)}, "info": INFO}
    path = Path(recipe.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_lexicon(path, words, pronunciations, unigrams, backoffs, bigrams, json.dumps(facts))
    path.with_suffix(".sha256").write_text(f"{hash_file(path)}  {path.name}\n")
    load_lexicon(path)
    print(
        f"{path}: {len(words)} words, {len(pronunciations)} pronunciations, {len(bigrams)} pairs, {path.stat().st_size} bytes"
    )


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
