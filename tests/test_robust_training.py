"""Learning to hear through noise: what the encoder gets, what it has to give, and what stays as it was."""

import numpy as np
import pytest
import torch

from tests.conftest import CLIPS, ROOT
from vcae import checkpoint
from vcae.checkpoint import write_tensors
from vcae.config import from_dict, load_config, to_dict
from vcae.errors import ConfigError
from vcae.training.cache import prepare_cache, read_manifest
from vcae.training.config import RobustRecipe
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.draws import Draws
from vcae.training.robust import RobustObjective
from vcae.training.trainer import Trainer


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps one precision a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robust")
    prepare_cache(read_manifest(CLIPS / "manifest.csv"), folder / "cache")
    rng = np.random.default_rng(0)
    rooms = np.zeros((1, 4800))
    rooms[:, 0], rooms[:, 900] = 1, 0.7
    write_tensors(
        folder / "noise.safetensors",
        {
            "audio": torch.from_numpy((rng.standard_normal(40000) * 3000).astype(np.int16)),
            "bounds": torch.tensor([0, 20000, 40000]),
            "n_recorded": torch.tensor(1),
            "rooms": torch.from_numpy(rooms).half(),
        },
        {},
    )
    values = to_dict(load_config(RobustRecipe, ROOT / "recipes/conversion/conf/robust.yaml"))
    values |= {"initial": "default", "hidden_end_s": 0.256, "edge_steps": 4}
    values["noising"]["bank"] = str(folder / "noise.safetensors")
    values["data"] |= {
        "cache": str(folder / "cache"),
        "validation_cache": str(folder / "cache"),
        "crop_s": 1.28,
        "reference_s": 1.28,
    }
    values["data"]["batch_size"] = 4
    values["train"] |= {
        "output_dir": str(folder / "run"),
        "precision": "no",
        "compile": False,
        "max_steps": 12,
        "warmup_steps": 1,
    }
    values["train"] |= {"validate_every": 12, "save_every": 12, "log_every": 4, "average_decay": 0.0}
    return from_dict(RobustRecipe, values)


def changed(recipe, **changes):
    return from_dict(RobustRecipe, to_dict(recipe) | changes)


def batch_of(recipe, index=0):
    return CropDataset(SpeechCache(recipe.data.cache), recipe.data, 0)[index]


def test_clean_and_whole_speech_has_no_distance(recipe):
    objective = RobustObjective(
        changed(
            recipe,
            clean_share=1.0,
            hidden_end_s=0.0,
            perturb={"gain_db": 0, "tilt_db": 0, "warp": 0, "noise_db": 200, "mask_probability": 0},
        )
    )
    losses = objective(batch_of(recipe))
    assert float(losses["distance"]) < 1e-3
    noisy = RobustObjective(changed(recipe, clean_share=0.0, hidden_end_s=0.0))(batch_of(recipe))
    assert float(noisy["distance"]) > 0.1


def test_the_hidden_end_is_missed_most_at_the_edge(recipe):
    objective = RobustObjective(
        changed(
            recipe, clean_share=1.0, perturb={"gain_db": 0, "tilt_db": 0, "warp": 0, "noise_db": 200, "mask_probability": 0}
        )
    )
    losses = objective(batch_of(recipe))
    assert float(losses["edge"]) > float(losses["distance"]) > 0


def test_degraded_speech_keeps_its_level_and_length(recipe):
    objective, batch = RobustObjective(changed(recipe, clean_share=0.0)), batch_of(recipe)
    degraded = objective.degrade(batch["wav"], batch["reference"], Draws.of(batch, 1))
    assert degraded.shape == batch["wav"].shape
    assert not torch.equal(degraded, batch["wav"])
    ratio = degraded.square().mean(dim=1).sqrt() / batch["wav"].square().mean(dim=1).sqrt()
    assert bool(((ratio > 0.5) & (ratio < 2)).all())


def test_padding_does_not_count(recipe):
    objective, batch = RobustObjective(recipe), batch_of(recipe)
    batch["wav"][:, 8192:] = 0
    steps = objective._recorded(batch["wav"])
    assert steps[:, :16].sum() == 64
    assert steps[:, 17:].sum() == 0


def test_only_the_encoder_learns_and_the_distance_falls(recipe):
    def save(objective, path, step):
        checkpoint.save(path, autoencoder=objective.model, info={"step": step})

    trainer = Trainer(lambda n: RobustObjective(recipe), recipe.data, recipe.train, to_dict(recipe), save)
    batch = batch_of(recipe, 3)
    before = float(trainer.objective(batch)["distance"].detach())
    assert trainer.run()
    path = f"{recipe.train.output_dir}/last.safetensors"
    after = RobustObjective(changed(recipe, started=path))
    assert float(after(batch)["distance"]) < before
    old, new = checkpoint.load("default").autoencoder.state_dict(), checkpoint.load(path).autoencoder.state_dict()
    moved = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert moved == {"content_encoder"}


def test_the_voice_alone_learns(recipe, tmp_path):
    train = to_dict(recipe)["train"] | {"output_dir": str(tmp_path)}
    voice = changed(recipe, parts=["voice"], train=train)

    def save(objective, path, step):
        checkpoint.save(path, autoencoder=objective.model, info={"step": step})

    batch = batch_of(voice, 3)
    before = RobustObjective(voice)(batch)
    assert Trainer(lambda n: RobustObjective(voice), voice.data, voice.train, to_dict(voice), save).run()
    path = str(tmp_path / "last.safetensors")
    after = RobustObjective(changed(voice, started=path))(batch)
    assert after["voice"].item() < before["voice"].item()
    assert "distance" not in after
    old, new = checkpoint.load("default").autoencoder.state_dict(), checkpoint.load(path).autoencoder.state_dict()
    moved = {name.rsplit("encoder.", 1)[0] for name in old if not torch.equal(old[name], new[name])}
    assert moved == {"speaker_", "decoder.reference_"}


def test_wrong_settings_are_told(recipe):
    with pytest.raises(ConfigError, match=r"hidden_end_s is 0\.7; it must be less than half"):
        RobustObjective(changed(recipe, hidden_end_s=0.7))
    with pytest.raises(ConfigError, match="clean_share"):
        changed(recipe, clean_share=1.5)
    with pytest.raises(ConfigError, match="allowed are content, voice or both"):
        changed(recipe, parts=["decoder"])
