"""Training of the acoustic model: what is learned, exact resume, and the recipe's steps on the bundled clips."""

import json
import subprocess

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.forked import python
from vcae.errors import CheckpointError
from vcae.model.acoustic import AcousticConfig
from vcae.training.acoustic import (
    AcousticRecipe,
    AcousticTraining,
    Spoken,
    batches,
    losses_of,
    make_batch,
    read_spoken,
    write_spoken,
)

# Durations of three symbols and F0 relative to the mean, of a made-up language whose latent is one channel for each symbol.
SECONDS = {0: 0.064, 3: 0.096, 7: 0.16}
RELATIVE = {3: -0.2, 7: 0.2}


def spoken(rng, speaker="toy/one"):
    symbols = [0, *rng.choice([3, 7], 6), 0]
    durations = torch.tensor([SECONDS[int(s)] for s in symbols])
    steps = [int(s) for s in symbols for _ in range(round(SECONDS[int(s)] / 0.032))]
    latent = torch.zeros(len(steps), 8)
    latent[torch.arange(len(steps)), steps] = 1.0
    f0 = torch.tensor([0.0 if s == 0 else 120 * np.exp(RELATIVE[s]) for s in steps for _ in range(2)], dtype=torch.float32)
    zeros = torch.zeros(len(symbols), dtype=torch.int64)
    return Spoken(speaker, "a text", torch.tensor(symbols), zeros, zeros, durations, f0, latent.half())


@pytest.fixture
def found():
    rng = np.random.default_rng(0)
    return [spoken(rng) for _ in range(60)]


def recipe(tmp_path, **settings):
    model = AcousticConfig(8, 0.032, 24, 1, 1)
    values = {
        "n_epochs": 12,
        "batch_steps": 120,
        "learning_rate": 0.02,
        "average_decay": 0.8,
        "output_dir": str(tmp_path / "run"),
    }
    return AcousticRecipe(**({"model": model} | values | settings))


def test_aligned_speech_is_stored(tmp_path, found):
    write_spoken(tmp_path / "one.safetensors", found)
    again = read_spoken(tmp_path)
    assert [s.text for s in again] == [s.text for s in found]
    for a, b in zip(again, found, strict=True):
        assert all(
            torch.equal(getattr(a, k), getattr(b, k)) for k in ("symbol", "stress", "place", "durations", "f0", "latent")
        )
    with pytest.raises(CheckpointError, match="holds no aligned speech"):
        read_spoken(tmp_path / "nothing")


def test_batches_have_everything_once(found):
    groups = list(batches(found, 120, np.random.default_rng(1)))
    assert sorted(id(s) for group in groups for s in group) == sorted(map(id, found))
    assert all(len(group) * max(len(s.latent) for s in group) <= 120 for group in groups)


def test_durations_f0_and_content_are_learned_and_resume_is_exact(tmp_path, found):
    whole = AcousticTraining(recipe(tmp_path), found)
    first = whole.run_epoch()
    copy = {name: value.clone() for name, value in whole.network.state_dict().items()}
    again = AcousticTraining(recipe(tmp_path), found)
    assert again.epoch == 1
    assert all(torch.equal(copy[name], value) for name, value in again.network.state_dict().items())
    assert again.run_epoch() == whole.run_epoch()
    while whole.epoch < 12:
        last = whole.run_epoch()
    assert last["latent"] < 0.4 * first["latent"]
    batch = make_batch([spoken(np.random.default_rng(5))], whole.sizes.speakers)
    with torch.inference_mode():
        judged = {name: float(value) for name, value in losses_of(whole.averaged(), batch).items()}
    # A tenth of the duration, 3 % of F0, and a voicing that is seldom wrong.
    assert judged["durations"] < 0.1
    assert judged["f0"] < 0.03
    assert judged["voicing"] < 0.2
    assert judged["latent"] < 0.06


def test_the_recipes_training(tmp_path, found):
    (tmp_path / "spoken").mkdir()
    write_spoken(tmp_path / "spoken" / "one.safetensors", found)
    settings = [f"spoken={tmp_path / 'spoken'}", f"output_dir={tmp_path / 'run'}", "model.latent_dim=8"]
    command = [*python(), "recipes/say/train.py", "recipes/say/conf/debug.yaml", *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [one["epoch"] for one in lines] == [1, 2]
    assert lines[1]["held_latent"] < lines[0]["held_latent"]
    released = tmp_path / "small.safetensors"
    command = [*python(), "recipes/say/release.py", str(tmp_path / "run" / "last.safetensors"), str(released)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    assert released.exists()
