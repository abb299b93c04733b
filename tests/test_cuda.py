"""CUDA beside the CPU, where there is a GPU; and the comparison itself, anywhere."""

import importlib
import sys

import pytest
import torch

from tests.conftest import CLIPS, ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
bench = importlib.import_module("cuda")
sys.path.pop(0)

# Relative differences that float32 in another order of summation makes; measured on no GPU yet.
TOLERANCE = {"conversion": 2e-2, "batch": 1e-3, "training": 1e-2}
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")


@pytest.fixture(scope="module")
def on_cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(bench, "BATCH", 32 if torch.cuda.is_available() else 3)
        patch.setattr(bench, "TRAINED", 16 if torch.cuda.is_available() else 2)
        yield bench.measure("cpu", 2.0, 1)


def test_three_kinds_of_work_are_measured(on_cpu):
    assert [name.split()[0] for name in on_cpu] == ["conversion", "batch", "training"]
    for seconds, result in on_cpu.values():
        assert seconds > 0
        assert all(bool(torch.isfinite(value).all()) and float(value.abs().max()) > 0 for value in result.values())
        assert bench.difference(result, result) == 0
        worse = {key: value * 1.1 for key, value in result.items()}
        assert bench.difference(worse, result) == pytest.approx(0.1, abs=1e-3)


def test_a_training_step_reaches_every_parameter_that_the_loss_depends_on(on_cpu):
    gradients = next(result for name, (_, result) in on_cpu.items() if name.startswith("training"))["gradients"]
    assert len(gradients) > 50
    assert float((gradients > 0).float().mean()) > 0.9


@GPU
def test_cuda_gives_what_the_cpu_gives(on_cpu, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, (_, result) in bench.measure("cuda", 2.0, 1).items():
        assert bench.difference(result, on_cpu[name][1]) < TOLERANCE[name.split()[0]], name


@GPU
def test_the_command_converts_on_cuda(tmp_path):
    from typer.testing import CliRunner

    import vcae
    from vcae.cli.app import app

    made = []
    for device in ("cpu", "cuda"):
        made.append(tmp_path / f"{device}.wav")
        words = ["convert", CLIPS / "source.flac", "-s", CLIPS / "reference.flac", "-o", made[-1], "--device", device]
        assert CliRunner().invoke(app, [*map(str, words)]).exit_code == 0
    cpu, cuda = (vcae.read_sound(path) for path in made)
    assert len(cuda.wav) == len(cpu.wav)
    # The vocoder's noise is drawn on the device, so levels are compared and not samples.
    assert float((cuda.wav**2).mean()) == pytest.approx(float((cpu.wav**2).mean()), rel=0.05)
