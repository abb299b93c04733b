"""The HTML page of a report: audio players, pictures, and texts with wrong words marked, to check the judges by ear and eye."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vcae.audio.config import MelConfig
from vcae.audio.f0 import SAMPLE_RATE
from vcae.audio.mel import LogMel
from vcae.errors import ConfigError, VcaeError
from vcae.evaluation.paired import Difference, differences_table
from vcae.evaluation.report import Judged, Report, is_best, number, worst_first
from vcae.evaluation.scores import load_wav
from vcae.figures.page import add_player, make_page, make_table
from vcae.figures.plot import draw_mel, make_figure

STYLE = """<style>
.words del { background: #d33a; text-decoration-color: #d33; border-radius: .2em; padding: 0 .15em; }
.words ins { color: #888; text-decoration: none; font-size: .85em; }
</style>"""


def write_page(
    report: Report, folder: Path, facts: dict[str, Any], pictures: bool = True, differences: Sequence[Difference] = ()
) -> Path:
    """Write `index.html` with its sounds and pictures into a folder, the worst rows first.

    Args:
        report: The scores.
        folder: Created if needed.
        facts: Plain data about the run, shown on the page.
        pictures: Draw mels, if matplotlib is installed.
        differences: Between systems, shown above the rows.

    Returns:
        The page.
    """
    media = folder / "media"
    media.mkdir(parents=True, exist_ok=True)
    rows = worst_first(report)
    articles = [_article(report, judged, n, media, pictures) for n, judged in enumerate(rows)]
    page = folder / "index.html"
    page.write_text(make_page("What the judges say", facts, _body(report, rows, articles, differences)), encoding="utf-8")
    return page


def mark_words(wanted: Sequence[str], heard: Sequence[str]) -> str:
    """Return the expected words as HTML: lost words struck out, wrong and additional words in small print."""
    from rapidfuzz.distance import Levenshtein

    parts = []
    for step in Levenshtein.opcodes(list(wanted), list(heard)):
        lost = html.escape(" ".join(wanted[step.src_start : step.src_end]))
        got = html.escape(" ".join(heard[step.dest_start : step.dest_end]))
        if step.tag == "equal":
            parts.append(lost)
        else:
            parts.append((f"<del>{lost}</del>" if lost else "") + (f"<ins>[{got}]</ins>" if got else ""))
    return " ".join(parts)


def _article(report: Report, judged: Judged, n: int, media: Path, pictures: bool) -> str:
    row, players, mels, names = judged.row, [], [], []
    for name, path in row.files.items():
        try:
            wav = load_wav(path)
        except VcaeError:
            # The file is already listed among the problems.
            continue
        players.append(add_player(media, f"{n:03d}_{name}", wav, SAMPLE_RATE, name))
        mels.append(LogMel(MelConfig())(torch.from_numpy(wav)[None])[0])
        names.append(name)
    picture = ""
    if pictures and _draw(mels, names, media / f"{n:03d}.png"):
        picture = f'<img loading="lazy" src="media/{n:03d}.png" alt="log-mels of {", ".join(names)}">'
    figures = ", ".join(f"{html.escape(c.heading)} {number(judged.scores[c.key].value)}" for c in report.columns)
    said = f"<p>{html.escape(row.transcript)}</p>" if row.transcript else ""
    words = "".join(
        f"<p>{html.escape(name)}: {mark_words(wanted, heard)}</p>" for name, (wanted, heard) in judged.texts.items()
    )
    title = f"{html.escape(row.label)}: {html.escape(row.judged.name)}"
    return (
        f'<article id="{n}"><h3>{title}</h3>{said}<div class="words">{words}</div>'
        f'<div class="players">{"".join(players)}</div><p>{figures}</p>{picture}</article>'
    )


def _draw(mels: Sequence[torch.Tensor], names: Sequence[str], path: Path) -> bool:
    try:
        figure = make_figure(4 * len(mels), 2.6)
    except ConfigError:
        return False
    panels: Any = figure.subplots(1, len(mels), sharey=True, squeeze=False)[0]
    for axes, mel, name in zip(panels, mels, names, strict=True):
        draw_mel(axes, mel, MelConfig())
        axes.set(title=name, xlabel="s")
    figure.savefig(path, dpi=80)
    return True


def _body(report: Report, rows: Sequence[Judged], articles: Sequence[str], differences: Sequence[Difference]) -> str:
    means = report.means()
    systems = "".join(f"<th>{html.escape(label)}</th>" for label in report.labels)
    lines = ""
    for column in report.columns:
        cells = "".join(
            f'<td class="{"best" if is_best(means, label, column) else ""}">{number(means[label][column.key])}</td>'
            for label in report.labels
        )
        lines += f"<tr><td>{html.escape(column.meaning)}</td>{cells}</tr>"
    headline = [c for c in report.columns if c.headline]
    head = "".join(f'<th title="{html.escape(c.meaning)}">{html.escape(c.heading)}</th>' for c in headline)
    files = ""
    for n, judged in enumerate(rows):
        cells = "".join(f"<td>{number(judged.scores[c.key].value)}</td>" for c in headline)
        files += (
            f'<tr><td><a href="#{n}">{html.escape(judged.row.label)} {html.escape(judged.row.judged.name)}</a></td>{cells}</tr>'
        )
    problems = "".join(f"<li>{html.escape(line)}</li>" for line in (*report.missing, *report.problems))
    judges = "".join(f"<li>{html.escape(name)}: {html.escape(identity)}</li>" for name, identity in report.judges.items())
    compared = (
        f"<h2>Differences, pair by pair</h2>{make_table(differences_table(differences, every=True))}" if differences else ""
    )
    missing = f"<h2>Not judged</h2><ul>{problems}</ul>" if problems else ""
    return (
        f'{STYLE}<div class="wide"><table><tr><th>score</th>{systems}</tr>{lines}</table></div>{missing}{compared}'
        f'<h2>Every file, the worst first</h2><div class="wide"><table><tr><th>file</th>{head}</tr>{files}</table></div>'
        f"{''.join(articles)}<h2>Judges</h2><ul>{judges}</ul>"
    )
