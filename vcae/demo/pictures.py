"""HTML of pictures, tables and notes in the page; pictures are embedded, in neutral colours for light and dark pages."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from vcae.figures.plot import View, draw_views

# Width in inches of a picture that stays legible on a phone.
NARROW_IN = 5.6


def figure_html(data: bytes, alt: str, wide: bool = False, card: bool = False) -> str:
    """Return the HTML of a PNG.

    Args:
        data: Bytes of the PNG.
        alt: Alternative text.
        wide: Scroll horizontally instead of shrinking.
        card: Draw it on a white background.
    """
    classes = " ".join(["vcae-figure", *(["vcae-wide"] if wide else []), *(["vcae-card"] if card else [])])
    picture = base64.b64encode(data).decode()
    # A scrolling picture must be reachable by keyboard.
    focus = ' tabindex="0"' if wide else ""
    return f'<figure class="{classes}"{focus}><img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}"></figure>'


def views_html(views: Sequence[View], alts: Sequence[str], wide: bool = False) -> str:
    """Return the HTML of a picture of each view, on one scale and side by side if there is space."""
    made = [
        figure_html(draw_views([view], neutral=True, beside=views, width_in=None if wide else NARROW_IN), alt, wide)
        for view, alt in zip(views, alts, strict=True)
    ]
    return f'<div class="vcae-pair">{"".join(made)}</div>'


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the HTML of a table of plain text, which scrolls horizontally if needed."""
    top = "".join(f"<th scope='col'>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="vcae-table" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def facts_html(facts: Sequence[tuple[str, str]]) -> str:
    """Return the HTML of a few large numbers with captions."""
    cells = "".join(f"<div><dt>{html.escape(what)}</dt><dd>{html.escape(value)}</dd></div>" for value, what in facts)
    return f'<dl class="vcae-facts">{cells}</dl>'


def list_html(title: str, lines: Sequence[str]) -> str:
    """Return the HTML of a scrolling list of problems, a few lines high."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<div class="vcae-list" role="status" tabindex="0"><p>{html.escape(title)}</p><ul>{items}</ul></div>'


def note_html(text: str, kind: str = "hint") -> str:
    """Return the HTML of a line of plain text below a button, of kind `hint`, `done` or `error`."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="vcae-note vcae-{kind}" role="{role}">{html.escape(text)}</p>'
