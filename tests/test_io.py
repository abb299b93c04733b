import os
import stat

import numpy as np
import pytest
import soundfile

from vcae.audio.io import FORMAT_RATES, FORMATS, Sound, check_output, rate_of, read_comment, read_sound, resample, write_sound
from vcae.audio.media import VIDEO_FORMATS
from vcae.errors import AudioError


@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix not in VIDEO_FORMATS])
def test_every_format_there_and_back_with_its_comment(tmp_path, speech, suffix):
    path = tmp_path / f"out{suffix}"
    write_sound(path, Sound(speech, 16000), "converted by vcae, a test")
    again = read_sound(path)
    assert again.sample_rate in (16000, 48000)
    assert abs(again.duration_s - len(speech) / 16000) < 0.1
    assert np.sqrt(np.mean(again.wav**2)) == pytest.approx(np.sqrt(np.mean(speech**2)), rel=0.1)
    assert "converted by vcae" in read_comment(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_channels_are_averaged(tmp_path, tone):
    stereo = np.stack([tone(), tone(330.0), tone(level=0.6)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 44100)
    assert np.allclose(read_sound(tmp_path / "a.wav").wav, tone(level=0.3) + tone(330.0, level=0.1), atol=1e-4)


def test_resampling_keeps_a_tone_and_drops_what_does_not_fit(tone):
    kept = resample(tone(1000.0, rate=48000), 48000, 16000)
    assert len(kept) == 16000
    assert np.allclose(kept[500:-500], tone(1000.0)[500:-500], atol=2e-3)
    assert np.abs(resample(tone(12000.0, rate=48000), 48000, 16000))[500:-500].max() < 2e-3


def test_written_files_are_ordinary_files(tmp_path, tone):
    write_sound(tmp_path / "a.wav", Sound(tone(), 16000), "x")
    assert stat.S_IMODE(os.stat(tmp_path / "a.wav").st_mode) & 0o444 == 0o444


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p, c: None, "does not exist; check the path"),
        (lambda p, c: p.mkdir(), "is a folder"),
        (lambda p, c: p.write_bytes(b""), r"empty file \(0 bytes\)"),
        (lambda p, c: p.write_text("hello, this is text"), "not a sound file that can be read"),
        (lambda p, c: soundfile.write(p, np.zeros((0,)), 16000, format="WAV"), "holds 0 samples"),
        (
            lambda p, c: soundfile.write(p, np.full(9000, np.nan), 16000, format="WAV", subtype="FLOAT"),
            "9000 samples that are NaN",
        ),
        (lambda p, c: soundfile.write(p, np.zeros(9000), 4000, format="WAV"), "4000 Hz; allowed are 8000 to 192000"),
    ],
)
def test_unusable_files_are_named_with_a_reason(tmp_path, clips, make, message):
    path = tmp_path / "input.wav"
    make(path, clips["source"])
    with pytest.raises(AudioError, match=message) as caught:
        read_sound(path)
    assert str(path) in str(caught.value)


def test_outputs_are_refused_before_any_work(tmp_path, tone):
    taken = tmp_path / "taken.wav"
    taken.write_bytes(b"precious")
    with pytest.raises(AudioError, match="exists; add `force=True`"):
        write_sound(taken, Sound(tone(), 16000), "x")
    assert taken.read_bytes() == b"precious"
    with pytest.raises(AudioError, match=r"suffix '.xyz'; allowed are .wav"):
        check_output(tmp_path / "a.xyz")
    (tmp_path / "d.wav").mkdir()
    with pytest.raises(AudioError, match="is a folder"):
        check_output(tmp_path / "d.wav", force=True)
    with pytest.raises(AudioError, match="not a writable folder"):
        check_output(taken / "below.wav")


def test_silence_is_never_written(tmp_path):
    with pytest.raises(AudioError, match="is silent"):
        write_sound(tmp_path / "a.wav", Sound(np.zeros(16000, np.float32), 16000), "x")
    assert not list(tmp_path.iterdir())


def test_a_format_without_the_rate_gets_the_next_higher_one(tmp_path):
    assert [rate_of(tmp_path / name, 44100) for name in ("a.wav", "a.opus", "a.mp3", "a.m4a")] == [44100, 48000, 44100, 44100]
    assert rate_of("a.mp3", 96000) == 48000
    assert rate_of("a.opus", 44100, 24000) == 24000
    with pytest.raises(AudioError, match=r"\.opus has no sample rate of 44100 Hz; it has 8000, 12000"):
        rate_of("a.opus", 48000, 44100)
    wav = np.random.default_rng(0).uniform(-0.1, 0.1, 9600).astype(np.float32)
    for suffix in FORMAT_RATES:
        if suffix not in VIDEO_FORMATS:
            for rate in FORMAT_RATES[suffix]:
                write_sound(tmp_path / f"{rate}{suffix}", Sound(wav, rate))
