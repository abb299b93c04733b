"""Perturbation of the content encoder's input, so that the content carries no voice."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vcae.audio.config import MelConfig
from vcae.audio.mel import mel_band_edges
from vcae.training.config import PerturbConfig
from vcae.training.draws import Draws

NEPER_PER_DB = math.log(10) / 20
# Longest mask, in seconds.
MASK_MAX_S = 0.3


class Perturbation:
    """Random perturbation of log-mels: frequency warp, tilt, gain, noise floor and masked spans.

    Source: vocal-tract-length warping, Jaitly and Hinton (2013); perturbing the content input only, Choi et al., NANSY
    (2021) and Li et al., FreeVC (2022); masked spans, the denoising autoencoder of the lecture notes.
    """

    def __init__(self, config: PerturbConfig, mel: MelConfig) -> None:
        self.config, self.mel = config, mel
        self.centres = mel_band_edges(mel)[1:-1].float()
        self.range_hz = (float(self.centres[0]), float(self.centres[-1]))

    def __call__(self, mel: Tensor, draws: Draws) -> Tensor:
        """Perturb a batch.

        Args:
            mel: (B, n_mels, T), natural log magnitude.
            draws: Source of randomness.

        Returns:
            (B, n_mels, T).
        """
        c = self.config
        n_batch, n_mels, n = mel.shape

        def uniform(n_rows: int, *shape: int) -> Tensor:
            return draws.uniform(n_rows, *shape).to(mel.device)

        mel = self._warp(mel, torch.exp((2 * uniform(n_batch) - 1) * math.log1p(c.warp)))
        slope = torch.linspace(-0.5, 0.5, n_mels, device=mel.device)
        tilt = (2 * uniform(n_batch, 1, 1) - 1) * c.tilt_db * NEPER_PER_DB * slope[:, None]
        gain = (2 * uniform(n_batch, 1, 1) - 1) * c.gain_db * NEPER_PER_DB
        # Noise between noise_db and 2 noise_db below the loudest frame raises the floor.
        top = mel.amax(dim=(1, 2), keepdim=True)
        floor = top - c.noise_db * (1 + uniform(n_batch, 1, 1)) * NEPER_PER_DB
        mel = torch.logaddexp(mel, floor.expand_as(mel)) + tilt + gain
        length = uniform(n_batch) * MASK_MAX_S * self.mel.frame_rate
        start = uniform(n_batch) * (n - length).clamp(min=0)
        at = torch.arange(n, device=mel.device)
        hidden = (at >= start[:, None]) & (at < (start + length)[:, None])
        hidden &= (uniform(n_batch) < c.mask_probability)[:, None]
        return torch.where(hidden.unsqueeze(1), mel.mean(dim=-1, keepdim=True), mel)

    def _warp(self, mel: Tensor, factor: Tensor) -> Tensor:
        """Warp the frequency axis: each band takes the value at `factor` times its centre frequency, linear between bands."""
        centres = self.centres.to(mel.device)
        wanted = (centres * factor[:, None]).clamp(*self.range_hz)
        right = torch.searchsorted(centres, wanted.contiguous()).clamp(1, len(centres) - 1)
        left = right - 1
        share = ((wanted - centres[left]) / (centres[right] - centres[left])).unsqueeze(-1)
        shape = (-1, -1, mel.shape[-1])
        a = mel.gather(1, left.unsqueeze(-1).expand(shape))
        b = mel.gather(1, right.unsqueeze(-1).expand(shape))
        return a + (b - a) * share
