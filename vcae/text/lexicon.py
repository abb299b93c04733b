"""A lexicon: words, their phones, and how likely one word is after another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from vcae.checkpoint import read_tensors, write_tensors
from vcae.errors import CheckpointError
from vcae.model.transcriber import PHONES
from vcae.model_file import find, read_metadata

PART = "lexicon"
SHIPPED = "words"
# Log-probabilities are stored in steps of this size, in nats.
STEP = 1 / 16


class Lexicon:
    """Words as a tree of phones, with a language model of pairs of words.

    Attributes:
        words: The words, in lower case.
        children: For each node of the tree, the node after each phone (numbered as the transcriber's output, from 1).
        ends: For each node, the words that are complete there.
        best_below: For each node, the largest log-probability of the words that are still possible there.

    Args:
        words: The words.
        pronunciations: Word number and phones of each pronunciation.
        unigrams: Log-probability of each word.
        backoffs: For each word, log-probability of following it in a pair that is not in `bigrams`, relative to the unigram.
        bigrams: Log-probability of a second word after a first.
    """

    # Number of the word before the first.
    START = -1

    def __init__(
        self,
        words: Sequence[str],
        pronunciations: Sequence[tuple[int, Sequence[int]]],
        unigrams: np.ndarray,
        backoffs: np.ndarray,
        bigrams: Mapping[tuple[int, int], float],
    ) -> None:
        self.words = list(words)
        self._unigrams: list[float] = unigrams.tolist()
        self._backoffs: list[float] = backoffs.tolist()
        self._bigrams = bigrams
        self.children: list[dict[int, int]] = [{}]
        self.ends: list[list[int]] = [[]]
        self.best_below = [0.0]
        for word, phones in pronunciations:
            node, likely = 0, self._unigrams[word]
            for phone in phones:
                if phone not in self.children[node]:
                    self.children[node][phone] = len(self.children)
                    self.children.append({})
                    self.ends.append([])
                    self.best_below.append(-math.inf)
                node = self.children[node][phone]
                self.best_below[node] = max(self.best_below[node], likely)
            if word not in self.ends[node]:
                self.ends[node].append(word)

    def log_probability(self, last: int, word: int) -> float:
        """Return the log-probability of a word after another, in nats."""
        known = self._bigrams.get((last, word))
        if known is not None:
            return known
        return self._unigrams[word] + (self._backoffs[last] if last >= 0 else 0.0)


def save_lexicon(
    path: str | Path,
    words: Sequence[str],
    pronunciations: Sequence[tuple[int, Sequence[int]]],
    unigrams: np.ndarray,
    backoffs: np.ndarray,
    bigrams: Mapping[tuple[int, int], float],
    metadata: str,
) -> None:
    """Write a lexicon; arguments as `Lexicon`, log-probabilities rounded to steps of 1/16, and the metadata as JSON.

    Raises:
        CheckpointError: If the file cannot be written.
    """

    def small(values: object) -> torch.Tensor:
        rounded = np.round(np.asarray(values, np.float64) / -STEP).clip(0, 255)
        return torch.from_numpy((rounded - 128).astype(np.int8))

    pairs = sorted(bigrams)
    phones = [p for _, said in pronunciations for p in said]
    tensors = {
        "words": torch.from_numpy(np.frombuffer("\n".join(words).encode("ascii"), np.int8).copy()),
        "word_of": torch.tensor([word for word, _ in pronunciations], dtype=torch.int16),
        "n_phones": torch.tensor([len(said) for _, said in pronunciations], dtype=torch.int8),
        "phones": torch.tensor(phones, dtype=torch.int8),
        "unigrams": small(unigrams),
        "backoffs": small(backoffs),
        "first": torch.tensor([a for a, _ in pairs], dtype=torch.int16),
        "second": torch.tensor([b for _, b in pairs], dtype=torch.int16),
        "bigrams": small([bigrams[pair] for pair in pairs]),
    }
    write_tensors(path, tensors, {"vcae": metadata})


@lru_cache(maxsize=2)
def load_lexicon(name: str | Path = SHIPPED) -> Lexicon:
    """Load a lexicon of `save_lexicon`, the shipped one by default, once per process.

    Raises:
        CheckpointError: If it is missing, damaged, or another file.
    """
    path = find(name)
    if not isinstance(read_metadata(path).get(PART), dict):
        raise CheckpointError(f"{path} holds no lexicon; give a file that does")
    tensors, _ = read_tensors(path)
    try:
        found = {key: value.numpy() for key, value in tensors.items()}
        words = found["words"].astype(np.int8).tobytes().decode("ascii").split("\n")
        large = {key: -STEP * (found[key].astype(np.float64) + 128) for key in ("unigrams", "backoffs", "bigrams")}
        phones = np.split(found["phones"].astype(int), np.cumsum(found["n_phones"].astype(int))[:-1])
        pronunciations = [(int(w), p.tolist()) for w, p in zip(found["word_of"], phones, strict=True)]
        pairs = zip(found["first"].tolist(), found["second"].tolist(), strict=True)
        bigrams = dict(zip(pairs, large["bigrams"].tolist(), strict=True))
        fits = len(words) == len(large["unigrams"]) == len(large["backoffs"]) > max(w for w, _ in pronunciations)
        if not fits or not 1 <= min(found["phones"]) <= max(found["phones"]) <= len(PHONES):
            raise ValueError("its tables do not fit each other")
        return Lexicon(words, pronunciations, large["unigrams"], large["backoffs"], bigrams)
    except (KeyError, ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is a damaged lexicon ({error}); get a fresh copy of it") from error
