"""The tab Live: the browser's microphone in another voice, block by block."""

from __future__ import annotations

import html
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np

from vcae import ConfigError, LiveConverter, load_voice, read_sound
from vcae.demo.cards import card_file, card_sample, shelf_html
from vcae.demo.pictures import note_html
from vcae.demo.studio import Studio, shows_errors
from vcae.demo.voices import Shelf

# Conversions at the same time, and seconds without a block after which one ends.
MAX_LIVE, IDLE_S = 2, 15.0
# Range of 16-bit samples.
FULL_SCALE = 32767
HINT = (
    "Wear headphones, or the microphone hears the new voice too. For a meeting, choose a virtual cable as the loudspeaker here and as the "
    "microphone there: VB-Cable on Windows, BlackHole on macOS, a null sink of PipeWire on Linux."
)
DEVICES = """<div id="live-devices"><label>Microphone<select name="microphone" data-usual="the usual one">
<option value="">the usual one</option></select></label>
<label>Loudspeaker<select name="loudspeaker" data-usual="the usual one"><option value="">the usual one</option></select></label></div>"""


@dataclass
class _Session:
    """A running conversion."""

    converter: LiveConverter
    used: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


class LiveSessions:
    """Running live conversions, each with an unguessable name. They have a thread of their own, so that no job delays them.

    Args:
        studio: Models and folders to use.
    """

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._sessions: dict[str, _Session] = {}
        self._pool = ThreadPoolExecutor(MAX_LIVE, "vcae-live")
        self._lock = threading.Lock()

    def start(self, visitor: dict[str, str], card: str) -> tuple[str, LiveConverter]:
        """Start a conversion to a card's voice, and return its name and its converter.

        Raises:
            ConfigError: If there is no such voice, or too many conversions are running.
        """
        with self._lock:
            self._sweep()
            if len(self._sessions) >= MAX_LIVE:
                raise ConfigError(f"{MAX_LIVE} live conversions are running, which is the limit; end one first")
        model = self._studio.model()
        voice = load_voice(card_file(self._studio, visitor, card), model)
        prior = model.analyse_sound(read_sound(card_sample(self._studio, visitor, card)))

        def make() -> LiveConverter:
            # The first block takes longer, so one is processed in advance.
            warm = LiveConverter(model, voice, prior)
            warm(np.zeros(warm.block_samples, np.float32))
            return LiveConverter(model, voice, prior)

        converter = self._pool.submit(make).result()
        name = secrets.token_urlsafe(18)
        with self._lock:
            self._sessions[name] = _Session(converter)
        return name, converter

    def convert(self, name: str, data: bytes) -> bytes:
        """Convert a block of 16-bit samples.

        Raises:
            ConfigError: If there is no such conversion, or the block has another length than it should.
        """
        found = self._sessions.get(name)
        if found is None:
            raise ConfigError("this live conversion has ended; start it again")
        if len(data) != 2 * found.converter.block_samples:
            raise ConfigError(f"a block has {len(data)} bytes; {2 * found.converter.block_samples} are needed")
        found.used = time.monotonic()
        block = np.frombuffer(data, "<i2").astype(np.float32) / FULL_SCALE

        def work() -> np.ndarray:
            with found.lock:
                return found.converter(block)

        out = self._pool.submit(work).result()
        return bytes(np.round(np.clip(out, -1, 1) * FULL_SCALE).astype("<i2").tobytes())

    def end(self, name: str) -> None:
        """End a conversion, if it is running."""
        self._sessions.pop(name, None)

    def _sweep(self) -> None:
        oldest = time.monotonic() - IDLE_S
        for name in [name for name, session in self._sessions.items() if session.used < oldest]:
            del self._sessions[name]

    def close(self) -> None:
        """End all conversions."""
        self._sessions.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)


def build(studio: Studio, shelf: Shelf, sessions: LiveSessions, page: gr.Blocks) -> None:
    """Add the tab's contents and its events."""
    gr.Markdown("Speak, and hear yourself in another voice a quarter of a second later.", elem_classes="vcae-lead")
    voices = gr.HTML(shelf_html(studio, {}, group="live"), padding=False, elem_id="live-shelf")
    card = gr.Textbox("", visible="hidden", label="Chosen voice for live conversion")
    gr.HTML(DEVICES, padding=False)
    with gr.Row(elem_classes="vcae-actions"):
        start = gr.Button("Start", variant="primary", elem_id="live-start", scale=3)
        stop = gr.Button("Stop", elem_id="live-stop", scale=1, min_width=100)
    status = gr.HTML(note_html(HINT), padding=False, elem_id="live-status")

    @shows_errors(studio, status)
    def begin(card: str, visitor: dict[str, str]) -> str:
        return live_html(*sessions.start(visitor, card))

    chosen = "(...given) => { given[0] = window.vcaeVoice('live-shelf'); return given; }"
    start.click(begin, [card, shelf.visitor], status, js=chosen, api_visibility="private", concurrency_limit=MAX_LIVE)
    stop.click(
        lambda: note_html("Stopped. " + HINT), None, status, queue=False, show_progress="hidden", api_visibility="private"
    )
    quick: dict[str, Any] = {"js": chosen, "api_visibility": "private", "show_progress": "hidden", "queue": False}
    for event in (shelf.visitor.change, page.load):
        event(lambda card, visitor: shelf_html(studio, visitor, card, group="live"), [card, shelf.visitor], voices, **quick)


def live_html(name: str, converter: LiveConverter) -> str:
    """Return the HTML of the element that converts the microphone as long as it is on the page."""
    attributes = {
        "session": name,
        "rate": converter.sample_rate,
        "block": converter.block_samples,
        "starting": f"Starting; at least {converter.latency_ms:.0f} ms of delay. The browser asks for the microphone.",
        "running": "Live. Delay {ms} ms, gaps in the sound: {lost}.",
        "refused": "The microphone cannot be used",
        "input": "You",
        "output": "New voice",
    }
    listed = " ".join(f'{key}="{html.escape(str(value))}"' for key, value in attributes.items())
    return f"<vcae-live {listed}></vcae-live>"
