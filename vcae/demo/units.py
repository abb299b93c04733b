"""The tab Units: encode speech as units, and speak units in another voice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from vcae import AudioError, Sound, write_sound
from vcae.demo.clips import clip
from vcae.demo.limits import read_upload
from vcae.demo.pictures import note_html, views_html
from vcae.demo.studio import Studio, session_of, shows_errors
from vcae.demo.work import gather_voice, hertz
from vcae.figures.plot import view_sound
from vcae.files import provenance, write_file
from vcae.options import SpeakOptions
from vcae.tasks.unit_files import Units, format_units
from vcae.tasks.units import encode_units, speak_units

CHECKPOINT = "vq"


def build(studio: Studio) -> None:
    """Add the tab's contents and its events."""
    gr.Markdown(
        "Speech as numbers, about 31 a second out of 1,024, found without any labels; and speech again from the numbers alone.",
        elem_classes="vcae-lead",
    )
    kept = gr.State(None, time_to_live=60 * studio.limits.minutes)
    source = gr.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        buttons=[],
        min_width=280,
        label="1. A recording",
        elem_id="units-source",
    )
    with gr.Row(elem_classes="vcae-actions"):
        go = gr.Button("Find its units", variant="primary", elem_id="units-go", scale=3)
        example = gr.Button("Try the bundled clip", elem_id="units-example", scale=2)
    status = gr.HTML(
        note_html("The units appear here, on the recording's mel."),
        padding=False,
        elem_id="units-status",
        elem_classes="vcae-status",
    )
    with gr.Column(visible=False) as found:
        pictures = gr.HTML(padding=False)
        numbers = gr.Textbox(label="The units, runs merged", lines=3, max_lines=6, interactive=False, buttons=["copy"])
        with gr.Row():
            as_json = gr.DownloadButton("Download JSON lines", elem_id="units-json")
            as_grid = gr.DownloadButton("Download TextGrid", elem_id="units-grid")
        voice = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            buttons=[],
            min_width=280,
            label="2. A voice to say them",
            elem_id="units-voice",
        )
        say = gr.Button("Say the units in this voice", variant="primary", elem_id="units-say")
        said_note = gr.HTML(
            note_html("Nothing of the recording is used but its numbers; the melody is guessed from them."), padding=False
        )
        said = gr.Audio(label="The units, spoken", interactive=False, visible=False, buttons=["download"], elem_id="units-said")

    @shows_errors(studio, status)
    def find(source: str | None, request: gr.Request, progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008
        with studio.job(session_of(request)) as check:
            progress(0.1, desc="reading")
            sound = read_upload(source, "the recording", studio.limits.seconds)
            name = Path(str(source)).name
            model = studio.model(CHECKPOINT)
            check()
            progress(0.4, desc="finding units")
            units = encode_units(model, sound, name)
            check()
            progress(0.7, desc="drawing")
            runs = units.collapse()
            alt = f"Log-mel and F0 of {name}, with {len(runs.units)} runs of units under them"
            drawn = views_html([view_sound(sound, name, units)], [alt], wide=True, is_name=True)
            files = [_write(studio, runs, form, suffix) for form, suffix in (("jsonl", ".jsonl"), ("textgrid", ".TextGrid"))]
        text = f"Done: {len(units.units)} units in {len(runs.units)} runs, {len(set(units.units))} different ones, {units.duration_s:.1f} s."
        return [note_html(text, "done"), gr.update(visible=True), drawn, " ".join(map(str, runs.units)), *files, runs]

    @shows_errors(studio, said_note)
    def speak(voice: str | None, units: Units | None, request: gr.Request) -> list[Any]:
        with studio.job(session_of(request)) as check:
            if units is None:
                raise AudioError("there are no units yet; find those of a recording first")
            model = studio.model(CHECKPOINT)
            heard = gather_voice(studio, model, [voice] if voice else [], [])
            check()
            made = speak_units(model, units, heard, SpeakOptions())
            path = studio.new_file(f"{Path(units.name).stem[:60] or 'units'}.spoken.wav")
            write_sound(path, Sound(made.wav.numpy(), model.sample_rate), provenance(model.checkpoint, "spoken"))
        text = f"Done: {len(made.wav) / model.sample_rate:.1f} s, median pitch {hertz(made.output_f0_hz)}."
        return [note_html(text, "done"), gr.update(value=str(path), visible=True)]

    options: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": studio.limits.jobs, "api_visibility": "private"}
    outputs = [status, found, pictures, numbers, as_json, as_grid, kept]
    go.click(find, source, outputs, show_progress_on=status, **options)
    example.click(
        lambda: (str(clip("source.flac")), str(clip("reference.flac"))),
        None,
        [source, voice],
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    ).then(find, source, outputs, show_progress_on=status, **options)
    say.click(speak, [voice, kept], [said_note, said], show_progress_on=said_note, **options)


def _write(studio: Studio, units: Units, form: str, suffix: str) -> str:
    path = studio.new_file(f"{Path(units.name).stem[:60] or 'units'}{suffix}")
    write_file(path, format_units([units], form))
    return str(path)
