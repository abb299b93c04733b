"""The page in web/, built by `make web`: it converts in Chromium as Python does, with the network cut."""

import functools
import http.server
import sys
import threading

import numpy as np
import pytest
import torch
from playwright.sync_api import sync_playwright

from tests.conftest import CLIPS, ROOT
from tests.demo_server import ARGUMENTS, find_chromium
from vcae.audio.io import read_sound
from vcae.audio.watermark import find_watermark
from vcae.options import ConvertOptions
from vcae.tasks.convert import convert
from vcae.voice.voice import voice_from_sounds

SITE = ROOT / "web" / "build" / "site"
CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.skipif(not (SITE / "sw.js").exists(), reason="the page is not built: make web"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]
MAX_MB = 25
LOAD_MS = 180_000


class _Handler(http.server.SimpleHTTPRequestHandler):
    isolated = False

    def end_headers(self):
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(params=[False, True], ids=["plain", "isolated"])
def server(request):
    handler = type("Handler", (_Handler,), {"isolated": request.param})
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=SITE))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made, request.param
    made.server_close()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


def _ready(page):
    page.wait_for_function(
        "window.vcae?.state.ready || document.querySelector('#status').classList.contains('error')", timeout=LOAD_MS
    )
    assert "Ready" in page.inner_text("#status"), page.inner_text("#status")


def test_size():
    size = sum(file.stat().st_size for file in SITE.rglob("*") if file.is_file())
    assert size < MAX_MB * 1e6


def test_it_converts_as_python_does_without_a_network(browser, server, model, tmp_path):
    made, isolated = server
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    url = f"http://127.0.0.1:{made.server_port}/"
    page.goto(url)
    _ready(page)
    page.wait_for_function("document.querySelector('#offline').textContent != ''", timeout=LOAD_MS)
    assert all(address.startswith((url, "blob:", "data:")) for address in asked)
    # From here on there is neither a server nor a network.
    made.shutdown()
    context.set_offline(True)
    page.reload()
    _ready(page)
    assert page.evaluate("window.vcae.state.loaded.threads > 1") == (
        isolated and page.evaluate("navigator.hardwareConcurrency") > 1
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#source-example")
    page.wait_for_function("window.vcae.state.source")
    page.click("#convert")
    page.wait_for_function("window.vcae.last || document.querySelector('#status').classList.contains('error')", timeout=LOAD_MS)
    assert "converted in" in page.inner_text("#status")
    last = page.evaluate(
        "() => { const { mel, f0, wav, rtf } = window.vcae.last; return { mel: [...mel], f0: [...f0], wav: [...wav], rtf }; }"
    )
    source, clip = read_sound(CLIPS / "source.flac"), read_sound(CLIPS / "reference.flac")
    expected = convert(model, source, voice_from_sounds(model, [clip]), ConvertOptions(denoise=False))
    mel, f0, wav = (np.array(last[name], np.float32) for name in ("mel", "f0", "wav"))
    likeness = np.corrcoef(mel, expected.mel.numpy().ravel())[0, 1]
    # Shown by `make web-test`.
    sys.stdout.write(
        f"{'several threads' if isolated else 'one thread'}: correlation with the mel {likeness:.5f}, real-time factor {last['rtf']:.3f}\n"
    )
    assert likeness >= 0.99
    assert np.mean(np.abs(f0 - expected.f0.numpy()[0]) < 1) > 0.99
    assert abs(len(wav) - len(expected.wav)) <= 1
    assert find_watermark(wav, 16000).found
    # The sound itself has that mel, too, and is as loud.
    heard = model.log_mel(expected.wav[None])[0].numpy()
    ours = model.log_mel(torch.from_numpy(wav)[None])[0].numpy()
    n = min(heard.shape[1], ours.shape[1])
    assert np.corrcoef(heard[:, :n].ravel(), ours[:, :n].ravel())[0, 1] >= 0.98
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "made.wav")
    assert read_sound(tmp_path / "made.wav").duration_s == pytest.approx(source.duration_s, abs=0.01)
    context.close()


def test_errors_are_shown(browser, server, tmp_path):
    made, _ = server
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{made.server_port}/")
    (tmp_path / "text.wav").write_text("not a sound")
    page.set_input_files("#source-file", tmp_path / "text.wav")
    page.wait_for_selector("#status.error", timeout=LOAD_MS)
    assert "text.wav could not be read as sound" in page.inner_text("#status")
    assert page.is_disabled("#convert")
    made.shutdown()
    page.close()
