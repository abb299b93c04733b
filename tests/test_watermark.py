"""The watermark: found after what happens to files, in nothing else; inaudible; the same by blocks as at once."""

import io
import json

import av
import numpy as np
import pytest
import soundfile
import soxr
from typer.testing import CliRunner

from tests.conftest import CLIPS
from tests.test_live import _run
from vcae.audio.watermark import (
    P_VALUE,
    VERSIONS,
    Marker,
    find_watermark,
    mark,
    mark_blocks,
    mark_window,
    version_number,
)
from vcae.cli.app import app
from vcae.options import ConvertOptions, SpeakOptions
from vcae.tasks.live import LiveConverter
from vcae.tasks.unit_files import Units
from vcae.version import __version__


def _mp3(wav, rate):
    """Encode and decode as MP3 of 64 kbit/s."""
    made = io.BytesIO()
    with av.open(made, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=rate)
        stream.bit_rate, stream.layout = 64000, "mono"
        frame = av.AudioFrame.from_ndarray((wav * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    made.seek(0)
    return soundfile.read(made, dtype="float32")[0]


CHANGES = {
    "as it is": lambda wav: (wav, 16000),
    "mp3": lambda wav: (_mp3(wav, 16000), 16000),
    "mp3 at 48 kHz": lambda wav: (_mp3(soxr.resample(wav, 16000, 48000), 48000), 48000),
    "48 kHz and back": lambda wav: (soxr.resample(soxr.resample(wav, 16000, 48000), 48000, 16000), 16000),
    "8 kHz": lambda wav: (soxr.resample(wav, 16000, 8000), 8000),
    "the first second is cut off": lambda wav: (wav[16123:], 16000),
    "a second is cut out": lambda wav: (np.concatenate([wav[:30000], wav[46077:]]), 16000),
    "louder, clipped": lambda wav: (np.clip(4 * wav, -0.5, 0.5), 16000),
    "noise at 25 dB": lambda wav: (wav + 0.056 * wav.std() * np.random.default_rng(0).standard_normal(len(wav)), 16000),
}


@pytest.fixture(scope="module")
def marked(speech):
    return mark(speech, 16000)


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_found_after(marked, change):
    found = find_watermark(*CHANGES[change](marked))
    assert found.found
    assert found.version == ".".join(__version__.split(".")[:2])
    assert found.p_value < 1e-8


@pytest.mark.parametrize("name", ["source", "reference", "reference2", "noisy"])
def test_it_is_in_no_other_recording(name):
    wav, rate = soundfile.read(CLIPS / f"{name}.flac", dtype="float32")
    found = find_watermark(wav, rate)
    assert (found.found, found.version) == (False, None)
    assert found.p_value > 100 * P_VALUE


@pytest.mark.parametrize("wav", [np.zeros(20000), np.zeros(7), np.ones(9000), np.sin(np.arange(50000.0)), np.zeros((9000, 2))])
def test_it_is_in_nothing_that_is_not_speech(wav):
    assert not find_watermark(wav.astype(np.float32), 16000).found


def test_p_values_bound_the_false_alarms():
    """Of 60 noises, which have no watermark, no more are below a p-value than it says."""
    rng = np.random.default_rng(0)
    values = np.array([find_watermark(rng.standard_normal(20000).astype(np.float32), 16000).p_value for _ in range(60)])
    assert (values < 0.1).mean() <= 0.1


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_blocks_and_channels_are_as_the_whole(speech, rate):
    wav = soxr.resample(speech, 16000, rate)
    stereo = np.stack([wav, 0.25 * wav], axis=1)
    whole = mark(stereo, rate)
    assert whole.shape == stereo.shape
    cuts = np.random.default_rng(1).integers(0, len(wav), 40)
    pieces = np.concatenate(list(mark_blocks(np.split(stereo, np.sort(cuts)), rate)))
    assert np.allclose(pieces, whole, atol=1e-6)
    assert np.allclose(mark(wav, rate), whole[:, 0], atol=1e-6)
    assert find_watermark(whole, rate).version == VERSIONS[-1]
    # Far below the sound, which covers it, and of the same power.
    assert -32 < 20 * np.log10((whole - stereo).std() / stereo.std()) < -17
    assert whole.std() == pytest.approx(stereo.std(), rel=0.02)


def test_short_and_empty_sounds():
    assert len(Marker(16000).finish()) == 0
    for n in (1, 255, 257, 700):
        assert len(mark(np.ones(n, np.float32), 16000)) == n


def test_it_is_inaudible(speech, marked):
    pesq = pytest.importorskip("pesq")
    assert pesq.pesq(16000, speech, marked, "wb") > 4.3


def test_a_window_is_as_the_whole(speech):
    wav = 0.5 * speech
    made, whole = mark_window(wav[256 * 20 : 256 * 90], 256 * 20, 16000), mark(wav, 16000)
    assert np.allclose(made[256:-256], whole[256 * 21 : 256 * 89], atol=1e-6)


def test_versions_have_numbers(speech):
    assert version_number() >= 1
    assert version_number("0.0.1") == 0
    later = find_watermark(mark(speech, 16000, len(VERSIONS) + 1), 16000)
    assert (later.found, later.version) == (True, None)


def test_what_is_made_is_marked(model, clips, speech, tmp_path):
    voice = model.voice(clips["reference"])
    made = {on: model.convert(speech[:64000], 16000, voice, watermark=on) for on in (True, False)}
    assert [find_watermark(made[on].wav, 16000).found for on in (True, False)] == [True, False]
    assert np.allclose(made[True].wav, mark(made[False].wav, 16000), atol=1e-6)
    shown = {}
    for on, sound in made.items():
        path = sound.save(tmp_path / f"{on}.mp3")
        shown[on] = json.loads(CliRunner().invoke(app, ["info", str(path), "--json"]).stdout)
    assert shown[True]["watermark"] == f"vcae {VERSIONS[-1]}"
    assert shown[True]["watermark_p_value"] < P_VALUE
    assert shown[False]["watermark"] is None
    live = LiveConverter(model, voice, model.analyse(clips["reference"]), ConvertOptions())
    assert find_watermark(np.concatenate(_run(live, speech[: 32 * 1280])), 16000).version == VERSIONS[-1]


def test_units_are_spoken_with_it(clips):
    import vcae

    vq = vcae.load("vq", device="cpu")
    units = vq.units(clips["source"])
    assert isinstance(units, Units)
    voice = vq.voice(clips["reference"])
    for on in (True, False):
        assert find_watermark(vq.speak(units, voice, watermark=on).wav, 16000).found == on
    assert SpeakOptions().watermark
