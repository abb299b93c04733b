"""The one log-mel of the project: data, losses, vocoder and command line all use this class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vcae.audio.config import MelConfig
from vcae.environment import prepare_torch


def hz_to_mel(hz: Tensor) -> Tensor:
    """Convert Hz to slaney mels: linear below 1 kHz, logarithmic above.

    Source: Slaney, Auditory Toolbox (1998), as in librosa's `hz_to_mel(htk=False)`.
    """
    linear = hz * (3.0 / 200.0)
    return torch.where(
        hz < 1000.0,
        linear,
        15.0 + 27.0 * torch.log(hz.clamp(min=1.0) / 1000.0) / torch.log(torch.tensor(6.4, device=hz.device)),
    )


def mel_to_hz(mel: Tensor) -> Tensor:
    """Convert slaney mels to Hz, the inverse of `hz_to_mel`."""
    return torch.where(
        mel < 15.0,
        mel * (200.0 / 3.0),
        1000.0 * torch.exp((mel - 15.0) * torch.log(torch.tensor(6.4, device=mel.device)) / 27.0),
    )


def mel_band_edges(config: MelConfig) -> Tensor:
    """Return the n_mels + 2 edges of the triangular bands, in Hz; entries 1 to n_mels are the band centres."""
    low, high = hz_to_mel(torch.tensor([config.f_min, config.f_max], dtype=torch.float64, device="cpu"))
    return mel_to_hz(torch.linspace(float(low), float(high), config.n_mels + 2, dtype=torch.float64))


def mel_filterbank(config: MelConfig) -> Tensor:
    """Return the triangular filters with slaney norm (each of unit area in Hz).

    Returns:
        (n_mels, n_fft // 2 + 1), float32.
    """
    edges = mel_band_edges(config)
    bins = torch.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1, dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).float()


class LogMel(nn.Module):
    """Log-magnitude mel spectrogram with centred frames: frame t is centred on sample t * hop_length.

    Shape:
        - wav: (B, N), -1..1
        - mel: (B, n_mels, T), natural log of magnitude, T = 1 + N // hop_length
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        prepare_torch()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.win_length), persistent=False)
        self.register_buffer("filterbank", mel_filterbank(config), persistent=False)

    def spectrum(self, wav: Tensor) -> Tensor:
        """Return the complex STFT (B, n_fft // 2 + 1, T) from which the mel is computed."""
        c = self.config
        return torch.stft(
            wav, c.n_fft, c.hop_length, c.win_length, self.window, center=True, pad_mode="reflect", return_complex=True
        )

    def compress(self, magnitude: Tensor) -> Tensor:
        """Turn a linear magnitude (B, n_fft // 2 + 1, T) into the log-mel (B, n_mels, T)."""
        return torch.log(torch.matmul(self.filterbank, magnitude).clamp(min=self.config.floor))

    def forward(self, wav: Tensor) -> Tensor:
        return self.compress(self.spectrum(wav).abs())
