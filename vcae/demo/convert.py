"""The tab Convert: convert a recording to the voice of another."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from vcae.demo.clips import clip
from vcae.demo.pictures import note_html, views_html
from vcae.demo.studio import Studio, session_of, shows_errors
from vcae.demo.voices import Shelf, choose_files
from vcae.demo.work import convert_files, hertz
from vcae.figures.plot import view_sound
from vcae.options import AUTO, ConvertOptions

WAITING = "The result appears here: to hear, to compare and to download."
CONSENT = "Convert only voices whose owners agreed, and say that the result is synthetic."


def settings() -> list[gr.components.Component]:
    """Add the settings of a conversion: pitch, semitones, strength, denoise."""
    with gr.Accordion("Settings", open=False):
        with gr.Row():
            pitch = gr.Radio(
                [("the voice's", "auto"), ("as it is", "keep"), ("shifted", "shift")],
                value="auto",
                label="Pitch",
                info="Whose range the melody lies in.",
            )
            semitones = gr.Slider(-24, 24, 0, step=0.5, label="Semitones", info="For a shifted pitch.", interactive=True)
        with gr.Row():
            strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", info="0 is the speaker's own voice, 1 the new one.")
        denoise = gr.Checkbox(
            False, label="Clean the recording and the voice first (a noisy recording always is)", elem_id="convert-denoise"
        )
    return [pitch, semitones, strength, denoise]


def pick_pitch(pitch: str, semitones: float) -> str | float:
    """Return the pitch option for the page's settings."""
    return float(semitones) if pitch == "shift" else pitch


def build(studio: Studio, shelf: Shelf) -> None:
    """Add the tab's contents and its events."""
    gr.Markdown("The words and melody of one recording, in the voice of another.", elem_classes="vcae-lead")
    with gr.Row(equal_height=True):
        source = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            buttons=[],
            min_width=280,
            label="1. What is said",
            elem_id="source",
        )
        reference = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            buttons=[],
            min_width=280,
            label="2. Whose voice",
            elem_id="reference",
        )
    with gr.Accordion("More clips of the voice, or saved voices", open=False), gr.Row():
        more = gr.File(file_count="multiple", label="More clips of the same voice", height=170)
        saved = shelf.dropdown("Saved voices (with a clip, or several: mixed evenly)")
    chosen = settings()
    with gr.Row(elem_classes="vcae-actions"):
        go = gr.Button("Convert", variant="primary", elem_id="convert", scale=3)
        example = gr.Button("Try the bundled clips", elem_id="example", scale=2)
        stop = gr.Button("Stop", elem_id="stop", scale=1)
    gr.HTML(note_html(CONSENT), padding=False)
    status = gr.HTML(note_html(WAITING), padding=False, elem_id="convert-status")
    with gr.Column(visible=False, elem_id="convert-result") as result:
        with gr.Row():
            before = gr.Audio(label="Before", interactive=False, buttons=[], min_width=280, elem_id="before")
            after = gr.Audio(label="After", interactive=False, buttons=["download"], min_width=280, elem_id="after")
        download = gr.DownloadButton("Download the result", elem_id="download")
        pictures = gr.HTML(padding=False, elem_id="pictures")

    @shows_errors(studio, status)
    def work(
        source: str | None,
        reference: str | None,
        more: list[str] | None,
        saved: list[str] | None,
        pitch: str,
        semitones: float,
        strength: float,
        denoise: bool,
        visitor: dict[str, str],
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        options = ConvertOptions(pick_pitch(pitch, semitones), strength, denoise=True if denoise else AUTO)
        clips = [*([reference] if reference else []), *(more or [])]
        start = time.perf_counter()
        with studio.job(session_of(request)) as check:
            files = choose_files(studio, visitor, saved or [])
            done = convert_files(studio, source, clips, files, options, check, lambda share, what: progress(share, desc=what))
            progress(0.92, desc="drawing")
            views = [view_sound(done.source, "Before"), view_sound(done.sound, "After")]
            alts = [
                f"Log-mel and F0 of the {when} recording; median F0: {hertz(f0)}"
                for when, f0 in (("original", done.made.source_f0_hz), ("converted", done.made.output_f0_hz))
            ]
            drawn = views_html(views, alts)
        said = (
            f"Done: {done.sound.duration_s:.1f} s of speech in {time.perf_counter() - start:.1f} s, from {done.made.reference_speech_s:.1f} s "
            f"of the voice. Median pitch {hertz(done.made.source_f0_hz)} before, {hertz(done.made.output_f0_hz)} after."
        )
        path = str(done.path)
        return [note_html(said, "done"), gr.update(visible=True), source, path, path, drawn]

    def stop_work(request: gr.Request) -> str:
        studio.stop(session_of(request))
        return note_html("Stopped. " + WAITING)

    inputs = [source, reference, more, saved, *chosen, shelf.visitor]
    outputs = [status, result, before, after, download, pictures]
    options: dict[str, Any] = {"show_progress_on": status, "concurrency_id": "work", "concurrency_limit": studio.limits.jobs}
    running = go.click(work, inputs, outputs, api_visibility="private", **options)
    filled = example.click(
        lambda: (str(clip("source.flac")), str(clip("reference.flac")), None, []),
        None,
        [source, reference, more, saved],
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
    also = filled.then(work, inputs, outputs, api_visibility="private", **options)
    stop.click(stop_work, None, status, cancels=[running, also], queue=False, api_visibility="private", show_progress="hidden")
