"""vcae voice train: the decoder fitted to a voice, judged on held-out speech."""

import copy
import json
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

import vcae
import vcae.voice.train as training
from vcae.audio.io import read_sound
from vcae.cli.app import app
from vcae.errors import AudioError
from vcae.voice.fitting import fit_voice


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Conversions to one generated voice suffice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "N_OTHERS", 1)
        yield


@pytest.fixture(scope="module")
def recordings(clips):
    return [read_sound(clips["reference"])] * 4


@pytest.fixture(scope="module")
def trained(model, recordings):
    told = []
    return training.train_voice(model, recordings, lambda share, left_s: told.append((share, left_s)), steps=6), told


def test_held_out_speech_gets_better(trained):
    done, told = trained
    assert done.voice is not None
    assert done.after_db < done.before_db - 0.02
    assert done.speech_s + done.held_out_s > 20
    assert 3 < done.held_out_s < done.speech_s
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1], done.steps) == (0.0, 1.0, 6)
    assert told[-1][1] == 0


def test_only_what_was_trained_is_saved_and_used(model, trained, tmp_path, speech):
    voice = trained[0].voice
    path = vcae.save_voice(voice, tmp_path / "v.safetensors", {"clips": []})
    loaded = fit_voice(model, vcae.load_voice(path))
    base = dict(model.autoencoder.decoder.named_parameters())
    changed = {name for name, value in loaded.decoder.named_parameters() if not torch.equal(value, base[name])}
    assert changed == set(voice.decoder_weights) < set(base)
    assert not any(name.startswith("reference_encoder") for name in changed)
    assert loaded.origin.sha256 == model.checkpoint.sha256
    short = speech[16000:48000]
    made = model.convert(short, 16000, loaded).wav
    assert np.abs(made - model.convert(short, 16000, voice).wav).max() < 1e-3
    plain = model.convert(short, 16000, vcae.load_voice(path, vcae.load(device="cpu"))).wav
    assert np.array_equal(made, plain)


def test_the_input_layer_learns_what_a_voice_adds_to_content(model):
    """What another voice adds is the same everywhere here, so that all of it can be removed, also in content that is new."""
    generator = torch.Generator().manual_seed(0)
    size, stride = model.autoencoder.config.content.latent_dim, model.autoencoder.config.content.stride
    added = torch.randn(1, size, 1, generator=generator)

    def piece(n):
        own = torch.randn(1, size, n, generator=generator)
        mel = torch.zeros(1, model.mel_config.n_mels, n * stride)
        return training._Piece(mel, mel[:, 0], (own, 0.8 * own + added))

    def layer(decoder, content):
        other = torch.zeros(1, decoder.input.in_channels - size, content.shape[-1] * stride)
        return decoder.input(torch.cat([content.repeat_interleave(stride, dim=-1), other], dim=1))[..., 4:-4]

    decoder = copy.deepcopy(model.autoencoder.decoder)
    training.fit_input(decoder, [piece(200) for _ in range(4)])
    own, others = piece(100).contents
    wanted = layer(model.autoencoder.decoder, own)
    before, after = (float((layer(d, others) - wanted).square().mean()) for d in (model.autoencoder.decoder, decoder))
    assert after < 0.01 * before


def test_a_training_that_makes_it_worse_is_refused(model, recordings, monkeypatch):
    monkeypatch.setattr(training, "LEARNING_RATE", 1.0)
    done = training.train_voice(model, recordings, steps=3)
    assert done.voice is None
    assert done.after_db > done.before_db


def test_it_ends_when_its_time_is_over(model, recordings):
    done = training.train_voice(model, recordings, steps=10_000, max_s=0.5)
    assert 1 <= done.steps < 100


def test_too_little_speech(model, recordings):
    with pytest.raises(AudioError, match=r"s of speech found in the clips \(2\); training needs 20 s"):
        training.train_voice(model, recordings[:2])


def test_the_command(clips, tmp_path, monkeypatch):
    monkeypatch.setenv("VCAE_VOICES", str(tmp_path / "voices"))
    monkeypatch.setattr(training, "train_voice", partial(training.train_voice, steps=4))
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.flac").write_bytes(clips["reference"].read_bytes())
    done = CliRunner().invoke(app, ["voice", "train", "mine", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)
    assert row["error_db_after"] < row["error_db_before"]
    assert row["clips"] == ["a.flac", "b.flac", "c.flac", "d.flac"]
    assert (tmp_path / "voices/mine.safetensors").stat().st_size == row["bytes"] < 6_000_000
    again = CliRunner().invoke(app, ["voice", "train", "mine", str(folder)])
    assert (again.exit_code, "a voice called mine exists" in again.stderr) == (2, True)
    saved = CliRunner().invoke(app, ["voice", "train", "other", "mine"])
    assert (saved.exit_code, "training needs recordings of one voice" in saved.stderr) == (2, True)
    out = tmp_path / "x.wav"
    used = CliRunner().invoke(app, ["convert", str(clips["source"]), "-s", "mine", "-o", str(out)])
    assert used.exit_code == 0, used.output
    assert soundfile.info(out).frames == soundfile.info(clips["source"]).frames
    monkeypatch.setattr(training, "LEARNING_RATE", 1.0)
    worse = CliRunner().invoke(app, ["voice", "train", "worse", str(folder)])
    assert worse.exit_code == 2
    assert "nothing was saved" in worse.stderr
    assert not (tmp_path / "voices/worse.safetensors").exists()
