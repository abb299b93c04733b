"""The tab Denoise: denoise a recording, with a comparison of before and after."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from vcae.demo.clips import clip
from vcae.demo.pictures import note_html, views_html
from vcae.demo.studio import Studio, session_of, shows_errors
from vcae.demo.work import denoise_file
from vcae.figures.plot import view_sound
from vcae.options import DENOISE_STRENGTH

WAITING = "The denoised recording appears here, next to the original."


def build(studio: Studio) -> None:
    """Add the tab's contents and its events."""
    gr.Markdown(
        "Removes background noise from speech: fans, rain, traffic, engines, and some of a room's reverberation. Sample rate and channels stay.",
        elem_classes="vcae-lead",
    )
    sources: Any = ["upload", "microphone"]
    source = gr.Audio(
        sources=sources, type="filepath", buttons=[], min_width=280, label="A noisy recording", elem_id="denoise-source"
    )
    strength = gr.Slider(
        0,
        1,
        value=DENOISE_STRENGTH,
        step=0.05,
        label="Strength",
        info="0: unchanged. 1: full denoising.",
        elem_id="denoise-strength",
    )
    with gr.Row(elem_classes="vcae-actions"):
        go = gr.Button("Denoise", variant="primary", elem_id="denoise-go", scale=3)
        example = gr.Button("Try the bundled noisy clip", elem_id="denoise-example", scale=2)
        stop = gr.Button("Stop", elem_id="denoise-stop", scale=1)
    status = gr.HTML(note_html(WAITING), padding=False, elem_id="denoise-status")
    with gr.Column(visible=False, elem_id="denoise-result") as result:
        with gr.Row():
            before = gr.Audio(label="Before", interactive=False, buttons=[], min_width=280, elem_id="denoise-before")
            after = gr.Audio(label="After", interactive=False, buttons=["download"], min_width=280, elem_id="denoise-after")
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
            done = denoise_file(studio, source, strength, check, lambda share, what: progress(share, desc=what))
            took = time.perf_counter() - start
            progress(0.9, desc="drawing")
            views = [view_sound(done.source, "Before"), view_sound(done.sound, "After")]
            drawn = views_html(views, [f"Log-mel and F0 of the recording {when} denoising" for when in ("before", "after")])
        text = f"Done: {done.source.duration_s:.1f} s denoised in {took:.1f} s."
        return [note_html(text, "done"), gr.update(visible=True), source, str(done.path), drawn]

    def stop_work(request: gr.Request) -> str:
        studio.stop(session_of(request))
        return note_html("Stopped. " + WAITING)

    options: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": studio.limits.jobs, "api_visibility": "private"}
    outputs = [status, result, before, after, pictures]
    working = go.click(work, [source, strength], outputs, show_progress_on=status, **options)
    filled = example.click(
        lambda: str(clip("noisy.flac")), None, source, api_visibility="private", show_progress="hidden", queue=False
    )
    also = filled.then(work, [source, strength], outputs, show_progress_on=status, **options)
    stop.click(stop_work, None, status, cancels=[working, also], queue=False, api_visibility="private", show_progress="hidden")
