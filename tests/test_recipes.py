import csv
import json
import subprocess

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import CLIPS, ROOT
from tests.forked import python
from tests.test_cli import vcae as command
from vcae import checkpoint
from vcae.vocoder.neural import HarmonicNoiseVocoder


def run(script, *args):
    command = [*python(), str(ROOT / script), *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_speaker_swap(tmp_path):
    done = run("recipes/speaker_swap/swap.py", "recipes/speaker_swap/conf/debug.yaml", f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.wav"))) == 4
    picture = (tmp_path / "mels.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 50_000


def test_folder_to_manifest_to_cache(tmp_path):
    for speaker in "abcd":
        (tmp_path / "data" / speaker).mkdir(parents=True)
        for n in range(2):
            wav, rate = soundfile.read(CLIPS / "source.flac")
            soundfile.write(tmp_path / "data" / speaker / f"{n}.wav", wav[n * 16000 : (n + 1) * 16000], rate)
    (tmp_path / "data" / "a" / "broken.wav").write_text("x")
    done = run("recipes/prepare/folder.py", tmp_path / "data", "--dev-speakers", 1)
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stdout
    rows = list(csv.DictReader((tmp_path / "data/manifest.csv").open()))
    assert len(rows) == 8
    assert {r["split"] for r in rows} == {"train", "dev"}
    done = run("recipes/prepare/cache.py", tmp_path / "data/manifest.csv", tmp_path / "cache", "--split", "train")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cache/index.json").exists()


def test_join_makes_a_checkpoint_with_its_sum(tmp_path, tiny_checkpoint):
    out = tmp_path / "joined.safetensors"
    settings = [f"autoencoder={tiny_checkpoint}", f"vocoder={tiny_checkpoint}", f"output={out}"]
    done = run("recipes/release/join.py", "recipes/release/conf/default.yaml", *settings, f"earlier={tiny_checkpoint}")
    assert done.returncode == 0, done.stderr
    assert out.with_suffix(".sha256").read_text().split()[0] in done.stdout
    for part in ("earlier", "earlier_vocoder"):
        done = run("recipes/release/join.py", "recipes/release/conf/default.yaml", *settings, "earlier=null", f"{part}=default")
        assert done.returncode != 0
        assert "other names or shapes" in done.stderr


def test_join_mixes_a_vocoder_with_the_one_that_it_was_trained_on_from(tmp_path, tiny_checkpoint, tiny_vocoder):
    other = HarmonicNoiseVocoder(tiny_vocoder.config)
    checkpoint.save(tmp_path / "earlier.safetensors", vocoder=other)
    settings = [f"autoencoder={tiny_checkpoint}", f"vocoder={tiny_checkpoint}", f"output={tmp_path / 'joined.safetensors'}"]
    changes = ["earlier=null", f"earlier_vocoder={tmp_path / 'earlier.safetensors'}", "vocoder_share=0.25"]
    done = run("recipes/release/join.py", "recipes/release/conf/default.yaml", *settings, *changes)
    assert done.returncode == 0, done.stderr
    found = checkpoint.load(tmp_path / "joined.safetensors").vocoder
    wanted = 0.75 * other.output.weight + 0.25 * tiny_vocoder.output.weight
    assert torch.allclose(found.output.weight, wanted, atol=1e-3)


def test_a_fine_tuned_voice_is_a_saved_voice(tmp_path, monkeypatch, clips):
    monkeypatch.setenv("VCAE_VOICES", str(tmp_path / "voices"))
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.flac").write_bytes(clips["reference"].read_bytes())
    settings = [f"clips={folder}", "name=mine"]
    done = run("recipes/finetune/finetune.py", "recipes/finetune/conf/debug.yaml", *settings)
    assert done.returncode == 0, done.stderr
    assert "saved mine" in done.stdout
    plain = command("voice", "save", "plain", folder / "a.flac")
    assert plain.returncode == 0, plain.stderr
    sounds = []
    for name in ("mine", "plain"):
        out = tmp_path / f"{name}.wav"
        done = command("convert", clips["source"], "-s", name, "-o", out)
        assert done.returncode == 0, done.stderr
        sounds.append(soundfile.read(out)[0])
    assert np.abs(sounds[0] - sounds[1]).max() > 1e-3
    for name in ("source", "reference2"):
        (folder / f"{name}.flac").write_bytes(clips[name].read_bytes())
    lines = [
        "path,speaker,split,duration_s",
        *(f"{name}.flac,x,dev,6" for name in ("a", "b", "c", "d", "reference2", "reference2")),
    ]
    (folder / "m.csv").write_text("\n".join([*lines, "source.flac,y,dev,6"]))
    measure = (
        "recipes/finetune/measure.py",
        folder / "m.csv",
        "--out",
        tmp_path / "out",
        "--pairs",
        1,
        "--readers",
        4,
        "--speakers",
    )
    measured = run(*measure, "x")
    assert measured.returncode == 0, measured.stderr
    rows = list(csv.DictReader((tmp_path / "out/pairs.csv").open()))
    assert [r["label"] for r in rows] == ["before", "after"]
    assert all(r["target_ref"].endswith("reference2.flac") and r["source"].endswith("source.flac") for r in rows)
    nobody = run(*measure, "z")
    assert nobody.returncode == 1
    assert "z has 0 recordings" in nobody.stderr
    empty = run("recipes/finetune/finetune.py", "recipes/finetune/conf/debug.yaml", f"clips={tmp_path / 'voices'}", "name=x")
    assert empty.returncode == 1
    assert "is a folder without sound files" in empty.stderr


def test_evaluation_beside_the_classical_peers(tmp_path):
    pytest.importorskip("pyworld", reason="the extra eval brings it")
    lines = ["path,speaker,split,duration_s"]
    for speaker, name in (("a", "source"), ("b", "reference"), ("c", "reference2")):
        wav, rate = soundfile.read(CLIPS / f"{name}.flac")
        for n, part in enumerate((wav[: len(wav) // 2], wav[len(wav) // 2 :])):
            soundfile.write(tmp_path / f"{speaker}{n}.wav", part, rate)
            lines.append(f"{speaker}{n}.wav,{speaker},dev,{len(part) / rate}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    settings = [f"manifest={tmp_path / 'm.csv'}", "n_pairs=6", "min_s=1.5", f"output_dir={tmp_path / 'out'}"]
    done = run("recipes/evaluate/evaluate.py", "recipes/evaluate/conf/base.yaml", *settings)
    assert done.returncode == 0, done.stderr
    means = json.loads((tmp_path / "out/means.json").read_text())["means"]
    assert list(means) == ["vcae", "world-statistics", "world-nearest", "target"]
    # Real speech of the target is nearest to it; each conversion at least takes its pitch.
    assert max(means, key=lambda label: means[label]["own_target"]) == "target"
    assert all(m["f0_semitones"] < 3 for m in means.values())
    assert len(list((tmp_path / "out/converted").glob("*.wav"))) == 24


@pytest.mark.parametrize("corpus", ["librispeech", "vctk"])
def test_public_corpora_to_manifest(tmp_path, corpus):
    """On a tree laid out as the corpus is, so that nothing is downloaded."""
    for speaker in ("19", "26", "27"):
        if corpus == "librispeech":
            folder = tmp_path / "LibriSpeech" / "train-clean-100" / speaker / "198"
            name = f"{speaker}-198-0000"
            text = folder / f"{speaker}-198.trans.txt"
            clip = folder / f"{name}.flac"
        else:
            root = tmp_path / "VCTK-Corpus-0.92"
            name = f"p{speaker}_001"
            text = root / "txt" / f"p{speaker}" / f"{name}.txt"
            clip = root / "wav48_silence_trimmed" / f"p{speaker}" / f"{name}_mic2.flac"
        for path in (text, clip):
            path.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(f"{name} SIX SPOONS\n")
        clip.write_bytes((CLIPS / "source.flac").read_bytes())
    done = run("recipes/prepare/corpora.py", corpus, tmp_path)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "manifest.csv").open()))
    assert len(rows) == 3
    assert all((tmp_path / r["path"]).is_file() for r in rows)
    assert sorted(r["split"] for r in rows) == ["dev", "train", "train"]
    done = run("recipes/prepare/cache.py", tmp_path / "manifest.csv", tmp_path / "cache", "--split", "train")
    assert done.returncode == 0, done.stderr
