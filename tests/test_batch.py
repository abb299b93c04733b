"""Folders and tables: what is planned, what is skipped, what survives."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import CLIPS
from tests.forked import python
from vcae.batch.jobs import Job, plan, plan_table, read_report, unique_names
from vcae.batch.pool import TRIES, _receive, _Worker, run_jobs
from vcae.batch.workers import Converter
from vcae.errors import ConfigError, DataError
from vcae.options import ConvertOptions

REFERENCE = str(CLIPS / "reference.flac")


def vcae(*args):
    return subprocess.run([*python(), "-m", "vcae", *map(str, args)], capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path, speech):
    """Six short recordings in a tree with a hidden file, a text and a damaged one."""
    rng = np.random.default_rng(0)
    root = tmp_path / "in"
    for n, name in enumerate(("a.wav", "b.flac", "day 1/c.wav", "day 1/c.ogg", "day 1/\u00e9t\u00e9/d.wav", "e.wav")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        start = rng.integers(16000, 40000)
        soundfile.write(path, speech[start : start + 9000 + 1000 * n], 16000)
    (root / "notes.txt").write_text("no sound")
    (root / ".hidden.wav").write_bytes(b"x")
    (root / "bad.wav").write_text("no sound either")
    return root


def _files(out):
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and p.name != "report.jsonl")


MADE = ["a.wav", "b.wav", "day 1/c.ogg.wav", "day 1/c.wav.wav", "day 1/\u00e9t\u00e9/d.wav", "e.wav"]


def test_a_folder_is_planned(folder, tmp_path):
    out = folder / "out"
    out.mkdir()
    (out / "old.wav").write_bytes(b"x")
    jobs = plan([str(folder)], out, ("me",))
    assert sorted(os.path.relpath(job.output, out) for job in jobs) == sorted([*MADE, "bad.wav"])
    assert {job.speakers for job in jobs} == {("me",)}
    assert [os.path.basename(job.source) for job in plan([str(folder)], out, pattern="*.flac")] == ["b.flac"]
    assert len(plan([str(folder)], out, pattern="day 1/*")) == 3
    with pytest.raises(ConfigError, match=r"holds no files like '\*.xyz' among its 8 files"):
        plan([str(folder)], out, pattern="*.xyz")
    with pytest.raises(ConfigError, match="holds no sound files among its 0 files"):
        plan([str(_empty(tmp_path))], out)


def test_files_that_are_left_out_are_named(folder, tmp_path):
    left_out = []
    plan([str(folder)], tmp_path / "out", left_out=left_out)
    assert [os.path.basename(name) for name in left_out] == ["notes.txt"]


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (["a.wav", "b.mp3"], ["a.wav", "b.wav"]),
        (["a.wav", "a.mp3"], ["a.wav.wav", "a.mp3.wav"]),
        (["a.mp3", "a.mp3.wav", "a.wav"], ["a.mp3.wav", "a.mp3.wav.wav", "a.wav.wav"]),
        (["A.wav", "a.flac"], ["A.wav.wav", "a.flac.wav"]),
        (["A.wav", "a.wav"], ["A.wav.wav", "a.wav.2.wav"]),
        (["d/a.wav", "D/a.wav"], ["d/a.wav.wav", "D/a.wav.2.wav"]),
        (["\u00e9.wav", "e\u0301.mp3"], ["\u00e9.wav.wav", "e\u0301.mp3.wav"]),
        (["a", "a.wav", "a.wav.wav"], ["a.wav", "a.wav.wav", "a.wav.wav.wav"]),
    ],
)
def test_no_two_outputs_are_one_file(names, outputs):
    assert unique_names([str(Path(name).with_suffix(".wav")) for name in names], [f"{name}.wav" for name in names]) == outputs


def test_a_table_names_no_output_twice(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("source,speaker,output\na.wav,b,\na.mp3,b,\nc.wav,b,b/D.wav\nd.flac,b,\n")
    jobs = plan_table(table, tmp_path / "out")
    assert [os.path.relpath(job.output, tmp_path / "out") for job in jobs] == [
        "b/a.wav.wav",
        "b/a.mp3.wav",
        "b/D.wav",
        "b/d.flac.wav",
    ]


def _empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_a_table_is_planned(tmp_path):
    (tmp_path / "anna.wav").write_bytes(b"x")
    table = tmp_path / "pairs.csv"
    table.write_text("source,speaker,output\nx/1.wav,anna.wav,\nx/1.wav,anna.wav:0.5;saved:0.5,mixed/one.flac\n")
    first, second = plan_table(table, tmp_path / "out")
    assert first == Job(str(tmp_path / "x/1.wav"), (str(tmp_path / "anna.wav"),), str(tmp_path / "out/anna/x/1.wav"), "x/1.wav")
    assert second.speakers == (f"{tmp_path / 'anna.wav'}:0.5", "saved:0.5")
    assert second.output == str(tmp_path / "out/mixed/one.flac")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows; the columns source and speaker are needed"),
        ("source,voice\na,b\n", r"has source, voice \(separator seen: comma\); the columns source and speaker are needed"),
        ("source;voice\na;b\n", r"has source, voice \(separator seen: semicolon\).* separated by comma, semicolon or tab"),
        ("source speaker\na b\n", r"has source speaker \(separator seen: comma\)"),
        ("source,speaker\na.wav,\n", "line 2: source is 'a.wav' and speaker ''"),
        ("source,speaker\na.wav,b\na.wav,b\n", "line 3: .* is the output of line 2 too"),
        ("source,speaker,output\na.wav,b,X.wav\nc.wav,b,x.wav\n", "line 3: .* is the output of line 2 too"),
        ("source,speaker,output\na.wav,b,../c.wav\n", "line 2: output is '../c.wav'; it must be a path below"),
        ('source,speaker\n"a.wav,b\n', "cannot be read as a table"),
        (b"source,speaker\n\x81,b\n", "cannot be read as a table"),
    ],
)
def test_unusable_tables(tmp_path, text, message):
    table = tmp_path / "t.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        plan_table(table, tmp_path)


def test_reports_survive_what_a_killed_run_left(tmp_path):
    report = tmp_path / "report.jsonl"
    assert read_report(report) == {}
    report.write_text('{"output": "a", "key": "1"}\n{"output": "b", "ke\n\n[1]\n{"output": "a", "key": "2"}\n')
    assert read_report(report) == {"a": {"output": "a", "key": "2"}}


def test_folders_are_converted_skipped_and_converted_again(folder, tmp_path, speech):
    args = ("convert", folder, "-s", REFERENCE, "--json")
    outs = {jobs: tmp_path / f"out{jobs}" for jobs in (1, 2)}
    for jobs, out in outs.items():
        done = vcae(*args, "--out-dir", out, "--jobs", jobs)
        assert done.returncode == 1, done.stderr
        said = json.loads(done.stdout)
        assert (said["converted"], said["skipped"], said["failed"], said["total"]) == (6, 0, 1, 7)
        left_out, failed = done.stderr.splitlines()
        assert left_out.startswith("left out, by suffix: ")
        assert "notes.txt" in left_out
        assert failed.startswith("failed: ")
        assert "bad.wav is not a sound file" in failed
        assert _files(out) == MADE
    for name in MADE:
        assert (outs[1] / name).read_bytes() == (outs[2] / name).read_bytes()
    out = outs[2]
    lines = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert sorted(line["status"] for line in lines) == ["converted"] * 6 + ["failed"]
    again = vcae(*args, "--out-dir", out)
    assert again.returncode == 2
    assert "6 of 7 outputs are in" in again.stderr
    before = {name: (out / name).read_bytes() for name in MADE}
    (folder / "bad.wav").unlink()
    soundfile.write(folder / "a.wav", speech[50000:60000], 16000)
    (out / "b.wav").write_bytes(b"broken")
    (out / "e.wav").unlink()
    resumed = json.loads(vcae(*args, "--out-dir", out, "--resume").stdout)
    assert (resumed["converted"], resumed["skipped"], resumed["failed"]) == (3, 3, 0)
    after = {name: (out / name).read_bytes() for name in MADE}
    assert {name for name in MADE if after[name] != before[name]} == {"a.wav"}
    other = json.loads(vcae(*args, "--out-dir", out, "--resume", "--pitch", "keep").stdout)
    assert (other["converted"], other["skipped"]) == (6, 0)


def test_tables_do_many_to_many(tmp_path, speech):
    for n in (1, 2):
        soundfile.write(tmp_path / f"{n}.wav", speech[n * 16000 : n * 16000 + 9000], 16000)
    rows = [f"{n}.wav,{CLIPS / name}.flac" for n in (1, 2) for name in ("reference", "reference2")]
    (tmp_path / "pairs.csv").write_text("\n".join(["source,speaker", *rows, "3.wav,nobody"]))
    done = vcae("convert", tmp_path / "pairs.csv", "--out-dir", tmp_path / "out", "--jobs", 1)
    assert done.returncode == 1
    assert "3.wav does not exist" in done.stderr
    assert "4 converted, 0 skipped, 1 failed of 5" in done.stdout
    made = _files(tmp_path / "out")
    assert made == ["reference/1.wav", "reference/2.wav", "reference2/1.wav", "reference2/2.wav"]
    assert len({(tmp_path / "out" / name).read_bytes() for name in made}) == 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--speaker", REFERENCE), "give a folder for the outputs with --out-dir"),
        (("--speaker", REFERENCE, "-o", "x.wav"), "give a folder for the outputs with --out-dir"),
        (("--out-dir", "{out}"), "no --speaker was given"),
        (("--out-dir", "{out}", "-s", "nobody"), "no file and no saved voice is called 'nobody'"),
        (("--out-dir", "{out}", "-s", REFERENCE, "--pitch", "loud"), "pitch is 'loud'"),
        (("--out-dir", "{out}", "-s", "{in}/silent.flac"), "is silent"),
        (("--out-dir", "{in}/a.wav/x", "-s", REFERENCE), "cannot be written to"),
    ],
)
def test_what_ends_a_run_at_once(folder, tmp_path, args, message):
    soundfile.write(folder / "silent.flac", np.zeros(32000), 16000)
    places = {"in": folder, "out": tmp_path / "out"}
    done = vcae("convert", folder, *(a.format(**places) for a in args))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    *left_out, error = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert all(line.startswith("left out, by suffix: ") for line in left_out)
    assert len(left_out) <= 1
    assert not (tmp_path / "out").exists() or _files(tmp_path / "out") == []


def test_options_of_many_are_refused_without_a_folder_for_the_outputs(tmp_path):
    for option in (("--resume",), ("--jobs", "2"), ("--glob", "*")):
        done = vcae("convert", CLIPS / "source.flac", "-s", REFERENCE, "-o", tmp_path / "x.wav", *option)
        assert done.returncode == 2
        assert "--glob, --jobs and --resume go with --out-dir" in done.stderr
    both = vcae("convert", CLIPS / "source.flac", "-s", REFERENCE, "-o", tmp_path / "x.wav", "--out-dir", tmp_path / "x")
    assert both.returncode == 2
    assert "give one of the two" in both.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def thirty(tmp_path, speech):
    root = tmp_path / "thirty"
    root.mkdir()
    for n in range(30):
        soundfile.write(root / f"{n:02d}.wav", speech[n * 1500 : n * 1500 + 8200], 16000)
    return root


def _started(folder, out, enough):
    """Start a run in a session of its own and wait until it has made so many files."""
    command = [sys.executable, "-m", "vcae", "convert", str(folder), "-s", REFERENCE, "--out-dir", str(out), "--jobs", "2"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 120
    while len(list(out.glob("*.wav"))) < enough:
        assert time.monotonic() < end
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
    return run


@pytest.mark.slow
def test_kill_9_in_the_middle_and_resume(thirty, tmp_path):
    out = tmp_path / "out"
    run = _started(thirty, out, 8)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    made = sorted(out.glob("*.wav"))
    assert 8 <= len(made) < 30
    for path in made:
        assert soundfile.info(path).frames == 8200
    (out / ".vcae-999999999-half.part").write_bytes(b"half")
    done = vcae("convert", thirty, "-s", REFERENCE, "--out-dir", out, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["converted"] + said["skipped"] == 30
    assert said["skipped"] >= 6
    assert _files(out) == [f"{n:02d}.wav" for n in range(30)]
    report = read_report(out / "report.jsonl")
    assert len(report) == 30
    fresh = tmp_path / "fresh"
    jobs = [Job(str(thirty / path.name), (REFERENCE,), str(fresh / path.name)) for path in (made[0], out / "29.wav")]
    for job, outcome in zip(
        jobs, sorted(run_jobs(jobs, partial(Converter, ConvertOptions()), 1), key=lambda o: o.output), strict=True
    ):
        assert outcome.status == "converted"
        assert (fresh / os.path.basename(job.output)).read_bytes() == (out / os.path.basename(job.output)).read_bytes()


@pytest.mark.slow
def test_ctrl_c_leaves_whole_files_and_says_how_to_go_on(thirty, tmp_path):
    out = tmp_path / "out"
    run = _started(thirty, out, 4)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert said[0] == ""
    assert said[1].startswith("interrupted: ")
    assert said[1].count("\n") == 1
    assert "--resume to continue" in said[1]
    made = _files(out)
    assert all(name.endswith(".wav") and not name.startswith(".") for name in made)
    assert all(soundfile.info(out / name).frames == 8200 for name in made)


def test_a_worker_that_dies_loses_nothing(thirty, tmp_path):
    jobs = [Job(str(thirty / f"{n:02d}.wav"), (REFERENCE,), str(tmp_path / "o" / f"{n}.wav")) for n in range(12)]
    outcomes = []
    for outcome in run_jobs(jobs, partial(Converter, ConvertOptions()), 2):
        if not outcomes:
            multiprocessing.active_children()[0].kill()
        outcomes.append(outcome)
    assert sorted(o.output for o in outcomes) == sorted(job.output for job in jobs)
    assert {o.status for o in outcomes} == {"converted"}


def test_a_job_that_kills_its_workers_is_given_up():
    class Dead:
        exitcode = -9

        def join(self):
            pass

    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    job, waiting = Job("a", ("b",), "c"), deque()
    assert _receive(_Worker(Dead(), ours, job, 1), waiting) is None
    assert list(waiting) == [(job, 2)]
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    outcome = _receive(_Worker(Dead(), ours, job, TRIES), deque())
    assert outcome.status == "failed"
    assert "exit code -9" in outcome.reason


def test_what_is_unexpected_fails_one_file_only(tmp_path, monkeypatch):
    converter = Converter(ConvertOptions(), (REFERENCE,), device="cpu")
    monkeypatch.setattr(Converter, "_do", lambda self, job: 1 / 0)
    outcome = converter(Job("a.wav", (REFERENCE,), str(tmp_path / "a.wav")))
    assert (outcome.status, outcome.reason) == ("failed", "unexpected ZeroDivisionError: division by zero")
