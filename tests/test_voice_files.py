"""Names of voices: saved ones, folders, addresses; and the commands that keep saved voices."""

import json
import subprocess

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import vcae
from tests.conftest import CLIPS
from tests.forked import python
from vcae import AudioError, ConfigError, load_voice, read_sound, save_voice
from vcae.cli.app import app
from vcae.voice.sample import voice_sample
from vcae.voice.speakers import find_voice, parse_speaker, read_clips, speaker_files


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    folder = tmp_path / "voices"
    monkeypatch.setenv("VCAE_VOICES", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture(scope="module")
def voice(model):
    return model.voice(CLIPS / "reference.flac")


@pytest.fixture
def alice(shelf, voice):
    return save_voice(voice, "alice", {"clips": ["reference.flac"], "author": "ann"})


def run(*words, code=0, typed=None):
    done = CliRunner().invoke(app, ["voice", *map(str, words)], input=typed)
    assert done.exit_code == code, done.output
    return done.output


def test_a_saved_voice_comes_before_a_folder_and_after_a_file(alice, tmp_path, voice):
    (tmp_path / "alice").mkdir()
    soundfile.write(tmp_path / "alice" / "b.wav", np.zeros(16000), 16000)
    assert parse_speaker("alice").path == alice
    assert parse_speaker("alice:0.5").weight == 0.5
    assert load_voice("alice").speech_s == pytest.approx(voice.speech_s)
    for text in ("alice/", "./alice", str(tmp_path / "alice")):
        assert not parse_speaker(text).saved
        assert speaker_files([text]) == [str(parse_speaker(text).path / "b.wav")]
    (tmp_path / "bob").mkdir()
    soundfile.write(tmp_path / "bob" / "c.wav", np.zeros(16000), 16000)
    assert speaker_files(["bob:2"]) == ["bob/c.wav"]


def test_a_folder_of_clips_is_one_voice(tmp_path, model):
    (tmp_path / "carol" / "day2").mkdir(parents=True)
    for name, place in (("reference", "carol"), ("reference2", "carol/day2")):
        (tmp_path / place / f"{name}.flac").write_bytes((CLIPS / f"{name}.flac").read_bytes())
    (tmp_path / "carol" / "notes.txt").write_text("not a clip")
    (tmp_path / "carol" / ".hidden.wav").write_text("not a clip")
    speakers = [parse_speaker(str(tmp_path / "carol"))]
    clips = read_clips(speakers)
    assert [path.name for path in clips] == ["reference2.flac", "reference.flac"]
    made = find_voice(model, speakers, clips)
    both = model.voice([CLIPS / "reference2.flac", CLIPS / "reference.flac"])
    np.testing.assert_allclose(made.speaker_embedding, both.speaker_embedding, atol=1e-6)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="is a folder without sound files"):
        speaker_files([str(tmp_path / "empty")])


def test_two_clips_are_two_ends(model):
    """Each end of an interpolation is measured on its own clip, though both were read at once."""
    speakers = [parse_speaker(str(CLIPS / f"{name}.flac")) for name in ("reference", "reference2")]
    clips = read_clips(speakers)
    first, alone = find_voice(model, speakers[:1], clips), model.voice(CLIPS / "reference.flac")
    np.testing.assert_allclose(first.speaker_embedding, alone.speaker_embedding, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (r"C:\clips\ann", r"no file and no saved voice is called 'C:.*ann'; saved voices: alice"),
        ("https://example.org/ann.wav", "is an address, and only files are read; download it"),
        ("take 3: ann", "no file and no saved voice is called 'take 3: ann'"),
        ("alice:high", "the weight of the speaker alice:high is 'high'; write a number from 0 on, such as alice:0.7"),
        ("alice:-1", "the weight of the speaker alice:-1 is '-1'"),
    ],
)
def test_a_colon_is_not_always_a_weight(alice, text, message):
    with pytest.raises(ConfigError, match=message):
        parse_speaker(text)


def test_a_path_with_a_drive_is_a_path(shelf):
    speaker = parse_speaker(r"C:\clips\ann.wav")
    assert (str(speaker.path), speaker.weight) == (r"C:\clips\ann.wav", None)
    with pytest.raises(AudioError, match=r"C:.*ann\.wav does not exist; check the path"):
        read_clips([speaker])
    with pytest.raises(AudioError, match="is an address, and only files are read"):
        read_sound("https://example.org/x.wav")


def test_rename_show_and_delete(alice, shelf):
    run("rename", "alice", "bob-2")
    assert [path.name for path in shelf.iterdir()] == ["bob-2.safetensors"]
    shown = run("show", "bob-2")
    assert "from reference.flac" in shown
    assert "author: ann" in shown
    facts = json.loads(run("show", "bob-2", "--json"))
    assert facts["name"] == "bob-2"
    assert facts["bytes"] == (shelf / "bob-2.safetensors").stat().st_size
    assert "no saved voice is called 'alice'; saved voices: bob-2" in run("delete", "alice", code=2)
    assert "would be deleted for good; add --force" in run("delete", "bob-2", code=2)
    assert (shelf / "bob-2.safetensors").exists()
    run("delete", "bob-2", "--force")
    assert list(shelf.iterdir()) == []


def test_export_and_import(alice, shelf, tmp_path):
    run("export", "alice", tmp_path / "gift.safetensors")
    assert (tmp_path / "gift.safetensors").read_bytes() == alice.read_bytes()
    assert "exists" in run("export", "alice", tmp_path / "gift.safetensors", code=2)
    run("import", tmp_path / "gift.safetensors")
    run("import", tmp_path / "gift.safetensors", "carol")
    assert sorted(path.stem for path in shelf.iterdir()) == ["alice", "carol", "gift"]
    assert "a voice called carol exists" in run("import", tmp_path / "gift.safetensors", "carol", code=2)
    (tmp_path / "half.safetensors").write_bytes(alice.read_bytes()[:5000])
    assert "half.safetensors" in run("import", tmp_path / "half.safetensors", code=2)
    assert not (shelf / "half.safetensors").exists()


def test_play_writes_the_recordings(alice, tmp_path, model, voice):
    sound = voice_sample(model, load_voice("alice"), "alice", most_s=2.0)
    assert sound.duration_s == pytest.approx(2.0, abs=0.02)
    run("play", "alice", "-o", tmp_path / "x.wav")
    made = read_sound(tmp_path / "x.wav")
    assert made.duration_s == pytest.approx(min(read_sound(CLIPS / "reference.flac").duration_s, 10.0), abs=0.5)
    # It is the speaker of the clip that is heard.
    own = model.voice(made).speaker_embedding
    assert float((own * voice.speaker_embedding).sum()) > 0.8
    save_voice(vcae.mix_voices([voice, model.new_voice(3)], [0.5, 0.5]), "nova")
    assert "generate speech in this voice to hear it" in run("play", "nova", "-o", tmp_path / "y.wav", code=2)


def test_play_without_a_loudspeaker_is_one_line(alice):
    done = subprocess.run([*python(), "-m", "vcae", "voice", "play", "alice"], capture_output=True, text=True)
    if done.returncode == 0:
        pytest.skip("this machine has a loudspeaker")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
