"""The ladder of plain autoencoders: its file, its command, its recipe."""

import importlib
import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

import vcae
from tests.conftest import CLIPS, ROOT, settings_of
from tests.forked import python
from tests.test_cli import vcae as command
from tests.test_hostile import invoke, refused
from vcae import checkpoint
from vcae.audio.frames import active_frames
from vcae.audio.io import Sound, read_comment, read_sound
from vcae.config import from_dict, load_config
from vcae.errors import CheckpointError, ConfigError
from vcae.model.autoencoder import Autoencoder
from vcae.model.config import AutoencoderConfig
from vcae.tasks.copy import reconstruct
from vcae.tasks.ladder import describe_ladder, load_rung, save_ladder, with_dim

LadderRecipe = settings_of("ladder").LadderRecipe
RECIPE = ROOT / "recipes" / "ladder"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
PLAIN = {
    "speaker": None,
    "content": {"width": 16, "n_blocks": 1, "n_normalized": 0, "latent_dim": 2},
    "decoder": {"width": 16, "n_blocks": 1, "use_f0": False},
}


@pytest.fixture
def rungs():
    common = from_dict(AutoencoderConfig, PLAIN)
    return {dim: Autoencoder(with_dim(common, dim)).eval() for dim in (2, 5)}


@pytest.fixture
def ladder(tmp_path, rungs):
    path = tmp_path / "small.safetensors"
    save_ladder(path, rungs, {"author": "a test"})
    return path


@pytest.fixture
def part():
    """Import a part of the recipe, and forget it after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPE))
        before = set(sys.modules)
        yield importlib.import_module
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(RECIPE)):
                del sys.modules[name]


def test_rungs_come_back_as_they_were(ladder, rungs):
    for dim, rung in rungs.items():
        found = load_rung(dim, name=ladder)
        assert found.config == rung.config
        assert found.config.content.latent_dim == dim
        for key, value in rung.state_dict().items():
            # Rounded to half a step of 8 bits, or to float16.
            assert (found.state_dict()[key] - value).abs().max() <= value.abs().max() / 220 + 1e-6, key
    said = describe_ladder(ladder)
    assert said["parameters"] == {str(dim): sum(p.numel() for p in rung.parameters()) for dim, rung in rungs.items()}
    assert said["info"] == {"author": "a test"}
    with pytest.raises(ConfigError, match="code_dim is 3; the ladder has 2 and 5 values per step"):
        load_rung(3, name=ladder)


def test_rungs_that_differ_in_more_are_refused(tmp_path, rungs):
    wider = from_dict(AutoencoderConfig, PLAIN | {"decoder": {"width": 32, "n_blocks": 1, "use_f0": False}})
    with pytest.raises(CheckpointError, match="rung of 7 differs from the others in more"):
        save_ladder(tmp_path / "x.safetensors", rungs | {7: Autoencoder(with_dim(wider, 7))}, {})
    with pytest.raises(CheckpointError, match="no rung to save"):
        save_ladder(tmp_path / "x.safetensors", {}, {})
    assert not list(tmp_path.glob("x*"))


def _change(path, tensors=None, **ladder):
    metadata = checkpoint.read_metadata(path)
    held, _ = checkpoint.read_tensors(path)
    metadata["ladder"] |= ladder
    checkpoint.write_tensors(path, {**held, **(tensors or {})}, {"vcae": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"dims": [2, 4]}, "does not fit its own config: 4.* is not there"),
        ({"dims": [2]}, "5.* belongs to no rung"),
        ({"dims": []}, "is not a ladder"),
        ({"dims": [2, "5"]}, "is not a ladder"),
        ({"dims": [2, -5]}, "is not a ladder"),
        ({"dims": list(range(1, 100))}, "is not a ladder"),
        ({"dims": [2, 1 << 40]}, "latent_dim is 1099511627776; at most"),
        ({"autoencoder": PLAIN | {"decoder": {"width": 1 << 40}}}, "width is 1099511627776; at most"),
        ({"autoencoder": PLAIN | {"decoder": {"width": 60000}}}, "does not fit its own config"),
        ({"autoencoder": {"colour": 3}}, "is not a ladder.*unknown key autoencoder.colour"),
    ],
)
def test_a_damaged_file_is_refused_before_its_weights_are_read(ladder, damage, message, monkeypatch):
    _change(ladder, **damage)
    monkeypatch.setattr("safetensors.torch.load_file", lambda path: pytest.fail("the tensors were read"))
    with pytest.raises(CheckpointError, match=message):
        load_rung(2, name=ladder)


def test_bad_weights_and_other_files_are_refused(ladder, tiny_checkpoint):
    with pytest.raises(CheckpointError, match="is not a ladder of autoencoders"):
        load_rung(2, name=tiny_checkpoint)
    _change(ladder, {"2.mel_mean": torch.full((80, 1), torch.nan)})
    with pytest.raises(CheckpointError, match="not finite"):
        load_rung(2, name=ladder)
    ladder.with_suffix(".sha256").write_text("0" * 64)
    with pytest.raises(CheckpointError, match="does not match its SHA-256"):
        load_rung(5, name=ladder)


def test_the_shipped_ladder_is_small_and_each_rung_keeps_more(model, speech):
    path = checkpoint.find("ladder")
    assert path.with_suffix(".sha256").exists()
    assert path.stat().st_size < 5.5e6
    dims = describe_ladder()["ladder"]["dims"]
    assert dims == [1, 2, 4, 8, 16, 32, 64]
    assert load_config(LadderRecipe, RECIPE / "conf/base.yaml").dims == tuple(dims)
    seen = model.analyse(speech, 16000)
    sound, errors = active_frames(seen.mel)[0, 0] > 0, []
    for dim in dims:
        rung = load_rung(dim)
        code = rung.encode_content(seen.mel)
        assert code.shape[1:] == (dim, -(-seen.mel.shape[-1] // 2))
        errors.append(float((rung.decode(code, seen.f0, None) - seen.mel)[0, :, sound].square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 4


def test_a_copy_through_a_rung(model, clips, tiny_checkpoint):
    sound = read_sound(clips["source"])
    short = Sound(sound.wav[: 2 * sound.sample_rate], sound.sample_rate, sound.name)
    made = {dim: reconstruct(model, short, code_dim=dim) for dim in (1, 64, None)}
    assert all(len(copy.wav) == len(short.wav) for copy in made.values())
    mels = {dim: model.log_mel(torch.from_numpy(copy.wav)[None]) for dim, copy in made.items()}
    own = model.log_mel(torch.from_numpy(short.wav)[None])
    errors = {dim: float((mel - own).abs().mean()) for dim, mel in mels.items()}
    assert errors[64] < errors[None] < errors[1]
    with pytest.raises(ConfigError, match="code_dim is 3; the ladder has 1, 2, 4, 8, 16, 32 and 64"):
        reconstruct(model, short, code_dim=3)
    with pytest.raises(ConfigError, match=r"code_dim is 4 with checkpoint tiny; .* leave one of the two out"):
        reconstruct(vcae.load(tiny_checkpoint, device="cpu"), short, code_dim=4)


def test_the_command(tmp_path, clips):
    out = tmp_path / "copy.flac"
    done = command("reconstruct", clips["source"], "--code-dim", 16, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["code_dim"] == 16
    assert read_comment(out).startswith("reconstructed from 16 values per step by vcae")
    assert soundfile.info(out).frames == soundfile.info(clips["source"]).frames
    for more, message in (
        (["--code-dim", 3], "code_dim is 3; the ladder has 1, 2, 4, 8, 16, 32 and 64 values per step"),
        (["--code-dim", 16, "--checkpoint", "vq"], "code_dim is 16 with checkpoint vq"),
        (["--checkpoint", "ladder"], "a ladder for reconstruct with code_dim"),
    ):
        refused(invoke("reconstruct", clips["source"], *more, "-o", tmp_path / "no.wav"), message)
    assert not (tmp_path / "no.wav").exists()
    said = json.loads(invoke("info", "ladder", "--json").stdout)
    assert list(said["parameters"]) == ["1", "2", "4", "8", "16", "32", "64"]
    assert said["info"]["license"]


def test_components_are_the_best_linear_code(part):
    measure = part("measure")
    mels = [0.1 * torch.randn(1, 6, 40).cumsum(dim=1) for _ in range(4)]
    assert all(measure.active_frames(mel).all() for mel in mels)
    components = measure.fit_components(mels, 2)
    for mel in (*mels, mels[0][..., :-1]):
        torch.testing.assert_close(components.copy(12)(mel), mel, rtol=1e-4, atol=1e-4)
    # On what it was fitted to, the error is what the components left out vary by.
    steps = torch.cat([measure.stack(mel, 2) for mel in mels])
    variances = torch.linalg.eigvalsh(torch.cov(steps.T.double())).flip(0)
    lost = sum(float((measure.stack(components.copy(5)(m), 2) - measure.stack(m, 2)).square().sum()) for m in mels)
    assert lost / (len(steps) - 1) == pytest.approx(float(variances[5:].sum()), rel=1e-3)


def test_errors_are_in_db_over_sound_alone(part):
    measure = part("measure")
    mel = torch.full((1, 80, 20), -2.0)
    mel[..., 10:] = -11.5
    found = measure.squared_errors(lambda m: m + 0.5 * np.log(10), [mel])
    assert found.tolist() == [[pytest.approx(100 * 80 * 10, rel=1e-4), 80 * 10]]
    assert measure.rms_db(found) == pytest.approx(10, rel=1e-4)


def test_rate_is_kl_a_second(part):
    measure = part("measure")
    content = PLAIN["content"] | {"variational": True}
    model = Autoencoder(from_dict(AutoencoderConfig, PLAIN | {"content": content})).eval()
    for layer in (model.content_encoder.output, model.content_encoder.log_variance):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    mels = [torch.randn(1, 80, 62), torch.randn(1, 80, 64)]
    assert measure.rate(model, mels) == 0
    torch.nn.init.constant_(model.content_encoder.output.bias, (2 * np.log(2)) ** 0.5)
    # One bit a dimension and step: two dimensions, 31.25 steps a second.
    assert measure.rate(model, mels) == pytest.approx(62.5, rel=1e-4)


def test_the_recipe_from_training_to_the_picture(tmp_path):
    base = "recipes/ladder"

    def run(script, *settings):
        words = [*python(), f"{base}/{script}.py", f"{base}/conf/debug.yaml", *settings]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        return done

    words = [*python(), "recipes/prepare/cache.py", str(CLIPS / "manifest.csv"), str(tmp_path / "cache")]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, env=ENVIRONMENT)
    caches = [f"autoencoder.data.{name}={tmp_path / 'cache'}" for name in ("cache", "validation_cache")]
    settings = [*caches, f"autoencoder.train.output_dir={tmp_path / 'runs'}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    run("train", *settings)
    # Seconds of this work alone, whatever else the machine has to do.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 20
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["2", "8", "8-kl0.01"]
    made = (tmp_path / "runs/2/last.safetensors").stat().st_mtime_ns
    run("train", *settings)
    # The trainer starts, sees that nothing is left to do, and writes nothing.
    assert (tmp_path / "runs/2/last.safetensors").stat().st_mtime_ns == made
    ladder = tmp_path / "ladder.safetensors"
    assert "2 rungs" in run("join", *settings, f"output={ladder}").stdout
    load_rung(8, name=ladder)
    settings += [f"manifest={CLIPS / 'manifest.csv'}", f"output_dir={tmp_path / 'out'}", "min_s=1"]
    assert "not judged" in run("evaluate", *settings, "--no-judge").stdout
    rows = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert [row["rung"] for row in rows] == ["2", "8", "8-kl0.01"]
    assert rows[0]["pca_mel_db"] > rows[1]["pca_mel_db"] > 1
    assert rows[2]["bits_s"] > 0
    assert rows[2]["drawn_mel_db"] != rows[2]["mel_db"]
    assert (tmp_path / "out/ladder.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2 * 6
