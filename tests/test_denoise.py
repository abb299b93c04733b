"""The denoiser: its filter, its sections, its files; and the shipped one on real noise."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

import vcae
from tests.conftest import CLIPS, ROOT
from vcae import checkpoint
from vcae.audio.io import Sound, read_comment, read_sound
from vcae.config import to_dict
from vcae.engine.denoise import Cleaner
from vcae.errors import AudioError, CheckpointError, ConfigError
from vcae.model.config import DenoiserConfig
from vcae.model.denoiser import PART, Denoiser, compress_spectrum, denoiser_of
from vcae.options import ConvertOptions
from vcae.tasks.convert import convert
from vcae.voice.voice import voice_from_sounds

TINY = DenoiserConfig(width=16, n_blocks=2)


@pytest.fixture(scope="module")
def cleaner():
    return Cleaner(device="cpu")


@pytest.fixture(scope="module")
def noisy():
    return read_sound(CLIPS / "noisy.flac")


def ratio_db(clean, heard):
    """Scale-invariant ratio of speech to what else is heard (Le Roux et al., 2019)."""
    part = clean * np.dot(heard, clean) / np.dot(clean, clean)
    return 10 * np.log10(np.square(part).sum() / np.square(heard - part).sum())


def run(*args, cwd=None, stdin=None):
    return subprocess.run([sys.executable, "-m", "vcae", *map(str, args)], cwd=cwd, input=stdin, capture_output=True)


@pytest.mark.parametrize("n", [100, 300, 512, 4096, 4097, 4351])
def test_at_first_every_sample_is_left_as_it_is(n):
    network, wav = Denoiser(TINY).eval(), 0.1 * torch.randn(2, n)
    torch.nn.init.zeros_(network.filters.weight)
    assert network.analyse(wav).shape == (2, 257, 1 + n // 256)
    with torch.no_grad():
        assert torch.allclose(network.clean(wav), wav, atol=1e-5)
        if n > 512:
            assert torch.equal(network.restore(wav), network.log_mel(wav))


def test_the_filter_takes_what_it_says_of_each_frame():
    network = Denoiser(TINY)
    spectrum = torch.randn(1, 257, 6, dtype=torch.complex64)
    weights = torch.randn(1, 3, 257, 6, dtype=torch.complex64)
    made = network.filter(spectrum, weights)
    by_hand = sum(weights[0, k, 40, 3] * spectrum[0, 40, 3 + k - 1] for k in range(3))
    assert torch.allclose(made[0, 40, 3], by_hand, atol=1e-5)
    edge = weights[0, 1, 9, 0] * spectrum[0, 9, 0] + weights[0, 2, 9, 0] * spectrum[0, 9, 1]
    assert torch.allclose(made[0, 9, 0], edge, atol=1e-5)


def test_compression_keeps_phases_and_squeezes_magnitudes():
    spectrum = torch.tensor([3 + 4j, -0.5j, 0j])
    made = compress_spectrum(spectrum)
    assert torch.allclose(made.abs(), torch.tensor([5**0.3, 0.5**0.3, 0.0]), atol=1e-3)
    assert torch.allclose(made[:2].angle(), spectrum[:2].angle(), atol=1e-6)


def test_nothing_beyond_its_reach_matters():
    network, wav = Denoiser(TINY).eval(), 0.1 * torch.randn(1, 16000)
    torch.nn.init.normal_(network.filters.weight, std=0.1)
    changed = wav.clone()
    changed[:, 10000:] = 0
    with torch.no_grad():
        one, other = network.clean(wav), network.clean(changed)
    first = 10000 - network.reach * 256
    assert first > 1000
    assert torch.allclose(one[:, :first], other[:, :first], atol=1e-6)
    assert not torch.allclose(one[:, 9000:10000], other[:, 9000:10000], atol=1e-3)


def test_the_shipped_one_helps_where_the_noise_is_and_hardly_harms_without(cleaner, noisy, speech):
    made = cleaner.sound(noisy).wav
    assert len(made) == len(speech)
    assert ratio_db(speech, noisy.wav) == pytest.approx(5.0, abs=0.5)
    assert ratio_db(speech, made) > 9.0
    # Pauses become quiet: the quietest tenth of the frames falls by more than 10 dB.
    quiet = [np.quantile(np.square(x[: len(x) // 256 * 256].reshape(-1, 256)).mean(axis=1), 0.1) for x in (noisy.wav, made)]
    assert 10 * np.log10(quiet[0] / quiet[1]) > 10
    clean = cleaner.sound(Sound(speech, 16000)).wav
    assert ratio_db(speech, clean) > 15
    assert np.sqrt(np.square(clean).mean() / np.square(speech).mean()) == pytest.approx(1.0, abs=0.1)


def test_strength_goes_from_nothing_to_all(cleaner, noisy):
    whole = cleaner.sound(noisy, 1.0).wav
    assert np.allclose(cleaner.sound(noisy, 0.0).wav, noisy.wav, atol=1e-5)
    assert np.allclose(cleaner.sound(noisy, 0.5).wav, (whole + noisy.wav) / 2, atol=1e-5)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="allowed are 0"):
            cleaner.sound(noisy, wrong)


@pytest.mark.parametrize("section_s", [1.0, 2.5])
def test_sections_give_the_same_samples(cleaner, noisy, section_s):
    whole = cleaner.sound(noisy).wav
    blocks = list(cleaner.clean(noisy, section_s=section_s).blocks())
    assert len(blocks) == -(-len(noisy.wav) // round(section_s * 62.5 // 1 * 256))
    assert np.abs(np.concatenate(blocks) - whole).max() < 1e-4


def test_the_level_is_kept_whatever_it_is(cleaner, noisy):
    whole = cleaner.sound(noisy).wav
    for gain in (0.02, 1.0):
        made = cleaner.sound(Sound(noisy.wav * gain, 16000)).wav
        assert np.allclose(made, whole * gain, atol=2e-3 * gain)


def test_from_python_in_any_shape_and_rate(noisy):
    stereo = np.stack([noisy.wav, noisy.wav], axis=1)
    made = vcae.denoise(stereo, 16000)
    assert made.shape == (len(noisy.wav),)
    assert vcae.denoise(noisy.wav, 32000).shape == (-(-len(noisy.wav) // 2),)
    with pytest.raises(AudioError, match=r"at least 0\.1 s"):
        vcae.denoise(noisy.wav[:1000], 16000)
    with pytest.raises(AudioError, match="silent"):
        vcae.denoise(np.zeros(16000, np.float32), 16000)


def test_files_are_strict(tmp_path):
    path = tmp_path / "own.safetensors"
    network = Denoiser(TINY)
    checkpoint.save_module(path, PART, network, to_dict(TINY), {"author": "a test"})
    found, file = checkpoint.load_module(path, PART, denoiser_of)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), found.parameters(), strict=True))
    assert file.metadata["info"]["author"] == "a test"
    with pytest.raises(CheckpointError, match="holds no denoiser"):
        checkpoint.load_module("vq", PART, denoiser_of)
    with pytest.raises(CheckpointError, match="is a pickle"):
        Cleaner(tmp_path / "x.pt")
    checkpoint.save_module(path, PART, network, to_dict(DenoiserConfig(width=32, n_blocks=2)))
    with pytest.raises(CheckpointError, match="does not fit its own config"):
        Cleaner(path)
    checkpoint.save_module(path, PART, network, to_dict(TINY) | {"width": 10**9})
    with pytest.raises(CheckpointError, match=r"does not know: width is 1000000000"):
        Cleaner(path)
    with torch.no_grad():
        network.input.bias[0] = torch.inf
    checkpoint.save_module(path, PART, network, to_dict(TINY))
    with pytest.raises(CheckpointError, match="not finite"):
        Cleaner(path)


def test_conversion_cleans_both_sides(model, cleaner, noisy):
    reference = read_sound(CLIPS / "reference.flac")
    rough = Sound(reference.wav + 0.05 * np.random.default_rng(0).standard_normal(len(reference.wav)).astype(np.float32), 16000)
    heard, cleaned = voice_from_sounds(model, [rough]), voice_from_sounds(model, [rough], denoise=True)
    wanted = voice_from_sounds(model, [reference])
    cosines = [float((voice.speaker_embedding * wanted.speaker_embedding).sum()) for voice in (heard, cleaned)]
    assert cosines[1] > cosines[0]
    made = convert(model, noisy, wanted, ConvertOptions(denoise=True)).wav
    by_hand = convert(model, cleaner.sound(noisy), wanted).wav
    assert torch.allclose(made, by_hand, atol=1e-4)
    direct = model.convert(noisy.wav, 16000, rough.wav, denoise=True)
    assert torch.allclose(direct, convert(model, noisy, cleaned, ConvertOptions(denoise=True)).wav, atol=1e-4)


def test_the_command(tmp_path, cleaner, noisy):
    out = tmp_path / "new" / "out.flac"
    done = run("denoise", CLIPS / "noisy.flac", "-o", out, "--strength", "0.9", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["strength"], said["checkpoint"], said["output"]) == (0.9, "denoiser", str(out))
    wav, rate = soundfile.read(out, dtype="float32")
    assert rate == 16000
    assert np.allclose(wav, cleaner.sound(noisy, 0.9).wav, atol=1e-4)
    assert read_comment(out).startswith("denoised by vcae")
    again = run("denoise", CLIPS / "noisy.flac", "-o", out)
    assert again.returncode == 2
    assert b"exists; add --force" in again.stderr
    piped = run("denoise", "-", stdin=(CLIPS / "noisy.flac").read_bytes())
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout[:4] == b"RIFF"


def test_a_folder_is_denoised_file_by_file(tmp_path):
    source = tmp_path / "in" / "sub"
    source.mkdir(parents=True)
    (source / "a.flac").write_bytes((CLIPS / "noisy.flac").read_bytes())
    (tmp_path / "in" / "bad.wav").write_bytes(b"no sound")
    done = run("denoise", tmp_path / "in", "--out-dir", tmp_path / "out", "--jobs", "1")
    assert done.returncode == 1
    assert b"1 denoised, 0 skipped, 1 failed of 2" in done.stdout
    assert b"bad.wav" in done.stderr
    assert soundfile.info(tmp_path / "out/sub/a.wav").frames == soundfile.info(CLIPS / "noisy.flac").frames
    again = run("denoise", tmp_path / "in", "--out-dir", tmp_path / "out", "--jobs", "1", "--resume")
    assert b"0 denoised, 1 skipped, 1 failed of 2" in again.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nonesuch.wav"], "nonesuch.wav does not exist"),
        ([CLIPS / "noisy.flac", "--strength", "2"], "strength is 2.0; allowed are 0"),
        (["."], "is a folder; give a folder for the outputs with --out-dir"),
        ([CLIPS / "noisy.flac", "--jobs", "2"], "go with --out-dir"),
        ([ROOT / "README.md"], "README.md"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, args, message):
    done = run("denoise", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert not any(p.suffix == ".wav" for p in tmp_path.iterdir())
