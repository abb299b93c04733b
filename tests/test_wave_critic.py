import json
import math

import pytest
import torch

from tests.conftest import CLIPS, ROOT
from vcae import checkpoint
from vcae.config import from_dict, load_config, to_dict
from vcae.errors import ConfigError
from vcae.training.adversarial import AdversarialVocoderObjective, balanced
from vcae.training.cache import prepare_cache, read_manifest
from vcae.training.config import VocoderRecipe, WaveCriticConfig
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.trainer import Trainer
from vcae.training.wave_critic import PeriodCritic, SpectrumCritic, WaveCritic, wave_critic_losses

SMALL = WaveCriticConfig(resolutions=(512, 128), periods=(3,), width=4, period_width=4)


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """Accelerate keeps one precision a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    prepare_cache(read_manifest(CLIPS / "manifest.csv"), folder)
    return folder


def _given():
    torch.manual_seed(0)
    return WaveCritic(SMALL), 0.1 * torch.randn(3, 8000), (0.1 * torch.randn(3, 8000)).requires_grad_()


def test_shapes():
    wav = torch.randn(2, 8000)
    score, features = SpectrumCritic(512, 4)(wav)
    # 257 bins, halved four times; 63 frames, halved once.
    assert score.shape == (2, 1, 17, 32)
    assert [x.shape[1] for x in features] == [4, 8, 16, 16, 16]
    score, features = PeriodCritic(7, 4)(wav)
    assert score.shape == (2, 1, 15, 7)
    assert [x.shape[1] for x in features] == [4, 8, 16, 32, 32]
    assert len(WaveCritic(SMALL)(wav)) == 3


def test_gradients_reach_one_side_only():
    critic, real, made = _given()
    losses = wave_critic_losses(critic, real, made, 1)
    losses["critic"].backward(retain_graph=True)
    assert made.grad is None
    assert all(p.grad is not None and bool(p.grad.any()) for p in critic.parameters())
    critic.zero_grad()
    losses["features"].backward(retain_graph=True)
    # Only copies are compared by their features.
    assert not bool(made.grad[0].any())
    assert bool(made.grad[1:].any())
    losses["passing"].backward()
    assert bool(made.grad[0].any())
    assert all(p.grad is None for p in critic.parameters())


def test_features_of_the_same_sound_are_the_same():
    critic, real, _ = _given()
    assert float(wave_critic_losses(critic, real, real)["features"].detach()) < 1e-6


def test_it_learns_to_tell_recordings_from_muffled_ones(speech):
    torch.manual_seed(0)
    wav = torch.from_numpy(speech[8000:24000]).view(8, 2000)
    spectrum = torch.fft.rfft(wav)
    spectrum[:, 500:] *= 0.1
    muffled = torch.fft.irfft(spectrum)
    critic = WaveCritic(WaveCriticConfig(resolutions=(512, 256), periods=(2,), width=4, period_width=4))
    optimizer = torch.optim.AdamW(critic.parameters(), 0.003)
    for _ in range(80):
        optimizer.zero_grad()
        wave_critic_losses(critic, wav, muffled)["critic"].backward()
        optimizer.step()
    with torch.no_grad():
        for (real, _), (made, _) in zip(critic(wav), critic(muffled), strict=True):
            assert real.mean() > made.mean() + 0.05


def test_balanced_gradients_have_one_norm():
    layer = torch.tensor([2.0, -1.0], requires_grad=True)
    made = layer[None] * torch.tensor([[1.0, 3.0]])
    parts = [((made - 1).square().sum(), 1.0), (0.5 * made[0, 0], 2.0), (1e-6 * made[0, 1], 1.0)]
    loss = balanced(made, layer, parts)
    assert float(loss.detach()) == pytest.approx(float(parts[0][0].detach()))
    found = torch.autograd.grad(loss, layer)[0]
    first = torch.tensor([2.0, -24.0])
    # The second, of gradient (.5, 0), is brought to the first one's norm times 2, at most 10 times as much; the third stays tiny.
    assert torch.allclose(found, first + torch.tensor([2 * 10 * 0.5, 10 * 3e-6]), atol=1e-4)


def test_adversarial_training_needs_a_critic():
    with pytest.raises(ConfigError, match=r"critic is null; .*conf/critic.yaml"):
        AdversarialVocoderObjective(from_dict(VocoderRecipe, {}))
    with pytest.raises(ConfigError, match=r"critic.periods are \[1\]"):
        WaveCriticConfig(periods=(1,))


def test_rows_in_another_voice_have_its_pitch(cache):
    recipe = load_config(VocoderRecipe, ROOT / "recipes/vocoder/conf/critic-debug.yaml", [f"data.cache={cache}"])
    objective = AdversarialVocoderObjective(recipe)
    batch = CropDataset(SpeechCache(cache), recipe.data, 0)[0]
    mel, f0 = objective.log_mel(batch["wav"]), torch.tensor([100.0, 200.0, 100.0, 100.0])[:, None].expand(-1, 33)
    seen, moved = objective._decoded(mel, f0, batch["reference"], 2, 1)
    assert moved[:, 0].tolist() == pytest.approx([200.0, 200.0, 100.0, 100.0])
    assert torch.equal(seen[2:], mel[2:])
    assert bool((seen[:2] != mel[:2]).any(dim=-1).any(dim=-1).all())


def test_debug_recipe_trains_both_sides(cache, tmp_path):
    settings = [f"data.cache={cache}", f"data.validation_cache={cache}", f"train.output_dir={tmp_path}", "train.max_steps=2"]
    recipe = load_config(VocoderRecipe, ROOT / "recipes/vocoder/conf/critic-debug.yaml", settings)

    def save(objective, path, step):
        checkpoint.save(path, vocoder=objective.model, info={"step": step})

    trainer = Trainer(lambda n: AdversarialVocoderObjective(recipe), recipe.data, recipe.train, to_dict(recipe), save)
    before = {name: value.clone() for name, value in trainer.objective.state_dict().items()}
    assert trainer.run()
    after = trainer.objective.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("model."))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("critic."))
    # The autoencoder is neither trained nor saved.
    assert {name.split(".")[0] for name, _ in trainer.objective.named_parameters()} == {"model", "critic"}
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(math.isfinite(value) for record in records for value in record.values())
    assert {"passing", "features", "critic", "decoded"} <= records[0].keys()
    found = checkpoint.load(tmp_path / "last.safetensors").vocoder
    assert found is not None
    assert found.config.n_corrections == 8
