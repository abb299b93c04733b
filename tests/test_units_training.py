from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.fft import dct

from tests.conftest import ROOT
from tests.test_recipes import run
from tests.test_training import _fresh_accelerate, cache  # noqa: F401
from vcae import checkpoint
from vcae.audio.config import MelConfig
from vcae.audio.mel import LogMel
from vcae.config import from_dict, load_config, to_dict
from vcae.errors import CheckpointError, DataError
from vcae.model.unit_prior import PART, UnitPrior, UnitPriorConfig, contexts, unit_prior_of
from vcae.training.config import AutoencoderRecipe, DiscoveryRecipe
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.discovery import MaskedPredictionObjective, mfcc
from vcae.training.objectives import AutoencoderObjective, borrow
from vcae.training.prosody import prosody_losses, runs
from vcae.training.trainer import Trainer
from vcae.training.units import (
    UnitTrainingRecipe,
    bits_a_unit,
    encode_cache,
    first_codes,
    fit_codebooks,
    left_over,
    train_prior,
    train_prosody,
    with_units,
)


def _recipe(cls, name, cache, output, **changes):  # noqa: F811
    values = to_dict(load_config(cls, ROOT / f"recipes/{name}/conf/debug.yaml"))
    values["data"] |= {"cache": str(cache), "validation_cache": str(cache)}
    values["train"] |= {"output_dir": str(output)}
    return from_dict(cls, values | changes)


def _batch(recipe, cache, index=0):  # noqa: F811
    return CropDataset(SpeechCache(cache), recipe.data, 0)[index]


def test_vq_learns_its_codes_and_reaches_every_part(cache, tmp_path):  # noqa: F811
    recipe = _recipe(AutoencoderRecipe, "vq_narrow", cache, tmp_path)
    objective = AutoencoderObjective(recipe, 6).train()
    before = objective.model.quantizer.stages[0].vectors.clone()
    losses = objective(_batch(recipe, cache))
    assert {"commitment", "perplexity", "durations", "voicing", "contour"} <= set(losses)
    losses["loss"].backward()
    reached = {name.split(".")[0] for name, p in objective.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"content_encoder", "speaker_encoder", "decoder", "prosody"}
    assert not torch.equal(before, objective.model.quantizer.stages[0].vectors)
    held = objective.eval().model.quantizer.stages[0].vectors.clone()
    objective(_batch(recipe, cache))
    assert torch.equal(held, objective.model.quantizer.stages[0].vectors)


def test_prosody_leaves_the_codes_alone(cache, tmp_path):  # noqa: F811
    recipe = _recipe(AutoencoderRecipe, "vq_narrow", cache, tmp_path)
    objective = AutoencoderObjective(recipe, 6).train()
    batch = _batch(recipe, cache)
    # The first batch starts the codebook.
    objective(batch)
    model = objective.model
    codes = model.encode_units(objective.log_mel(batch["wav"]))
    prosody_losses(model, codes[:, :1], batch["f0"])["prosody"].backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"prosody"}


@pytest.mark.slow
def test_durations_and_voicing_are_learned(cache, tmp_path):  # noqa: F811
    torch.manual_seed(0)
    model = AutoencoderObjective(_recipe(AutoencoderRecipe, "vq_narrow", cache, tmp_path), 6).model
    # Even units last two steps and are unvoiced; odd ones last five, at 150 Hz after an even multiple of four, else at 100 Hz.
    rng = np.random.default_rng(0)
    codes, f0 = [], []
    for _ in range(8):
        units = [int(u) for _ in range(12) for u in (2 * rng.integers(0, 8), 2 * rng.integers(0, 8) + 1)]
        lengths = [2 if u % 2 == 0 else 5 for u in units]
        hz = [0.0 if u % 2 == 0 else (150.0 if units[n - 1] % 4 == 0 else 100.0) for n, u in enumerate(units)]
        codes.append(np.repeat(units, lengths)[:80])
        f0.append(np.repeat(np.repeat(hz, lengths)[:80], 2))
    codes = torch.tensor(np.stack(codes))[:, None]
    f0 = torch.tensor(np.stack(f0), dtype=torch.float32)
    optimizer = torch.optim.Adam(model.prosody.parameters(), 5e-3)
    first = None
    for _ in range(150):
        losses = prosody_losses(model, codes, f0)
        first = first or {k: v.item() for k, v in losses.items()}
        optimizer.zero_grad()
        losses["prosody"].backward()
        optimizer.step()
    assert losses["voicing"] < 0.1 * first["voicing"]
    assert losses["contour"] < 0.3 * first["contour"]
    expected = model.prosody.log_durations(model.decode_units(torch.tensor([[[2, 7, 4, 9, 0]]])))[0].exp()
    assert expected[1:4].tolist() == pytest.approx([5, 2, 5], abs=1)


def test_runs():
    units, lengths = runs(torch.tensor([3, 3, 1, 3, 3, 3]))
    assert (units.tolist(), lengths.tolist()) == ([3, 1, 3], [2, 1, 3])


def test_mfcc_are_the_cosine_transform_and_its_slopes(speech):
    mel = LogMel(MelConfig())(torch.from_numpy(speech)[None])
    found = mfcc(mel)[0].numpy()
    assert found.shape[0] == 39
    cepstra = dct(mel[0].numpy(), axis=0)[:13]
    slopes = np.gradient(cepstra, axis=1)
    for n in range(13):
        assert np.corrcoef(found[n], cepstra[n])[0, 1] > 0.999
        assert np.corrcoef(found[13 + n][2:-2], slopes[n][2:-2])[0, 1] > 0.8
    louder = mfcc(mel + 1.0)[0].numpy()
    assert np.abs(louder - found).max() < 1e-2


def test_discovery_predicts_what_is_hidden_and_trains_the_content_encoder_alone(cache, tmp_path):  # noqa: F811
    recipe = _recipe(DiscoveryRecipe, "discovery", cache, tmp_path)
    objective = MaskedPredictionObjective(recipe).train()
    batches = [_batch(recipe, cache, n) for n in range(3)]
    objective.initialize(batches)
    mel = objective.log_mel(batches[0]["wav"])
    targets = objective.targets(mel)
    assert targets.shape == (4, -(-mel.shape[-1] // 2))
    assert len(targets.unique()) > 10
    losses = objective(batches[0])
    losses["loss"].backward()
    reached = {name.split(".")[0] for name, p in objective.model.named_parameters() if p.grad is not None}
    assert reached == {"content_encoder"}
    # Masks and warps are tied to the batch, so that a resumed training sees the same ones.
    assert torch.equal(objective(batches[0])["loss"], losses["loss"])
    assert not torch.equal(objective(batches[1])["loss"], losses["loss"])


@pytest.mark.slow
def test_discovery_learns_goes_on_exactly_and_teaches_a_second_round(cache, tmp_path):  # noqa: F811
    recipe = _recipe(DiscoveryRecipe, "discovery", cache, tmp_path / "whole")

    def save(objective, path, step):
        checkpoint.save(path, autoencoder=objective.model, info={"step": step})

    def trainer(recipe):
        return Trainer(lambda _: MaskedPredictionObjective(recipe), recipe.data, recipe.train, to_dict(recipe), save)

    whole = trainer(recipe)
    first = whole.objective(whole.dataset[0])["loss"].item()
    assert whole.run()
    parted = _recipe(DiscoveryRecipe, "discovery", cache, tmp_path / "parted")
    trainer(parted).run(until=4)
    resumed = trainer(parted)
    assert resumed.step == 4
    resumed.run()
    for name, value in whole.objective.state_dict().items():
        assert torch.equal(value, resumed.objective.state_dict()[name]), name
    whole.objective.train()
    assert whole.objective(whole.dataset[0])["loss"].item() < first
    taught = _recipe(DiscoveryRecipe, "discovery", cache, tmp_path, teacher=str(tmp_path / "whole/last.safetensors"))
    second = MaskedPredictionObjective(taught)
    second.initialize([_batch(taught, cache)])
    mel = second.log_mel(_batch(taught, cache)["wav"])
    assert torch.equal(second.features(mel), whole.objective.eval().model.encode_latent(mel))
    assert len(second.targets(mel).unique()) > 5


def test_borrowing_takes_what_fits(cache, tmp_path, tiny_autoencoder, tiny_vocoder):  # noqa: F811
    checkpoint.save(tmp_path / "t.safetensors", autoencoder=tiny_autoencoder)
    config = to_dict(tiny_autoencoder.config)
    config["content"] |= {"latent_dim": 6}
    model = type(tiny_autoencoder)(from_dict(type(tiny_autoencoder.config), config | {"quantizer": {"codebook_size": 8}}))
    missing = borrow(model, str(tmp_path / "t.safetensors"))
    assert set(missing) >= {"content_encoder.output.weight", "decoder.input.weight", "quantizer.stages.0.vectors"}
    assert torch.equal(
        model.speaker_encoder.state_dict()["input.weight"], tiny_autoencoder.speaker_encoder.state_dict()["input.weight"]
    )
    torch.manual_seed(5)
    fresh = type(tiny_autoencoder)(model.config)
    kept = fresh.content_encoder.input.weight.clone()
    borrow(fresh, str(tmp_path / "t.safetensors"), skip="content_encoder.")
    assert torch.equal(fresh.content_encoder.input.weight, kept)
    checkpoint.save(tmp_path / "v.safetensors", vocoder=tiny_vocoder)
    with pytest.raises(CheckpointError, match="has no autoencoder; set borrowed"):
        borrow(model, str(tmp_path / "v.safetensors"))


def test_padding_changes_no_code():
    recipe = load_config(AutoencoderRecipe, ROOT / "recipes/vq_narrow/conf/debug.yaml")
    model = AutoencoderObjective(recipe, 2).model.eval()
    mel = torch.randn(2, 80, 61)
    lengths = torch.tensor([61, 40])
    padded = model.encode_content(mel, lengths)
    alone = model.encode_content(mel[1:, :, :40])
    torch.testing.assert_close(padded[1:, :, :20], alone)
    assert not padded[1, :, 20:].any()
    codes = model.encode_units(mel[1:, :, :40])
    torch.testing.assert_close(model.decode_units(codes), alone)


# ---- Units on a trained autoencoder


@pytest.fixture(scope="module")
def recipe(cache, tmp_path_factory):  # noqa: F811
    values = to_dict(load_config(UnitTrainingRecipe, ROOT / "recipes/vq/conf/debug.yaml"))
    folder = tmp_path_factory.mktemp("vq")
    values |= {"data": str(cache), "held_data": str(cache)}
    values |= {"output": str(folder / "vq.safetensors"), "prior_output": str(folder / "babble.safetensors")}
    return from_dict(UnitTrainingRecipe, values)


@pytest.fixture(scope="module")
def with_codebooks(recipe):
    model = with_units(recipe)
    speech = encode_cache(model, recipe.data, recipe.hours, recipe.seed)
    fit_codebooks(model, speech, recipe)
    return model, speech


def test_codebooks_leave_less_at_every_stage_and_change_nothing_else(with_codebooks, model):
    made, speech = with_codebooks
    first, second = left_over(made, speech)
    assert 0 < second < first < 1
    for name, value in model.autoencoder.state_dict().items():
        assert torch.equal(made.state_dict()[name], value), name
    # Each vector is the mean of its latents: no step towards it is left.
    latent = torch.cat([s.latent[s.active] for s in speech])
    codes = made.quantizer.stages[0].nearest(latent)
    means = torch.stack([latent[codes == k].mean(0) for k in range(16) if (codes == k).any()])
    vectors = torch.stack([made.quantizer.stages[0].vectors[k] for k in range(16) if (codes == k).any()])
    assert float((means - vectors).norm() / vectors.norm()) < 0.3


def test_prosody_and_prior_learn_and_leave_the_rest(with_codebooks, recipe):
    made, speech = with_codebooks
    recipe = replace(recipe, prosody_steps=12, prior_steps=200, crop_steps=16)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    codes, f0 = first_codes(made, speech), [s.f0 for s in speech]
    assert all(len(f) == 2 * len(c) for c, f in zip(codes, f0, strict=True))
    losses = list(train_prosody(made, codes, f0, recipe))
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    changed = {name.split(".")[0] for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"prosody"}
    prior, steps = train_prior(codes, recipe)
    untrained = bits_a_unit(prior, codes)
    assert len(list(steps)) == 200
    assert untrained == pytest.approx(4.0, abs=0.4)
    assert bits_a_unit(prior, codes) < untrained - 0.3


def test_contexts_hold_what_came_before():
    sizes = UnitPriorConfig(n_units=5, context=3, unit_dim=4, width=8)
    seen = contexts(torch.tensor([4, 0, 2, 1]), sizes)
    assert seen.tolist() == [[5, 5, 5], [5, 5, 4], [5, 4, 0], [4, 0, 2]]
    assert UnitPrior(sizes)(seen).shape == (4, 5)


def test_units_of_too_little_speech_or_on_units_are_refused(recipe, with_codebooks):
    made, speech = with_codebooks
    few = [replace(speech[0], latent=speech[0].latent[:4], active=torch.ones(4, dtype=torch.bool))]
    with pytest.raises(DataError, match="4 steps of speech are too few for 16 codes"):
        fit_codebooks(made, few, recipe)
    with pytest.raises(DataError, match="no utterance has 9000 steps"):
        next(train_prosody(made, first_codes(made, speech), [s.f0 for s in speech], replace(recipe, crop_steps=9000)))
    with pytest.raises(CheckpointError, match="has no autoencoder with a continuous latent"):
        with_units(replace(recipe, checkpoint="vq-narrow"))


def test_the_recipe_of_units_makes_a_checkpoint_and_a_prior(recipe):
    settings = [f"{name}={getattr(recipe, name)}" for name in ("data", "held_data", "output", "prior_output")]
    done = run("recipes/vq/fit.py", "recipes/vq/conf/debug.yaml", *settings)
    assert done.returncode == 0, done.stderr
    made = checkpoint.load(recipe.output)
    assert made.path.stat().st_size < 100_000
    assert made.autoencoder.config.quantizer.codebook_size == 16
    prior, found = checkpoint.load_module(recipe.prior_output, PART, unit_prior_of)
    assert prior.config.n_units == 16
    assert found.metadata["info"]["checkpoint_sha256"] == made.sha256
    assert found.metadata["info"]["bits_a_unit"] > 0
