"""The map that gives frames of conversions the mean and covariance of a voice's recordings."""

import math

import pytest
import torch

import vcae.voice.spectrum as spectrum
from vcae.errors import CheckpointError
from vcae.voice.calibration import STRENGTH, calibrate, check_calibration, convert_reader
from vcae.voice.readers import Reader, load_readers
from vcae.voice.spectrum import MIN_FRAMES, Spectra, distance_db, fit_map

N_MELS, DB = 6, 20 / math.log(10)


def _speech(seed, shift=0.0, n=6000):
    """Return correlated frames, of which the second half is voiced and has another mean."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(N_MELS, N_MELS, generator=generator) + 2 * torch.eye(N_MELS)
    mel = (torch.randn(n, N_MELS, generator=generator) @ mixing).T[None] * 0.3 + shift
    f0 = torch.cat([torch.zeros(1, n // 2), torch.full((1, n // 2), 120.0)], dim=1)
    return mel + 0.5 * (f0 > 0), f0


def _measure(mel, f0):
    return Spectra.measure([mel], [f0])


def test_the_map_gives_the_moments_of_the_recordings(monkeypatch):
    monkeypatch.setattr(spectrum, "REGULARISATION", 1e-4)
    (mel, f0), (target, target_f0) = _speech(0), _speech(1, 0.7)
    wanted = _measure(target, target_f0)
    full = fit_map(_measure(mel, f0), wanted)
    made = _measure(full(mel, f0), f0)
    assert (made.mean - wanted.mean).abs().max() < 0.02
    scale = wanted.covariance.diagonal(dim1=1, dim2=2).mean()
    assert (made.covariance - wanted.covariance).abs().max() < 0.1 * scale
    before, after = (distance_db(_measure(x, f0), wanted) for x in (mel, full(mel, f0)))
    assert after < 0.15 * before
    assert (full.weight - full.weight.mT).abs().max() < 1e-5


def test_strength_and_classes():
    (mel, f0), (target, target_f0) = _speech(0), _speech(1, 0.7)
    full = fit_map(_measure(mel, f0), _measure(target, target_f0))
    assert torch.allclose(full.scaled(0.0)(mel, f0), mel, atol=1e-5)
    half = 0.5 * (mel + full(mel, f0))
    assert torch.allclose(full.scaled(0.5)(mel, f0), half, atol=1e-4)
    unvoiced = f0 == 0
    few = target_f0.clone()
    few[:, MIN_FRAMES // 2 :] = 0
    few[:, : MIN_FRAMES // 2] = 120.0
    partial = fit_map(_measure(mel, f0), _measure(target, few))
    changed = (partial(mel, f0) - mel).abs().amax(1) > 1e-6
    assert bool(changed[unvoiced].float().mean() > 0.99)
    assert not bool(changed[~unvoiced].any())


def test_the_distance_of_a_shift_is_the_shift():
    mel, f0 = _speech(0)
    assert distance_db(_measure(mel, f0), _measure(mel, f0)) < 0.05
    assert distance_db(_measure(mel, f0), _measure(mel + 1.0, f0)) == pytest.approx(DB, rel=0.01)


def test_the_shipped_readers(model):
    readers = load_readers()
    assert len(readers) >= 16
    for reader in readers:
        assert reader.mel.shape == (1, model.mel_config.n_mels, reader.f0.shape[1])
        assert bool((reader.f0 > 0).any())
    with pytest.raises(CheckpointError, match="no speech of readers"):
        load_readers("words")


def test_calibration_moves_conversions_towards_the_recordings(model, clips):
    """Six readers in place of all: their speech in the voice, with the map, is nearer to recordings that the map was not made from."""
    import vcae.voice.calibration as calibration
    from vcae.audio.io import read_sound
    from vcae.engine.listening import analyse
    from vcae.voice.voice import describe_voice

    seen = analyse(model, read_sound(clips["reference"]), 0.5)
    voice = describe_voice(model, [seen])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "load_readers", lambda: load_readers.__wrapped__()[:6])
        before, after = check_calibration(model, voice, [seen], [seen])
        found = calibrate(model, voice, [seen])
    assert after < before - 0.2
    identity = torch.eye(model.mel_config.n_mels)
    assert 0 < STRENGTH < 1
    assert not torch.allclose(found.weight[1], identity, atol=1e-2)
    spoken = convert_reader(model, voice, Reader(seen.mel, seen.f0))
    assert spoken.mel.shape == seen.mel.shape
