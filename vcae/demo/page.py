"""The page: header, tabs and footer."""

from __future__ import annotations

import gradio as gr

from vcae.demo import about, anomaly, api, codec, convert, denoise, features, generate, live, say, units, voices
from vcae.demo.studio import Studio

TITLE = "vcae: voice conversion"
HEAD = """<h1 translate="no">vcae</h1><p>Say it in another voice. Nothing leaves the computer that runs this page.</p>
<select id="vcae-language" aria-label="Language"><option value="en" lang="en">English</option>
<option value="de" lang="de">Deutsch</option><option value="zh" lang="zh">中文</option></select>"""


def build_page(studio: Studio, sessions: live.LiveSessions) -> gr.Blocks:
    """Return the page with all tabs, and the endpoints of the HTTP service behind it."""
    with _blocks(studio) as page:
        shelf = voices.Shelf(studio)
        gr.HTML(HEAD, padding=False, elem_classes="vcae-head")
        with gr.Tabs():
            with gr.Tab("Studio", id="studio-tab"):
                convert.build(studio, shelf, page)
            with gr.Tab("Live", id="live-tab"):
                live.build(studio, shelf, sessions, page)
            with gr.Tab("Clean up", id="denoise-tab"):
                denoise.build(studio)
            with gr.Tab("Voices", id="voices-tab"):
                voices.build(studio, shelf)
            with gr.Tab("Lab", id="lab-tab"):
                _build_lab(studio, shelf)
            with gr.Tab("About", id="about-tab"):
                about.build(studio.limits)
        gr.Markdown(studio.limits.sentence, elem_classes="vcae-foot")
        shelf.follow()
        api.add_endpoints(studio)
    return page


def _build_lab(studio: Studio, shelf: voices.Shelf) -> None:
    """Add the tabs of experiments."""
    gr.Markdown("Experiments with the parts of the model. Each has an example to try.", elem_classes="vcae-lead")
    with gr.Tabs(elem_id="lab"):
        with gr.Tab("Say", id="say-tab"):
            say.build(studio, shelf)
        with gr.Tab("Units", id="units-tab"):
            units.build(studio)
        with gr.Tab("Codec", id="codec-tab"):
            codec.build(studio, shelf)
        with gr.Tab("Generate", id="generate-tab") as tab:
            generate.build(studio, shelf, tab)
        with gr.Tab("Features", id="features-tab"):
            features.build(studio)
        with gr.Tab("Anomaly", id="anomaly-tab"):
            anomaly.build(studio)


def build_service(studio: Studio) -> gr.Blocks:
    """Return the HTTP service, whose page is its manual."""
    with _blocks(studio) as page:
        api.build(studio)
    return page


def _blocks(studio: Studio) -> gr.Blocks:
    age = max(1, int(60 * studio.limits.minutes))
    return gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(min(60, age), age))
