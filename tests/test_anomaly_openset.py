"""Known classes and the unknown, on synthetic sounds: whistles, hisses and buzzes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.signal import lfilter
from typer.testing import CliRunner

from vcae.anomaly import metrics
from vcae.anomaly.config import OpenSetConfig
from vcae.anomaly.openset import Classified, ClassNet, OpenSetClassifier, judge_open_set, split
from vcae.anomaly.openset_report import confusions
from vcae.audio.config import MelConfig
from vcae.cli import anomaly_classes
from vcae.errors import AudioError, CheckpointError, ConfigError, DataError

CONFIG = OpenSetConfig(
    mel=MelConfig(hop_length=512, n_mels=40), width=32, n_blocks=1, embedding_dim=16, crop_s=0.5, batch_size=16, max_steps=150
)
SECONDS = 0.8


def sound(kind, seed):
    rng = np.random.default_rng([seed, ord(kind[0])])
    t = np.arange(int(16000 * SECONDS)) / 16000
    level = rng.uniform(0.1, 0.4)
    if kind == "whistle":
        wav = np.sin(2 * np.pi * (rng.uniform(1800, 2600) * t + 40 * np.sin(2 * np.pi * 5 * t)))
    elif kind == "hiss":
        wav = lfilter([1, -0.95], 1, rng.normal(size=len(t)))
    elif kind == "buzz":
        wav = np.sign(np.sin(2 * np.pi * rng.uniform(80, 140) * t))
    else:  # Rumble, which no class is.
        wav = lfilter([1], [1, -0.98], rng.normal(size=len(t))) / 5
    return (level * (wav + 0.01 * rng.normal(size=len(t)))).astype(np.float32)


KINDS = ("whistle", "hiss", "buzz")


@pytest.fixture(scope="module")
def fitted():
    labels = [kind for kind in KINDS for _ in range(8)]
    return OpenSetClassifier.fit([sound(kind, n) for n, kind in enumerate(labels)], labels, CONFIG)


@pytest.fixture(scope="module")
def answers(fitted):
    truth = [kind for kind in KINDS for _ in range(6)] + [None] * 12
    return truth, [fitted.classify(sound(kind or "rumble", 500 + n)) for n, kind in enumerate(truth)]


def test_classes_are_told_apart_and_the_unknown_is_called_so(fitted, answers):
    truth, found = answers
    judged = judge_open_set(truth, found, fitted.thresholds, n=50)
    assert judged["closed_accuracy"] >= 0.95
    # Classifiers are sure of rumble, which is buzz without its pitch, unless they also learn sounds of no class.
    assert min(judged[by]["auroc"].value for by in ("softmax", "distance")) > 0.85
    assert judged["distance"]["open_accuracy"] > 0.75
    for answer in found:
        assert answer.label in (None, answer.best)
        assert (answer.label is None) == (answer.scores[answer.by] > answer.threshold)
        assert 0 < answer.confidence <= 1
        assert answer.confidence == pytest.approx(1 - answer.scores["softmax"])


def test_the_threshold_decides(fitted):
    wav = sound("hiss", 77)
    assert fitted.classify(wav, "distance", threshold=np.inf).label == "hiss"
    refused = fitted.classify(wav, "distance", threshold=-np.inf)
    assert (refused.label, refused.best, refused.by) == (None, "hiss", "distance")
    with pytest.raises(ConfigError, match="no score 'margin'; allowed are softmax, energy, distance"):
        fitted.classify(wav, "margin")


def test_level_and_length_do_not_change_the_class(fitted):
    wav = sound("whistle", 5)
    assert fitted.classify(0.3 * wav).best == "whistle"
    # Longer than a part, so that several are averaged.
    assert fitted.classify(np.tile(wav, 20)).best == "whistle"
    assert fitted.classify(wav[:1700]).best in KINDS


def test_the_same_seed_gives_the_same_model_and_files_carry_it(fitted, tmp_path):
    labels = [kind for kind in KINDS for _ in range(8)]
    torch.manual_seed(123)  # Nobody else's random numbers matter.
    again = OpenSetClassifier.fit([sound(kind, n) for n, kind in enumerate(labels)], labels, CONFIG)
    path = tmp_path / "classes.safetensors"
    again.save(path, {"author": "a test"})
    loaded = OpenSetClassifier.load(path)
    assert loaded.classes == tuple(sorted(KINDS))
    assert loaded.thresholds == fitted.thresholds
    assert loaded.facts == fitted.facts
    wav = sound("buzz", 9)
    one, other = loaded.classify(wav), fitted.classify(wav)
    assert (one.label, one.confidence) == (other.label, other.confidence)
    assert one.scores == pytest.approx(other.scores)


def test_recordings_are_held_back_of_each_class_that_has_several():
    labels = ["a"] * 10 + ["b"] * 2 + ["c"]
    classes, held = split(labels, OpenSetConfig(held_out=0.2))
    assert classes == ["a", "b", "c"]
    assert sorted(labels[n] for n in held) == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["a", "a"], r"there is 1 class \(a\); give at least 2"), (["a", "b"], "each of the 2 classes has a single file")],
)
def test_too_little_is_named(labels, message):
    with pytest.raises(DataError, match=message):
        split(labels, OpenSetConfig())


def test_silence_and_scraps_are_refused(fitted):
    with pytest.raises(AudioError, match="is silent"):
        fitted.classify(np.zeros(16000, np.float32))
    with pytest.raises(AudioError, match=r"has 0.050 s; at least 0.1 s"):
        fitted.classify(sound("hiss", 1)[:800])


def test_damaged_and_foreign_files_are_refused(fitted, tmp_path, tiny_checkpoint):
    path = tmp_path / "m.safetensors"
    fitted.save(path)
    with pytest.raises(CheckpointError, match="is not a classifier"):
        OpenSetClassifier.load(tiny_checkpoint)
    tensors = load_file(path)
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    for name, change in (
        ("missing", {k: v for k, v in tensors.items() if k != "net.head.bias"}),
        ("shape", tensors | {"places.means": torch.zeros(2, 16, dtype=torch.float64)}),
        ("more", tensors | {"places.other": torch.zeros(2)}),
        ("nan", tensors | {"net.head.bias": torch.full((3,), torch.nan)}),
    ):
        save_file(change, tmp_path / f"{name}.safetensors", metadata)
        with pytest.raises(CheckpointError):
            OpenSetClassifier.load(tmp_path / f"{name}.safetensors")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError):
        OpenSetClassifier.load(path)


def test_the_mel_is_normalised_by_what_was_learned():
    net = ClassNet(CONFIG, 3)
    mel = torch.randn(2, 40, 20)
    net.mean.fill_(5.0)
    shifted = net(mel + 5.0)[0]
    net.mean.fill_(0.0)
    assert torch.allclose(shifted, net(mel)[0], atol=1e-5)


def test_figures_of_a_case_worked_by_hand():
    def answer(best, unknown_score):
        return Classified(
            best, best, 1 - unknown_score, dict.fromkeys(("softmax", "energy", "distance"), unknown_score), 0.5, "softmax"
        )

    truth = ["a", "a", "b", "b", None, None]
    found = [answer("a", 0.1), answer("b", 0.2), answer("b", 0.6), answer("b", 0.3), answer("a", 0.9), answer("a", 0.4)]
    judged = judge_open_set(truth, found, {"softmax": 0.5, "energy": 0.35, "distance": 1.0}, n=20)
    assert judged["closed_accuracy"] == 0.75
    assert judged["softmax"]["auroc"].value == pytest.approx(7 / 8)  # 0.4 lies under 0.6.
    assert (judged["softmax"]["accepted"], judged["softmax"]["rejected"], judged["softmax"]["open_accuracy"]) == (0.5, 0.5, 0.5)
    assert (judged["energy"]["accepted"], judged["energy"]["rejected"]) == (0.5, 1.0)
    assert (judged["distance"]["accepted"], judged["distance"]["rejected"]) == (0.75, 0.0)
    with pytest.raises(DataError, match="none is anomalous"):
        judge_open_set(truth[:4], found[:4], {"softmax": 0.5, "energy": 0.35, "distance": 1.0})


def test_confusions_count_answers_with_the_unknown_last():
    found = [Classified(label, "a", 1.0, {}, 0.5, "softmax") for label in ("a", None, "zebra", None)]
    rows = confusions(["a", "a", "zebra", None], found)
    assert rows == [["", "a", "zebra", "unknown"], ["a", "1", "", "1"], ["zebra", "", "1", ""], ["unknown", "", "", "1"]]


# The command line.


@pytest.fixture(scope="module")
def command():
    app = typer.Typer()
    anomaly_classes.register(app)

    def run(*args):
        return CliRunner().invoke(app, [str(a) for a in args])

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sounds")
    for kind in KINDS:
        (root / "train" / kind).mkdir(parents=True)
        (root / "test" / kind).mkdir(parents=True)
        for n in range(10):
            soundfile.write(root / "train" / kind / f"{n}.wav", sound(kind, n), 16000)
        for n in range(5):
            soundfile.write(root / "test" / kind / f"{n}.wav", sound(kind, n + 50), 16000)
    (root / "rumble").mkdir()
    for n in range(5):
        soundfile.write(root / "rumble" / f"{n}.wav", sound("rumble", n), 16000)
    return root


@pytest.fixture(scope="module")
def model(command, folder):
    path = folder / "out" / "m.safetensors"
    done = command("fit-classes", folder / "train", "-o", path, "--steps", 60, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["classes"] == ["buzz", "hiss", "whistle"]
    assert (said["held_out"], said["failed"]) == (6, 0)
    return path


def test_classify_answers_in_lines_json_and_csv(command, folder, model, tmp_path):
    done = command("classify", folder / "test", "-m", model, "--json", "--csv", tmp_path / "new" / "answers.csv")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 15
    assert np.mean([row["best"] in row["file"] for row in rows]) > 0.9
    assert len((tmp_path / "new" / "answers.csv").read_text().splitlines()) == 16
    plain = command("classify", folder / "test" / "hiss" / "0.wav", "-m", model, "--by", "energy", "--threshold", -1e9)
    assert "unknown, nearest hiss, confidence" in plain.stdout


def test_a_bad_file_is_named_skipped_and_counted(command, folder, model, tmp_path):
    (tmp_path / "bad.wav").write_text("no sound")
    soundfile.write(tmp_path / "good.wav", sound("hiss", 3), 16000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    done = command("classify", tmp_path, "-m", model)
    assert done.exit_code == 1
    assert "good.wav: " in done.stdout
    assert "bad.wav is not a sound file" in done.stderr
    assert "silent.wav is silent" in done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["failed", "failed"]


def test_a_class_with_a_single_file_is_told_of_and_nothing_is_lost(command, folder, tmp_path):
    for kind, n in (("whistle", 3), ("hiss", 3), ("buzz", 1)):
        (tmp_path / "few" / kind).mkdir(parents=True)
        for k in range(n):
            soundfile.write(tmp_path / "few" / kind / f"{k}.wav", sound(kind, k), 16000)
    (tmp_path / "few" / "empty").mkdir()
    done = command("fit-classes", tmp_path / "few", "-o", tmp_path / "few.safetensors", "--steps", 5)
    assert done.exit_code == 0, done.output
    assert "class buzz has a single file" in done.stderr
    assert "class empty is left out" in done.stderr
    assert OpenSetClassifier.load(tmp_path / "few.safetensors").classes == ("buzz", "hiss", "whistle")
    again = command("fit-classes", tmp_path / "few", "-o", tmp_path / "few.safetensors", "--steps", 5)
    assert again.exit_code == 2
    assert "exists; add --force" in again.stderr


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ((), "has no folders; each class needs one"),
        (("a/0.wav", "b/0.wav"), "each of the 2 classes has a single file"),
        (("a/0.wav", "a/1.wav"), "there is 1 class"),
        (("a/", "b/"), "no folder in"),
    ],
)
def test_folders_that_cannot_be_learned_are_named(command, tmp_path, make, message):
    for n, name in enumerate(make):
        (tmp_path / "f" / name.split("/")[0]).mkdir(parents=True, exist_ok=True)
        if name.endswith(".wav"):
            soundfile.write(tmp_path / "f" / name, sound("hiss", n), 16000)
    (tmp_path / "f").mkdir(exist_ok=True)
    done = command("fit-classes", tmp_path / "f", "-o", tmp_path / "m.safetensors")
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "m.safetensors").exists()


def test_evaluate_writes_a_page_that_compares_the_scores(command, folder, model, tmp_path):
    pytest.importorskip("matplotlib")
    done = command(
        "evaluate", "-m", model, "--known", folder / "test", "--unknown", folder / "rumble", "-o", tmp_path / "r", "--json"
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["closed_accuracy"] > 0.9
    truth = (tmp_path / "r" / "answers.csv").read_text().splitlines()[1:]
    labels = [line.split(",")[1] == "unknown" for line in truth]
    for column, by in enumerate(("softmax", "energy", "distance")):
        scores = [float(line.split(",")[5 + column]) for line in truth]
        assert said[by]["auroc"]["value"] == pytest.approx(metrics.auc(labels, scores))
    page = (tmp_path / "r" / "index.html").read_text()
    assert "Unknown but accepted" in page
    assert (tmp_path / "r" / "media" / "roc.png").read_bytes().startswith(b"\x89PNG")
    wrong = command("evaluate", "-m", model, "--normal", folder / "test", "--anomalous", folder / "rumble")
    assert wrong.exit_code == 2
    assert "evaluate it with --known" in wrong.stderr
    strange = command("evaluate", "-m", model, "--known", folder, "--unknown", folder / "rumble")
    assert "rumble, test, train, which" in strange.stderr.replace("out, ", "")


def test_the_commands_help_without_torch():
    code = "import sys, vcae.cli.anomaly_classes; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
