"""Pictures inside the page, without files: neutral inks that suit light and dark."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from vcae.figures.plot import View, draw_views

# Inches of a picture that is shown as wide as a phone: its letters stay legible.
NARROW_IN = 5.6


def figure_html(data: bytes, alt: str, wide: bool = False, card: bool = False) -> str:
    """Return a PNG as part of the page.

    Args:
        data: Of the PNG.
        alt: What it shows, for those who do not see it.
        wide: Scrolls sideways instead of shrinking.
        card: Stands on white.
    """
    classes = " ".join(["vcae-figure", *(["vcae-wide"] if wide else []), *(["vcae-card"] if card else [])])
    picture = base64.b64encode(data).decode()
    # A picture that scrolls must be reachable without a mouse.
    focus = ' tabindex="0"' if wide else ""
    return f'<figure class="{classes}"{focus}><img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}"></figure>'


def views_html(views: Sequence[View], alts: Sequence[str], wide: bool = False) -> str:
    """Return a picture of each view, on one scale, side by side where there is room."""
    made = [
        figure_html(draw_views([view], neutral=True, beside=views, width_in=None if wide else NARROW_IN), alt, wide)
        for view, alt in zip(views, alts, strict=True)
    ]
    return f'<div class="vcae-pair">{"".join(made)}</div>'


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain text that scrolls sideways where it must."""
    top = "".join(f"<th scope='col'>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="vcae-table" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def facts_html(facts: Sequence[tuple[str, str]]) -> str:
    """Return a few numbers, each large and with a line on what it is."""
    cells = "".join(f"<div><dt>{html.escape(what)}</dt><dd>{html.escape(value)}</dd></div>" for value, what in facts)
    return f'<dl class="vcae-facts">{cells}</dl>'


def list_html(title: str, lines: Sequence[str]) -> str:
    """Return what is wrong, line by line, as high as a few lines: the rest is scrolled to."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<div class="vcae-list" role="status" tabindex="0"><p>{html.escape(title)}</p><ul>{items}</ul></div>'


def note_html(text: str, kind: str = "hint") -> str:
    """Return a line of plain text under a button: `hint`, `done`, or `error`."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="vcae-note vcae-{kind}" role="{role}">{html.escape(text)}</p>'
