"""Faults in real speech: which are found, where, and what is not taken for one."""

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import CLIPS
from vcae.anomaly import faults
from vcae.anomaly.config import AnomalyConfig
from vcae.anomaly.detector import Detector
from vcae.anomaly.faults import HOP, KINDS, SAMPLE_RATE, FaultNet, fault_features, fault_strengths, shipped_fault_net
from vcae.anomaly.locate import DEFAULT_LIMITS, Limit, Track, limits_of, locate, tracks_of
from vcae.errors import CheckpointError


@pytest.fixture(scope="module")
def speech():
    wav, rate = soundfile.read(CLIPS / "source.flac", dtype="float32")
    assert rate == SAMPLE_RATE
    return wav


def hummed(wav):
    t = np.arange(len(wav)) / SAMPLE_RATE
    tone = sum(np.sin(2 * np.pi * 50 * k * t) / k for k in range(1, 12))
    gate = (t > 1.5) & (t < 2.3)
    return (wav + gate * tone * 0.3 * wav.std() / tone.std()).astype(np.float32), (1.5, 2.3)


def clipped(wav):
    out, (a, b) = wav.copy(), (int(1.8 * SAMPLE_RATE), int(2.2 * SAMPLE_RATE))
    top = np.abs(wav).max()
    out[a:b] = np.clip(wav[a:b] * 20, -top, top)
    return out, (1.8, 2.2)


def dropped(wav):
    out = wav.copy()
    out[int(2.0 * SAMPLE_RATE) : int(2.08 * SAMPLE_RATE)] = 0
    return out, (2.0, 2.08)


def clicked(wav):
    out = wav.copy()
    out[int(2.1 * SAMPLE_RATE) :][:4] += np.float32([0.5, -0.6, 0.4, -0.2]) * np.abs(wav).max()
    return out, (2.1, 2.1)


@pytest.mark.parametrize(("kind", "make"), [("hum", hummed), ("clipping", clipped), ("dropout", dropped), ("click", clicked)])
def test_the_strongest_place_is_the_fault(speech, kind, make):
    wav, (start, end) = make(speech)
    frames = np.ones(1 + len(wav) // 256)
    first = locate(wav, SAMPLE_RATE, frames, 256 / SAMPLE_RATE)[0]
    assert start - 0.1 <= first.time_s <= end + 0.1, (kind, first)
    # A click is a step too.
    assert first.kind == kind or (kind, first.kind) == ("click", "step")
    clean = locate(speech, SAMPLE_RATE, frames, 256 / SAMPLE_RATE)
    assert not any(p.kind == kind and start - 0.1 <= p.time_s <= end + 0.1 for p in clean)


def test_chunks_say_what_the_whole_says(speech, monkeypatch):
    wav = torch.from_numpy(np.tile(speech, 3))
    whole = fault_strengths(wav)
    monkeypatch.setattr(faults, "CHUNK_S", 2.0)
    pieces = fault_strengths(wav)
    assert whole.shape == pieces.shape == (len(KINDS), 1 + len(wav) // HOP)
    assert pieces == pytest.approx(whole, abs=1e-2)


def test_features_do_not_depend_on_loudness_and_hold_what_is_equal(speech):
    wav = torch.from_numpy(speech)[None]
    assert fault_features(0.1 * wav)[:, :-1].numpy() == pytest.approx(fault_features(wav)[:, :-1].numpy(), abs=2e-2)
    gap = wav.clone()
    gap[:, 16000:16800] = 0
    same = fault_features(gap)[0, -1]
    assert same[16000 // HOP + 1 : 16800 // HOP].min() == 1
    assert fault_features(wav)[0, -1].mean() < 0.1


def test_weights_of_another_shape_are_refused(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    save_file({"enter.bias": FaultNet().state_dict()["enter.bias"]}, tmp_path / "faults.safetensors")
    monkeypatch.setattr(faults, "WEIGHTS", tmp_path / "faults.safetensors")
    shipped_fault_net.cache_clear()
    with pytest.raises(CheckpointError, match="does not fit this version"):
        shipped_fault_net()
    shipped_fault_net.cache_clear()


def test_what_is_usual_in_normal_recordings_is_not_named():
    rng = np.random.default_rng(0)
    noise = Track(3 * rng.standard_normal(100 * 100), 0.01)
    limit = limits_of([{"frame": noise}])["frame"]
    per_second = noise.values.reshape(100, 100).max(1)
    assert limit.usual == pytest.approx(np.median(per_second), abs=0.3)
    assert (per_second > limit.alarm).sum() in (1, 2)
    quiet = limits_of([{"frame": Track(np.full(1000, -9.0), 0.01)}])["frame"]
    assert quiet == Limit(-9.0, DEFAULT_LIMITS["frame"].alarm)


def test_faults_are_known_at_one_rate_only(speech):
    frames = np.ones(100)
    assert set(tracks_of(speech, SAMPLE_RATE, frames, 0.032)) == {"step", "frame", *KINDS}
    assert set(tracks_of(speech, 22050, frames, 0.032)) == {"step", "frame"}


def test_a_detector_of_faults_hears_one_click_in_seconds_of_speech(speech):
    parts = np.array_split(
        np.concatenate([soundfile.read(CLIPS / f"{n}.flac", dtype="float32")[0] for n in ("reference", "reference2")]), 8
    )
    found = Detector.fit(parts, 16000, AnomalyConfig(model="faults", folds=2, max_steps=20))
    wav = speech[:64000].copy()
    wav[40000:40004] += np.float32([0.5, -0.6, 0.4, -0.2])
    gap = speech[:64000].copy()
    gap[30000:31000] = 0
    clean = found.score(speech[:64000]).score
    assert found.score(wav).score > clean + 0.2
    assert found.score(gap).score > clean + 2
