"""Conversion of F0 to the range of a voice."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ, log_f0_statistics
from vcae.options import parse_pitch
from vcae.voice.voice import Voice

# Bounds on the ratio of the standard deviations of log-F0, which are unreliable for short clips.
SPREAD_BOUNDS = (0.7, 1.4)


class Pitched(Protocol):
    """Interface of objects with a range of F0, such as voices."""

    @property
    def log_f0_median(self) -> float:
        """Median of log-F0, natural log of Hz; nan if unknown."""

    @property
    def log_f0_spread(self) -> float:
        """Standard deviation of log-F0 in nats; nan if unknown."""


def convert_f0(f0: Tensor, voice: Voice, pitch: str | float = "auto") -> Tensor:
    """Convert F0 to the range of a voice, keep it, or shift it.

    Args:
        f0: (1, T) in Hz, 0 where unvoiced.
        voice: Voice whose median and (bounded) standard deviation of log-F0 are used with `auto`.
        pitch: `auto`, `keep`, or semitones.

    Returns:
        (1, T) in Hz, 0 where unvoiced.
    """
    return move_f0(f0, voice, pitch, log_f0_statistics(f0[0]))


def scale_f0(f0: Tensor, expression: float, mean: float | None = None) -> Tensor:
    """Scale the deviation of log-F0 from its mean over voiced frames.

    Args:
        f0: (1, T) in Hz, 0 where unvoiced.
        expression: Factor; 1 leaves it unchanged, 0 makes it monotone.
        mean: Mean of log-F0, natural log of Hz; that of `f0` when None.

    Returns:
        (1, T) in Hz, 0 where unvoiced.
    """
    voiced = f0 > 0
    if expression == 1 or not bool(voiced.any()):
        return f0
    log_f0 = torch.log(f0.clamp(min=F0_MIN_HZ))
    centre = float(log_f0[voiced].mean()) if mean is None else mean
    scaled = torch.exp(centre + (log_f0 - centre) * expression).clamp(F0_MIN_HZ, F0_MAX_HZ)
    return torch.where(voiced, scaled, torch.zeros_like(f0))


def move_f0(f0: Tensor, voice: Pitched, pitch: str | float, statistics: tuple[float, float]) -> Tensor:
    """Apply `convert_f0` to F0 (1, T) with given median and standard deviation of the recording's log-F0."""
    pitch = parse_pitch(pitch)
    voiced = f0 > 0
    if pitch == "keep" or not bool(voiced.any()):
        return f0
    log_f0 = torch.log(f0.clamp(min=F0_MIN_HZ))
    if pitch == "auto":
        median, spread = statistics
        if math.isnan(voice.log_f0_median):
            return f0
        ratio = min(max(voice.log_f0_spread / max(spread, 1e-3), SPREAD_BOUNDS[0]), SPREAD_BOUNDS[1])
        log_f0 = voice.log_f0_median + (log_f0 - median) * ratio
    else:
        log_f0 = log_f0 + float(pitch) * math.log(2) / 12
    return torch.where(voiced, torch.exp(log_f0).clamp(F0_MIN_HZ, F0_MAX_HZ), torch.zeros_like(f0))
