"""Joined, cut off and unfinished files: all the sound that is there, and a word where some is missing."""

import io
import struct

import numpy as np
import pytest
import soundfile

from vcae.audio.containers import examine
from vcae.audio.io import read_sound
from vcae.errors import AudioError

KINDS = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "flac": ("FLAC", "PCM_16"),
    "wav": ("WAV", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
}


def encoded(kind, wav, rate=16000):
    out = io.BytesIO()
    soundfile.write(out, wav, rate, format=KINDS[kind][0], subtype=KINDS[kind][1])
    return out.getvalue()


def read(tmp_path, data, kind="wav"):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data)
    return read_sound(path)


def alike(a, b):
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_need_no_care(tmp_path, speech, kind):
    data = encoded(kind, speech)
    assert examine(io.BytesIO(data)) is None
    assert read(tmp_path, data, kind).warnings == ()


@pytest.mark.parametrize("kind", ["mp3", "ogg", "opus", "flac", "wav"])
def test_joined_files_are_read_to_their_end(tmp_path, speech, kind):
    first, second = speech[:40000], speech[40000:]
    sound = read(tmp_path, encoded(kind, first) + encoded(kind, second), kind)
    assert abs(len(sound.wav) - len(speech)) <= 32
    assert alike(sound.wav[:30000], speech[:30000]) > 0.98
    assert alike(sound.wav[45000:107000], speech[45000:107000]) > 0.98
    assert sound.warnings == ()


def test_mp3s_with_tags_between_them_are_joined(tmp_path, speech):
    tag = b"ID3\x04\0\0\0\0\0\x0aTIT2\0\0\0\0\0\0"
    data = tag + encoded("mp3", speech) + b"TAG" + bytes(125) + tag + encoded("mp3", speech)
    assert abs(len(read(tmp_path, data, "mp3").wav) - 2 * len(speech)) <= 32


def test_a_part_at_another_rate_is_resampled(tmp_path, speech):
    data = encoded("ogg", speech) + encoded("ogg", np.repeat(speech, 2), 32000)
    assert abs(len(read(tmp_path, data, "ogg").wav) - 2 * len(speech)) <= 32


@pytest.mark.parametrize("kind", ["mp3", "ogg", "opus", "wav", "aiff", "au", "caf"])
def test_what_is_cut_off_is_read_with_a_warning(tmp_path, speech, kind, capfd):
    data = encoded(kind, speech)
    sound = read(tmp_path, data[: len(data) * 6 // 10], kind)
    assert 2.5 < sound.duration_s < 4.1
    assert len(sound.warnings) == 1
    assert f"a.{kind} is cut off: {sound.duration_s:.2f} " in sound.warnings[0]
    if kind not in ("ogg", "opus"):
        assert "of 6." in sound.warnings[0]
    # Nothing of a decoder's own.
    assert capfd.readouterr().err.count("\n") <= 1


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_flac_that_is_cut_off_or_damaged_is_read_with_a_warning(tmp_path, speech, subtype):
    out = io.BytesIO()
    soundfile.write(out, speech, 16000, format="FLAC", subtype=subtype)
    data = out.getvalue()
    for share in (0.3, 0.9):
        sound = read(tmp_path, data[: round(len(data) * share)], "flac")
        assert np.allclose(sound.wav, speech[: len(sound.wav)], atol=1e-4)
        # Up to its last whole frame.
        assert share - 0.15 < len(sound.wav) / len(speech) < share + 0.15
        (line,) = sound.warnings
        assert f"a.flac is cut off or damaged: {sound.duration_s:.2f} of 6." in line
    middle = len(data) // 2
    sound = read(tmp_path, data[:middle] + bytes(5000) + data[middle + 5000 :], "flac")
    assert 5.5 < sound.duration_s < 6.69
    assert np.allclose(sound.wav[:30000], speech[:30000], atol=1e-4)
    assert np.allclose(sound.wav[-30000:], speech[-30000:], atol=1e-4)
    assert "is cut off or damaged" in sound.warnings[0]
    with pytest.raises(AudioError, match=r"a\.flac"):
        read(tmp_path, data[:100], "flac")


def test_a_part_that_was_cut_off_before_it_was_joined(tmp_path, speech):
    for kind in ("mp3", "ogg"):
        data = encoded(kind, speech)
        sound = read(tmp_path, data[: len(data) * 6 // 10] + data, kind)
        assert 9 < sound.duration_s < 11
        assert "sound is missing" in sound.warnings[0]


def _without_length(data, kind):
    data = bytearray(data)
    if kind == "wav":
        place = data.index(b"data") + 4
        data[4:8] = data[place : place + 4] = bytes(4)
    elif kind == "aiff":
        place = data.index(b"SSND") + 4
        data[4:8] = data[place : place + 4] = bytes(4)
        place = data.index(b"COMM") + 10
        data[place : place + 4] = bytes(4)
    elif kind == "au":
        data[8:12] = bytes(4)
    else:
        place = data.index(b"data") + 4
        data[place : place + 8] = bytes(8)
    return bytes(data)


@pytest.mark.parametrize("kind", ["wav", "aiff", "au", "caf"])
def test_sound_behind_a_length_of_nothing_is_read(tmp_path, speech, kind):
    sound = read(tmp_path, _without_length(encoded(kind, speech), kind), kind)
    assert len(sound.wav) == len(speech)
    assert np.array_equal(sound.wav, np.float32(np.round(speech * 32768) / 32768))
    assert "has more sound after it" in sound.warnings[0]


def test_more_sound_than_the_header_counts(tmp_path, speech):
    data = bytearray(encoded("wav", speech))
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", 2000)
    assert len(read(tmp_path, bytes(data)).wav) == len(speech)


def test_chunks_behind_the_sound_are_no_sound(tmp_path, speech):
    data = encoded("wav", speech[:20]) + b"LIST" + struct.pack("<I", 4000) + bytes(4000)
    assert len(read(tmp_path, data).wav) == 20


def test_a_pipes_unknown_length_is_no_damage(tmp_path, speech):
    data = bytearray(encoded("wav", speech))
    place = data.index(b"data") + 4
    data[4:8] = data[place : place + 4] = b"\xff\xff\xff\xff"
    sound = read(tmp_path, bytes(data))
    assert (len(sound.wav), sound.warnings) == (len(speech), ())


@pytest.mark.parametrize("scale", [2.0**15, 2.0**23, 2.0**31])
def test_integers_written_as_floats_are_scaled(tmp_path, speech, scale):
    wav = speech / np.abs(speech).max()
    soundfile.write(tmp_path / "a.wav", np.float32(wav * (scale - 1)), 16000, subtype="FLOAT")
    sound = read_sound(tmp_path / "a.wav")
    assert np.allclose(sound.wav, wav, atol=1e-3)
    assert f"integers of up to {scale:.0f}" in sound.warnings[0]


def test_floats_a_little_over_full_scale_stay(tmp_path, speech):
    wav = 3 * speech / np.abs(speech).max()
    soundfile.write(tmp_path / "a.wav", wav, 16000, subtype="FLOAT")
    sound = read_sound(tmp_path / "a.wav")
    assert np.allclose(sound.wav, wav, atol=1e-6)
    assert sound.warnings == ()


@pytest.mark.parametrize("kind", KINDS)
def test_broken_bytes_end_in_a_sentence_or_in_sound(tmp_path, speech, kind):
    whole, random = encoded(kind, speech[:8000]), np.random.default_rng(0)
    for _ in range(30):
        data = bytearray(whole[: random.integers(1, len(whole))])
        for place in random.integers(0, len(data), 5):
            data[place] = random.integers(256)
        try:
            wav = read(tmp_path, bytes(data), kind).wav
        except AudioError:
            wav = speech
        assert np.isfinite(wav).all()
