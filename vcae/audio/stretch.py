"""Time stretching of the sequences that speech is decoded from, content and F0, instead of sound: pitch is kept, and nothing has to be glued."""

from __future__ import annotations

import torch
from torch import Tensor

from vcae.audio.sections import LazySections, Sections


def stretch_content(content: Sections, n: int, speed: float, stride: int) -> Sections:
    """Resample content in time by linear interpolation between its steps.

    Args:
        content: Content code, one step for `stride` frames.
        n: Number of steps wanted.
        speed: Frames of the source for each frame of the result.
        stride: Frames per step.

    Returns:
        The content of `n` steps; unchanged at speed 1.
    """
    if speed == 1:
        return content
    # A step describes the middle of its frames.
    offset = (speed - 1) * (stride - 1) / (2 * stride)

    def compute(start: int, stop: int) -> Tensor:
        at = (torch.arange(start, stop, dtype=torch.float64) * speed + offset).clamp(0, content.n - 1)
        left = at.long()
        first, last = int(left[0]), min(int(left[-1]) + 2, content.n)
        steps = content.read(first, last)
        left = left.to(steps.device) - first
        right = (left + 1).clamp(max=last - first - 1)
        return torch.lerp(steps[..., left], steps[..., right], (at % 1).to(steps))

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
