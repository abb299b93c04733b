"""Excitation of the vocoder: a pulse train that follows F0, and white noise. Both can be generated in pieces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vcae.audio.f0 import continuous_log_f0

NOISE_BLOCK = 16384
# Pulse positions of a recording: analysis window in samples, frames per block, and standard deviation of the smoothing in frames, long
# enough that an uncertain frame does not make the harmonics jitter.
FOLLOW_WINDOW = 1024
FOLLOW_BLOCK = 2048
FOLLOW_SMOOTH = 3


@dataclass(frozen=True)
class PitchTrack:
    """F0 contour with the phase of its pulses; a slice of it gives the same pulses as the whole.

    Attributes:
        log_f0: (B, T), natural log of Hz, without gaps; frame t is at sample t * hop_length.
        voiced: (B, T), 1.0 or 0.0.
        turns: (B, T), phase of the pulse train just before each frame's sample, in cycles, 0..1.
    """

    log_f0: Tensor
    voiced: Tensor
    turns: Tensor

    @classmethod
    def of(cls, f0: Tensor, sample_rate: int, hop_length: int) -> PitchTrack:
        """Interpolate F0 (B, T), in Hz with 0 where unvoiced, over unvoiced frames, and integrate its phase."""
        log_f0 = continuous_log_f0(f0.float())
        # Summed in float64 so that the phase stays precise over an hour; of mps on the CPU, as it has no float64.
        hz = torch.exp(log_f0)
        exact = (hz.cpu() if hz.device.type == "mps" else hz).double()
        right = torch.cat([exact[:, 1:], exact[:, -1:]], dim=1)
        advance = exact * hop_length + (right - exact) * (hop_length - 1) / 2
        turns = torch.cumsum(advance, dim=1) - advance
        turns = (turns / sample_rate).frac().float().to(f0.device)
        return cls(log_f0, (f0 > 0).float(), turns)

    def follow(self, wav: Tensor, sample_rate: int, hop_length: int) -> PitchTrack:
        """Shift the phase to that of a recording's fundamental, so that a copy has its pulses where the recording has them.

        Args:
            wav: (B, N), the recording from which F0 was measured.
            sample_rate: Hz.
            hop_length: Samples.

        Returns:
            The same F0 with another phase.
        """
        n, half = self.turns.shape[-1], FOLLOW_WINDOW // 2
        padded = F.pad(wav, (half, half + hop_length))
        at = (torch.arange(FOLLOW_WINDOW, device=wav.device) - half) / sample_rate
        window = torch.hann_window(FOLLOW_WINDOW, device=wav.device)
        differences = []
        for first in range(0, n, FOLLOW_BLOCK):
            frames = slice(first, min(first + FOLLOW_BLOCK, n))
            pieces = padded.unfold(-1, FOLLOW_WINDOW, hop_length)[:, frames] * window
            angle = -2 * math.pi * at * torch.exp(self.log_f0[:, frames, None])
            fundamental = torch.complex((pieces * angle.cos()).sum(-1), (pieces * angle.sin()).sum(-1))
            turned = torch.polar(self.voiced[:, frames], -2 * math.pi * self.turns[:, frames])
            differences.append(fundamental * turned)
        difference = torch.view_as_real(torch.cat(differences, dim=1)).movedim(-1, 1)
        reach = 4 * FOLLOW_SMOOTH
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=wav.device) / FOLLOW_SMOOTH).square())
        smooth = F.conv1d(difference, kernel.expand(2, 1, -1), padding=reach, groups=2)
        offset = torch.atan2(smooth[:, 1], smooth[:, 0]) / (2 * math.pi)
        return PitchTrack(self.log_f0, self.voiced, (self.turns + offset) % 1)

    def __getitem__(self, frames: slice) -> PitchTrack:
        return PitchTrack(self.log_f0[:, frames], self.voiced[:, frames], self.turns[:, frames])


def pulse_train(pitch: PitchTrack, n_samples: int, sample_rate: int, hop_length: int, max_hz: float) -> Tensor:
    """Generate a band-limited pulse train that follows F0, interpolated linearly between frames.

    The sum of cosines 2 cos(k phase), k = 1..K, has the closed form sin((K + 1/2) phase) / sin(phase / 2) - 1.

    Args:
        pitch: (B, T).
        n_samples: Length of the result.
        sample_rate: Hz.
        hop_length: Samples.
        max_hz: Highest harmonic.

    Returns:
        (B, n_samples) with unit mean power.
    """
    at = torch.arange(n_samples, device=pitch.turns.device)
    left = (at // hop_length).clamp(max=pitch.turns.shape[-1] - 1)
    right = (left + 1).clamp(max=pitch.turns.shape[-1] - 1)
    f0 = torch.exp(pitch.log_f0)
    j = (at - left * hop_length).float()
    slope = (f0[:, right] - f0[:, left]) / hop_length
    # After `follow`, the phase at the next frame differs slightly from the integral of F0; the difference is spread over the frame.
    advance = (f0[:, left] * hop_length + slope * hop_length * (hop_length - 1) / 2) / sample_rate
    rest = (pitch.turns[:, right] - pitch.turns[:, left] - advance) * (right > left)
    rest = rest - rest.round()
    turns = pitch.turns[:, left] + (f0[:, left] * (j + 1) + slope * j * (j + 1) / 2) / sample_rate + rest * j / hop_length
    phase = 2 * math.pi * (turns - turns.round())
    n_harmonics = (max_hz / (f0[:, left] + slope * j)).floor().clamp(min=1)
    half = torch.sin(phase / 2)
    near_zero = half.abs() < 1e-4
    ratio = torch.sin((n_harmonics + 0.5) * phase) / torch.where(near_zero, torch.ones_like(half), half)
    pulses = torch.where(near_zero, 2 * n_harmonics + 1, ratio) - 1
    return pulses * torch.rsqrt(2 * n_harmonics + 1)


def white_noise(seed: int, batch: int, start: int, stop: int) -> Tensor:
    """Return samples `start` to `stop` of an endless unit-variance white noise that `seed` determines: (batch, stop - start), on the CPU."""
    first, last = start // NOISE_BLOCK, -(-stop // NOISE_BLOCK)
    blocks = [
        np.random.default_rng([seed, i]).standard_normal((batch, NOISE_BLOCK), dtype=np.float32) for i in range(first, last)
    ]
    offset = first * NOISE_BLOCK
    return torch.from_numpy(np.concatenate(blocks, axis=1)[:, start - offset : stop - offset])
