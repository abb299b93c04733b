"""vcae voice train: a map of spectra for conversions to a voice, judged on held-out speech."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

import vcae
import vcae.voice.calibration as calibration
import vcae.voice.train as training
from vcae.audio.io import Sound, read_sound
from vcae.cli.app import app
from vcae.engine.listening import analyse
from vcae.errors import AudioError, ConfigError
from vcae.tasks.live import LiveConverter
from vcae.voice.fitting import fit_voice
from vcae.voice.readers import load_readers
from vcae.voice.spectrum import SpectrumMap
from vcae.voice.voice import mix_voices


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Conversions of eight readers suffice."""
    few = load_readers()[:8]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "load_readers", lambda: few)
        yield


@pytest.fixture(scope="module")
def recordings(clips):
    return [read_sound(clips["reference"])] * 4


@pytest.fixture(scope="module")
def trained(model, recordings):
    told = []
    return training.train_voice(model, recordings, told.append), told


def test_conversions_come_nearer_to_held_out_speech(trained):
    done, told = trained
    assert done.voice is not None
    assert done.after_db < done.before_db - 0.1
    assert done.speech_s + done.held_out_s > 20
    assert 3 < done.held_out_s < done.speech_s
    assert told == sorted(told)
    assert told[-1] == 1


def test_the_map_is_saved_and_used(model, trained, tmp_path, speech):
    voice = trained[0].voice
    path = vcae.save_voice(voice, tmp_path / "v.safetensors", {"clips": []})
    loaded = fit_voice(model, vcae.load_voice(path))
    assert torch.equal(loaded.spectrum_map.weight, voice.spectrum_map.weight)
    assert "fine-tuned" in repr(loaded)
    short = speech[16000:48000]
    made = model.convert(short, 16000, loaded).wav
    assert np.abs(made - model.convert(short, 16000, voice).wav).max() < 1e-3
    assert np.abs(made - model.convert(short, 16000, replace(voice, spectrum_map=None)).wav).max() > 1e-2


def test_a_live_conversion_uses_the_map(model, trained, speech):
    """A map that gives all bands one level is found in the newest frames."""
    voice = trained[0].voice
    n_mels = model.mel_config.n_mels
    flat = SpectrumMap(torch.zeros(2, n_mels, n_mels), torch.full((2, n_mels), -3.0))
    prior = analyse(model, Sound(np.asarray(speech, np.float32), 16000), 0.5)
    mels = []
    for one in (voice, replace(voice, spectrum_map=flat)):
        live = LiveConverter(model, one, prior)
        for at in range(0, 16000, live.block_samples):
            live(speech[at : at + live.block_samples])
        mels.append(live._past.final[..., -8:])
    assert float((mels[1] + 3.0).abs().max()) < 1e-4
    assert float((mels[0] + 3.0).abs().max()) > 1


def test_a_mix_has_the_mean_of_the_maps(model, trained, clips):
    voice, plain = trained[0].voice, model.voice(str(clips["reference2"]))
    mixed = mix_voices([voice, plain], [1, 3])
    identity = torch.eye(model.mel_config.n_mels)
    assert torch.allclose(mixed.spectrum_map.weight, identity + 0.25 * (voice.spectrum_map.weight - identity), atol=1e-5)
    assert torch.allclose(mixed.spectrum_map.bias, 0.25 * voice.spectrum_map.bias, atol=1e-5)
    assert mix_voices([plain, plain], [1, 1]).spectrum_map is None


def test_voices_of_earlier_versions_keep_their_decoder(model, trained, tmp_path, speech):
    """Until version 0.2 training changed the decoder; its parameters are in the voice's file."""
    decoder = copy.deepcopy(model.autoencoder.decoder)
    with torch.no_grad():
        decoder.output.bias += 0.1
    old = replace(trained[0].voice, spectrum_map=None, decoder_weights={"output.bias": decoder.output.bias.half()})
    path = vcae.save_voice(old, tmp_path / "old.safetensors", {"clips": []})
    loaded = fit_voice(model, vcae.load_voice(path))
    assert torch.allclose(loaded.decoder.output.bias, decoder.output.bias, atol=1e-2)
    short = speech[16000:32000]
    assert np.abs(model.convert(short, 16000, loaded).wav - model.convert(short, 16000, trained[0].voice).wav).max() > 1e-3
    with pytest.raises(ConfigError, match="own decoder cannot be mixed"):
        mix_voices([loaded, trained[0].voice], [1, 1])


def test_a_map_that_makes_it_worse_is_refused(model, recordings, monkeypatch):
    monkeypatch.setattr(calibration, "STRENGTH", -1.0)
    done = training.train_voice(model, recordings)
    assert done.voice is None
    assert done.after_db > done.before_db


def test_too_little_speech(model, recordings):
    with pytest.raises(AudioError, match=r"s of speech found in the clips \(2\); training needs 20 s"):
        training.train_voice(model, recordings[:2])


def test_the_command(clips, tmp_path, monkeypatch):
    monkeypatch.setenv("VCAE_VOICES", str(tmp_path / "voices"))
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.flac").write_bytes(clips["reference"].read_bytes())
    done = CliRunner().invoke(app, ["voice", "train", "mine", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)
    assert row["distance_db_after"] < row["distance_db_before"]
    assert row["clips"] == ["a.flac", "b.flac", "c.flac", "d.flac"]
    assert (tmp_path / "voices/mine.safetensors").stat().st_size == row["bytes"] < 3_000_000
    again = CliRunner().invoke(app, ["voice", "train", "mine", str(folder)])
    assert (again.exit_code, "a voice called mine exists" in again.stderr) == (2, True)
    saved = CliRunner().invoke(app, ["voice", "train", "other", "mine"])
    assert (saved.exit_code, "training needs recordings of one voice" in saved.stderr) == (2, True)
    out = tmp_path / "x.wav"
    used = CliRunner().invoke(app, ["convert", str(clips["source"]), "-s", "mine", "-o", str(out)])
    assert used.exit_code == 0, used.output
    assert soundfile.info(out).frames == soundfile.info(clips["source"]).frames
    monkeypatch.setattr(training, "check_calibration", lambda *args: (4.0, 4.5))
    worse = CliRunner().invoke(app, ["voice", "train", "worse", str(folder)])
    assert worse.exit_code == 2
    assert "nothing was saved" in worse.stderr
    assert not (tmp_path / "voices/worse.safetensors").exists()
