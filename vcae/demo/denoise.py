"""The tab Clean up: remove background noise, with one player that compares before and after."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from vcae import read_sound
from vcae.demo.clips import clip
from vcae.demo.compare import compare, downloads_html, player_html
from vcae.demo.pictures import note_html, views_html
from vcae.demo.studio import Studio, session_of, shows_errors
from vcae.demo.waiting import timed
from vcae.demo.work import denoise_file
from vcae.figures.plot import view_sound
from vcae.options import DENOISE_STRENGTH

WAITING = "The cleaned recording appears here."


def build(studio: Studio) -> None:
    """Add the tab's contents and its events."""
    gr.Markdown(
        "Removes background noise from speech: fans, rain, traffic, engines, and some of a room's reverberation. Sample rate and channels stay.",
        elem_classes="vcae-lead",
    )
    sources: Any = ["upload", "microphone"]
    last = gr.State({}, time_to_live=60 * studio.limits.minutes * 4)
    source = gr.Audio(
        sources=sources, type="filepath", buttons=[], min_width=280, label="A noisy recording", elem_id="denoise-source"
    )
    strength = gr.Slider(
        0,
        1,
        value=DENOISE_STRENGTH,
        step=0.05,
        label="How much",
        info="More removes more noise, and may blur words. 0 changes nothing.",
        elem_id="denoise-strength",
    )
    with gr.Row(elem_classes="vcae-actions"):
        go = gr.Button("Clean up", variant="primary", elem_id="denoise-go", scale=3)
        example = gr.Button("Try an example", elem_id="denoise-example", scale=2)
        stop = gr.Button("Stop", elem_id="denoise-stop", elem_classes="vcae-stop", scale=1, min_width=100)
    status = gr.HTML(note_html(WAITING), padding=False, elem_id="denoise-status", elem_classes="vcae-status")
    with gr.Column(visible=False, elem_id="denoise-result", elem_classes="vcae-result") as result:
        player = gr.HTML(padding=False, elem_id="denoise-player")
        with gr.Accordion("Picture", open=False, elem_id="denoise-drawing") as drawing:
            pictures = gr.HTML(padding=False, elem_id="denoise-pictures")

    @shows_errors(studio, status)
    def work(
        source: str | None,
        strength: float,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        start = time.perf_counter()
        with studio.job(session_of(request)) as check:
            done = denoise_file(studio, source, strength, check, timed(progress))
            took = time.perf_counter() - start
            progress(0.95, desc="preparing the player")
            made = compare(done.path.with_name("compare.flac"), done.source, done.sound)
        text = f"Done: {done.source.duration_s:.1f} s cleaned in {took:.1f} s."
        shown = player_html(studio, made, ("Before", "After")) + downloads_html(studio, done.path, "denoise-download")
        last = {"source": source, "path": str(done.path)}
        return [note_html(text, "done"), gr.update(visible=True), shown, gr.update(open=False), "", last]

    @shows_errors(studio, pictures)
    def draw(last: dict[str, Any], request: gr.Request) -> str:
        if not last:
            return note_html("There is no result to draw yet.")
        with studio.job(session_of(request)):
            views = [
                view_sound(read_sound(last["source"]), "Before"),
                view_sound(read_sound(studio.kept(last["path"], "the result")), "After"),
            ]
            return views_html(views, [f"Log-mel and F0 of the recording {when} cleaning" for when in ("before", "after")])

    def stop_work(request: gr.Request) -> str:
        studio.stop(session_of(request))
        return note_html("Stopped.")

    options: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": studio.limits.jobs, "api_visibility": "private"}
    outputs = [status, result, player, drawing, pictures, last]
    working = go.click(work, [source, strength], outputs, show_progress_on=status, **options)
    filled = example.click(
        lambda: str(clip("noisy.flac")), None, source, api_visibility="private", show_progress="hidden", queue=False
    )
    also = filled.then(work, [source, strength], outputs, show_progress_on=status, **options)
    stop.click(stop_work, None, status, cancels=[working, also], queue=False, api_visibility="private", show_progress="hidden")
    drawing.expand(draw, last, pictures, **options)
    source.change(None, None, None, js="() => window.vcaeForgive('denoise-status')", api_visibility="private")
