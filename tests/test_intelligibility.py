"""The recogniser as a teacher, and training on what it finds in conversions."""

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import CLIPS
from tests.test_conversion_training import batch_of, cache, recipe_of  # noqa: F401
from vcae.audio.f0 import estimate_f0
from vcae.audio.mel import LogMel
from vcae.checkpoint import load
from vcae.errors import CheckpointError, ConfigError
from vcae.training.conversion import ConversionObjective
from vcae.training.critic import MelCritic, read_critic
from vcae.training.intelligibility import Intelligibility

pytest.importorskip("moonshine_cpp", reason="moonshine-cpp is not installed; the extra eval brings it")
onnxruntime = pytest.importorskip("onnxruntime")

CONVERTED = {"recogniser_weight": 1.0, "voice_weight": 0.5, "n_spoken": 4, "n_own": 1}


@pytest.fixture(scope="module")
def speech():
    wav, _ = soundfile.read(CLIPS / "source.flac", dtype="float32")
    return wav[16000:48000]


@pytest.fixture(scope="module")
def intelligibility():
    return Intelligibility("default")


def test_features_are_those_of_the_package(speech, intelligibility):
    from vcae.training.recogniser import _find_weights

    session = onnxruntime.InferenceSession(str(_find_weights()))
    (wanted,) = session.run(None, {session.get_inputs()[0].name: speech[None]})
    found = intelligibility.recogniser(torch.from_numpy(speech)[None])[-1]
    assert np.abs(wanted).mean() > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_the_same_words_are_nearer_than_others(speech, intelligibility):
    wav = torch.from_numpy(speech)[None]
    mel = LogMel(load("default").autoencoder.config.mel)(wav)
    f0 = torch.from_numpy(np.asarray(estimate_f0(speech), dtype=np.float32))[None, : mel.shape[-1]]

    def distance(mel, f0):
        return float(intelligibility.distance(intelligibility.speak(mel, f0, wav.shape[-1]), wav))

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
    assert all(p.grad is None for p in objective.intelligibility.vocoder.parameters())


def test_the_first_crops_keep_their_voice_and_the_others_take_the_next(cache):  # noqa: F811
    objective = ConversionObjective(recipe_of(cache, **CONVERTED))
    batch = batch_of(objective.recipe)
    mel = objective.log_mel(batch["wav"])
    f0 = batch["f0"][:, : mel.shape[-1]]
    own = objective.embeddings(mel)
    _, moved, voices = objective.exchange(mel, f0, None)
    assert torch.equal(moved[:1], f0[:1])
    assert torch.equal(voices[:1], own[:1])
    assert torch.equal(voices[1:], own.roll(2, dims=0)[1:])


def test_critics_of_other_trainings_are_told(tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="critic_state"):
        read_critic(MelCritic(8, 4), tmp_path / "state.safetensors")


def test_more_spoken_crops_than_there_are_is_told(cache):  # noqa: F811
    with pytest.raises(ConfigError, match="n_spoken 40"):
        recipe_of(cache, **CONVERTED | {"n_spoken": 40})
