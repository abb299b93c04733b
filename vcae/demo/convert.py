"""The tab Studio: a recording, a voice of the shelf, and one player that compares the result with the original."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from vcae import AudioError, ConfigError, read_sound
from vcae.demo.cards import NEW, card_file, shelf_html
from vcae.demo.clips import clip
from vcae.demo.compare import compare, downloads_html, player_html
from vcae.demo.convert_layout import MAX_SHIFT, Parts, lay_out
from vcae.demo.keeping import save_here
from vcae.demo.many import batch_html, convert_many
from vcae.demo.pictures import note_html, views_html
from vcae.demo.studio import Studio, session_of, shows_errors
from vcae.demo.voices import Shelf
from vcae.demo.waiting import timed
from vcae.demo.work import convert_files, denoise_file, hertz
from vcae.figures.plot import view_sound
from vcae.options import AUTO, CHANNELS, DENOISE_STRENGTH, ConvertOptions

EXAMPLE_CARD = "clip:reference"
# Semitones of the chips.
STEP = 2.0
# Fills in the chosen card, which only the browser knows; it is the second input.
CHOSEN = "(...given) => { given[1] = window.vcaeVoice('shelf'); return given; }"
FORGIVE = "() => window.vcaeForgive('convert-status')"
EXAMPLE = f"() => {{ document.getElementById('voice-{EXAMPLE_CARD.replace(':', '-')}').checked = true; }}"
REMEMBERED = "vcae-settings"
# Automatic pitch, semitones, percent of the new voice, cleaning, percent of speed and of expression, semitones of the formants, channels.
USUAL = (True, 0, 100, False, 100, 100, 0, "keep")


def build(studio: Studio, shelf: Shelf, page: gr.Blocks) -> None:
    """Add the tab's contents and its events."""
    parts = lay_out(studio)
    _add_settings(page, parts)
    runs = _add_conversion(studio, shelf, parts)
    runs.append(_add_clean_comparison(studio, parts))
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


def _add_settings(page: gr.Blocks, parts: Parts) -> None:
    """Keep the settings over a reload, in the browser."""
    automatic, semitones = parts.settings[:2]
    semitones.input(lambda: False, None, automatic, queue=False, show_progress="hidden", api_visibility="private")
    remembered = gr.BrowserState(list(USUAL), storage_key=REMEMBERED, secret=REMEMBERED)
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
        automatic, semitones, strength, cleaned, speed, expression, formant, channels = values
        numbers = [
            max(low, min(high, float(value)))
            for value, low, high in (
                (semitones, -MAX_SHIFT, MAX_SHIFT),
                (strength, 0, 100),
                (speed, 50, 200),
                (expression, 0, 200),
                (formant, -6, 6),
            )
        ]
        kept = channels if channels in CHANNELS else USUAL[-1]
        return [bool(automatic), *numbers[:2], bool(cleaned), *numbers[2:], kept]
    except (TypeError, ValueError):
        return list(USUAL)


def _add_conversion(studio: Studio, shelf: Shelf, parts: Parts) -> list[Any]:
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
        speed: float,
        expression: float,
        formant: float,
        channels: str,
        visitor: dict[str, str],
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        options = _options(automatic, semitones, strength, cleaned, speed, expression, formant, channels)
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
        speed: float,
        expression: float,
        formant: float,
        channels: str,
        visitor: dict[str, str],
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        options = _options(automatic, semitones, strength, cleaned, speed, expression, formant, channels)
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


def _add_clean_comparison(studio: Studio, parts: Parts) -> Any:
    """Add a player that compares the recording with itself without noise; return the event."""

    @shows_errors(studio, parts.clean_player)
    def work(source: str | None, request: gr.Request, progress: Any = gr.Progress()) -> str:  # noqa: B008
        with studio.job(session_of(request)) as check:
            if source is None:
                raise AudioError("your recording is missing; upload one, record yourself, or try the example")
            done = denoise_file(studio, source, DENOISE_STRENGTH, check, timed(progress))
            made = compare(done.path.with_name("compare.flac"), done.source, done.sound)
            return player_html(studio, made, ("With noise", "Without noise"))

    parts.source.change(lambda: "", None, parts.clean_player, queue=False, api_visibility="private", show_progress="hidden")
    return parts.hear_clean.click(
        work,
        parts.source,
        parts.clean_player,
        concurrency_id="work",
        concurrency_limit=studio.limits.jobs,
        api_visibility="private",
    )


def _options(
    automatic: bool,
    semitones: float,
    strength: float,
    cleaned: bool,
    speed: float,
    expression: float,
    formant: float,
    channels: str,
) -> ConvertOptions:
    """Return the options for the page's settings, which are in percent and semitones."""
    pitch, denoise = AUTO if automatic else semitones, True if cleaned else AUTO
    return ConvertOptions(
        pitch,
        strength / 100,
        denoise=denoise,
        speed=speed / 100,
        formant=formant,
        expression=expression / 100,
        channels=channels,
    )


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


def _move_pitch(step: float, settings: Sequence[Any], last: Mapping[str, Any]) -> list[Any]:
    automatic, semitones, *rest = settings
    start = last.get("shift", 0.0) if automatic else semitones
    return [False, max(-MAX_SHIFT, min(MAX_SHIFT, round(2 * (start + step)) / 2)), *rest]


def _higher(*given: Any) -> list[Any]:
    return _move_pitch(STEP, given[:-1], given[-1])


def _lower(*given: Any) -> list[Any]:
    return _move_pitch(-STEP, given[:-1], given[-1])


def _own(*given: Any) -> list[Any]:
    automatic, semitones, strength, *rest = given[:-1]
    return [automatic, semitones, max(0, strength - 25), *rest]


def _clean(*given: Any) -> list[Any]:
    automatic, semitones, strength, _, *rest = given[:-1]
    return [automatic, semitones, strength, True, *rest]


# Each takes the settings and the last result, and returns the settings to try.
CHIPS = (_higher, _lower, _own, _clean)


def _add_new_voice(studio: Studio, shelf: Shelf, parts: Parts) -> None:
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
