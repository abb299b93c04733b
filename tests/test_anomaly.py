"""Anomaly detectors: what they find, when, how sure they are, and what they say when they cannot."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from vcae.anomaly.calibration import Tail
from vcae.anomaly.config import AnomalyConfig
from vcae.anomaly.detector import Detector
from vcae.anomaly.distance import Gaussian
from vcae.anomaly.locate import locate
from vcae.anomaly.members import reject
from vcae.anomaly.metrics import CostTable
from vcae.anomaly.threshold import choose_threshold
from vcae.anomaly.watch import read_pcm, watch
from vcae.audio.config import MelConfig
from vcae.cli.app import app
from vcae.errors import AudioError, CheckpointError, ConfigError, DataError

RATE = 16000
MEL = MelConfig(hop_length=512, n_mels=40)
QUICK = {"mel": MEL, "width": 16, "code": 4, "folds": 2, "max_steps": 20, "batch_size": 32}
STATISTICAL = AnomalyConfig(members=("statistics", "modulation"), **QUICK)


def machine(seed, seconds=2.0, fault=False):
    """A hum with noise, as a fan has; a fault rattles."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    hum = sum(0.1 / k * np.sin(2 * np.pi * 110 * k * t + rng.uniform(0, 6)) for k in range(1, 5))
    wav = hum + 0.02 * rng.standard_normal(len(t))
    if fault:
        wav += 0.05 * rng.standard_normal(len(t)) * (np.sin(2 * np.pi * 8 * t) > 0.7)
    return wav.astype(np.float32)


@pytest.fixture(scope="module")
def normal():
    return [machine(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def detector(normal):
    return Detector.fit(normal, RATE, STATISTICAL)


@pytest.fixture(scope="module")
def model_file(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "fan.safetensors"
    detector.save(path, {"author": "a test"})
    return path


@pytest.mark.parametrize("kind", ["frames", "interpolation", "denoising", "convolutional", "latent", "modulation", "encoder"])
def test_each_model_tells_a_rattle_from_a_hum(kind, normal):
    found = Detector.fit(normal, RATE, AnomalyConfig(model=kind, **QUICK))
    good = [found.score(machine(100 + n)).score for n in range(4)]
    bad = [found.score(machine(200 + n, fault=True)) for n in range(4)]
    assert min(b.score for b in bad) > max(good)
    assert max(b.p_value for b in bad) < 0.05
    n_frames = 1 + 2 * RATE // found.config.mel.hop_length
    assert bad[0].errors.shape == bad[0].reconstruction.shape == bad[0].mel.shape == (40, n_frames)
    assert bad[0].frame_scores == pytest.approx(bad[0].errors.mean(0))


def test_a_p_value_is_a_share_of_normal_recordings(detector):
    p = np.array([detector.score(machine(300 + n)).p_value for n in range(40)])
    assert 0.2 < p.mean() < 0.8
    assert (p < 0.01).mean() <= 0.1
    assert detector.score(machine(1, fault=True)).p_value < 1e-3


def test_score_at_inverts_the_p_value(detector):
    assert detector._tail.p_value(detector.score_at(0.01)) == pytest.approx(0.01, rel=1e-3)


def test_a_fit_is_the_same_each_time_and_survives_a_stop(normal, tmp_path):
    config = AnomalyConfig(members=("interpolation", "statistics"), **QUICK)
    whole = Detector.fit(normal, RATE, config)

    class StopError(Exception):
        pass

    def stop(done, total):
        if done > total * 0.75:
            raise StopError

    state = tmp_path / "state.safetensors"
    with pytest.raises(StopError):
        Detector.fit(normal, RATE, config, stop, state)
    seen = []
    again = Detector.fit(normal, RATE, config, lambda done, total: seen.append(done), state)
    # The first network was trained already.
    assert seen[0] == config.max_steps
    wav = machine(7, fault=True)
    assert again.score(wav).score == whole.score(wav).score


def test_another_folder_does_not_go_on_from_a_state(normal, tmp_path):
    config = AnomalyConfig(model="interpolation", **QUICK)
    state = tmp_path / "state.safetensors"
    Detector.fit(normal, RATE, config, state=state)
    seen = []
    Detector.fit(normal[:-1], RATE, config, lambda done, total: seen.append(done), state)
    assert seen[0] == 1


def test_saved_and_loaded_it_scores_the_same(detector, model_file):
    wav = machine(9, fault=True)
    again = Detector.load(model_file)
    assert again.score(wav).score == pytest.approx(detector.score(wav).score, abs=1e-9)
    assert again.config == detector.config
    assert again.info["author"] == "a test"
    assert len(again.info["sha256"]) == 64


def test_other_files_are_refused(tmp_path, tiny_checkpoint, model_file):
    with pytest.raises(CheckpointError, match="not an anomaly detector"):
        Detector.load(tiny_checkpoint)
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="pickle"):
        Detector.load(tmp_path / "a.pt")
    whole = model_file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        Detector.load(tmp_path / "cut.safetensors")


def test_a_long_recording_is_as_anomalous_as_its_worst_part(detector):
    quiet = np.concatenate([machine(n) for n in range(400, 408)])
    bad = quiet.copy()
    bad[3 * 2 * RATE : 4 * 2 * RATE] = machine(500, fault=True)
    assert detector.score(bad).score > detector.score_at(0.001)
    # Many parts make a high score likelier.
    found = detector.score(quiet)
    assert found.p_value >= detector._tail.p_value(found.score)


def test_one_long_recording_is_enough():
    found = Detector.fit([np.concatenate([machine(n) for n in range(10)])], RATE, STATISTICAL)
    assert found.score(machine(600, fault=True)).score > found.score(machine(601)).score


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (np.zeros(RATE, np.float32), "silent"),
        (np.ones(1000, np.float32), "shorter than a window"),
        (np.full(RATE, np.nan, np.float32), "NaN"),
        (np.ones((2, 2, RATE), np.float32), r"\(N, channels\) or"),
    ],
)
def test_what_cannot_be_scored_is_said(detector, wav, message):
    with pytest.raises(AudioError, match=message):
        detector.score(wav)


def test_nothing_and_too_little_is_said():
    with pytest.raises(DataError, match="no normal recordings"):
        Detector.fit([], RATE, STATISTICAL)
    with pytest.raises(DataError, match="to hold some out"):
        Detector.fit([machine(0, 0.3)], RATE, STATISTICAL)
    with pytest.raises(ConfigError, match="model is 'magic'"):
        AnomalyConfig(model="magic")


def test_distance_in_a_shrunk_gaussian_is_that_of_its_covariance():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 5)) @ rng.standard_normal((5, 5))
    made = Gaussian.fit(x)
    z = (x - made.mean) / made.scale
    covariance = 0.1 * z.T @ z / 30 + 0.9 * np.eye(5)
    expected = np.sqrt(np.einsum("nd,de,ne->n", z, np.linalg.inv(covariance), z) / 5)
    assert made.distance(x) == pytest.approx(expected)


def test_trimmed_and_rejecting_fits_leave_the_strangers_out():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 8))
    x[:4] += 12
    assert np.abs(Gaussian.fit(x, trim=0.1).mean).max() < 0.6 < np.abs(Gaussian.fit(x).mean).min()
    kept = reject({"statistics": x}, 0.1)
    assert kept.tolist() == list(range(4, 40))


@pytest.mark.parametrize("robust", ["rejection", "trimmed"])
def test_polluted_normal_recordings_cost_a_robust_fit_less(normal, robust):
    polluted = [machine(700 + n, fault=True) if n < 2 else wav for n, wav in enumerate(normal)]
    margins = {}
    for name in ("none", robust):
        config = AnomalyConfig(members=("statistics", "modulation"), robust=name, trim=0.2, **QUICK)
        found = Detector.fit(polluted, RATE, config)
        margins[name] = min(found.score(machine(800 + n, fault=True)).score for n in range(3)) - max(
            found.score(machine(900 + n)).score for n in range(3)
        )
    assert margins[robust] > 2 * max(margins["none"], 0)


def test_gamma_tail_has_the_shares_of_what_it_was_fitted_to():
    scores = np.random.default_rng(0).gamma(4, 1, 2000)
    tail = Tail(scores)
    for share in (0.5, 0.1, 0.01):
        assert tail.p_value(float(np.quantile(scores, 1 - share))) == pytest.approx(share, rel=0.35)
    assert Tail(scores, "empirical").p_value(1e9) == pytest.approx(1 / 2001)


def test_costs_move_the_threshold():
    rng = np.random.default_rng(0)
    normal, bad = rng.standard_normal(200), rng.standard_normal(200) + 2
    even = choose_threshold(normal, bad, CostTable(1, 1, 0.5))
    dear = choose_threshold(normal, bad, CostTable(10, 1, 0.5))
    # For two Gaussians of unit deviation: the midpoint, and log(10) / 2 lower.
    assert even.value == pytest.approx(1.0, abs=0.25)
    assert dear.value == pytest.approx(1.0 - np.log(10) / 2, abs=0.35)
    assert dear.facts["misses"] < even.facts["misses"]
    with pytest.raises(DataError, match="1 normal"):
        choose_threshold(normal[:1], bad, CostTable())


def _click(wav, at):
    wav[at : at + 3] += np.array([0.4, -0.5, 0.2])


def _dropout(wav, at):
    wav[at - 240 : at + 240] = 0


@pytest.mark.parametrize("fault", [_click, _dropout])
def test_faults_in_speech_are_located(speech, fault):
    for at_s in (1.3, 2.7, 3.2):
        wav = speech.copy()
        fault(wav, int(at_s * RATE))
        for sound, there in ((wav, True), (speech, False)):
            places = locate(sound, RATE, np.ones(1 + len(sound) // 256), 256 / RATE)
            assert any(abs(place.time_s - at_s) <= 0.1 for place in places[:3]) == there, places


def test_a_watched_stream_scores_as_its_windows_do(detector):
    wav = np.concatenate([machine(n) for n in range(20, 24)])
    pieces = (wav[n : n + 777] for n in range(0, len(wav), 777))
    rows = list(watch(detector, pieces, RATE, window_s=2.0, hop_s=1.0))
    assert [r.start_s for r in rows] == [0, 1, 2, 3, 4, 5, 6]
    for row in rows:
        at = int(row.start_s * RATE)
        assert row.score == pytest.approx(detector.score(wav[at : at + 2 * RATE]).score, abs=1e-6)


def test_pcm_split_within_a_sample_loses_nothing():
    class Drip(io.RawIOBase):
        def __init__(self, data):
            self.data, self.at = data, 0

        def read(self, n=-1):
            piece = self.data[self.at : self.at + 3]
            self.at += len(piece)
            return piece

    samples = np.arange(-5, 6, dtype="<i2")
    assert np.concatenate(list(read_pcm(Drip(samples.tobytes())))) * 32768 == pytest.approx(samples)


def test_a_stream_too_short_is_said(detector):
    with pytest.raises(AudioError, match="before the first window"):
        list(watch(detector, iter([machine(0, 0.5)]), RATE))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("recordings")
    for name, first, fault in (("train", 0, False), ("normal", 50, False), ("anomalous", 60, True)):
        (root / name / "deep").mkdir(parents=True)
        for n in range(8 if name == "train" else 4):
            soundfile.write(root / name / "deep" / f"{n}.wav", machine(first + n, fault=fault), RATE)
    (root / "train" / "broken.wav").write_bytes(b"no sound")
    (root / "conf.yaml").write_text("members: [interpolation, statistics]\nwidth: 16\ncode: 4\nfolds: 2\nmax_steps: 20\n")
    return root


def test_the_commands_from_fit_to_decision(folders, tmp_path):
    run = CliRunner()
    model = tmp_path / "fan.safetensors"
    made = run.invoke(app, ["anomaly", "fit", str(folders / "train"), "-o", str(model), "--config", str(folders / "conf.yaml")])
    # One file was no sound: it is told, and the rest is fitted to.
    assert made.exit_code == 1, made.output
    assert "8 recordings" in made.output
    assert "1 failed" in made.output
    assert "broken.wav" in made.output
    assert [p.name for p in tmp_path.iterdir()] == ["fan.safetensors"]
    # Without a threshold nothing is called normal.
    unjudged = run.invoke(app, ["anomaly", "score", str(folders / "normal"), "-m", str(model)])
    assert unjudged.exit_code == 0, unjudged.output
    assert "4 recordings scored; threshold: none was chosen" in unjudged.output
    assert not re.search(r"^(normal|anomalous) ", unjudged.output, re.M)
    sides = ["--normal", str(folders / "normal"), "--anomalous", str(folders / "anomalous")]
    chosen = run.invoke(app, ["anomaly", "threshold", "-m", str(model), *sides, "--cost-miss", "50", "--json"])
    assert chosen.exit_code == 0, chosen.output
    said = json.loads(chosen.output)
    assert (said["misses"], said["false_alarms"]) == (0, 0)
    assert Detector.load(model).threshold == said["threshold"]
    scored = run.invoke(
        app,
        [
            *("anomaly", "score", str(folders / "normal"), str(folders / "anomalous"), "-m", str(model), "--json"),
            *("--csv", str(tmp_path / "out.csv"), "--dcase", str(tmp_path / "dcase")),
        ],
    )
    assert scored.exit_code == 0, scored.output
    rows = [json.loads(line) for line in scored.output.splitlines()]
    assert [row["anomalous"] for row in rows] == [False] * 4 + [True] * 4
    assert all("a miss costs 50" in row["reason"] for row in rows)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 9
    decisions = (tmp_path / "dcase" / "decision_result_fan.csv").read_text().splitlines()
    assert [line.rsplit(",", 1)[1] for line in decisions] == list("00001111")
    pcm = (np.concatenate([machine(1), machine(2, fault=True)]) * 32767).astype("<i2").tobytes()
    seen = run.invoke(app, ["anomaly", "watch", "-", "--rate", "16000", "-m", str(model), "--hop", "2"], input=pcm)
    assert seen.exit_code == 0, seen.output
    assert [json.loads(line)["anomalous"] for line in seen.output.splitlines()] == [False, True]


def test_what_cannot_be_scored_has_a_row_that_says_so(detector, tmp_path):
    detector.save(tmp_path / "fan.safetensors")
    (tmp_path / "new").mkdir()
    soundfile.write(tmp_path / "new" / "good.wav", machine(3), RATE)
    soundfile.write(tmp_path / "new" / "short.wav", machine(3)[:500], RATE)
    soundfile.write(tmp_path / "new" / "silent.wav", np.zeros(RATE * 2), RATE)
    (tmp_path / "new" / "torn.wav").write_bytes(b"RIFF")
    command = [
        "anomaly",
        "score",
        str(tmp_path / "new"),
        "-m",
        str(tmp_path / "fan.safetensors"),
        "--csv",
        str(tmp_path / "x.csv"),
    ]
    done = CliRunner().invoke(app, [*command, "--json", "--jobs", "1"])
    assert done.exit_code == 1, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["good.wav", "short.wav", "silent.wav", "torn.wav"]
    assert [row["score"] is None for row in rows] == [False, True, True, True]
    assert [row["anomalous"] for row in rows] == [None] * 4
    assert rows[0]["error"] == ""
    assert 0 < rows[0]["p_value"] <= 1
    for row, why in zip(rows[1:], ("short.wav lasts", "silent", "torn.wav"), strict=True):
        assert why in row["error"]
    table = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert [row["error"] for row in table] == [row["error"] for row in rows]
    assert [row["anomalous"] for row in table] == [""] * 4


def test_the_old_name_of_the_p_value_warns(detector):
    found = detector.score(machine(5), RATE)
    with pytest.warns(DeprecationWarning, match="is called p_value now"):
        assert found.probability == found.p_value


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["watch", "-", "-m", "MODEL"], "--rate"),
        (["watch", "-", "-m", "MODEL", "--rate", "10"], "allowed are 8000"),
        (["watch", "nowhere.wav", "-m", "MODEL"], "is not a file"),
        (["score", "EMPTY", "-m", "MODEL"], "holds no sound files"),
        (["score", "nowhere.wav", "-m", "MODEL"], "nowhere.wav does not exist"),
        (["fit", "EMPTY", "-o", "x.safetensors"], "holds no sound files"),
        (["fit", "EMPTY", "-o", "MODEL"], "--force"),
        (["threshold", "-m", "MODEL", "--normal", "EMPTY", "--anomalous", "EMPTY", "--prior", "2"], "prior"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(args, message, model_file, tmp_path):
    (tmp_path / "empty").mkdir()
    filled = [{"MODEL": str(model_file), "EMPTY": str(tmp_path / "empty")}.get(a, a) for a in args]
    done = CliRunner().invoke(app, ["anomaly", *filled])
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
