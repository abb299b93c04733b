"""The report: scores as a table, and a page with players and pictures to check them by ear and eye."""

from __future__ import annotations

import csv
import html
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vcae.audio.config import MelConfig
from vcae.audio.f0 import SAMPLE_RATE
from vcae.audio.mel import LogMel
from vcae.errors import ConfigError
from vcae.evaluation.judges import Column, Judge, Score, load_wav, mean
from vcae.evaluation.pairs import Conversion
from vcae.figures.page import add_player, make_page
from vcae.figures.plot import draw_mel, make_figure

PARTS = ("source", "target_ref", "converted")


@dataclass(frozen=True)
class Report:
    """Scores of conversions.

    Attributes:
        columns: What was scored.
        rows: Each conversion and its scores by column key.
        labels: The systems, in the order of their first row.
        judges_missing: Packages of independent judges that are not installed.
    """

    columns: list[Column]
    rows: list[tuple[Conversion, dict[str, Score]]]
    labels: list[str]
    judges_missing: list[str]

    def means(self) -> dict[str, dict[str, float]]:
        """Return the weighted mean of every column for every system."""
        return {
            label: {c.key: mean([s[c.key] for row, s in self.rows if row.label == label]) for c in self.columns}
            for label in self.labels
        }


def judge_pairs(
    conversions: Sequence[Conversion],
    judges: Sequence[Judge],
    missing: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Let every judge score every conversion.

    Args:
        conversions: What to score.
        judges: From `choose_judges`.
        missing: Packages of judges that are not there, for the report.
        progress: Called with conversions done and in all.
    """
    rows = []
    for n, conversion in enumerate(conversions):
        scores: dict[str, Score] = {}
        for judge in judges:
            scores |= judge.score(conversion)
        rows.append((conversion, scores))
        if progress is not None:
            progress(n + 1, len(conversions))
    columns = [column for judge in judges for column in judge.columns]
    return Report(columns, rows, list(dict.fromkeys(c.label for c in conversions)), list(missing))


def write_report(report: Report, folder: Path, facts: dict[str, Any], pictures: bool = True) -> Path:
    """Write `scores.csv`, `means.json` and `index.html` with its sounds and pictures into a folder.

    Args:
        report: What to write.
        folder: Made if needed.
        facts: Plain data about the run (checkpoint, its hash), shown on the page.
        pictures: Draw mels, if matplotlib is installed.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = [column.key for column in report.columns]
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["label", *PARTS, *keys])
        for row, scores in report.rows:
            writer.writerow([row.label, row.source, row.target_ref, row.converted, *(round(scores[k].value, 5) for k in keys)])
    means = {label: {k: None if math.isnan(v) else v for k, v in found.items()} for label, found in report.means().items()}
    (folder / "means.json").write_text(json.dumps({"facts": facts, "means": means}, indent=1), encoding="utf-8")
    media = folder / "media"
    media.mkdir(exist_ok=True)
    articles = [_article(report, n, media, pictures) for n in range(len(report.rows))]
    page = folder / "index.html"
    page.write_text(_page(report, facts, articles), encoding="utf-8")
    return page


def table(report: Report) -> list[list[str]]:
    """Return the means as text, a heading row first; what is best of several systems carries a star."""
    means = report.means()
    lines = [["system", *(column.heading for column in report.columns)]]
    for label in report.labels:
        cells = [_number(means[label][c.key]) + ("*" if _is_best(means, label, c) else "") for c in report.columns]
        lines.append([label, *cells])
    return lines


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def _is_best(means: dict[str, dict[str, float]], label: str, column: Column) -> bool:
    values = [m[column.key] for m in means.values() if not math.isnan(m[column.key])]
    if not column.better or len(values) < 2 or math.isnan(means[label][column.key]):
        return False
    return means[label][column.key] == (max(values) if column.better > 0 else min(values))


def _article(report: Report, n: int, media: Path, pictures: bool) -> str:
    row, scores = report.rows[n]
    players, mels = [], []
    for part in PARTS:
        wav = load_wav(getattr(row, part))
        players.append(add_player(media, f"{n:03d}_{part}", wav, SAMPLE_RATE, part))
        mels.append(LogMel(MelConfig())(torch.from_numpy(wav)[None])[0])
    picture = ""
    if pictures and _draw(mels, media / f"{n:03d}.png"):
        picture = f'<img loading="lazy" src="media/{n:03d}.png" alt="log-mels of source, target and conversion">'
    figures = ", ".join(f"{html.escape(c.heading)} {_number(scores[c.key].value)}" for c in report.columns)
    said = f"<p>{html.escape(row.transcript)}</p>" if row.transcript else ""
    title = f"{html.escape(row.label)}: {html.escape(row.source.name)} as {html.escape(row.target_ref.name)}"
    return f'<article id="{n}"><h3>{title}</h3>{said}<div class="players">{"".join(players)}</div><p>{figures}</p>{picture}</article>'


def _draw(mels: Sequence[torch.Tensor], path: Path) -> bool:
    try:
        figure = make_figure(12, 2.6)
    except ConfigError:
        return False
    panels: Any = figure.subplots(1, len(PARTS), sharey=True)
    for axes, mel, part in zip(panels, mels, PARTS, strict=True):
        draw_mel(axes, mel, MelConfig())
        axes.set(title=part, xlabel="s")
    figure.savefig(path, dpi=80)
    return True


def _page(report: Report, facts: dict[str, Any], articles: Sequence[str]) -> str:
    means = report.means()
    head = "".join(f'<th title="{html.escape(c.meaning)}">{html.escape(c.heading)}</th>' for c in report.columns)
    body = ""
    for label in report.labels:
        cells = "".join(
            f'<td class="{"best" if _is_best(means, label, c) else ""}">{_number(means[label][c.key])}</td>'
            for c in report.columns
        )
        body += f"<tr><td>{html.escape(label)}</td>{cells}</tr>"
    files = ""
    for n, (row, scores) in enumerate(report.rows):
        cells = "".join(f"<td>{_number(scores[c.key].value)}</td>" for c in report.columns)
        files += f'<tr><td><a href="#{n}">{html.escape(row.label)} {html.escape(row.converted.name)}</a></td>{cells}</tr>'
    missing = ""
    if report.judges_missing:
        missing = f"<p>Not scored by {', '.join(report.judges_missing)}: not installed (pip install 'vcae[eval]').</p>"
    meanings = "".join(f"<li>{html.escape(c.heading)}: {html.escape(c.meaning)}</li>" for c in report.columns)
    body = (
        f'{missing}<div class="wide"><table><tr><th>system</th>{head}</tr>{body}</table></div><ul>{meanings}</ul>'
        f'<h2>Every conversion</h2><div class="wide"><table><tr><th>file</th>{head}</tr>{files}</table></div>{"".join(articles)}'
    )
    return make_page("Conversions, judged", facts, body)
