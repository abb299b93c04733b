"""How much a row of phones reads like text, and how much of it is right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from vcae.text.errors import error_rate

# Shortest word that counts, in phones.
SHORTEST_WORD = 3


def collapse_phones(path: np.ndarray) -> list[int]:
    """Return the phones of steps (T,) without repetitions and without silence, phone 0."""
    kept = np.concatenate([[True], path[1:] != path[:-1]]) & (path != 0)
    found: list[int] = path[kept].tolist()
    return found


def word_share(sequences: Iterable[Sequence[int]], words: Iterable[Sequence[int]]) -> float:
    """Return the largest share of the phones that can be covered by words of a dictionary which do not overlap.

    Args:
        sequences: Phones of recordings.
        words: Phones of each word; those shorter than 3 phones are ignored, as they are found in anything.
    """
    known = {tuple(word) for word in words if len(word) >= SHORTEST_WORD}
    longest = max(map(len, known), default=0)
    covered = total = 0
    for sequence in sequences:
        best = [0] * (len(sequence) + 1)
        for end in range(1, len(sequence) + 1):
            best[end] = best[end - 1]
            for n in range(SHORTEST_WORD, min(longest, end) + 1):
                if best[end - n] + n > best[end] and tuple(sequence[end - n : end]) in known:
                    best[end] = best[end - n] + n
        covered, total = covered + best[-1], total + len(sequence)
    return covered / max(total, 1)


def permuted_errors(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], n_phones: int, n_keys: int, seed: int = 0
) -> list[float]:
    """Return the phone errors after exchanging the recognised phones for each other at random, once for each key.

    Args:
        pairs: Right and recognised phones of each recording, numbered from 1.
        n_phones: Number of phones.
        n_keys: Number of random exchanges.
        seed: Seed of the exchanges.
    """
    rng = np.random.default_rng(seed)
    keys = [rng.permutation(n_phones) + 1 for _ in range(n_keys)]
    return [error_rate([(right, [int(key[p - 1]) for p in found]) for right, found in pairs]) for key in keys]
