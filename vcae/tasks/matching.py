"""Matching of mel distributions: what a decoder averages away of a voice, given back from the reference's own frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vcae.audio.frames import active_frames

# Quantiles kept of each band. The outermost are left out: a short clip does not know its extremes.
N_QUANTILES = 25
OUTERMOST = 0.02
# Seconds of reference sound from which the match is full; with less it is partial, in proportion.
FULL_MATCH_S = 3.0


def mel_quantiles(mels: Sequence[Tensor]) -> Tensor:
    """Return the quantiles of each band over the frames that carry sound.

    Args:
        mels: Each (1, n_mels, T), natural log magnitude; their frames are pooled.

    Returns:
        (n_mels, N_QUANTILES), rising along the last axis.
    """
    frames = torch.cat([mel[0][:, active_frames(mel)[0, 0] > 0] for mel in mels], dim=1)
    levels = torch.linspace(OUTERMOST, 1 - OUTERMOST, N_QUANTILES, device=frames.device)
    return torch.quantile(frames.float(), levels, dim=1).T.contiguous()


def match_quantiles(mel: Tensor, wanted: Tensor, strength: float = 1.0) -> Tensor:
    """Map each band so that its frames are distributed as the reference's.

    A decoder trained on a distance gives averages: spectra too flat over time, and a mean between the voices it knows.
    Both show in the bands' distributions, and a clip of a few seconds is enough to measure what they should be.

    Args:
        mel: (1, n_mels, T), natural log magnitude.
        wanted: (n_mels, N_QUANTILES) of the reference, from `mel_quantiles`.
        strength: 0 leaves the mel, 1 matches fully.

    Returns:
        (1, n_mels, T). Between quantiles the map is linear; outside them it shifts.

    Source: histogram equalisation of speech features, de la Torre et al. (2005); for over-smoothed spectra, the global
    variance of Toda and Tokuda (2007), which matches the second moment only.
    """
    present = mel_quantiles([mel])
    step = torch.arange(present.shape[1], device=mel.device) * 1e-5
    present, wanted = present + step, wanted + step
    x = mel[0].contiguous()
    right = torch.searchsorted(present, x).clamp(1, present.shape[1] - 1)
    left = right - 1
    x0, x1 = present.gather(1, left), present.gather(1, right)
    y0, y1 = wanted.gather(1, left), wanted.gather(1, right)
    mapped = y0 + (y1 - y0) * ((x - x0) / (x1 - x0)).clamp(0, 1)
    mapped = mapped + (x - present[:, :1]).clamp(max=0) + (x - present[:, -1:]).clamp(min=0)
    return (x + strength * (mapped - x)).unsqueeze(0)
