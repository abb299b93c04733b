import csv
import subprocess
import sys

import soundfile

from tests.conftest import CLIPS, ROOT


def run(script, *args):
    command = [sys.executable, str(ROOT / script), *map(str, args)]
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
    done = run("recipes/release/join.py", "recipes/release/conf/default.yaml", *settings)
    assert done.returncode == 0, done.stderr
    assert out.with_suffix(".sha256").read_text().split()[0] in done.stdout
