"""The demo's parts without a server: limits, isolation, stopping, messages, pictures."""

import os
import re
import threading
import time

import numpy as np
import pytest
import soundfile

from tests.conftest import CLIPS
from vcae import AudioError, BitstreamError, CheckpointError, ConfigError, read_sound

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'vcae[demo]'")
from vcae.demo.limits import Limits, read_uploads
from vcae.demo.studio import StoppedError, Studio, plain, reports_errors
from vcae.demo.work import denoise_file
from vcae.figures.plot import view_sound


@pytest.fixture
def studio():
    made = Studio(Limits(minutes=30))
    yield made
    made.close()


def test_a_length_is_refused_before_it_is_decoded(tmp_path):
    soundfile.write(tmp_path / "long.flac", np.zeros(30 * 60 * 16000, dtype=np.int16), 16000)
    start = time.perf_counter()
    with pytest.raises(AudioError, match=r"talk is 1800 s long; at most 180 s are allowed"):
        read_sound(tmp_path / "long.flac", name="talk", max_s=180)
    refused_s = time.perf_counter() - start
    start = time.perf_counter()
    assert read_sound(tmp_path / "long.flac").duration_s == 1800
    assert refused_s < (time.perf_counter() - start) / 5


def test_a_header_that_says_less_than_there_is_gives_no_more_than_is_allowed(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full((16000, 9), 0.1), 16000)
    with pytest.raises(AudioError, match="9 channels; at most 8"):
        read_sound(tmp_path / "a.wav", max_s=10)
    assert read_sound(tmp_path / "a.wav").duration_s == 1
    (tmp_path / "a.raw").write_bytes(b"\0" * 1000)
    with pytest.raises(AudioError, match="not a sound file"):
        read_sound(tmp_path / "a.raw")


def test_several_files_share_the_seconds():
    clips = [CLIPS / "source.flac", CLIPS / "reference.flac"]
    assert len(read_uploads(clips, "the voice", 2, 20, 20)) == 2
    with pytest.raises(AudioError, match=r"reference.flac\) is 6 s long; at most 3\.\d+ s"):
        read_uploads(clips, "the voice", 2, 20, 10)
    with pytest.raises(AudioError, match="2 files were given as the voice; at most 1"):
        read_uploads(clips, "the voice", 1, 20, 20)


def test_messages_have_no_paths():
    said = plain("/tmp/vcae-demo-x/uploads/abc/my talk.wav is no\nsound; see '/home/ann/b.wav', and/or 3/4 of it")
    assert said == "my talk.wav is no sound; see 'b.wav', and/or 3/4 of it"


def test_what_nobody_foresaw_is_logged_and_not_told(studio, caplog):
    import gradio as gr

    @reports_errors(studio)
    def breaks():
        raise KeyError("/srv/secret/place")

    with pytest.raises(gr.Error) as caught:
        breaks()
    assert "secret" not in caught.value.message
    assert "secret" in caplog.text


def test_stop_reaches_the_work_and_only_ones_own(studio, clips):
    from vcae.demo.work import convert_files
    from vcae.options import ConvertOptions

    shares, said = [], []

    def report(share, what):
        shares.append(share)
        said.append(what)
        if what == "speaking":
            studio.stop("ann")

    with pytest.raises(StoppedError), studio.job("ann") as check:
        convert_files(studio, clips["source"], [clips["reference"]], [], ConvertOptions(), check, report)
    assert said[-1] == "speaking"
    assert max(shares) < 0.9
    assert not list(studio.root.rglob("*.wav"))
    studio.stop("ann")
    with studio.job("bob") as check:
        studio.stop("ann")
        done = convert_files(studio, clips["source"], [clips["reference"]], [], ConvertOptions(), check)
    assert done.path.name == "source.converted.wav"
    assert soundfile.info(done.path).frames == soundfile.info(clips["source"]).frames


def test_the_codec_stops_too_and_shares_its_model(studio, clips):
    from vcae.demo.work import compress_file, decompress_file

    def stop_at(verb):
        def report(share, what):
            if what == verb and share > 0.15:
                studio.stop("ann")

        return report

    with pytest.raises(StoppedError), studio.job("ann") as check:
        compress_file(studio, clips["source"], 1.5, check, stop_at("compressing"))
    assert not list(studio.root.rglob("*.vcz"))
    with studio.job("ann") as check:
        made = compress_file(studio, clips["source"], 0.6, check)
    assert made.n_bytes == made.path.stat().st_size
    for voice in (None, ([clips["reference"]], [])):
        with pytest.raises(StoppedError), studio.job("ann") as check:
            decompress_file(studio, made.path, voice, check, stop_at("decoding"))
    assert not list(studio.root.rglob("*.wav"))
    assert studio.codec() is studio.codec()
    assert studio.codec().model is studio.model("vq")


def test_what_is_no_compressed_file_or_too_long_is_refused_before_it_is_decoded(clips, tmp_path):
    from vcae.demo.work import decompress_file

    small = Studio(Limits(seconds=5))
    try:
        data = small.codec().compress(read_sound(clips["source"]), 0.6)
        files = {
            "long.vcz": (data, r"the file long.vcz is 7 s long; at most 5 s are allowed"),
            "letter.vcz": (b"Dear friend", r"the file letter.vcz is not compressed speech"),
            "empty": (b"", r"the file empty is empty"),
        }
        short = small.codec().compress(read_sound(clips["source"], first_s=3.0), 3)
        files["large.vcz"] = (short + bytes(small.limits.code_bytes), r"the file large.vcz is larger than any .* of 5 s")
        for name, (content, message) in files.items():
            (tmp_path / name).write_bytes(content)
            start = time.perf_counter()
            with pytest.raises(BitstreamError, match=message):
                decompress_file(small, tmp_path / name, None, lambda: None)
            assert time.perf_counter() - start < 5
        with pytest.raises(BitstreamError, match="there is no compressed file"):
            decompress_file(small, None, None, lambda: None)
        # Another voice was asked for, and none given: its own is no answer.
        (tmp_path / "short").write_bytes(short)
        with pytest.raises(AudioError, match="the voice is missing"):
            decompress_file(small, tmp_path / "short", ([], []), lambda: None)
        (tmp_path / "short").write_bytes(short[:-9])
        done = decompress_file(small, tmp_path / "short", None, lambda: None)
        assert [damage.reason for damage in done.damage] == ["the file ends within a block"]
        assert 1 < done.sound.duration_s < done.whole_s
        assert soundfile.info(done.path).frames == len(done.sound.wav)
    finally:
        small.close()


def test_a_voice_is_found_as_the_codec_measured_it(studio):
    from vcae.demo.voices import choose_twins, twin_of
    from vcae.voice.shelf import NAME

    mine = studio.new_file("alice.safetensors")
    mine.write_bytes(b"x")
    assert choose_twins(studio, {"alice": str(mine)}, ["alice"]) == [mine]
    twin_of(mine).write_bytes(b"x")
    assert choose_twins(studio, {"alice": str(mine)}, ["alice"]) == [twin_of(mine)]
    # Nobody can save a voice over it.
    assert not NAME.fullmatch(twin_of(mine).stem)
    studio.forget(mine)
    assert not twin_of(mine).exists()


def test_generating_stops_and_refuses(studio, clips):
    from vcae.demo.generate_work import babble_file, between_file, draw_file
    from vcae.options import BabbleOptions

    def report(share, what):
        if what == "speaking":
            studio.stop("ann")

    with pytest.raises(StoppedError), studio.job("ann") as check:
        draw_file(studio, None, 5, 1.0, check, report)
    assert not list(studio.root.rglob("*.wav"))
    for seed, message in ((None, "the seed is missing"), (-1, "the seed is -1"), (1e300, r"the seed is 1e\+300")):
        with pytest.raises(ConfigError, match=message):
            draw_file(studio, None, seed, 1.0, lambda: None)
    with pytest.raises(ConfigError, match=r"seconds is 21; allowed are 0\.5 to 20 here"):
        babble_file(studio, clips["reference"], None, BabbleOptions(21), lambda: None)
    ends = [([clips["source"]], []), ([clips["reference"]], [])]
    with pytest.raises(ConfigError, match=r"the place is 1\.2"):
        between_file(studio, None, ends, 1.2, lambda: None)
    with pytest.raises(ConfigError, match="the second voice is missing"):
        between_file(studio, None, [ends[0], ([], [])], 0.5, lambda: None)
    _, sound, _ = babble_file(studio, clips["reference"], None, BabbleOptions(0.5), lambda: None)
    assert len(sound.wav) == 8000


def test_what_files_say_is_text_and_not_markup():
    from vcae.demo.pictures import facts_html, list_html

    for made in (facts_html([("<b>", "1")]), facts_html([("1", "<b>")]), list_html("<b>", ["1"]), list_html("1", ["<b>"])):
        assert "&lt;b&gt;" in made
        assert "<b>" not in made


def test_one_seat_one_job(studio):
    order, used = [], set()

    @reports_errors(studio)
    def work(name):
        with studio.job(name):
            used.add(threading.get_ident())
            order.append(name)
            time.sleep(0.1)
            order.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order[0::2] == order[1::2]
    # Always the same thread: torch keeps memory for each one that ever worked.
    assert len(used) == 1


def test_progress_of_a_conversion_rises_to_the_end(model, clips):
    from vcae.tasks.convert import convert
    from vcae.voice.voice import voice_from_sounds

    shares = []
    convert(
        model, read_sound(clips["source"]), voice_from_sounds(model, [read_sound(clips["reference"])]), progress=shares.append
    )
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)


def test_old_files_go_and_used_ones_stay(studio):
    old, used = studio.new_file("old.wav"), studio.new_file("used.wav")
    upload = studio.uploads / "tmpabc"
    past = time.time() - 3600
    for path in (old, used, upload):
        path.write_bytes(b"x")
        os.utime(path, (past, past))
    for path in (old, used):
        os.utime(path.parent, (past, past))
    studio.kept(used, "the voice")
    studio.sweep()
    assert (old.exists(), old.parent.exists(), used.exists(), upload.exists()) == (False, False, True, False)
    with pytest.raises(ConfigError, match="the voice was removed after 30 minutes"):
        studio.kept(old, "the voice")
    with pytest.raises(ConfigError):
        studio.kept("/etc/passwd", "the voice")
    root = studio.root
    studio.close()
    assert not root.exists()


def test_room_for_files_ends():
    studio = Studio(Limits(megabytes=0.001))
    try:
        assert not studio.full()
        studio.new_file("big").write_bytes(b"x" * 70_000)
        assert studio.full()
    finally:
        studio.close()


def test_voices_are_ones_own(studio, tmp_path):
    from vcae.demo.voices import check_voice_name, choose_files

    mine = studio.new_file("alice.safetensors")
    mine.write_bytes(b"x")
    assert choose_files(studio, {"alice": str(mine)}, ["alice"]) == [mine]
    for names in (["alice"], ["../alice"], ["alice (shared)"]):
        with pytest.raises(ConfigError, match="no voice is called"):
            choose_files(studio, {}, names)
    many = {f"v{n}": str(mine) for n in range(8)}
    with pytest.raises(ConfigError, match="8 voices are kept"):
        check_voice_name("another", many)
    assert check_voice_name(" v3 ", many) == "v3"
    with pytest.raises(ConfigError, match="not a valid voice name"):
        check_voice_name("../x", {})


def test_a_detector_that_says_it_is_huge_is_refused(tmp_path):
    import json

    import torch

    from vcae.checkpoint import write_tensors
    from vcae.demo.anomaly import check_size

    config = {"width": 10**9, "mel": {"n_fft": 2**30}}
    write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, {"vcae_anomaly": json.dumps({"config": config})})
    with pytest.raises(CheckpointError, match=r"larger than a detector may be here \(width, n_fft\)"):
        check_size(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_text("no")
    with pytest.raises(CheckpointError, match=r"^b.safetensors is not an anomaly detector"):
        check_size(tmp_path / "b.safetensors")


def test_routes():
    from vcae.demo.guard import ROUTES

    for path in (
        "/",
        "/config",
        "/assets/index.js",
        "/gradio_api/queue/join",
        "/gradio_api/call/convert/abc",
        "/gradio_api/upload",
    ):
        assert ROUTES.fullmatch(path), path
    for path in (
        "/docs",
        "/monitoring",
        "/monitoring/summary",
        "/gradio_api/proxy=http:/x",
        "/gradio_api/vibe-edit/",
        "/gradio_api/api/convert",
    ):
        assert not ROUTES.fullmatch(path), path


def test_clips_and_cards_are_where_they_are_looked_for():
    from vcae.demo.about import _text
    from vcae.demo.clips import clip

    assert all(clip(name).exists() for name in ("source.flac", "reference.flac", "NOTICE.md"))
    assert _text("# Title\n[a](b.md), [c](https://d.org)") == "a, [c](https://d.org)"


def test_limits_are_stated():
    said = Limits(60, 5, 7, 2, 15).sentence
    assert re.findall(r"\d+", said) == ["60", "5", "2", "7", "15"]


def test_a_denoised_upload_keeps_its_rate_and_channels(studio, tmp_path):
    left = soundfile.read(CLIPS / "noisy.flac")[0]
    soundfile.write(tmp_path / "wide.wav", np.stack([left, 0.2 * left], axis=1), 22050)
    done = denoise_file(studio, tmp_path / "wide.wav", 1.0, lambda: None)
    info = soundfile.info(done.path)
    assert (info.samplerate, info.channels, info.frames) == (22050, 2, len(left))
    assert done.source.shape == done.sound.shape == (len(left), 2)
    assert view_sound(done.sound).mel.shape == view_sound(done.source).mel.shape
