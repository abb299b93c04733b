"""The denoiser: its masks, its memory, its rates and channels, its files; and the shipped one on real noise."""

import dataclasses
import io
import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

import vcae
from tests.conftest import CLIPS, ROOT
from tests.forked import python
from vcae import checkpoint
from vcae.audio.io import Sound, read_comment, read_sound, resample
from vcae.cli.stream import _denoise, _Tally
from vcae.config import to_dict
from vcae.engine.denoise import Cleaner, FullBandDenoiser, RunningDenoiser
from vcae.errors import AudioError, CheckpointError, ConfigError
from vcae.model.config import DenoiserConfig
from vcae.model.denoiser import GAIN_POWER, PART, Denoiser, band_shapes, compress_spectrum, denoiser_of
from vcae.options import ConvertOptions
from vcae.tasks.convert import convert
from vcae.voice.voice import voice_from_sounds

TINY = DenoiserConfig(n_bands=12, n_low=4, channels=4, width=8, n_layers=2, n_past=5, n_lags=6)


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
    return subprocess.run([*python(), "-m", "vcae", *map(str, args)], cwd=cwd, input=stdin, capture_output=True)


def small_network(seed=0):
    torch.manual_seed(seed)
    return Denoiser(TINY).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A cleaner with a small untrained network, which changes what it hears."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    checkpoint.save_module(path, PART, small_network(), to_dict(TINY), {"author": "a test"})
    return Cleaner(path, "cpu")


@dataclasses.dataclass(frozen=True)
class Channels:
    """Samples (N, channels) as a source, in blocks of a length."""

    wav: np.ndarray
    sample_rate: int
    step: int = 50000
    name: str = "a test"

    def channel_blocks(self):
        for at in range(0, len(self.wav), self.step):
            yield self.wav[at : at + self.step]


def everything(cleaned):
    return np.concatenate(list(cleaned.channel_blocks()))


def let_through(network, gain):
    """Make every gain of the compressed spectrum one number, whatever is heard."""
    network.output.weight.zero_()
    network.output.bias.copy_(torch.logit(torch.tensor(gain), eps=1e-7))


@pytest.mark.parametrize("n", [100, 300, 512, 4096, 4097, 4351])
def test_gains_of_one_leave_every_sample_as_it_is(n):
    network, wav = small_network(), 0.1 * torch.randn(2, n)
    let_through(network, 1.0)
    assert network.analyse(wav).shape == (2, 257, 1 + n // 256)
    assert torch.allclose(network(wav), wav, atol=1e-3)
    let_through(network, 0.5)
    assert torch.allclose(network(wav), wav * 0.5 ** (GAIN_POWER / 0.3), atol=1e-3)


def test_bands_are_single_bins_below_and_wider_and_wider_above():
    shapes = band_shapes(DenoiserConfig())
    assert shapes.shape == (80, 256)
    assert torch.allclose(shapes.sum(dim=0), torch.ones(256), atol=1e-3)
    assert torch.allclose(shapes[:31, :31], torch.eye(31), atol=1e-3)
    centres = (shapes * torch.arange(256)).sum(dim=1) / shapes.sum(dim=1)
    gaps = centres.diff()[32:-1]
    assert (gaps.diff() > -0.4).all()
    # In Hz: 31 at the bottom, some 400 at the top.
    assert gaps[-1] * 31.25 == pytest.approx(400, rel=0.1)


def test_the_gain_of_a_band_reaches_its_own_bins_only():
    network = small_network()
    let_through(network, 1.0)
    # Of two neighbouring bands, the lower one is shut.
    network.output.bias[0] = -30.0
    gains, _, _ = network.gains(torch.rand(1, 257, 3))
    open_bands = network.bands[1::2].sum(dim=0)
    assert 0 < (open_bands < 0.01).sum() < 30
    assert torch.allclose(gains[0, :256, 1], open_bands, atol=1e-3)
    assert torch.equal(gains[:, 256], gains[:, 255])


def test_the_level_of_a_recording_reaches_the_network_as_one_number():
    network, spectrum = small_network(), torch.rand(1, 20, 256) + 0.5
    # Far above the floor, and after as many frames as the network looks back.
    quiet, loud = (network.features(spectrum * scale, network.start(1)[0])[0][:, -5:] for scale in (100, 1000))
    assert not torch.allclose(quiet, loud, atol=1e-4)
    network.direct.weight[:, network.config.n_bands] = 0
    quiet, loud = (network.features(spectrum * scale, network.start(1)[0])[0][:, -5:] for scale in (100, 1000))
    assert torch.allclose(quiet, loud, atol=1e-4)


def test_harmonics_are_a_peak_at_the_lag_of_their_period():
    network = Denoiser(DenoiserConfig())
    for hz in (100, 180, 300):
        bins = torch.arange(256) * 31.25
        comb = (torch.cos(2 * torch.pi * bins / hz) > 0.5).float()
        lags_s = torch.logspace(np.log10(0.002), np.log10(0.01375), 48)
        found = float(lags_s[(comb @ network.lags).argmax()])
        assert found == pytest.approx(1 / hz, rel=0.05)


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_pieces_of_any_length_give_the_samples_of_the_whole(strength):
    network, rng = small_network(), np.random.default_rng(0)
    wav = (0.1 * rng.standard_normal((2, 20011))).astype(np.float32)
    full = network(torch.from_numpy(wav)).numpy()
    at_once = RunningDenoiser(network, 2, strength)
    whole = np.concatenate([at_once(wav), at_once.finish()], axis=1)
    # Of what is removed, at least the part that the strength says is left, and at most its square root.
    left = ((whole - full) * (wav - full)).sum() / np.square(wav - full).sum()
    assert 1 - strength - 1e-6 <= left <= (1 - strength) ** 0.5 + 1e-6
    for sizes in ([20011], [1, 700, 33, 256, 4000], [256]):
        running, made, at = RunningDenoiser(network, 2, strength), [], 0
        while at < wav.shape[1]:
            n = sizes[len(made) % len(sizes)]
            made.append(running(wav[:, at : at + n]))
            at += n
        made.append(running.finish())
        assert np.allclose(np.concatenate(made, axis=1), whole, atol=1e-6)
    assert not np.allclose(whole, wav, atol=1e-2)


def test_nothing_after_the_latency_matters_and_all_before_can():
    network, rng = small_network(), np.random.default_rng(1)
    for layer in network.layers:
        # The gates that keep the state, opened as training opens some of them.
        layer.bias_hh_l0[8:16] = 4.0
    wav = (0.1 * rng.standard_normal((1, 32000))).astype(np.float32)
    running = RunningDenoiser(network)
    assert running.latency_ms == 32
    given = [running(wav[:, at : at + 256]).shape[1] for at in range(0, 32000, 256)]
    taken = np.arange(1, len(given) + 1) * 256
    assert (taken - np.cumsum(given)).max() == 256
    early, late = wav.copy(), wav.copy()
    early[:, :4000] = 0
    late[:, 20000:] = 0
    one, before, after = (network(torch.from_numpy(x)).numpy() for x in (wav, early, late))
    # The network's memory: what was long ago is heard still.
    assert not np.allclose(one[:, 16000:], before[:, 16000:], atol=1e-6)
    assert np.array_equal(one[:, : 20000 - 512], after[:, : 20000 - 512])


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels_stay(small, rate, channels):
    rng = np.random.default_rng(2)
    wav = (0.1 * rng.standard_normal((11 * rate + 77, channels))).clip(-1, 1).astype(np.float32)
    cleaned = small.clean(Channels(wav, rate))
    assert (cleaned.sample_rate, cleaned.n_channels) == (rate, channels)
    assert cleaned.duration_s == pytest.approx(11 + 77 / rate)
    made = everything(cleaned)
    assert made.shape == wav.shape
    assert not np.allclose(made, wav, atol=1e-2)
    assert np.array_equal(made, everything(cleaned))
    assert np.allclose(everything(small.clean(Channels(wav, rate), 0.0)), wav, atol=1e-6)
    if channels == 2:
        one = everything(small.clean(Channels(wav[:, :1], rate)))
        assert np.allclose(made[:, :1], one, atol=1e-5)


def test_the_band_above_follows_the_band_below():
    network, rate = small_network(), 48000
    time = np.arange(rate) / rate
    high = 0.1 * np.sin(2 * np.pi * 12000 * time)
    below = 0.1 * np.sin(2 * np.pi * 6000 * time)
    wav = (high + below).astype(np.float32)[:, None]
    for left in (1.0, 0.3):
        let_through(network, left ** (0.3 / GAIN_POWER))
        made = np.concatenate([*_run_band(network, rate, wav)])[rate // 4 : -rate // 4, 0]
        spectrum = np.abs(np.fft.rfft(made)) / len(made) * 2
        bins = [round(hz * len(made) / rate) for hz in (6000, 12000)]
        assert spectrum[bins] == pytest.approx([0.1 * left] * 2, rel=0.03)


def _run_band(network, rate, wav):
    band = FullBandDenoiser(network, rate, 1, 1.0)
    for at in range(0, len(wav), 7000):
        yield band(wav[at : at + 7000].T, last=at + 7000 >= len(wav)).T


def test_compression_keeps_phases_and_squeezes_magnitudes():
    spectrum = torch.tensor([3 + 4j, -0.5j, 0j])
    made = compress_spectrum(spectrum)
    assert torch.allclose(made.abs(), torch.tensor([5**0.3, 0.5**0.3, 0.0]), atol=1e-3)
    assert torch.allclose(made[:2].angle(), spectrum[:2].angle(), atol=1e-6)


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
    # The louder the noise the more of it is left, but never more than all.
    left = [np.dot(cleaner.sound(noisy, strength).wav - whole, noisy.wav - whole) for strength in (0.0, 0.5, 0.9, 0.95, 1.0)]
    assert np.all(np.diff(left) < 0)
    assert 0.5 <= left[1] / left[0] < 0.6
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="allowed are 0"):
            cleaner.sound(noisy, wrong)


def test_whole_streamed_and_from_the_end_of_a_pipe_agree(cleaner, noisy):
    whole, running = cleaner.sound(noisy).wav, cleaner.running()
    pieces = [running(noisy.wav[None, at : at + 1280]) for at in range(0, len(noisy.wav), 1280)]
    made = np.concatenate([*pieces, running.finish()], axis=1)[0]
    assert np.abs(made - whole).max() < 1e-4


def test_a_recording_outside_of_the_levels_it_knows_is_brought_there(small, noisy):
    whole = small.sound(noisy).wav
    quiet, quieter = (small.sound(Sound(noisy.wav * gain, 16000)).wav for gain in (1e-2, 2e-3))
    assert np.allclose(quieter, 0.2 * quiet, atol=1e-6)
    assert not np.allclose(quiet, 1e-2 * whole, atol=1e-5)


def test_from_python_in_any_shape_and_rate(noisy, tmp_path):
    made = vcae.denoise(noisy.wav, 16000)
    assert made.comment.startswith("denoised by vcae")
    stereo = np.stack([noisy.wav, 0.5 * noisy.wav], axis=1)
    both = vcae.denoise(stereo, 16000)
    assert both.shape == stereo.shape
    assert np.allclose(both.wav[:, 0], made.wav, atol=1e-5)
    assert np.allclose(both.wav[:, 1], vcae.denoise(0.5 * noisy.wav, 16000).wav, atol=1e-5)
    assert np.array_equal(vcae.denoise(torch.from_numpy(stereo.T.copy()), 16000).wav, both.wav)
    assert np.allclose(vcae.denoise(both, strength=0).wav, both.wav, atol=1e-6)
    both.save(tmp_path / "both.wav")
    again = vcae.denoise(tmp_path / "both.wav", strength=0)
    assert np.allclose(again.wav, both.wav, atol=1e-4)
    assert np.allclose(np.concatenate(list(both.blocks())), both.wav.mean(axis=1))
    assert np.array_equal(vcae.denoise(noisy).wav, made.wav)
    assert np.allclose(vcae.denoise(CLIPS / "noisy.flac").wav, made.wav, atol=1e-6)
    wide = vcae.denoise(noisy.wav, 48000)
    assert (len(wide.wav), wide.sample_rate) == (len(noisy.wav), 48000)
    with pytest.raises(AudioError, match=r"at least 0\.1 s"):
        vcae.denoise(noisy.wav[:1000], 16000)
    with pytest.raises(AudioError, match="silent"):
        vcae.denoise(np.zeros(16000, np.float32), 16000)
    with pytest.raises(AudioError, match="NaN or infinite"):
        vcae.denoise(np.full(16000, np.nan, np.float32), 16000)


def test_opposite_phases_are_not_silent(small, noisy):
    made = everything(small.clean(Channels(np.stack([noisy.wav, -noisy.wav], axis=1), 16000)))
    assert np.abs(made).max() > 0.01


def test_what_vcae_stream_hears_is_cleaned_piece_by_piece(small, noisy):
    tally = _Tally()
    pieces = (noisy.wav[at : at + 1300] for at in range(0, len(noisy.wav), 1300))
    made = np.concatenate(list(_denoise(pieces, small.live(16000), tally)))
    assert np.allclose(made, small.sound(noisy).wav, atol=1e-5)
    assert tally.work_s > 0


def test_live_denoising_includes_what_is_above_the_networks_band(cleaner, noisy):
    wide = resample(noisy.wav[:48000], 16000, 48000)
    hiss = np.random.default_rng(0).normal(0, 0.01, len(wide)).astype(np.float32)
    wide += hiss
    made = []
    for step in (3840, 1000):
        denoiser, tally = cleaner.live(48000), _Tally()
        made.append(np.concatenate(list(_denoise((wide[at : at + step] for at in range(0, len(wide), step)), denoiser, tally))))
    assert [len(x) for x in made] == [len(wide)] * 2
    assert np.abs(made[0] - made[1]).max() < 1e-5
    before, after, whole = (
        np.square(np.abs(np.fft.rfft(x)))[30000:60000].sum() for x in (wide, made[0], cleaner.sound(Sound(wide, 48000)).wav)
    )
    assert after < 0.3 * before
    assert after == pytest.approx(whole, rel=0.15)
    assert 32 < denoiser.latency_ms < 37


@pytest.mark.slow
def test_stream_with_denoise(noisy):
    sent = io.BytesIO()
    soundfile.write(sent, noisy.wav, 16000, format="WAV")
    done = run("stream", "-s", CLIPS / "reference.flac", "--denoise", stdin=sent.getvalue())
    assert done.returncode == 0, done.stderr
    assert b"latency 256 ms" in done.stderr
    made = np.frombuffer(done.stdout[44:], np.int16)
    assert len(made) == len(noisy.wav)
    assert np.abs(made).max() > 1000


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
    checkpoint.save_module(path, PART, network, to_dict(replace(TINY, width=16)))
    with pytest.raises(CheckpointError, match="does not fit its own config"):
        Cleaner(path)
    checkpoint.save_module(path, PART, network, to_dict(TINY) | {"width": 10**9})
    with pytest.raises(CheckpointError, match=r"does not know: width is 1000000000"):
        Cleaner(path)
    with torch.no_grad():
        network.direct.bias[0] = torch.inf
    checkpoint.save_module(path, PART, network, to_dict(TINY))
    with pytest.raises(CheckpointError, match="not finite"):
        Cleaner(path)


def test_conversion_cleans_both_sides(model, cleaner, noisy):
    reference = read_sound(CLIPS / "reference.flac")
    rough = Sound(reference.wav + 0.05 * np.random.default_rng(0).standard_normal(len(reference.wav)).astype(np.float32), 16000)
    heard, cleaned = voice_from_sounds(model, [rough], denoise=False), voice_from_sounds(model, [rough], denoise=True)
    wanted = voice_from_sounds(model, [reference])
    cosines = [float((voice.speaker_embedding * wanted.speaker_embedding).sum()) for voice in (heard, cleaned)]
    assert cosines[1] > cosines[0]
    made = convert(model, noisy, wanted, ConvertOptions(denoise=True)).wav
    by_hand = convert(model, Sound(cleaner.sound(noisy).wav, 16000), wanted, ConvertOptions(denoise=False)).wav
    assert torch.allclose(made, by_hand, atol=1e-4)
    direct = model.convert(noisy.wav, 16000, rough.wav, denoise=True)
    assert torch.allclose(direct, convert(model, noisy, cleaned, ConvertOptions(denoise=True)).wav, atol=1e-4)


def test_a_noisy_source_is_denoised_unless_told_otherwise(model):
    clean = read_sound(CLIPS / "source.flac")
    noise = 0.5 * float(np.std(clean.wav)) * np.random.default_rng(0).standard_normal(len(clean.wav))
    voice = voice_from_sounds(model, [read_sound(CLIPS / "reference.flac")])
    for source, wanted in ((replace(clean, wav=clean.wav + noise.astype(np.float32)), True), (clean, False)):
        made = {choice: convert(model, source, voice, ConvertOptions(denoise=choice)) for choice in (True, False, "auto")}
        assert [made[choice].denoised for choice in (True, False, "auto")] == [True, False, wanted]
        assert torch.equal(made["auto"].wav, made[wanted].wav)
        assert not torch.allclose(made[True].wav, made[False].wav, atol=1e-3)
    with pytest.raises(ConfigError, match="denoise is 'much'; allowed are True, False and auto"):
        ConvertOptions(denoise="much")


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
    wide = tmp_path / "wide.wav"
    soundfile.write(wide, np.stack([noisy.wav, 0.5 * noisy.wav], axis=1), 48000)
    done = run("denoise", wide, "-o", tmp_path / "clean.wav")
    assert done.returncode == 0, done.stderr
    info = soundfile.info(tmp_path / "clean.wav")
    assert (info.samplerate, info.channels, info.frames) == (48000, 2, len(noisy.wav))
    soundfile.write(wide, np.stack([noisy.wav, -noisy.wav], axis=1), 16000)
    done = run("denoise", wide, "-o", tmp_path / "clean.m4a")
    assert done.returncode == 0, done.stderr
    assert np.abs(read_sound(tmp_path / "clean.m4a").wav).max() > 0.1
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
