"""The demo's parts without a server: limits, isolation, stopping, messages, pictures."""

import os
import re
import threading
import time

import numpy as np
import pytest
import soundfile

from tests.conftest import CLIPS
from vcae import AudioError, BitstreamError, CheckpointError, ConfigError, DataError, read_sound

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
    assert studio.codec().model is studio.model("vq-narrow")


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


def test_saying_a_text_stops_and_refuses(studio, clips):
    from vcae.demo.say_work import MAX_CHARACTERS, say_file
    from vcae.options import SayOptions

    def say(text, *references, report=lambda share, what: None):
        with studio.job("ann") as check:
            return say_file(studio, text, references, [], SayOptions(), check, report)

    for text, message in ((" \n", "the text is missing"), ("a" * (MAX_CHARACTERS + 1), "has 2001 characters; at most 2000")):
        with pytest.raises(ConfigError, match=message):
            say(text, clips["reference"])
    with pytest.raises(DataError, match="no English word"):
        say("\u4f60\u597d", clips["reference"])
    with pytest.raises(AudioError, match="the voice is missing"):
        say("Good morning.")
    shares = []
    with pytest.raises(StoppedError):
        say(
            "One. Two. Three.",
            clips["reference"],
            report=lambda share, what: shares.append(share) or (share > 0.3 and studio.stop("ann")),
        )
    # After the first sentence.
    assert shares[-1] == pytest.approx(0.45)
    assert not list(studio.root.rglob("said.wav"))


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


def test_files_of_a_waiting_request_stay(studio):
    """A request may wait longer in the queue than files are kept; that was an internal error."""
    past = time.time() - 3600
    with studio.room() as folder:
        os.utime(folder, (past, past))
        studio.sweep()
        (folder / "source").mkdir()
    assert not folder.exists()
    studio.sweep()


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


def test_a_local_page_keeps_voices_in_the_users_folder(tmp_path, monkeypatch, studio):
    from vcae.demo.cards import all_cards, card_file
    from vcae.demo.keeping import save_here

    monkeypatch.setenv("VCAE_VOICES", str(tmp_path / "voices"))
    local = Studio(Limits(), root=_empty(tmp_path / "local"), local=True)
    try:
        key, visitor = save_here(local, "dora", CLIPS / "reference.flac", {})
        assert (key, visitor) == ("saved:dora", {})
        assert card_file(local, {}, key) == tmp_path / "voices" / "dora.safetensors"
        (card,) = [card for card in all_cards(local, {}) if card.key == key]
        assert (card.name, card.note) == ("dora", "medium · saved")
        with pytest.raises(ConfigError, match="a voice called dora is saved already"):
            save_here(local, "dora", CLIPS / "reference2.flac", {})
        with pytest.raises(ConfigError, match="there is no voice"):
            card_file(local, {}, "saved:../voices/dora")
    finally:
        local.close()
    # Strangers neither see nor use them.
    assert key not in {card.key for card in all_cards(studio, {})}
    with pytest.raises(ConfigError, match="there is no voice 'dora' any more"):
        card_file(studio, {}, key)


def _empty(folder):
    folder.mkdir()
    return folder


def test_two_sounds_are_compared_in_one_file_at_one_level(studio, speech):
    from vcae import Sound
    from vcae.audio.loudness import active_level
    from vcae.demo.compare import N_BARS, compare, player_html

    first, second = Sound(np.repeat(speech, 2), 32000), Sound(0.1 * speech[::-1].copy(), 16000)
    made = compare(studio.new_file("compare.flac"), first, second)
    both, rate = soundfile.read(made.path, dtype="float32")
    assert (rate, both.shape) == (32000, (2 * len(speech), 2))
    assert active_level(both[:, 0], rate) == pytest.approx(active_level(both[:, 1], rate), rel=0.02)
    # The quieter one is not made louder.
    assert np.abs(both[:, 1]).max() == pytest.approx(np.abs(second.wav).max(), rel=0.1)
    assert [len(peaks) for peaks in made.peaks] == [N_BARS, N_BARS]
    assert max(made.peaks[0]) == 100
    assert "&lt;b&gt;" in player_html(studio, made, ("<b>", "New"))


def test_results_in_other_formats_and_nothing_else(studio, speech):
    from vcae import Sound, write_sound
    from vcae.demo.served import made_file

    path = studio.new_file("talk.converted.wav")
    write_sound(path, Sound(speech, 16000), "converted by vcae")
    token = path.parent.name
    made = made_file(studio, token, "talk.converted.m4a")
    assert read_sound(made).duration_s == pytest.approx(len(speech) / 16000, abs=0.1)
    for place, name in ((token, "talk.converted.exe"), (token, "../x.wav"), ("..", "private"), (token[:-1] + "!", path.name)):
        assert made_file(studio, place, name) is None


def test_recordings_of_any_length_on_a_local_page():
    import math

    from vcae.demo.run import Address

    assert "any length" in Limits(seconds=math.inf).sentence
    assert Limits(seconds=math.inf).code_bytes < 1 << 32
    assert Address().local
    for strangers in (Address(host="0.0.0.0"), Address(share=True), Address(public=True), Address(auth="a:b")):
        assert not strangers.local


def test_time_left_is_said_when_it_is_known(monkeypatch):
    from vcae.demo.waiting import duration, timed

    now, said = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    report = timed(lambda share, desc: said.append(desc))
    for at, share in ((0.0, 0.4), (0.5, 0.41), (10.0, 0.5)):
        now[0] = at
        report(share, "speaking")
    assert said == ["speaking", "speaking", "speaking, about 40 s left"]
    assert [duration(s) for s in (5, 200, 9000)] == ["5 s", "3 min", "2.5 h"]


def test_what_the_browser_remembered_wrongly_is_not_used():
    from vcae.demo.convert import _restore

    assert _restore([False, 99, 50, True, 10, 300, -9, "mono"]) == [False, 18, 50, True, 50, 200, -6, "mono"]
    assert _restore("x") == _restore(None) == _restore([True, 0]) == [True, 0, 100, False, 100, 100, 0, "keep"]


def test_chips_change_one_setting():
    from vcae.demo.convert import CHIPS, USUAL, _restore

    made = [change(*USUAL, {"shift": 7.3}) for change in CHIPS]
    assert made[0] == [False, 9.5, *USUAL[2:]]
    assert made[1] == [False, 5.5, *USUAL[2:]]
    assert made[2] == [*USUAL[:2], 75, *USUAL[3:]]
    assert made[3] == [*USUAL[:3], True, *USUAL[4:]]
    assert _restore([*USUAL[:-1], "separate"])[-1] == "separate"
    assert _restore([*USUAL[:-1], "other"])[-1] == "keep"
    assert _restore(list(USUAL[:-1])) == list(USUAL)


def test_live_blocks_are_those_of_the_library(studio, model, speech):
    """Block by block as a browser sends them: the same as `LiveConverter`, and no session outlives its end."""
    from vcae import LiveConverter, load_voice
    from vcae.demo.cards import card_file
    from vcae.demo.live import MAX_LIVE, LiveSessions, live_html

    sessions = LiveSessions(studio)
    try:
        name, converter = sessions.start({}, "clip:reference")
        assert f'session="{name}"' in live_html(name, converter)
        own = studio.model()
        voice = load_voice(card_file(studio, {}, "clip:reference"), own)
        direct = LiveConverter(own, voice, own.analyse_sound(read_sound(CLIPS / "reference.flac")))
        size = converter.block_samples
        pcm = np.round(speech[: 20 * size] * 32767).astype("<i2")
        blocks = [pcm[at : at + size] for at in range(0, len(pcm), size)]
        got = np.concatenate([np.frombuffer(sessions.convert(name, block.tobytes()), "<i2") for block in blocks])
        wanted = np.concatenate([direct(block.astype(np.float32) / 32767) for block in blocks])
        assert np.abs(got / 32767 - wanted).max() < 1e-3
        assert np.abs(got).max() > 1000
        with pytest.raises(ConfigError, match=r"a block has 3 bytes; \d+ are needed"):
            sessions.convert(name, b"abc")
        for _ in range(MAX_LIVE - 1):
            sessions.start({}, "clip:reference2")
        with pytest.raises(ConfigError, match="which is the limit"):
            sessions.start({}, "clip:reference")
        sessions.end(name)
        with pytest.raises(ConfigError, match="this live conversion has ended"):
            sessions.convert(name, blocks[0].tobytes())
    finally:
        sessions.close()


def test_a_picture_beside_itself_has_the_same_scale(speech, monkeypatch):
    """A recording among its own neighbours was counted twice, so that two pictures of a pair had two scales."""
    from vcae import Sound
    from vcae.figures import plot

    low, high = (view_sound(Sound(speech, rate), "a") for rate in (16000, 20000))
    real, limits = plot.f0_limits, []
    monkeypatch.setattr(plot, "f0_limits", lambda scale: limits.append(real(scale)) or limits[-1])
    for view in (low, high):
        plot.draw_views([view], beside=[low, high], width_in=4.0)
    assert limits[0] == pytest.approx(limits[1], rel=1e-6)
    assert limits[0] == pytest.approx(real([low, high]), rel=1e-6)


def test_scores_are_sorted_and_verdicts_follow_the_slider():
    from vcae.demo.anomaly_rows import ALARMS, Judged, Row, judged_html, unique_names

    rows = tuple(Row(name, score, 0.1, "-", f"/x/{name}", "") for name, score in (("a<b>.wav", 3.0), ("c.wav", 1.0)))
    made = Judged(rows, None, {each: 10 / each for each in ALARMS})
    silent = judged_html(made, 0)
    assert silent.count("<td>no threshold</td>") == 2
    assert "a&lt;b&gt;.wav" in silent
    told = judged_html(made, 5.0)
    assert (told.count("<td>anomalous</td>"), told.count("<td>normal</td>")) == (1, 1)
    # At ten alarms in a hundred both are anomalous, at five one is.
    assert "<td>10</td><td>1</td><td>2</td>" in told
    assert "<td>5</td><td>2</td><td>1</td>" in told
    assert judged_html(Judged(rows, 2.0, made.thresholds), 0).count("<td>anomalous</td>") == 1
    assert unique_names(["/p/a.wav", "/q/a.wav", "/q/b.wav"]) == ["a.wav (1)", "a.wav (2)", "b.wav"]


def test_the_anomaly_example_is_one_machine_and_others(tmp_path):
    from vcae.demo.anomaly_rows import EXAMPLE_S, N_NORMAL, write_example

    normal, others = write_example(tmp_path)
    assert (len(normal), [path.stem for path in others]) == (N_NORMAL, ["normal", "knocking", "another"])
    assert all(read_sound(path).duration_s == pytest.approx(EXAMPLE_S) for path in (*normal, *others))


def test_samples_need_the_pages_password():
    from types import SimpleNamespace

    from vcae.demo.served import signed_in

    def request(auth, cookies):
        app = SimpleNamespace(auth=auth, cookie_id="id", tokens={"good": "ann"})
        return SimpleNamespace(app=app, cookies=cookies)

    assert signed_in(request(None, {}))
    assert signed_in(request({"ann": "x"}, {"access-token-id": "good"}))
    assert signed_in(request({"ann": "x"}, {"access-token-unsecure-id": "good"}))
    for cookies in ({}, {"access-token-id": "bad"}, {"access-token-other": "good"}):
        assert not signed_in(request({"ann": "x"}, cookies))


def test_a_streamed_wav_is_as_long_as_its_header_says():
    import io

    from vcae.demo.streaming import wav_blocks, wav_header

    rng = np.random.default_rng(0)
    for n_made in (900, 1000, 1100):
        sent = list(wav_blocks(iter([np.zeros(0), *np.split(rng.uniform(-1, 1, (n_made, 2)), 4)]), 22050, 2, 1000))
        wav, rate = soundfile.read(io.BytesIO(b"".join(sent)))
        assert (rate, wav.shape) == (22050, (1000, 2))
        assert sent[0].startswith(b"RIFF")
        assert len(sent[0]) == 44 + 4 * n_made // 4
    assert len(wav_header(48000, 2, 1 << 40)) == 44


def test_a_stream_tells_its_client_what_happened(studio):
    """An error before the first sound is raised, a later one ends the stream, and a client that goes stops the work; places are free again."""
    from vcae.demo.streaming import Stream

    ended = []

    def start(work):
        made = Stream(work, lambda: ended.append(work))
        studio.begin(made.make)
        return made

    def works(check):
        yield b"a"
        yield b"b"

    def fails(check):
        raise ConfigError("no such voice")
        yield b""

    def breaks(check):
        yield b"a"
        raise ValueError("halfway")

    def endless(check):
        while True:
            check()
            yield b"x"

    sent = start(works)
    assert b"".join(sent.rest(sent.first())) == b"ab"
    with pytest.raises(ConfigError, match="no such voice"):
        start(fails).first()
    sent = start(breaks)
    with pytest.raises(ValueError, match="halfway"):
        list(sent.rest(sent.first()))
    sent = start(endless)
    rest = sent.rest(sent.first())
    assert next(rest) == b"x"
    rest.close()
    while not sent._blocks.empty():
        sent._blocks.get()
    studio.do(lambda: None)
    assert ended == [works, fails, breaks, endless]
