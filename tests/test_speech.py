"""What of a reference is speech, and what is said of one that is not fit."""

import json
import subprocess

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile

from tests.conftest import CLIPS
from tests.forked import python
from vcae.audio.io import Sound
from vcae.errors import AudioError
from vcae.voice.speakers import Speaker, read_clip, read_clips
from vcae.voice.voice import voice_from_sounds

SILENCE = np.zeros(32000, np.float32)


@pytest.fixture(scope="module")
def other():
    return soundfile.read(CLIPS / "reference.flac", dtype="float32")[0]


def hear(model, *wavs):
    return voice_from_sounds(model, [Sound(np.asarray(wav, np.float32), 16000, f"clip {n}") for n, wav in enumerate(wavs)])


def whispered(wav, order=18, size=400):
    """Return noise through the linear prediction filters of frames of speech, without its lowest frequencies, as whispering does."""
    random, out, window = np.random.default_rng(0), np.zeros(len(wav)), np.hanning(size)
    for at in range(0, len(wav) - size, size // 2):
        frame = wav[at : at + size] * window
        power = float(np.square(frame).mean())
        if power < 1e-9:
            continue
        filtered = scipy.signal.lfilter(
            [1.0], librosa.lpc(frame + 1e-6 * random.standard_normal(size), order=order), random.standard_normal(size)
        )
        filtered *= window
        out[at : at + size] += filtered * np.sqrt(power / np.square(filtered).mean())
    return scipy.signal.sosfilt(scipy.signal.butter(2, 300, "high", fs=16000, output="sos"), out).astype(np.float32)


def noise(n=48000, level=0.1):
    return level * np.random.default_rng(0).standard_normal(n)


@pytest.mark.parametrize(
    "make",
    [
        lambda speech, tone: noise(),
        lambda speech, tone: np.cumsum(noise(64000, 0.01)),
        lambda speech, tone: noise() * (1 + np.sin(np.arange(48000) / 600)),
        lambda speech, tone: tone(seconds=3.0),
        lambda speech, tone: np.arange(48000) * 150 / 16000 % 1 - 0.5,
        lambda speech, tone: np.arange(48000) % 4000 == 0,
    ],
    ids=["white", "brown", "modulated", "tone", "saw", "clicks"],
)
def test_what_is_no_speech_is_refused(model, speech, tone, make):
    with pytest.raises(AudioError, match=r"^0\.0 s of speech found in clip 0; give 3 s or more$"):
        hear(model, make(speech, tone))


def test_a_whisper_is_refused_with_the_reason(model, other):
    with pytest.raises(AudioError, match=r"^clip 0 is whispered; .*give 3 s or more of voiced speech$"):
        hear(model, whispered(other))
    # Beside voiced speech it is left out, with a warning.
    alone, both = hear(model, other), hear(model, other, whispered(other))
    assert float((alone.speaker_embedding * both.speaker_embedding).sum()) == pytest.approx(1, abs=1e-5)
    assert both.warnings == ("clip 1 is whispered, and it was left out",)


@pytest.mark.parametrize("floor", [0.0, 1e-3])
def test_a_little_speech_in_a_long_silence_is_refused(model, other, floor):
    wav = np.concatenate([SILENCE, other[9200:14000], SILENCE]) + noise(68800, floor)
    with pytest.raises(AudioError, match=r"^0\.[2-4] s of speech found in clip 0; give 3 s or more$"):
        hear(model, wav)


def test_little_but_pure_speech_is_taken_with_a_warning(model, other):
    voice = hear(model, other[9200:22000])
    assert 0.5 < voice.speech_s <= 0.85
    assert len(voice.warnings) == 1
    assert "s of speech found in clip 0; give 3 s or more" in voice.warnings[0]


def test_silence_around_speech_is_cut(model, other):
    plain, padded = hear(model, other), hear(model, np.concatenate([SILENCE, other, SILENCE]))
    # A quarter of a second stays at each end.
    assert padded.speech_s == pytest.approx(plain.speech_s, abs=0.1)
    assert padded.recordings[0].mel.shape[-1] == pytest.approx(plain.recordings[0].mel.shape[-1], abs=31)
    assert float((padded.speaker_embedding * plain.speaker_embedding).sum()) > 0.98
    assert plain.warnings == padded.warnings == ()


def test_speech_in_a_long_silence_is_found(model, other):
    voice = hear(model, np.concatenate([np.zeros(16000 * 60, np.float32), other]))
    assert voice.speech_s > 5
    assert voice.warnings == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a, b: np.clip(5 * a / np.abs(a).max(), -1, 1), "clip 0 is clipped"),
        (lambda a, b: a + noise(len(a), float(a.std())), "clip 0 is noisy"),
        (lambda a, b: np.concatenate([a[:64000], b[:64000]]), "more than one voice"),
    ],
    ids=["clipped", "noisy", "two"],
)
def test_what_is_wrong_with_a_reference_is_said(model, speech, other, make, message):
    voice = hear(model, make(speech, other))
    assert [line for line in voice.warnings if message in line]


def test_a_clip_without_speech_is_left_out_of_several(model, other):
    alone, with_noise = hear(model, other), hear(model, noise(), other)
    assert float((alone.speaker_embedding * with_noise.speaker_embedding).sum()) == pytest.approx(1, abs=1e-5)
    assert "no speech was found in clip 0" in with_noise.warnings[0]


def test_the_best_seconds_of_a_long_clip_are_read(tmp_path, speech):
    soundfile.write(tmp_path / "long.wav", np.concatenate([np.zeros(160000), speech, np.zeros(160000), speech]), 16000)
    sound = read_clip(tmp_path / "long.wav", 14.0)
    assert sound.duration_s < 14.1
    assert np.sqrt(np.mean(sound.wav**2)) > 0.8 * np.sqrt(np.mean(speech**2))
    whole = read_clip(CLIPS / "source.flac")
    assert np.array_equal(whole.wav, speech)
    assert read_clips([Speaker(CLIPS / "source.flac", False, None)])[CLIPS / "source.flac"].name.endswith("source.flac")


def test_the_command_says_it_and_so_does_the_json(tmp_path, other):
    soundfile.write(tmp_path / "friend.wav", other[9200:22000], 16000)
    command = [*python(), "-m", "vcae", "convert", str(CLIPS / "source.flac"), "-s", str(tmp_path / "friend.wav")]
    done = subprocess.run([*command, "-o", str(tmp_path / "out.wav"), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = json.loads(done.stdout)["warnings"]
    assert "friend.wav; give 3 s or more" in line
    assert done.stderr == f"warning: {line}\n"
    soundfile.write(tmp_path / "friend.wav", noise(), 16000)
    done = subprocess.run([*command, "-o", str(tmp_path / "none.wav")], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: 0.0 s of speech found in {tmp_path / 'friend.wav'}; give 3 s or more\n"
