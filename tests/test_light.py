"""Conversion without torch: the same sound as with torch, and nothing of torch or SciPy's signal package imported."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfilt, sosfilt_zi
from typer.testing import CliRunner

from tests.conftest import CLIPS, ROOT
from vcae import light
from vcae.audio import frames as torch_frames
from vcae.audio.f0 import continuous_log_f0, log_f0_statistics
from vcae.audio.high_pass import HighPass
from vcae.audio.io import Sound, read_sound, resample
from vcae.cli.app import app
from vcae.errors import AudioError, CheckpointError, ConfigError
from vcae.light import arrays
from vcae.light import conversion as light_convert
from vcae.light import voice as light_voice
from vcae.light.analysis import analyse
from vcae.light.conversion import convert
from vcae.options import ConvertOptions
from vcae.tasks.convert import convert as torch_convert
from vcae.vocoder import excitation
from vcae.voice import matching, pitch, speaking
from vcae.voice import voice as torch_voice

# The same sound: largest difference of a sample.
SAME = 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("light") / "graphs"
    done = CliRunner().invoke(app, ["export", "onnx", str(made), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["bits"] == 16
    return made


@pytest.fixture(scope="module")
def graphs(folder):
    return light.Graphs(folder)


@pytest.fixture(scope="module")
def clip():
    return read_sound(CLIPS / "reference.flac")


@pytest.fixture(scope="module")
def voices(model, graphs, clip):
    return light.measure_voice(graphs, [clip]), torch_voice.voice_from_sounds(model, [clip])


def _difference(a, b):
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


def test_the_voice_is_the_same(voices):
    made, expected = voices
    assert _difference(made.speaker_embedding, expected.speaker_embedding.numpy()) < 1e-5
    assert made.log_f0_median == pytest.approx(expected.log_f0_median, abs=1e-6)
    assert made.log_f0_spread == pytest.approx(expected.log_f0_spread, abs=1e-6)
    assert _difference(made.error_values, expected.errors.values.numpy()) < 1e-2
    assert made.bandwidth == expected.errors.bandwidth
    assert _difference(made.values, expected.reference.values.numpy()) < 1e-2
    for ours, theirs in zip(made.quantiles, expected.quantiles, strict=True):
        assert _difference(ours, theirs.numpy()) < 1e-3
    assert made.speech_s == pytest.approx(expected.speech_s)
    assert made.warnings == expected.warnings


def test_the_sound_is_the_same(model, graphs, voices):
    source = read_sound(CLIPS / "source.flac")
    seen, expected = analyse(graphs, source, 0.5), model.analyse(source)
    assert np.array_equal(seen.f0, expected.f0[0].numpy())
    assert _difference(seen.mel, expected.mel[0].numpy()) < SAME
    made, expected = convert(graphs, source, voices[0]), torch_convert(model, source, voices[1])
    assert _difference(made.wav, expected.wav.numpy()) < SAME
    assert np.abs(made.wav).max() > 0.3
    assert made.comment == f"converted by {graphs.settings['origin']}"


def test_sections_change_nothing(graphs, voices, monkeypatch):
    source = read_sound(CLIPS / "source.flac")
    whole = convert(graphs, source, voices[0])
    monkeypatch.setattr(light_convert, "SECTION_S", 2.0)
    assert _difference(convert(graphs, source, voices[0]).wav, whole.wav) < SAME


@pytest.mark.parametrize(("denoise", "loudness"), [(True, "flat"), (False, "source")])
def test_two_channels_at_another_rate(model, graphs, voices, denoise, loudness):
    """Every step around the models too: mixing, denoising, resampling, the band above, the watermark, placement."""
    noisy = read_sound(CLIPS / "noisy.flac")
    wide = resample(noisy.wav, noisy.sample_rate, 32000)[: 3 * 32000]
    source = Sound(np.stack([wide, 0.5 * wide], axis=1), 32000, "noisy")
    options = ConvertOptions(denoise=denoise, pitch=-3, loudness=loudness, seed=7)
    made, expected = convert(graphs, source, voices[0], options), torch_convert(model, source, voices[1], options)
    assert made.sample_rate == expected.sample_rate == 32000
    # A louder sound than at 16 kHz. The denoiser amplifies rounding: on this clip, which has nothing above 8 kHz, noise at -140 dB becomes -95 dB.
    assert _difference(made.wav, expected.wav.numpy()) < (6 if denoise else 2) * SAME


def test_torch_is_not_imported_and_memory_is_small(folder, tmp_path):
    out = tmp_path / "out.wav"
    clips = [str(CLIPS / "source.flac"), "--speaker", str(CLIPS / "reference.flac")]
    code = (
        "import sys; sys.modules['torch'] = sys.modules['scipy'] = sys.modules['librosa'] = None\n"
        "from vcae.cli.light import main\n"
        f"main({[*clips, '--models', str(folder), '--output', str(out)]!r})\n"
        # The largest memory so far in kB; getrusage would count that of the process that started this one.
        "print(next((line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')), 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert read_sound(out).duration_s == pytest.approx(6.69, abs=0.01)
    assert int(done.stdout.split()[-1]) < 300_000


def test_the_python_of_the_page_runs(folder, tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "browser.md").read_text(), re.S)[1]
    (tmp_path / "graphs").symlink_to(folder)
    for name in ("source.flac", "reference.flac"):
        (tmp_path / name).symlink_to(CLIPS / name)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert read_sound("converted.wav").duration_s == pytest.approx(6.69, abs=0.01)


def test_errors_of_the_command(folder, tmp_path, capsys):
    from vcae.cli.light import main

    given = [str(CLIPS / "source.flac"), "-s", str(CLIPS / "reference.flac"), "-o", str(tmp_path / "x.wav")]
    with pytest.raises(SystemExit) as stopped:
        main([*given, "-m", str(tmp_path)])
    assert stopped.value.code == 2
    assert "vcae export onnx" in capsys.readouterr().err
    (tmp_path / "x.wav").write_bytes(b"mine")
    with pytest.raises(SystemExit):
        main([*given, "-m", str(folder)])
    assert "add --force to replace it" in capsys.readouterr().err
    assert (tmp_path / "x.wav").read_bytes() == b"mine"


def test_errors_of_the_library(graphs, voices, clip, tmp_path):
    with pytest.raises(ConfigError, match="speed needs torch"):
        convert(graphs, clip, voices[0], ConvertOptions(speed=1.5))
    with pytest.raises(AudioError, match=r"0\.5 to 600 s"):
        convert(graphs, Sound(np.zeros(1000, np.float32), 16000), voices[0])
    with pytest.raises(AudioError, match="silent"):
        convert(graphs, Sound(np.zeros(16000, np.float32), 16000), voices[0])
    with pytest.raises(AudioError, match="no reference"):
        light.measure_voice(graphs, [])
    (tmp_path / "vcae.json").write_text('{"format": 99}')
    with pytest.raises(CheckpointError, match="format 99"):
        light.Graphs(tmp_path)


def test_export_refuses_to_replace(folder):
    done = CliRunner().invoke(app, ["export", "onnx", str(folder)])
    assert done.exit_code == 2
    assert "--force" in done.stderr


def test_values_are_those_of_torch():
    assert arrays.ACTIVE_RANGE == torch_frames.ACTIVE_RANGE
    assert (arrays.N_QUANTILES, arrays.OUTERMOST) == (matching.N_QUANTILES, matching.OUTERMOST)
    assert (arrays.MIN_FRAMES, arrays.SPREAD_BOUNDS) == (matching.MIN_FRAMES, pitch.SPREAD_BOUNDS)
    assert arrays.NOISE_BLOCK == excitation.NOISE_BLOCK
    names = ("BANDWIDTH", "BANDWIDTH_FRAMES", "BANDWIDTH_EXPONENT", "VOICING_WEIGHT", "MAX_MEMORY")
    assert all(getattr(light_voice, name) == getattr(matching, name) for name in names)
    assert (light_voice.KEPT_S, light_voice.MIN_REFERENCE_S) == (torch_voice.KEPT_S, torch_voice.MIN_REFERENCE_S)
    assert (light_convert.DISTRIBUTION, light_convert.DISTRIBUTION_S) == (speaking.DISTRIBUTION, speaking.DISTRIBUTION_S)
    assert light_convert.FULL_MATCH_S == matching.FULL_MATCH_S


def test_arrays_are_those_of_torch():
    random = np.random.default_rng(0)
    f0 = np.where(random.random(300) < 0.6, random.uniform(80, 300, 300), 0).astype(np.float32)
    there = torch.from_numpy(f0)
    assert arrays.log_f0_statistics(f0) == pytest.approx(log_f0_statistics(there), abs=1e-6)
    assert all(math.isnan(x) for x in arrays.log_f0_statistics(np.zeros(3, np.float32)))
    assert _difference(arrays.continuous_log_f0(f0), continuous_log_f0(there[None])[0].numpy()) < 1e-6
    track = excitation.PitchTrack.of(there[None], 16000, 256)
    turns = np.abs(arrays.pulse_turns(track.log_f0[0].numpy(), 16000, 256) - track.turns[0].numpy())
    assert np.minimum(turns, 1 - turns).max() < 1e-4
    assert np.array_equal(arrays.white_noise(3, 1000, 40000), excitation.white_noise(3, 1, 1000, 40000)[0].numpy())
    mel = random.standard_normal((80, 300)).astype(np.float32)
    other = random.standard_normal((80, 200)).astype(np.float32) - 1
    have, wanted = matching.frame_quantiles(torch.from_numpy(mel)), matching.frame_quantiles(torch.from_numpy(other))
    assert _difference(arrays.band_quantiles(mel), have.numpy()) < 1e-5
    expected = matching.map_quantiles(torch.from_numpy(mel)[None], there[None], (have, None), (wanted, None), 0.5)
    made = arrays.map_quantiles(mel, f0, [have.numpy(), None], [wanted.numpy(), None], 0.5)
    assert _difference(made, expected[0].numpy()) < 1e-4


@pytest.mark.parametrize("rate", [8000, 48000])
def test_the_high_pass_is_butterworths(rate):
    wav = np.random.default_rng(1).standard_normal(5003) + 3
    sections = butter(8, 85, "highpass", fs=rate, output="sos")
    expected, _ = sosfilt(sections, wav, zi=sosfilt_zi(sections) * wav[0])
    made = HighPass(rate, 85, 8, wav[0])
    pieces = [made(wav[start:stop]) for start, stop in ((0, 1000), (1000, 1010), (1010, 1010), (1010, 5003))]
    assert np.abs(np.concatenate(pieces) - expected).max() < 1e-9
