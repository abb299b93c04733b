"""Results of `benchmarks/codec.py`: a table, JSON, and a picture of quality over rate."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from codec_peers import PEERS

import vcae
from vcae.figures.plot import make_figure

SCORES = {
    "moonshine_wer": "WER, Moonshine",
    "whisper_wer": "WER, Whisper",
    "distillmos": "DistillMOS",
    "pesq_wb": "PESQ-wb",
    "stoi": "STOI",
    "mel_db": "mel dB",
    "cosine": "cosine",
    "ovrl": "OVRL",
    "p808": "P.808",
}
PANELS = {"whisper_wer": "WER, Whisper", "distillmos": "DistillMOS", "stoi": "STOI", "cosine": "speaker cosine"}
WIDTH_IN, HEIGHT_IN, DPI = 9.0, 6.6, 130
OURS = "vcae"
# Lines differ in marker, dashes and lightness, so that they can be distinguished without colour.
OURS_STYLE = {"color": "#b30000", "marker": "o", "linewidth": 2.6, "markersize": 7, "zorder": 3}
STYLES = [
    {"color": "#1b5e8a", "marker": "s", "linestyle": "-"},
    {"color": "#555555", "marker": "^", "linestyle": "--"},
    {"color": "#888888", "marker": "v", "linestyle": "--"},
    {"color": "#2a7f62", "marker": "D", "linestyle": "-."},
    {"color": "#7a5a9e", "marker": "X", "linestyle": ":"},
]
# Has no rate: a line across. The reference has none: it would press the others together.
CEILING = "copy"
TICKS_KBPS = (0.5, 1, 2, 4, 8, 16)


@dataclass
class Measured:
    """System with its results; speeds are multiples of real time, and None stands for missing values."""

    label: str
    codec: str
    copies: list[Path]
    kbps: float | None = None
    payload_kbps: float | None = None
    encode_x: float | None = None
    decode_x: float | None = None
    timed_s: float = 0.0
    commands: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)


def table(systems: Sequence[Measured]) -> str:
    """Return everything found as a markdown table, rows in the order of the systems."""
    judged = {key: name for key, name in SCORES.items() if any(key in system.scores for system in systems)}
    heads = ["system", "kbit/s", "payload", *judged.values(), "encode", "decode"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for system in systems:
        cells = [system.label, *("" if v is None else f"{v:.2f}" for v in (system.kbps, system.payload_kbps))]
        cells += [f"{system.scores.get(key, math.nan):.3f}" for key in judged]
        cells += ["" if v is None else f"{v:.0f}x" for v in (system.encode_x, system.decode_x)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_json(path: Path, args: argparse.Namespace, clips: list[Path], systems: list[Measured], said: list[str]) -> None:
    """Write all results and the versions used."""
    tools = {peer.package: peer.version() for peer in PEERS if any(peer.codec == system.codec for system in systems)}
    found = {
        "options": {key: value for key, value in vars(args).items() if key != "manifest"},
        "manifest": args.manifest,
        "clips": clips,
        "versions": {"vcae": vcae.__version__, "torch": torch.__version__, "python": platform.python_version(), **tools},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "said": said,
        "systems": [asdict(system) for system in systems],
    }
    # Missing measurements are null, as JSON has no NaN.
    plain = json.loads(json.dumps(found, default=str), parse_constant=lambda _: None)
    path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def draw_rates(stem: Path, systems: Sequence[Measured]) -> list[Path]:
    """Draw four scores over kbit/s on a logarithmic axis, as PNG and as SVG, and return the files.

    Raises:
        ConfigError: If matplotlib is missing.
    """
    figure = make_figure(WIDTH_IN, HEIGHT_IN)
    panels: Any = figure.subplots(2, 2, sharex=True)
    for axes, (key, name) in zip(panels.flat, PANELS.items(), strict=True):
        _draw_panel(axes, key, name, systems)
    for axes in panels[1]:
        axes.set_xlabel("kbit/s, whole file", fontsize=9)
    handles, names = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in paths:
        figure.savefig(path, dpi=DPI)
    return paths


def _draw_panel(axes: Any, key: str, name: str, systems: Sequence[Measured]) -> None:
    rated = [system for system in systems if system.kbps is not None]
    peers = [codec for codec in dict.fromkeys(s.codec for s in rated) if codec != OURS]
    for codec in dict.fromkeys(s.codec for s in rated):
        points = sorted((s.kbps, s.scores[key]) for s in rated if s.codec == codec and key in s.scores)
        style = OURS_STYLE if codec == OURS else {"markersize": 5, "linewidth": 1.2, **STYLES[peers.index(codec) % len(STYLES)]}
        kbps, values = [point[0] for point in points], [point[1] for point in points]
        axes.plot(kbps, values, label=codec, **style)
    for system in systems:
        if system.codec == CEILING and key in system.scores:
            axes.axhline(
                system.scores[key], color="#999999", linewidth=0.9, linestyle="--", zorder=0, label="our vocoder's copy"
            )
    axes.set_xscale("log")
    axes.set_xticks(TICKS_KBPS, [f"{tick:g}" for tick in TICKS_KBPS])
    axes.minorticks_off()
    axes.set_title(name, fontsize=10, loc="left")
    axes.grid(True, linewidth=0.4, alpha=0.5)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
