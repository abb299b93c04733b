"""Outlier exposure: the shipped bank of other sounds, the sounds it was made of, and what telling them apart gains."""

import numpy as np
import pytest

from tests.test_anomaly import QUICK, machine
from vcae.anomaly import exposure
from vcae.anomaly.config import AnomalyConfig
from vcae.anomaly.detector import Detector
from vcae.anomaly.exposure import KINDS, Exposure, leave_out_normal, shipped_bank
from vcae.anomaly.features import EncoderReader, MelReader
from vcae.anomaly.members import reject, statistics_of
from vcae.anomaly.synthetic import SAMPLE_RATE, synthesize
from vcae.errors import CheckpointError, ConfigError

# Of the shipped bank: recordings of speech come first.
N_SPEECH = 300


def rows(rng, n, centre=0.0, d=6):
    return {"statistics": rng.standard_normal((n, d)) + centre, "modulation": rng.standard_normal((n, 4)) + centre}


def test_synthetic_sounds_are_various_and_the_same_each_time():
    sounds = [synthesize(seed, 1.0) for seed in range(20)]
    assert all(s.dtype == np.float32 and len(s) == SAMPLE_RATE and 0.005 < np.abs(s).max() <= 1 for s in sounds)
    assert np.array_equal(sounds[3], synthesize(3, 1.0))
    centroids = [
        float((np.abs(np.fft.rfft(s)) @ np.fft.rfftfreq(len(s), 1 / SAMPLE_RATE)) / np.abs(np.fft.rfft(s)).sum())
        for s in sounds
    ]
    assert max(centroids) > 4 * min(centroids)


def test_the_shipped_bank_is_what_the_recipe_makes_today():
    bank, reader, encoder = shipped_bank(), MelReader(AnomalyConfig()), EncoderReader.shipped()
    assert {kind: len(values) for kind, values in bank.items()} == dict.fromkeys(KINDS, 900)
    for seed in (0, 17):
        wav = synthesize(seed)
        for kind in KINDS:
            made = statistics_of(kind, wav, reader(wav), encoder)
            # Kept in float16.
            assert bank[kind][N_SPEECH + seed] == pytest.approx(made, rel=2e-3, abs=2e-3), kind


def test_a_damaged_bank_is_refused(tmp_path, monkeypatch):
    copy = tmp_path / "others.safetensors"
    copy.write_bytes(exposure.BANK.read_bytes()[:-2] + b"\0\1")
    copy.with_suffix(".sha256").write_text(exposure.BANK.with_suffix(".sha256").read_text())
    monkeypatch.setattr(exposure, "BANK", copy)
    shipped_bank.cache_clear()
    with pytest.raises(CheckpointError, match="does not match its SHA-256"):
        shipped_bank()
    shipped_bank.cache_clear()


def test_normal_is_told_from_other_and_survives_a_file():
    rng = np.random.default_rng(0)
    normal, others = rows(rng, 30), rows(rng, 100, centre=2.0)
    made = Exposure.fit(normal, others)
    good, bad = made.score(rows(rng, 50)), made.score(rows(rng, 50, centre=2.0))
    assert np.quantile(good, 0.9) < np.quantile(bad, 0.1)
    again = Exposure.from_tensors(made.tensors())
    assert again.score(others) == pytest.approx(made.score(others), abs=1e-4)


def test_its_decision_is_scikit_learns():
    from sklearn.svm import SVC

    rng = np.random.default_rng(1)
    normal, others = rows(rng, 20), rows(rng, 40, centre=1.0)
    made = Exposure.fit(normal, others)
    both = {kind: np.concatenate([normal[kind], others[kind]]) for kind in normal}
    kernel = np.mean([made.spaces[kind].kernel(both[kind], both[kind]) for kind in both], axis=0)
    machine_ = SVC(C=1.0, class_weight="balanced", kernel="precomputed").fit(kernel, np.r_[np.ones(20), np.zeros(40)])
    assert made.score(both) == pytest.approx(-machine_.decision_function(kernel), abs=1e-9)


def test_others_that_could_be_normal_do_not_count():
    rng = np.random.default_rng(2)
    normal = rows(rng, 60)
    others = {kind: np.concatenate([values, values + 8]) for kind, values in rows(rng, 50).items()}
    held_out = {kind: np.full(60, 0.3) for kind in normal}
    left = leave_out_normal(others, normal, held_out)
    assert len(left["statistics"]) < 80
    # Those far away all stay.
    assert {tuple(row) for row in others["statistics"][50:]} <= {tuple(row) for row in left["statistics"]}


def test_strangers_that_are_like_others_are_rejected_first():
    rng = np.random.default_rng(3)
    features, others = rows(rng, 40), rows(rng, 80, centre=3.0)
    for values in features.values():
        values[:4] += 2.0
    assert reject(features, 0.1, others).tolist() == list(range(4, 40))


def test_a_detector_with_exposure_tells_unheard_sounds(tmp_path):
    normal = [machine(seed) for seed in range(10)]
    quick = {k: v for k, v in QUICK.items() if k != "mel"}
    found = Detector.fit(normal, 16000, AnomalyConfig(model="exposure", **quick))
    found.save(tmp_path / "m.safetensors")
    again = Detector.load(tmp_path / "m.safetensors")
    good = [again.score(machine(100 + n)).score for n in range(3)]
    assert good == pytest.approx([found.score(machine(100 + n)).score for n in range(3)], abs=1e-5)
    # Seeds that the bank does not hold.
    assert min(again.score(synthesize(5000 + n, 2.0)).score for n in range(8)) > max(good)


def test_another_mel_says_to_leave_the_member_out():
    with pytest.raises(ConfigError, match=r"exposure knows are of .* so leave it out"):
        Detector.fit([machine(seed) for seed in range(6)], 16000, AnomalyConfig(model="exposure", **QUICK))
