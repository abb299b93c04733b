"""Judging a table in one call, for benchmarks and recipes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vcae.environment import allowed_cores
from vcae.evaluation.judges import choose_judges
from vcae.evaluation.report import Report, judge_rows, write_data
from vcae.evaluation.tables import read_table


def judge_table(
    path: Path,
    names: Sequence[str] | None = None,
    aligned: bool = True,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Judge a table of conversions or of copies, and write scores.csv, means.json and the readings next to it.

    Args:
        path: Table for `tables.read_table`.
        names: Names of judges, see `judges.NAMES`; all judges of such rows when None.
        aligned: Shift copies by the lag of greatest correlation with their references.
        jobs: Number of processes; one per core when None.
        progress: Called with the number of readings done and the total.

    Returns:
        The report; it lists judges that are not installed, and rows that could not be judged.

    Raises:
        DataError: If the table cannot be used.
        ConfigError: If a name is not that of a judge.
    """
    table = read_table(path, copies=False)
    judges, missing = choose_judges(table.copies, names, aligned=aligned)
    report = judge_rows(table.rows, judges, missing, path.parent, jobs or allowed_cores(), progress)
    report.problems[:0] = table.problems
    write_data(report, path.parent, {"tables": path.name, "rows": len(report.rows)})
    return report
