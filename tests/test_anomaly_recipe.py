"""The recipe on small synthetic data, its faults and its peers; and the report that `vcae anomaly evaluate` writes."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import CLIPS, ROOT, settings_of
from tests.forked import python
from vcae.anomaly import metrics
from vcae.anomaly.metrics import CostTable
from vcae.anomaly.plot import draw_anomaly
from vcae.anomaly.report import Scored, judge, worst, write_report
from vcae.audio.config import MelConfig
from vcae.errors import ConfigError, DataError

# A script's own folder comes before the current one: it shall import the package that is tested.
AnomalyRecipe = settings_of("anomaly").AnomalyRecipe
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module", autouse=True)
def _recipe_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "recipes" / "anomaly"))
        before = set(sys.modules)
        yield
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(ROOT / "recipes" / "anomaly")):
                del sys.modules[name]


# Faults.


@pytest.mark.parametrize("kind", ["click", "dropout", "clipping", "hum", "splice", "codec"])
def test_a_fault_is_where_it_says_and_nowhere_else(kind, speech):
    from faults import make_fault

    for seed in range(3):
        wav, (fault,) = make_fault(speech, kind, seed)
        again, _ = make_fault(speech, kind, seed)
        assert np.array_equal(wav, again)
        start, end = round(fault.start_s * 16000), round(fault.end_s * 16000)
        assert 0.3 <= fault.start_s <= fault.end_s <= len(speech) / 16000
        assert np.array_equal(wav[:start], speech[:start])
        if kind == "splice":
            cut = len(speech) - len(wav)
            assert start == end
            assert 0.2 * 16000 <= cut <= 0.5 * 16000
            assert np.array_equal(wav[start:], speech[start + cut :])
        else:
            assert np.array_equal(wav[end:], speech[end:])
            # Strong enough to hear: what was changed lies less than 30 dB under the speech.
            change = float(np.square(wav[start:end] - speech[start:end]).mean())
            assert change > 1e-3 * float(np.square(speech).mean())
        if kind == "dropout":
            assert not wav[start:end].any()
        assert np.abs(wav).max() <= 2.01 * np.abs(speech).max()


def test_faults_that_cannot_be_made_are_named(speech):
    from faults import make_fault

    with pytest.raises(ConfigError, match="no fault 'fire'; allowed are click, dropout, clipping, hum, splice, codec"):
        make_fault(speech, "fire", 0)
    with pytest.raises(ConfigError, match=r"has 0\.50 s; at least 1 s"):
        make_fault(speech[:8000], "click", 0)


def test_a_place_counts_within_100_ms():
    from faults import Fault
    from locations import is_located

    from vcae.anomaly.locate import Place

    def at(time_s):
        return Place(time_s, time_s, time_s, 9.0, "click")

    fault = Fault("hum", 1.0, 1.5)
    assert [is_located(fault, at(t)) for t in (0.89, 0.91, 1.2, 1.59, 1.61)] == [False, True, True, True, False]


# Peers.


def hum(seed, anomalous=False, seconds=2.0):
    rng = np.random.default_rng(seed)
    t = np.arange(int(16000 * seconds)) / 16000
    wav = 0.2 * np.sin(2 * np.pi * 200 * t) + 0.03 * rng.normal(size=len(t))
    if anomalous:
        wav = wav + 0.1 * np.sin(2 * np.pi * 1500 * t)
    return wav.astype(np.float32)


@pytest.mark.parametrize(
    "name",
    ["isolation-forest-windows", "one-class-svm", "gaussian-mixture", "gaussian-mixture-windows", "one-class-svm-windows"],
)
def test_each_peer_hears_an_added_whistle(name):
    from peers import fit_peer

    score = fit_peer(name, [hum(n) for n in range(10)], seed=0, epochs=1)
    normal, anomalous = [score(hum(n + 50)) for n in range(4)], [score(hum(n + 80, True)) for n in range(4)]
    assert metrics.auc([0] * 4 + [1] * 4, normal + anomalous) == 1.0


def test_the_baseline_learns_what_is_normal():
    from peers import fit_baseline

    # From less sound it learns the noise by heart, and the order of the scores is chance.
    little, much = (fit_baseline([hum(n, seconds=3.0) for n in range(6)], seed=0, epochs=n) for n in (1, 150))
    assert much(hum(50, seconds=3.0)) < 0.5 * little(hum(50, seconds=3.0))
    assert min(much(hum(n, True, 3.0)) for n in (80, 81)) > 1.1 * max(much(hum(n, seconds=3.0)) for n in (50, 51))


def test_the_peer_of_pyod(recwarn):
    pytest.importorskip("pyod", reason="the extra anomaly brings it")
    from peers import fit_peer

    score = fit_peer("pyod-autoencoder-windows", [hum(n) for n in range(6)], seed=0, epochs=1)
    assert min(score(hum(n + 80, True)) for n in range(3)) > max(score(hum(n + 50)) for n in range(3))


def test_a_peer_that_is_not_installed_says_how_to_get_it(monkeypatch):
    from peers import NotInstalledError, fit_peer

    monkeypatch.setitem(sys.modules, "pyod", None)
    monkeypatch.setitem(sys.modules, "pyod.models.auto_encoder", None)
    with pytest.raises(NotInstalledError, match=r"pip install '.\[anomaly\]'"):
        fit_peer("pyod-autoencoder", [hum(0)] * 3, seed=0, epochs=1)
    with pytest.raises(ConfigError, match="peers has 'luck'"):
        fit_peer("luck", [hum(0)], seed=0, epochs=1)


def test_the_baseline_is_the_published_architecture():
    from peers import Baseline, stack_frames

    net = Baseline()
    sizes = [(m.in_features, m.out_features) for m in net.modules() if isinstance(m, torch.nn.Linear)]
    hidden = [(640, 128), (128, 128), (128, 128), (128, 128), (128, 8), (8, 128), (128, 128), (128, 128), (128, 128)]
    assert sizes == [*hidden, (128, 640)]
    assert sum(isinstance(m, torch.nn.BatchNorm1d) for m in net.modules()) == 9
    # As the Keras model's summary says: 269,992 with the batch norms' moving averages.
    assert (
        sum(p.numel() for p in net.parameters()) + sum(b.numel() for n, b in net.named_buffers() if "running" in n) == 269_992
    )
    rows = stack_frames(hum(0, seconds=1.0))
    assert rows.shape == (1 + 16000 // 512 - 4, 640)
    # Row n holds frames n to n + 4, one after the other.
    assert np.array_equal(rows[0, 128:256], rows[1, :128])
    assert np.array_equal(rows[0, 512:], rows[4, :128])


# Trials.


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    lines = ["path,label"]
    for n in range(10):
        soundfile.write(root / f"m{n}.wav", hum(n, n >= 6), 16000)
        lines.append(f"m{n}.wav,pump;{'abnormal' if n >= 6 else 'normal'}")
    (root / "machines.csv").write_text("\n".join(lines))
    lines = ["path,class,fold"]
    for k, (name, hz) in enumerate((("low", 150), ("high", 3000), ("mid", 800))):
        for n in range(12):
            rng, t = np.random.default_rng([k, n]), np.arange(24000) / 16000
            wav = 0.2 * np.sin(2 * np.pi * hz * rng.uniform(0.9, 1.1) * t) + 0.02 * rng.normal(size=len(t))
            soundfile.write(root / f"{name}{n}.wav", wav, 16000)
            lines.append(f"{name}{n}.wav,{name},{1 + n % 2}")
    soundfile.write(root / "silent.wav", np.zeros(16000), 16000)
    (root / "sounds.csv").write_text("\n".join([*lines, "silent.wav,low,1"]))
    return root


def test_every_normal_clip_is_tested_once_by_a_model_that_has_not_seen_it(data):
    from trials import machine_trials, sound_trials

    recipe = AnomalyRecipe(machines=str(data / "machines.csv"), sounds=str(data / "sounds.csv"), machine_folds=3)
    for trials, n in ((machine_trials(recipe), 6), (sound_trials(recipe), 36)):
        tested = [c.path for t in trials for c in t.test if not c.anomalous]
        assert sorted(tested) == sorted(set(tested))
        assert len(tested) == n
        for trial in trials:
            assert not {c.path for c in trial.train} & {c.path for c in trial.test}
            assert not any(c.anomalous for c in trial.train)


def test_pollution_is_what_it_says_and_is_not_tested(data):
    from trials import polluted_trials

    recipe = AnomalyRecipe(
        machines=str(data / "machines.csv"), sounds=str(data / "sounds.csv"), machine_folds=3, pollution=(0.0, 0.25, 0.4)
    )
    found = polluted_trials(recipe)
    assert len(found) == 3 * 4
    tests = {}
    for share, trial in found:
        n = sum(c.anomalous for c in trial.train)
        assert n / len(trial.train) == pytest.approx(share, abs=0.13)
        assert (n > 0) == (share > 0)
        assert not {c.path for c in trial.train} & {c.path for c in trial.test}
        assert tests.setdefault(trial.group, trial.test) == trial.test


def test_a_manifest_that_does_not_fit_is_named(data):
    from trials import machine_trials, sound_trials

    with pytest.raises(DataError, match="lacks the columns label"):
        machine_trials(AnomalyRecipe(machines=str(data / "sounds.csv")))
    with pytest.raises(DataError, match="cannot read the manifest"):
        sound_trials(AnomalyRecipe(sounds=str(data / "nothing.csv")))


def test_halves_of_a_draw_share_nothing_and_keep_both_labels():
    from thresholds import halves

    labels = np.array([True] * 5 + [False] * 8)
    dev, test = halves(labels, np.random.default_rng(0))
    assert sorted([*dev, *test]) == list(range(13))
    assert (labels[dev].sum(), labels[test].sum(), len(dev)) == (3, 2, 7)


@pytest.mark.slow
def test_the_recipe_runs_resumes_and_names_what_it_skips(data, tmp_path):
    out = tmp_path / "out"
    settings = [f"machines={data / 'machines.csv'}", f"sounds={data / 'sounds.csv'}", f"output_dir={out}", "machine_folds=2"]
    settings += ["systems=[statistics]", "pollution_systems=[statistics]", "peers=[gaussian-mixture]", "bootstrap=50"]
    settings += ["threshold_splits=5", "robust=[none]", "pollution=[0.0, 0.2]", "classes.max_steps=3", "classes.width=8"]
    settings += ["n_unknown=1", "model.folds=2", "model.max_steps=5", "sound_classes=[low, high]", "sound_others=2"]
    command = [
        *python(),
        str(ROOT / "recipes/anomaly/evaluate.py"),
        str(ROOT / "recipes/anomaly/conf/quick.yaml"),
        *settings,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    tables = json.loads((out / "results.json").read_text())["tables"]
    assert set(tables) == {"machines", "sounds", "thresholds", "pollution", "openset"}
    assert [row[0] for row in tables["machines"]] == ["system", "statistics", "gaussian-mixture"]
    assert tables["machines"][1][-1] == "1.000"
    assert float(tables["sounds"][1][1].split()[0]) > 0.9
    kept = {p: p.stat().st_mtime_ns for p in (out / "scores").rglob("*.json")}
    assert kept
    again = subprocess.run([*command, "tasks=[machines,sounds]"], cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in (out / "scores").rglob("*.json")} == kept
    nothing = subprocess.run(command[: -len(settings)], cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    assert nothing.returncode == 1
    assert "there is no data" in nothing.stderr


# The report.


def test_the_report_shows_figures_curves_and_the_worst_mistakes(tmp_path):
    pytest.importorskip("matplotlib")
    rows = []
    for n in range(12):
        path = tmp_path / f"<{n}>.wav"
        soundfile.write(path, hum(n, seconds=0.2), 16000)
        rows.append(Scored(path, n % 3 == 0, float(n), 0.5))
    judged = judge(rows, 4.5, "as the test says", CostTable(), {"other": 1.0}, n=50)
    assert [s.score for s in worst(judged, 2)["False alarms"]] == [11.0, 10.0]
    assert [s.score for s in worst(judged, 9)["Misses"]] == [0.0, 3.0]
    drawn = []

    def draw(source, picture):
        drawn.append(source.name)
        picture.write_bytes(b"")

    page = write_report(judged, tmp_path / "out", {"model": "a & b"}, draw, n_worst=2)
    text = page.read_text()
    assert drawn == ["<11>.wav", "<10>.wav", "<0>.wav", "<3>.wav"]
    assert "a &amp; b" in text
    assert "&lt;11&gt;.wav" in text
    assert "<11>" not in text
    assert str(judged.figures["auc"]) in text
    assert len(list((tmp_path / "out/media").glob("*.flac"))) == 4
    for name in ("roc", "scores", "cost"):
        assert (tmp_path / f"out/media/{name}.png").stat().st_size > 5000
    table = list(csv.DictReader((tmp_path / "out/scores.csv").open()))
    assert [row["decision"] for row in table] == ["normal"] * 5 + ["anomalous"] * 7
    figures = json.loads((tmp_path / "out/metrics.json").read_text())
    assert figures["counts"] == {"hits": 2, "misses": 2, "false_alarms": 5, "passes": 3}
    assert figures["thresholds"]["other"]["cost"] == pytest.approx(0.01 * 100 * 0.25 + 0.99)
    best = min(metrics.expected_cost(judged.labels, judged.scores, at, CostTable()) for at in np.arange(-1, 13))
    known = figures["thresholds"]["best on these recordings, in hindsight"]
    assert known["cost"] == pytest.approx(best)


def test_a_scored_recording_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    from vcae.anomaly.detector import Anomaly

    config, rng = MelConfig(hop_length=512, n_mels=128), np.random.default_rng(0)
    mel, errors = rng.normal(size=(128, 40)) - 4, np.ones((128, 40))
    errors[:, 20] = 50
    found = Anomaly(1.5, 0.2, errors.mean(0), errors, mel, mel, 0.032)
    draw_anomaly(tmp_path / "p" / "plain.png", found, config, "a $ title")
    draw_anomaly(tmp_path / "p" / "span.png", found, config, "a $ title", [(0.6, 0.7)])
    plain, span = (
        np.asarray(Image.open(tmp_path / "p" / f"{name}.png").convert("RGB")).astype(int) for name in ("plain", "span")
    )
    assert plain.shape == span.shape
    assert 0 < (plain != span).any(2).mean() < 0.1


def test_clips_of_the_demo_give_faults_from_the_command_line(tmp_path):
    out = tmp_path / "clicked.wav"
    command = [*python(), str(ROOT / "recipes/anomaly/faults.py"), str(CLIPS / "source.flac"), "click", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "click from " in done.stdout
    assert soundfile.info(out).samplerate == 16000


# What is shipped: the bank of other sounds, and the network that finds faults.


@pytest.fixture(scope="module")
def speech_manifest(tmp_path_factory):
    path = tmp_path_factory.mktemp("speech") / "speech.csv"
    rows = [[CLIPS / "source.flac", "a", "train", "6.7"], [CLIPS / "reference.flac", "b", "train", "5.0"]]
    with path.open("w", newline="") as opened:
        csv.writer(opened).writerows([["path", "speaker", "split", "duration_s"], *rows])
    return path


def test_a_bank_of_other_sounds_is_made_and_counted(tmp_path, speech_manifest):
    from safetensors.numpy import load_file

    command = [
        *python(),
        ROOT / "recipes/anomaly/others.py",
        ROOT / "recipes/anomaly/conf/others.yaml",
        f"speech={speech_manifest}",
    ]
    command += ["n_speech=2", "n_synthetic=3", "seconds=2.0", f"output={tmp_path / 'bank.safetensors'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "5 sounds" in done.stdout
    bank = load_file(tmp_path / "bank.safetensors")
    assert {kind: values.shape for kind, values in bank.items()} == {
        "statistics": (5, 384),
        "modulation": (5, 112),
        "encoder": (5, 384),
    }
    few = subprocess.run([*command, "n_speech=9"], capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert few.returncode == 1
    assert "has 2 such recordings, and n_speech is 9" in few.stderr


def test_faults_are_learnt_and_their_places_labelled(tmp_path, speech_manifest):
    import learn_faults

    from vcae.anomaly.faults import HOP
    from vcae.checkpoint import read_tensors

    output = tmp_path / "net.safetensors"
    recipe = settings_of("anomaly").FaultsRecipe(
        speech=str(speech_manifest), n_speech=2, crop_s=2.0, max_steps=3, batch_size=2, output=str(output)
    )
    speech = learn_faults.load_speech(recipe)
    for seed in range(8):
        wav, labels = learn_faults.draw(speech, recipe, np.random.default_rng(seed))
        assert wav.shape == (32000,)
        assert labels.shape == (6, 1 + 32000 // HOP)
        assert (labels.max(1) > 0).sum() <= recipe.most_faults
    for kind in learn_faults.VARIED:
        for seed in range(6):
            wav = speech[0][:40000].astype(np.float64)
            made, (fault,) = learn_faults.make_other(wav, kind, speech, np.random.default_rng(seed))
            start, end = round(fault.start_s * 16000), round(fault.end_s * 16000)
            assert len(made) == len(wav)
            assert np.array_equal(made[:start], wav[:start])
            assert not np.array_equal(made[start : end + 1], wav[start : end + 1]) or kind == "splice"
            if kind != "splice":
                assert np.array_equal(made[end:], wav[end:])
    before = {k: v.clone() for k, v in learn_faults.FaultNet().state_dict().items()}
    digest = learn_faults.save(learn_faults.learn(recipe), recipe)
    tensors, found = read_tensors(output)
    assert found == digest
    assert {k: v.shape for k, v in tensors.items()} == {k: v.shape for k, v in before.items()}
