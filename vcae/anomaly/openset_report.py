"""Report on open-set classification: comparison of the scores, confusion matrix, and the worst mistakes with audio players."""

from __future__ import annotations

import csv
import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vcae.anomaly import metrics
from vcae.anomaly.config import UNKNOWN_SCORES
from vcae.anomaly.openset import Classified
from vcae.audio.io import read_sound
from vcae.figures.page import add_player, make_page, make_table
from vcae.figures.plot import make_figure

UNKNOWN = "unknown"
COLOURS = {"softmax": "#2a7fb8", "energy": "#e69f00", "distance": "#009e73"}
MEANINGS = (
    "AUROC: how often an unknown recording scores above a known one; in brackets its 95 % bootstrap interval.",
    "Accepted: known recordings accepted with the correct class. Rejected: unknown recordings called unknown.",
    "Open-set accuracy: the mean of the two, independent of the numbers of recordings.",
)


def write_open_set(
    folder: Path,
    judged: Mapping[str, Any],
    files: Sequence[str],
    truth: Sequence[str | None],
    found: Sequence[Classified],
    thresholds: Mapping[str, float],
    facts: Mapping[str, Any],
    n_worst: int = 5,
) -> Path:
    """Write `answers.csv`, `metrics.json` and `index.html` with its sounds and pictures into a folder.

    Args:
        folder: Created if needed.
        judged: From `judge_open_set`.
        files: Files of the recordings.
        truth: Their classes, None for unknown ones.
        found: Results of the model.
        thresholds: Threshold of each score.
        facts: Plain data on the run, shown on the page.
        n_worst: Number of mistakes of each kind that are shown.

    Returns:
        The page.
    """
    media = folder / "media"
    media.mkdir(parents=True, exist_ok=True)
    _write_data(folder, judged, files, truth, found, facts)
    _draw(media, np.array([t is None for t in truth]), found, thresholds)
    rows = [["score", "AUROC, unknown against known", "accepted", "rejected", "open-set accuracy"]]
    for name in UNKNOWN_SCORES:
        cells = judged[name]
        rows.append([name, str(cells["auroc"]), *(f"{cells[key]:.3f}" for key in ("accepted", "rejected", "open_accuracy"))])
    body = f"<p>Known recordings whose most likely class is correct: {judged['closed_accuracy']:.3f}.</p>" + make_table(rows)
    body += "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in MEANINGS) + "</ul>"
    body += '<img src="media/roc.png" alt="ROC curves" style="max-width: 38rem">'
    body += f"<h2>Answers</h2><p>By {html.escape(found[0].by)}: rows are true classes, columns answers.</p>"
    body += make_table(confusions(truth, found))
    for title, indices in _mistakes(truth, found, n_worst).items():
        body += f"<h2>{title}</h2>" + ("" if indices else "<p>None.</p>")
        for n, k in enumerate(indices):
            body += _article(media, f"{title.lower().replace(' ', '_')}_{n}", files[k], truth[k], found[k])
    page = folder / "index.html"
    page.write_text(make_page("Classes and the unknown, judged", dict(facts), body), encoding="utf-8")
    return page


def confusions(truth: Sequence[str | None], found: Sequence[Classified]) -> list[list[str]]:
    """Return the confusion matrix of classes and answers, with a heading row first."""
    counts = Counter((t or UNKNOWN, f.label or UNKNOWN) for t, f in zip(truth, found, strict=True))
    answers = sorted({f for _, f in counts} | {t for t, _ in counts}, key=lambda name: (name == UNKNOWN, name))
    rows = [name for name in answers if any(t == name for t, _ in counts)]
    return [["", *answers], *([row, *(str(counts[row, answer] or "") for answer in answers)] for row in rows)]


def _mistakes(truth: Sequence[str | None], found: Sequence[Classified], n: int) -> dict[str, list[int]]:
    """Return the indices of accepted unknown recordings and of rejected known ones, the most confident first."""
    order = np.argsort([f.scores[f.by] for f in found]).tolist()
    taken = [k for k in order if truth[k] is None and found[k].label is not None]
    refused = [k for k in reversed(order) if truth[k] is not None and found[k].label is None]
    return {"Unknown but accepted": taken[:n], "Known but rejected": refused[:n]}


def _article(media: Path, name: str, file: str, truth: str | None, found: Classified) -> str:
    sound = read_sound(file)
    player = add_player(media, name, sound.wav, sound.sample_rate, truth or UNKNOWN)
    said = f"taken for {found.label or UNKNOWN}, likeliest {found.best} with {found.confidence:.2f}; "
    said += ", ".join(f"{key} {value:.3g}" for key, value in found.scores.items())
    return f'<article><h3>{html.escape(file)}</h3><div class="players">{player}</div><p>{html.escape(said)}</p></article>'


def _write_data(
    folder: Path,
    judged: Mapping[str, Any],
    files: Sequence[str],
    truth: Sequence[str | None],
    found: Sequence[Classified],
    facts: Mapping[str, Any],
) -> None:
    with (folder / "answers.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "truth", "answer", "best", "confidence", *UNKNOWN_SCORES])
        for file, t, f in zip(files, truth, found, strict=True):
            scores = [repr(f.scores[name]) for name in UNKNOWN_SCORES]
            writer.writerow([file, t or UNKNOWN, f.label or UNKNOWN, f.best, repr(f.confidence), *scores])
    plain = {
        name: {k: vars(v) if k == "auroc" else v for k, v in cells.items()} if isinstance(cells, dict) else cells
        for name, cells in judged.items()
    }
    (folder / "metrics.json").write_text(json.dumps({"facts": dict(facts), **plain}, indent=1) + "\n", encoding="utf-8")


def _draw(media: Path, unknown: np.ndarray, found: Sequence[Classified], thresholds: Mapping[str, float]) -> None:
    figure = make_figure(6.0, 4.4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#888", linewidth=0.8, linestyle=":")
    for name in UNKNOWN_SCORES:
        scores = np.array([f.scores[name] for f in found])
        curve = metrics.roc(unknown, scores)
        area = metrics.auc(unknown, scores)
        axes.plot(curve.false_alarm_rate, curve.hit_rate, color=COLOURS[name], label=f"{name}, AUROC {area:.3f}")
        called = scores > thresholds[name]
        axes.plot([called[~unknown].mean()], [called[unknown].mean()], "o", color=COLOURS[name])
    axes.set(xlabel="known recordings called unknown", ylabel="unknown recordings called unknown")
    axes.set_title("Unknown against known; dots are the model's thresholds", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(media / "roc.png", dpi=110)
