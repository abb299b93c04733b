"""Training on several processes and machines: the batch that is dealt out, equal weights, and ends that all agree on."""

import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.test_training import _command, _fresh_accelerate, _recipe, _trainer, cache  # noqa: F401
from vcae import checkpoint
from vcae.audio.config import MelConfig
from vcae.errors import CheckpointError
from vcae.training.config import AutoencoderRecipe, DataConfig, PerturbConfig
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.draws import Draws
from vcae.training.perturb import Perturbation

# A constant added to all scores changes no softmax: this bias has no gradient but rounding, which AdamW scales up to full steps.
WITHOUT_EFFECT = "objective.model.speaker_encoder.attention.2.bias"
SAME = ("train.max_steps=8", "train.precision='no'", "model.content.latent_noise=0.0")


def _free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def _launch(port, rank, machines, command):
    """Start what the recipe's page says for one machine, here one of several on this one."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", str(machines)]
    launch += ["--num_processes", "2", "--machine_rank", str(rank), "--main_process_ip", "127.0.0.1"]
    launch += ["--main_process_port", str(port), "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*launch, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _finished(machine):
    """Return what a machine printed, once it has ended.

    When the others have left already, torch's launcher can wait five minutes for their farewell after its own process is done; it is then ended.
    Or torch aborts that process (signal 6) after it has said that it is done. The weights are compared in all cases.
    """
    try:
        said, _ = machine.communicate(timeout=45)
        assert machine.returncode == 0 or ("done: " in said and "Signal 6" in said), said[-9000:]
    except subprocess.TimeoutExpired:
        assert psutil.Process(machine.pid).children() == [] or all(
            child.status() == psutil.STATUS_ZOMBIE for child in psutil.Process(machine.pid).children()
        ), "the training itself goes on"
        machine.kill()
        said, _ = machine.communicate()
    return said


def _one_process(cache, output, batch_size):  # noqa: F811
    recipe = _recipe(AutoencoderRecipe, "autoencoder", cache, output, max_steps=8, precision="no")
    object.__setattr__(recipe.data, "batch_size", batch_size)
    object.__setattr__(recipe.model.content, "latent_noise", 0.0)
    assert _trainer(recipe).run()
    return load_file(output / "state.safetensors")


def _furthest(a, b):
    return {k: float((a[k] - b[k]).abs().max()) for k in a if k.startswith("objective.") and a[k].is_floating_point()}


@pytest.mark.parametrize("index", [0, 5, 1 << 40])
def test_the_parts_of_a_batch_are_the_batch_of_one_process(cache, index):  # noqa: F811
    found, half = SpeechCache(cache), {"crop_s": 0.8, "reference_s": 0.5}
    whole = CropDataset(found, DataConfig(**half, batch_size=6), 3)[index]
    parts = [CropDataset(found, DataConfig(**half, batch_size=2), 3, (rank, 3))[index] for rank in range(3)]
    for key in ("wav", "f0", "reference", "speaker"):
        assert torch.equal(torch.cat([part[key] for part in parts]), whole[key]), key
    assert not torch.equal(parts[0]["wav"], parts[1]["wav"])
    assert [part["part"].tolist() for part in parts] == [[0, 3], [1, 3], [2, 3]]


def test_rows_are_perturbed_alike_in_any_number_of_processes():
    mel = torch.randn(4, 80, 50)
    perturb = Perturbation(PerturbConfig(), MelConfig())
    whole = perturb(mel, Draws(7))
    parts = [perturb(mel[rank * 2 : rank * 2 + 2], Draws(7, rank, 2)) for rank in (0, 1)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)
    assert not torch.allclose(whole, mel, atol=0.1)
    assert torch.equal(Draws(1).uniform(3, 2), torch.rand(3, 2, generator=torch.Generator().manual_seed(1)))


@pytest.mark.slow
def test_two_machines_train_to_the_weights_of_one_with_twice_the_batch(cache, tmp_path):  # noqa: F811
    port, command = _free_port(), _command("autoencoder", cache, tmp_path / "two", "data.batch_size=2", *SAME)
    machines = [_launch(port, rank, 2, command) for rank in (0, 1)]
    one = _one_process(cache, tmp_path / "one", 4)
    for machine in machines:
        said = _finished(machine)
        assert "done: " in said, said[-2000:]
    two = load_file(tmp_path / "two/state.safetensors")
    assert two.keys() == one.keys()
    apart = _furthest(one, two)
    assert apart.pop(WITHOUT_EFFECT) < 1e-2
    assert len(apart) > 80
    assert max(apart.values()) < 1e-4, max(apart, key=apart.get)
    # Half of the batch alone trains to something else.
    half = _furthest(one, _one_process(cache, tmp_path / "half", 2))
    assert half["objective.model.decoder.input.weight"] > 1e-3
    assert checkpoint.load(tmp_path / "two/last.safetensors").metadata["info"]["step"] == 8


@pytest.mark.slow
def test_one_process_told_to_stop_stops_both(cache, tmp_path):  # noqa: F811
    command = _command("vocoder", cache, tmp_path / "run", "train.max_steps=100000", "train.log_every=1")
    launched = _launch(_free_port(), 0, 1, command)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run/log.jsonl").exists() and launched.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        children = psutil.Process(launched.pid).children()
        workers = [child.pid for child in children if any("train.py" in word for word in child.cmdline())]
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGINT)
        said, _ = launched.communicate(timeout=60)
    finally:
        if launched.poll() is None:
            os.killpg(launched.pid, signal.SIGKILL)
    # Torch's launcher ends a group with the first of it that fails; both had their say before.
    assert said.count("parameters, device") == 2
    assert "stopped and saved at step" in said
    assert (tmp_path / "run/state.safetensors").exists()


def test_processes_that_would_go_on_from_different_steps_say_so(cache, tmp_path, monkeypatch):  # noqa: F811
    trainer = _trainer(_recipe(AutoencoderRecipe, "autoencoder", cache, tmp_path, max_steps=2))
    monkeypatch.setattr(trainer.accelerator, "gather", lambda steps: torch.tensor([10, 0]))
    with pytest.raises(CheckpointError, match=r"different steps \(10, 0\); copy .*state.safetensors"):
        trainer._check_together()


def test_a_signal_while_processes_agree_counts_after_the_next_step(cache, tmp_path, monkeypatch):  # noqa: F811
    trainer = _trainer(_recipe(AutoencoderRecipe, "autoencoder", cache, tmp_path, max_steps=2))

    def gather(stop):
        trainer._on_signal(signal.SIGINT, None)
        return torch.cat([stop, torch.zeros_like(stop)])

    monkeypatch.setattr(trainer, "accelerator", SimpleNamespace(num_processes=2, device="cpu", gather=gather))
    assert [trainer._stopped(), trainer._stopped()] == [False, True]
