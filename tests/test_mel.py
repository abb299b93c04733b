import numpy as np
import torch

from tests.conftest import ROOT
from vcae.audio.config import MelConfig
from vcae.audio.mel import LogMel, hz_to_mel, mel_band_edges, mel_filterbank, mel_to_hz


def test_equals_librosa_on_speech(speech):
    stored = np.load(ROOT / "tests/data/librosa_mel.npz")["mel"]
    mel = LogMel(MelConfig())(torch.from_numpy(speech[:32000])[None])[0].numpy()
    assert mel.shape == stored.shape == (80, 126)
    # librosa computes in float32 too: near the floor the logarithm magnifies rounding.
    assert np.abs(mel - stored).max() < 2e-3
    assert np.abs(mel - stored).mean() < 1e-5


def test_filterbank_equals_torchaudio():
    import torchaudio

    expected = torchaudio.functional.melscale_fbanks(513, 0.0, 8000.0, 80, 16000, norm="slaney", mel_scale="slaney")
    assert torch.allclose(mel_filterbank(MelConfig()), expected.T, atol=1e-6)


def test_mel_scale_is_inverted():
    hz = torch.tensor([20.0, 500.0, 999.0, 1001.0, 4000.0, 8000.0], dtype=torch.float64)
    assert torch.allclose(mel_to_hz(hz_to_mel(hz)), hz, rtol=1e-5)


def test_a_tone_lights_its_band(tone):
    edges = mel_band_edges(MelConfig())
    for hz in (300.0, 1500.0, 6000.0):
        mel = LogMel(MelConfig())(torch.from_numpy(tone(hz))[None])[0]
        band = int(mel[:, 10:-10].mean(dim=1).argmax())
        assert edges[band] < hz < edges[band + 2]


def test_silence_is_the_floor_and_gain_is_an_offset(speech):
    log_mel = LogMel(MelConfig())
    silent = log_mel(torch.zeros(1, 4096))
    assert torch.allclose(silent, torch.full_like(silent, float(np.log(1e-5))))
    wav = torch.from_numpy(speech)[None]
    low, high = log_mel(wav), log_mel(wav * 2)
    loud = low > -6
    assert torch.allclose((high - low)[loud], torch.tensor(2.0).log(), atol=1e-4)


def test_frame_count():
    for n in (8000, 8191, 8192, 8193):
        assert LogMel(MelConfig())(torch.zeros(1, n)).shape[-1] == 1 + n // 256
