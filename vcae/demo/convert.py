"""The tab Studio: a recording, a voice of the shelf, and one player that compares the result with the original."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from vcae import AudioError, ConfigError, read_sound
from vcae.demo.cards import NEW, card_file, shelf_html
from vcae.demo.clips import clip
from vcae.demo.compare import compare, downloads_html, player_html
from vcae.demo.keeping import save_here
from vcae.demo.many import batch_html, convert_many
from vcae.demo.pictures import note_html, views_html
from vcae.demo.studio import Studio, session_of, shows_errors
from vcae.demo.voices import Shelf
from vcae.demo.waiting import timed
from vcae.demo.work import convert_files, hertz
from vcae.figures.plot import view_sound
from vcae.options import AUTO, ConvertOptions

WAITING = "The result appears here. Convert only voices whose owners agreed, and say that the result is synthetic."
NAME_HERE, NAME_FOR_NOW = "Name, to keep it on this computer", "Name, to keep it until you close the page"
EXAMPLE_CARD = "clip:reference"
# Semitones of the chips, and the largest shift of the slider.
STEP, MAX_SHIFT = 2.0, 18
# Fills in the chosen card, which only the browser knows; it is the second input.
CHOSEN = "(...given) => { given[1] = window.vcaeVoice('shelf'); return given; }"
FORGIVE = "() => window.vcaeForgive('convert-status')"
EXAMPLE = f"() => {{ document.getElementById('voice-{EXAMPLE_CARD.replace(':', '-')}').checked = true; }}"
REMEMBERED = "vcae-settings"


@dataclass(frozen=True)
class _Parts:
    """Components of the tab."""

    source: gr.Audio
    card: gr.Textbox
    shelf: gr.HTML
    clip: gr.Audio
    name: gr.Textbox
    save: gr.Button
    settings: list[Any]
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


def _layout(studio: Studio) -> _Parts:
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
    with gr.Accordion("Several recordings at once", open=False, elem_id="many"):
        several = gr.File(file_count="multiple", label="Recordings", height=150, elem_id="many-sources")
        go_many = gr.Button("Convert all", elem_id="many-go")
        many = gr.HTML(padding=False, elem_id="many-results")
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
    return _Parts(
        source,
        card,
        shelf,
        new_clip,
        name,
        save,
        chosen,
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
    """Add the settings: automatic pitch, semitones, strength, cleaning."""
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
            info="From your recording and the clip. Very noisy recordings always are. The tab Clean up lets you compare.",
            elem_id="convert-denoise",
        )
    return [automatic, semitones, strength, cleaned]


def build(studio: Studio, shelf: Shelf, page: gr.Blocks) -> None:
    """Add the tab's contents and its events."""
    parts = _layout(studio)
    _add_settings(page, parts)
    runs = _add_conversion(studio, shelf, parts)
    _add_new_voice(studio, shelf, parts)

    def stop_work(request: gr.Request) -> str:
        studio.stop(session_of(request))
        return note_html("Stopped.")

    parts.stop.click(stop_work, None, parts.status, cancels=runs, queue=False, api_visibility="private", show_progress="hidden")
    for part in (parts.source, parts.clip):
        part.change(None, None, None, js=FORGIVE, api_visibility="private")

    @shows_errors(studio, parts.pictures)
    def draw(last: dict[str, Any], request: gr.Request) -> str:
        if not last:
            return note_html("There is no result to draw yet.")
        with studio.job(session_of(request)):
            views = [
                view_sound(read_sound(last["source"]), "Original"),
                view_sound(read_sound(studio.kept(last["path"], "the result")), "New"),
            ]
            alts = [
                f"Log-mel and F0 of the {when} recording; median F0: {hertz(last[key])}"
                for when, key in (("original", "source_hz"), ("new", "output_hz"))
            ]
            return views_html(views, alts)

    parts.drawing.expand(
        draw, parts.last, parts.pictures, concurrency_id="work", concurrency_limit=studio.limits.jobs, api_visibility="private"
    )
    # Voices may have been saved on the command line since the server started.
    page.load(
        lambda card: shelf_html(studio, {}, card, "convert-status"),
        parts.card,
        parts.shelf,
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
    shelf.visitor.change(
        lambda visitor, card: shelf_html(studio, visitor, _newest(visitor) if card == NEW else card, "convert-status"),
        [shelf.visitor, parts.card],
        parts.shelf,
        js=CHOSEN,
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )


def _newest(visitor: Mapping[str, str]) -> str:
    """Return the key of the voice that was kept last."""
    return f"mine:{list(visitor)[-1]}" if visitor else NEW


def _add_settings(page: gr.Blocks, parts: _Parts) -> None:
    """Keep the settings over a reload, in the browser."""
    automatic, semitones, _, _ = parts.settings
    semitones.input(lambda: False, None, automatic, queue=False, show_progress="hidden", api_visibility="private")
    remembered = gr.BrowserState([True, 0, 100, False], storage_key=REMEMBERED, secret=REMEMBERED)
    gr.on(
        [part.change for part in parts.settings],
        lambda *values: list(values),
        parts.settings,
        remembered,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    page.load(_restore, remembered, parts.settings, queue=False, show_progress="hidden", api_visibility="private")


def _restore(values: Any) -> list[Any]:
    """Return remembered settings, or the usual ones if what the browser kept is not valid."""
    try:
        automatic, semitones, strength, cleaned = values
        return [
            bool(automatic),
            max(-MAX_SHIFT, min(MAX_SHIFT, float(semitones))),
            max(0, min(100, float(strength))),
            bool(cleaned),
        ]
    except (TypeError, ValueError):
        return [True, 0, 100, False]


def _add_conversion(studio: Studio, shelf: Shelf, parts: _Parts) -> list[Any]:
    """Add the conversion by the button, the example and the chips; return the events that can be stopped."""

    @shows_errors(studio, parts.status)
    def work(
        source: str | None,
        card: str,
        new_clip: str | None,
        automatic: bool,
        semitones: float,
        strength: float,
        cleaned: bool,
        visitor: dict[str, str],
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        options = _options(automatic, semitones, strength, cleaned)
        start = time.perf_counter()
        with studio.job(session_of(request)) as check:
            if source is None:
                raise AudioError("your recording is missing; upload one, record yourself, or try the example")
            clips, files = _voice(studio, card, new_clip, visitor)
            done = convert_files(studio, source, clips, files, options, check, timed(progress))
            progress(0.95, desc="preparing the player")
            made = compare(done.path.with_name("compare.flac"), done.source, done.sound)
        took = time.perf_counter() - start
        shift = _shift(done.made.source_f0_hz, done.made.output_f0_hz)
        before, after = hertz(done.made.source_f0_hz), hertz(done.made.output_f0_hz)
        text = f"Done: {done.sound.duration_s:.1f} s in {took:.1f} s. Pitch {before} before, {after} after."
        last = {
            "source": source,
            "path": str(done.path),
            "source_hz": done.made.source_f0_hz,
            "output_hz": done.made.output_f0_hz,
            "shift": shift if automatic else semitones,
        }
        shown = player_html(studio, made) + downloads_html(studio, done.path)
        return [note_html(text, "done"), gr.update(visible=True), shown, gr.update(open=False), "", last]

    options: dict[str, Any] = {
        "concurrency_id": "work",
        "concurrency_limit": studio.limits.jobs,
        "api_visibility": "private",
        "show_progress_on": parts.status,
    }

    @shows_errors(studio, parts.status)
    def work_many(
        sources: list[str] | None,
        card: str,
        new_clip: str | None,
        automatic: bool,
        semitones: float,
        strength: float,
        cleaned: bool,
        visitor: dict[str, str],
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        options = _options(automatic, semitones, strength, cleaned)
        with studio.job(session_of(request)) as check:
            clips, files = _voice(studio, card, new_clip, visitor)
            done = convert_many(studio, sources or [], clips, files, options, check, timed(progress))
        text = f"Done: {len(done.rows) - done.failed} of {len(done.rows)} recordings."
        return [note_html(text, "done" if not done.failed else "hint"), batch_html(studio, done)]

    inputs = [parts.source, parts.card, parts.clip, *parts.settings, shelf.visitor]
    outputs = [parts.status, parts.result, parts.player, parts.drawing, parts.pictures, parts.last]
    runs = [parts.go.click(work, inputs, outputs, js=CHOSEN, **options)]
    runs.append(parts.go_many.click(work_many, [parts.sources, *inputs[1:]], [parts.status, parts.many], js=CHOSEN, **options))
    quick: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    filled = parts.example.click(lambda: str(clip("source.flac")), None, parts.source, js=EXAMPLE, **quick)
    runs.append(filled.then(work, inputs, outputs, js=CHOSEN, **options))
    for chip, change in zip(parts.chips, CHIPS, strict=True):
        changed = chip.click(change, [*parts.settings, parts.last], parts.settings, **quick)
        runs.append(changed.then(work, inputs, outputs, js=CHOSEN, **options))
    return runs


def _options(automatic: bool, semitones: float, strength: float, cleaned: bool) -> ConvertOptions:
    """Return the options for the page's settings."""
    return ConvertOptions(AUTO if automatic else semitones, strength / 100, denoise=True if cleaned else AUTO)


def _voice(studio: Studio, card: str, new_clip: str | None, visitor: Mapping[str, str]) -> tuple[list[str], list[Path]]:
    """Return the clips and the saved voices of the chosen card.

    Raises:
        AudioError: If the clip of a new voice is missing.
        ConfigError: If the card's voice is not there any more.
    """
    if card != NEW:
        return [], [card_file(studio, visitor, card or EXAMPLE_CARD)]
    if not new_clip:
        raise AudioError("the clip of the new voice is missing; upload or record one, or choose another card")
    return [new_clip], []


def _shift(source_hz: float, output_hz: float) -> float:
    """Return the difference of two median F0s in semitones; 0 if one is unvoiced."""
    if math.isnan(source_hz) or math.isnan(output_hz):
        return 0.0
    return 12 * math.log2(output_hz / source_hz)


def _move_pitch(step: float, automatic: bool, semitones: float, last: Mapping[str, Any]) -> list[Any]:
    start = last.get("shift", 0.0) if automatic else semitones
    return [False, max(-MAX_SHIFT, min(MAX_SHIFT, round(2 * (start + step)) / 2))]


def _higher(automatic: bool, semitones: float, strength: float, cleaned: bool, last: dict[str, Any]) -> list[Any]:
    return [*_move_pitch(STEP, automatic, semitones, last), strength, cleaned]


def _lower(automatic: bool, semitones: float, strength: float, cleaned: bool, last: dict[str, Any]) -> list[Any]:
    return [*_move_pitch(-STEP, automatic, semitones, last), strength, cleaned]


def _own(automatic: bool, semitones: float, strength: float, cleaned: bool, last: dict[str, Any]) -> list[Any]:
    return [automatic, semitones, max(0, strength - 25), cleaned]


def _clean(automatic: bool, semitones: float, strength: float, cleaned: bool, last: dict[str, Any]) -> list[Any]:
    return [automatic, semitones, strength, True]


CHIPS = (_higher, _lower, _own, _clean)


def _add_new_voice(studio: Studio, shelf: Shelf, parts: _Parts) -> None:
    """Add keeping a new voice, which becomes the chosen card."""

    @shows_errors(studio, parts.status)
    def keep(new_clip: str | None, name: str, visitor: dict[str, str], request: gr.Request) -> list[Any]:
        with studio.job(session_of(request)):
            if not new_clip:
                raise ConfigError("there is no clip to measure; upload or record one of the voice")
            name = (name or "").strip() or re.sub(r"[^A-Za-z0-9._-]+", "-", Path(new_clip).stem).strip("-._")[:40] or "voice"
            key, now = save_here(studio, name, new_clip, visitor)
        said = note_html(f"Kept {name}. It is chosen now.", "done")
        return [said, now, shelf_html(studio, now, key, "convert-status")]

    parts.save.click(
        keep,
        [parts.clip, parts.name, shelf.visitor],
        [parts.status, shelf.visitor, parts.shelf],
        show_progress_on=parts.status,
        concurrency_id="work",
        concurrency_limit=studio.limits.jobs,
        api_visibility="private",
    )
