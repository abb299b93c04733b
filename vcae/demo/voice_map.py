"""The map of voices on the tab Generate: training speakers, a dozen new voices, and the generated one."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np

from vcae.demo.pictures import figure_html
from vcae.figures.plot import NEUTRAL, make_figure, need_matplotlib
from vcae.voice.new import Place, map_axes, map_voices, priors
from vcae.voice.new import draw as draw_voice

SEEDS = tuple(range(1, 13))
# Small with a high resolution: legible on a phone and sharp on a screen.
SIZE_IN, DPI = (4.4, 3.9), 170
LABEL_PT = 7.5
# Range of the colour scale in Hz; voices outside of it get its end colours.
RANGE_HZ = (80.0, 320.0)


@lru_cache(maxsize=1)
def dozen() -> dict[int, Place]:
    """Return the places of the dozen new voices, by seed."""
    known = priors()
    return dict(zip(SEEDS, map_voices([draw_voice(known, seed) for seed in SEEDS], known), strict=True))


def map_html(chosen: tuple[int, Place] | None = None) -> str:
    """Return the HTML of the map, with the voice of a seed marked."""
    n_known, places = len(priors().known), dozen()
    listed = "; ".join(f"{seed}: {place.f0_hz:.0f} Hz" for seed, place in places.items())
    alt = (
        f"Map of voices by the first two principal components of the speaker embedding: {n_known} training speakers as grey dots, and "
        f"{len(places)} new voices between them, coloured by median F0. Seeds and median F0: {listed}."
    )
    if chosen is not None:
        alt += f" Marked is the voice of seed {chosen[0]}, {chosen[1].f0_hz:.0f} Hz."
    caption = f"Grey: {n_known} training speakers. Coloured: new voices by their seed; colour is the median F0 in Hz."
    return figure_html(draw_map(chosen), alt, caption=caption)


@lru_cache(maxsize=32)
def draw_map(chosen: tuple[int, Place] | None = None) -> bytes:
    """Return the map as a PNG, in colours for light and dark pages.

    Raises:
        ConfigError: If matplotlib is missing.
    """
    known, places = priors(), dozen()
    need_matplotlib()
    from matplotlib.colors import Normalize

    figure = make_figure(*SIZE_IN)
    axes = figure.subplots()
    heard = (known.known @ map_axes(known)).numpy()
    axes.scatter(heard[:, 0], heard[:, 1], s=9, color=NEUTRAL, alpha=0.45, linewidths=0)
    drawn = list(places.items())
    if chosen is not None and chosen not in drawn:
        drawn.append(chosen)
    at = np.array([(place.x, place.y, place.f0_hz) for _, place in drawn])
    norm = Normalize(*RANGE_HZ)
    shown = axes.scatter(
        at[:, 0],
        at[:, 1],
        c=at[:, 2],
        s=150,
        cmap="plasma",
        norm=norm,
        edgecolors=NEUTRAL,
        linewidths=0.8,
    )
    for seed, place in drawn:
        dark = norm(place.f0_hz) < 0.6
        style: dict[str, Any] = {"color": "white" if dark else "black", "size": LABEL_PT, "weight": "bold"}
        axes.annotate(str(seed), (place.x, place.y), ha="center", va="center_baseline", **style)
    if chosen is not None:
        place = chosen[1]
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": NEUTRAL, "linewidths": 1.8}
        axes.scatter(place.x, place.y, s=360, **ring)
    bar = figure.colorbar(shown, extend="both", pad=0.02)
    bar.set_label("Hz", color=NEUTRAL, size=7.5)
    bar.outline.set_edgecolor(NEUTRAL)
    for each in (axes, bar.ax):
        each.tick_params(colors=NEUTRAL, labelsize=6.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(NEUTRAL)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, transparent=True)
    return buffer.getvalue()
