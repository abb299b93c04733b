"""The rate/distortion picture: error and PESQ against values per second, and error against bits per second."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcae.figures.plot import make_figure

AE, PCA, DRAWN = "#1f6fb2", "#c2571a", "#5b8c2a"


def draw(rows: Sequence[Mapping[str, Any]], scores: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw the results of `evaluate.py`; the middle panel needs the scores of the judges.

    Args:
        rows: Results of each rung.
        scores: Means by label; may be empty.
        path: The PNG to write.
    """
    plain = [row for row in rows if "pca_mel_db" in row]
    variational = sorted((row for row in rows if "bits_s" in row), key=lambda row: row["bits_s"])
    figure = make_figure(5.0 * (2 + bool(scores)), 4.2)
    panels = iter(figure.subplots(1, 2 + bool(scores)))
    _by_size(
        next(panels),
        plain,
        [row["mel_db"] for row in plain],
        [row["pca_mel_db"] for row in plain],
        "error of the log-mel (dB RMS)",
    )
    if scores:
        axes = next(panels)
        values = [[scores[f"{kind}-{row['rung']}"]["pesq_wb"] for row in plain] for kind in ("ae", "pca")]
        _by_size(axes, plain, *values, "PESQ-wb of the sound")
        _limit(axes, scores["vocoder"]["pesq_wb"], "vocoder alone, the mel itself")
    _by_bits(next(panels), variational, plain)
    figure.savefig(path, dpi=150)


def _by_size(axes: Any, plain: Sequence[Mapping[str, Any]], own: list[float], linear: list[float], label: str) -> None:
    x = [row["numbers_s"] for row in plain]
    axes.plot(x, own, "o-", color=AE, label="autoencoder")
    axes.plot(x, linear, "s--", color=PCA, label="principal components")
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{row['numbers_s']:.4g}\n({row['dim']})" for row in plain])
    axes.minorticks_off()
    axes.set_xlabel("numbers a second (a step)")
    _finish(axes, label)


def _by_bits(axes: Any, variational: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]]) -> None:
    x = [row["bits_s"] / 1000 for row in variational]
    axes.plot(x, [row["drawn_mel_db"] for row in variational], "o-", color=DRAWN, label="a draw is decoded")
    axes.plot(x, [row["mel_db"] for row in variational], "o:", color=DRAWN, mfc="white", label="the mean is decoded")
    for row, at in zip(variational, x, strict=True):
        axes.annotate(
            f"weight {row['rung'].partition('kl')[2]}",
            (at, row["drawn_mel_db"]),
            (6, 5),
            textcoords="offset points",
            fontsize=8,
        )
    same = [row for row in plain if variational and row["dim"] == variational[0]["dim"]]
    if same:
        _limit(axes, same[0]["mel_db"], f"plain, {same[0]['dim']} values per step")
    axes.set_xlabel("KL from the prior (kbit/s)")
    axes.margins(x=0.2, y=0.12)
    axes.set_xlim(left=0)
    _finish(axes, "error of the log-mel (dB RMS)")


def _limit(axes: Any, value: float, text: str) -> None:
    axes.axhline(value, color="0.45", lw=1, ls=":")
    axes.annotate(
        text,
        (0.02, value),
        (0, -4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="top",
        fontsize=8,
        color="0.35",
    )


def _finish(axes: Any, label: str) -> None:
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
