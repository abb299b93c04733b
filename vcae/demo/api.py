"""The HTTP service: named endpoints for conversion, denoising, units, the codec and the limits, for gradio's client or curl."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from vcae import __version__
from vcae.demo.limits import MAX_REFERENCES, read_upload
from vcae.demo.studio import Studio, reports_errors, session_of
from vcae.demo.voices import SHARED, choose_files, choose_twins
from vcae.demo.work import compress_file, convert_files, decompress_file, denoise_file
from vcae.options import AUTO, DENOISE_STRENGTH, ConvertOptions
from vcae.tasks.units import encode_units

PAGE = """
# vcae over HTTP

The words of one recording in the voice of another. {sentence}

```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7861")
wav = client.predict(handle_file("talk.wav"), [handle_file("friend.wav")], api_name="/convert")
```

- `/convert` takes `source`, a sound file; `references`, 1 to {most} sound files of the voice; `pitch`: auto, keep or semitones;
  `strength`, 0 to 1; `match` and `detail`, which have no effect any more; `seed`; `voice`, the name of a voice that the server shares, instead of
  references or beside them; `denoise`, to clean source and references first; without it noisy ones are; `speed`, 0.5 to 2;
  `formant`, -12 to 12 semitones; `expression`, 0 to 2; `rate`, the sample rate of the result in Hz, 0 for the source's, at least 16000;
  `channels`: keep, mono or separate, as `vcae convert --channels`; `loudness`: source or flat. It gives a wav.
- `/denoise` takes `source`, a sound file, and `strength`, 0 to 1. It gives a wav with the source's rate and channels.
- `/units` takes `source` and gives JSON: `units`, `start_s`, `end_s`, `codebook_size`.
- `/compress` takes `source`, a sound file, and `kbps`, 0.6 to 6. It gives a .vcz.
- `/decompress` takes `file`, a .vcz; `references` and `voice`, as above, for another voice than its own; `strict`, to refuse a damaged
  file; `seed`. It gives a wav at 16 kHz, and JSON: `duration_s`, `whole_s`, and `damage`, where in both sound and file.
- `/limits` gives JSON: the version, the limits, the names of shared voices.

With curl: `POST gradio_api/upload`, `POST gradio_api/call/convert` with `{{"data": [...]}}`, then `GET gradio_api/call/convert/EVENT`.

A job that fails answers with one sentence that gives the reason. When {queue} jobs are waiting already, the answer is 503: try again later.

Convert only voices whose owners agreed, and say that the result is synthetic. Every result carries a comment tag; leave it in.
"""


def add_endpoints(studio: Studio) -> None:
    """Add the endpoints to the page; their components are hidden."""
    with gr.Group(visible=False):
        source = gr.File(label="source")
        references = gr.File(file_count="multiple", label="references")
        pitch = gr.Textbox("auto", label="pitch")
        strength = gr.Number(1.0, label="strength")
        reduction = gr.Number(DENOISE_STRENGTH, label="strength")
        match, detail = gr.Textbox("auto", label="match"), gr.Textbox("auto", label="detail")
        seed = gr.Number(0, precision=0, label="seed")
        voice = gr.Textbox("", label="voice")
        kbps = gr.Number(1.5, label="kbps")
        clean = gr.Checkbox(False, label="denoise")
        speed, formant = gr.Number(1.0, label="speed"), gr.Number(0.0, label="formant")
        expression, rate = gr.Number(1.0, label="expression"), gr.Number(0, precision=0, label="rate")
        channels, loudness = gr.Textbox("keep", label="channels"), gr.Textbox("source", label="loudness")
        file, strict = gr.File(label="file"), gr.Checkbox(False, label="strict")
        sound, code, plain = gr.File(label="wav"), gr.File(label="vcz"), gr.JSON(label="json")
        buttons = [gr.Button() for _ in range(6)]

    @reports_errors(studio)
    def convert(
        source: str,
        references: list[str] | None,
        pitch: str,
        strength: float,
        match: str,
        detail: str,
        seed: int,
        voice: str,
        denoise: bool,
        speed: float,
        formant: float,
        expression: float,
        rate: int,
        channels: str,
        loudness: str,
        request: gr.Request,
    ) -> str:
        """Convert `source` to the voice of `references`."""
        manner = (1.0 if speed is None else speed, formant or 0.0, 1.0 if expression is None else expression)
        cleaned = True if denoise else AUTO
        options = ConvertOptions(
            pitch,
            strength,
            loudness or "source",
            int(seed or 0),
            cleaned,
            *manner,
            rate=int(rate or 0) or None,
            channels=channels or "keep",
        )
        with studio.job(session_of(request)) as check:
            saved = _shared(studio, voice, choose_files)
            return str(convert_files(studio, source, references or [], saved, options, check).path)

    @reports_errors(studio)
    def denoise(source: str, strength: float, request: gr.Request) -> str:
        """Denoise a recording."""
        with studio.job(session_of(request)) as check:
            return str(denoise_file(studio, source, DENOISE_STRENGTH if strength is None else strength, check).path)

    @reports_errors(studio)
    def units(source: str, request: gr.Request) -> dict[str, Any]:
        """Return the units of a recording, one per step, with their times in seconds."""
        with studio.job(session_of(request)):
            found = encode_units(studio.model("vq"), read_upload(source, "the source", studio.limits.seconds))
        starts, ends = zip(*found.times(), strict=True)
        return {
            "units": list(found.units),
            "start_s": list(starts),
            "end_s": list(ends),
            "codebook_size": found.codebook_size,
            "sha256": found.sha256,
        }

    @reports_errors(studio)
    def compress(source: str, kbps: float, request: gr.Request) -> str:
        """Compress a recording to a .vcz."""
        with studio.job(session_of(request)) as check:
            return str(compress_file(studio, source, 1.5 if kbps is None else kbps, check).path)

    @reports_errors(studio)
    def decompress(
        file: str, references: list[str] | None, voice: str, strict: bool, seed: int, request: gr.Request
    ) -> tuple[str, dict[str, Any]]:
        """Decompress a .vcz to a wav, in the voice of `references` if there are any; also return its damage."""
        with studio.job(session_of(request)) as check:
            saved = _shared(studio, voice, choose_twins)
            other = (references or [], saved) if references or saved else None
            done = decompress_file(studio, file, other, check, strict=bool(strict), seed=int(seed or 0))
            facts = {"duration_s": done.sound.duration_s, "whole_s": done.whole_s, "damage": [vars(d) for d in done.damage]}
            return str(done.path), facts

    def limits() -> dict[str, Any]:
        """Return the version, the limits, and the names of shared voices."""
        known = studio.limits
        return {
            "version": __version__,
            "seconds": None if math.isinf(known.seconds) else known.seconds,
            "megabytes": known.megabytes,
            "queue": known.queue,
            "jobs": known.jobs,
            "references": MAX_REFERENCES,
            "voices": list(studio.shared_voices()),
        }

    shared: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": studio.limits.jobs}
    inputs = [source, references, pitch, strength, match, detail, seed, voice, clean, speed, formant]
    inputs += [expression, rate, channels, loudness]
    buttons[0].click(convert, inputs, sound, api_name="convert", **shared)
    buttons[1].click(units, source, plain, api_name="units", **shared)
    buttons[2].click(compress, [source, kbps], code, api_name="compress", **shared)
    buttons[3].click(decompress, [file, references, voice, strict, seed], [sound, plain], api_name="decompress", **shared)
    buttons[5].click(denoise, [source, reduction], sound, api_name="denoise", **shared)
    buttons[4].click(limits, None, plain, api_name="limits", queue=False)


def build(studio: Studio) -> None:
    """Add the page with the manual, and the endpoints."""
    known = studio.limits
    gr.Markdown(PAGE.format(sentence=known.sentence, most=MAX_REFERENCES, queue=known.queue), elem_classes="vcae-doc")
    add_endpoints(studio)


def _shared(studio: Studio, voice: str, choose: Callable[..., list[Path]]) -> list[Path]:
    """Return the file of a shared voice, if a name is given."""
    return choose(studio, {}, [voice.strip() + SHARED]) if voice and voice.strip() else []
