"""The tab Features: feature vectors of a recording, the similarity of two voices, and a copy from a code of a chosen size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from vcae.demo.clips import clip
from vcae.demo.pictures import facts_html, note_html, views_html
from vcae.demo.studio import Studio, session_of, shows_errors
from vcae.demo.work import embed_file, rebuild_file
from vcae.figures.plot import view_sound
from vcae.tasks.ladder import ladder_dims

KINDS = (("speaker: one vector", "speaker"), ("content: 31 a second", "content"), ("mel: 62.5 a second", "mel"))
MEASURED = "The vectors appear here, for a download; and with a second recording, how alike the two voices are."
REBUILT = "The copy appears here: what so many numbers keep of the recording."


def build(studio: Studio) -> None:
    """Add the tab's contents and its events."""
    gr.Markdown(
        "What the models know of a recording, as numbers for other uses; and what is left of it when there are few of them.",
        elem_classes="vcae-lead",
    )
    sources: Any = ["upload", "microphone"]
    with gr.Row(equal_height=True):
        source, other = (
            gr.Audio(sources=sources, type="filepath", buttons=[], min_width=280, label=label, elem_id=place)
            for label, place in (("1. A recording", "features-source"), ("2. Another, to compare voices", "features-other"))
        )
    example = gr.Button("Take the bundled clips", elem_id="features-example")
    what = gr.Radio(KINDS, value="speaker", label="Vectors", elem_id="features-what")
    measure = gr.Button("Measure", variant="primary", elem_id="features-measure")
    status = gr.HTML(note_html(MEASURED), padding=False, elem_id="features-status")
    with gr.Column(visible=False) as measured:
        facts = gr.HTML(padding=False, elem_id="features-facts")
        download = gr.DownloadButton("Download .npz", elem_id="features-download")
    code_dim = gr.Radio(
        [(str(n), n) for n in ladder_dims()],
        value=8,
        label="Numbers a step, 31 steps a second",
        info="Each is a plain autoencoder of its own, without a part for the speaker. The vocoder is told the F0 beside them.",
        elem_id="features-dim",
    )
    rebuild = gr.Button("Rebuild from these alone", variant="primary", elem_id="features-rebuild")
    rebuilt_note = gr.HTML(note_html(REBUILT), padding=False, elem_id="features-rebuilt-note")
    with gr.Column(visible=False) as rebuilt:
        copy = gr.Audio(label="The copy", interactive=False, buttons=["download"], elem_id="features-copy")
        pictures = gr.HTML(padding=False, elem_id="features-pictures")

    @shows_errors(studio, status)
    def measure_work(source: str | None, other: str | None, what: str, request: gr.Request) -> list[Any]:
        with studio.job(session_of(request)) as check:
            done = embed_file(studio, source, other, what, check)
        rows, size = done.shape
        facts = [(f"{rows} x {size}", f"{what}, as 32-bit numbers")]
        if done.cosine is not None:
            facts.append((f"{done.cosine:.2f}", "cosine of the two voices: 1 is the same, 0 has nothing in common"))
        text = f"Done: {Path(str(source)).name}, {done.duration_s:.1f} s."
        return [note_html(text, "done"), gr.update(visible=True), facts_html(facts), str(done.path)]

    @shows_errors(studio, rebuilt_note)
    def rebuild_work(source: str | None, code_dim: int, request: gr.Request) -> list[Any]:
        with studio.job(session_of(request)) as check:
            path, sound, made = rebuild_file(studio, source, code_dim, check)
            views = [view_sound(sound, "Original"), view_sound(made, f"From {code_dim} a step")]
            drawn = views_html(
                views, ["Log-mel and F0 of the original", f"Log-mel and F0 of the copy from {code_dim} values per step"]
            )
        text = f"Done: {made.duration_s:.1f} s from {31.25 * code_dim:g} numbers a second."
        return [note_html(text, "done"), gr.update(visible=True), str(path), drawn]

    options: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": studio.limits.jobs, "api_visibility": "private"}
    measure.click(measure_work, [source, other, what], [status, measured, facts, download], show_progress_on=status, **options)
    rebuild.click(
        rebuild_work, [source, code_dim], [rebuilt_note, rebuilt, copy, pictures], show_progress_on=rebuilt_note, **options
    )
    example.click(
        lambda: (str(clip("source.flac")), str(clip("reference.flac"))),
        None,
        [source, other],
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
