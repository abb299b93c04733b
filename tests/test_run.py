"""One way to run many: the same folder gives the same count and the same exit code from every command."""

import json
import multiprocessing
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from tests.conftest import CLIPS
from tests.forked import python
from vcae import AudioError, ConfigError, DataError
from vcae.batch.jobs import (
    Job,
    Outcome,
    append_report,
    find_sources,
    is_table,
    plan,
    plan_table,
    read_report,
    report_line,
    write_report,
)
from vcae.batch.unit_speaker import UnitSpeaker
from vcae.batch.workers import Converter
from vcae.files import hash_file
from vcae.options import ConvertOptions, SpeakOptions
from vcae.tasks.unit_files import read_units

REFERENCE = str(CLIPS / "reference.flac")


@pytest.fixture(scope="module")
def detector(tmp_path_factory, speech):
    from vcae.anomaly.config import AnomalyConfig
    from vcae.anomaly.detector import Detector

    path = tmp_path_factory.mktemp("detector") / "d.safetensors"
    Detector.fit([speech[n * 8000 : n * 8000 + 20000] for n in range(9)], 16000, AnomalyConfig(model="statistics")).save(path)
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, speech):
    from vcae.anomaly.config import OpenSetConfig
    from vcae.anomaly.openset import OpenSetClassifier

    path = tmp_path_factory.mktemp("classifier") / "c.safetensors"
    wavs = [speech[n * 12000 : n * 12000 + 20000] for n in range(6)]
    OpenSetClassifier.fit(wavs, ["a"] * 3 + ["b"] * 3, OpenSetConfig(max_steps=2)).save(path)
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
    line = [*python(), "-m", "vcae", *map(str, args)]
    return subprocess.run(line, capture_output=True, input=stdin, text=stdin is None)


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; sys.argv[0] = 'vcae'; from vcae.cli.app import main; main()"


def without_torch(*args, stdin=None):
    """Run a command in a process that cannot import torch."""
    line = [sys.executable, "-c", WITHOUT_TORCH, *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, input=stdin)


EACH = {
    "convert": ("-s", REFERENCE),
    "denoise": (),
    "compress": (),
    "reconstruct": (),
    "vocode": (),
    "units": (),
    "embed": (),
    "plot": (),
    "speak": ("-s", REFERENCE),
    "decompress": (),
    "anomaly score": ("-m", "detector"),
    "anomaly classify": ("-m", "classifier"),
}
# Commands on other files than recordings.
OTHER = {"speak": ".jsonl", "decompress": ".vcz"}


@pytest.fixture(scope="module")
def others(five, tmp_path_factory):
    """Folders of files of units and of compressed speech, with a bad one each, by suffix."""
    made = {}
    for command, suffix in (("units", ".jsonl"), ("compress", ".vcz")):
        made[suffix] = tmp_path_factory.mktemp(command) / "in"
        done = vcae(command, five, "--glob", "?.*", "--out-dir", made[suffix], "--jobs", 2)
        assert done.returncode == 0, done.stderr
        (made[suffix] / "report.jsonl").unlink(missing_ok=suffix == ".vcz")
        (made[suffix] / f"bad{suffix}").write_text("nothing of this kind")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("command", EACH)
def test_every_command_counts_a_folder_alike(command, five, others, request, tmp_path):
    options = [request.getfixturevalue(one) if one in ("detector", "classifier") else one for one in EACH[command]]
    folder, bad = (others[OTHER[command]], f"bad{OTHER[command]}") if command in OTHER else (five, "bad.wav")
    done = vcae(*command.split(), folder, *options, "--out-dir", tmp_path / "out", "--jobs", 2, "--json")
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert (said["total"], said["failed"], said["skipped"]) == (5, 1, 0)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("failed: ")
    assert bad in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "report.jsonl").read_text().splitlines()]
    assert [row["source"].rsplit("/", 1)[1] for row in rows if row["status"] == "failed"] == [bad]
    assert len(rows) == 5
    assert all(row["facts"].get("sha256") or command == "plot" for row in rows if row["status"] != "failed")
    again = without_torch(
        *command.split(), folder, *options, "--out-dir", tmp_path / "out", "--resume", "--json", "--glob", "?.*"
    )
    said = json.loads(again.stdout)
    assert (again.returncode, said["failed"], said["skipped"], said["total"]) == (0, 0, 4, 4)
    alone = vcae(*command.split(), folder / bad, *options)
    assert alone.returncode == 2
    assert alone.stderr.startswith("error: ")
    assert alone.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("convert {a} -s {r} --pitch foo", "pitch is 'foo'"),
        ("convert {a} -s {r} --strength 7", "strength is 7.0"),
        ("convert {a} -s {r} --checkpoint nofile", "no checkpoint is called 'nofile'"),
        ("speak - -s {r} --checkpoint nofile", "no checkpoint is called 'nofile'"),
        ("stream -s {r} --checkpoint nofile", "no checkpoint is called 'nofile'"),
        ("generate voice -o new.safetensors --checkpoint nofile", "no checkpoint is called 'nofile'"),
        ("interpolate {r} {r} -o way --checkpoint nofile", "no checkpoint is called 'nofile'"),
        ("voice save new {r} --checkpoint nofile", "no checkpoint is called 'nofile'"),
        ("plot {a} --units --checkpoint nofile", "no checkpoint is called 'nofile'"),
        ("anomaly score {a} -m no.safetensors", "no.safetensors does not exist"),
        ("denoise {a} --strength 2", "strength is 2"),
        ("compress {a} --kbps 9", "9"),
    ],
)
def test_a_wrong_option_is_refused_without_torch(line, message, five, tmp_path):
    words = line.format(a=five / "a.wav", r=REFERENCE).split()
    done = without_torch(*words, stdin="1 2 3\n")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("line", ["convert {a} -s {r}", "speak - -s {r}", "stream -s {r}"])
def test_options_of_the_version_before_are_accepted_and_say_that_they_have_no_effect(line, five):
    words = line.format(a=five / "a.wav", r=REFERENCE).split()
    done = without_torch(*words, "--match", "0.5", "--checkpoint", "nofile", stdin="1 2 3\n")
    warning, error = done.stderr.splitlines()
    assert warning == "warning: --match has no effect any more; leave it out"
    assert error.startswith("error: no checkpoint is called 'nofile'")


def test_two_runs_into_one_folder_keep_each_others_lines(tmp_path):
    report = tmp_path / "report.jsonl"
    write_report(report, [Outcome("a", (), "out/a.wav", "made"), Outcome("b", (), "out/b.wav", "failed", "why")])
    write_report(report, [Outcome("c", (), "out/c.wav", "made"), Outcome("b", (), "out/b.wav", "made")])
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(row["source"], row["status"]) for row in rows] == [("a", "made"), ("c", "made"), ("b", "made")]
    with report.open("a") as lines:
        lines.write('{"output": "half')
    append_report(report, Outcome("d", (), "out/d.wav", "made"))
    assert list(read_report(report)) == ["out/a.wav", "out/c.wav", "out/b.wav", "out/d.wav"]


def _run_of_many(report, name, n):
    outcomes = [Outcome(f"{name}{i}", (), f"{name}{i}.wav", "made") for i in range(n)]
    for outcome in outcomes:
        append_report(report, outcome)
    write_report(report, outcomes)


def test_two_runs_at_the_same_time_keep_each_others_lines(tmp_path):
    report, n = tmp_path / "report.jsonl", 40
    context = multiprocessing.get_context("spawn")
    runs = [context.Process(target=_run_of_many, args=(report, name, n)) for name in ("a", "b")]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert sorted(row["source"] for row in rows) == sorted(f"{name}{i}" for name in ("a", "b") for i in range(n))


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
        rows = done.stdout.splitlines()[:-1]
        assert [row.startswith("failed ") for row in rows] == [False, False, True, False, False]
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


def test_each_sequence_of_a_file_of_units_is_a_job(tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text("1 2\n3 4\n")
    (tmp_path / "in" / "a" / "1.txt").write_text("5 6\n")
    (tmp_path / "in" / "bad.txt").write_text("none\n")
    worker, out = UnitSpeaker(SpeakOptions(), (REFERENCE,)), tmp_path / "out"
    several = read_units(tmp_path / "in" / "a.txt")
    jobs = worker.split(plan([str(tmp_path / "in")], out, (REFERENCE,), ".wav", UnitSpeaker.sources), out)
    assert [(job.source.rsplit("/", 1)[1], job.part) for job in jobs] == [
        ("a.txt", 0),
        ("a.txt", 1),
        ("bad.txt", 0),
        ("1.txt", 0),
    ]
    assert len({job.output for job in jobs}) == 4
    assert all(job.output.endswith(".wav") for job in jobs)
    assert len({worker.digest(job) for job in jobs if "bad" not in job.source}) == 3
    alone = worker.split(plan([str(tmp_path / "in" / "a.txt")], out, (REFERENCE,)), out)
    assert [job.output for job in alone] == [str(out / f"{unit.name}.wav") for unit in several]
    with pytest.raises(DataError, match=r"bad\.txt, line 1"):
        worker.split(plan([str(tmp_path / "in" / "bad.txt")], out, (REFERENCE,)), out)


def test_finished_work_is_made_again_if_anything_that_matters_has_changed(five, tmp_path):
    """A worker that has not loaded its model knows what is finished."""
    source, output = tmp_path / "a.wav", tmp_path / "out.wav"
    source.write_bytes((five / "a.wav").read_bytes())
    output.write_bytes(b"made")
    worker = Converter(ConvertOptions(), (REFERENCE,))
    job = Job(str(source), (REFERENCE,), str(output))
    known = {"key": worker._key(job), "sha256": hash_file(output), "status": "converted", "duration_s": 1.25}
    found = worker.finished(replace(job, known=known))
    assert (found.status, found.duration_s, found.n_bytes) == ("skipped", 1.25, 4)
    for other in (
        Converter(ConvertOptions(pitch="keep"), (REFERENCE,)),
        Converter(ConvertOptions(denoise=True), (REFERENCE,)),
        Converter(ConvertOptions(), (REFERENCE,), "vq"),
    ):
        assert other.finished(replace(job, known=known)) is None
    assert worker.finished(replace(job, known=known, speakers=(str(CLIPS / "reference2.flac"),))) is None
    assert worker.finished(replace(job, known=known | {"status": "failed"})) is None
    assert worker.finished(job) is None
    output.write_bytes(b"changed")
    assert worker.finished(replace(job, known=known)) is None
    output.write_bytes(b"made")
    source.write_bytes((five / "b.flac").read_bytes())
    assert worker.finished(replace(job, known=known)) is None


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
