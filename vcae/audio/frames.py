"""Frame arithmetic: frame counts, masks of valid and of active frames, moments and smoothing over time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# A frame whose mean log-mel is this far below that of the loudest frames (in nats, 3.5 = 30 dB) counts as pause.
ACTIVE_RANGE = 3.5


def n_frames(n_samples: int, hop_length: int) -> int:
    """Return the number of centred frames of `n_samples` samples."""
    return 1 + n_samples // hop_length


def length_mask(lengths: Tensor, n: int) -> Tensor:
    """Return a mask of valid frames.

    Args:
        lengths: (B,), valid frames of each item.
        n: Frames of the padded batch, T.

    Returns:
        (B, 1, T), 1.0 where valid.
    """
    return (torch.arange(n, device=lengths.device) < lengths[:, None]).float().unsqueeze(1)


def active_frames(mel: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mark the frames that carry sound rather than pause.

    Args:
        mel: (B, n_mels, T), natural log magnitude.
        mask: (B, 1, T), 1.0 where valid; all frames when None.

    Returns:
        (B, 1, T), 1.0 where the frame's mean level is within `ACTIVE_RANGE` of the item's 95th percentile.
    """
    return active_levels(mel.mean(dim=1, keepdim=True), mask)


def active_levels(level: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mark the frames that carry sound as `active_frames` does, from the frames' mean levels (B, 1, T)."""
    if mask is not None:
        level = level.masked_fill(mask == 0, -torch.inf)
    ordered = level.sort(dim=-1).values
    valid = level.isfinite().sum(dim=-1, keepdim=True)
    n = level.shape[-1]
    index = (n - valid + ((valid - 1) * 0.95).long()).clamp(0, n - 1)
    return (level > ordered.gather(-1, index) - ACTIVE_RANGE).float()


def weighted_moments(x: Tensor, weight: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over time, counting each frame by its weight.

    Args:
        x: (B, D, T).
        weight: (B, 1, T), zero or more.
        eps: Added to the variance.

    Returns:
        Two tensors (B, D, 1).
    """
    total = weight.sum(dim=-1, keepdim=True).clamp(min=1e-3)
    mean = (x * weight).sum(dim=-1, keepdim=True) / total
    variance = ((x - mean).square() * weight).sum(dim=-1, keepdim=True) / total
    return mean, (variance + eps).sqrt()


def gaussian_smooth(x: Tensor, deviation: float, dim: int) -> Tensor:
    """Smooth with a Gaussian along one dimension; edge values are repeated beyond the edges.

    Args:
        x: (B, D, T).
        deviation: Standard deviation of the Gaussian in steps of that dimension; the kernel ends at three deviations.
        dim: 1 or 2.

    Returns:
        (B, D, T).
    """
    radius = math.ceil(3 * deviation)
    at = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (at / deviation).square())
    rows = x.transpose(dim, 2)
    flat = F.pad(rows.reshape(-1, 1, rows.shape[-1]), (radius, radius), mode="replicate")
    return F.conv1d(flat, (kernel / kernel.sum())[None, None]).reshape(rows.shape).transpose(dim, 2)
