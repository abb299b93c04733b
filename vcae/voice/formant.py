"""Formant shift: the spectral envelope is moved on the frequency axis, while F0 and its harmonics stay."""

from __future__ import annotations

import torch
from torch import Tensor

from vcae.audio.config import MelConfig
from vcae.audio.mel import hz_to_mel, mel_band_edges
from vcae.audio.sections import LazySections, Sections

# The envelope of a voiced frame is its mel smoothed over frequency by a Gaussian with this standard deviation, as a fraction of F0: harmonics
# are F0 apart.
SMOOTHING = 0.5
# Frames that are smoothed at a time.
BLOCK = 1024


class FormantShift:
    """Shift of the formants of a log-mel.

    The envelope of each frame is warped, so that what was at f is at f times `2 ** (semitones / 12)`. Above the highest frequency that the
    source has, the last band is repeated. In voiced frames, the difference between the mel and its envelope stays where it was, as
    it belongs to the harmonics.

    Args:
        config: Settings of the mel.
        semitones: Shift in semitones; positive moves formants up, as in a smaller head.
    """

    def __init__(self, config: MelConfig, semitones: float) -> None:
        edges = mel_band_edges(config)
        self._centres, self._widths = edges[1:-1].float(), (edges[2:] - edges[:-2]).float()
        axis, wanted = hz_to_mel(edges[1:-1]), hz_to_mel(edges[1:-1] / 2 ** (semitones / 12))
        at = ((wanted - axis[0]) / (axis[1] - axis[0])).clamp(0, config.n_mels - 1)
        left = at.long().clamp(max=config.n_mels - 2)
        self._warp = torch.zeros(config.n_mels, config.n_mels)
        self._warp[torch.arange(config.n_mels), left] = (1 - (at - left)).float()
        self._warp[torch.arange(config.n_mels), left + 1] += (at - left).float()

    def __call__(self, mel: Tensor, f0: Tensor) -> Tensor:
        """Shift the formants of a log-mel (1, n_mels, T) with F0 (1, T) in Hz, 0 where unvoiced."""
        envelope = mel.clone()
        for at in torch.split((f0[0] > 0).nonzero()[:, 0], BLOCK):
            distance = (self._centres[:, None] - self._centres).to(mel.device)
            kernel = torch.exp(-0.5 * (distance / (SMOOTHING * f0[0, at, None, None])).square()) * self._widths.to(mel.device)
            kernel = kernel / kernel.sum(dim=-1, keepdim=True)
            envelope[0, :, at] = torch.einsum("tij,jt->it", kernel, mel[0, :, at])
        return mel - envelope + torch.matmul(self._warp.to(mel.device), envelope)


def shift_formants(mel: Sections, f0: Tensor, config: MelConfig, semitones: float) -> Sections:
    """Apply `FormantShift` to a mel that is read by sections, with F0 (1, T); 0 semitones leave it unchanged."""
    if not semitones:
        return mel
    shift = FormantShift(config, semitones)
    return LazySections(mel.n, lambda start, stop: shift(mel.read(start, stop), f0[:, start:stop]))
