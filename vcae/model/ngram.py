"""N-gram models of symbols, such as phones, with Witten-Bell smoothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Ngram:
    """N-gram model of sequences of symbols.

    The probability of a symbol after a history is the share that its counts give, mixed with the probability after the history without its
    first symbol; the more different symbols followed a history, the more weight the shorter one has.

    Source: Witten and Bell, The zero-frequency problem: estimating the probabilities of novel events in adaptive text compression (1991).

    Args:
        sequences: Sequences of symbols, 0 to `n_symbols` - 1; a history before the first symbol is of symbols 0.
        n_symbols: Number of different symbols.
        order: Longest history and the symbol after it, 1 to 8 symbols.
    """

    def __init__(self, sequences: Sequence[np.ndarray], n_symbols: int, order: int) -> None:
        self.n_symbols, self.order = n_symbols, order
        self._grams: list[tuple[np.ndarray, np.ndarray]] = []
        self._histories: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for n in range(1, order + 1):
            codes, counts = np.unique(self._codes(sequences, n), return_counts=True)
            histories, first, kinds = np.unique(codes // n_symbols, return_index=True, return_counts=True)
            totals = np.add.reduceat(counts, first)
            self._grams.append((codes, counts))
            self._histories.append((histories, totals, kinds))

    def _codes(self, sequences: Sequence[np.ndarray], n: int) -> np.ndarray:
        """Return a number for each symbol of the sequences with the n - 1 symbols before it."""
        found = []
        for sequence in sequences:
            padded = np.concatenate([np.zeros(n - 1, np.int64), sequence.astype(np.int64)])
            code = np.zeros(len(sequence), np.int64)
            for k in range(n):
                code = code * self.n_symbols + padded[k : k + len(sequence)]
            found.append(code)
        return np.concatenate(found)

    def probabilities(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Return the probability of each symbol of the sequences, all in one row."""
        return self._mix([self._codes(sequences, n) for n in range(1, self.order + 1)])

    def table(self, order: int) -> np.ndarray:
        """Return the probabilities of symbols after each history of `order` - 1 symbols: (n_symbols,) * `order`."""
        every = np.arange(self.n_symbols**order)
        return self._mix([every % self.n_symbols**n for n in range(1, order + 1)]).reshape((self.n_symbols,) * order)

    def _mix(self, codes: Sequence[np.ndarray]) -> np.ndarray:
        mixed = np.full(len(codes[0]), 1.0 / self.n_symbols)
        for code, grams, (histories, totals, kinds) in zip(codes, self._grams, self._histories, strict=False):
            count = _look_up(grams[0], grams[1], code)
            history = code // self.n_symbols
            total, kind = _look_up(histories, totals, history), _look_up(histories, kinds, history)
            mixed = np.where(total > 0, (count + kind * mixed) / np.maximum(total + kind, 1), mixed)
        return mixed

    def bits(self, sequences: Sequence[np.ndarray]) -> float:
        """Return the mean number of bits of a symbol."""
        return float(-np.log2(self.probabilities(sequences)).mean())


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key, 0 for those that are not among the sorted keys."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
