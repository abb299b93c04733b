"""`vcae info` on every kind of file that vcae writes."""

import json
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

import vcae
from tests.conftest import CLIPS
from vcae.cli.app import app

SOURCE, REFERENCE = str(CLIPS / "source.flac"), str(CLIPS / "reference.flac")


def run(*args):
    done = CliRunner().invoke(app, list(map(str, args)))
    assert done.exit_code == 0, done.output
    return done.stdout


def info(path):
    return json.loads(run("info", path, "--json"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a file of each kind, written by the commands themselves."""
    folder = tmp_path_factory.mktemp("made")
    sound = vcae.read_sound(SOURCE)
    for n in range(9):
        vcae.Sound(sound.wav[n * 8000 : n * 8000 + 20000], 16000).save(folder / "in" / f"{n}.wav")
    for name in "ab":
        for n in range(3):
            vcae.Sound(sound.wav[n * 20000 : n * 20000 + 20000], 16000).save(folder / "classes" / name / f"{n}.wav")
    detector = vcae.Detector.fit(sorted((folder / "in").iterdir()), config=vcae.AnomalyConfig(model="statistics"))
    detector.save(folder / "d.safetensors")
    run("units", SOURCE, "-o", folder / "u.jsonl")
    run("units", SOURCE, "-o", folder / "u.TextGrid", "--collapse")
    run("units", SOURCE, "-o", folder / "u.txt")
    run("embed", SOURCE, REFERENCE, "-o", folder / "e.npz")
    run(
        "anomaly",
        "score",
        SOURCE,
        folder / "in" / "0.wav",
        "-m",
        folder / "d.safetensors",
        "--csv",
        folder / "s.csv",
        "--threshold",
        0.5,
    )
    run("anomaly", "score", SOURCE, "-m", folder / "d.safetensors", "--out-dir", folder / "scores")
    (folder / "w.jsonl").write_text(run("anomaly", "watch", SOURCE, "-m", folder / "d.safetensors"))
    run("anomaly", "fit-classes", folder / "classes", "-o", folder / "c.safetensors", "--steps", 2)
    run("anomaly", "classify", SOURCE, REFERENCE, "-m", folder / "c.safetensors", "--csv", folder / "c.csv")
    return folder


@pytest.mark.slow
def test_every_file_that_is_written_is_described(made):
    seconds = pytest.approx(6.69, abs=0.02)
    detector = info(made / "d.safetensors")
    assert (detector["kind"], detector["model"], detector["threshold"]) == ("detector", "statistics", None)
    classes = info(made / "c.safetensors")
    assert (classes["kind"], classes["classes"]) == ("classifier", ["a", "b"])
    for name in ("u.jsonl", "u.TextGrid", "u.txt"):
        units = info(made / name)
        assert (units["kind"], units["sequences"], units["duration_s"]) == ("units", 1, seconds), name
        assert units["collapsed"] == (name == "u.TextGrid")
    features = info(made / "e.npz")
    assert [features[key] for key in ("kind", "recordings", "rows", "numbers_per_row", "what")] == [
        "features",
        2,
        2,
        128,
        "speaker",
    ]
    report = info(made / "scores" / "report.jsonl")
    assert (report["kind"], report["sources"], report["status"], report["duration_s"]) == ("report", 1, {"scored": 1}, seconds)
    one = info(made / "scores" / "source.json")
    assert (one["kind"], one["rows"], one["threshold"], one["anomalous"]) == ("anomaly scores", 1, None, None)
    table = info(made / "s.csv")
    assert (table["kind"], table["rows"], table["threshold"]) == ("anomaly scores", 2, 0.5)
    assert table["lowest_score"] < table["highest_score"] == pytest.approx(one["highest_score"])
    windows = info(made / "w.jsonl")
    assert windows["kind"] == "anomaly scores of windows"
    assert windows["rows"] == len((made / "w.jsonl").read_text().splitlines())
    assert sum(info(made / "c.csv")["classes"].values()) == 2


def test_a_voice_is_described_by_name_and_by_path(tmp_path, monkeypatch):
    monkeypatch.setenv("VCAE_VOICES", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        voice = vcae.load(device="cpu").voice(REFERENCE)
        path = vcae.save_voice(voice, "alice", {"author": "a test"})
    by_name = info("alice")
    assert by_name == info(path)
    assert (by_name["kind"], by_name["checkpoint"], by_name["provenance"]) == ("voice", "default", {"author": "a test"})
    assert by_name["median_f0_hz"] == pytest.approx(np.exp(voice.log_f0_median), abs=0.1)
    assert by_name["speech_s"] == pytest.approx(voice.speech_s)
    assert run("info", "alice").startswith("kind                                 voice\n")


def test_the_kind_comes_first():
    assert info("vq")["kind"] == "checkpoint"
    assert run("info", SOURCE).startswith("kind                                 sound\n")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{}", "is not a file that vcae writes"),
        ("a.jsonl", '{"source": 1}\n{"so', "is not whole JSON"),
        ("a.csv", "x,y\n1,2\n", "has the columns x, y and is no table of vcae"),
        ("a.csv", "", "has the columns none"),
        ("a.txt", "some words", "is not a file that vcae writes"),
        ("a.npz", "PK", "is not a file of features"),
        ("a.txt", "\x00\xff", "cannot be read as text"),
    ],
)
def test_what_is_none_of_these_is_one_line(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    done = CliRunner().invoke(app, ["info", str(tmp_path / name)])
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    missing = CliRunner().invoke(app, ["info", str(tmp_path / f"none{name}")])
    assert (missing.exit_code, "does not exist" in missing.stderr) == (2, True)


def test_several_files_and_folders_and_a_bad_one_stops_no_other(tmp_path):
    folder = tmp_path / "all"
    folder.mkdir()
    (folder / "a.txt").write_text("1 2 2 3\n")
    (folder / "b.txt").write_text("1 two\n")
    (folder / "report.jsonl").write_text('{"source": "x", "status": "made", "output": "y"}\n')
    done = CliRunner().invoke(app, ["info", "default", str(folder), "--json"])
    assert done.exit_code == 1
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["checkpoint", "units", "report"]
    assert done.stderr.startswith("failed: ")
    assert "b.txt" in done.stderr
    assert done.stderr.count("\n") == 1
