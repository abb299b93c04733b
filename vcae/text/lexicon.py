"""A lexicon: words, their phones, and how likely one word is after another."""

from __future__ import annotations

import lzma
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
from vcae.text.word_list import pack_words, unpack, unpack_words

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
        backoffs: For each word, and last for the start of a text, log-probability of following it in a pair that is not in `bigrams`,
            relative to the unigram.
        bigrams: Log-probability of a second word after a first.
    """

    # Number of the word before the first, and its place in the back-offs.
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
        return self._unigrams[word] + self._backoffs[last]


def save_lexicon(
    path: str | Path,
    words: Sequence[str],
    pronunciations: Sequence[tuple[int, Sequence[int]]],
    unigrams: np.ndarray,
    backoffs: np.ndarray,
    bigrams: Mapping[tuple[int, int], float],
    metadata: str,
) -> None:
    """Write a lexicon of at most 65,536 words; arguments as `Lexicon`, log-probabilities rounded to steps of 1/16, and the metadata as JSON.

    The words should be sorted: the file is then smallest.

    Raises:
        CheckpointError: If the file cannot be written.
    """

    def small(values: object) -> np.ndarray:
        return np.round(np.asarray(values, np.float64) / -STEP).clip(0, 255).astype(np.uint8)

    said = sorted(pronunciations, key=lambda one: one[0])
    pairs = np.array(sorted(bigrams), np.int64).reshape(-1, 2)
    # Where the first word stays, the second as the distance from that of the pair before.
    seconds = np.where(np.diff(pairs[:, 0], prepend=-2) == 0, np.diff(pairs[:, 1], prepend=0), pairs[:, 1]).astype("<u2")
    tables = {
        "n_said": np.bincount([word for word, _ in said], minlength=len(words)).astype(np.uint8),
        "phones": np.frombuffer(b"\0".join(bytes(phones) for _, phones in said), np.uint8),
        "unigrams": small(unigrams),
        "backoffs": small(backoffs),
        "n_pairs": np.bincount(pairs[:, 0] + 1, minlength=len(words) + 1).astype("<u2"),
        "seconds": seconds,
        "bigrams": small([bigrams[a, b] for a, b in pairs.tolist()]),
    }
    # The high bytes of numbers of two bytes follow the low ones.
    packed = {k: lzma.compress(v.view(np.uint8).reshape(-1, v.itemsize).T.tobytes(), preset=9) for k, v in tables.items()}
    packed["words"] = pack_words(words)
    write_tensors(path, {k: torch.from_numpy(np.frombuffer(v, np.int8).copy()) for k, v in packed.items()}, {"vcae": metadata})


def _unpack_numbers(packed: bytes, n_bytes: int = 1) -> np.ndarray:
    """Return the numbers of a table, of one byte each or of two.

    Raises:
        ValueError: If it is damaged.
    """
    planes = np.frombuffer(unpack(packed), np.uint8).reshape(n_bytes, -1)
    return np.ascontiguousarray(planes.T).view(f"<u{n_bytes}").ravel().astype(np.int64)


def _unpack_lexicon(tables: Mapping[str, bytes]) -> Lexicon:
    """Return the lexicon of the tables of a file.

    Raises:
        ValueError: If they are damaged.
        KeyError: If one is missing.
    """
    words, said = unpack_words(tables["words"]), [list(phones) for phones in unpack(tables["phones"]).split(b"\0")]
    word_of = np.repeat(np.arange(len(words)), _unpack_numbers(tables["n_said"]))
    unigrams, backoffs, likely = (-STEP * _unpack_numbers(tables[key]) for key in ("unigrams", "backoffs", "bigrams"))
    n_pairs = _unpack_numbers(tables["n_pairs"], 2)
    firsts, seconds = np.repeat(np.arange(len(n_pairs)) - 1, n_pairs), _unpack_numbers(tables["seconds"], 2)
    sums = np.append(0, seconds.cumsum())
    starts = np.repeat(n_pairs.cumsum() - n_pairs, n_pairs)
    seconds = sums[1:] - sums[starts]
    if not len(words) == len(unigrams) == len(backoffs) - 1 == len(n_pairs) - 1 or seconds.max(initial=0) >= len(words):
        raise ValueError("its tables do not fit each other")
    if any(not phones or max(phones) > len(PHONES) for phones in said):
        raise ValueError("it has phones that do not exist")
    pairs = zip(firsts.tolist(), seconds.tolist(), strict=True)
    bigrams = dict(zip(pairs, likely.tolist(), strict=True))
    return Lexicon(words, list(zip(word_of.tolist(), said, strict=True)), unigrams, backoffs, bigrams)


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
        return _unpack_lexicon({key: value.numpy().tobytes() for key, value in tensors.items()})
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} is a damaged lexicon ({error}); get a fresh copy of it") from error
