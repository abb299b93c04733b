import math

import numpy as np
import pytest
import torch

from vcae.audio.f0 import estimate_f0
from vcae.audio.mel import LogMel
from vcae.config import MelConfig
from vcae.vocoder.griffin_lim import griffin_lim
from vcae.vocoder.neural import pulse_train


def test_pulse_train_equals_the_sum_of_cosines():
    f0, n, rate = 210.0, 4096, 16000
    pulses = pulse_train(torch.full((1, 20), math.log(f0)), n, rate, 256, 7600.0)[0]
    t = torch.arange(1, n + 1, dtype=torch.float64) / rate
    k = torch.arange(1, int(7600 / f0) + 1, dtype=torch.float64)
    expected = 2 * torch.cos(2 * math.pi * f0 * k[:, None] * t).sum(0) / math.sqrt(2 * len(k) + 1)
    assert torch.allclose(pulses.double(), expected, atol=2e-2)
    assert pulses.square().mean().item() == pytest.approx(1.0, abs=0.05)


def test_pulse_train_follows_f0_and_stays_in_band():
    log_f0 = torch.log(torch.linspace(100, 200, 126))[None]
    pulses = pulse_train(log_f0, 32000, 16000, 256, 4000.0)[0]
    spectrum = torch.stft(pulses, 1024, 256, window=torch.hann_window(1024), return_complex=True).abs()
    assert spectrum[290:].square().sum() < 1e-3 * spectrum.square().sum()
    measured = estimate_f0(pulses.numpy() * 0.1)
    voiced = measured > 0
    assert voiced.mean() > 0.9
    assert np.median(np.abs(measured[voiced] / log_f0[0].exp().numpy()[voiced] - 1)) < 0.02


def test_envelope_of_unit_noise_is_flat_at_zero(tiny_vocoder):
    mel = LogMel(MelConfig())(torch.randn(1, 160000))
    envelope = tiny_vocoder.envelope(mel)[0].mean(dim=1)
    # The mean of a logarithm lies under the logarithm of the mean: up to 0.3 in the narrow low bands.
    assert envelope[5:500].abs().max() < 0.35


def test_shapes_lengths_and_seed(tiny_vocoder):
    mel, f0 = torch.randn(2, 80, 33) - 5, torch.full((2, 33), 120.0)
    assert tiny_vocoder(mel, f0).shape == (2, 8192)
    for n in (8192, 8300, 8447):
        assert tiny_vocoder(mel, f0, n).shape == (2, n)
    noise = torch.randn(2, 8192)
    assert torch.equal(tiny_vocoder(mel, f0, noise=noise), tiny_vocoder(mel, f0, noise=noise))


def test_untrained_vocoder_already_keeps_the_level(tiny_vocoder, speech):
    """The mel's envelope is built in; the network only corrects it."""
    log_mel = LogMel(MelConfig())
    wav = torch.from_numpy(speech)[None]
    f0 = torch.from_numpy(estimate_f0(speech))[None]
    with torch.no_grad():
        copy = tiny_vocoder(log_mel(wav), f0, len(speech))
    difference = (log_mel(copy) - log_mel(wav))[log_mel(wav) > -7]
    assert difference.abs().mean() < 1.0


def test_gradients_reach_all_weights(tiny_vocoder):
    tiny_vocoder(torch.randn(1, 80, 33) - 5, torch.full((1, 33), 120.0)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tiny_vocoder.parameters())


def test_griffin_lim_keeps_the_mel(speech):
    log_mel = LogMel(MelConfig())
    wav = torch.from_numpy(speech[:32000])[None]
    copy = griffin_lim(log_mel(wav), MelConfig(), 32000)
    assert copy.shape == wav.shape
    loud = log_mel(wav) > -5
    assert (log_mel(copy) - log_mel(wav))[loud].abs().mean() < 0.5


def test_shipped_vocoder_keeps_the_mel(model, speech):
    wav = torch.from_numpy(speech)[None]
    f0 = torch.from_numpy(estimate_f0(speech))[None]
    mel = model.log_mel(wav)
    copy = model.log_mel(model.vocode(mel, f0, len(speech)))
    # 0.3 nats are 2.6 dB, over all bands that stand 26 dB or less under the loudest.
    assert (copy - mel)[mel > mel.max() - 3].abs().mean() < 0.3
