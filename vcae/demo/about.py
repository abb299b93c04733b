"""The tab About: consent, limits, licences and the model cards."""

from __future__ import annotations

import re
from importlib import resources

import gradio as gr

from vcae import __version__
from vcae.demo.clips import clip
from vcae.demo.limits import Limits

CONSENT = """
## Consent

Convert only voices whose owners agreed, and say that the result is synthetic. Do not use it to deceive, to impersonate, or to get past a
check of identity. Every file made here carries a comment tag with the version of vcae and the checkpoint's hash; leave it in.
Converted sound also has an inaudible watermark, which the command vcae info finds.

## What it is, and is not

Trained on English at 16 kHz; words are less clear than with models a hundred times larger, and the target voice is only approximated. It
expects one speaker at a time and no music. Everything runs on the machine that serves this page: nothing is sent anywhere else, and your
uploads are not used for training.
"""
# Documents that are not translated.
ENGLISH = "vcae-english"
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]+\)")


def build(limits: Limits) -> None:
    """Add the tab's contents."""
    gr.Markdown(f"vcae {__version__}. {limits.sentence}", elem_classes="vcae-lead")
    gr.Markdown(CONSENT)
    gr.Markdown("## Licences\n\nCode: MIT. Weights: CC BY 4.0, see the model cards below. These documents are in English.")
    with gr.Accordion("The bundled recordings", open=False):
        gr.Markdown(_text(clip("NOTICE.md").read_text(encoding="utf-8")), elem_classes=ENGLISH)
    for card in sorted((resources.files("vcae") / "weights").iterdir(), key=lambda file: file.name):
        if card.name.endswith(".md"):
            with gr.Accordion(f"Model card: {card.name.removesuffix('.md')}", open=False):
                gr.Markdown(_text(card.read_text(encoding="utf-8")), elem_classes=ENGLISH)


def _text(markdown: str) -> str:
    """Return a document without its title and without links to files that the server does not offer."""
    body = markdown.split("\n", 1)[1] if markdown.startswith("# ") else markdown
    return LINK.sub(r"\1", body.replace("\n## ", "\n### "))
