"""Paired comparison of systems: differences of their scores on the same pairs of source and target."""

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
    """Difference between two systems over their common pairs.

    Attributes:
        label, base: The systems; the difference is that of `label` minus that of `base`.
        column: The score that is compared.
        figure: The difference with its 95 % interval.
        n: Number of pairs.
    """

    label: str
    base: str
    column: Column
    figure: Interval
    n: int

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `no difference seen` if the interval contains zero; empty for scores without a better direction."""
        if math.isnan(self.figure.value) or not self.column.better:
            return ""
        if self.figure.low <= 0 <= self.figure.high:
            return "no difference seen"
        return "better" if self.figure.value * self.column.better > 0 else "worse"


def compare_systems(report: Report) -> tuple[list[Difference], list[str]]:
    """Compare every system with the first one, pair by pair; also return a message for each system that lacks pairs.

    A pair is two rows with the same source and target, or with the same reference.

    Raises:
        DataError: If there is only one system, a system has a pair twice, or two systems have no pairs in common.
    """
    labels = report.labels
    if len(labels) < 2:
        raise DataError(
            f"paired figures compare systems, and there is only {labels[0] if labels else 'none'}; give two tables, or labels in one"
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
