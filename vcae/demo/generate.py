"""The tab Generate: new voices and a map of them, babble, and interpolation between two voices."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from vcae import ConfigError, load_voice
from vcae.demo.clips import clip
from vcae.demo.generate_work import MAX_BABBLE_S, Generated, babble_file, between_file, check_seed, draw_file
from vcae.demo.pictures import facts_html, note_html
from vcae.demo.studio import Studio, session_of, shows_errors
from vcae.demo.voice_map import SEEDS, map_html
from vcae.demo.voices import TWIN_CHECKPOINT, Shelf, check_voice_name, choose_files, keep_voice
from vcae.demo.work import hertz
from vcae.options import BabbleOptions
from vcae.voice.file import read_voice_facts
from vcae.voice.new import MAX_SPREAD, carry_voice, priors

CONSENT = "What is generated is synthetic, even where nobody has the voice: say so, and leave its comment tag in."
WAITING = "The new voice is heard here, on the bundled clip or on yours."
KEPT = "Kept, it can be chosen in the Studio and on Codec, and as one of two voices below."
BABBLED = "The sounds of speech, in an order that speech has, without a word: nothing is said."
BETWEEN = "At 0 and at 1 stand the voices themselves."
NEW_SEEDS = 10_000


def build(studio: Studio, shelf: Shelf, tab: gr.Tab) -> None:
    """Add the tab's contents and its events."""
    gr.Markdown(
        "Voices that nobody has: drawn by a seed, each at its place among those that the model was trained on.",
        elem_classes="vcae-lead",
    )
    drawn = gr.State("", time_to_live=60 * studio.limits.minutes * 4, delete_callback=studio.forget)
    source = _voice_section(studio, shelf, tab, drawn)
    with gr.Accordion("Babble", open=False, elem_id="generate-babble"):
        _babble_section(studio, drawn)
    with gr.Accordion("Between two voices", open=False, elem_id="generate-between"):
        _between_section(studio, shelf, source)


@dataclass(frozen=True)
class _Parts:
    """Components of a new voice: its place on the map, its settings and results."""

    map_place: gr.HTML
    chosen: gr.Radio
    seed: gr.Number
    other: gr.Button
    spread: gr.Slider
    source: gr.Audio
    go: gr.Button
    stop: gr.Button
    status: gr.HTML
    result: gr.Column
    facts: gr.HTML
    said: gr.Audio
    sound_file: gr.DownloadButton
    voice_file: gr.DownloadButton
    name: gr.Textbox
    keep: gr.Button
    kept: gr.HTML


def _voice_layout() -> _Parts:
    """Add the map, the seed and the results."""
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            map_place = gr.HTML(note_html("The map is drawn here."), padding=False, elem_id="generate-map")
        with gr.Column(scale=2, min_width=280):
            chosen = gr.Radio(
                [(str(seed), seed) for seed in SEEDS],
                label="A voice of the map, by its seed",
                info="Choose one to hear it.",
                elem_id="generate-dozen",
            )
            with gr.Row(elem_classes="vcae-beside"):
                seed = gr.Number(1, precision=0, label="Any seed", min_width=120, elem_id="generate-seed")
                other = gr.Button("New seed", min_width=110, elem_id="generate-new")
            spread = gr.Slider(
                0.1,
                MAX_SPREAD,
                value=1,
                step=0.1,
                label="Spread",
                info="Less: nearer to the average voice. More: odder.",
                elem_id="generate-spread",
            )
    with gr.Accordion("Let it say a recording of yours", open=False):
        source = _audio("What is said; without it, the bundled clip", "generate-source")
    with gr.Row(elem_classes="vcae-actions"):
        go = gr.Button("Hear this voice", variant="primary", elem_id="generate-go", scale=3)
        stop = gr.Button("Stop", elem_id="generate-stop", elem_classes="vcae-stop", scale=1)
    gr.HTML(note_html(CONSENT), padding=False)
    status = gr.HTML(note_html(WAITING), padding=False, elem_id="generate-status", elem_classes="vcae-status")
    with gr.Column(visible=False, elem_id="generate-result") as result:
        facts = gr.HTML(padding=False, elem_id="generate-facts")
        said = gr.Audio(label="The new voice", interactive=False, buttons=["download"], elem_id="generate-said")
        with gr.Row():
            sound_file = gr.DownloadButton("Download the sound", elem_id="generate-sound-file")
            voice_file = gr.DownloadButton("Download the voice", elem_id="generate-voice-file")
        with gr.Row(elem_classes="vcae-beside"):
            name = gr.Textbox(label="Name", max_length=64, scale=2, elem_id="generate-name")
            keep = gr.Button("Keep it", scale=1, elem_id="generate-keep")
        kept = gr.HTML(note_html(KEPT), padding=False, elem_id="generate-kept")
    return _Parts(
        map_place,
        chosen,
        seed,
        other,
        spread,
        source,
        go,
        stop,
        status,
        result,
        facts,
        said,
        sound_file,
        voice_file,
        name,
        keep,
        kept,
    )


def _voice_section(studio: Studio, shelf: Shelf, tab: gr.Tab, drawn: gr.State) -> gr.Audio:
    """Add the map, the seed, the results and their events; return the source recording's component."""
    parts = _voice_layout()

    @shows_errors(studio, parts.map_place)
    def show_map(drawn: str) -> Any:
        # After a voice was generated, the map is already there and marks it.
        return gr.skip() if drawn else map_html()

    @shows_errors(studio, parts.status)
    def work(
        seed: float | None,
        spread: float,
        source: str | None,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        start = time.perf_counter()
        with studio.job(session_of(request)) as check:
            number = check_seed(seed)
            done = draw_file(studio, source, number, spread, check, lambda share, what: progress(share, desc=what))
            took = time.perf_counter() - start
            progress(0.95, desc="drawing")
            picture = map_html((number, done.place))
        text = f"Done: {done.said.sound.duration_s:.1f} s in the voice of seed {number}, spread {spread:g}, in {took:.1f} s."
        sound, voice = str(done.said.path), str(done.voice)
        here = number if spread == 1 and number in SEEDS else None
        facts = _facts(done)
        return [
            note_html(text, "done"),
            gr.update(visible=True),
            facts,
            sound,
            sound,
            voice,
            f"new-{number}",
            voice,
            picture,
            here,
        ]

    def choose_work(
        chosen: int,
        source: str | None,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Any:
        done = work(chosen, 1.0, source, request, progress)
        # Errors are already shown.
        return done if isinstance(done, dict) else [*done, chosen, 1.0]

    def stop_work(request: gr.Request) -> str:
        studio.stop(session_of(request))
        return note_html("Stopped. " + WAITING)

    options = _options(studio)
    outputs = [
        parts.status,
        parts.result,
        parts.facts,
        parts.said,
        parts.sound_file,
        parts.voice_file,
        parts.name,
        drawn,
        parts.map_place,
        parts.chosen,
    ]
    tab.select(show_map, drawn, parts.map_place, show_progress="hidden", **options)
    running = [
        parts.go.click(work, [parts.seed, parts.spread, parts.source], outputs, show_progress_on=parts.status, **options),
        parts.chosen.input(
            choose_work,
            [parts.chosen, parts.source],
            [*outputs, parts.seed, parts.spread],
            show_progress_on=parts.status,
            **options,
        ),
    ]
    filled = parts.other.click(
        lambda: secrets.randbelow(NEW_SEEDS), None, parts.seed, api_visibility="private", show_progress="hidden", queue=False
    )
    running.append(
        filled.then(work, [parts.seed, parts.spread, parts.source], outputs, show_progress_on=parts.status, **options)
    )
    _add_keeping(studio, shelf, parts, drawn, options)
    parts.stop.click(
        stop_work, None, parts.status, cancels=running, queue=False, api_visibility="private", show_progress="hidden"
    )
    return parts.source


def _add_keeping(studio: Studio, shelf: Shelf, parts: _Parts, drawn: gr.State, options: dict[str, Any]) -> None:
    """Add keeping the new voice under a name."""

    @shows_errors(studio, parts.kept)
    def keep_work(name: str, drawn: str, visitor: dict[str, str], request: gr.Request) -> list[Any]:
        name = check_voice_name(name or "", visitor)
        with studio.job(session_of(request)) as check:
            if not drawn:
                raise ConfigError("there is no new voice yet; draw one first")
            path, model = studio.kept(drawn, "the new voice"), studio.model()
            voice, facts = load_voice(path, model), read_voice_facts(path)["provenance"]
            twin = carry_voice(model, voice, studio.model(TWIN_CHECKPOINT))
            check()
            _, now = keep_voice(studio, name, voice, twin, facts, visitor)
        return [note_html(f"Kept {name}: choose it in the Studio, on Codec, or below.", "done"), now]

    parts.keep.click(
        keep_work, [parts.name, drawn, shelf.visitor], [parts.kept, shelf.visitor], show_progress_on=parts.kept, **options
    )


def _babble_section(studio: Studio, drawn: gr.State) -> None:
    """Add the settings of babble and its result."""
    reference = _audio("Whose voice; without it, the new voice above", "generate-babble-voice")
    with gr.Row():
        seconds = gr.Slider(
            0.5, MAX_BABBLE_S, value=4, step=0.5, label="Seconds", min_width=200, elem_id="generate-babble-seconds"
        )
        temperature = gr.Slider(
            0.5,
            1.5,
            value=1,
            step=0.1,
            label="Temperature",
            info="Less: more usual sounds. More: odder ones.",
            min_width=200,
            elem_id="generate-babble-temperature",
        )
        seed = gr.Number(1, precision=0, label="Seed", min_width=120, elem_id="generate-babble-seed")
    go = gr.Button("Babble", variant="primary", elem_id="generate-babble-go")
    status = gr.HTML(note_html(BABBLED), padding=False, elem_id="generate-babble-status", elem_classes="vcae-status")
    said = gr.Audio(label="Babble", interactive=False, visible=False, buttons=["download"], elem_id="generate-babbled")

    @shows_errors(studio, status)
    def work(
        reference: str | None, drawn: str, seconds: float, temperature: float, seed: float | None, request: gr.Request
    ) -> list[Any]:
        start = time.perf_counter()
        with studio.job(session_of(request)) as check:
            options = BabbleOptions(seconds, check_seed(seed), temperature)
            voice = studio.kept(drawn, "the new voice") if drawn and reference is None else None
            path, sound, f0_hz = babble_file(studio, reference, voice, options, check)
        whose = f"the voice of {Path(reference).name}" if reference is not None else "the new voice"
        took = time.perf_counter() - start
        text = (
            f"Done: {sound.duration_s:.1f} s of seed {options.seed} in {whose}, in {took:.1f} s; median pitch {hertz(f0_hz)}."
        )
        return [note_html(text, "done"), gr.update(value=str(path), visible=True)]

    inputs = [reference, drawn, seconds, temperature, seed]
    go.click(work, inputs, [status, said], show_progress_on=status, **_options(studio))


def _between_section(studio: Studio, shelf: Shelf, source: gr.Audio) -> None:
    """Add two voices, a place between them, and the result."""
    with gr.Row():
        with gr.Column(min_width=280):
            first = _audio("The first voice", "generate-first")
            first_saved = shelf.dropdown("Or the first from saved voices")
        with gr.Column(min_width=280):
            second = _audio("The second voice", "generate-second")
            second_saved = shelf.dropdown("Or the second from saved voices")
    share = gr.Slider(
        0, 1, value=0.5, step=0.05, label="Place", info="0: the first voice. 1: the second.", elem_id="generate-share"
    )
    with gr.Row(elem_classes="vcae-actions"):
        go = gr.Button("Hear the voice there", variant="primary", elem_id="generate-between-go", scale=3)
        example = gr.Button("Try the bundled clips", elem_id="generate-between-example", scale=2)
        stop = gr.Button("Stop", elem_id="generate-between-stop", elem_classes="vcae-stop", scale=1)
    status = gr.HTML(note_html(BETWEEN), padding=False, elem_id="generate-between-status", elem_classes="vcae-status")
    with gr.Column(visible=False) as result:
        said = gr.Audio(label="The voice between", interactive=False, buttons=["download"], elem_id="generate-between-said")
        voice_file = gr.DownloadButton("Download the voice", elem_id="generate-between-file")

    @shows_errors(studio, status)
    def work(
        first: str | None,
        first_saved: list[str] | None,
        second: str | None,
        second_saved: list[str] | None,
        share: float,
        source: str | None,
        visitor: dict[str, str],
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        start = time.perf_counter()
        with studio.job(session_of(request)) as check:
            ends = [
                ([one] if one else [], choose_files(studio, visitor, saved or []))
                for one, saved in ((first, first_saved), (second, second_saved))
            ]
            done = between_file(studio, source, ends, share, check, lambda part, what: progress(part, desc=what))
        took = time.perf_counter() - start
        text = f"Done: {done.said.sound.duration_s:.1f} s at {share:g}, in {took:.1f} s; median pitch {hertz(done.f0_hz)}."
        return [note_html(text, "done"), gr.update(visible=True), str(done.said.path), str(done.voice)]

    def stop_work(request: gr.Request) -> str:
        studio.stop(session_of(request))
        return note_html("Stopped. " + BETWEEN)

    options = _options(studio)
    inputs = [first, first_saved, second, second_saved, share, source, shelf.visitor]
    outputs = [status, result, said, voice_file]
    running = go.click(work, inputs, outputs, show_progress_on=status, **options)
    filled = example.click(
        lambda: (str(clip("source.flac")), [], str(clip("reference.flac")), []),
        None,
        [first, first_saved, second, second_saved],
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
    also = filled.then(work, inputs, outputs, show_progress_on=status, **options)
    stop.click(stop_work, None, status, cancels=[running, also], queue=False, api_visibility="private", show_progress="hidden")


def _audio(label: str, elem_id: str) -> gr.Audio:
    sources: Any = ["upload", "microphone"]
    return gr.Audio(sources=sources, type="filepath", buttons=[], min_width=280, label=label, elem_id=elem_id)


def _options(studio: Studio) -> dict[str, Any]:
    return {"concurrency_id": "work", "concurrency_limit": studio.limits.jobs, "api_visibility": "private"}


def _facts(done: Generated) -> str:
    """Return the voice's median F0, and its cosine to the nearest training speaker."""
    limit = float(priors().metadata["limit"])
    return facts_html(
        [
            (hertz(done.f0_hz), "median pitch"),
            (f"{done.nearest:.2f}", f"cosine to the nearest training speaker; what lies over {limit:.2f} is drawn again"),
        ]
    )
