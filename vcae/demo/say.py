"""The tab Say: text to speech in any voice."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from vcae.demo.clips import clip
from vcae.demo.pictures import note_html
from vcae.demo.say_work import MAX_CHARACTERS, say_file
from vcae.demo.studio import Studio, session_of, shows_errors
from vcae.demo.voices import Shelf, choose_files
from vcae.options import AUTO, SayOptions

WAITING = "The speech appears here. Use only voices whose owners agreed, and say that the result is synthetic."
EXAMPLE = "Good morning! This voice never said these words."
MAX_SHIFT = 12


def build(studio: Studio, shelf: Shelf) -> None:
    """Add the tab's contents and its events."""
    gr.Markdown("English text as speech, in any voice.", elem_classes="vcae-lead")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            text = gr.Textbox(
                label="1. The text",
                info="Numbers are read as words, and letters of other scripts are left out.",
                lines=6,
                max_length=MAX_CHARACTERS,
                elem_id="say-text",
            )
        with gr.Column(min_width=280):
            sources: Any = ["upload", "microphone"]
            reference = gr.Audio(
                sources=sources, type="filepath", buttons=[], min_width=280, label="2. The voice", elem_id="say-voice"
            )
            saved = shelf.dropdown("Saved voices (with a clip, or several: mixed evenly)")
    with gr.Row():
        speed = gr.Slider(
            50, 200, 100, step=5, label="Speed, in percent", info="More: faster. The pitch stays.", elem_id="say-speed"
        )
        pitch = gr.Slider(
            -MAX_SHIFT,
            MAX_SHIFT,
            0,
            step=0.5,
            label="Pitch, in semitones",
            info="0 is the pitch of the voice.",
            elem_id="say-pitch",
        )
    with gr.Row(elem_classes="vcae-actions"):
        go = gr.Button("Say it", variant="primary", elem_id="say-go", scale=3)
        example = gr.Button("Try an example", elem_id="say-example", scale=2)
        stop = gr.Button("Stop", elem_id="say-stop", elem_classes="vcae-stop", scale=1)
    status = gr.HTML(note_html(WAITING), padding=False, elem_id="say-status", elem_classes="vcae-status")
    said = gr.Audio(label="The speech", interactive=False, visible=False, buttons=["download"], elem_id="say-said")

    @shows_errors(studio, status)
    def work(
        text: str | None,
        reference: str | None,
        saved: list[str] | None,
        speed: float,
        pitch: float,
        visitor: dict[str, str],
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        start = time.perf_counter()
        with studio.job(session_of(request)) as check:
            options = SayOptions(pitch or AUTO, speed / 100)
            files = choose_files(studio, visitor, saved or [])
            clips = [reference] if reference else []
            path, sound = say_file(studio, text or "", clips, files, options, check, lambda s, what: progress(s, desc=what))
        note = f"Done: {sound.duration_s:.1f} s of speech in {time.perf_counter() - start:.1f} s."
        return [note_html(note, "done"), gr.update(value=str(path), visible=True)]

    def stop_work(request: gr.Request) -> str:
        studio.stop(session_of(request))
        return note_html("Stopped. " + WAITING)

    options: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": studio.limits.jobs, "api_visibility": "private"}
    inputs, outputs = [text, reference, saved, speed, pitch, shelf.visitor], [status, said]
    running = go.click(work, inputs, outputs, show_progress_on=status, **options)
    filled = example.click(
        lambda: (EXAMPLE, str(clip("reference.flac")), []),
        None,
        [text, reference, saved],
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
    also = filled.then(work, inputs, outputs, show_progress_on=status, **options)
    stop.click(stop_work, None, status, cancels=[running, also], queue=False, api_visibility="private", show_progress="hidden")
