"""How much of the noise a denoiser leaves: more of loud noise, since words would be lost with it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Frames, 8 s, over which speech and noise are compared.
N_COMPARED = 500
# Ratio of speech to noise in dB, while there is speech, from which noise is reduced as the strength says, and below which by half as many dB.
QUIET_DB, LOUD_DB = 9.0, 5.0
# Part of the sound that counts as speech in any case, so that noise without speech is not taken for speech in loud noise.
PRIOR = 0.01
SMALLEST = 1e-9


def compared_powers(speech: Tensor, noise: Tensor) -> Tensor:
    """Return what `noise_left` compares.

    Args:
        speech: Power (B, T) of the denoised frames.
        noise: Power (B, T) of what was removed from them.

    Returns:
        (B, 3, T): speech and noise, weighted by the square of the part of the frame that is speech, and both together.
    """
    both = speech + noise
    share = (speech / (both + SMALLEST)).square()
    return torch.stack([share * speech, share * noise, both], dim=1)


def noise_left(powers: Tensor, strength: Tensor | float) -> Tensor:
    """Return how much of what was removed from each frame is put back (B, T), from 0 to 1.

    Args:
        powers: (B, 3, N_COMPARED - 1 + T) from `compared_powers`, of the frames and those before; zeros before a recording.
        strength: 0 (unchanged) to 1 (full denoising).
    """
    speech, noise, both = F.avg_pool1d(powers, N_COMPARED, 1).unbind(dim=1)
    ratio_db = (10 / math.log(10)) * ((speech + PRIOR * both + SMALLEST) / (noise + SMALLEST)).log()
    loud = ((QUIET_DB - ratio_db) / (QUIET_DB - LOUD_DB)).clamp(0, 1)
    left: Tensor = (1 - strength) ** (1 - 0.5 * loud)
    return left
