"""Error rates of symbol sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def count_edits(wanted: Sequence[object], heard: Sequence[object]) -> int:
    """Return the smallest number of substitutions, deletions and insertions that turn one sequence into the other."""
    row = list(range(len(heard) + 1))
    for i, symbol in enumerate(wanted, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (symbol != other))
    return row[-1]


def error_rate(pairs: Iterable[tuple[Sequence[object], Sequence[object]]]) -> float:
    """Return the edits per wanted symbol over pairs of a wanted and a recognised sequence; it may be above 1."""
    pairs = list(pairs)
    return sum(count_edits(wanted, heard) for wanted, heard in pairs) / max(sum(len(wanted) for wanted, _ in pairs), 1)
