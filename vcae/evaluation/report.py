"""The report: scores of every row and every system, as data and as a short table."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vcae.evaluation.readings import read_all
from vcae.evaluation.scores import Column, Interval, Judge, Score, interval, mean
from vcae.evaluation.tables import CONVERSIONS, COPIES, Copy, Row


@dataclass(frozen=True)
class Judged:
    """Row with its scores.

    Attributes:
        row: The conversion or copy.
        scores: Scores by column key.
        texts: Expected and recognised words by judge's name.
    """

    row: Row
    scores: dict[str, Score]
    texts: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Scores of conversions, or of copies.

    Attributes:
        columns: Columns of the scores.
        rows: Rows with their scores.
        judges: Identity of each judge by its name: versions and weights.
        missing: A message for each judge that is not available.
        problems: A message for each file that could not be read or judged.
    """

    columns: list[Column]
    rows: list[Judged]
    judges: dict[str, str]
    missing: list[str]
    problems: list[str]

    @property
    def labels(self) -> list[str]:
        """The systems, in the order of their first row."""
        return list(dict.fromkeys(judged.row.label for judged in self.rows))

    def scores_of(self, label: str, key: str) -> list[Score]:
        """Return a system's scores in a column."""
        return [judged.scores[key] for judged in self.rows if judged.row.label == label]

    def means(self) -> dict[str, dict[str, float]]:
        """Return the weighted mean of every column for every system."""
        return {label: {c.key: mean(self.scores_of(label, c.key)) for c in self.columns} for label in self.labels}

    def intervals(self) -> dict[str, dict[str, Interval]]:
        """Return the means with their 95 % bootstrap intervals."""
        return {label: {c.key: interval(self.scores_of(label, c.key)) for c in self.columns} for label in self.labels}


def judge_rows(
    rows: Sequence[Row],
    judges: Sequence[Judge],
    missing: Sequence[str] = (),
    folder: Path | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Let every judge score every row.

    Args:
        rows: Rows to score: all conversions, or all copies.
        judges: From `choose_judges`.
        missing: A message for each judge that is not available, for the report.
        folder: Folder of the cache of readings; unchanged files are not read again.
        jobs: Number of processes; 1 uses this process.
        progress: Called with the number of readings done and the total.

    Returns:
        The report. Rows whose file cannot be read are left out and listed in its problems.
    """
    readings = read_all(rows, judges, folder, jobs, progress)
    opened = [judge for judge in judges if judge.name not in readings.failed_judges]
    copies = any(isinstance(row, Copy) for row in rows)
    found = []
    for row in rows:
        heard = [readings.of(judge) for judge in opened]
        needed = [(read, files) for judge, read in zip(opened, heard, strict=True) for files in judge.needs(row)]
        of_it = [read(*files) for read, files in needed if row.judged in files]
        if of_it and all(value is None for value in of_it):
            continue
        scores: dict[str, Score] = {}
        texts = {}
        for judge, read in zip(opened, heard, strict=True):
            scores |= judge.score(row, read)
            words = judge.texts(row, read)
            if words is not None:
                texts[judge.name] = words
        found.append(Judged(row, scores, texts))
    columns = [column for judge in opened for column in judge.columns(copies)]
    failed = [
        problem
        for problem in readings.problems
        if any(problem.startswith(f"{n} could not be opened") for n in readings.failed_judges)
    ]
    problems = [problem for problem in readings.problems if problem not in failed]
    identities = {judge.name: judge.identity() for judge in opened}
    return Report(columns, found, identities, [*missing, *failed], problems)


def table(report: Report, every: bool = False) -> list[list[str]]:
    """Return the means as text, with a heading row first; a star marks the best of several systems.

    Args:
        report: The scores.
        every: Show all columns instead of the main ones only.
    """
    means = report.means()
    columns = [c for c in report.columns if every or c.headline] or report.columns
    lines = [["system", "n", *(column.heading for column in columns)]]
    for label in report.labels:
        cells = [number(means[label][c.key]) + ("*" if is_best(means, label, c) else "") for c in columns]
        lines.append([label, str(sum(judged.row.label == label for judged in report.rows)), *cells])
    return lines


def number(value: float) -> str:
    """Format a number for tables."""
    return "-" if math.isnan(value) else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def is_best(means: dict[str, dict[str, float]], label: str, column: Column) -> bool:
    """Return whether a system is the best of several in a column."""
    values = [m[column.key] for m in means.values() if not math.isnan(m[column.key])]
    if not column.better or len(values) < 2 or math.isnan(means[label][column.key]):
        return False
    return means[label][column.key] == (max(values) if column.better > 0 else min(values))


def worst_first(report: Report) -> list[Judged]:
    """Return the rows sorted by word errors, most first, and at equal errors by naturalness, lowest first."""
    wer = [c.key for c in report.columns if c.key.endswith("_wer")]
    rest = [key for key in ("distillmos", "pesq_wb", "ovrl", "cosine_target") if any(c.key == key for c in report.columns)]

    def badness(judged: Judged) -> tuple[float, ...]:
        lost = mean([Score(judged.scores[key].value) for key in wer])
        values = [judged.scores[key].value for key in rest]
        return (0.0 if math.isnan(lost) else -lost, *(math.inf if math.isnan(v) else v for v in values))

    return sorted(report.rows, key=badness)


def write_data(report: Report, folder: Path, facts: dict[str, Any], differences: Sequence[dict[str, Any]] = ()) -> None:
    """Write `scores.csv` and `means.json` into a folder, which is made if needed; differences are from `paired.plain_difference`."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = [column.key for column in report.columns]
    copies = any(isinstance(judged.row, Copy) for judged in report.rows)
    names = [f.name for f in (COPIES if copies else CONVERSIONS) if f.needed]
    recognisers = list(dict.fromkeys(name for judged in report.rows for name in judged.texts))
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["label", *names, *keys, *(f"{name}_text" for name in recognisers)])
        for judged in report.rows:
            texts = [" ".join(judged.texts[name][1]) if name in judged.texts else "" for name in recognisers]
            values = [judged.scores[key].value for key in keys]
            numbers = ["" if math.isnan(value) else round(value, 5) for value in values]
            writer.writerow([judged.row.label, *(judged.row.files.get(name, "") for name in names), *numbers, *texts])
    found: dict[str, Any] = {"facts": facts, "judges": report.judges, "missing": report.missing, "problems": report.problems}
    found["n"] = {label: sum(judged.row.label == label for judged in report.rows) for label in report.labels}
    found["means"] = plain_means(report)
    found["intervals"] = {
        label: {key: None if math.isnan(i.value) else [round(i.low, 5), round(i.high, 5)] for key, i in by_key.items()}
        for label, by_key in report.intervals().items()
    }
    if differences:
        found["differences"] = list(differences)
    (folder / "means.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def plain_means(report: Report) -> dict[str, dict[str, float | None]]:
    """Return the means as plain data; unmeasured values are None, as JSON has no NaN."""
    return {
        label: {k: None if math.isnan(v) else round(v, 5) for k, v in found.items()} for label, found in report.means().items()
    }
