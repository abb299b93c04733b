"""Pictures of recordings: mel, F0 and units, with several recordings on one scale."""

from __future__ import annotations

import colorsys
import io
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vcae.audio.config import MelConfig
from vcae.audio.f0 import estimate_f0
from vcae.audio.frames import n_frames
from vcae.audio.io import Sound, resample_blocks
from vcae.audio.mel import LogMel, mel_band_edges
from vcae.errors import ConfigError, DataError
from vcae.files import write_file
from vcae.tasks.unit_files import Units

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In inches: width of a second, and smallest and largest width of a picture.
SECOND_IN = 3.0
WIDTH_IN = (7.0, 48.0)
HEIGHT_IN = 3.8
MARGIN_IN = 0.9
DPI = 110
FONT_PT = 6.5
TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000)
# Most columns of a drawn mel: each is the mean power of its frames. Frames of which the mel of a long recording is computed at a time.
MEL_COLUMNS, MEL_FRAMES = 2000, 4096
# Axes longer than this are labelled in minutes and seconds.
MINUTES_S = 120.0
# Recordings longer than this have their F0 drawn as a contour of this number of parts.
CONTOUR_S, CONTOUR_BINS = 45.0, 240
# Pictures of recordings: width of a column and height of each kind of panel in inches, formats by suffix, and smallest range of F0 in Hz and
# as a ratio.
COLUMN_IN = (4.6, 20.0)
PANEL_IN = {"mel": 1.9, "f0": 1.0, "units": 0.5}
PICTURES = {".png": "png", ".svg": "svg"}
F0_RANGE_HZ = (80.0, 260.0)
F0_TICKS_HZ = (60, 80, 100, 150, 200, 300, 400, 600, 800)
F0_COLOUR = "#1f9e89"
# Grey on a transparent background, legible on light and dark pages.
NEUTRAL = "#7d8590"
# Dynamic range of a drawn mel, in nats below its maximum.
RANGE = 9.0


def need_matplotlib() -> None:
    """Import matplotlib without leaving anything below HOME; raise ConfigError if it, which only pictures need, is missing."""
    try:
        if "matplotlib" in sys.modules or os.environ.get("MPLCONFIGDIR") or _uses_matplotlib():
            import matplotlib  # noqa: F401
        else:
            _import_without_trace()
    except ImportError as error:
        raise ConfigError("pictures need matplotlib, which is not installed; pip install 'vcae[demo]'") from error


def _uses_matplotlib() -> bool:
    """Return whether this user has matplotlib's folders of settings and cached fonts already."""
    home = Path(os.path.expanduser("~"))
    settings, cache = (os.environ.get(f"XDG_{kind}_HOME") for kind in ("CONFIG", "CACHE"))
    folders = (
        Path(settings or home / ".config") / "matplotlib",
        Path(cache or home / ".cache") / "matplotlib",
        home / ".matplotlib",
    )
    return any(folder.exists() for folder in folders)


def _import_without_trace() -> None:
    """Import matplotlib with its folders in a temporary one; it finds the fonts in a tenth of a second."""
    with tempfile.TemporaryDirectory(prefix="vcae-") as folder:
        os.environ["MPLCONFIGDIR"] = folder
        try:
            import matplotlib.font_manager  # noqa: F401
        finally:
            del os.environ["MPLCONFIGDIR"]


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches that draws to files only, without a window or global state.

    Raises:
        ConfigError: If matplotlib is missing.
    """
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def pool_mel(mel: np.ndarray, n_columns: int = MEL_COLUMNS) -> np.ndarray:
    """Return a log-mel (n_mels, T) with at most `n_columns` columns, each the mean power of as many frames: pixels would show one of them."""
    n = mel.shape[1]
    if n <= n_columns:
        return mel
    edges = np.linspace(0, n, n_columns + 1).astype(int)
    sums = np.add.reduceat(np.exp(2 * mel.astype(np.float64)), edges[:-1], axis=1)
    return np.asarray(0.5 * np.log(sums / np.diff(edges)), np.float32)


def draw_mel(axes: Axes, mel: Tensor, config: MelConfig) -> None:
    """Draw a log-mel (n_mels, T) over seconds, its bands labelled in Hz."""
    half = 0.5 / config.frame_rate
    end = (mel.shape[1] - 0.5) / config.frame_rate
    values = pool_mel(mel.detach().float().cpu().numpy())
    extent = (-half, end, -0.5, config.n_mels - 0.5)
    top = float(values.max(initial=-math.inf)) if values.size else 0.0
    axes.imshow(
        values, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=top - RANGE, vmax=top, interpolation="nearest"
    )
    centres = mel_band_edges(config)[1:-1].numpy()
    shown = [hz for hz in TICKS_HZ if centres[0] <= hz <= config.f_max]
    axes.set_yticks(np.interp(shown, centres, np.arange(config.n_mels)), [f"{hz}" for hz in shown])
    axes.set_ylabel("Hz")


def unit_colour(unit: int) -> tuple[float, float, float]:
    """Return the fixed colour of a unit, which differs clearly from those of neighbouring numbers."""
    golden = 0.618033988749895
    return colorsys.hsv_to_rgb((unit * golden) % 1.0, 0.28 + 0.3 * ((unit * golden * 7) % 1.0), 0.82 + 0.16 * ((unit // 3) % 2))


def draw_strip(axes: Axes, units: Units, points_per_s: float) -> None:
    """Draw units as a strip of coloured runs, with their numbers where they fit.

    Args:
        axes: Axes with time in seconds.
        units: Units with times.
        points_per_s: Width of a second in points.
    """
    runs = units.collapse()
    times = runs.times()
    starts, ends = np.array(times).T
    wide = points_per_s * (ends - starts)
    # Lines between runs would hide very short runs.
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
    """Draw a mel with its units below, on one time axis.

    Args:
        path: The PNG to write.
        mel: (n_mels, T), natural log magnitude.
        units: Units with times, collapsed or not.
        config: Settings of the mel; the default when None.
        title: Title; the units' name when None.

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
        _tidy(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    write_file(Path(path), buffer.getvalue())


@dataclass(frozen=True)
class Picture:
    """Picture of recordings.

    Attributes:
        data: Bytes of its file.
        left, right: Ends of the axis of time of the first column, as fractions of the picture's width.
        seconds: Length of that axis in seconds; it starts at 0.
    """

    data: bytes
    left: float
    right: float
    seconds: float


@dataclass(frozen=True)
class View:
    """Contents of a picture of a recording.

    Attributes:
        name: Title above the panels.
        mel: (n_mels, T), natural log magnitude.
        f0: (T,) in Hz, 0 where unvoiced.
        units: Units with times, or None.
        config: Settings of the mel.
    """

    name: str
    mel: Tensor
    f0: Tensor
    units: Units | None = None
    config: MelConfig = field(default_factory=MelConfig)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return max((self.mel.shape[-1] - 1) / self.config.frame_rate, 1e-3)

    @property
    def panels(self) -> list[str]:
        """Kinds of the panels, from the top."""
        return ["mel", "f0"] if self.units is None else ["mel", "f0", "units"]


def view_sound(sound: Sound, name: str | None = None, units: Units | None = None) -> View:
    """Compute mel and F0 of a sound without changing its level. The name is the sound's when None.

    Raises:
        AudioError: If it is too short for a frame of F0.
    """
    config = MelConfig()
    wav = np.concatenate(list(resample_blocks(sound.blocks(), sound.sample_rate, config.sample_rate)))
    return View(
        sound.name if name is None else name, _mel(wav, config), torch.from_numpy(estimate_f0(wav, config.sample_rate)), units
    )


@torch.inference_mode()
def _mel(wav: np.ndarray, config: MelConfig) -> Tensor:
    """Return the log-mel (n_mels, T) of a signal (N,), computed in sections."""
    hop, n = config.hop_length, n_frames(len(wav), config.hop_length)
    reach = config.n_fft // hop + 1
    log_mel, parts = LogMel(config), []
    for start in range(0, n, MEL_FRAMES):
        stop, first = min(start + MEL_FRAMES, n), max(start - reach, 0)
        piece = wav[first * hop :] if stop + reach >= n else wav[first * hop : (stop + reach) * hop]
        parts.append(log_mel(torch.from_numpy(piece)[None])[0, :, start - first : stop - first])
    return torch.cat(parts, dim=1)


def f0_limits(views: Sequence[View]) -> tuple[float, float]:
    """Return a range of F0 in Hz that covers all views and is at least as wide as that of a voice."""
    voiced = torch.cat([view.f0[view.f0 > 0].cpu() for view in views])
    if len(voiced) == 0:
        return F0_RANGE_HZ
    low, high = torch.quantile(voiced.float(), torch.tensor([0.01, 0.99])).tolist()
    return min(low / 1.1, F0_RANGE_HZ[0]), max(high * 1.1, F0_RANGE_HZ[1])


def f0_contour(f0: np.ndarray, n_bins: int = CONTOUR_BINS) -> np.ndarray:
    """Return the quantiles 0.1, 0.5 and 0.9 of F0 over parts of a recording.

    Args:
        f0: (T,) in Hz, 0 where unvoiced.
        n_bins: Number of parts of equal length; at most T.

    Returns:
        (3, n_bins) in Hz; nan for parts without voiced frames.
    """
    parts = np.array_split(f0, min(n_bins, len(f0)))
    none = np.full(3, np.nan)
    return np.stack([np.quantile(part[part > 0], (0.1, 0.5, 0.9)) if (part > 0).any() else none for part in parts], axis=1)


def draw_f0(axes: Axes, view: View, limits: tuple[float, float]) -> None:
    """Draw F0 over seconds on a logarithmic scale within limits in Hz, with gaps at unvoiced frames.

    Of a recording over `CONTOUR_S` the median and the middle 80 % of each of `CONTOUR_BINS` parts are drawn, as its frames would be a fence.
    """
    f0 = view.f0.detach().float().cpu().numpy()
    if len(f0) > CONTOUR_S * view.config.frame_rate:
        low, median, high = f0_contour(f0)
        seconds = (np.arange(len(median)) + 0.5) * len(f0) / len(median) / view.config.frame_rate
        axes.fill_between(seconds, low, high, color=F0_COLOUR, alpha=0.25, linewidth=0)
        axes.plot(seconds, median, color=F0_COLOUR, linewidth=1.4)
    else:
        axes.plot(np.arange(len(f0)) / view.config.frame_rate, np.where(f0 > 0, f0, np.nan), color=F0_COLOUR, linewidth=1.4)
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    axes.set_yticks([hz for hz in F0_TICKS_HZ if limits[0] <= hz <= limits[1]], minor=False)
    axes.yaxis.set_major_formatter(lambda hz, _: f"{hz:.0f}")
    axes.minorticks_off()
    axes.grid(True, axis="y", linewidth=0.4, alpha=0.5)
    axes.set_ylabel("F0, Hz")


def draw_views(
    views: Sequence[View],
    form: str = "png",
    side_by_side: bool = False,
    neutral: bool = False,
    beside: Sequence[View] = (),
    width_in: float | None = None,
) -> bytes:
    """Draw recordings above one another or side by side, on one scale of time, loudness and F0.

    Args:
        views: At least one.
        form: `png` or `svg`.
        side_by_side: Draw each recording in a column of its own, instead of one below the other.
        neutral: Draw in grey on a transparent background, for light and dark pages, instead of black on white.
        beside: Recordings of other pictures that share the scales.
        width_in: Width of a column in inches; depends on the longest recording when None.

    Returns:
        The bytes of the picture's file.

    Raises:
        ConfigError: If matplotlib is missing.
    """
    return draw_picture(views, form, side_by_side, neutral, beside, width_in).data


def draw_picture(
    views: Sequence[View],
    form: str = "png",
    side_by_side: bool = False,
    neutral: bool = False,
    beside: Sequence[View] = (),
    width_in: float | None = None,
) -> Picture:
    """Draw recordings as `draw_views` does, and return the place of the axis of time too."""
    # A recording that is in both lists counts once.
    scale = [*views, *(view for view in beside if not any(view is one for one in views))]
    figure = _views_figure(views, side_by_side, scale, width_in)
    if neutral:
        for axes in figure.axes:
            axes.tick_params(colors=NEUTRAL)
            axes.spines[:].set_color(NEUTRAL)
            axes.xaxis.label.set_color(NEUTRAL)
            axes.yaxis.label.set_color(NEUTRAL)
            axes.set_title(axes.get_title(loc="left"), fontsize=9, loc="left", parse_math=False, color=NEUTRAL)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=DPI, transparent=neutral)
    place = figure.axes[0].get_position()
    return Picture(buffer.getvalue(), float(place.x0), float(place.x1), max(view.seconds for view in scale))


def _views_figure(views: Sequence[View], side_by_side: bool, scale: Sequence[View], width_in: float | None) -> Figure:
    seconds = max(view.seconds for view in scale)
    width = width_in or min(max(MARGIN_IN + SECOND_IN / 2 * seconds, COLUMN_IN[0]), COLUMN_IN[1])
    n_columns = len(views) if side_by_side else 1
    stacks = [view.panels for view in views]
    kinds = max(stacks, key=len) if side_by_side else [kind for stack in stacks for kind in stack]
    heights = [PANEL_IN[kind] for kind in kinds]
    figure = make_figure(n_columns * width, sum(heights) + 0.4 * (1 if side_by_side else len(views)) + 0.3)
    grid: Any = figure.subplots(len(kinds), n_columns, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
    limits = f0_limits(scale)
    top = max(float(view.mel.max()) for view in scale)
    row = 0
    for n, view in enumerate(views):
        panels = grid[:, n] if side_by_side else grid[row : row + len(stacks[n]), 0]
        row += len(stacks[n])
        _draw_view(panels, view, limits, top, 72 * (width - MARGIN_IN) / seconds)
        for axes in panels[len(stacks[n]) :]:
            axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("min" if seconds > MINUTES_S else "s")
        axes.set_xlim(0, seconds)
        if seconds > MINUTES_S:
            _label_minutes(axes, seconds)
    return figure


def _label_minutes(axes: Axes, seconds: float) -> None:
    """Label an axis of time with minutes and seconds, about every eighth."""
    step = next((step for step in (15, 30, 60, 120, 300, 600, 900, 1800) if seconds / step <= 8), 3600)
    axes.set_xticks(np.arange(0, seconds, step))
    axes.xaxis.set_major_formatter(lambda at, _: f"{int(at // 60)}:{int(at % 60):02d}")


def _draw_view(panels: Any, view: View, limits: tuple[float, float], top: float, points_per_s: float) -> None:
    with torch.no_grad():
        draw_mel(panels[0], view.mel, view.config)
    panels[0].images[0].set_clim(top - RANGE, top)
    panels[0].set_title(view.name, fontsize=9, loc="left", parse_math=False)
    draw_f0(panels[1], view, limits)
    if view.units is not None:
        draw_strip(panels[2], view.units, points_per_s)
    for axes in panels:
        _tidy(axes)


def _tidy(axes: Any) -> None:
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_size(8)
    axes.yaxis.label.set_size(8)
    axes.spines[["top", "right"]].set_visible(False)


def picture_format(path: Path) -> str:
    """Return the format of a picture's file by its suffix.

    Raises:
        DataError: If the suffix is neither .png nor .svg.
    """
    if path.suffix.lower() not in PICTURES:
        raise DataError(f"{path} has the suffix {path.suffix!r}; pictures are {' or '.join(PICTURES)}")
    return PICTURES[path.suffix.lower()]
