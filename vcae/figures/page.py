"""Pages of results: players, pictures and tables in one style, as plain HTML files without scripts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8885; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
.best { font-weight: 700; }
article { margin: 1.6rem 0; border-top: 1px solid #8885; padding-top: .6rem; }
.players { display: flex; flex-wrap: wrap; gap: 1rem; }
audio { display: block; width: 15rem; height: 2.2rem; }
img { width: 100%; max-width: 70rem; margin-top: .6rem; }
small, caption { color: #888; }
"""


def make_page(title: str, facts: dict[str, object], body: str) -> str:
    """Return a whole page.

    Args:
        title: Plain text, for the window's title and the heading.
        facts: Facts about the run, in small print below the title.
        body: HTML.
    """
    known = ", ".join(f"{html.escape(str(k))}: {html.escape(str(v))}" for k, v in facts.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
        f"<p><small>{known}</small></p>{body}</body></html>\n"
    )


def make_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain text, whose first row is the heading."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def add_player(media: Path, name: str, wav: np.ndarray, sample_rate: int, caption: str) -> str:
    """Write a sound (N,) as `media/NAME.flac` and return its player, for a page next to the folder `media`."""
    import soundfile

    soundfile.write(media / f"{name}.flac", wav, sample_rate)
    return (
        f"<figure><figcaption>{html.escape(caption)}</figcaption>"
        f'<audio controls preload="none" src="{media.name}/{name}.flac"></audio></figure>'
    )
