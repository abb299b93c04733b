"""Systems compared pair by pair: by how much their scores differ where both did the same work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcae.errors import DataError
from vcae.evaluation.report import Judged, Report
from vcae.evaluation.scores import Column, Interval, paired_difference
from vcae.evaluation.tables import Conversion


@dataclass(frozen=True)
class Difference:
    """By how much one system differs from another over the pairs that both have.

    Attributes:
        label, base: The systems; a figure is the label's less the base's.
        column: What is compared.
        figure: The difference with its 95 % interval.
        n: Pairs.
    """

    label: str
    base: str
    column: Column
    figure: Interval
    n: int

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `no difference seen` where the interval holds zero; empty where no way is better."""
        if math.isnan(self.figure.value) or not self.column.better:
            return ""
        if self.figure.low <= 0 <= self.figure.high:
            return "no difference seen"
        return "better" if self.figure.value * self.column.better > 0 else "worse"


def compare_systems(report: Report) -> tuple[list[Difference], list[str]]:
    """Compare every system with the first, pair by pair, and return a line for each that lacks pairs.

    Rows belong together that have the same source and target, or the same reference.

    Raises:
        DataError: If there is one system alone, a system has a pair twice, or two systems share none.
    """
    labels = report.labels
    if len(labels) < 2:
        raise DataError(
            f"paired figures compare systems, and there is {labels[0] if labels else 'none'} alone; give two tables, or labels in one"
        )
    by_label = {label: _by_pair(report, label) for label in labels}
    base, found, said = labels[0], [], []
    for label in labels[1:]:
        shared = [pair for pair in by_label[base] if pair in by_label[label]]
        if not shared:
            raise DataError(f"{base} and {label} have no pair of source and target in common; convert the same pairs by both")
        n = max(len(by_label[base]), len(by_label[label]))
        if len(shared) < n:
            said.append(
                f"{base} and {label} have {len(shared)} pairs in common; the others, of up to {n}, are left out of the differences"
            )
        for column in report.columns:
            first, second = ([by_label[name][pair].scores[column.key] for pair in shared] for name in (base, label))
            found.append(Difference(label, base, column, *paired_difference(first, second)))
    return found, said


def _by_pair(report: Report, label: str) -> dict[tuple[Path, ...], Judged]:
    found: dict[tuple[Path, ...], Judged] = {}
    for judged in report.rows:
        row = judged.row
        if row.label != label:
            continue
        target = (row.target_ref,) if isinstance(row, Conversion) and row.target_ref is not None else ()
        pair = tuple(path.resolve() for path in (row.original, *target))
        if pair in found:
            names = " to ".join(path.name for path in pair)
            raise DataError(
                f"{label} has {names} twice; paired figures need each pair of a system once: tell systems apart by a column label"
            )
        found[pair] = judged
    return found


def differences_table(differences: Sequence[Difference], every: bool = False) -> list[list[str]]:
    """Return differences as text, a heading row first."""
    lines = [["system", "less", "score", "difference", "95 % interval", "pairs", "verdict"]]
    for d in [d for d in differences if every or d.column.headline] or differences:
        f = d.figure
        bounds = "-" if math.isnan(f.value) else f"{f.low:+.3f} to {f.high:+.3f}"
        value = "-" if math.isnan(f.value) else f"{f.value:+.3f}"
        lines.append([d.label, d.base, d.column.heading, value, bounds, str(d.n), d.verdict])
    return lines


def plain_difference(difference: Difference) -> dict[str, Any]:
    """Return a difference as plain data."""
    f = difference.figure
    values = {"value": f.value, "low": f.low, "high": f.high}
    numbers = {k: None if math.isnan(v) else round(v, 5) for k, v in values.items()}
    return {
        "system": difference.label,
        "less": difference.base,
        "score": difference.column.key,
        **numbers,
        "pairs": difference.n,
    }
