"""The neural vocoder: harmonics and noise, filtered in the STFT domain by a network at frame rate."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vcae.audio.f0 import continuous_log_f0
from vcae.audio.mel import mel_filterbank
from vcae.config import VocoderConfig
from vcae.model.blocks import ConvNeXtStack

# Keeps exp() of a predicted log-magnitude finite whatever the network says.
MAX_LOG_MAGNITUDE = 8.0


def pulse_train(log_f0: Tensor, n_samples: int, sample_rate: int, hop_length: int, max_hz: float) -> Tensor:
    """Make a band-limited pulse train that follows F0.

    The sum of cosines 2 cos(k phase), k = 1..K, has the closed form sin((K + 1/2) phase) / sin(phase / 2) - 1.

    Args:
        log_f0: (B, T), natural log of Hz, without gaps; frame t stands at sample t * hop_length.
        n_samples: Samples to make.
        sample_rate: Hz.
        hop_length: Samples.
        max_hz: Highest harmonic.

    Returns:
        (B, n_samples) with unit mean power.
    """
    at = torch.arange(n_samples, device=log_f0.device)
    left = (at // hop_length).clamp(max=log_f0.shape[-1] - 1)
    right = (left + 1).clamp(max=log_f0.shape[-1] - 1)
    share = (at % hop_length) / hop_length
    f0 = torch.exp(log_f0[:, left] * (1 - share) + log_f0[:, right] * share)
    # Summed in float64 so that an hour's phase keeps its precision; a device without it (mps) sums on the CPU.
    exact = f0.cpu().double() if f0.device.type == "mps" else f0.double()
    turns = torch.cumsum(exact / sample_rate, dim=-1)
    phase = (2 * math.pi * (turns - turns.round())).float().to(f0.device)
    n_harmonics = (max_hz / f0).floor().clamp(min=1)
    half = torch.sin(phase / 2)
    near_zero = half.abs() < 1e-4
    ratio = torch.sin((n_harmonics + 0.5) * phase) / torch.where(near_zero, torch.ones_like(half), half)
    pulses = torch.where(near_zero, 2 * n_harmonics + 1, ratio) - 1
    return pulses * torch.rsqrt(2 * n_harmonics + 1)


class HarmonicNoiseVocoder(nn.Module):
    """Filter a pulse train and white noise, frame by frame and bin by bin, into speech.

    For each frame and bin the network predicts a magnitude and a phase offset for the harmonic part and a magnitude for
    the noise part, as corrections to the envelope that the mel itself gives. Phase comes from F0, so the network needs
    no adversary to be intelligible. Harmonics run through unvoiced frames too (F0 is interpolated there): the network
    turns them down where the mel shows none, so that a wrong voicing decision does little harm.

    Shape:
        - mel: (B, n_mels, T), natural log magnitude
        - f0: (B, T) in Hz, 0 where unvoiced
        - wav: (B, N), N = (T - 1) * hop_length unless given

    Source: harmonic plus noise, Stylianou (2001); source-filter in the STFT domain, Wang et al., Neural source-filter
    waveform models (2019); ConvNeXt at frame rate with an inverse STFT, Siuzdak, Vocos (2023).
    """

    window: Tensor
    spread: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        n_bins = config.mel.n_fft // 2 + 1
        self.input = nn.Conv1d(config.mel.n_mels + 2, config.width, 5, padding=2)
        self.stack = ConvNeXtStack(config.width, config.n_blocks)
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, 3 * n_bins)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)
        self.register_buffer("window", torch.hann_window(config.mel.win_length), persistent=False)
        filters = mel_filterbank(config.mel)
        self.register_buffer("spread", (filters / filters.sum(0).clamp(min=1e-8)).T.contiguous(), persistent=False)

    def envelope(self, mel: Tensor) -> Tensor:
        """Return the log-magnitude (B, n_fft // 2 + 1, T) that the mel's bands give to bins excited by unit-power sound."""
        c = self.config.mel
        # The mean STFT magnitude of unit white noise under a Hann window, times the area of a slaney band, is what a band reads.
        per_unit = math.sqrt(3 / 8 * c.win_length * math.pi / 4) * c.n_fft / c.sample_rate
        return torch.log(torch.matmul(self.spread, torch.exp(mel)).clamp(min=c.floor)) - math.log(per_unit)

    def forward(self, mel: Tensor, f0: Tensor, n_samples: int | None = None, noise: Tensor | None = None) -> Tensor:
        """Synthesise.

        Args:
            mel: (B, n_mels, T).
            f0: (B, T) in Hz, 0 where unvoiced.
            n_samples: Length of the output; from (T - 1) * hop_length to T * hop_length - 1.
            noise: (B, n_samples) of unit white noise; drawn from torch's generator when None.
        """
        c = self.config.mel
        n = (mel.shape[-1] - 1) * c.hop_length if n_samples is None else n_samples
        log_f0 = continuous_log_f0(f0)
        features = torch.cat([mel, (log_f0 - 5.0).unsqueeze(1), (f0 > 0).float().unsqueeze(1)], dim=1)
        x = self.norm(self.stack(self.input(features)).transpose(1, 2))
        harmonic, phase, breath = self.output(x).float().transpose(1, 2).chunk(3, dim=1)
        with torch.autocast(mel.device.type, enabled=False):
            envelope = self.envelope(mel.float())
            pulses = pulse_train(log_f0.float(), n, c.sample_rate, c.hop_length, self.config.harmonic_max_hz)
            noise = torch.randn_like(pulses) if noise is None else noise
            gain = torch.exp((envelope + harmonic).clamp(max=MAX_LOG_MAGNITUDE))
            filtered = self._stft(pulses) * torch.polar(gain, phase)
            filtered = filtered + self._stft(noise) * torch.exp((envelope + breath).clamp(max=MAX_LOG_MAGNITUDE))
            return torch.istft(filtered, c.n_fft, c.hop_length, c.win_length, self.window, center=True, length=n)

    def _stft(self, wav: Tensor) -> Tensor:
        c = self.config.mel
        return torch.stft(wav, c.n_fft, c.hop_length, c.win_length, self.window, center=True, return_complex=True)
