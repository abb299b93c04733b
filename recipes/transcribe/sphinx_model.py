"""Read the words and pairs of words of the English language model that comes with pocketsphinx.

Its file is a trie, in which single words lead to the words before them. This is how pocketsphinx 5 lays it out (ngram_model_trie.c,
lm_trie.c); its own export stops at three words with a crash.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcae.errors import DataError

HEAD = b"Trie Language Model"
# Probabilities and back-offs of pairs are numbers of 16 bits, which stand for the values of tables.
TABLE, TABLE_BITS = 1 << 16, 16
UNIGRAM = np.dtype([("probability", "<f4"), ("backoff", "<f4"), ("next", "<u4")])
# Logarithms are of this base.
BASE = 1.0001


@dataclass(frozen=True)
class PairModel:
    """A language model of pairs of words; logarithms in nats.

    Attributes:
        words: Words, with the start `<s>` and the end `</s>` of a sentence.
        unigrams, backoffs: (W,) log-probability of each word, and what a pair that is not in the model has besides.
        firsts, seconds, pairs: (P,) numbers of the two words, and log-probability of the second after the first.
    """

    words: list[str]
    unigrams: np.ndarray
    backoffs: np.ndarray
    firsts: np.ndarray
    seconds: np.ndarray
    pairs: np.ndarray


def read_pair_model() -> PairModel:
    """Read pocketsphinx's model of American English.

    Raises:
        DataError: If pocketsphinx is not installed, or its model has another form.
    """
    try:
        from pocketsphinx import get_model_path
    except ImportError as error:
        raise DataError(
            "the language model comes with pocketsphinx, which is not installed; pip install 'vcae[eval]'"
        ) from error
    path = Path(get_model_path("en-us/en-us.lm.bin"))
    data = path.read_bytes()
    if data[: len(HEAD)] != HEAD or data[len(HEAD)] != 3:
        raise DataError(f"{path} is not a model of three words in the form of pocketsphinx 5; install pocketsphinx 5.1")
    at = len(HEAD) + 1
    n_words, n_pairs, n_triples = struct.unpack_from("<3I", data, at)
    # Three counts, a number that is always 1, two tables of pairs (probabilities and back-offs), and one of triples.
    at += 4 * 4
    values = np.frombuffer(data, "<f4", TABLE, at)
    at += 3 * 4 * TABLE
    singles = np.frombuffer(data, UNIGRAM, n_words + 1, at)
    at += UNIGRAM.itemsize * (n_words + 1)
    word_bits, next_bits = n_words.bit_length(), n_triples.bit_length()
    width = word_bits + 2 * TABLE_BITS + next_bits
    bits = np.frombuffer(data, np.uint8, _n_bytes(n_pairs, width), at)
    at += len(bits) + _n_bytes(n_triples, word_bits + TABLE_BITS)
    (n_letters,) = struct.unpack_from("<I", data, at)
    words = data[at + 4 : at + 4 + n_letters].decode("utf-8").split("\0")[:n_words]
    seconds = np.repeat(np.arange(n_words), np.diff(singles["next"].astype(np.int64)))
    firsts = _field(bits, len(seconds), width, 0, word_bits)
    found = values[_field(bits, len(seconds), width, word_bits + TABLE_BITS, TABLE_BITS)]
    if len(words) != n_words or firsts.max() >= n_words:
        raise DataError(f"{path} does not have the form of pocketsphinx 5; install pocketsphinx 5.1")
    nat = math.log(BASE)
    unigrams, backoffs = (nat * singles[key][:-1].astype(float) for key in ("probability", "backoff"))
    return PairModel(words, unigrams, backoffs, firsts, seconds, nat * found.astype(float))


def _n_bytes(entries: int, width: int) -> int:
    """Return the size of a table of entries of `width` bits, with one entry and eight bytes to spare."""
    return ((1 + entries) * width + 7) // 8 + 8


def _field(bits: np.ndarray, n: int, width: int, offset: int, size: int) -> np.ndarray:
    """Return a field of `size` bits, `offset` bits after the start of each of n entries of `width` bits; the low bits are first."""
    start = np.arange(n, dtype=np.int64) * width + offset
    found = np.zeros(n, np.uint64)
    for k in range((size + 7) // 8 + 1):
        found |= bits[(start >> 3) + k].astype(np.uint64) << np.uint64(8 * k)
    return ((found >> (start & 7).astype(np.uint64)) & np.uint64((1 << size) - 1)).astype(np.int64)
