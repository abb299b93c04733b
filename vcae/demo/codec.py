"""The tab Codec: compress a recording to a small file, and decode it in its own voice or another."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr

from vcae import ConfigError
from vcae.codec.vcz import damage_lines
from vcae.demo.clips import clip
from vcae.demo.pictures import facts_html, list_html, note_html, views_html
from vcae.demo.studio import Studio, session_of, shows_errors
from vcae.demo.voices import Shelf, choose_twins
from vcae.demo.work import Compressed, Decoded, compress_file, decompress_file
from vcae.figures.plot import view_sound

RATES = (0.6, 1.5, 3.0, 6.0)
# Relative difference between a file's rate and the requested one from which the page explains it.
NEAR = 0.1
WAV_BYTES = 2
WAITING = "The file appears here: its size, how it sounds, and a download."
OTHER = "The file holds the voice beside the words, in a few bytes. Any other voice can say them instead."


@dataclass(frozen=True)
class _Parts:
    """Components of the tab, by their use."""

    kept: gr.State
    source: gr.Audio
    kbps: gr.Radio
    go: gr.Button
    example: gr.Button
    stop: gr.Button
    file: gr.File
    decode: gr.Button
    status: gr.HTML
    result: gr.Column
    facts: gr.HTML
    original: gr.Audio
    decoded: gr.Audio
    download: gr.DownloadButton
    pictures: gr.HTML
    reference: gr.Audio
    saved: gr.Dropdown
    say: gr.Button
    stop_saying: gr.Button
    said_note: gr.HTML
    said: gr.Audio


def build(studio: Studio, shelf: Shelf) -> None:
    """Add the tab's contents and its events."""
    parts = _layout(studio, shelf)
    options: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": studio.limits.jobs, "api_visibility": "private"}
    running = [*_add_compression(studio, parts, options), _add_other_voice(studio, shelf, parts, options)]

    def stop_work(request: gr.Request) -> tuple[str, str]:
        studio.stop(session_of(request))
        return note_html("Stopped. " + WAITING), note_html(OTHER)

    gr.on(
        [parts.stop.click, parts.stop_saying.click],
        stop_work,
        None,
        [parts.status, parts.said_note],
        cancels=running,
        queue=False,
        api_visibility="private",
        show_progress="hidden",
    )


def _layout(studio: Studio, shelf: Shelf) -> _Parts:
    """Add the tab's components."""
    gr.Markdown(
        "Speech in a few hundred to a few thousand bits a second; and back, in its own voice or another.",
        elem_classes="vcae-lead",
    )
    kept = gr.State("", time_to_live=60 * studio.limits.minutes * 4, delete_callback=studio.forget)
    source = _audio("1. A recording", "codec-source")
    kbps = gr.Radio(
        [(f"{rate:g}", rate) for rate in RATES],
        value=1.5,
        label="kbit/s",
        info="Fewer: a smaller file. More: nearer to the recording.",
        elem_id="codec-kbps",
    )
    with gr.Row(elem_classes="vcae-actions"):
        go = gr.Button("Compress", variant="primary", elem_id="codec-go", scale=3)
        example = gr.Button("Try the bundled clip", elem_id="codec-example", scale=2)
        stop = gr.Button("Stop", elem_id="codec-stop", elem_classes="vcae-stop", scale=1)
    with gr.Accordion("Decode a .vcz file", open=False, elem_id="codec-before"):
        file = gr.File(label="A .vcz, from here or the command line", height=170, elem_id="codec-file")
        decode = gr.Button("Decode it", elem_id="codec-decode")
    status = gr.HTML(note_html(WAITING), padding=False, elem_id="codec-status", elem_classes="vcae-status")
    with gr.Column(visible=False, elem_id="codec-result") as result:
        facts = gr.HTML(padding=False, elem_id="codec-facts")
        with gr.Row():
            original = gr.Audio(label="Original", interactive=False, buttons=[], min_width=280, elem_id="codec-original")
            decoded = gr.Audio(label="Decoded", interactive=False, buttons=["download"], min_width=280, elem_id="codec-decoded")
        download = gr.DownloadButton("Download the .vcz", elem_id="codec-download")
        pictures = gr.HTML(padding=False, elem_id="codec-pictures")
        reference = _audio("2. Another voice to decode it in", "codec-voice")
        saved = shelf.dropdown("Saved voices (with a clip, or several: mixed evenly)")
        with gr.Row(elem_classes="vcae-actions"):
            say = gr.Button("Decode in this voice", variant="primary", elem_id="codec-say", scale=3)
            stop_saying = gr.Button("Stop", elem_id="codec-stop-saying", elem_classes="vcae-stop", scale=1)
        said_note = gr.HTML(note_html(OTHER), padding=False, elem_id="codec-said-note")
        said = gr.Audio(
            label="Decoded in this voice", interactive=False, visible=False, buttons=["download"], elem_id="codec-said"
        )
    return _Parts(
        kept,
        source,
        kbps,
        go,
        example,
        stop,
        file,
        decode,
        status,
        result,
        facts,
        original,
        decoded,
        download,
        pictures,
        reference,
        saved,
        say,
        stop_saying,
        said_note,
        said,
    )


def _add_compression(studio: Studio, parts: _Parts, options: dict[str, Any]) -> list[Any]:
    """Add compressing a recording and decoding a file; return the events."""

    @shows_errors(studio, parts.status)
    def compress_work(
        source: str | None,
        kbps: float,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        start = time.perf_counter()
        with studio.job(session_of(request)) as check:
            made = compress_file(studio, source, kbps, check, lambda share, what: progress(0.5 * share, desc=what))
            between = time.perf_counter()
            done = decompress_file(studio, made.path, None, check, lambda share, what: progress(0.5 + 0.45 * share, desc=what))
            end = time.perf_counter()
            progress(0.95, desc="drawing")
            views = [view_sound(made.source, "Original"), view_sound(done.sound, "Decoded")]
            drawn = views_html(views, [f"Log-mel and F0 of the {when} recording" for when in ("original", "decoded")])
        text = f"Done: {made.source.duration_s:.1f} s of speech, compressed in {between - start:.1f} s and decoded in {end - between:.1f} s."
        path = str(made.path)
        return [
            note_html(text + _beside(made, kbps), "done"),
            gr.update(visible=True),
            _facts(done, f"{kbps:g} asked for"),
            gr.update(value=source, visible=True),
            str(done.path),
            gr.update(value=path, visible=True),
            drawn,
            path,
            *_nothing_said(),
        ]

    @shows_errors(studio, parts.status)
    def decode_work(file: str | None, request: gr.Request, progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008
        start = time.perf_counter()
        with studio.job(session_of(request)) as check:
            done = decompress_file(studio, file, None, check, lambda share, what: progress(share, desc=what))
            took = time.perf_counter() - start
            progress(0.95, desc="drawing")
            drawn = views_html([view_sound(done.sound, "Decoded")], ["Log-mel and F0 of the decoded recording"])
            # Gradio removes uploads after some time; a copy is kept as long as it is used.
            copy = studio.new_file("upload.vcz")
            copy.write_bytes(done.data)
        text = f"Done: {done.sound.duration_s:.1f} s decoded in {took:.1f} s."
        return [
            note_html(text, "done"),
            gr.update(visible=True),
            _facts(done, "of what can be heard" if done.damage else "the whole file over its length"),
            gr.update(value=None, visible=False),
            str(done.path),
            gr.update(visible=False),
            drawn,
            str(copy),
            *_nothing_said(),
        ]

    outputs = [
        parts.status,
        parts.result,
        parts.facts,
        parts.original,
        parts.decoded,
        parts.download,
        parts.pictures,
        parts.kept,
    ]
    outputs += [parts.said_note, parts.said]
    given = [parts.source, parts.kbps]
    compressing = parts.go.click(compress_work, given, outputs, show_progress_on=parts.status, **options)
    filled = parts.example.click(
        lambda: (str(clip("source.flac")), str(clip("reference.flac"))),
        None,
        [parts.source, parts.reference],
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
    also = filled.then(compress_work, given, outputs, show_progress_on=parts.status, **options)
    decoding = parts.decode.click(decode_work, parts.file, outputs, show_progress_on=parts.status, **options)
    return [compressing, also, decoding]


def _add_other_voice(studio: Studio, shelf: Shelf, parts: _Parts, options: dict[str, Any]) -> Any:
    """Add decoding in another voice; return the event."""

    @shows_errors(studio, parts.said_note)
    def say_work(
        reference: str | None,
        saved: list[str] | None,
        kept: str,
        visitor: dict[str, str],
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        with studio.job(session_of(request)) as check:
            if not kept:
                raise ConfigError("there is no compressed file yet; compress a recording first, or decode a file")
            code = studio.kept(kept, "the compressed file")
            voice = [reference] if reference else [], choose_twins(studio, visitor, saved or [])
            done = decompress_file(studio, code, voice, check, lambda share, what: progress(share, desc=what))
        text = f"Done: {done.sound.duration_s:.1f} s, from the same {len(done.data):,} bytes and {done.speech_s:.1f} s of the voice."
        return [note_html(text, "done"), gr.update(value=str(done.path), visible=True)]

    given, shown = [parts.reference, parts.saved, parts.kept, shelf.visitor], [parts.said_note, parts.said]
    return parts.say.click(say_work, given, shown, show_progress_on=parts.said_note, **options)


def _audio(label: str, elem_id: str) -> gr.Audio:
    sources: Any = ["upload", "microphone"]
    return gr.Audio(sources=sources, type="filepath", buttons=[], min_width=280, label=label, elem_id=elem_id)


def _nothing_said() -> list[Any]:
    return [note_html(OTHER), gr.update(value=None, visible=False)]


def _facts(done: Decoded, rate: str) -> str:
    """Return the size, the rate and the compression ratio, and the damage of the file."""
    wav_bytes = WAV_BYTES * len(done.sound.wav)
    shown = facts_html(
        [
            (f"{len(done.data):,} bytes", "the whole file"),
            (f"{_kbps(len(done.data), done.sound.duration_s):.2f} kbit/s", rate),
            (
                f"{wav_bytes / len(done.data):,.0f} times smaller",
                f"than {wav_bytes / 1000:,.0f} kB as 16-bit wav at 16 kHz",
            ),
        ]
    )
    if not done.damage:
        return shown
    heard = (
        f"{done.sound.duration_s:.1f} of {done.whole_s:.1f} s are there"
        if done.sound.duration_s < done.whole_s
        else "what is lost is silent"
    )
    return shown + list_html(f"The file is damaged; {heard}:", damage_lines(done.damage))


def _kbps(n_bytes: int, seconds: float) -> float:
    return 8e-3 * n_bytes / seconds


def _beside(made: Compressed, asked: float) -> str:
    """Return why a file's rate is not the one that was asked for, if it is not."""
    rate = _kbps(made.n_bytes, made.source.duration_s)
    if rate > (1 + NEAR) * asked:
        return " So short a recording cannot be sent in less."
    return " The best quality takes no more." if rate < (1 - NEAR) * asked and asked == max(RATES) else ""
