"""Scores of features on data whose answer is known, and the recipe on the bundled clips."""

import csv
import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from tests.conftest import CLIPS, ROOT, settings_of
from tests.forked import python
from vcae.config import from_dict
from vcae.errors import ConfigError, DataError
from vcae.evaluation.alignment import Alignment, Interval
from vcae.evaluation.probes import (
    accuracy,
    bootstrap_mean,
    classify,
    cosines,
    draw_examples,
    equal_error_rate,
    verification_error,
    within_whitening,
)

ProbeRecipe = settings_of("probe").ProbeRecipe
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
RECIPE = ROOT / "recipes" / "probe"


@pytest.fixture
def part():
    """Import a part of the recipe, and forget it after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPE))
        before = set(sys.modules)
        yield importlib.import_module
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(RECIPE)):
                del sys.modules[name]


def test_equal_error_rate_on_known_scores():
    same = np.array([True] * 4 + [False] * 4)
    assert equal_error_rate(np.array([9.0, 8, 7, 6, 4, 3, 2, 1]), same) == 0
    assert equal_error_rate(np.array([9.0, 8, 7, 3, 6, 2, 1, 0]), same) == pytest.approx(0.25)
    assert equal_error_rate(np.zeros(8), same) == pytest.approx(0.5)
    assert equal_error_rate(np.array([1.0, 2, 3, 4, 6, 7, 8, 9]), same) == pytest.approx(1)
    # A trial that counts twice is a trial that is there twice.
    scores, twice = np.array([9.0, 8, 7, 3, 6, 2, 1, 0]), np.array([1.0, 1, 1, 2, 1, 1, 2, 1])
    repeated = np.repeat(scores, twice.astype(int)), np.repeat(same, twice.astype(int))
    assert equal_error_rate(scores, same, twice) == pytest.approx(equal_error_rate(*repeated))
    with pytest.raises(DataError, match="trials of the same speaker and of different ones"):
        equal_error_rate(np.zeros(2), np.array([True, True]))


def test_equal_error_rate_of_two_gaussians():
    rng = np.random.default_rng(0)
    same = np.repeat([True, False], 20000)
    scores = rng.normal(size=40000) + 2 * same
    # Half the distance of the means: 1 - Phi(1).
    assert equal_error_rate(scores, same) == pytest.approx(0.1587, abs=0.005)


def voices(n_speakers, n_each, noise, seed=0, nuisance=0.0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_speakers, 16))
    speakers = np.repeat([f"s{n:02}" for n in range(n_speakers)], n_each)
    x = np.repeat(centres, n_each, axis=0) + noise * rng.normal(size=(n_speakers * n_each, 16))
    x[:, :4] += nuisance * rng.normal(size=(len(x), 4))
    return x, speakers


def test_verification_and_its_interval():
    x, speakers = voices(12, 10, 0.6)
    found = verification_error(cosines(x), speakers, 100)
    assert 0 < found.low < found.value < found.high < 0.2
    worse = verification_error(cosines(voices(12, 10, 2.0)[0]), speakers, 100)
    assert worse.low > found.high
    assert verification_error(cosines(x), speakers, 100) == found
    with pytest.raises(DataError):
        verification_error(cosines(x[:10]), speakers[:10])


def test_whitening_takes_out_what_changes_within_a_speaker():
    x, speakers = voices(40, 10, 0.5, seed=1, nuisance=4.0)
    by = within_whitening(x, speakers, 0.0)
    within = np.mean([np.cov((x @ by)[speakers == s].T) for s in np.unique(speakers)], axis=0)
    assert np.allclose(within, np.eye(16), atol=1e-8)
    tested, names = voices(12, 8, 0.5, seed=2, nuisance=4.0)
    plain, white = (verification_error(cosines(v), names, 50).value for v in (tested, tested @ within_whitening(x, speakers)))
    assert white < 0.5 * plain
    with pytest.raises(DataError, match="no speaker has two recordings"):
        within_whitening(x[::10], speakers[::10])


@pytest.mark.parametrize("classifier", ["centroid", "logistic"])
def test_few_examples(classifier):
    x, labels = voices(5, 20, 0.7)
    shares = []
    for n in (1, 10):
        chosen = draw_examples(labels, n, np.random.default_rng(0))
        assert all((labels[chosen] == c).sum() == n for c in set(labels))
        rest = np.setdiff1d(np.arange(len(x)), chosen)
        shares.append(accuracy(classify(x[chosen], labels[chosen], x[rest], classifier), labels[rest]))
    assert 0.4 < shares[0] <= shares[1]
    assert shares[1] > 0.9
    with pytest.raises(DataError, match="allowed are centroid, logistic"):
        classify(x, labels, x, "oracle")


def test_means_by_groups():
    # Classes weigh equally in an accuracy, whatever their size.
    assert accuracy(np.array(["a", "a", "a", "a"]), ["a", "a", "a", "b"]) == 0.5
    values, groups = np.array([1.0, 1, 1, 1, 0, 0]), ["x"] * 4 + ["y"] * 2
    found = bootstrap_mean(values, groups)
    assert (found.value, found.low, found.high) == (pytest.approx(2 / 3), 0, 1)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="tasks has 'emotion'"):
        from_dict(ProbeRecipe, {"manifest": "m.csv", "tasks": ["emotion"]})
    with pytest.raises(ConfigError, match="draws is 0"):
        from_dict(ProbeRecipe, {"manifest": "m.csv", "draws": 0})


def test_prompts_that_the_same_speakers_read(part):
    parallel = part("recordings").parallel
    rows = [{"speaker": s, "transcript": f"{n}", "path": f"{s}{n}"} for s in "abc" for n in range(5)]
    rows += [{"speaker": "d", "transcript": "0", "path": "d0"}, {"speaker": "a", "transcript": "", "path": "none"}]
    found = parallel(rows, 3, 0)
    assert len(found) == 9
    assert {r["speaker"] for r in found} == {"a", "b", "c"}
    assert len({r["transcript"] for r in found}) == 3
    assert parallel(rows[:10], 3, 0) == []


def pieces(seed):
    """Six sentences by four speakers: steps that follow the sentence, and steps of noise."""
    rng, texts = np.random.default_rng(seed), [f"sentence {n}" for n in range(6)]
    shapes = rng.normal(size=(6, 25, 3))
    labels, speakers = np.repeat(texts, 4), np.tile(list("abcd"), 6)
    told, noise = [], []
    for n in range(24):
        at = np.linspace(0, 24, rng.integers(20, 32)).round().astype(int)
        told.append(shapes[n // 4][at] + 0.3 * rng.normal(size=(len(at), 3)))
        noise.append(rng.normal(size=(len(at), 3)))
    return told, noise, labels, speakers


def test_what_tells_sentences_wins_over_what_does_not(part):
    tasks = part("tasks")
    told, noise, labels, speakers = pieces(0)
    items = tasks.Items({"content": told, "MFCC": noise}, labels, speakers, np.ones(24, bool))
    splits = tasks.by_speakers(items, (1, 3))
    assert list(splits) == ["1 of 6", "3 of 6"]
    assert [len(pairs) for pairs in splits.values()] == [4, 4]
    for examples, test in splits["3 of 6"]:
        assert not set(speakers[examples]) & set(speakers[test])
    head, *rows = tasks.few_shot(ProbeRecipe("m.csv"), items, splits, n_parts=10)
    assert [row[:2] for row in rows] == [[h, name] for h in splits for name in ("content", "MFCC")]
    for _, name, *cells in rows:
        shares = [float(cell.split(" %")[0]) for cell in cells[:3]]
        assert min(shares) > 85 if name == "content" else max(shares) < 60
        assert float(cells[3].split(" ")[0]) > 40 if name == "content" else cells[3] == ""
    assert head[-1] == "best way less the best MFCC"


def test_words_are_cut_where_they_are_said(part, monkeypatch):
    tasks, recordings = part("tasks"), part("recordings")
    monkeypatch.setattr(tasks, "SHOTS", (1, 2))
    mel = np.zeros((80, 100), np.float32)
    rows = [recordings.Recording(CLIPS / "x", s, "", mel) for s in ("a", "b", "c", "d")]
    spoken = tuple(Interval(w, t, t + 0.32) for w, t in (("yes", 0.32), ("no", 0.96), ("a", 1.5)))
    aligned = [Alignment((), spoken), Alignment((), spoken), Alignment((), spoken[:2]), Alignment((), spoken[:2])]
    steps = {"x": part("features").Steps("x", [np.arange(50.0)[:, None] for _ in rows])}
    items = tasks.words(ProbeRecipe("m.csv"), rows, aligned, steps, n_tested=2)
    # "a" has no examples among the last two recordings.
    assert sorted(set(items.labels)) == ["no", "yes"]
    assert [p[:, 0].tolist() for p in items.pieces["x"][:2]] == [list(range(10, 20)), list(range(30, 40))]
    assert items.example.tolist() == [False] * 4 + [True] * 4
    for head, pairs in tasks.word_splits(ProbeRecipe("m.csv"), items).items():
        assert head in ("1 of 2", "2 of 2")
        assert all(items.example[e].all() and not items.example[t].any() for e, t in pairs)


@pytest.fixture
def manifest(tmp_path):
    lines = ["path,speaker,corpus,split,transcript"]
    for speaker, name in (("a", "source"), ("b", "reference"), ("c", "reference2")):
        wav, rate = soundfile.read(CLIPS / f"{name}.flac")
        for n, piece in enumerate(np.array_split(wav, 6)):
            split = "dev" if n < 4 else "train"
            soundfile.write(tmp_path / f"{speaker}{n}.flac", piece, rate)
            lines.append(f"{speaker}{n}.flac,{speaker},clips,{split},")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "m.csv"


def test_the_recipe_on_the_bundled_clips(tmp_path, manifest):
    settings = [
        f"manifest={manifest}",
        f"output_dir={tmp_path / 'out'}",
        "ceiling=false",
        "tasks=[verification,identification,matrix]",
        "others=[ladder:16]",
    ]
    command = [*python(), str(RECIPE / "evaluate.py"), str(RECIPE / "conf/quick.yaml"), *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    tables = json.loads((tmp_path / "out/results.json").read_text())["tables"]
    assert list(tables) == ["verification", "identification", "matrix"]
    errors = {row[0]: float(row[1].split(" %")[0]) for row in tables["verification"][1:]}
    assert errors["vcae"] < errors["MFCC, standardised by training speakers"]
    assert tables["identification"][0][1].startswith("1 of 3")
    known = {row[0]: row for row in tables["matrix"]}
    assert known["chance"][2] == ".333"
    assert float(known["speaker embedding"][2]) > 0.6
    # Content knows less of the voice, step by step, than the mel it was made of.
    assert float(known["content of default"][3]) < float(known["mel"][3])
    assert known["plain code of 16"][1] == "16"
    assert float(known["plain code of 16"][2]) > float(known["content of default"][2])
    rows = list(csv.reader((tmp_path / "out/matrix.csv").open()))
    assert rows == tables["matrix"]


def test_a_manifest_without_speakers_is_refused(tmp_path, manifest):
    command = [
        *python(),
        str(RECIPE / "evaluate.py"),
        str(RECIPE / "conf/quick.yaml"),
        f"manifest={manifest}",
        "split=test",
    ]
    done = subprocess.run(
        [*command, f"output_dir={tmp_path / 'out'}"], cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 1
    assert "needs two speakers of the split 'test'" in done.stderr
