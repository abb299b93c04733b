"""The Gaussian neck: KL, free bits, annealing, and that nothing changes without it."""

import math

import pytest
import torch
from safetensors.torch import load_file

import vcae
from tests.conftest import CLIPS, ROOT, TINY
from vcae import checkpoint
from vcae.config import from_dict, load_config, to_dict
from vcae.errors import ConfigError
from vcae.model.autoencoder import Autoencoder
from vcae.model.config import AutoencoderConfig
from vcae.model.variational import Gaussian, free_bits, kl_weight
from vcae.training.cache import prepare_cache, read_manifest
from vcae.training.config import AutoencoderRecipe, DataConfig
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.objectives import AutoencoderObjective
from vcae.training.trainer import VALIDATION_INDEX, Trainer


def variational(**content):
    merged = TINY | {"content": TINY["content"] | {"variational": True} | content}
    return Autoencoder(from_dict(AutoencoderConfig, merged)).eval()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    prepare_cache(read_manifest(CLIPS / "manifest.csv"), folder)
    return folder


@pytest.fixture
def recipe(cache, tmp_path):
    def make(output="run", **changes):
        values = to_dict(load_config(AutoencoderRecipe, ROOT / "recipes/autoencoder/conf/debug.yaml"))
        values["model"]["content"] |= {"variational": True, "normalize_latent": False, "latent_noise": 0.0}
        values["data"] |= {"cache": str(cache), "validation_cache": str(cache)}
        train = {"output_dir": str(tmp_path / output), "max_steps": 8, "validate_every": 4, "save_every": 4}
        values["train"] |= train | changes.pop("train", {})
        return from_dict(AutoencoderRecipe, values | {"kl_weight": 0.01, "free_bits": 0.1, "kl_warmup_steps": 6} | changes)

    return make


def test_kl_is_that_of_torch_distributions():
    mean, log_variance = torch.randn(2, 3, 5), 2 * torch.randn(2, 3, 5)
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, torch.exp(0.5 * log_variance)), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(Gaussian(mean, log_variance).kl(), wanted)
    # By hand: a mean of 2 at the prior's variance costs 2 nats; a deviation of e costs (e^2 - 1) / 2 - 1.
    assert Gaussian(torch.tensor([2.0]), torch.tensor([0.0])).kl().item() == pytest.approx(2)
    assert Gaussian(torch.tensor([0.0]), torch.tensor([2.0])).kl().item() == pytest.approx((math.e**2 - 1) / 2 - 1)


def test_draws_have_the_mean_and_deviation_and_let_gradients_through():
    mean = torch.full((1, 1, 40000), 3.0, requires_grad=True)
    log_variance = torch.full((1, 1, 40000), math.log(4.0), requires_grad=True)
    drawn = Gaussian(mean, log_variance).sample()
    assert drawn.mean().item() == pytest.approx(3, abs=0.05)
    assert drawn.std().item() == pytest.approx(2, abs=0.05)
    drawn.sum().backward()
    assert torch.equal(mean.grad, torch.ones_like(mean))
    torch.testing.assert_close(log_variance.grad, 0.5 * (drawn - mean).detach())


def test_below_the_floor_kl_costs_nothing_and_has_no_gradient():
    mean = torch.tensor([[[0.1, 0.1], [2.0, 2.0]]], requires_grad=True)
    kl = Gaussian(mean, torch.zeros(1, 2, 2)).kl()
    paid = free_bits(kl, 1.0)
    # The first dimension holds .005 nats, under one bit; the second 2.
    assert paid.item() == pytest.approx(math.log(2) + 2)
    paid.backward()
    assert torch.equal(mean.grad[0, 0], torch.zeros(2))
    assert (mean.grad[0, 1] > 0).all()
    assert free_bits(kl, 0.0).item() == pytest.approx(kl.sum().item() / 2)


def test_the_weight_grows_in_a_line():
    assert [kl_weight(0.5, step, 10) for step in (0, 1, 5, 10, 11)] == pytest.approx([0, 0.05, 0.25, 0.5, 0.5])
    assert kl_weight(0.5, 0, 0) == 0.5
    assert kl_weight(0.5, VALIDATION_INDEX, 10) == 0.5


def test_a_code_without_it_is_what_it_was(tiny_autoencoder):
    """Same weights from the same seed, the same bits out, and the encoder as it was written before."""
    assert not [key for key in tiny_autoencoder.state_dict() if "log_variance" in key]
    assert not checkpoint.load("default").autoencoder.config.content.variational
    mel = torch.randn(2, 80, 51) - 5
    encoder = tiny_autoencoder.content_encoder
    x, weight = tiny_autoencoder.normalize(mel), torch.ones(2, 1, 51)
    y = encoder.input(encoder.instance_norm(x, weight))
    for stack in encoder.normalized:
        y = encoder.instance_norm(stack(y), weight)
    y = encoder.output(encoder.pool(encoder.free(y)))
    assert torch.equal(encoder(x, weight), y)
    # And the mean of a variational one with the same weights is the same.
    torch.manual_seed(0)
    other = variational()
    for key, value in tiny_autoencoder.state_dict().items():
        if not key.startswith(("speaker_encoder.", "decoder.")):
            assert torch.equal(other.state_dict()[key], value), key
    assert torch.equal(other.content_encoder(x, weight), y)
    with pytest.raises(ConfigError, match=r"not variational; set content\.variational"):
        tiny_autoencoder.encode_posterior(mel)


@pytest.mark.parametrize("normalize_latent", [False, True])
def test_evaluation_takes_the_mean_and_training_draws(normalize_latent):
    model = variational(normalize_latent=normalize_latent)
    mel, f0 = torch.randn(1, 80, 40) - 5, torch.zeros(1, 40)
    found = model(mel, f0)
    assert torch.equal(found.latent, model.encode_content(mel))
    assert torch.equal(found.latent, found.posterior.mean)
    assert torch.equal(found.mel, model(mel, f0).mel)
    model.train()
    assert not torch.equal(model(mel, f0).mel, model(mel, f0).mel)


def test_conversion_takes_the_mean(tmp_path, speech, tiny_vocoder):
    """A variational checkpoint converts as the deterministic one of the same weights does."""
    model = variational()
    plain = Autoencoder(from_dict(AutoencoderConfig, TINY)).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "log_variance" not in k})
    made = []
    for name, autoencoder in (("plain", plain), ("variational", model)):
        checkpoint.save(tmp_path / f"{name}.safetensors", autoencoder, tiny_vocoder)
        loaded = vcae.load(tmp_path / f"{name}.safetensors", device="cpu")
        made.append(loaded.convert(speech[:16000], 16000, speech[16000:40000]))
    assert torch.equal(*made)


def test_padding_changes_nothing_in_the_posterior():
    model = variational()
    mel = torch.randn(1, 80, 40) - 5
    alone = model.encode_posterior(mel)
    padded = model.encode_posterior(torch.nn.functional.pad(mel, (0, 20), value=3.0), torch.tensor([40]))
    for name in ("mean", "log_variance"):
        torch.testing.assert_close(getattr(padded, name)[..., :20], getattr(alone, name), rtol=1e-4, atol=1e-5)
        assert not getattr(padded, name)[..., 20:].any()


def test_the_objective_weighs_kl_by_the_step(recipe, cache):
    still = {"warp": 0.0, "tilt_db": 0.0, "gain_db": 0.0, "noise_db": 200.0, "mask_probability": 0.0}
    settings = recipe(perturb=still)
    objective = AutoencoderObjective(settings, 3)
    batch = CropDataset(SpeechCache(cache), from_dict(DataConfig, to_dict(settings.data)), 0)[3]
    found = []
    for index in (0, 3, 6, 600):
        torch.manual_seed(1)
        losses = objective(batch | {"index": torch.tensor(index)})
        found.append((losses["loss"] - losses["mel"] - 0.1 * losses["speaker"] - 0.1 * losses["adversary"]).item())
        assert losses["kl"].item() > 0
    paid = found[2] / 0.01
    assert paid >= 12 * 0.1 * math.log(2)
    assert found == pytest.approx([0, 0.005 * paid, 0.01 * paid, 0.01 * paid], rel=1e-3, abs=1e-6)


def test_resume_is_exact(recipe):
    def trainer(output):
        chosen = recipe(output)

        def save(objective, path, step):
            checkpoint.save(path, objective.model, info={"step": step})

        return Trainer(lambda n: AutoencoderObjective(chosen, n), chosen.data, chosen.train, to_dict(chosen), save)

    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    trainer("whole").run()
    trainer("parts").run(until=4)
    resumed = trainer("parts")
    assert resumed.step == 4
    resumed.run()
    whole, parts = (load_file(resumed.output.parent / x / "state.safetensors") for x in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert any("log_variance" in key and "exp_avg" in key for key in whole)
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key
    found = checkpoint.load(resumed.output / "last.safetensors").autoencoder
    assert found.config.content.variational
