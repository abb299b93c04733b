"""Components of the tab Studio, from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from vcae.demo.cards import shelf_html
from vcae.demo.pictures import note_html
from vcae.demo.studio import Studio

WAITING = "The result appears here. Convert only voices whose owners agreed, and say that the result is synthetic."
NAME_HERE, NAME_FOR_NOW = "Name, to keep it on this computer", "Name, to keep it until you close the page"
# Largest shift of the slider, in semitones.
MAX_SHIFT = 18


@dataclass(frozen=True)
class Parts:
    """Components of the tab."""

    source: gr.Audio
    card: gr.Textbox
    shelf: gr.HTML
    clip: gr.Audio
    name: gr.Textbox
    save: gr.Button
    settings: list[Any]
    hear_clean: gr.Button
    clean_player: gr.HTML
    go: gr.Button
    example: gr.Button
    stop: gr.Button
    status: gr.HTML
    result: gr.Column
    player: gr.HTML
    chips: list[gr.Button]
    drawing: gr.Accordion
    pictures: gr.HTML
    last: gr.State
    sources: gr.File
    go_many: gr.Button
    many: gr.HTML


def lay_out(studio: Studio) -> Parts:
    """Add the components of the tab."""
    sources: Any = ["upload", "microphone"]
    last = gr.State({}, time_to_live=60 * studio.limits.minutes * 4)
    with gr.Row(equal_height=False, elem_classes="vcae-desk"):
        with gr.Column(scale=4, min_width=280):
            gr.HTML('<h2 class="vcae-step">1. Your recording</h2>', padding=False)
            source = gr.Audio(
                sources=sources, type="filepath", buttons=[], label="Your recording", elem_id="source", show_label=False
            )
        with gr.Column(scale=5, min_width=280, elem_id="voice-side"):
            gr.HTML('<h2 class="vcae-step">2. The new voice</h2>', padding=False)
            shelf = gr.HTML(shelf_html(studio, {}, status="convert-status"), padding=False, elem_id="shelf")
            card = gr.Textbox("", visible="hidden", label="Chosen voice")
            with gr.Column(elem_id="new-voice"):
                new_clip = gr.Audio(
                    sources=sources,
                    type="filepath",
                    buttons=[],
                    elem_id="new-clip",
                    label="A clip of the voice: 5 to 30 s of clear speech",
                )
                with gr.Row(elem_classes="vcae-beside"):
                    name = gr.Textbox(
                        label=NAME_HERE if studio.local else NAME_FOR_NOW,
                        placeholder="alice",
                        max_length=64,
                        scale=3,
                        elem_id="new-name",
                    )
                    save = gr.Button("Keep this voice", scale=1, min_width=130, elem_id="new-save")
    with gr.Accordion("Settings", open=False, elem_id="convert-settings"):
        chosen = _settings()
        hear_clean = gr.Button("Hear your recording without noise", size="sm", elem_id="hear-clean")
        clean_player = gr.HTML(padding=False, elem_id="clean-player")
    with gr.Row(elem_classes="vcae-actions"):
        go = gr.Button("Convert", variant="primary", elem_id="convert", scale=3)
        example = gr.Button("Try an example", elem_id="example", scale=2)
        stop = gr.Button("Stop", elem_id="stop", elem_classes="vcae-stop", scale=1, min_width=100)
    status = gr.HTML(note_html(WAITING), padding=False, elem_id="convert-status", elem_classes="vcae-status")
    with gr.Column(visible=False, elem_id="convert-result", elem_classes="vcae-result") as result:
        player = gr.HTML(padding=False, elem_id="player")
        with gr.Row(elem_classes="vcae-chips"):
            chips = [
                gr.Button(text, size="sm", min_width=90, elem_id=f"chip-{key}")
                for text, key in (
                    ("Higher", "higher"),
                    ("Lower", "lower"),
                    ("More of my own voice", "own"),
                    ("Remove noise first", "clean"),
                )
            ]
        with gr.Accordion("Picture", open=False, elem_id="drawing") as drawing:
            pictures = gr.HTML(padding=False, elem_id="pictures")
    with gr.Accordion("Several recordings at once", open=False, elem_id="many"):
        several = gr.File(file_count="multiple", label="Recordings", height=150, elem_id="many-sources")
        go_many = gr.Button("Convert all", elem_id="many-go")
        many = gr.HTML(padding=False, elem_id="many-results")
    return Parts(
        source,
        card,
        shelf,
        new_clip,
        name,
        save,
        chosen,
        hear_clean,
        clean_player,
        go,
        example,
        stop,
        status,
        result,
        player,
        chips,
        drawing,
        pictures,
        last,
        several,
        go_many,
        many,
    )


def _settings() -> list[gr.components.Component]:
    """Add the settings: automatic pitch, semitones, strength, cleaning, speed, expression, formants, channels."""
    with gr.Row():
        automatic = gr.Checkbox(
            True, label="Pitch of the chosen voice", info="Off: set the pitch yourself.", elem_id="pitch-auto"
        )
        semitones = gr.Slider(
            -MAX_SHIFT,
            MAX_SHIFT,
            0,
            step=0.5,
            label="Pitch, in semitones",
            info="0 is your own pitch; 12 is an octave higher.",
            elem_id="pitch",
        )
    with gr.Row():
        strength = gr.Slider(
            0,
            100,
            100,
            step=5,
            label="How much of the new voice, in percent",
            info="Less keeps more of your own.",
            elem_id="strength",
        )
        cleaned = gr.Checkbox(
            False,
            label="Remove noise first",
            info="From your recording and the clip. From very noisy ones it is always removed.",
            elem_id="convert-denoise",
        )
    with gr.Row():
        speed = gr.Slider(
            50, 200, 100, step=5, label="Speed, in percent", info="100 keeps the duration; the pitch stays.", elem_id="speed"
        )
        expression = gr.Slider(
            0, 200, 100, step=10, label="Expression, in percent", info="0 is monotone, 200 very lively.", elem_id="expression"
        )
        size = gr.Slider(
            -6, 6, 0, step=0.5, label="Larger or smaller speaker", info="Left sounds larger, right smaller.", elem_id="formant"
        )
    channels = gr.Radio(
        [("Where your voice was", "keep"), ("Mono", "mono"), ("Each channel by itself", "separate")],
        value="keep",
        label="Stereo recordings",
        info="Each channel by itself: for a speaker on each channel.",
        elem_id="channels",
    )
    return [automatic, semitones, strength, cleaned, speed, expression, size, channels]
