"""HTML of pictures, tables and notes in the page; pictures are embedded, in neutral colours for light and dark pages."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vcae.figures.plot import View, draw_picture

# Width in inches of a picture that stays legible on a phone.
NARROW_IN = 5.6


@dataclass(frozen=True)
class Timeline:
    """Axis of time in a picture, on which the page shows the time below the pointer.

    Attributes:
        left, right: Its ends, as fractions of the picture's width.
        seconds: Its length; it starts at 0.
    """

    left: float
    right: float
    seconds: float


def figure_html(
    data: bytes,
    alt: str,
    wide: bool = False,
    card: bool = False,
    caption: str = "",
    is_name: bool = False,
    time: Timeline | None = None,
) -> str:
    """Return the HTML of a PNG.

    Args:
        data: Bytes of the PNG.
        alt: Alternative text.
        wide: Scroll horizontally instead of shrinking.
        card: Draw it on a white background.
        caption: Text above the picture.
        is_name: The caption is a name, which is not translated.
        time: Axis of time, or None.
    """
    classes = " ".join(["vcae-figure", *(["vcae-wide"] if wide else []), *(["vcae-card"] if card else [])])
    picture = base64.b64encode(data).decode()
    # A scrolling picture must be reachable by keyboard.
    focus = ' tabindex="0"' if wide or card else ""
    kept = ' translate="no"' if is_name else ""
    above = f"<figcaption{kept}>{html.escape(caption)}</figcaption>" if caption else ""
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
    if time is not None:
        numbers = f'data-left="{time.left:.5f}" data-right="{time.right:.5f}" data-seconds="{time.seconds:.3f}"'
        image = f'<div class="vcae-timed" {numbers}>{image}</div>'
    return f'<figure class="{classes}"{focus}>{above}{image}</figure>'


def views_html(views: Sequence[View], alts: Sequence[str], wide: bool = False, is_name: bool = False) -> str:
    """Return the HTML of a picture of each view, captioned with its name, on one scale and side by side if there is space."""
    plain = [replace(view, name="") for view in views]
    made = []
    for view, bare, alt in zip(views, plain, alts, strict=True):
        drawn = draw_picture([bare], neutral=True, beside=plain, width_in=None if wide else NARROW_IN)
        time = Timeline(drawn.left, drawn.right, drawn.seconds)
        made.append(figure_html(drawn.data, alt, wide, caption=view.name, is_name=is_name, time=time))
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
