"""How it is said: speed, formants, expression."""

import numpy as np
import pytest
import soundfile
import torch

import vcae
from tests.test_live import _run
from vcae.audio.config import MelConfig
from vcae.audio.f0 import estimate_f0, log_f0_statistics
from vcae.audio.loudness import LevelMeter
from vcae.audio.mel import mel_band_edges
from vcae.audio.sections import LazySections
from vcae.audio.stretch import stretch_f0, stretch_mel
from vcae.batch.jobs import Job
from vcae.batch.workers import Converter
from vcae.errors import AudioError, ConfigError
from vcae.options import BabbleOptions, ConvertOptions, SpeakOptions
from vcae.tasks.babble import babble
from vcae.tasks.live import LiveConverter
from vcae.tasks.unit_files import Units
from vcae.tasks.units import speak_units
from vcae.voice.formant import FormantShift
from vcae.voice.pitch import scale_f0


@pytest.fixture(scope="module")
def voice(model, clips):
    return model.voice(clips["reference"])


@pytest.fixture(scope="module")
def short(speech):
    """Of an odd length."""
    return speech[16000 : 16000 + 40001]


@pytest.fixture(scope="module")
def plain(model, voice, short):
    return model.convert(short, 16000, voice).wav


@pytest.fixture(scope="module")
def vq():
    return vcae.load("vq", device="cpu")


def _semitones(a, b):
    """Return the differences of F0 in semitones where both are voiced."""
    both = (a > 0) & (b > 0)
    assert both.mean() > 0.4
    return 12 * np.log2(a[both] / b[both])


def _envelope_shift(made, plain, f0):
    """Return the shift of the mean log envelope of voiced frames, in semitones, by linear prediction of each frame."""
    import librosa

    at = np.geomspace(300, 4500, 300)
    bins = np.linspace(0, 8000, 513)

    def envelope(wav):
        frames = librosa.util.frame(np.pad(wav, 512), frame_length=1024, hop_length=256)[:, : len(f0)]
        chosen = frames[:, (f0 > 0) & (np.square(frames).sum(0) > 0.1)].T
        lpc = [librosa.lpc(np.diff(frame, prepend=frame[:1]) * np.hanning(1024), order=18) for frame in chosen]
        return np.mean([-np.log(np.abs(np.fft.rfft(a, 1024))) for a in lpc], axis=0)

    before, after = envelope(plain), envelope(made)
    shifts = np.arange(-8, 8.1, 0.1)
    slope = np.diff(np.interp(at, bins, before))
    near = [np.corrcoef(slope, np.diff(np.interp(at * 2 ** (s / 12), bins, after)))[0, 1] for s in shifts]
    return shifts[int(np.argmax(near))]


def test_speed_sets_the_length_and_keeps_pitch_and_words(model, voice, short, plain):
    fast = model.convert(short, 16000, voice, speed=1.25).wav
    assert len(fast) == round(40001 / 1.25)
    f0 = [torch.from_numpy(estimate_f0(wav))[None] for wav in (fast, plain)]
    expected = stretch_f0(f0[1], f0[0].shape[1], 1.25)
    assert abs(np.median(_semitones(f0[0][0].numpy(), expected[0].numpy()))) < 0.1
    content = [model.autoencoder.encode_content(model.analyse(wav, 16000).mel) for wav in (fast, plain)]
    n = content[0].shape[-1]

    def like(start):
        whole = LazySections(n, lambda a, b: content[1].roll(start, -1)[..., a:b])
        return float(torch.nn.functional.cosine_similarity(stretch_mel(whole, n, 1.25).read(0, n), content[0], dim=1).mean())

    assert like(0) > like(20) + 0.2


def test_slow_speech_is_not_louder(model, voice, short, plain):
    slow = model.convert(short, 16000, voice, speed=0.5).wav
    assert len(slow) == 80002
    power = [np.square(wav[: len(wav) // n * n].reshape(-1, n)).mean(1) for wav, n in ((slow, 2048), (plain, 1024))]
    n = min(map(len, power))
    loud = power[1][:n] > 0.1 * power[1].max()
    assert abs(np.median(10 * np.log10(power[0][:n][loud] / power[1][:n][loud]))) < 1.5


@pytest.mark.parametrize("semitones", [4, -4])
def test_formants_move_and_pitch_stays(model, voice, short, plain, semitones):
    made = model.convert(short, 16000, voice, formant=semitones).wav
    f0 = estimate_f0(plain)
    assert abs(_envelope_shift(made, plain, f0) - semitones) < 0.5
    assert np.quantile(np.abs(_semitones(estimate_f0(made), f0)), 0.9) < 0.3
    assert len(made) == len(plain)


@pytest.mark.parametrize("expression", [0.5, 2.0])
def test_expression_scales_the_melody(model, voice, short, plain, expression):
    made = model.convert(short, 16000, voice, expression=expression).wav
    (median, spread), (before, width) = (log_f0_statistics(torch.from_numpy(estimate_f0(wav))) for wav in (made, plain))
    assert spread / width == pytest.approx(expression, rel=0.15)
    assert median == pytest.approx(before, abs=0.05)


def test_live_has_formants_and_expression_but_no_speed(model, voice, clips, speech):
    prior, wav = model.analyse(clips["reference"]), speech[: 30 * 1280]
    plain, made = (
        np.concatenate(_run(LiveConverter(model, voice, prior, options), wav))
        for options in (ConvertOptions(), ConvertOptions(formant=4, expression=0.2))
    )
    f0 = [estimate_f0(x) for x in (plain, made)]
    assert abs(_envelope_shift(made, plain, f0[0]) - 4) < 0.7
    late = slice(len(f0[0]) // 2, None)
    spreads = [log_f0_statistics(torch.from_numpy(x[late]))[1] for x in f0]
    assert spreads[1] < 0.4 * spreads[0]
    with pytest.raises(ConfigError, match=r"speed is 1.25; live it can only be 1"):
        LiveConverter(model, voice, prior, ConvertOptions(speed=1.25))


@pytest.mark.parametrize("speed", [0.7, 1.0, 2.0])
def test_units_and_babble_are_as_long_as_asked(vq, clips, speed):
    voice = vq.voice(clips["reference"])
    units = Units("a", tuple(range(40)), (1,) * 40, 20001, 0.032, 256)
    done = speak_units(vq, units, voice, SpeakOptions(speed=speed, formant=2, expression=0.5))
    assert len(done.wav) == round(20001 / speed)
    assert done.mel.shape[-1] == done.f0.shape[-1] == 1 + len(done.wav) // 256
    assert len(babble(vq, voice, BabbleOptions(seconds=0.7501, speed=speed)).wav) == round(0.7501 * 16000)
    short = Units("b", (3, 4), (1, 1), 999, 0.032, 256)
    assert len(speak_units(vq, short, voice, SpeakOptions(speed=speed)).wav) == round(999 / speed)


def test_a_video_keeps_its_speed(voice, tmp_path, clips):
    converter = Converter(ConvertOptions(speed=1.5), (str(clips["reference"]),), device="cpu")
    with pytest.raises(AudioError, match=r"speed is 1.5, and .*a.mp4 would keep the pictures' speed"):
        converter.make(Job(str(clips["source"]), (), str(tmp_path / "a.mp4")), None, None)


def test_sequences_in_time():
    content = torch.arange(50.0)[None, None]
    whole = LazySections(50, lambda start, stop: content[..., start:stop])
    fast = stretch_mel(whole, 25, 2.0)
    assert torch.equal(fast.read(0, 25)[0, 0], torch.arange(0.0, 50.0, 2))
    slow = stretch_mel(whole, 100, 0.5)
    assert slow.read(10, 13)[0, 0].tolist() == pytest.approx([5, 5.5, 6])
    assert torch.equal(torch.cat([slow.read(0, 33), slow.read(33, 100)], -1), slow.read(0, 100))
    assert stretch_mel(whole, 50, 1.0) is whole
    f0 = torch.tensor([[100.0, 200.0, 0.0, 0.0, 50.0]])
    assert stretch_f0(f0, 9, 0.5)[0].tolist() == pytest.approx([100, 141.421, 200, 0, 0, 0, 0, 50, 50], rel=1e-4)


def test_loudness_in_time(speech):
    meter = LevelMeter.of(speech)
    fast = meter.stretched(round(len(speech) / 1.6), 1.6)
    assert fast.n == round(len(speech) / 1.6)
    assert len(fast.powers()) == -(-fast.n // 256)
    assert fast.level() == pytest.approx(meter.level(), rel=0.05)


def test_a_peak_moves_by_its_semitones():
    config = MelConfig()
    centres = mel_band_edges(config)[1:-1]
    mel = -((centres.log() - np.log(1000.0)) / 0.2).square().float()[None, :, None]
    for f0 in (0.0, 60.0):
        moved = FormantShift(config, 12)(mel, torch.tensor([[f0]]))
        assert float(centres[moved[0, :, 0].argmax()]) == pytest.approx(2000, rel=0.06)


def test_harmonics_stay():
    config = MelConfig()
    centres = mel_band_edges(config)[1:-1]
    mel = torch.cos(2 * np.pi * centres / 200.0).float()[None, :, None]
    moved = FormantShift(config, 5)(mel, torch.tensor([[200.0]]))
    low = (centres > 200) & (centres < 900)
    assert np.corrcoef(moved[0, low, 0], mel[0, low, 0])[0, 1] > 0.9


def test_expression_of_f0():
    f0 = torch.tensor([[0.0, 100.0, 400.0]])
    assert scale_f0(f0, 0.5)[0].tolist() == pytest.approx([0, 141.42, 282.84], rel=1e-4)
    assert scale_f0(f0, 0)[0].tolist() == pytest.approx([0, 200, 200])
    assert scale_f0(f0, 2)[0].tolist() == pytest.approx([0, 50, 600])
    assert scale_f0(f0, 1) is f0
    assert torch.equal(scale_f0(f0 * 0, 2), f0 * 0)


def test_from_python(model, clips):
    made = model.convert(clips["source"], reference=clips["reference"], speed=2, formant=-2.5, expression=1.5)
    assert len(made) == round(soundfile.info(clips["source"]).frames / 2)
    with pytest.raises(ConfigError, match=r"speed is 2.5; allowed are 0.5 to 2"):
        model.convert(clips["source"], reference=clips["reference"], speed=2.5)
