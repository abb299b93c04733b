"""The names of `vcae` as a person at a Python prompt uses them."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

import vcae
from tests.conftest import CLIPS
from vcae.voice.fitting import fit_voice

SOURCE, REFERENCE = str(CLIPS / "source.flac"), str(CLIPS / "reference.flac")


@pytest.fixture(scope="module")
def model():
    return vcae.load(device="cpu")


@pytest.fixture(scope="module")
def converted(model):
    return model.convert(vcae.read_sound(SOURCE, first_s=2.0), reference=REFERENCE)


def test_a_result_has_its_rate_and_says_what_it_is(converted):
    assert isinstance(converted, vcae.Sound)
    assert converted.sample_rate == 16000
    assert converted.duration_s == 2.0
    assert repr(converted) == f"Sound(2.00 s at 16000 Hz, '{SOURCE}')"


def test_a_result_is_saved_with_its_provenance_and_replaces_nothing(converted, model, tmp_path):
    path = converted.save(tmp_path / "a" / "out.wav")
    wav, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000
    assert np.abs(wav - converted.wav).max() < 1e-4
    with soundfile.SoundFile(path) as opened:
        assert (
            opened.comment == f"converted by vcae {vcae.__version__}, checkpoint default sha256:{model.checkpoint.sha256[:16]}"
        )
    before = path.read_bytes()
    with pytest.raises(vcae.AudioError, match=r"out\.wav exists"):
        vcae.Sound(converted.wav / 2, 16000).save(path)
    assert path.read_bytes() == before
    vcae.Sound(converted.wav / 2, 16000).save(path, force=True)
    assert path.read_bytes() != before


def test_a_sound_is_an_array_to_numpy_and_a_tensor_to_torch(converted):
    wav = converted.wav
    assert np.array_equal(np.asarray(converted), wav)
    assert np.asarray(converted, np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(converted, copy=True), wav)
    assert np.array_equal(0.5 * converted - wav, 0.5 * wav - wav)
    assert np.array_equal(converted[::2], wav[::2])
    # What is made of it has no rate any more that could be wrong.
    assert all(type(part) is np.ndarray for part in (converted[::2], converted * 2, np.abs(converted)))
    assert converted.shape == (len(converted),) == wav.shape
    assert torch.equal(converted, torch.from_numpy(wav))
    assert torch.equal(torch.zeros(len(wav)) - converted, -torch.from_numpy(wav))
    assert torch.equal(torch.as_tensor(converted[:100]), torch.from_numpy(wav[:100]))
    for again in (pickle.loads(pickle.dumps(converted)), copy.deepcopy(converted)):
        assert np.array_equal(again, wav)
        assert again.comment == converted.comment


def test_what_only_tensors_have_still_works_with_a_warning(converted):
    with pytest.warns(DeprecationWarning, match="a Sound and no tensor"):
        assert np.array_equal(converted.numpy(), converted.wav)
    with pytest.warns(DeprecationWarning, match="unsqueeze"):
        assert converted.unsqueeze(0).shape == (1, len(converted))
    with pytest.raises(AttributeError, match="'Sound' object has no attribute 'volume'"):
        _ = converted.volume


def test_results_go_in_wherever_sound_does(converted, model):
    assert np.array_equal(model.convert(converted, reference=converted), model.convert(converted.wav, 16000, converted.wav))
    with pytest.raises(vcae.ConfigError, match=r"sample_rate is 8000 Hz; leave it out"):
        model.convert(converted, 8000, converted)
    cleaned = vcae.denoise(converted)
    assert cleaned.comment.startswith("denoised by vcae")
    assert len(cleaned) == len(converted)


@pytest.fixture(scope="module")
def voice(model):
    return model.voice(REFERENCE)


def test_a_voice_is_saved_and_loaded_by_name_without_a_model(voice, model, converted, tmp_path, monkeypatch):
    monkeypatch.setenv("VCAE_VOICES", str(tmp_path / "voices"))
    path = vcae.save_voice(voice, "alice")
    assert path == tmp_path / "voices" / "alice.safetensors"
    again = vcae.load_voice("alice")
    assert (
        repr(again)
        == repr(voice)
        == f"Voice({voice.speech_s:.1f} s of speech, {np.exp(voice.log_f0_median):.0f} Hz, checkpoint default)"
    )
    assert np.array_equal(model.convert(converted, reference=again), model.convert(converted, reference=voice))
    assert torch.equal(vcae.load_voice(path).speaker_embedding, voice.speaker_embedding)
    with pytest.raises(vcae.CheckpointError, match=r"alice\.safetensors exists"):
        vcae.save_voice(voice, "alice")
    with pytest.raises(vcae.ConfigError, match="no saved voice is called 'bob'; saved voices: alice"):
        vcae.load_voice("bob")
    with pytest.raises(vcae.ConfigError, match="the checkpoint that measured the voice is unknown"):
        vcae.save_voice(replace(voice, origin=None), "carol")


def test_a_loaded_voice_works_with_another_checkpoint_and_so_does_a_mix(voice, model, converted, tmp_path):
    vcae.save_voice(voice, tmp_path / "v.safetensors")
    vq, loaded = vcae.load("vq", device="cpu"), vcae.load_voice(tmp_path / "v.safetensors")
    expected = vq.convert(converted, reference=vcae.load_voice(tmp_path / "v.safetensors", vq))
    assert np.array_equal(vq.convert(converted, reference=loaded), expected)
    second = model.voice(SOURCE)
    mixed = vcae.mix_voices([loaded, second], [3, 1])
    known = vcae.mix_voices([fit_voice(vq, loaded), fit_voice(vq, second)], [3, 1])
    assert torch.equal(fit_voice(vq, mixed).speaker_embedding, known.speaker_embedding)
    fitted = fit_voice(model, mixed)
    assert fit_voice(model, fitted) is fitted
    with pytest.raises(vcae.ConfigError, match=r"measured by checkpoints default \(\w+\) and vq .*load them for one model"):
        vcae.mix_voices([loaded, vq.voice(SOURCE)], [3, 1])
    assert "a mix of 2" in repr(mixed)
    said = vcae.decompress(vcae.compress(converted), loaded)
    assert len(said) == len(converted)


def test_a_fine_tuned_voice_keeps_its_decoder_without_a_model(voice, model, converted, tmp_path):
    decoder = copy.deepcopy(model.autoencoder.decoder).half().float()
    for parameter in decoder.parameters():
        parameter.mul_(1.01)
    decoder.half().float()
    tuned = replace(voice, decoder=decoder)
    vcae.save_voice(tuned, tmp_path / "t.safetensors")
    loaded = vcae.load_voice(tmp_path / "t.safetensors")
    assert "fine-tuned" in repr(loaded)
    made = model.convert(converted, reference=loaded)
    assert np.array_equal(made, model.convert(converted, reference=vcae.load_voice(tmp_path / "t.safetensors", model)))
    assert not np.array_equal(made, model.convert(converted, reference=voice))
    vcae.save_voice(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").stat().st_size == (tmp_path / "t.safetensors").stat().st_size


def test_the_old_order_of_save_voice_works_with_a_warning(voice, model, tmp_path):
    with pytest.warns(DeprecationWarning, match="save_voice\\(voice, path, provenance\\)"):
        vcae.save_voice(tmp_path / "v.safetensors", voice, model, {"author": "a test"})
    assert torch.equal(vcae.load_voice(tmp_path / "v.safetensors", model).speaker_embedding, voice.speaker_embedding)


@pytest.fixture(scope="module")
def parts():
    sound = vcae.read_sound(SOURCE)
    return [sound.wav[n * 8000 : n * 8000 + 20000] for n in range(9)]


def test_a_detector_takes_samples_with_their_rate_sounds_and_paths(parts, tmp_path):
    config = vcae.AnomalyConfig(model="statistics")
    detector = vcae.Detector.fit(parts, 16000, config)
    sounds = [vcae.Sound(part, 16000) for part in parts]
    paths = [sound.save(tmp_path / f"{n}.flac") for n, sound in enumerate(sounds)]
    loud = vcae.Sound(np.clip(8 * parts[2], -1, 1), 16000)
    score = detector.score(loud).score
    assert vcae.Detector.fit(sounds, config=config).score(loud.wav, 16000).score == score
    assert vcae.Detector.fit(paths, config=config).score(loud.save(tmp_path / "loud.wav")).score == pytest.approx(
        score, abs=0.05
    )
    # Another rate is not taken for the mel's.
    twice = vcae.resample(loud.wav, 16000, 32000)
    assert detector.score(np.stack([twice, twice]), 32000).score == pytest.approx(score, abs=0.1)
    assert repr(detector) == "Detector(statistics, no threshold, 16000 Hz)"


def test_a_detector_without_a_rate_warns(parts):
    config = vcae.AnomalyConfig(model="statistics")
    with pytest.warns(DeprecationWarning, match="without sample_rate"):
        detector = vcae.Detector.fit(parts, config=config)
    done = []
    with pytest.warns(DeprecationWarning, match=r"is now fit\(recordings, sample_rate, config\)"):
        old = vcae.Detector.fit(parts, config, lambda at, total: done.append(at))
    assert done
    with pytest.warns(DeprecationWarning, match="give their rate"):
        assert old.score(parts[0]).score == detector.score(parts[0], 16000).score


def test_dir_lists_what_is_public_and_nothing_else():
    names = [name for name in dir(vcae) if not name.startswith("__")]
    assert sorted(["__version__", *names]) == sorted(vcae.__all__)
    assert {"Sound", "convert", "embed"} - set(names) == {"convert", "embed"}
    assert all(getattr(vcae, name).__doc__ for name in names)


def test_objects_say_what_they_are(model, converted):
    dim = model.autoencoder.config.content.latent_dim
    assert repr(model).startswith("Model(default, autoencoder ")
    assert repr(model).endswith(" M, 16000 Hz, cpu)")
    assert repr(model.embed(converted)) == f"Embedding(speaker of '{SOURCE}', 1 row of 128 numbers, 2.00 s)"
    assert (
        repr(model.encode(converted))
        == f"Encoding(latent (1, {dim}, 63), speaker_embedding (1, 128), f0 (1, 126), 32000 samples)"
    )
    copied = model.reconstruct(converted)
    assert len(copied) == len(converted)
    assert copied.comment.startswith("reconstructed by vcae")
    units = vcae.Units("a", (3, 1, 4, 1, 5, 9, 2, 6, 5), (1,) * 9, None)
    assert repr(units) == f"Units('a', 9 units, {units.duration_s:.2f} s: 3 1 4 1 5 9 2 6 ...)"


def test_errors_at_a_python_prompt_name_no_option_of_the_command_line(model, converted, tmp_path):
    (tmp_path / "there.wav").write_bytes(b"")
    causes = [
        lambda: model.units(converted),
        lambda: converted.save(tmp_path / "there.wav"),
        lambda: converted.save("/proc/none/out.wav"),
        lambda: vcae.load("vq", device="mps"),
        lambda: vcae.load("ladder"),
        lambda: model.speak(vcae.Units("a", (1, 2), None, None), REFERENCE),
    ]
    for cause in causes:
        with pytest.raises(vcae.VcaeError) as caught:
            cause()
        assert "--" not in str(caught.value)
        assert " -o" not in str(caught.value)
