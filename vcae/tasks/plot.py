"""Pictures: a mel with its units under it."""

from __future__ import annotations

import colorsys
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vcae.audio.mel import mel_band_edges
from vcae.config import MelConfig
from vcae.errors import ConfigError
from vcae.tasks.unit_files import Units, write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches: of a second, and the least and most of a picture.
SECOND_IN = 3.0
WIDTH_IN = (7.0, 48.0)
HEIGHT_IN = 3.8
MARGIN_IN = 0.9
DPI = 110
FONT_PT = 6.5
TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000)
# The darkest and brightest of a mel, in nats under its loudest.
RANGE = 9.0


def need_matplotlib() -> None:
    """Raise ConfigError if matplotlib, which only pictures need, is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("pictures need matplotlib, which is not installed; pip install 'vcae[train]'") from error


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that many inches that draws to files alone, without a window or any global state.

    Raises:
        ConfigError: If matplotlib is missing.
    """
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_mel(axes: Axes, mel: Tensor, config: MelConfig) -> None:
    """Draw a log-mel (n_mels, T) over seconds, its bands labelled in Hz."""
    values = mel.detach().float().cpu().numpy()
    half = 0.5 / config.frame_rate
    extent = (-half, (values.shape[1] - 0.5) / config.frame_rate, -0.5, config.n_mels - 0.5)
    top = float(values.max(initial=-math.inf)) if values.size else 0.0
    axes.imshow(
        values, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=top - RANGE, vmax=top, interpolation="nearest"
    )
    centres = mel_band_edges(config)[1:-1].numpy()
    shown = [hz for hz in TICKS_HZ if centres[0] <= hz <= config.f_max]
    axes.set_yticks(np.interp(shown, centres, np.arange(config.n_mels)), [f"{hz}" for hz in shown])
    axes.set_ylabel("Hz")


def unit_colour(unit: int) -> tuple[float, float, float]:
    """Return the colour of a unit: always the same one, and unlike that of the next number."""
    golden = 0.618033988749895
    return colorsys.hsv_to_rgb((unit * golden) % 1.0, 0.28 + 0.3 * ((unit * golden * 7) % 1.0), 0.82 + 0.16 * ((unit // 3) % 2))


def draw_strip(axes: Axes, units: Units, points_per_s: float) -> None:
    """Draw units as a strip of runs, each of its unit's colour and with its number where that fits.

    Args:
        axes: Where; a unit of time is a second.
        units: With times.
        points_per_s: Width of a second on paper.
    """
    runs = units.collapse()
    times = runs.times()
    starts, ends = np.array(times).T
    wide = points_per_s * (ends - starts)
    # Lines between runs would hide runs that are hardly wider than they.
    line = 0.6 if float(np.median(wide)) > 3 else 0.0
    colours = [unit_colour(unit) for unit in runs.units]
    spans = list(zip(starts.tolist(), (ends - starts).tolist(), strict=True))
    axes.broken_barh(spans, (0, 1), facecolors=colours, edgecolors="white", linewidths=line)
    for unit, start, end, room in zip(runs.units, starts, ends, wide, strict=True):
        text = str(unit)
        upright = room >= 0.62 * FONT_PT * len(text) + 1.5
        if upright or room >= 0.85 * FONT_PT:
            place: dict[str, Any] = {"ha": "center", "va": "center", "rotation": 0 if upright else 90, "clip_on": True}
            axes.text((start + end) / 2, 0.5, text, fontsize=FONT_PT, color="black", **place)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_ylabel("units")


def draw_units(path: str | Path, mel: Tensor, units: Units, config: MelConfig | None = None, title: str | None = None) -> None:
    """Draw a mel with its units under it, on one axis of time.

    Args:
        path: Of the PNG.
        mel: (n_mels, T), natural log magnitude.
        units: With times, collapsed or not.
        config: Of the mel; the default when None.
        title: The units' name when None.

    Raises:
        ConfigError: If matplotlib is missing.
        DataError: If the units have no times, or the file cannot be written.
    """
    config = config or MelConfig()
    seconds = max(units.duration_s, 1e-3)
    width = min(max(MARGIN_IN + SECOND_IN * seconds, WIDTH_IN[0]), WIDTH_IN[1])
    figure = make_figure(width, HEIGHT_IN)
    from matplotlib.ticker import MaxNLocator

    panels: Any = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
    with torch.no_grad():
        draw_mel(panels[0], mel, config)
    draw_strip(panels[1], units, 72 * (width - MARGIN_IN) / seconds)
    runs = units.collapse().units
    facts = f"{len(runs)} runs of {len(set(runs))} units" + (
        "" if units.codebook_size is None else f" out of {units.codebook_size}"
    )
    panels[0].set_title(f"{units.name if title is None else title}   ({facts})", fontsize=9, loc="left", parse_math=False)
    panels[1].set_xlabel("s")
    panels[1].set_xlim(0, seconds)
    panels[1].xaxis.set_major_locator(MaxNLocator(nbins=int(width), steps=[1, 2, 5, 10]))
    for axes in panels:
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    write_file(Path(path), buffer.getvalue())
