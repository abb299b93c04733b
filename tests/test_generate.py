"""The generator: priors, what is drawn from them, and what lies between two voices."""

import json
import math
import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch

import vcae
from tests.conftest import CLIPS, ROOT
from tests.forked import python
from vcae import checkpoint, load_voice, save_voice
from vcae.audio.io import read_sound
from vcae.errors import CheckpointError, ConfigError
from vcae.model.config import VoicePriorConfig
from vcae.model.voice_prior import VoicePrior, annealed, free_divergence, gaussian_divergence, gaussian_log_density
from vcae.model.weights import hash_weights
from vcae.options import BabbleOptions
from vcae.tasks.babble import babbler, nucleus, sample_units
from vcae.training.cache import prepare_cache, read_manifest
from vcae.training.config import GeneratorRecipe
from vcae.training.units import bits_a_unit
from vcae.training.voices import fit_voice_prior, gaussian_likelihood, likelihoods, whiten_voices
from vcae.voice.new import between_voices, carry_voice, draw, map_voices, priors
from vcae.voice.space import load_priors, save_priors
from vcae.voice.voice import voice_from_sounds


def test_divergence_is_that_of_torch():
    mean, log_deviation = torch.randn(5, 3), 0.3 * torch.randn(5, 3)
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(normal(mean, log_deviation.exp()), normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_divergence(mean, log_deviation), wanted)
    density = normal(mean, log_deviation.exp()).log_prob(torch.ones(5, 3)).sum(1)
    torch.testing.assert_close(gaussian_log_density(torch.ones(5, 3), mean, log_deviation), density)


def test_free_nats_cost_nothing_to_lower_and_weights_grow():
    divergence = torch.tensor([[0.0, 1.0], [0.1, 3.0]])
    assert float(free_divergence(divergence, 0.5)) == pytest.approx(0.5 + 2.0)
    assert [annealed(s, 10) for s in (0, 5, 10, 99)] == [0.0, 0.5, 1.0, 1.0]


def test_the_bound_is_exact_where_latents_say_nothing():
    prior = VoicePrior(VoicePriorConfig(4, 2, 3, 8)).eval()
    for matrix in (prior.encoder_matrix, prior.decoder_matrix, prior.encoder_network[-1], prior.decoder_network[-1]):
        torch.nn.init.zeros_(matrix.weight)
        torch.nn.init.zeros_(matrix.bias)
    x = torch.randn(6, 8)
    bound = prior.log_likelihood(x, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(bound, gaussian_log_density(x, torch.zeros_like(x), torch.zeros_like(x)))


def test_a_fitted_prior_beats_a_gaussian_on_two_clusters():
    generator = torch.Generator().manual_seed(0)
    n, side = 2000, torch.tensor([1.0, -1.0]).repeat(1000)[:, None]
    x = torch.randn(n, 8, generator=generator) * 0.3 + side * torch.tensor([2.0, 2, 0, 0, 0, 0, 0, 0])
    speakers = torch.arange(n) // 10
    voices = whiten_voices(x[:, :4], x[:, 4:6], x[:, 6:], speakers, speakers % 5 == 0, 2)
    torch.testing.assert_close(voices.features[~voices.held].var(0, correction=0), torch.ones(8), atol=1e-3, rtol=0)
    model = VoicePriorConfig(4, 2, 2, 16)
    recipe = GeneratorRecipe(model=model, max_steps=400, noise=0.0, dropout=0.0, weight_decay=0.0, learning_rate=5e-3)
    found = likelihoods(voices, fit_voice_prior(voices, recipe))
    assert found["prior"] > found["full"] + 0.1
    assert found["full"] >= found["diagonal"]
    alike = gaussian_likelihood(voices.features, voices.features, 1.0)
    assert alike == pytest.approx(-0.5 * 8 * (1 + math.log(2 * math.pi)), abs=0.3)


def test_drawing_is_seeded_and_keeps_to_the_nucleus():
    np.testing.assert_allclose(nucleus(np.array([0.1, 0.6, 0.3]), 0.7), [0.0, 2 / 3, 1 / 3])
    known = babbler()
    sizes = known.prior.config
    first, second, other = (known.sample(60, seed, 1.0, 0.9) for seed in (1, 1, 2))
    assert first == second != other
    assert len(set(first)) > 10
    assert set(first) <= set(range(sizes.n_units))
    # Of the likeliest alone nothing is drawn: each follows from what is before it.
    assert known.sample(20, 3, top_p=1e-9) == known.sample(20, 4, top_p=1e-9)
    start = torch.full((1, sizes.context), sizes.n_units)
    assert known.sample(1, 0, top_p=1e-9)[0] == int(known.prior(start)[0].argmax())


def test_the_shipped_prior_of_units_belongs_to_the_shipped_units_and_predicts_them(speech):
    known, path = babbler(), checkpoint.find("babble")
    assert path.stat().st_size < 500_000
    assert path.with_suffix(".sha256").read_text().split()[0] == checkpoint.verify(path)
    assert known.checkpoint_sha256 == checkpoint.verify(checkpoint.find("vq"))
    units = torch.tensor(vcae.load("vq", device="cpu").units(speech, 16000).units)
    bits = bits_a_unit(known.prior, [units])
    assert bits < math.log2(known.prior.config.n_units) - 2
    assert bits < bits_a_unit(known.prior, [units.flip(0)])
    with pytest.raises(CheckpointError, match="belongs to the units of the checkpoint vq, not of vq-narrow"):
        sample_units(vcae.load("vq-narrow", device="cpu"), BabbleOptions())


@pytest.fixture(scope="module")
def heard(model):
    return [voice_from_sounds(model, [read_sound(CLIPS / f"{name}.flac")]) for name in ("reference", "reference2")]


def test_the_shipped_priors_are_whole(model):
    known = load_priors("voices")
    assert known.metadata["speaker_sha256"] == hash_weights(model.autoencoder.the_speaker_encoder())
    assert known.path.stat().st_size < 2_000_000
    torch.testing.assert_close(known.space.whiten @ known.space.unwhiten, torch.eye(len(known.space.mean)), atol=0.05, rtol=0)
    torch.testing.assert_close(known.known.norm(dim=1), torch.ones(len(known.known)), atol=1e-3, rtol=0)
    assert set(known.metadata["info"]) >= {"author", "data", "licence"}
    assert known.metadata["nats_a_voice"]["prior"] > known.metadata["nats_a_voice"]["full"]


def test_new_voices_are_far_from_everyone_and_spread_like_people():
    known = priors()
    drawn = [draw(known, seed) for seed in range(150)]
    vectors = torch.cat([d.speaker_embedding for d in drawn])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(150), atol=1e-4, rtol=0)
    assert float((vectors @ known.known.T).max()) <= known.metadata["limit"]
    assert int(torch.linalg.matrix_rank(vectors, rtol=1e-4)) <= known.metadata["directions"] + 1
    median = torch.tensor([d.log_f0_median for d in drawn])
    low, high = known.metadata["medians"]
    assert low <= float(median.min()) < float(median.max()) <= high
    assert 0.2 < float(median.std()) < 0.45
    assert 110 < math.exp(float(median.mean())) < 220
    narrow = torch.tensor([draw(known, seed, 0.3).log_f0_median for seed in range(50)])
    assert narrow.std() < 0.5 * median.std()
    places = map_voices(drawn)
    assert len({(round(p.x, 3), round(p.y, 3)) for p in places}) > 140
    assert [p.f0_hz for p in places] == pytest.approx(median.exp().tolist(), rel=1e-5)


def test_a_drawn_voice_is_confined_to_known_directions_and_a_known_one_is_not_new():
    known = priors()
    drawn, person = draw(known, 4), known.known[7:8]
    assert known.is_new(drawn)
    assert not known.is_new(replace(drawn, speaker_embedding=person))
    assert not known.is_new(replace(drawn, log_f0_median=known.metadata["medians"][0] - 0.01))
    outside = torch.linalg.svd(known.known - known.known.mean(0), full_matrices=False).Vh[known.metadata["directions"]]
    bent = known.confine(replace(drawn, speaker_embedding=drawn.speaker_embedding + 0.5 * outside))
    torch.testing.assert_close(bent.speaker_embedding, known.confine(drawn).speaker_embedding, atol=1e-4, rtol=0)


def test_a_new_voice_is_saved_and_used_as_any_other(model, speech, tmp_path):
    first, second = model.new_voice(3), model.new_voice(3)
    assert torch.equal(first.recordings[0].mel, second.recordings[0].mel)
    save_voice(first, tmp_path / "v.safetensors", {}, force=True)
    again = load_voice(tmp_path / "v.safetensors", model)
    one, two = (model.convert(speech[:32000], 16000, v) for v in (first, again))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)
    told = model.encode(one.numpy(), 16000)
    own = model.encode(speech[:32000], 16000).speaker_embedding
    assert float((told.speaker_embedding @ first.speaker_embedding.T)[0]) > float((own @ first.speaker_embedding.T)[0]) + 0.2
    voiced = told.f0[told.f0 > 0].log().median()
    assert float(voiced) == pytest.approx(first.log_f0_median, abs=0.1)


@pytest.mark.parametrize(
    ("seed", "spread", "said"), [(-1, 1.0, "seed is -1"), (0, 0.0, "spread is 0.0"), (0, 9.0, "spread is 9.0")]
)
def test_what_cannot_be_drawn_is_refused(model, seed, spread, said):
    with pytest.raises(ConfigError, match=said):
        model.new_voice(seed, spread)


def test_the_way_between_voices_begins_and_ends_with_them(model, heard):
    voices = between_voices(model, heard[0], heard[1], 5)
    assert voices[0] is heard[0]
    assert voices[-1] is heard[1]
    ends = torch.cat([v.speaker_embedding for v in heard])
    shares = torch.cat([v.speaker_embedding for v in voices]) @ ends.T
    assert (shares[:, 0].diff() < 0).all()
    assert (shares[:, 1].diff() > 0).all()
    medians = [v.log_f0_median for v in voices]
    assert min(medians) >= min(v.log_f0_median for v in heard) - 0.15
    near = between_voices(model, heard[0], heard[1], 100)[1]
    assert float((near.speaker_embedding @ heard[0].speaker_embedding.T)[0]) > 0.999
    torch.testing.assert_close(near.quantiles[1], heard[0].quantiles[1], atol=0.2, rtol=0)
    with pytest.raises(ConfigError, match="steps is 1"):
        between_voices(model, heard[0], heard[1], 1)


def test_a_voice_is_carried_to_another_encoder(model, heard):
    other = vcae.load("vq-narrow", device="cpu")
    carried = carry_voice(model, heard[0], other)
    direct = voice_from_sounds(other, [read_sound(CLIPS / "reference.flac")])
    others = voice_from_sounds(other, [read_sound(CLIPS / "source.flac")])
    assert float((carried.speaker_embedding @ direct.speaker_embedding.T)[0]) > 0.5
    assert float((carried.speaker_embedding @ direct.speaker_embedding.T)[0]) > float(
        (carried.speaker_embedding @ others.speaker_embedding.T)[0]
    )
    assert carried.log_f0_median == heard[0].log_f0_median


def test_a_voice_keeps_its_embedding_where_the_encoder_is_the_same(model, heard):
    carried = carry_voice(model, heard[0], vcae.load("vq", device="cpu"))
    assert torch.equal(carried.speaker_embedding, heard[0].speaker_embedding)
    assert carried.origin.checkpoint == "vq"
    assert carried.reference is not None


def test_priors_of_another_speaker_encoder_and_damaged_files_are_refused(tmp_path, tiny_checkpoint):
    known = priors()
    with pytest.raises(CheckpointError, match="use the checkpoint default"):
        known.check(vcae.load(tiny_checkpoint))
    path = tmp_path / "p.safetensors"
    facts = {key: known.metadata[key] for key in ("speaker_sha256", "limit", "directions", "medians")}
    parts = (known.prior, known.space, known.known, (known.bank_mel, known.bank_f0))
    save_priors(path, *parts, facts)
    again = load_priors(path)
    torch.testing.assert_close(draw(again, 5).speaker_embedding, draw(known, 5).speaker_embedding)
    save_priors(path, parts[0], replace(known.space, mean=known.space.mean[:-1]), *parts[2:], facts)
    with pytest.raises(CheckpointError, match="does not fit its own config"):
        load_priors(path)
    save_priors(path, parts[0], replace(known.space, mean=known.space.mean * torch.nan), *parts[2:], facts)
    with pytest.raises(CheckpointError, match="not finite"):
        load_priors(path)
    with pytest.raises(CheckpointError, match="is not a prior"):
        load_priors("default")


def test_the_recipe_runs_from_a_cache_to_a_file_and_its_conversions(tmp_path):
    prepare_cache(read_manifest(CLIPS / "manifest.csv"), tmp_path / "cache", (1.0, 1.2))
    folder, output = tmp_path / "out", tmp_path / "out" / "v.safetensors"
    settings = [f"data={tmp_path / 'cache'}", f"held_data={tmp_path / 'cache'}", f"output_dir={folder}", f"output={output}"]
    for script in ("describe", "units", "train", "map"):
        command = [*python(), f"recipes/generator/{script}.py", "recipes/generator/conf/debug.yaml", *settings]
        environment = dict(os.environ, PYTHONPATH=str(ROOT))
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if script == "units":
            bits = json.loads(done.stdout.splitlines()[-1])["bits_a_unit"]
            # Counted on what is tested.
            assert bits["bigram"] < bits["unigram"] < 10
            assert bits["prior"] < 9
    made = load_priors(output)
    assert len(made.known) == 3
    assert made.bank_mel.shape == (1, 80, 120)
    assert (folder / "map.png").read_bytes().startswith(b"\x89PNG")
