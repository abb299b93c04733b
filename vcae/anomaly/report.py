"""Report on labelled recordings: metrics with their intervals, curves, and the worst mistakes with audio players and pictures."""

from __future__ import annotations

import csv
import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcae.anomaly import metrics
from vcae.anomaly.metrics import CostTable, Curve, Interval
from vcae.audio.io import read_sound
from vcae.figures.page import add_player, make_page, make_table
from vcae.figures.plot import make_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NORMAL, ANOMALOUS = "#2a7fb8", "#d1495b"
MARKS = ("#111111", "#e69f00", "#009e73", "#7b3294", "#8c564b", "#17becf")
HEADINGS = {
    "auc": "AUC",
    "pauc": "pAUC (FPR up to .1)",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "cost": "expected cost",
}
MEANINGS = (
    "AUC: how often an anomalous recording scores above a normal one; .5 is chance.",
    "pAUC: the area at false alarm rates up to .1, standardised (McClish): .5 is chance, 1 is perfect.",
    "Precision, recall and F1 are those of the threshold on these recordings; precision and F1 depend on how many of them are anomalous.",
    "Expected cost: per recording, at the prior: prior x cost of a miss x P(miss) + (1 - prior) x cost of a false alarm x P(false alarm).",
    "In brackets: the 95 % bootstrap interval over recordings, resampled within each label.",
)


@dataclass(frozen=True)
class Scored:
    """Labelled recording with its score.

    Attributes:
        path: The sound file.
        anomalous: Its label.
        score: Larger is more anomalous.
        p_value: Fraction of normal recordings that would score at least as high; None if unknown.
    """

    path: Path
    anomalous: bool
    score: float
    p_value: float | None = None


@dataclass(frozen=True)
class Judged:
    """Metrics of a set of recordings, as shown on the page.

    Attributes:
        scored: The recordings.
        threshold: Recordings that score at least this are called anomalous.
        reason: Description of how the threshold was chosen.
        costs: Costs of mistakes.
        figures: AUC, pAUC, precision, recall, F1 and expected cost, with their intervals.
        compared: Other thresholds by name, each with its expected cost on the same recordings.
    """

    scored: Sequence[Scored]
    threshold: float
    reason: str
    costs: CostTable
    figures: Mapping[str, Interval]
    compared: Mapping[str, tuple[float, float]]

    @property
    def labels(self) -> np.ndarray:
        """(n,) bool."""
        return np.array([s.anomalous for s in self.scored])

    @property
    def scores(self) -> np.ndarray:
        """(n,) float64."""
        return np.array([s.score for s in self.scored])


def judge(
    scored: Sequence[Scored],
    threshold: float,
    reason: str,
    costs: CostTable,
    others: Mapping[str, float] | None = None,
    n: int = 1000,
    seed: int = 0,
) -> Judged:
    """Compute the metrics of scored recordings.

    Args:
        scored: Recordings of both labels.
        threshold: Threshold of the detector.
        reason: Description of how it was chosen.
        costs: Costs of mistakes.
        others: Other thresholds to compare, by name.
        n: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        DataError: If recordings of one label are missing.
    """
    labels, scores = metrics.check([s.anomalous for s in scored], [s.score for s in scored])
    curve = metrics.roc(labels, scores)
    at = int(np.argmin(curve.cost(costs)))
    compared = {
        "chosen": threshold,
        **(others or {}),
        "best on these recordings, in hindsight": float(curve.thresholds[at]),
    }
    return Judged(
        scored,
        threshold,
        reason,
        costs,
        metrics.summarize([(labels, scores)], threshold, costs, n, seed),
        {name: (value, metrics.expected_cost(labels, scores, value, costs)) for name, value in compared.items()},
    )


def write_report(
    judged: Judged,
    folder: Path,
    facts: Mapping[str, Any],
    draw: Callable[[Path, Path], None] | None = None,
    n_worst: int = 5,
) -> Path:
    """Write `scores.csv`, `metrics.json` and `index.html` with its sounds and pictures into a folder.

    Args:
        judged: From `judge`.
        folder: Created if needed.
        facts: Plain data on the run, shown on the page.
        draw: Function that draws the detector's result for a recording (first path) as a PNG (second path).
        n_worst: Number of false alarms and of misses that are shown.

    Returns:
        The page.

    Raises:
        ConfigError: If matplotlib is missing.
    """
    media = folder / "media"
    media.mkdir(parents=True, exist_ok=True)
    _write_data(judged, folder, facts)
    _draw_curves(judged, media)
    body = make_table(_figure_rows(judged)) + "".join(f"<li>{html.escape(line)}</li>" for line in MEANINGS).join(
        ("<ul>", "</ul>")
    )
    body += f"<h2>Threshold</h2><p>{judged.threshold:.4g}: {html.escape(judged.reason)}</p>" + make_table(
        _threshold_rows(judged)
    )
    alt = {"roc": "ROC curve", "scores": "histogram of the scores", "cost": "expected cost over the threshold"}
    body += "".join(f'<img src="media/{name}.png" alt="{text}" style="max-width: 38rem">' for name, text in alt.items())
    for title, rows in worst(judged, n_worst).items():
        body += f"<h2>{title}</h2>" + ("" if rows else "<p>None.</p>")
        for n, row in enumerate(rows):
            body += _article(judged, row, media, f"{title.lower().replace(' ', '_')}_{n}", draw)
    page = folder / "index.html"
    page.write_text(make_page("Anomalies, judged", dict(facts), body), encoding="utf-8")
    return page


def worst(judged: Judged, n: int) -> dict[str, list[Scored]]:
    """Return the n false alarms that scored highest and the n misses that scored lowest."""
    alarms = [s for s in judged.scored if not s.anomalous and s.score >= judged.threshold]
    misses = [s for s in judged.scored if s.anomalous and s.score < judged.threshold]
    return {
        "False alarms": sorted(alarms, key=lambda s: -s.score)[:n],
        "Misses": sorted(misses, key=lambda s: s.score)[:n],
    }


def _write_data(judged: Judged, folder: Path, facts: Mapping[str, Any]) -> None:
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "label", "score", "p_value", "decision"])
        for s in judged.scored:
            label, called = ("anomalous" if kind else "normal" for kind in (s.anomalous, s.score >= judged.threshold))
            writer.writerow([s.path, label, repr(s.score), "" if s.p_value is None else s.p_value, called])
    made = metrics.decide(judged.labels, judged.scores, judged.threshold)
    values = {
        "facts": dict(facts),
        "threshold": judged.threshold,
        "reason": judged.reason,
        "costs": vars(judged.costs),
        "counts": vars(made),
        "figures": {name: vars(found) for name, found in judged.figures.items()},
        "thresholds": {name: {"threshold": at, "cost": cost} for name, (at, cost) in judged.compared.items()},
    }
    (folder / "metrics.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _figure_rows(judged: Judged) -> list[list[str]]:
    made = metrics.decide(judged.labels, judged.scores, judged.threshold)
    counts = (
        f"{made.hits} of {made.hits + made.misses} found, {made.false_alarms} of {made.false_alarms + made.passes} false alarms"
    )
    return [["recordings", *HEADINGS.values()], [counts, *(str(judged.figures[key]) for key in HEADINGS)]]


def _threshold_rows(judged: Judged) -> list[list[str]]:
    rows = [["threshold", "value", "expected cost", "recall", "false alarm rate"]]
    for name, (at, cost) in judged.compared.items():
        made = metrics.decide(judged.labels, judged.scores, at)
        rows.append([name, f"{at:.4g}", f"{cost:.4f}", f"{made.recall:.3f}", f"{made.false_alarm_rate:.3f}"])
    return rows


def _article(judged: Judged, row: Scored, media: Path, name: str, draw: Callable[[Path, Path], None] | None) -> str:
    sound = read_sound(row.path)
    said = f"score {row.score:.4g}, threshold {judged.threshold:.4g}"
    if row.p_value is not None:
        said += f"; a fraction of {row.p_value:.3g} of normal recordings would score at least as high"
    player = add_player(media, name, sound.wav, sound.sample_rate, "anomalous" if row.anomalous else "normal")
    picture = ""
    if draw is not None:
        draw(row.path, media / f"{name}.png")
        picture = f'<img loading="lazy" src="media/{name}.png" alt="mel, reconstruction, error and score over time">'
    return f'<article><h3>{html.escape(str(row.path))}</h3><div class="players">{player}</div><p>{said}</p>{picture}</article>'


def _draw_curves(judged: Judged, media: Path) -> None:
    curve = metrics.roc(judged.labels, judged.scores)
    made = metrics.decide(judged.labels, judged.scores, judged.threshold)
    paints: dict[str, Callable[[Axes], None]] = {
        "roc": lambda axes: _paint_roc(axes, curve, made.false_alarm_rate, made.recall, judged),
        "scores": lambda axes: _paint_scores(axes, judged),
        "cost": lambda axes: _paint_cost(axes, curve, judged),
    }
    for name, paint in paints.items():
        figure = make_figure(6.0, 4.4)
        axes = figure.subplots()
        paint(axes)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(media / f"{name}.png", dpi=110)


def _paint_roc(axes: Axes, curve: Curve, alarms: float, recall: float, judged: Judged) -> None:
    axes.axvspan(0, metrics.MAX_FPR, color="#8882", label="where pAUC counts")
    axes.plot([0, 1], [0, 1], color="#888", linewidth=0.8, linestyle=":")
    axes.plot(curve.false_alarm_rate, curve.hit_rate, color=NORMAL, drawstyle="default", label=f"AUC {judged.figures['auc']}")
    axes.plot([alarms], [recall], "o", color=ANOMALOUS, label=f"threshold {judged.threshold:.4g}")
    axes.set(xlabel="false alarm rate", ylabel="recall", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title="ROC")
    axes.legend(loc="lower right", fontsize=8)


def _use_log(axes: Axes, scores: np.ndarray) -> bool:
    """Set a logarithmic axis for positive scores with a wide range."""
    wide = bool(scores.min() > 0 and scores.max() / scores.min() > 30)
    if wide:
        axes.set_xscale("log")
    return wide


def _paint_scores(axes: Axes, judged: Judged) -> None:
    scores, labels = judged.scores, judged.labels
    low, high = float(scores.min()), float(scores.max())
    high = high if high > low else low + 1
    n_bins = int(np.clip(2 * math.sqrt(len(scores)), 12, 60))
    edges = np.geomspace(low, high, n_bins + 1) if _use_log(axes, scores) else np.linspace(low, high, n_bins + 1)
    for kind, colour, label in ((False, NORMAL, "normal"), (True, ANOMALOUS, "anomalous")):
        axes.hist(
            scores[labels == kind],
            bins=edges.tolist(),
            color=colour,
            alpha=0.6,
            label=f"{label} ({int((labels == kind).sum())})",
        )
    axes.axvline(judged.threshold, color="#555", linestyle="--", label=f"threshold {judged.threshold:.4g}")
    axes.set(xlabel="score", ylabel="recordings", title="Scores")
    axes.legend(fontsize=8)


def _paint_cost(axes: Axes, curve: Curve, judged: Judged) -> None:
    costs = judged.costs
    _use_log(axes, judged.scores)
    # All thresholds between two neighbouring scores decide the same.
    levels = np.unique(judged.scores)
    at = np.append(levels, levels[-1] + 0.1 * (np.ptp(levels) or 1.0))
    values, misses = curve.cost(costs)[::-1], (costs.prior * costs.miss * (1 - curve.hit_rate))[::-1]
    axes.step(at, values, where="pre", color="#555", label="expected cost")
    axes.step(at, misses, where="pre", color=ANOMALOUS, linewidth=0.8, alpha=0.7, label="of misses")
    axes.step(at, values - misses, where="pre", color=NORMAL, linewidth=0.8, alpha=0.7, label="of false alarms")
    for n, (name, (where, cost)) in enumerate(judged.compared.items()):
        axes.plot([where], [cost], "osD^vP"[n % 6], color=MARKS[n % len(MARKS)], label=f"{name}: {cost:.3f}")
    title = f"Expected cost per recording (miss {costs.miss:g}, false alarm {costs.false_alarm:g}, prior {costs.prior:g})"
    axes.set(xlabel="threshold", ylabel="expected cost", ylim=(0, None))
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
