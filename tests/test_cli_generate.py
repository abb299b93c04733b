"""`vcae generate` and `vcae interpolate`, as processes."""

import json
import os
import subprocess

import numpy as np
import pytest
import soundfile

from tests.conftest import CLIPS, ROOT
from tests.forked import python


def vcae(*args, folder):
    environment = dict(os.environ, PYTHONPATH=str(ROOT), VCAE_VOICES=str(folder / "kept"), OMP_NUM_THREADS="1")
    return subprocess.run(
        [*python(), "-m", "vcae", *map(str, args)], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("generate")
    done = vcae("generate", "voice", "--seed", 7, "-o", "nova", "--json", folder=made)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["seed"] == 7
    assert 60 < values["f0_hz"] < 430
    return made


def test_the_same_seed_gives_the_same_file(folder):
    for name, seed in (("again.safetensors", 7), ("other.safetensors", 8)):
        assert vcae("generate", "voice", "--seed", seed, "-o", name, "-q", folder=folder).returncode == 0
    kept = (folder / "kept" / "nova.safetensors").read_bytes()
    assert (folder / "again.safetensors").read_bytes() == kept
    assert (folder / "other.safetensors").read_bytes() != kept


def test_an_existing_voice_is_kept(folder):
    done = vcae("generate", "voice", "--seed", 1, "-o", "nova", folder=folder)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "add --force" in done.stderr


def test_a_new_voice_is_a_speaker_alone_and_in_a_mix(folder):
    listed = vcae("voice", "list", folder=folder)
    assert "nova" in listed.stdout
    lengths = set()
    for n, speakers in enumerate((["nova"], ["nova:0.6", f"{CLIPS / 'reference.flac'}:0.4"])):
        given = [word for speaker in speakers for word in ("--speaker", speaker)]
        done = vcae("convert", CLIPS / "source.flac", *given, "-o", f"c{n}.wav", folder=folder)
        assert done.returncode == 0, done.stderr
        wav, _ = soundfile.read(folder / f"c{n}.wav")
        assert np.abs(wav).max() > 0.05
        lengths.add(len(wav))
    assert len(lengths) == 1


def test_babble_in_a_clips_voice_and_in_a_new_one(folder):
    for name, speaker in (("a.wav", CLIPS / "reference.flac"), ("b.wav", CLIPS / "reference.flac"), ("c.wav", "nova")):
        done = vcae(
            "generate", "speech", "--seed", 2, "--seconds", 1.5, "--speaker", speaker, "-o", name, "--json", folder=folder
        )
        assert done.returncode == 0, done.stderr
        wav, rate = soundfile.read(folder / name)
        assert len(wav) == round(1.5 * rate) == round(json.loads(done.stdout)["duration_s"] * rate)
        assert np.sqrt(np.mean(wav**2)) > 0.01
    assert (folder / "a.wav").read_bytes() == (folder / "b.wav").read_bytes()
    assert (folder / "a.wav").read_bytes() != (folder / "c.wav").read_bytes()


def test_interpolation_writes_voices_and_conversions(folder):
    ends = ("nova", CLIPS / "reference.flac")
    done = vcae("interpolate", *ends, "--steps", 3, "--source", CLIPS / "source.flac", "-o", "way", folder=folder)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (folder / "way").iterdir())
    assert names == sorted(f"0{n}.{suffix}" for n in range(3) for suffix in ("safetensors", "wav"))
    assert vcae("convert", CLIPS / "source.flac", "-s", "nova", "-o", "end.wav", folder=folder).returncode == 0
    end, _ = soundfile.read(folder / "end.wav")
    first, _ = soundfile.read(folder / "way" / "00.wav")
    assert np.abs(first - end).max() < 1e-3
    refused = vcae("interpolate", *ends, "--steps", 3, "-o", "way", folder=folder)
    assert refused.returncode == 2
    assert "00.safetensors exists" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "speech", "--speaker", "nova", "--seconds", "-3"], "seconds is -3"),
        (["generate", "speech", "--speaker", "nova", "--top-p", "0"], "top_p is 0"),
        (["generate", "speech", "--speaker", "nobody"], "no file and no saved voice is called 'nobody'"),
        (["generate", "voice", "--seed", "1", "--spread", "5"], "spread is 5.0"),
        (["generate", "voice", "--seed", "1", "-o", "a/b"], "is not a valid voice name"),
        (["generate", "voice", "--seed", "1", "--checkpoint", "ladder"], "ladder"),
        (["interpolate", "nova", "nova", "--steps", "1", "-o", "x"], "steps is 1"),
        (["interpolate", "nova:0.5", "nova", "-o", "x"], "cannot have weights"),
        (["interpolate", "nova", "nobody", "-o", "x"], "no file and no saved voice"),
    ],
)
def test_what_cannot_be_done_is_one_line(folder, words, said):
    done = vcae(*words, folder=folder)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_info_explains_the_priors(folder):
    done = vcae("info", "voices", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["voice_prior"]["speaker_dim"] == 128
