import json
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import CLIPS
from tests.forked import python
from tests.media import KINDS, make_media, pictures_of
from vcae.audio.io import Sound, SoundReader, read_comment, read_sound, resample, write_blocks, write_sound
from vcae.errors import AudioError


def vcae(*args, **options):
    return subprocess.run([*python(), "-m", "vcae", *map(str, args)], capture_output=True, text=True, **options)


def level_db(wav):
    return 20 * np.log10(np.sqrt(np.mean(np.square(wav))))


@pytest.mark.parametrize("suffix", KINDS)
def test_what_phones_and_meetings_record_is_read(tmp_path, speech, suffix):
    sound = read_sound(make_media(tmp_path / f"a{suffix}", speech))
    assert sound.sample_rate == KINDS[suffix][2]
    assert sound.warnings == ()
    # Without a place for it, the encoder's own delay stays: 1024 samples and a filled-up frame.
    assert sound.duration_s == pytest.approx(len(speech) / 16000, abs=0.05 if suffix in (".aac", ".mkv") else 0.02)
    heard = resample(sound.wav, sound.sample_rate, 16000)
    assert level_db(heard) == pytest.approx(level_db(speech), abs=1.0)
    # The same sound, and not only as much of it, but for the codecs' delays of up to 50 ms.
    envelopes = [np.log10(np.square(x[: 660 * 160].reshape(660, 160)).mean(axis=1) + 1e-6) for x in (heard, speech)]
    alike = [np.corrcoef(envelopes[0][6 + lag : 600 + lag], envelopes[1][6:600])[0, 1] for lag in range(-6, 7)]
    assert max(alike) > 0.95


def test_a_video_without_sound_is_told_so(tmp_path, speech):
    path = make_media(tmp_path / "a.mp4", speech[:16000], sound=False)
    with pytest.raises(AudioError, match=r"a\.mp4 holds no sound track"):
        read_sound(path)


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{0}'\n"])
def test_a_playlist_opens_nothing(tmp_path, speech, text):
    write_sound(tmp_path / "secret.wav", Sound(speech, 16000), "x")
    (tmp_path / "list.mp4").write_text(text.format(tmp_path / "secret.wav"))
    with pytest.raises(AudioError, match="not a sound file that can be read"):
        read_sound(tmp_path / "list.mp4")


def test_without_pyav_the_error_names_it(tmp_path, speech, monkeypatch):
    path = make_media(tmp_path / "a.m4a", speech)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match="pip install av"):
        read_sound(path)


def test_a_cut_off_recording_is_read_with_a_warning(tmp_path, speech):
    data = make_media(tmp_path / "whole.wma", speech).read_bytes()
    (tmp_path / "cut.wma").write_bytes(data[: len(data) * 6 // 10])
    sound = read_sound(tmp_path / "cut.wma")
    assert 2 < sound.duration_s < 5
    assert "is cut off" in sound.warnings[-1]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm", ".mkv"])
def test_a_video_gets_the_new_track_and_keeps_its_pictures(tmp_path, speech, suffix):
    path, out = make_media(tmp_path / f"a{suffix}", speech), tmp_path / f"out{suffix}"
    with SoundReader(path) as source:
        assert source.has_video
        quiet = 0.1 * np.concatenate(list(source.blocks()))
        write_blocks(out, [quiet[:30000], quiet[30000:]], source.sample_rate, "converted by vcae, a test", source=source)
    assert pictures_of(out) == pictures_of(path)
    again = read_sound(out)
    assert again.duration_s == pytest.approx(len(speech) / 16000, abs=0.03)
    assert level_db(again.wav) == pytest.approx(level_db(speech) - 20, abs=1)
    assert read_comment(out) == "converted by vcae, a test"


def test_pictures_that_a_container_lacks_are_refused(tmp_path, speech):
    path = make_media(tmp_path / "a.webm", speech[:16000])
    with SoundReader(path) as source, pytest.raises(AudioError, match=r"vp8.*such as \.mkv"):
        write_blocks(tmp_path / "out.mp4", [speech], 16000, "x", source=source)
    assert [p.name for p in tmp_path.iterdir()] == ["a.webm"]


def test_a_sound_becomes_no_video(tmp_path, speech):
    with pytest.raises(AudioError, match=r"has no pictures; take a sound file's suffix, such as .m4a"):
        write_sound(tmp_path / "a.mp4", Sound(speech, 16000), "x")


def test_the_command_converts_a_video_and_says_what_the_sound_is(tmp_path, speech):
    path = make_media(tmp_path / "talk.mp4", speech)
    done = vcae("convert", path, "-s", CLIPS / "reference.flac", "-o", tmp_path / "new.mp4")
    assert done.returncode == 0, done.stderr
    assert "(source:" not in done.stdout
    assert pictures_of(tmp_path / "new.mp4") == pictures_of(path)
    with SoundReader(tmp_path / "new.mp4") as made:
        assert (made.sample_rate, made.channels) == (44100, 1)


def test_no_work_is_done_for_a_video_that_cannot_be(tmp_path):
    done = vcae("convert", CLIPS / "source.flac", "-s", CLIPS / "reference.flac", "-o", tmp_path / "new.mp4")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has no pictures" in done.stderr


def test_a_warning_is_printed_and_in_the_json(tmp_path, speech):
    write_sound(tmp_path / "a.mp3", Sound(speech, 16000), "x")
    data = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(data[: len(data) // 2])
    done = vcae("denoise", tmp_path / "a.mp3", "-o", tmp_path / "out.flac", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: ")
    (line,) = json.loads(done.stdout)["warnings"]
    assert "a.mp3 is cut off: 3." in line
    assert "of 6.7" in line
