"""Time stretching of the sequences that sound is synthesised from, mel and F0, instead of sound: pitch is kept, and nothing has to be glued."""

from __future__ import annotations

import torch
from torch import Tensor

from vcae.audio.sections import LazySections, Sections


def stretch_mel(mel: Sections, n: int, speed: float) -> Sections:
    """Resample a mel in time by linear interpolation between its frames.

    Args:
        mel: Natural log magnitude, read by sections.
        n: Number of frames wanted.
        speed: Frames of the source for each frame of the result.

    Returns:
        The mel of `n` frames; unchanged at speed 1.
    """
    if speed == 1:
        return mel

    def compute(start: int, stop: int) -> Tensor:
        at = (torch.arange(start, stop, dtype=torch.float64) * speed).clamp(0, mel.n - 1)
        left = at.long()
        first, last = int(left[0]), min(int(left[-1]) + 2, mel.n)
        frames = mel.read(first, last)
        left = left.to(frames.device) - first
        right = (left + 1).clamp(max=last - first - 1)
        return torch.lerp(frames[..., left], frames[..., right], (at % 1).to(frames))

    return LazySections(n, compute)


def stretch_f0(f0: Tensor, n: int, speed: float) -> Tensor:
    """Resample F0 in time: its logarithm is interpolated between voiced frames; elsewhere the nearest frame counts.

    Args:
        f0: (1, T) in Hz, 0 where unvoiced.
        n: Number of frames wanted.
        speed: Frames of the source for each frame of the result.

    Returns:
        (1, n) in Hz, 0 where unvoiced.
    """
    at = (torch.arange(n, dtype=torch.float64) * speed).clamp(max=f0.shape[-1] - 1)
    left = at.long()
    right, share = (left + 1).clamp(max=f0.shape[-1] - 1), (at - left).to(f0)
    left, right = left.to(f0.device), right.to(f0.device)
    before, after = f0[:, left], f0[:, right]
    between = torch.lerp(before.clamp(min=1.0).log(), after.clamp(min=1.0).log(), share).exp()
    return torch.where((before > 0) & (after > 0), between, torch.where(share < 0.5, before, after))
