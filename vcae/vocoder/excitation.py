"""What the vocoder filters: a pulse train that follows F0, and white noise. Both can be made piece by piece."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vcae.audio.f0 import continuous_log_f0

NOISE_BLOCK = 16384
# Following a recording's pulses: window of the analysis in samples, frames at a time, and standard deviation of the smoothing in frames,
# which is long enough that an uncertain frame does not make the harmonics jitter.
FOLLOW_WINDOW = 1024
FOLLOW_BLOCK = 2048
FOLLOW_SMOOTH = 3


@dataclass(frozen=True)
class PitchTrack:
    """F0 made ready for synthesis; a slice of it gives the same pulses as the whole.

    Attributes:
        log_f0: (B, T), natural log of Hz, without gaps; frame t stands at sample t * hop_length.
        voiced: (B, T), 1.0 or 0.0.
        turns: (B, T), the pulses' phase just before each frame's sample, 0..1.
    """

    log_f0: Tensor
    voiced: Tensor
    turns: Tensor

    @classmethod
    def of(cls, f0: Tensor, sample_rate: int, hop_length: int) -> PitchTrack:
        """Fill the gaps of F0 (B, T), in Hz with 0 where unvoiced, and add up its phase."""
        log_f0 = continuous_log_f0(f0.float())
        # Added up in float64 so that an hour's phase keeps its precision; on the CPU, as mps has no float64.
        exact = torch.exp(log_f0).cpu().double()
        right = torch.cat([exact[:, 1:], exact[:, -1:]], dim=1)
        advance = exact * hop_length + (right - exact) * (hop_length - 1) / 2
        turns = torch.cumsum(advance, dim=1) - advance
        turns = (turns / sample_rate).frac().float().to(f0.device)
        return cls(log_f0, (f0 > 0).float(), turns)

    def follow(self, wav: Tensor, sample_rate: int, hop_length: int) -> PitchTrack:
        """Move the pulses' phase onto that of a recording's fundamental, so that a copy has its pulses where the recording has them.

        Args:
            wav: (B, N), the recording that F0 was measured on.
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
    """Make a band-limited pulse train that follows F0, linear between frames.

    The sum of cosines 2 cos(k phase), k = 1..K, has the closed form sin((K + 1/2) phase) / sin(phase / 2) - 1.

    Args:
        pitch: (B, T).
        n_samples: Samples to make.
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
    # Where a track follows a recording, its phase at the next frame is not quite what F0 adds up to: the rest is spread over the frame.
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
    """Return samples `start` to `stop` of the endless unit white noise of a seed: (batch, stop - start), on the CPU."""
    first, last = start // NOISE_BLOCK, -(-stop // NOISE_BLOCK)
    blocks = [
        np.random.default_rng([seed, i]).standard_normal((batch, NOISE_BLOCK), dtype=np.float32) for i in range(first, last)
    ]
    offset = first * NOISE_BLOCK
    return torch.from_numpy(np.concatenate(blocks, axis=1)[:, start - offset : stop - offset])
