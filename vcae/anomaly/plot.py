"""Picture of a detector's result: mel, reconstruction, error map, and score over time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vcae.audio.config import MelConfig
from vcae.figures.plot import DPI, RANGE, draw_mel, make_figure
from vcae.files import write_file

if TYPE_CHECKING:
    from vcae.anomaly.detector import Anomaly

# Relative error that is drawn brightest.
BRIGHTEST = 10.0
WIDTH_IN, HEIGHT_IN = 9.0, 7.2


def draw_anomaly(
    path: str | Path,
    anomaly: Anomaly,
    config: MelConfig,
    title: str,
    spans: list[tuple[float, float]] | None = None,
) -> None:
    """Draw a scored recording over seconds.

    Args:
        path: The PNG to write.
        anomaly: From `Detector.score`.
        config: Settings of the detector's mel.
        title: Title of the picture.
        spans: Start and end in s of located anomalies, shaded in the panel of the score.

    Raises:
        ConfigError: If matplotlib is missing.
        DataError: If the file cannot be written.
    """
    figure = make_figure(WIDTH_IN, HEIGHT_IN)
    panels: Any = figure.subplots(4, 1, sharex=True)
    top = float(anomaly.mel.max(initial=-RANGE))
    for axes, mel, name in ((panels[0], anomaly.mel, "mel"), (panels[1], anomaly.reconstruction, "reconstruction")):
        draw_mel(axes, torch.from_numpy(np.ascontiguousarray(mel)), config)
        # One scale for both, so that a reconstruction that is too quiet looks darker.
        axes.images[0].set_clim(top - RANGE, top)
        axes.set_title(name, fontsize=8, loc="left")
    draw_mel(panels[2], torch.from_numpy(np.ascontiguousarray(anomaly.errors)), config)
    panels[2].images[0].set_clim(0, BRIGHTEST)
    panels[2].images[0].set_cmap("inferno")
    panels[2].set_title("error relative to the usual one of its band", fontsize=8, loc="left")
    seconds = np.arange(len(anomaly.frame_scores)) * anomaly.hop_s
    for start, end in spans or []:
        panels[3].axvspan(start, end, color="#d1495b", alpha=0.25, linewidth=0)
    panels[3].plot(seconds, anomaly.frame_scores, color="#333", linewidth=0.9)
    panels[3].axhline(1, color="#888", linewidth=0.7, linestyle=":")
    panels[3].set(xlabel="s", ylabel="mean error", xlim=(0, max(float(seconds[-1]), anomaly.hop_s)), ylim=(0, None))
    said = f"{title}   score {anomaly.score:.4g}, a fraction of {anomaly.p_value:.2g} of normal recordings would score at least as high"
    figure.suptitle(said, fontsize=9, x=0.01, ha="left", parse_math=False)
    for axes in panels:
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    write_file(Path(path), buffer.getvalue())
