"""The page, in a real browser, against a real server."""

import io
import math
import re
import time
import urllib.error
import urllib.request
import zipfile
from urllib.parse import urlparse

import numpy as np
import pytest
import soundfile
import torch

import vcae
from tests.conftest import CLIPS, ROOT
from tests.demo_server import ARGUMENTS, DEAD_PROXIES, find_chromium, serving
from vcae import Sound, compress, decompress
from vcae.audio.f0 import estimate_f0
from vcae.audio.io import read_comment
from vcae.audio.loudness import active_level
from vcae.tasks.copy import reconstruct
from vcae.voice.new import priors

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'vcae[demo]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'vcae[dev]'")
CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
WAIT_MS = 90_000
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
LAB = ("Say", "Units", "Codec", "Generate", "Features", "Anomaly")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The page's server, which asks no proxies, and ends in order."""
    with serving(tmp_path_factory.mktemp("demo"), "--public", more=DEAD_PROXIES) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        yield started.chromium


@pytest.fixture(scope="module")
def browser(chromium):
    opened = chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield opened
    opened.close()


class Visitor:
    """A page of its own, with everything it asked for and everything that went wrong."""

    def __init__(self, browser, url, **settings):
        self.context = browser.new_context(accept_downloads=True, **{"locale": "en-US", **settings})
        self.page = self.context.new_page()
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.goto(url)
        self.page.wait_for_selector("#convert", timeout=WAIT_MS)

    def upload(self, place, *files):
        self.page.set_input_files(f"#{place} input[type=file]", [str(file) for file in files])
        for file in files:
            self.page.wait_for_function(
                "([id, name]) => { const place = document.getElementById(id);"
                " return place.querySelector('audio, #waveform, .file-preview, .empty') || place.textContent.includes(name) }",
                arg=[place, file.name],
                timeout=WAIT_MS,
            )
        self.page.wait_for_timeout(500)

    def open_tab(self, name):
        place = self.page.locator("body")
        if name in LAB:
            self.open_tab("Lab")
            place = self.page.locator("#lab")
        tab = place.get_by_role("tab", name=name, exact=True).first
        if not tab.is_visible():
            place.locator(".overflow-menu button").first.click()
            tab = place.locator(".overflow-dropdown button", has_text=name).first
        tab.click()

    def in_view(self, place):
        return self.page.locator(place).evaluate(
            "e => { const box = e.getBoundingClientRect(); return box.top >= 0 && box.bottom <= innerHeight }"
        )

    def told(self):
        """Return what is said in red: under the button, or by gradio at the top for what never reached the server."""
        said = self.page.locator(".vcae-error:visible, .toast-body.error").first
        said.wait_for(timeout=WAIT_MS)
        return said.inner_text()

    def download(self, button, folder):
        with self.page.expect_download(timeout=WAIT_MS) as caught:
            self.page.click(f"#{button}")
        path = folder / caught.value.suggested_filename
        caught.value.save_as(path)
        return path

    def overflow(self):
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def other_hosts(self):
        return [
            url
            for url in self.requests
            if urlparse(url).scheme not in ("data", "blob") and urlparse(url).hostname != "127.0.0.1"
        ]


@pytest.fixture
def visit(browser, server):
    opened = []

    def make(url=server.url, **settings):
        opened.append(Visitor(browser, url, **settings))
        return opened[-1]

    yield make
    for visitor in opened:
        visitor.context.close()


def check_no_traces(text):
    assert "Traceback" not in text
    assert not re.search(r"/(tmp|home|root|usr|work|var)/", text), text


def test_the_bundled_pair_in_one_click(visit, tmp_path):
    visitor = visit()
    visitor.page.click("#example")
    visitor.page.wait_for_selector("#download-wav", timeout=WAIT_MS)
    path = visitor.download("download-wav", tmp_path)
    assert path.name == "source.converted.wav"
    wav, rate = soundfile.read(path)
    assert rate == 16000
    assert len(wav) == soundfile.info(CLIPS / "source.flac").frames
    # Speech: loud in parts, quiet between the words, and not clipped.
    frames = np.sqrt((wav[: len(wav) // 400 * 400].reshape(-1, 400) ** 2).mean(1))
    assert 0.1 < np.abs(wav).max() <= 1
    assert np.quantile(frames, 0.9) > 10 * np.quantile(frames, 0.1)
    assert read_comment(path).startswith("converted by vcae 0.")
    assert visitor.page.locator("#pictures img").count() == 0
    visitor.page.get_by_role("button", name="Picture").first.click()
    visitor.page.locator("#pictures img").nth(1).wait_for(timeout=WAIT_MS)
    pictures = visitor.page.locator("#pictures img")
    assert all("median F0" in pictures.nth(n).get_attribute("alt") for n in range(2))
    said = visitor.page.inner_text("#convert-status")
    source_hz, made_hz = map(int, re.findall(r"(\d+) Hz", said))
    assert 80 < source_hz < 130
    assert 140 < made_hz < 260
    assert visitor.other_hosts() == []
    assert visitor.errors == []
    assert len(visitor.requests) > 20


PLACE = "() => document.querySelector('#player vcae-player').audio.currentTime"


def test_one_player_compares_at_the_same_place(visit):
    visitor = visit(viewport=DESK)
    visitor.page.click("#example")
    visitor.page.wait_for_selector("#download-wav", timeout=WAIT_MS)
    visitor.page.wait_for_timeout(1000)
    assert visitor.in_view("#player vcae-player")
    assert not visitor.page.locator("#stop").is_visible()
    original, new = (visitor.page.get_by_role("button", name=name, exact=True) for name in ("Original", "New"))
    assert [each.get_attribute("aria-pressed") for each in (original, new)] == ["false", "true"]
    visitor.page.locator("#player").get_by_role("button", name="Play", exact=True).click()
    visitor.page.locator("#player").get_by_role("button", name="Pause", exact=True).wait_for(timeout=WAIT_MS)
    # The place goes on with the clock over a switch: both sounds are channels of one stream.
    kept = visitor.page.evaluate(
        """async () => {
            const player = document.querySelector("#player vcae-player");
            while (!player.audio.currentTime) await new Promise(done => setTimeout(done, 20));
            const before = player.audio.currentTime, start = performance.now();
            player.querySelectorAll(".vcae-sides button")[0].click();
            const jump = Math.abs(player.audio.currentTime - before - (performance.now() - start) / 1000);
            await new Promise(done => setTimeout(done, 300));
            return [jump, player.gains.map(gain => gain.gain.value)];
        }"""
    )
    assert kept[0] < 0.05
    assert kept[1][0] > 0.99
    assert kept[1][1] < 0.01
    assert original.get_attribute("aria-pressed") == "true"
    wave = visitor.page.get_by_role("slider", name="Place in the recording")
    wave.press("Home")
    wave.press("PageUp")
    assert visitor.page.evaluate(PLACE) >= 5
    # One stream has both at one level.
    source = visitor.page.locator("#player vcae-player").get_attribute("src")
    with urllib.request.urlopen(f"{visitor.page.url.rstrip('/')}/{source}") as answer:
        both, rate = soundfile.read(io.BytesIO(answer.read()), dtype="float32")
    assert active_level(both[:, 0], rate) == pytest.approx(active_level(both[:, 1], rate), rel=0.02)
    for form, codec in (("mp3", b"ID3"), ("m4a", b"ftyp")):
        link = visitor.page.locator(f"#download-{form}").evaluate("e => e.href")
        with urllib.request.urlopen(link) as answer:
            assert codec in answer.read()[:16]
    assert visitor.errors == []


def test_settings_are_kept_and_chips_try_again(visit):
    visitor = visit(viewport=PHONE, is_mobile=True, has_touch=True)
    visitor.upload("source", CLIPS / "source.flac")
    visitor.page.get_by_role("button", name="Settings").click()
    visitor.page.uncheck("#pitch-auto input")
    visitor.page.click("#convert")
    visitor.page.wait_for_selector("#download-wav", timeout=WAIT_MS)
    source_hz, made_hz = map(int, re.findall(r"(\d+) Hz", visitor.page.inner_text("#convert-status")))
    assert abs(source_hz - made_hz) <= 1
    visitor.page.wait_for_timeout(1000)
    assert visitor.in_view("#player vcae-player")
    visitor.page.click("#chip-higher")
    visitor.page.locator(
        "#convert-status", has_text=f"Pitch {source_hz} Hz before, {round(source_hz * 2 ** (1 / 6))} Hz"
    ).wait_for(timeout=WAIT_MS)
    visitor.page.reload()
    visitor.page.get_by_role("button", name="Settings").click()
    visitor.page.wait_for_function("document.querySelector('#pitch input[type=number]').value == 2", timeout=WAIT_MS)
    assert not visitor.page.is_checked("#pitch-auto input")


def test_voice_cards_play_and_convert(visit):
    visitor = visit()
    # A sample of an invented voice; it is made once.
    button = visitor.page.get_by_role("button", name="Play Invented 2")
    button.click()
    with urllib.request.urlopen(f"{server_of(visitor)}/{button.get_attribute('data-src')}", timeout=90) as answer:
        wav, rate = soundfile.read(io.BytesIO(answer.read()), dtype="float32")
    assert len(wav) == 5 * rate
    assert np.abs(wav).max() > 0.1
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{server_of(visitor)}/studio/sample?card=saved:../../x")
    visitor.upload("source", CLIPS / "source.flac")
    visitor.page.get_by_label("Invented 2").first.check(force=True)
    visitor.page.click("#convert")
    visitor.page.wait_for_selector("#download-wav", timeout=WAIT_MS)
    _, made_hz = map(int, re.findall(r"(\d+) Hz", visitor.page.inner_text("#convert-status")))
    assert 140 < made_hz < 165
    # A voice of one's own, from a clip, and kept.
    assert not visitor.page.locator("#new-clip").is_visible()
    visitor.page.get_by_label("New voice").first.check(force=True)
    visitor.upload("new-clip", CLIPS / "reference.flac")
    visitor.page.fill("#new-name textarea, #new-name input", "dora")
    visitor.page.click("#new-save")
    visitor.page.locator("#convert-status .vcae-done", has_text="Kept dora").wait_for(timeout=WAIT_MS)
    visitor.page.locator("#voice-mine-dora:checked").wait_for(state="attached", timeout=WAIT_MS)
    visitor.page.click("#convert")
    visitor.page.locator("#convert-status .vcae-done", has_text="Pitch").wait_for(timeout=WAIT_MS)
    assert visitor.errors == []


def server_of(visitor):
    return visitor.page.url.rstrip("/")


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "letter.wav").write_text("Dear friend, this is no sound at all.\n" * 40)
    # Half an hour of silence is a small file: its length stands in its header.
    soundfile.write(folder / "long.flac", np.zeros(30 * 60 * 16000, dtype=np.int16), 16000)
    soundfile.write(folder / "silent.wav", np.zeros(16000, dtype=np.int16), 16000)
    # A header that promises an hour, and nothing behind it.
    data = bytearray((folder / "silent.wav").read_bytes()[:44])
    data[40:44] = (3600 * 32000).to_bytes(4, "little")
    (folder / "promise.wav").write_bytes(bytes(data))
    return folder


REFUSALS = {
    "letter.wav": r"recording to convert \(letter.wav\) is not a sound file that can be read",
    "long.flac": r"long.flac\) is 1800 s long; at most 180 s are allowed",
    "silent.wav": r"silent.wav\) is silent",
    "promise.wav": r"promise.wav\)",
}


def test_bad_files_are_refused_with_a_sentence_each(visit, server, bad_files):
    visitor = visit()
    visitor.page.click("#convert")
    assert "Your recording is missing" in visitor.told()
    visitor.upload("source", CLIPS / "source.flac")
    # The error goes with its cause.
    assert not visitor.page.locator("#convert-status .vcae-error").is_visible()
    visitor.page.get_by_label("New voice").first.check(force=True)
    visitor.page.click("#convert")
    visitor.page.locator("#convert-status .vcae-error", has_text="clip of the new voice is missing").wait_for(timeout=WAIT_MS)
    visitor.page.get_by_label("Woman 1").first.check(force=True)
    for name, message in REFUSALS.items():
        visitor.page.locator("#source button[aria-label=Clear]").click()
        visitor.upload("source", bad_files / name)
        start = time.perf_counter()
        visitor.page.click("#convert")
        visitor.page.locator("#convert-status .vcae-error", has_text=name).wait_for(timeout=WAIT_MS)
        assert time.perf_counter() - start < 10, name
        assert re.search(message, visitor.told()), visitor.told()
        check_no_traces(visitor.told())
    check_no_traces(server.log.read_text())
    # The page is none the worse for it.
    visitor.page.click("#example")
    visitor.page.wait_for_selector("#download-wav", timeout=WAIT_MS)


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(visit, server, tmp_path):
    with soundfile.SoundFile(tmp_path / "hour.wav", "w", 16000, 1, "PCM_16") as out:
        for _ in range(30):
            out.write(np.zeros(60 * 16000, dtype=np.int16))
    visitor = visit()
    visitor.page.set_input_files("#source input[type=file]", str(tmp_path / "hour.wav"))
    said = visitor.told()
    assert "size" in said.lower(), said
    check_no_traces(said)
    (root,) = server.log.parent.glob("vcae-demo-*")
    assert sum(p.stat().st_size for p in root.rglob("*") if p.is_file()) < 30e6


def test_the_microphone(chromium, server, tmp_path):
    """A browser whose microphone hears the bundled clip: what is recorded is converted like any file."""
    wav, rate = soundfile.read(CLIPS / "source.flac", dtype="int16")
    soundfile.write(tmp_path / "heard.wav", wav, rate)
    fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    heard = f"--use-file-for-fake-audio-capture={tmp_path / 'heard.wav'}"
    opened = chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *fake, heard])
    try:
        visitor = Visitor(opened, server.url, permissions=["microphone"])
        visitor.page.locator("#source [aria-label='Record audio']").click()
        visitor.page.locator("#source .record-button").click()
        visitor.page.wait_for_timeout(4000)
        visitor.page.locator("#source .stop-button").click()
        visitor.page.locator("#source #waveform, #source .component-wrapper").first.wait_for(timeout=WAIT_MS)
        visitor.page.wait_for_timeout(1000)
        visitor.page.click("#convert")
        visitor.page.wait_for_selector("#download-wav, .vcae-error", timeout=WAIT_MS)
        said = visitor.page.inner_text("#convert-status")
    finally:
        opened.close()
    assert 2.5 < float(re.search(r"Done: ([\d.]+) s", said)[1]) < 7, said


def test_live_in_the_browser(chromium, server, tmp_path):
    """What the microphone hears comes back as sound; the page says how late. How late depends on the machine, so that is measured elsewhere."""
    wav, rate = soundfile.read(CLIPS / "source.flac", dtype="int16")
    soundfile.write(tmp_path / "heard.wav", wav, rate)
    fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    heard = f"--use-file-for-fake-audio-capture={tmp_path / 'heard.wav'}"
    opened = chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *fake, heard])
    try:
        visitor = Visitor(opened, server.url, permissions=["microphone"], locale="en-US")
        visitor.open_tab("Live")
        visitor.page.click("#live-start")
        visitor.page.locator(".vcae-live-told", has_text=re.compile(r"Live\. Delay")).wait_for(timeout=WAIT_MS)
        delay_ms = int(re.search(r"Delay (\d+) ms", visitor.page.inner_text(".vcae-live-told"))[1])
        assert delay_ms > 200
        visitor.page.wait_for_function(
            "[...document.querySelectorAll('.vcae-levels [role=meter]')].every(meter => Number(meter.ariaValueNow) > -45)",
            timeout=WAIT_MS,
        )
        visitor.page.click("#live-stop")
        visitor.page.locator("#live-status", has_text="Stopped.").wait_for(timeout=WAIT_MS)
        assert visitor.errors == []
    finally:
        opened.close()


def test_the_page_speaks_german_and_chinese(visit):
    visitor = visit(locale="de-DE")
    visitor.page.get_by_role("button", name="Umwandeln", exact=True).wait_for(timeout=WAIT_MS)
    visitor.page.click("#convert")
    assert "Deine Aufnahme fehlt" in visitor.told()
    visitor.page.select_option("#vcae-language", "zh")
    visitor.page.get_by_role("button", name="转换", exact=True).wait_for(timeout=WAIT_MS)
    assert visitor.page.evaluate("document.documentElement.lang") == "zh"
    visitor.page.reload()
    visitor.page.get_by_role("button", name="转换", exact=True).wait_for(timeout=WAIT_MS)
    visitor.page.select_option("#vcae-language", "en")
    visitor.page.get_by_role("button", name="Convert", exact=True).wait_for(timeout=WAIT_MS)
    assert visitor.errors == []


def test_several_recordings_become_one_zip(visit, bad_files, tmp_path):
    visitor = visit()
    visitor.page.get_by_role("button", name="Several recordings at once").click()
    visitor.upload("many-sources", CLIPS / "source.flac", bad_files / "letter.wav", CLIPS / "reference2.flac")
    visitor.page.click("#many-go")
    visitor.page.locator("#convert-status", has_text="Done: 2 of 3 recordings.").wait_for(timeout=WAIT_MS)
    rows = visitor.page.locator("#many-results tbody tr").all_inner_texts()
    assert "not converted" in rows[1]
    assert "is not a sound file" in rows[1]
    with zipfile.ZipFile(visitor.download("many-download", tmp_path)) as packed:
        assert packed.namelist() == ["source.converted.wav", "reference2.converted.wav"]
        assert packed.testzip() is None
    assert visitor.errors == []


def test_stop_ends_the_work(visit, tmp_path):
    """Three minutes of speech take seconds to convert; stopped, the page is free at once and the next job is done."""
    wav, rate = soundfile.read(CLIPS / "source.flac", dtype="int16")
    soundfile.write(tmp_path / "talk.flac", np.tile(wav, 26), rate)
    visitor = visit()
    visitor.upload("source", tmp_path / "talk.flac")
    visitor.page.click("#convert")
    visitor.page.locator("#stop").wait_for(timeout=WAIT_MS)
    visitor.page.wait_for_timeout(1000)
    visitor.page.click("#stop")
    visitor.page.locator("#convert-status", has_text="Stopped.").wait_for(timeout=5000)
    assert not visitor.page.locator("#download-wav").is_visible()
    visitor.page.click("#example")
    visitor.page.wait_for_selector("#download-wav", timeout=WAIT_MS)
    assert "Done: 6.7 s in" in visitor.page.inner_text("#convert-status")


def test_two_visitors_see_only_their_own_voices(visit, tmp_path):
    first, second = visit(), visit()
    for visitor in (first, second):
        visitor.open_tab("Voices")
    first.upload("voice-clips", CLIPS / "reference.flac", CLIPS / "reference2.flac")
    first.page.fill("#voice-name textarea, #voice-name input", "alice")
    first.page.click("#voice-save")
    first.page.locator("#voice-list", has_text="alice").wait_for(timeout=WAIT_MS)
    assert "reference.flac, reference2.flac" in first.page.inner_text("#voice-list")
    file = first.download("voice-download", tmp_path)
    assert file.name == "alice.safetensors"
    # At once: one converts with it, the other has never heard of it.
    for visitor in (first, second):
        visitor.open_tab("Studio")
        visitor.upload("source", CLIPS / "source.flac")
    first.page.check("#voice-mine-alice", force=True)
    first.page.click("#convert")
    first.page.wait_for_selector("#download-wav", timeout=WAIT_MS)
    assert second.page.locator("#voice-mine-alice").count() == 0
    # The codec, which stands on another checkpoint, knows her too.
    first.open_tab("Codec")
    first.upload("codec-source", CLIPS / "source.flac")
    first.page.get_by_label("0.6", exact=True).check()
    first.page.click("#codec-go")
    first.page.wait_for_selector("#codec-facts dl", timeout=WAIT_MS)
    first.page.get_by_label("Saved voices (with a clip").first.click()
    first.page.get_by_role("option", name="alice").last.click()
    first.page.click("#codec-say")
    first.page.locator("#codec-said-note .vcae-done").wait_for(timeout=WAIT_MS)
    said = first.page.inner_text("#codec-said-note")
    assert float(re.search(r"and ([\d.]+) s of the voice", said)[1]) == pytest.approx(
        vcae.load_voice(file).speech_s, abs=0.06
    ), said
    # Her file brings her back on another day.
    third = visit()
    third.open_tab("Voices")
    third.page.get_by_text("Bring a voice's file").click()
    third.upload("voice-file", file)
    third.page.get_by_role("button", name="Keep it here").click()
    third.page.locator("#voice-list", has_text="alice").wait_for(timeout=WAIT_MS)


def test_units_and_back(visit, tmp_path):
    visitor = visit()
    visitor.open_tab("Units")
    visitor.page.click("#units-example")
    visitor.page.wait_for_selector("#units-json", timeout=WAIT_MS)
    from vcae.tasks.unit_files import read_units

    (units,) = read_units(visitor.download("units-json", tmp_path))
    (grid,) = read_units(visitor.download("units-grid", tmp_path))
    assert units.units == grid.units
    assert units.duration_s == pytest.approx(soundfile.info(CLIPS / "source.flac").duration, abs=1e-4)
    visitor.page.click("#units-say")
    visitor.page.locator("#units-said audio, #units-said #waveform").first.wait_for(state="attached", timeout=WAIT_MS)
    assert visitor.other_hosts() == []


def source_of(visitor, place):
    """Return the samples that a player of the page plays."""
    link = visitor.page.locator(f"#{place} [data-testid=download-link]").first
    link.wait_for(state="attached", timeout=WAIT_MS)
    with urllib.request.urlopen(link.get_attribute("href")) as answer:
        return soundfile.read(io.BytesIO(answer.read()), dtype="float32")


def linked(visitor, place):
    """Return the samples behind a link of the page."""
    with urllib.request.urlopen(visitor.page.locator(f"#{place}").evaluate("e => e.href")) as answer:
        return soundfile.read(io.BytesIO(answer.read()), dtype="float32")


def median_hz(wav, rate):
    f0 = estimate_f0(wav, rate)
    return float(np.median(f0[f0 > 0]))


def test_denoise_before_and_after(visit, speech):
    visitor = visit()
    visitor.open_tab("Clean up")
    visitor.page.click("#denoise-example")
    visitor.page.locator("#denoise-status .vcae-done").wait_for(timeout=WAIT_MS)
    made, rate = linked(visitor, "denoise-download-wav")
    noisy = soundfile.read(CLIPS / "noisy.flac", dtype="float32")[0]
    assert (rate, len(made)) == (16000, len(noisy))
    assert np.abs(made - vcae.denoise(noisy, 16000).wav).max() < 2e-3

    def nearness(wav):
        return float(np.dot(wav, speech) / np.linalg.norm(wav) / np.linalg.norm(speech))

    assert nearness(made) > nearness(noisy)
    visitor.page.fill("#denoise-strength input[type=number]", "0")
    visitor.page.keyboard.press("Tab")
    before = visitor.page.locator("#denoise-download-wav").get_attribute("href")
    visitor.page.click("#denoise-go")
    visitor.page.wait_for_function(
        "before => document.querySelector('#denoise-download-wav').getAttribute('href') != before", arg=before, timeout=WAIT_MS
    )
    same, _ = linked(visitor, "denoise-download-wav")
    assert np.abs(same - noisy).max() < 1e-3
    assert visitor.errors == []


def test_features_and_copies_from_few_numbers(visit, tmp_path, model, speech):
    visitor = visit()
    visitor.open_tab("Features")
    visitor.page.click("#features-measure")
    assert "The recording is missing" in visitor.told()
    visitor.page.click("#features-example")
    visitor.page.locator("#features-source audio, #features-source #waveform").first.wait_for(state="attached", timeout=WAIT_MS)
    visitor.page.click("#features-measure")
    visitor.page.wait_for_selector("#features-facts dl", timeout=WAIT_MS)
    shape, cosine = visitor.page.locator("#features-facts dd").all_inner_texts()
    assert shape == "1 x 128"
    reference = soundfile.read(CLIPS / "reference.flac", dtype="float32")[0]
    voices = [model.voice(wav, 16000).speaker_embedding for wav in (speech, reference)]
    assert float(cosine) == pytest.approx(float((voices[0] * voices[1]).sum()), abs=0.011)
    with np.load(visitor.download("features-download", tmp_path)) as kept:
        assert np.allclose(kept["values"], voices[0].numpy(), atol=1e-3)
        assert kept["names"].tolist() == ["source.flac"]
    visitor.page.locator("#features-dim input").nth(4).check()
    visitor.page.click("#features-rebuild")
    made, rate = source_of(visitor, "features-copy")
    assert (rate, len(made)) == (16000, len(speech))
    wanted = reconstruct(model, Sound(speech, 16000), code_dim=16).wav
    assert np.abs(made - wanted).max() < 2e-3
    assert "500 numbers a second" in visitor.page.inner_text("#features-rebuilt-note")
    assert visitor.page.locator("#features-pictures img").count() == 2
    assert visitor.errors == []


def set_number(visitor, place, value):
    visitor.page.fill(f"#{place} input[type=number]", str(value))
    visitor.page.keyboard.press("Tab")


def press_and_wait(visitor, button, place):
    """Press a button and wait for what is said at a place to be said anew."""
    # What an accordion holds comes a moment after it is opened.
    visitor.page.locator(f"#{place} .vcae-note").first.wait_for(state="attached", timeout=WAIT_MS)
    visitor.page.evaluate("place => document.querySelector(`#${place} .vcae-note`).setAttribute('data-old', '1')", place)
    visitor.page.click(f"#{button}")
    note = visitor.page.locator(f"#{place} .vcae-note:not([data-old])").first
    note.wait_for(timeout=WAIT_MS)
    return note.inner_text()


def test_generate_a_voice_and_keep_it(visit, tmp_path, model, speech):
    visitor = visit()
    visitor.open_tab("Generate")
    visitor.page.wait_for_selector("#generate-map img", timeout=WAIT_MS)
    alt = visitor.page.locator("#generate-map img").get_attribute("alt")
    told = dict(re.findall(r"(\d+): (\d+) Hz", alt))
    assert list(told) == [str(seed) for seed in range(1, 13)]
    assert f"{len(priors().known)} training speakers" in alt
    # By keyboard: of the dozen the first two, which are heard at once.
    voices = {}
    for keys, seed in ((["Space"], 1), (["Tab", "Space"], 2)):
        visitor.page.focus("#generate-dozen input >> nth=0")
        for key in keys:
            visitor.page.keyboard.press(key)
        visitor.page.locator("#generate-status .vcae-done", has_text=f"seed {seed}, spread 1").wait_for(timeout=WAIT_MS)
        voices[seed], rate = source_of(visitor, "generate-said")
        assert (rate, len(voices[seed])) == (16000, len(speech))
        file = visitor.download("generate-voice-file", tmp_path)
        assert file.name == f"new-{seed}.safetensors"
        kept = vcae.load_voice(file, model)
        torch.testing.assert_close(kept.speaker_embedding, model.new_voice(seed).speaker_embedding, atol=1e-3, rtol=0)
        assert math.exp(kept.log_f0_median) == pytest.approx(float(told[str(seed)]), abs=1)
        assert median_hz(voices[seed], 16000) == pytest.approx(float(told[str(seed)]), rel=0.1)
    assert np.abs(voices[1] - voices[2]).max() > 0.05
    assert "Marked is the voice of seed 2" in visitor.page.locator("#generate-map img").get_attribute("alt")
    assert visitor.page.input_value("#generate-seed input") == "2"
    set_number(visitor, "generate-seed", -4)
    assert "The seed is -4; give a whole number" in press_and_wait(visitor, "generate-go", "generate-status")
    # The first once more, by its number: the same sound.
    set_number(visitor, "generate-seed", 1)
    assert "seed 1, spread 1" in press_and_wait(visitor, "generate-go", "generate-status")
    again, _ = soundfile.read(visitor.download("generate-sound-file", tmp_path), dtype="float32")
    assert np.array_equal(again, voices[1])
    comment = read_comment(tmp_path / "source.new-1.wav")
    assert comment.startswith("converted by vcae 0.")
    # Kept, it is chosen on Convert, where it says the same.
    assert "Kept new-1" in press_and_wait(visitor, "generate-keep", "generate-kept")
    visitor.open_tab("Voices")
    assert re.search(r"new-1\s.*nobody: seed 1", visitor.page.inner_text("#voice-list"))
    visitor.open_tab("Studio")
    visitor.upload("source", CLIPS / "source.flac")
    visitor.page.check("#voice-mine-new-1", force=True)
    visitor.page.click("#convert")
    visitor.page.wait_for_selector("#download-wav", timeout=WAIT_MS)
    converted, _ = soundfile.read(visitor.download("download-wav", tmp_path), dtype="float32")
    assert np.abs(converted - voices[1]).max() < 1e-3
    assert visitor.other_hosts() == []
    assert visitor.errors == []


def test_generate_babble_and_between_two(visit, tmp_path, model):
    visitor = visit()
    visitor.open_tab("Generate")
    visitor.page.get_by_role("button", name="Babble").first.click()
    assert "no voice yet to babble in" in press_and_wait(visitor, "generate-babble-go", "generate-babble-status")
    set_number(visitor, "generate-seed", 1)
    press_and_wait(visitor, "generate-go", "generate-status")
    heard = []
    for seconds, seed in ((1.5, 1), (2.5, 1), (2.5, 2)):
        set_number(visitor, "generate-babble-seconds", seconds)
        set_number(visitor, "generate-babble-seed", seed)
        said = press_and_wait(visitor, "generate-babble-go", "generate-babble-status")
        assert f"{seconds} s of seed {seed} in the new voice" in said
        heard.append(source_of(visitor, "generate-babbled")[0])
        assert len(heard[-1]) == 16000 * seconds
        assert np.abs(heard[-1]).max() > 0.1
    assert np.abs(heard[1] - heard[2]).max() > 0.05
    visitor.page.get_by_role("button", name="Between two voices").click()
    assert "first voice is missing" in press_and_wait(visitor, "generate-between-go", "generate-between-status")
    middle = press_and_wait(visitor, "generate-between-example", "generate-between-status")
    pitches = {0.5: float(re.search(r"pitch (\d+) Hz", middle)[1])}
    for share in (0, 1):
        set_number(visitor, "generate-share", share)
        said = press_and_wait(visitor, "generate-between-go", "generate-between-status")
        pitches[share] = float(re.search(rf"at {share}, .* pitch (\d+) Hz", said)[1])
    assert 1.15 * pitches[0] < pitches[0.5] < pitches[1] / 1.15
    last = vcae.load_voice(visitor.download("generate-between-file", tmp_path), model)
    own = vcae.read_sound(CLIPS / "reference.flac")
    torch.testing.assert_close(
        last.speaker_embedding, model.voice(own.wav, own.sample_rate).speaker_embedding, atol=1e-3, rtol=0
    )
    assert visitor.errors == []


def test_a_text_is_said_in_the_voice_of_a_clip(visit):
    visitor = visit()
    visitor.open_tab("Say")
    assert "text is missing" in press_and_wait(visitor, "say-go", "say-status")
    note = press_and_wait(visitor, "say-example", "say-status")
    usual, rate = source_of(visitor, "say-said")
    assert rate == 16000
    assert f"{len(usual) / rate:.1f} s of speech" in note
    own = vcae.read_sound(CLIPS / "reference.flac")
    assert median_hz(usual, rate) == pytest.approx(median_hz(own.wav, own.sample_rate), rel=0.12)
    # Twice as fast and an octave lower.
    set_number(visitor, "say-speed", 200)
    set_number(visitor, "say-pitch", -12)
    press_and_wait(visitor, "say-go", "say-status")
    fast, rate = source_of(visitor, "say-said")
    assert 0.4 * len(usual) < len(fast) < 0.6 * len(usual)
    assert median_hz(fast, rate) == pytest.approx(median_hz(usual, rate) / 2, rel=0.12)
    assert visitor.errors == []


def test_codec_by_keyboard_and_in_another_voice(visit, tmp_path):
    visitor = visit()
    visitor.open_tab("Codec")
    # The next rate by tab and space, then the example by tab and enter.
    chosen = "document.querySelector('#codec-kbps input:checked').value"
    first = visitor.page.evaluate(chosen)
    for _ in range(5):
        visitor.page.focus("#codec-kbps input:checked")
        visitor.page.keyboard.press("Tab")
        visitor.page.keyboard.press("Space")
        # A key pressed before the page is alive does nothing.
        if visitor.page.evaluate(chosen) != first:
            break
    for _ in range(8):
        visitor.page.keyboard.press("Tab")
        if visitor.page.evaluate("document.activeElement.id") == "codec-example":
            break
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector("#codec-facts dl", timeout=WAIT_MS)
    size, rate, ratio = visitor.page.locator("#codec-facts dd").all_inner_texts()
    assert "3 asked for" in visitor.page.inner_text("#codec-facts")
    file = visitor.download("codec-download", tmp_path)
    data, frames = file.read_bytes(), soundfile.info(CLIPS / "source.flac").frames
    assert file.name == "source.vcz"
    assert size == f"{len(data):,} bytes"
    assert float(rate.split()[0]) == pytest.approx(8e-3 * len(data) / (frames / 16000), abs=0.01)
    assert float(ratio.split()[0]) == pytest.approx(2 * frames / len(data), abs=0.6)
    # What is played is what Python makes of the file.
    wav, sample_rate = source_of(visitor, "codec-decoded")
    assert (sample_rate, len(wav)) == (16000, frames)
    assert np.abs(wav - decompress(data).wav).max() < 2e-3
    visitor.page.locator("#codec-decoded button[aria-label=Play]").click()
    visitor.page.locator("#codec-decoded button[aria-label=Pause]").wait_for(timeout=WAIT_MS)
    assert visitor.page.locator("#codec-pictures img").count() == 2
    visitor.page.click("#codec-say")
    said, _ = source_of(visitor, "codec-said")
    assert len(said) == frames
    assert median_hz(said, 16000) > 1.25 * median_hz(wav, 16000)
    assert visitor.other_hosts() == []
    assert visitor.errors == []


def test_codec_decodes_what_is_brought_and_tells_damage(visit, server, tmp_path):
    """By content, not by name; on a phone, whose page the list of damage leaves as wide as it is."""
    wav, rate = soundfile.read(CLIPS / "source.flac", dtype="float32")
    data = compress(np.tile(wav, 2), rate, 1.5)
    (tmp_path / "damaged.txt").write_bytes(data[: len(data) * 3 // 4])
    (tmp_path / "letter.vcz").write_text("Dear friend, this is not compressed speech at all.\n" * 40)
    (tmp_path / "cut.vcz").write_bytes(data[:12])
    visitor = visit(viewport=PHONE, color_scheme="dark", is_mobile=True, has_touch=True)
    visitor.open_tab("Codec")
    visitor.page.get_by_role("button", name="Decode a .vcz file").click()
    visitor.page.click("#codec-decode")
    assert "There is no compressed file; upload one" in visitor.told()
    for name, message in {"letter.vcz": "is not compressed speech", "cut.vcz": "ends inside its header"}.items():
        visitor.upload("codec-file", tmp_path / name)
        visitor.page.click("#codec-decode")
        visitor.page.locator("#codec-status .vcae-error", has_text=f"The file {name} {message}").wait_for(timeout=WAIT_MS)
        check_no_traces(visitor.told())
        visitor.page.locator("#codec-file button[aria-label=Clear]").click()
    assert not visitor.page.locator("#codec-result").is_visible()
    visitor.upload("codec-file", tmp_path / "damaged.txt")
    visitor.page.click("#codec-decode")
    visitor.page.locator(".vcae-list").wait_for(timeout=WAIT_MS)
    heard_s, whole_s = map(
        float, re.search(r"([\d.]+) of ([\d.]+) s are there", visitor.page.inner_text(".vcae-list")).groups()
    )
    assert whole_s == pytest.approx(2 * len(wav) / rate, abs=0.06)
    assert whole_s / 2 < heard_s < whole_s
    assert "the file ends within a block" in visitor.page.inner_text(".vcae-list li")
    played, _ = source_of(visitor, "codec-decoded")
    assert len(played) / 16000 == pytest.approx(heard_s, abs=0.06)
    assert not visitor.page.locator("#codec-original").is_visible()
    assert visitor.overflow() <= 0
    check_no_traces(server.log.read_text())


@pytest.mark.slow
def test_anomaly(visit, tmp_path):
    wav, rate = soundfile.read(CLIPS / "source.flac")
    rng = np.random.default_rng(0)
    clicks = wav.copy()
    clicks[rng.integers(0, len(wav), 40)] += 0.8
    soundfile.write(tmp_path / "clicks.wav", np.clip(clicks, -1, 1), rate)
    visitor = visit()
    visitor.open_tab("Anomaly")
    visitor.page.click("#anomaly-score")
    assert "There is no detector yet" in visitor.told()
    visitor.upload("anomaly-normal", *(CLIPS / f"{name}.flac" for name in ("source", "reference", "reference2")))
    visitor.page.click("#anomaly-fit")
    visitor.page.wait_for_selector("#anomaly-download", timeout=WAIT_MS)
    visitor.upload("anomaly-others", CLIPS / "source.flac", tmp_path / "clicks.wav")
    visitor.page.click("#anomaly-score")
    visitor.page.wait_for_selector("#anomaly-results table", timeout=WAIT_MS)
    rows = visitor.page.locator("#anomaly-results table").first.locator("tbody tr")
    cells = [rows.nth(n).locator("td").all_inner_texts() for n in range(2)]
    # The highest score first, and no verdict without a threshold.
    assert [row[0] for row in cells] == ["clicks.wav", "source.flac"]
    assert [row[1] for row in cells] == ["no threshold", "no threshold"]
    assert float(cells[0][2]) > float(cells[1][2])
    assert "click" in cells[0][4]
    set_number(visitor, "anomaly-alarms", 5)
    rows.first.get_by_text("normal", exact=True).wait_for(timeout=WAIT_MS)
    costs = visitor.page.locator("#anomaly-results table").nth(1).locator("tbody tr").all_inner_texts()
    thresholds = {float(row[0]): float(row[1]) for row in map(str.split, costs)}
    assert float(cells[0][2]) < thresholds[5] < thresholds[1]
    assert rows.nth(1).locator("td").nth(1).inner_text() == "normal"
    with urllib.request.urlopen(f"{server_of(visitor)}/{rows.first.locator('button').get_attribute('data-src')}") as answer:
        assert answer.read(4) == b"RIFF"
    assert visitor.page.locator("#anomaly-results img").count() == 2
    from vcae import Detector

    assert Detector.load(visitor.download("anomaly-download", tmp_path)).info["segments"] >= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width_and_themes(visit, tmp_path, scheme):
    visitor = visit(viewport=PHONE, color_scheme=scheme, is_mobile=True, has_touch=True)
    visitor.page.click("#example")
    visitor.page.wait_for_selector("#download-wav", timeout=WAIT_MS)
    visitor.page.wait_for_timeout(500)
    for name in ("Studio", "Clean up", "Voices", *LAB, "About"):
        visitor.open_tab(name)
        visitor.page.wait_for_timeout(300)
        assert visitor.overflow() <= 0, name
        visitor.page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
    text = visitor.page.locator("body").inner_text()
    for needed in ("owners agreed", "MIT", "CC BY 4.0", "Model card: default", "Model card: vq", "180 s and 30 MB"):
        assert needed in text, needed
    visitor.open_tab("Studio")
    for button in ("#convert", "#example", "#player .vcae-player-play"):
        box = visitor.page.locator(button).bounding_box()
        assert box["height"] >= 36
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
    red, green, blue = map(
        int, re.findall(r"\d+", visitor.page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert (red + green + blue < 120) == (scheme == "dark")
    assert visitor.other_hosts() == []


def test_keyboard_alone(visit):
    """Every control of the first tab is reached by the tab key, in order, and the example runs by the enter key."""
    visitor = visit()
    seen = []
    for _ in range(40):
        visitor.page.keyboard.press("Tab")
        seen.append(
            visitor.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 30)")
        )
        if "example" in seen:
            break
    assert "convert" in seen
    assert seen.index("convert") < seen.index("example")
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector("#download-wav", timeout=WAIT_MS)


def test_the_page_names_no_other_host(server):
    """Not even where no browser would ask for it: the head's cards are gone, fonts are the system's, the policy forbids the rest."""
    with urllib.request.urlopen(server.url) as answer:
        page = answer.read().decode()
        policy = answer.headers["content-security-policy"]
    head = page.split("window.gradio_config", 1)[0] + page.rsplit("</script>", 1)[-1]
    assert not re.findall(r"https?://(?!127\.0\.0\.1|www\.w3\.org)[^\"' ]+", head)
    assert "fonts.g" not in page
    assert "default-src 'self'" in policy
    with urllib.request.urlopen(f"{server.url}/theme.css") as answer:
        assert "http" not in answer.read().decode().replace("http://www.w3.org", "")


def test_demo_uses_public_names_only():
    """What the page imports of vcae: the package's own names, and public names of the rooms that do things with models."""
    import ast

    rooms = (
        "audio",
        "engine",
        "voice",
        "codec",
        "tasks",
        "anomaly",
        "figures",
        "errors",
        "files",
        "options",
        "environment",
        "signals",
        "demo",
        "cli",
    )
    for path in [*(ROOT / "vcae" / "demo").glob("*.py"), ROOT / "demo" / "app.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vcae":
                assert node.module == "vcae" or node.module.split(".")[1] in rooms, path
                assert not any(alias.name.startswith("_") and alias.name != "__version__" for alias in node.names), path
