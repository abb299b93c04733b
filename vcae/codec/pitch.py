"""F0 as small integers: for each step of two frames, a voicing symbol and a place on a grid of quarter semitones."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ, HOP_LENGTH, SAMPLE_RATE

FRAMES = 2
# Places per octave, and largest distance from the recording's reference.
GRID = 48
REACH = 63
# The largest move from one voiced step to the next; a larger jump takes several steps.
MAX_MOVE = 40
N_VOICINGS = 4
N_MOVES = 2 * MAX_MOVE + 1
N_PLACES = 2 * REACH + 1
REFERENCES = 255


def reference_code(f0: Tensor) -> int:
    """Return the code, 0 to 255, of the mean of F0 (T,) in Hz, 0 where unvoiced; the mean is taken in octaves."""
    voiced = f0[f0 > 0]
    if not voiced.numel():
        return 0
    share = float(torch.log(voiced.double() / F0_MIN_HZ).mean()) / math.log(F0_MAX_HZ / F0_MIN_HZ)
    return round(min(max(share, 0.0), 1.0) * REFERENCES)


def reference_hz(code: int) -> float:
    """Return the F0 in Hz for a code of `reference_code`."""
    return F0_MIN_HZ * math.exp(math.log(F0_MAX_HZ / F0_MIN_HZ) * code / REFERENCES)


def quantize_f0(f0: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise F0.

    Args:
        f0: (B, T) in Hz, 0 where unvoiced.
        reference: (B,) in Hz, F0 of place 0.

    Returns:
        Voicing (B, ceil(T / 2)), 1 for a voiced first frame plus 2 for a voiced second one, and place (B, ceil(T / 2)), from -REACH to
        REACH; an unvoiced step has the place of the voiced one before, or 0.
    """
    pairs = F.pad(f0, (0, f0.shape[-1] % FRAMES)).view(len(f0), -1, FRAMES)
    voiced = (pairs > 0).float()
    voicing = (voiced * torch.tensor([1.0, 2.0], device=f0.device)).sum(-1).long()
    log_f0 = (torch.log2(pairs.clamp(min=1.0)) * voiced).sum(-1) / voiced.sum(-1).clamp(min=1)
    place = ((log_f0 - torch.log2(reference)[:, None]) * GRID).round().clamp(-REACH, REACH).long()
    return voicing, hold(torch.where(voicing > 0, place, torch.zeros_like(place)), voicing > 0)


def hold(values: Tensor, known: Tensor) -> Tensor:
    """Replace unknown values (B, S) by the last known one before them, or by 0."""
    at = torch.arange(values.shape[-1], device=values.device).expand_as(values)
    before = torch.where(known, at, torch.full_like(at, -1)).cummax(dim=-1).values
    return torch.where(before >= 0, values.gather(-1, before.clamp(min=0)), torch.zeros_like(values))


def dequantize_f0(voicing: Tensor, place: Tensor, reference: Tensor, n: int) -> Tensor:
    """Return F0 (B, n) in Hz, 0 where unvoiced, for the result of `quantize_f0`; log-F0 is linear between voiced steps."""
    log_f0 = place / GRID + torch.log2(reference)[:, None]
    voiced = voicing > 0
    left = torch.where(F.pad(voiced, (1, 0))[:, :-1], F.pad(log_f0, (1, 0))[:, :-1], log_f0)
    right = torch.where(F.pad(voiced, (0, 1))[:, 1:], F.pad(log_f0, (0, 1))[:, 1:], log_f0)
    # A step is centred between its two frames.
    frames = torch.stack([0.75 * log_f0 + 0.25 * left, 0.75 * log_f0 + 0.25 * right], dim=-1)
    present = torch.stack([voicing % 2 > 0, voicing >= 2], dim=-1)
    return torch.where(present, torch.exp2(frames), torch.zeros_like(frames)).flatten(1)[:, :n]


def turns(place: Tensor, reference_hz: float) -> Tensor:
    """Return the phase in cycles (2 S,) just before each frame's sample: the integral of F0 at places (S,) of one block, 0 at its start.

    In float64, so that encoder and decoder differ by far less than the resolution of the coded phase.
    """
    f0 = torch.exp2(place.double() / GRID) * reference_hz
    advance = (f0 * HOP_LENGTH / SAMPLE_RATE).repeat_interleave(FRAMES)
    return torch.cumsum(advance, dim=0) - advance


def spread_phase(phase: Tensor, needed: Tensor, phases: int, every: int, n: int) -> Tensor:
    """Interpolate coded phases (P,), `every` frames apart, to a phase in cycles for each of n frames.

    Between two coded phases it takes the shorter way round; one that is not needed repeats the one before.
    """
    sent = hold(phase[None], needed[None])[0]
    step = (sent[1:] - sent[:-1] + phases // 2) % phases - phases // 2
    path = torch.cat([sent[:1], sent[:1] + torch.cumsum(step, dim=0)]).double() / phases
    path = torch.cat([path, path[-1:]])
    at = torch.arange(n, device=phase.device)
    left, share = at // every, (at % every).double() / every
    return path[left] * (1 - share) + path[left + 1] * share
