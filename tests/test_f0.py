import math

import numpy as np
import pytest
import torch

from vcae.audio.f0 import continuous_log_f0, estimate_f0, log_f0_statistics
from vcae.errors import AudioError


@pytest.mark.parametrize("hz", [80.0, 120.0, 220.0, 400.0])
def test_harmonic_tone_within_one_hertz(hz):
    t = np.arange(16000) / 16000
    wav = sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 9)).astype(np.float32) * 0.1
    f0 = estimate_f0(wav)[5:-5]
    assert (f0 > 0).mean() > 0.95
    assert abs(np.median(f0[f0 > 0]) - hz) < 1.0


def test_noise_and_silence_are_unvoiced():
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    assert (estimate_f0(noise) > 0).mean() < 0.05
    assert not estimate_f0(np.zeros(16000, np.float32)).any()


def test_level_does_not_matter(speech):
    a, b = estimate_f0(speech), estimate_f0(speech * 0.003)
    both = (a > 0) & (b > 0)
    assert ((a > 0) == (b > 0)).mean() > 0.99
    assert np.allclose(a[both], b[both], rtol=0.01)


def test_frames_match_the_mel(speech):
    for n in (8000, 8191, 8192, 8193):
        assert len(estimate_f0(speech[:n])) == 1 + n // 256


def test_other_rates_are_refused():
    with pytest.raises(AudioError, match="22050 Hz; resample"):
        estimate_f0(np.zeros(22050, np.float32), 22050)


def test_gaps_are_filled_along_the_logarithm():
    f0 = torch.tensor([[0.0, 100.0, 0.0, 400.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    filled = torch.exp(continuous_log_f0(f0))
    assert torch.allclose(filled[0], torch.tensor([100.0, 100.0, 200.0, 400.0, 400.0]), rtol=1e-4)
    assert torch.allclose(filled[1], torch.full((5,), 150.0))


def test_statistics():
    median, spread = log_f0_statistics(torch.tensor([0.0, 100.0, 200.0, 400.0, 0.0]))
    assert math.isclose(median, math.log(200), rel_tol=1e-6)
    assert 0.3 < spread < 0.7
    assert all(math.isnan(v) for v in log_f0_statistics(torch.zeros(4)))
