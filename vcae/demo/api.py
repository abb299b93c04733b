"""The HTTP service: conversion, units and limits under names, for gradio's client or curl."""

from __future__ import annotations

from typing import Any

import gradio as gr

from vcae import __version__
from vcae.demo.limits import MAX_REFERENCES, read_upload
from vcae.demo.studio import Studio, session_of, told
from vcae.demo.voices import SHARED
from vcae.demo.work import convert_files
from vcae.tasks.convert import ConvertOptions
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
  `strength`, 0 to 1; `match` and `detail`: auto or 0 to 1; `seed`; `voice`, the name of a voice that the server shares, instead of
  references or beside them. It gives a wav at 16 kHz.
- `/units` takes `source` and gives JSON: `units`, `start_s`, `end_s`, `codebook_size`.
- `/limits` gives JSON: the version, the limits, the names of shared voices.

With curl: `POST gradio_api/upload`, `POST gradio_api/call/convert` with `{{"data": [...]}}`, then `GET gradio_api/call/convert/EVENT`.

A job that cannot be done answers with one sentence that says why. When {queue} jobs wait already, the answer is 503: try again later.

Convert only voices whose owners agreed, and say that the result is synthetic. Every result carries a comment tag; leave it in.
"""


def add_endpoints(studio: Studio) -> None:
    """Add the endpoints to the page that is being built; their components are not shown."""
    with gr.Group(visible=False):
        source = gr.File(label="source")
        references = gr.File(file_count="multiple", label="references")
        pitch = gr.Textbox("auto", label="pitch")
        strength = gr.Number(1.0, label="strength")
        match, detail = gr.Textbox("auto", label="match"), gr.Textbox("auto", label="detail")
        seed = gr.Number(0, precision=0, label="seed")
        voice = gr.Textbox("", label="voice")
        sound, plain = gr.File(label="wav"), gr.JSON(label="json")
        buttons = [gr.Button() for _ in range(3)]

    @told(studio)
    def convert(
        source: str,
        references: list[str] | None,
        pitch: str,
        strength: float,
        match: str,
        detail: str,
        seed: int,
        voice: str,
        request: gr.Request,
    ) -> str:
        """Say what `source` says in the voice of `references`."""
        options = ConvertOptions(pitch, strength, match, detail, seed=int(seed or 0))
        with studio.job(session_of(request)) as check:
            saved = _shared(studio, voice)
            return str(convert_files(studio, source, references or [], saved, options, check).path)

    @told(studio)
    def units(source: str, request: gr.Request) -> dict[str, Any]:
        """Return the units of a recording, one a step, with their times in seconds."""
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

    def limits() -> dict[str, Any]:
        """Return the version, the limits, and the names of voices that may be asked for."""
        known = studio.limits
        return {
            "version": __version__,
            "seconds": known.seconds,
            "megabytes": known.megabytes,
            "queue": known.queue,
            "jobs": known.jobs,
            "references": MAX_REFERENCES,
            "voices": list(studio.shared_voices()),
        }

    shared: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": studio.limits.jobs}
    inputs = [source, references, pitch, strength, match, detail, seed, voice]
    buttons[0].click(convert, inputs, sound, api_name="convert", **shared)
    buttons[1].click(units, source, plain, api_name="units", **shared)
    buttons[2].click(limits, None, plain, api_name="limits", queue=False)


def build(studio: Studio) -> None:
    """Add the page that says how, and the endpoints."""
    known = studio.limits
    gr.Markdown(PAGE.format(sentence=known.sentence, most=MAX_REFERENCES, queue=known.queue), elem_classes="vcae-doc")
    add_endpoints(studio)


def _shared(studio: Studio, voice: str) -> list[Any]:
    from vcae.demo.voices import choose_files

    return choose_files(studio, {}, [voice.strip() + SHARED]) if voice and voice.strip() else []
