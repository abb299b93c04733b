import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import CLIPS, ROOT
from tests.forked import python
from vcae import checkpoint
from vcae.audio.config import MelConfig
from vcae.audio.mel import LogMel
from vcae.config import from_dict, load_config, to_dict
from vcae.errors import CheckpointError, ConfigError, DataError
from vcae.training.cache import prepare_cache, read_manifest
from vcae.training.config import AutoencoderRecipe, DataConfig, PerturbConfig, TrainConfig, VocoderRecipe
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.draws import Draws
from vcae.training.losses import MultiResolutionLoss
from vcae.training.objectives import AutoencoderObjective, VocoderObjective, _reverse_gradient, contrast, move_f0
from vcae.training.perturb import Perturbation
from vcae.training.trainer import Trainer, learning_rate
from vcae.vocoder.config import VocoderConfig
from vcae.vocoder.neural import HarmonicNoiseVocoder


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """Accelerate keeps one precision a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    prepare_cache(read_manifest(CLIPS / "manifest.csv"), folder, (1.0, 1.2))
    return folder


def _recipe(cls, name, cache, output, **train):
    recipe = load_config(cls, ROOT / f"recipes/{name}/conf/debug.yaml")
    changes = {"data": {"cache": str(cache), "validation_cache": str(cache)}, "train": {"output_dir": str(output), **train}}
    merged = to_dict(recipe)
    for section, values in changes.items():
        merged[section] |= values
    return from_dict(cls, merged)


def _trainer(recipe):
    make = AutoencoderObjective if isinstance(recipe, AutoencoderRecipe) else VocoderObjective

    def build(n):
        return make(recipe, n) if make is AutoencoderObjective else make(recipe)

    def save(objective, path, step):
        part = "autoencoder" if make is AutoencoderObjective else "vocoder"
        checkpoint.save(path, **{part: objective.model}, info={"step": step})

    return Trainer(build, recipe.data, recipe.train, to_dict(recipe), save)


def test_cache_holds_the_audio_and_f0(cache, speech):
    opened = SpeechCache(cache)
    assert opened.speakers == sorted(f"vctk/{s}{v}" for s in ("p225", "p226", "p228") for v in ("", "@1.2"))
    utterance = opened.by_speaker[opened.speakers.index("vctk/p226")][0]
    wav, f0 = opened.crop(utterance, 100, 50)
    assert wav.shape == (12800,)
    assert f0.shape == (51,)
    original = speech[25600:38400]
    assert np.corrcoef(wav, original)[0, 1] > 0.9999
    faster = opened.by_speaker[opened.speakers.index("vctk/p226@1.2")][0]
    assert faster.n_samples == pytest.approx(utterance.n_samples / 1.2, abs=256)
    medians = [np.median(f[f > 0]) for f in (opened.crop(u, 0, u.n_samples // 256)[1] for u in (utterance, faster))]
    assert medians[1] / medians[0] == pytest.approx(1.2, rel=0.05)


def test_cache_leaves_out_what_it_cannot_use(tmp_path):
    (tmp_path / "bad.wav").write_text("no sound")
    (tmp_path / "m.csv").write_text(f"path,speaker\nbad.wav,a\n{CLIPS / 'source.flac'},b\n")
    index = json.loads(prepare_cache(read_manifest(tmp_path / "m.csv"), tmp_path / "c").read_text())
    assert len(index["utterances"]) == 1
    assert "not a sound file" in index["failed"][0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,speaker\na,b\n", "no column 'path'"),
        ("path,speaker,split\na,b,dev\n", r"no row of split 'train'; it has \['dev'\]"),
        (None, "does not exist"),
    ],
)
def test_bad_manifests(tmp_path, text, message):
    if text is not None:
        (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path / "m.csv", "train")


def test_missing_cache(tmp_path):
    with pytest.raises(DataError, match=r"no prepared cache in .*prepare/cache.py"):
        SpeechCache(tmp_path)


def test_batches_are_functions_of_seed_and_index_and_balanced(cache):
    config = DataConfig(crop_s=0.8, reference_s=0.5, batch_size=60)
    dataset = CropDataset(SpeechCache(cache), config, 3)
    a, b, c = dataset[5], dataset[5], dataset[6]
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["wav"], c["wav"])
    assert a["wav"].shape == (60, 12800)
    assert a["f0"].shape == (60, 51)
    counts = torch.bincount(torch.cat([dataset[i]["speaker"] for i in range(20)]), minlength=6)
    assert (counts > 140).all()


def test_corpus_weights_can_silence_everything(cache):
    with pytest.raises(DataError, match=r"leaves no speaker; .*\['vctk'\]"):
        CropDataset(SpeechCache(cache), DataConfig(corpus_weights={"vctk": 0.0}), 0)


def test_perturbation_is_seeded_changes_and_can_be_off(speech):
    mel = LogMel(MelConfig())(torch.from_numpy(speech[:32000])[None]).repeat(4, 1, 1)
    perturb = Perturbation(PerturbConfig(), MelConfig())
    a, b = (perturb(mel, Draws(1)) for _ in range(2))
    assert torch.equal(a, b)
    assert (a - mel).abs().mean() > 0.2
    assert not torch.allclose(a[0], a[1])
    off = PerturbConfig(warp=0.0, tilt_db=0.0, gain_db=0.0, noise_db=300.0, mask_probability=0.0)
    assert torch.allclose(Perturbation(off, MelConfig())(mel, Draws(0)), mel, atol=1e-3)


def test_warp_moves_a_tone(tone):
    mel = LogMel(MelConfig())(torch.from_numpy(tone(1000.0))[None])
    warped = Perturbation(PerturbConfig(), MelConfig())._warp(mel, torch.tensor([1.25]))
    expected = LogMel(MelConfig())(torch.from_numpy(tone(800.0))[None])
    assert abs(int(warped[0, :, 30].argmax()) - int(expected[0, :, 30].argmax())) <= 1


def test_loss_is_zero_for_a_copy_and_grows_with_damage(speech):
    criterion = MultiResolutionLoss(16000)
    wav = torch.from_numpy(speech[:16000])[None]
    assert criterion(wav, wav)["loss"].item() == pytest.approx(0.0, abs=1e-5)
    small, large = (criterion(wav + s * torch.randn_like(wav), wav)["loss"] for s in (0.01, 0.1))
    assert 0.1 < small < large


def test_reversed_gradient():
    x = torch.tensor([2.0], requires_grad=True)
    (_reverse_gradient(x) * 3).sum().backward()
    assert x.grad.item() == -3.0


def test_adversary_pulls_encoder_and_classifier_apart(cache, tmp_path):
    recipe = _recipe(AutoencoderRecipe, "autoencoder", cache, tmp_path)
    objective = AutoencoderObjective(recipe, 6).train()
    batch = CropDataset(SpeechCache(cache), recipe.data, 0)[0]
    objective(batch)["adversary"].backward()
    encoder = [p.grad for p in objective.model.content_encoder.parameters()]
    assert any(g is not None and g.abs().sum() > 0 for g in encoder)
    assert all(p.grad is None for p in objective.model.decoder.parameters())


def _autoencoder_recipe(cache, output, **changes):
    merged = to_dict(_recipe(AutoencoderRecipe, "autoencoder", cache, output))
    return from_dict(AutoencoderRecipe, merged | changes)


def test_conversion_loss_trains_the_decoder_alone(cache, tmp_path):
    recipe = _autoencoder_recipe(cache, tmp_path, conversion_weight=0.1)
    objective = AutoencoderObjective(recipe, 6).train()
    batch = CropDataset(SpeechCache(cache), recipe.data, 0)[0]
    objective(batch)["conversion"].backward()
    reached = {name.split(".")[0] for name, p in objective.model.named_parameters() if p.grad is not None}
    assert reached == {"decoder"}
    assert objective.speaker_classifier.weight.grad is None
    with pytest.raises(ConfigError, match="conversion_weight needs a speaker classifier"):
        AutoencoderObjective(_autoencoder_recipe(cache, tmp_path, conversion_weight=0.1, speaker_weight=0.0), 6)


def test_contrast_is_low_when_moments_are_told_apart():
    code = 3 * torch.randn(2, 12, 40)
    assert contrast(code, code + 0.1 * torch.randn_like(code)).item() < 0.05
    assert contrast(code, code.roll(5, dims=-1)).item() > 5
    assert contrast(torch.zeros(2, 12, 40), torch.zeros(2, 12, 40)).item() == pytest.approx(math.log(40))


def test_contrast_reaches_the_content_encoder(cache, tmp_path):
    recipe = _autoencoder_recipe(cache, tmp_path, contrast_weight=0.5)
    objective = AutoencoderObjective(recipe, 6).train()
    batch = CropDataset(SpeechCache(cache), recipe.data, 0)[0]
    losses = objective(batch)
    losses["contrast"].backward()
    reached = {name.split(".")[0] for name, p in objective.model.named_parameters() if p.grad is not None}
    assert reached == {"content_encoder"}
    without = AutoencoderObjective(_autoencoder_recipe(cache, tmp_path), 6)
    assert "contrast" not in without.train()(batch)


def test_f0_moves_to_the_others_mean_and_silence_stays():
    f0 = torch.tensor([[100.0, 0.0, 121.0], [0.0, 0.0, 0.0], [200.0, 200.0, 0.0]])
    moved = move_f0(f0, torch.tensor([[200.0, 242.0], [150.0, 0.0], [0.0, 0.0]]))
    assert torch.allclose(moved[0], torch.tensor([200.0, 0.0, 242.0]))
    assert torch.equal(moved[1:], f0[1:])


def test_autoencoder_goes_on_from_a_checkpoint_and_trains_what_it_is_told(cache, tmp_path, tiny_vocoder):
    first = AutoencoderObjective(_autoencoder_recipe(cache, tmp_path), 6).model
    first.mel_mean.fill_(-4.5)
    checkpoint.save(tmp_path / "first.safetensors", autoencoder=first)
    torch.manual_seed(1)
    initial = str(tmp_path / "first.safetensors")
    objective = AutoencoderObjective(_autoencoder_recipe(cache, tmp_path, initial=initial, trained="decoder"), 6)
    batches = CropDataset(SpeechCache(cache), objective.recipe.data, 0)
    objective.initialize([batches[0]])
    for name, value in first.state_dict().items():
        assert torch.equal(value, objective.model.state_dict()[name]), name
    trained = {name.split(".")[0] for name, p in objective.model.named_parameters() if p.requires_grad}
    assert trained == {"decoder"}
    checkpoint.save(tmp_path / "v.safetensors", vocoder=tiny_vocoder)
    with pytest.raises(CheckpointError, match=r"v.safetensors has no autoencoder"):
        AutoencoderObjective(_autoencoder_recipe(cache, tmp_path, initial=str(tmp_path / "v.safetensors")), 6)
    model = to_dict(objective.recipe.model)
    other = model | {"content": model["content"] | {"latent_dim": 9, "latent_noise": 0.7}}
    with pytest.raises(CheckpointError, match=r"first.safetensors .*: content.latent_dim 12 instead of 9;"):
        AutoencoderObjective(_autoencoder_recipe(cache, tmp_path, initial=initial, model=other), 6)
    with pytest.raises(ConfigError, match="trained is 'encoder'; allowed are all, decoder"):
        _autoencoder_recipe(cache, tmp_path, trained="encoder")


def test_learning_rate_schedule():
    config = TrainConfig(max_steps=100, warmup_steps=10, learning_rate=1.0)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 10) == pytest.approx(1.0)
    assert learning_rate(config, 55) == pytest.approx(0.505)
    assert learning_rate(config, 100) == pytest.approx(0.01)


@pytest.mark.parametrize(("cls", "name"), [(AutoencoderRecipe, "autoencoder"), (VocoderRecipe, "vocoder")])
def test_resume_is_exact(cache, tmp_path, cls, name):
    """Twenty steps equal ten, a stop, and ten more, bit for bit."""
    settings = {"max_steps": 20, "validate_every": 10, "save_every": 10}
    _trainer(_recipe(cls, name, cache, tmp_path / "whole", **settings)).run()
    _trainer(_recipe(cls, name, cache, tmp_path / "parts", **settings)).run(until=10)
    resumed = _trainer(_recipe(cls, name, cache, tmp_path / "parts", **settings))
    assert resumed.step == 10
    assert resumed.run()
    whole, parts = (load_file(tmp_path / x / "state.safetensors") for x in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert sum("exp_avg" in k for k in whole) > 10
    with safe_open(tmp_path / "parts/state.safetensors", "pt") as opened:
        facts = json.loads(opened.metadata()["vcae_state"])
    assert facts["git_commit"]
    assert facts["step"] == 20
    assert facts["config"]["train"]["max_steps"] == 20
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key
    assert (tmp_path / "whole/last.safetensors").read_bytes() == (tmp_path / "parts/last.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts/log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert list((tmp_path / "parts/tensorboard").iterdir())


def _vocoder_recipe(cache, output, **changes):
    merged = to_dict(_recipe(VocoderRecipe, "vocoder", cache, output))
    return from_dict(VocoderRecipe, merged | changes)


def test_vocoder_starts_from_a_checkpoint(cache, tmp_path):
    start = _vocoder_recipe(cache, tmp_path)
    first = VocoderObjective(start).model
    checkpoint.save(tmp_path / "first.safetensors", vocoder=first)
    torch.manual_seed(1)
    second = VocoderObjective(_vocoder_recipe(cache, tmp_path, initial=str(tmp_path / "first.safetensors"))).model
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_vocoder_without_subframes_starts_one_with_them(cache, tmp_path, speech):
    """Its subframes all do what its frames did, so the sound stays nearly the same."""
    recipe = _vocoder_recipe(cache, tmp_path)
    wav = torch.from_numpy(speech[:32000])[None]
    mel, f0 = LogMel(MelConfig())(wav), torch.full((1, 126), 120.0)
    single = HarmonicNoiseVocoder(from_dict(VocoderConfig, to_dict(recipe)["model"] | {"subframes": 1}))
    torch.nn.init.normal_(single.output.bias, std=0.5)
    checkpoint.save(tmp_path / "single.safetensors", vocoder=single)
    double = VocoderObjective(_vocoder_recipe(cache, tmp_path, initial=str(tmp_path / "single.safetensors"))).model
    assert double.config.subframes == 2
    with torch.no_grad():
        parts = [v.predict(mel, f0.log(), torch.ones_like(f0)) for v in (single, double)]
    for one, two in zip(*parts, strict=True):
        assert torch.allclose(two[..., ::2], one[:, ::2], atol=1e-5)
        assert torch.equal(two[..., ::2], two[..., 1::2])


def test_vocoder_refuses_to_start_from_another_shape(cache, tmp_path):
    other = to_dict(_vocoder_recipe(cache, tmp_path))["model"] | {"width": 24}
    checkpoint.save(tmp_path / "other.safetensors", vocoder=HarmonicNoiseVocoder(from_dict(VocoderConfig, other)))
    with pytest.raises(CheckpointError, match=r"other.safetensors.*width.*24"):
        VocoderObjective(_vocoder_recipe(cache, tmp_path, initial=str(tmp_path / "other.safetensors")))


@pytest.mark.parametrize(
    ("cls", "objective"), [(VocoderRecipe, VocoderObjective), (AutoencoderRecipe, lambda r: AutoencoderObjective(r, 3))]
)
def test_a_hop_other_than_the_caches_is_refused(cls, objective):
    with pytest.raises(ConfigError, match=r"mel.hop_length is 128; the cache has F0 every 256"):
        objective(from_dict(cls, {"model": {"mel": {"hop_length": 128}}}))


def test_vocoder_refuses_checkpoints_without_the_part_it_needs(cache, tmp_path, tiny_autoencoder, tiny_vocoder):
    checkpoint.save(tmp_path / "a.safetensors", autoencoder=tiny_autoencoder)
    checkpoint.save(tmp_path / "v.safetensors", vocoder=tiny_vocoder)
    with pytest.raises(CheckpointError, match=r"a.safetensors has no vocoder"):
        VocoderObjective(_vocoder_recipe(cache, tmp_path, initial=str(tmp_path / "a.safetensors")))
    with pytest.raises(CheckpointError, match=r"v.safetensors has no autoencoder"):
        VocoderObjective(_vocoder_recipe(cache, tmp_path, decoded_by=str(tmp_path / "v.safetensors")))


def test_decoded_mels_replace_their_share_of_the_batch(cache, tmp_path, tiny_checkpoint):
    data = to_dict(_vocoder_recipe(cache, tmp_path))["data"] | {"reference_s": 0.8}
    recipe = _vocoder_recipe(cache, tmp_path, decoded_by=str(tiny_checkpoint), decoded_share=0.5, data=data)
    objective = VocoderObjective(recipe).train()
    batch = CropDataset(SpeechCache(cache), recipe.data, 0)[0]
    mel = objective.log_mel(batch["wav"])
    seen = objective.decode(mel, batch["f0"], batch["reference"])
    assert torch.equal(seen[2:], mel[2:])
    assert (seen[:2] - mel[:2]).abs().mean() > 0.1
    objective(batch)["loss"].backward()
    # The autoencoder is neither trained nor saved.
    assert {name.split(".")[0] for name, _ in objective.named_parameters()} == {"model"}
    assert all(p.grad is not None for p in objective.model.parameters())


def test_state_of_another_config_is_refused(cache, tmp_path):
    _trainer(_recipe(VocoderRecipe, "vocoder", cache, tmp_path, max_steps=2)).run()
    other = _recipe(VocoderRecipe, "vocoder", cache, tmp_path, max_steps=2)
    merged = to_dict(other)
    merged["model"]["width"] = 24
    with pytest.raises(CheckpointError, match=r"cannot be resumed from .*another output_dir"):
        _trainer(from_dict(VocoderRecipe, merged))


def test_a_tiny_autoencoder_overfits_four_tones(tmp_path):
    import soundfile

    t = np.arange(24000) / 16000
    lines = ["path,speaker"]
    for n, hz in enumerate((110, 160, 230, 330)):
        wav = sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t + n))
        soundfile.write(tmp_path / f"{n}.wav", wav * 0.05, 16000)
        lines.append(f"{n}.wav,{n}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    prepare_cache(read_manifest(tmp_path / "m.csv"), tmp_path / "cache")
    settings = {"max_steps": 150, "learning_rate": 5e-3, "precision": "no", "validate_every": 150, "save_every": 150}
    recipe = _recipe(AutoencoderRecipe, "autoencoder", tmp_path / "cache", tmp_path / "run", **settings)
    losses = []
    _trainer(recipe).run(on_step=lambda step, values: losses.append(values["mel"]))
    assert np.mean(losses[:5]) > 0.6
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])


def _command(name, cache, output, *more):
    settings = [f"data.cache={cache}", f"data.validation_cache={cache}", f"train.output_dir={output}", *more]
    return [str(ROOT / f"recipes/{name}/train.py"), str(ROOT / f"recipes/{name}/conf/debug.yaml"), *settings]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["autoencoder", "vocoder", "discovery"])
def test_debug_recipe_runs_and_its_checkpoint_works(cache, tmp_path, name, speech):
    start = time.monotonic()
    done = subprocess.run([*python(), *_command(name, cache, tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 60
    loaded = checkpoint.load(tmp_path / "run/best.safetensors")
    assert (loaded.vocoder if name == "vocoder" else loaded.autoencoder) is not None
    records = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert all(math.isfinite(v) for r in records for v in r.values())


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_saves_and_says_how_to_go_on(cache, tmp_path, number, code):
    command = [sys.executable, *_command("vocoder", cache, tmp_path / "run", "train.max_steps=100000", "train.log_every=1")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run/log.jsonl"
    deadline = time.monotonic() + 90
    while not (log.exists() and log.read_text().count("\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "stopped and saved at step" in said
    assert "run the same command" in said
    assert (tmp_path / "run/state.safetensors").exists()
    assert not list(tmp_path.rglob("*.part"))


def test_a_mistake_in_a_recipe_is_one_line(tmp_path):
    command = [*python(), *_command("vocoder", tmp_path, tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no prepared cache in" in done.stderr
    assert "Traceback" not in done.stderr
