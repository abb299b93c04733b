"""Make the lexicon and its language model: `python recipes/transcribe/lexicon.py recipes/transcribe/conf/lexicon.yaml`.

The words are those of the training transcripts and the most frequent of symspellpy's list that the pronouncing dictionary has; the
probabilities are mixed from the transcripts and symspellpy's counts of words and pairs of words.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
from settings import LexiconRecipe
from words import held_out, normalize_transcript, read_dictionary

from vcae.config import load_config
from vcae.errors import DataError, VcaeError
from vcae.files import hash_file
from vcae.model.transcriber import PHONES
from vcae.model_file import FORMAT
from vcae.text.lexicon import PART, load_lexicon, save_lexicon
from vcae.training.transcriber import read_readings

WORDS, PAIRS = "frequency_dictionary_en_82_765.txt", "frequency_bigramdictionary_en_243_342.txt"
INFO = {
    "name": "words",
    "author": "The vcae developers",
    "license": "see the model card transcriber.md",
    "training_data": "pronunciations: CMU Pronouncing Dictionary (BSD); counts: symspellpy (MIT), from Google Books Ngram (CC BY 3.0); "
    "transcripts of LibriSpeech, CMU ARCTIC and speechocean762",
}


def read_counts(name: str) -> Iterator[tuple[list[str], int]]:
    """Yield words and count of each line of one of symspellpy's lists.

    Raises:
        DataError: If symspellpy is not installed.
    """
    try:
        text = resources.files("symspellpy").joinpath(name).read_text(encoding="utf-8-sig")
    except ModuleNotFoundError as error:
        raise DataError("the counts of words come with symspellpy, which is not installed; pip install symspellpy") from error
    for line in text.splitlines():
        *words, count = line.split()
        yield words, int(count)


def shares(counts: Counter[str], words: list[str]) -> np.ndarray:
    """Return the share of each word in all their counts."""
    found = np.array([counts[word] for word in words], float)
    return found / found.sum()


def main() -> None:
    recipe = load_config(LexiconRecipe, sys.argv[1], sys.argv[2:])
    said = read_dictionary()
    train, _ = held_out(read_readings(recipe.latents), recipe.held_corpus, recipe.hold_out_every)
    # Sentences that many speakers read count once.
    sentences = sorted({tuple(normalize_transcript(r.text)) for r in train})
    own = Counter(word for sentence in sentences for word in sentence if word in said)
    written = Counter({words[0]: count for words, count in read_counts(WORDS) if words[0] in said})
    words = [word for word, _ in own.most_common()]
    words += [word for word, _ in written.most_common() if word not in own][: max(recipe.n_words - len(words), 0)]
    number = {word: n for n, word in enumerate(words)}
    mixed = 0.5 * shares(own, words) + 0.5 * shares(written, words)
    unigrams = np.log(np.maximum(mixed, 1e-8))
    pairs = [Counter(), Counter()]
    for sentence in sentences:
        pairs[0].update(pair for pair in pairwise(sentence) if all(word in number for word in pair))
        # Pairs with the start of a sentence are under no word.
    pairs[1].update({tuple(two): count for two, count in read_counts(PAIRS) if all(word in number for word in two)})
    bigrams, backoffs = mix_pairs(pairs, (own, written), number, np.exp(unigrams), recipe)
    phone = {symbol: 1 + n for n, symbol in enumerate(PHONES)}
    pronunciations = [(number[w], [phone[p] for p in phones]) for w in words for phones in said[w][: recipe.n_pronunciations]]
    facts = {"format": FORMAT, PART: {"n_words": len(words), "n_pairs": len(bigrams)}, "info": INFO}
    path = Path(recipe.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_lexicon(path, words, pronunciations, unigrams, backoffs, bigrams, json.dumps(facts))
    path.with_suffix(".sha256").write_text(f"{hash_file(path)}  {path.name}\n")
    load_lexicon(path)
    print(
        f"{path}: {len(words)} words, {len(pronunciations)} pronunciations, {len(bigrams)} pairs, {path.stat().st_size} bytes"
    )


def mix_pairs(
    pairs: list[Counter[tuple[str, str]]],
    singles: tuple[Counter[str], Counter[str]],
    number: dict[str, int],
    unigrams: np.ndarray,
    recipe: LexiconRecipe,
) -> tuple[dict[tuple[int, int], float], np.ndarray]:
    """Return log-probabilities of the pairs that matter most, and what is left to other words after each word."""
    likely: dict[tuple[int, int], float] = {}
    totals = [Counter[str](), Counter[str]()]
    for total, counts in zip(totals, pairs, strict=True):
        for (first, _), count in counts.items():
            total[first] += count
    for first, second in {*pairs[0], *pairs[1]}:
        # The transcripts count for more the more often they have the first word.
        trust = singles[0][first] / (singles[0][first] + recipe.trust_after)
        own = pairs[0][first, second] / max(totals[0][first], 1)
        written = pairs[1][first, second] / max(totals[1][first], 1)
        share = recipe.pair_weight * (trust * own + (1 - trust) * written)
        likely[number[first], number[second]] = share + (1 - recipe.pair_weight) * unigrams[number[second]]
    # Worth: how much is gained, how often.
    worth = {two: unigrams[two[0]] * p * math.log(p / unigrams[two[1]]) for two, p in likely.items()}
    kept = sorted(worth, key=lambda two: -worth[two])[: recipe.n_pairs]
    left, free = np.ones(len(unigrams)), np.ones(len(unigrams))
    for two in kept:
        left[two[0]] -= likely[two]
        free[two[0]] -= unigrams[two[1]]
    backoffs = np.log(np.clip(left, 1e-3, 1) / np.clip(free, 1e-3, 1))
    return {two: math.log(likely[two]) for two in kept}, np.minimum(backoffs, 0)


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
