"""Training the codec: what learns, what it counts, and the way to a file that compresses."""

import json
import subprocess

import pytest
import torch

from tests.conftest import CLIPS, ROOT
from tests.forked import python
from vcae.audio.io import read_sound
from vcae.codec import files
from vcae.codec.codec import Codec
from vcae.codec.config import CodecConfig, PolishConfig
from vcae.codec.polish import MelCritic, Polish
from vcae.config import from_dict, load_config, to_dict
from vcae.errors import CheckpointError
from vcae.training.cache import prepare_cache, read_manifest
from vcae.training.codec import CodecObjective, base_autoencoder
from vcae.training.config import CodecRecipe, PolishRecipe
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.polish import PolishObjective


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    prepare_cache(read_manifest(CLIPS / "manifest.csv"), folder)
    return folder


def _recipe(cls, name, cache):
    values = to_dict(load_config(cls, ROOT / f"recipes/codec/conf/{name}.yaml"))
    values["data"] |= {"cache": str(cache), "validation_cache": str(cache), "batch_size": 2, "crop_s": 1.0, "reference_s": 1.0}
    return from_dict(cls, values)


def _run(script, *settings):
    command = [*python(), str(ROOT / "recipes/codec" / script), *map(str, settings)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_every_part_of_the_codec_learns_and_the_base_does_not(cache):
    recipe = _recipe(CodecRecipe, "debug", cache)
    objective = CodecObjective(recipe).train()
    batch = CropDataset(SpeechCache(cache), recipe.data, 0)[0]
    optimizer = torch.optim.Adam(objective.parameters(), 5e-3)
    before = {name: value.clone() for name, value in objective._base[0].state_dict().items()}
    seen = []
    for _ in range(12):
        losses = objective(batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        # The decoder's last layer starts at zero, so what lies before it learns from the second step on.
        optimizer.step()
        seen.append({key: float(value.detach()) for key, value in losses.items()})
    assert all(p.grad is not None and bool(p.grad.any()) for p in objective.parameters())
    assert seen[-1]["loss"] < seen[0]["loss"]
    assert seen[-1]["codes_kbps"] < seen[0]["codes_kbps"]
    assert all(torch.equal(before[name], value) for name, value in objective._base[0].state_dict().items())


def test_a_better_quality_weighs_errors_more(cache):
    recipe = _recipe(CodecRecipe, "debug", cache)
    objective = CodecObjective(recipe).eval()
    with torch.no_grad():
        steps = objective.model.enhancement.log_steps(torch.tensor([0.0, 1.0]))
    assert bool((steps[0] > steps[1]).all())
    mel = torch.randn(2, 80, 40) - 4
    quiet = mel.clone()
    # An error of 1 dB in the quietest band of all counts less than in the loudest.
    low, high = (mel[0].flatten().argsort()[k] for k in (0, -1))
    mel[0].view(-1)[low] -= 12
    one, other = mel.clone(), mel.clone()
    one[0].view(-1)[low] += 0.1
    other[0].view(-1)[high] -= 0.1
    assert float(objective._error(one, mel)[0]) < 0.5 * float(objective._error(other, mel)[0])
    assert float(objective._error(quiet, quiet).sum()) == 0


def test_the_critic_tells_and_the_polish_learns(cache):
    recipe = _recipe(PolishRecipe, "polish", cache)
    recipe = from_dict(PolishRecipe, to_dict(recipe) | {"model": {"width": 16, "n_blocks": 1}, "critic_channels": 4})
    objective = PolishObjective(recipe).train()
    batch = CropDataset(SpeechCache(cache), recipe.data, 0)[0]
    optimizer = torch.optim.Adam(objective.parameters(), 2e-3)
    told = []
    for _ in range(15):
        losses = objective(batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        told.append(float(losses["critic"].detach()))
    assert told[-1] < told[0]
    assert all(p.grad is not None for p in objective.parameters())
    # The maker's losses must not teach the critic, nor the critic's the maker.
    objective.zero_grad()
    losses = objective(batch)
    (losses["distance"] + losses["features"] + losses["adversarial"]).backward()
    assert all(p.grad is None or not p.grad.any() for p in objective.critic.parameters())
    objective.zero_grad()
    objective(batch)["critic"].backward()
    assert all(p.grad is None or not p.grad.any() for p in objective.model.parameters())


def test_polish_starts_as_nothing_and_has_the_reach_it_says():
    polish = Polish(PolishConfig(width=16, n_blocks=2), 80, 8).eval()
    base, voice = torch.randn(1, 80, 60), torch.randn(1, 8)
    assert torch.equal(polish(base, voice), base)
    torch.nn.init.normal_(polish.output.weight)
    changed = base.clone()
    changed[..., 40:] += 1
    same = (polish(base, voice) - polish(changed, voice)).abs().amax(dim=(0, 1))[: 40 - polish.reach]
    assert float(same.max()) < 1e-5
    maps = MelCritic(4)(base, base)
    assert [m.dim() for m in maps] == [4] * 4
    assert maps[-1].shape[1] == 1


@pytest.mark.slow
def test_from_the_recipe_to_a_file_that_compresses(cache, tmp_path):
    data = [f"data.cache={cache}", f"data.validation_cache={cache}"]
    done = _run("train.py", ROOT / "recipes/codec/conf/debug.yaml", *data, f"train.output_dir={tmp_path / 'codec'}")
    assert done.returncode == 0, done.stderr
    short = ["train.max_steps=2", "train.warmup_steps=1", "train.validation_batches=1", "data.batch_size=2", "data.crop_s=1.0"]
    small = ["model.width=16", "model.n_blocks=1", "critic_channels=4"]
    done = _run(
        "polish.py", ROOT / "recipes/codec/conf/polish.yaml", *data, *short, *small, f"train.output_dir={tmp_path / 'polish'}"
    )
    assert done.returncode == 0, done.stderr
    logged = [json.loads(line) for line in (tmp_path / "codec/log.jsonl").read_text().splitlines()]
    assert {"rate_kbps", "error_db2", "codes_kbps"} <= set(logged[0])
    output = tmp_path / "own.safetensors"
    settings = [f"networks={tmp_path / 'codec/last.safetensors'}", f"polish={tmp_path / 'polish/last.safetensors'}"]
    settings += [
        f"cache={cache}",
        f"output={output}",
        "speaker_bytes=4",
        "timbre_bytes=2",
        "utterances=2",
        "timbre_utterances=3",
    ]
    done = _run("release.py", ROOT / "recipes/codec/conf/release.yaml", *settings)
    assert done.returncode == 0, done.stderr
    codec, sound = Codec(output, "cpu"), read_sound(CLIPS / "source.flac")
    assert codec.file.polish is not None
    rates = codec.file.rates[1:]
    assert bool((rates[1:] >= rates[:-1] - 1e-6).all())
    for kbps in (0.6, 6):
        back = codec.decompress(codec.compress(sound, kbps))
        assert len(back.sound.wav) == len(sound.wav)
        assert back.damage == ()
    broken = _run("release.py", ROOT / "recipes/codec/conf/release.yaml", f"networks={output}", f"cache={cache}")
    assert broken.returncode != 0
    assert "holds no codec in training" in broken.stderr


def test_files_of_other_kinds_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="needs two codes per step and a speaker encoder"):
        base_autoencoder("default")
    polish = Polish(PolishConfig(width=8, n_blocks=1), 80, 4)
    files.save_polish(tmp_path / "p.safetensors", polish, {})
    assert files.load_polish(tmp_path / "p.safetensors").config == polish.config
    with pytest.raises(CheckpointError, match="holds no codec in training"):
        files.load_networks(tmp_path / "p.safetensors")
    with pytest.raises(CheckpointError, match="holds no polish in training"):
        files.load_polish("vq")
    assert CodecConfig().polish is None
