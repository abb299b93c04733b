"""Losses between signals."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vcae.audio.config import MelConfig
from vcae.audio.mel import LogMel

# (n_fft, hop_length, n_mels) of each resolution.
RESOLUTIONS = ((256, 64, 32), (512, 128, 64), (1024, 256, 80), (2048, 512, 128), (400, 100, 48))


class MultiResolutionLoss(nn.Module):
    """Multi-resolution spectral loss: L1 of log-mels, plus half the L1 of log-STFTs, plus half the spectral convergence.

    Shape:
        - predicted, target: (B, N); output: a dict of scalars whose `loss` is their weighted sum

    Source: Yamamoto et al., Parallel WaveGAN (2020) for the STFT terms; multi-scale mels, Kumar et al., DAC (2023).
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.mels = nn.ModuleList(
            LogMel(MelConfig(sample_rate, n_fft, n_fft, hop, n_mels, 0.0, sample_rate / 2))
            for n_fft, hop, n_mels in RESOLUTIONS
        )

    def forward(self, predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
        mel_loss = stft_loss = convergence = predicted.new_zeros(())
        for log_mel in self.mels:
            assert isinstance(log_mel, LogMel)
            magnitude, wanted = log_mel.spectrum(predicted).abs(), log_mel.spectrum(target).abs()
            mel_loss = mel_loss + (log_mel.compress(magnitude) - log_mel.compress(wanted)).abs().mean()
            floor = log_mel.config.floor * 100
            stft_loss = stft_loss + (magnitude.clamp(min=floor).log() - wanted.clamp(min=floor).log()).abs().mean()
            convergence = convergence + torch.linalg.norm(magnitude - wanted) / torch.linalg.norm(wanted).clamp(min=1e-3)
        n = len(self.mels)
        parts = {"mel": mel_loss / n, "stft": stft_loss / n, "convergence": convergence / n}
        return {"loss": parts["mel"] + 0.5 * parts["stft"] + 0.5 * parts["convergence"], **parts}
