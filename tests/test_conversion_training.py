import json

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import CLIPS, ROOT
from vcae import checkpoint
from vcae.config import from_dict, load_config, to_dict
from vcae.errors import CheckpointError, ConfigError
from vcae.training.cache import prepare_cache, read_manifest
from vcae.training.config import ConversionRecipe
from vcae.training.conversion import ConversionObjective, _move_f0
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.trainer import Trainer


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


def recipe_of(cache, output="runs/x", **changes):
    values = to_dict(load_config(ConversionRecipe, ROOT / "recipes/conversion/conf/debug.yaml"))
    values["data"] |= {"cache": str(cache), "validation_cache": str(cache)}
    values["train"] |= {"output_dir": str(output), "precision": "no"} | changes.pop("train", {})
    return from_dict(ConversionRecipe, values | changes)


def batch_of(recipe, index=0):
    return CropDataset(SpeechCache(recipe.data.cache), recipe.data, 0)[index]


def trainer_of(recipe):
    def save(objective, path, step):
        checkpoint.save(path, autoencoder=objective.model, info={"step": step})

    return Trainer(lambda n: ConversionObjective(recipe), recipe.data, recipe.train, to_dict(recipe), save)


def test_crops_of_one_speaker_stand_together(cache):
    recipe = recipe_of(cache)
    speakers = batch_of(recipe)["speaker"].view(-1, recipe.data.crops_a_speaker)
    assert len(speakers) == 2
    assert bool((speakers == speakers[:, :1]).all())


def test_a_change_of_nothing_leaves_the_recording(cache):
    objective = ConversionObjective(recipe_of(cache))
    batch = batch_of(objective.recipe)
    mel = objective.log_mel(batch["wav"])
    f0 = batch["f0"][:, : mel.shape[-1]]
    none, whole = (objective.convert(mel, f0, torch.full((len(mel), 1, 1), share)) for share in (0.0, 1.0))
    assert torch.allclose(none, mel, atol=1e-5)
    assert (whole - mel).abs().mean() > 0.1


def test_without_the_recording_the_teachers_conversion_is_heard(cache):
    objective = ConversionObjective(recipe_of(cache, add_change=False))
    batch = batch_of(objective.recipe)
    mel = objective.log_mel(batch["wav"])
    f0 = batch["f0"][:, : mel.shape[-1]]
    few, many = (objective.convert(mel, f0, torch.full((len(mel), 1, 1), share)) for share in (0.1, 1.0))
    assert torch.equal(few, many)


def test_a_crop_never_looks_up_itself(cache, monkeypatch):
    objective = ConversionObjective(recipe_of(cache)).train()
    seen = []
    monkeypatch.setattr(
        objective, "_losses", lambda *given: seen.append(given) or dict.fromkeys(("mel", "difference"), torch.zeros(()))
    )
    for index in range(20):
        objective(batch_of(objective.recipe, index))
    group = objective.recipe.data.crops_a_speaker
    for given in seen:
        found = given[3].unflatten(1, (group, -1)) > -1
        for row, crops in enumerate(found):
            assert not bool(crops[row % group].any())
            assert bool(crops.any())


def test_the_embedding_is_of_the_other_crops(cache):
    objective = ConversionObjective(recipe_of(cache))
    mel = objective.log_mel(batch_of(objective.recipe)["wav"])
    changed = mel.clone()
    changed[0] += torch.randn(80, 1)
    before, after = objective.embeddings(mel), objective.embeddings(changed)
    assert torch.allclose(before[0], after[0], atol=1e-5)
    assert not torch.allclose(before[1], after[1], atol=1e-4)
    assert torch.allclose(after.norm(dim=-1), torch.ones(len(mel)), atol=1e-5)


def test_the_speaker_encoder_stays_and_the_rest_learns(cache, tmp_path):
    trainer = trainer_of(recipe_of(cache, tmp_path))
    before = {k: v.clone() for k, v in trainer.objective.model.state_dict().items()}
    trainer.run(until=3)
    changed = {k.split(".")[0] for k, v in trainer.objective.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"content_encoder", "decoder"}
    assert any(".attention." in k for k, v in trainer.objective.model.state_dict().items() if not torch.equal(v, before[k]))


def test_with_a_critic_both_learn(cache, tmp_path):
    trainer = trainer_of(recipe_of(cache, tmp_path, critic_weight=0.05, feature_weight=0.1))
    before = {k: v.clone() for k, v in trainer.objective.state_dict().items()}
    trainer.run(until=3)
    changed = {k.split(".")[0] for k, v in trainer.objective.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"model", "critic"}
    assert not any("critic" in key for key in load_file(tmp_path / "last.safetensors"))


def test_the_average_is_what_is_saved_and_goes_on_bit_for_bit(cache, tmp_path):
    whole = trainer_of(recipe_of(cache, tmp_path / "whole"))
    whole.run()
    parts = trainer_of(recipe_of(cache, tmp_path / "parts"))
    parts.run(until=4)
    parts = trainer_of(recipe_of(cache, tmp_path / "parts"))
    parts.run()
    a, b = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    own = whole.objective.model.state_dict()
    assert any(not torch.equal(own[k], a[f"autoencoder.{k}"]) for k in own)


def test_the_loss_falls(cache, tmp_path):
    recipe = recipe_of(cache, tmp_path, train={"max_steps": 60, "learning_rate": 0.003, "validate_every": 60, "save_every": 60})
    trainer_of(recipe).run()
    losses = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    mel = [entry["mel"] for entry in losses if "mel" in entry]
    assert mel[-1] < 0.85 * mel[0]


def test_f0_moves_to_the_others_range():
    f0 = torch.tensor([[0.0, 100.0, 110.0, 121.0, 0.0]])
    like = torch.tensor([[200.0, 220.0, 242.0, 0.0, 0.0]])
    assert torch.allclose(_move_f0(f0, like), torch.tensor([[0.0, 200.0, 220.0, 242.0, 0.0]]), rtol=1e-4)
    silent = torch.zeros_like(f0)
    assert torch.equal(_move_f0(f0, silent), f0)
    assert torch.equal(_move_f0(silent, like), silent)


def test_wrong_settings_are_told(cache):
    with pytest.raises(ConfigError, match=r"multiple of data\.crops_a_speaker"):
        recipe_of(cache, data=to_dict(recipe_of(cache).data) | {"batch_size": 5})
    with pytest.raises(ConfigError, match="at least two speakers"):
        recipe_of(cache, data=to_dict(recipe_of(cache).data) | {"batch_size": 2})
    with pytest.raises(ConfigError, match="must not be above change_max"):
        recipe_of(cache, change_min=2.0)
    with pytest.raises(CheckpointError, match="no autoencoder"):
        ConversionObjective(recipe_of(cache, teacher="codec"))
