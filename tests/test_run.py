"""One way to run many: the same folder gives the same count and the same exit code from every command."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from tests.conftest import CLIPS
from vcae import AudioError, ConfigError, DataError
from vcae.batch.jobs import Outcome, find_sources, is_table, plan, plan_table, report_line

REFERENCE = str(CLIPS / "reference.flac")


@pytest.fixture(scope="module")
def detector(tmp_path_factory, speech):
    from vcae.anomaly.config import AnomalyConfig
    from vcae.anomaly.detector import Detector

    path = tmp_path_factory.mktemp("detector") / "d.safetensors"
    Detector.fit([speech[n * 8000 : n * 8000 + 20000] for n in range(9)], 16000, AnomalyConfig(model="statistics")).save(path)
    return path


@pytest.fixture(scope="module")
def five(tmp_path_factory, speech):
    """Four sounds, two of them of suffixes that few know, and a file that is none."""
    root = tmp_path_factory.mktemp("five") / "in"
    root.mkdir()
    for n, name in enumerate(("a.wav", "b.flac", "c.au", "d.snd")):
        wav = speech[n * 8000 : n * 8000 + 20000]
        soundfile.write(root / name, wav, 16000, format="AU" if name.endswith("snd") else None)
    (root / "bad.wav").write_text("no sound")
    return root


def vcae(*args, stdin=None):
    line = [sys.executable, "-m", "vcae", *map(str, args)]
    return subprocess.run(line, capture_output=True, input=stdin, text=stdin is None)


EACH = {
    "convert": ("-s", REFERENCE),
    "denoise": (),
    "compress": (),
    "reconstruct": (),
    "vocode": (),
    "units": (),
    "embed": (),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", [*EACH, "anomaly score"])
def test_every_command_counts_a_folder_alike(command, five, detector, tmp_path):
    options = EACH.get(command, ("-m", detector))
    done = vcae(*command.split(), five, *options, "--out-dir", tmp_path / "out", "--jobs", 2, "--json")
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert (said["total"], said["failed"], said["skipped"]) == (5, 1, 0)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("failed: ")
    assert "bad.wav is not a sound file" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "report.jsonl").read_text().splitlines()]
    assert [row["status"] == "failed" for row in rows] == [False, False, True, False, False]
    assert all(row["facts"]["sha256"] for row in rows if row["status"] != "failed")
    again = json.loads(vcae(*command.split(), five, *options, "--out-dir", tmp_path / "out", "--resume", "--json").stdout)
    assert (again["failed"], again["skipped"]) == (1, 4)
    alone = vcae(*command.split(), five / "bad.wav", *options)
    assert alone.returncode == 2
    assert alone.stderr.startswith("error: ")
    assert alone.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", ["units", "embed", "anomaly score"])
def test_what_is_collected_counts_alike(command, five, detector, tmp_path):
    options = {"units": ("-o", tmp_path / "u.jsonl"), "embed": ("-o", tmp_path / "e.npz")}.get(command, ("-m", detector))
    done = vcae(*command.split(), five, *options, "--jobs", 1)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("failed: ")
    assert done.stderr.count("\n") == 1
    if command == "units":
        names = [json.loads(line)["file"] for line in (tmp_path / "u.jsonl").read_text().splitlines()]
        assert names == ["a.wav", "b.flac", "c.au", "d.snd"]
    elif command == "embed":
        with np.load(tmp_path / "e.npz") as kept:
            assert kept["names"].tolist() == ["a.wav", "b.flac", "c.au", "d.snd"]
    else:
        assert "4 recordings scored; 1 failed" in done.stdout
        assert len(done.stdout.splitlines()) == 5
    refused = vcae(*command.split(), five, *options, "--resume")
    assert refused.returncode == 2
    assert "--resume needs --out-dir" in refused.stderr


@pytest.mark.slow
def test_a_table_without_speakers_and_several_files(five, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(f"source,output\n{five / 'a.wav'},x/one.flac\n{five / 'b.flac'},\n")
    done = vcae("denoise", table, "--out-dir", tmp_path / "out", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
        "b.wav",
        "report.jsonl",
        "x/one.flac",
    ]
    several = vcae("denoise", five / "a.wav", f"{five}/*.flac", "--out-dir", tmp_path / "two", "--jobs", 1, "--json")
    assert json.loads(several.stdout)["denoised"] == 2
    told = vcae("denoise", five / "a.wav", five / "b.flac", "-o", tmp_path / "x.wav")
    assert told.returncode == 2
    assert "2 sources were given; give a folder for the outputs with --out-dir" in told.stderr


def test_names_lie_within_the_deepest_folder(tmp_path):
    for name in ("x/1.wav", "x/y/2.wav", "z/3.wav", "z/.hidden.wav", "z/notes.txt", "z/.far/4.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [name for _, name in find_sources([str(tmp_path / "x"), str(tmp_path / "z/3.wav"), str(tmp_path / "x/1.wav")])]
    assert names == ["x/1.wav", "x/y/2.wav", "z/3.wav"]
    assert [name for _, name in find_sources([str(tmp_path / "*" / "*.wav")])] == ["x/1.wav", "z/3.wav"]
    with pytest.raises(AudioError, match=r"no file fits .*\*\.mp3"):
        find_sources([str(tmp_path / "*.mp3")])
    with pytest.raises(AudioError, match="goes alone"):
        find_sources(["-", str(tmp_path / "x/1.wav")])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds no sound files among its 1 files"):
        find_sources([str(tmp_path / "empty")])
    jobs = plan([str(tmp_path / "x"), str(tmp_path / "z")], tmp_path / "out", ending=".npz")
    assert [job.output for job in jobs] == [str(tmp_path / "out" / name) for name in ("x/1.npz", "x/y/2.npz", "z/3.npz")]


def test_tables_know_what_they_need(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("source,words\na.wav,hello\n")
    assert [(job.source, job.name) for job in plan([str(table)], None)] == [(str(tmp_path / "a.wav"), "a.wav")]
    with pytest.raises(DataError, match="the columns source and speaker are needed"):
        plan([str(table)], tmp_path, columns=("source", "speaker"))
    table.write_text("source,speaker\na.wav,b.wav\n")
    with pytest.raises(ConfigError, match="names its own speakers; give no other"):
        plan_table(table, tmp_path, ("c.wav",))
    with pytest.raises(AudioError, match="is a table and goes alone"):
        is_table([str(table), "a.wav"])


def test_a_line_of_a_report_is_json_whatever_was_measured():
    line = report_line(Outcome("a", (), "b", "made", facts={"f0_hz": float("nan"), "n": 1}, value=object()))
    assert json.loads(line)["facts"] == {"f0_hz": None, "n": 1}
    assert "value" not in json.loads(line)
