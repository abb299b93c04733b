"""Scores of recordings on the tab Anomaly, their table, and the sounds of its example."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from vcae import Sound, write_sound
from vcae.anomaly.synthetic import SAMPLE_RATE, synthesize
from vcae.demo.cards import ICON
from vcae.demo.pictures import table_html

HEAD = ("Recording", "Verdict", "Score", "Normal ones as high (p)", "Stands out", "Play")
# Largest number of alarms in 100 normal recordings that the slider offers, and its step.
MAX_ALARMS, ALARM_STEP = 20.0, 0.5
# Attribute of a row's cells: a name is not translated.
NAME_KEPT = (' translate="no"', "", "", "", "")
# Rows of the table of alarms.
ALARMS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
# Seconds of the example's sounds, and their seeds: those of one sound are normal.
EXAMPLE_S, NORMAL_SEED, OTHER_SEED = 4.0, 5, 11
N_NORMAL = 5
# Longest name with folders that is shown, in characters.
MAX_NAME = 200


@dataclass(frozen=True)
class Row:
    """Score of a recording.

    Attributes:
        name: Name, with its folders if it was chosen with them, and with its number if several recordings have it.
        score: Score; higher is less normal.
        p_value: Fraction of normal recordings with a score as high.
        places: Where it differs, in words.
        source: The recording's file.
        picture: HTML of its picture; empty if it was not drawn.
    """

    name: str
    score: float
    p_value: float
    places: str
    source: str
    picture: str


@dataclass(frozen=True)
class Judged:
    """Scores of recordings, from the highest, and what is needed to choose a threshold.

    Attributes:
        rows: Scores.
        own: The detector's own threshold; None if it has none.
        thresholds: Threshold for each number of alarms in 100 normal recordings that the slider offers.
    """

    rows: tuple[Row, ...]
    own: float | None
    thresholds: Mapping[float, float]

    def threshold(self, alarms: float) -> float | None:
        """Return the threshold for a position of the slider; at 0 it is the detector's own, or None."""
        return self.thresholds[alarms] if alarms else self.own


def unique_names(paths: Sequence[str], chosen: str = "") -> list[str]:
    """Return the names of files; of those with the same name, also the position in the list.

    Args:
        paths: Files.
        chosen: JSON list of the paths in the folders that they were chosen from, as the browser sent it; not used if its length differs.
    """
    names = [Path(path).name for path in paths]
    try:
        given = json.loads(chosen or "[]")
    except ValueError:
        given = []
    if isinstance(given, list) and len(given) == len(paths):
        names = [str(path)[:MAX_NAME] for path in given]
    return [f"{name} ({n})" if names.count(name) > 1 else name for n, name in enumerate(names, 1)]


def _percent(share: float) -> str:
    return "under 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def judged_html(made: Judged, alarms: float) -> str:
    """Return the HTML of the scores, of the verdicts for a number of alarms, and of the table of alarms."""
    at = made.threshold(alarms)
    body = "".join(_row_html(row, at) for row in made.rows)
    head = "".join(f"<th scope='col'>{cell}</th>" for cell in HEAD)
    table = f'<div class="vcae-table" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    rows = [
        (f"{each:g}", f"{made.thresholds[each]:.3g}", str(sum(row.score >= made.thresholds[each] for row in made.rows)))
        for each in ALARMS
    ]
    costs = table_html(("Alarms in 100 normal ones", "Threshold", f"Of these {len(made.rows)}, anomalous"), rows)
    return table + f"<h3>What a threshold costs</h3>{costs}" + "".join(row.picture for row in made.rows)


def _row_html(row: Row, at: float | None) -> str:
    verdict = "no threshold" if at is None else "anomalous" if row.score >= at else "normal"
    cells = (row.name, verdict, f"{row.score:.2f}", _percent(row.p_value), row.places)
    shown = "".join(f"<td{kept}>{html.escape(cell)}</td>" for cell, kept in zip(cells, NAME_KEPT, strict=True))
    address = html.escape(f"gradio_api/file={quote(row.source)}")
    name = html.escape(row.name)
    play = f'<button type="button" class="vcae-voice-play" aria-pressed="false" aria-label="Play {name}" data-src="{address}">{ICON}</button>'
    return f"<tr>{shown}<td>{play}</td></tr>"


def write_example(folder: Path) -> tuple[list[Path], list[Path]]:
    """Write synthetic sounds into a folder: those of one machine, and one of it and two of another to judge.

    Returns:
        Files of normal recordings, and of recordings to judge.
    """
    rng = np.random.default_rng(0)
    normal = synthesize(NORMAL_SEED, EXAMPLE_S * (N_NORMAL + 1))
    step = len(normal) // (N_NORMAL + 1)
    pieces = [normal[n * step : (n + 1) * step] for n in range(N_NORMAL + 1)]
    knocking = pieces[-1].copy()
    knocking[rng.integers(0, step, 12)] += 0.9
    others = {"normal": pieces[-1], "knocking": np.clip(knocking, -1, 1), "another": synthesize(OTHER_SEED, EXAMPLE_S)}
    learned = [_write(folder / f"machine-{n}.wav", wav) for n, wav in enumerate(pieces[:-1], 1)]
    return learned, [_write(folder / f"{name}.wav", wav) for name, wav in others.items()]


def _write(path: Path, wav: np.ndarray) -> Path:
    write_sound(path, Sound(wav.astype(np.float32), SAMPLE_RATE), "")
    return path
