"""F0 moved to the range of a voice, kept, or shifted."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ, log_f0_statistics
from vcae.options import parse_pitch
from vcae.voice.voice import Voice

# The reference's spread of log-F0 is taken over within these bounds: short clips measure it badly.
SPREAD_BOUNDS = (0.7, 1.4)


class Pitched(Protocol):
    """A voice, or whatever else has a range of F0."""

    @property
    def log_f0_median(self) -> float:
        """Natural log of Hz; nan when nothing is known."""

    @property
    def log_f0_spread(self) -> float:
        """In nats; nan likewise."""


def convert_f0(f0: Tensor, voice: Voice, pitch: str | float = "auto") -> Tensor:
    """Move F0 to the reference's range, keep it, or shift it.

    Args:
        f0: (1, T) in Hz, 0 where unvoiced.
        voice: Whose median and (bounded) spread of log-F0 are taken with `auto`.
        pitch: `auto`, `keep`, or semitones.

    Returns:
        (1, T) in Hz, 0 where unvoiced.
    """
    return move_f0(f0, voice, pitch, log_f0_statistics(f0[0]))


def move_f0(f0: Tensor, voice: Pitched, pitch: str | float, statistics: tuple[float, float]) -> Tensor:
    """Do what `convert_f0` does with F0 (1, T) of a recording whose median and spread of log-F0 are known."""
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
