import json
import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

import vcae
from tests.test_cli import vcae as command
from vcae.audio.io import read_sound
from vcae.errors import CheckpointError, ConfigError
from vcae.voice.file import load_voice, save_voice
from vcae.voice.matching import correct_errors
from vcae.voice.shelf import voice_path, voices_folder
from vcae.voice.voice import interpolate_voices, mix_voices


@pytest.fixture(autouse=True)
def _own_shelf(tmp_path, monkeypatch):
    monkeypatch.setenv("VCAE_VOICES", str(tmp_path / "voices"))


@pytest.fixture(scope="module")
def voices(model, clips):
    return [model.voice(soundfile.read(clips[name], dtype="float32")[0], 16000) for name in ("reference", "reference2")]


def _cosine(a, b):
    return float((a.speaker_embedding * b.speaker_embedding).sum())


def test_a_saved_voice_gives_the_same_sound(model, voices, clips, tmp_path):
    save_voice(voices[0], tmp_path / "v.safetensors", {"author": "a test"}, force=True)
    source, rate = soundfile.read(clips["source"], dtype="float32")
    again = load_voice(tmp_path / "v.safetensors", model)
    assert torch.equal(model.convert(source[:32000], rate, voices[0]), model.convert(source[:32000], rate, again))


def test_a_mix_lies_between_and_follows_the_weights(voices):
    a, b = voices
    near_a, middle = mix_voices(voices, [3, 1]), mix_voices(voices, [1, 1])
    assert _cosine(a, b) < _cosine(a, middle) < _cosine(a, near_a) < 1
    assert near_a.log_f0_median == pytest.approx(0.75 * a.log_f0_median + 0.25 * b.log_f0_median)
    assert middle.speaker_embedding.norm().item() == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(middle.quantiles[1], (a.quantiles[1] + b.quantiles[1]) / 2, atol=1e-5)
    assert mix_voices(voices, [0, 2]) is b


def test_a_voice_mixed_with_itself_is_itself(model, voices):
    twice = mix_voices([voices[0], voices[0]], [0.3, 0.7])
    assert torch.allclose(twice.speaker_embedding, voices[0].speaker_embedding, atol=1e-6)
    latent, f0 = torch.randn(1, model.autoencoder.config.content.latent_dim, 20), torch.full((1, 40), 120.0)
    mel = torch.zeros(1, 80, 40)
    once, again = (correct_errors(mel, latent, f0, 2, v.errors) for v in (voices[0], twice))
    assert torch.allclose(once, again, atol=1e-4)
    assert once.abs().mean() > 0.01


def test_a_class_or_pitch_that_one_voice_lacks_is_taken_from_the_other(voices):
    silent = replace(voices[0], log_f0_median=math.nan, quantiles=(voices[0].quantiles[0], None))
    mixed = mix_voices([silent, voices[1]], [1, 1])
    assert mixed.log_f0_median == voices[1].log_f0_median
    assert torch.allclose(mixed.quantiles[1], voices[1].quantiles[1])


@pytest.mark.parametrize("weights", [[0, 0], [1, -1], [1, math.nan], [1]])
def test_bad_weights(voices, weights):
    with pytest.raises(ConfigError, match="weights"):
        mix_voices(voices, weights)


def test_strength_goes_from_the_source_to_the_target(model, voices, clips):
    a, b = voices
    assert _cosine(interpolate_voices(a, b, 0.0), a) == pytest.approx(1.0, abs=1e-5)
    assert _cosine(interpolate_voices(a, b, 1.0), b) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ConfigError, match=r"strength is 1\.5; allowed are 0"):
        interpolate_voices(a, b, 1.5)
    source, rate = soundfile.read(clips["source"], dtype="float32")
    own = model.analyse(source, rate)
    cosines = []
    for strength in (0.0, 0.5, 1.0):
        heard = model.analyse(model.convert(source, rate, a, strength=strength), rate)
        cosines.append(float(model.autoencoder.encode_speaker(heard.mel)[0] @ a.speaker_embedding[0]))
        if strength == 0.0:
            medians = [x.f0[x.f0 > 0].median() for x in (heard, own)]
            assert abs(float(medians[0] / medians[1]) - 1) < 0.03
    assert cosines == sorted(cosines)
    assert cosines[2] > cosines[0] + 0.3


def test_flat_loudness_keeps_only_the_level(model, voices, clips):
    from vcae.audio.loudness import active_level

    source, rate = soundfile.read(clips["source"], dtype="float32")
    quiet_end = source * np.linspace(1, 0.1, len(source), dtype=np.float32)
    followed, flat = (model.convert(quiet_end, rate, voices[0], loudness=x).wav for x in ("source", "flat"))
    for wav in (followed, flat):
        assert active_level(wav) == pytest.approx(active_level(quiet_end), rel=0.1)
        assert np.abs(wav).max() <= 0.99
    assert not np.allclose(followed, flat, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 2}, "strength is 2.0; allowed are 0 to 1"),
        ({"loudness": "loud"}, "loudness is 'loud'; allowed are source, flat, running"),
        ({"strength": "full"}, "convert.strength is 'full'; a value of type float is needed"),
    ],
)
def test_bad_options(model, voices, clips, options, message):
    source, rate = soundfile.read(clips["source"], dtype="float32")
    with pytest.raises(ConfigError, match=message):
        model.convert(source, rate, voices[0], **options)


def test_voices_of_another_checkpoint_and_damaged_files_are_refused(model, voices, tiny_checkpoint, tmp_path):
    path = tmp_path / "v.safetensors"
    save_voice(replace(voices[0], recordings=()), path)
    with pytest.raises(CheckpointError, match=r"was measured by checkpoint default .*save it again"):
        load_voice(path, vcae.load(tiny_checkpoint, device="cpu"))
    with pytest.raises(CheckpointError, match="something else; make a voice"):
        load_voice(tiny_checkpoint, model)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_voice(path, model)
    with pytest.raises(CheckpointError, match="cannot read"):
        load_voice(tmp_path / "none.safetensors", model)


def test_another_checkpoint_measures_a_voice_again(model, voices, clips, tmp_path):
    path = tmp_path / "v.safetensors"
    save_voice(voices[0], path, {}, force=True)
    vq = vcae.load("vq", device="cpu")
    again, expected = load_voice(path, vq), vq.voice(clips["reference"])
    assert _cosine(again, expected) > 0.999
    assert again.log_f0_median == pytest.approx(expected.log_f0_median)
    assert again.speech_s == pytest.approx(expected.speech_s)
    # Saved by that one, it goes back to the first.
    save_voice(again, path, {}, force=True)
    assert _cosine(load_voice(path, model), voices[0]) > 0.999


def test_no_more_than_a_minute_of_a_voice_is_kept(model, clips, tmp_path):
    wav, rate = soundfile.read(clips["reference"], dtype="float32")
    voice = model.voice([np.tile(wav, 12), wav], rate)
    assert sum(r.f0.shape[1] for r in voice.recordings) == 3750
    save_voice(voice, tmp_path / "v.safetensors", {}, force=True)
    save_voice(replace(voice, recordings=()), tmp_path / "bare.safetensors")
    added = (tmp_path / "v.safetensors").stat().st_size - (tmp_path / "bare.safetensors").stat().st_size
    assert 600_000 < added < 650_000
    assert mix_voices([voice, voice], [1, 2]).recordings == ()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, "two words"])
def test_names_that_cannot_be_files(name):
    with pytest.raises(ConfigError, match="is not a valid voice name"):
        voice_path(name)


def test_the_folder_of_voices_is_the_systems(tmp_path, monkeypatch):
    monkeypatch.delenv("VCAE_VOICES")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert voices_folder() == tmp_path / "data" / "vcae" / "voices"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    earlier = tmp_path / ".local" / "share" / "vcae" / "voices"
    assert voices_folder() == earlier
    # On another system.
    monkeypatch.setattr("platformdirs.user_data_path", lambda name, **_: tmp_path / "AppData" / name)
    assert voices_folder() == tmp_path / "AppData" / "vcae" / "voices"
    earlier.mkdir(parents=True)
    assert voices_folder() == earlier


def test_save_list_and_use_by_name(tmp_path, clips):
    saved = command("voice", "save", "alice", clips["reference"], "--author", "a test", "--json")
    assert saved.returncode == 0, saved.stderr
    said = json.loads(saved.stdout)
    assert said["path"] == str(voices_folder() / "alice.safetensors")
    assert said["clips"] == ["reference.flac"]
    again = command("voice", "save", "alice", clips["reference2"])
    assert again.returncode == 2
    assert b"a voice called alice exists" in again.stderr
    by_name, by_clip = tmp_path / "name.wav", tmp_path / "clip.wav"
    for speaker, out in (("alice", by_name), (clips["reference"], by_clip)):
        done = command("convert", clips["source"], "-s", speaker, "-o", out)
        assert done.returncode == 0, done.stderr
    assert np.array_equal(soundfile.read(by_name)[0], soundfile.read(by_clip)[0])
    mixed = tmp_path / "mixed.wav"
    done = command("convert", clips["source"], "-s", "alice:0.6", "-s", f"{clips['reference2']}:0.4", "-o", mixed)
    assert done.returncode == 0, done.stderr
    assert not np.array_equal(soundfile.read(mixed)[0], soundfile.read(by_name)[0])
    (voices_folder() / "broken.safetensors").write_bytes(b"x" * 20)
    listed = command("voice", "list")
    assert listed.returncode == 0
    lines = listed.stdout.decode().splitlines()
    assert lines[0].startswith("alice")
    assert "from reference.flac" in lines[0]
    assert "not a complete safetensors file" in lines[1]


@pytest.mark.parametrize(
    ("speaker", "message"),
    [
        ("nobody", b"no file and no saved voice is called 'nobody'; saved voices: none"),
        ("clip.wav:many", b"the weight of the speaker clip.wav:many is 'many'"),
        ("clip.wav:-1", b"is '-1'; write a number from 0 on, such as clip.wav:0.7"),
        ("clip.wav", b"clip.wav"),
    ],
)
def test_bad_speakers_are_told_in_one_line(tmp_path, clips, speaker, message):
    done = command("convert", clips["source"], "-s", speaker, "-o", tmp_path / "o.wav", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "o.wav").exists()


def test_an_empty_shelf_says_how_to_fill_it():
    done = command("voice", "list")
    assert b"vcae voice save NAME CLIP" in done.stdout


def test_noisy_clips_are_denoised_unless_forbidden(model, clips):
    clean = read_sound(clips["reference"])
    noise = np.random.default_rng(0).standard_normal(len(clean.wav)) * np.std(clean.wav) * 10 ** (-15 / 20)
    noisy = replace(clean, wav=(clean.wav + noise).astype(np.float32))

    def embeddings(sound):
        return [model.voice(sound, denoise=denoise).speaker_embedding for denoise in ("auto", True, False)]

    auto, always, never = embeddings(noisy)
    assert torch.equal(auto, always)
    target = model.voice(clean).speaker_embedding
    assert torch.cosine_similarity(auto, target, dim=-1).item() > torch.cosine_similarity(never, target, dim=-1).item() + 0.02
    auto, always, never = embeddings(clean)
    assert torch.equal(auto, never)
    assert not torch.equal(auto, always)
