"""Retrieval: the converted frames drawn towards the nearest frames that the reference really holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vcae.audio.frames import gaussian_smooth

# Cepstral coefficients that a frame is looked up by, and the frames beside it whose coefficients count too.
N_CEPSTRUM = 24
CONTEXT = (-4, -2, 0, 2, 4)
# Weight of a difference in voicing, in the units of the coefficients.
VOICING_WEIGHT = 3.0
# Squared distance over which a frame loses its say, by a factor of e.
TEMPERATURE = 10.0
# Deviation of the smoothing over bands that takes an envelope from a frame: harmonics stay those of the converted F0.
ENVELOPE_BANDS = 1.5
# Deviation in frames of the smoothing over time of what retrieval moves.
MOVE_FRAMES = 1.0
# Frames of reference kept, evenly spaced when there are more: 120 s.
MAX_FRAMES = 7500
BLOCK = 2048
# Frames to each side that what is retrieved for a frame depends on.
REACH = 4 + 3


@dataclass(frozen=True)
class Frames:
    """Frames of a reference, to be found again.

    Attributes:
        keys: (T, K), cepstra in context and voicing.
        envelopes: (T, n_mels), natural log magnitude, harmonics smoothed away.
        log_weights: (T,), how much each frame counts, natural log; 0 in a voice that is not mixed.
    """

    keys: Tensor
    envelopes: Tensor
    log_weights: Tensor


def _keys(normalized: Tensor, f0: Tensor) -> Tensor:
    n_mels, n = normalized.shape[-2:]
    band = torch.arange(n_mels, device=normalized.device) + 0.5
    order = torch.arange(1, N_CEPSTRUM + 1, device=normalized.device)
    cosines = torch.cos(math.pi / n_mels * order[:, None] * band) * math.sqrt(2 / n_mels)
    cepstrum = cosines @ normalized[0]
    at = torch.arange(n, device=normalized.device)
    context = torch.cat([cepstrum[:, (at + k).clamp(0, n - 1)] for k in CONTEXT])
    return torch.cat([context, VOICING_WEIGHT * (f0 > 0).float()]).T.contiguous()


def _envelope(mel: Tensor) -> Tensor:
    return gaussian_smooth(mel, ENVELOPE_BANDS, dim=1)


def keep_frames(mels: Sequence[Tensor], normalized: Sequence[Tensor], f0s: Sequence[Tensor]) -> Frames:
    """Keep a reference's frames for `retrieve`.

    Args:
        mels: Each (1, n_mels, T), natural log magnitude.
        normalized: The same, with zero mean and unit deviation per band of the training data.
        f0s: Each (1, T) in Hz, 0 where unvoiced.

    Returns:
        At most `MAX_FRAMES` frames, rounded to half precision (a hundredth of a decibel), as a saved voice keeps them.
    """
    keys = torch.cat([_keys(x, f0) for x, f0 in zip(normalized, f0s, strict=True)])
    envelopes = torch.cat([_envelope(mel)[0].T for mel in mels])
    step = -(-len(keys) // MAX_FRAMES)
    kept = [x[::step].half().float().contiguous() for x in (keys, envelopes)]
    return Frames(kept[0], kept[1], torch.zeros(len(kept[0]), device=keys.device))


def retrieve(mel: Tensor, normalized: Tensor, f0: Tensor, frames: Frames, strength: float) -> Tensor:
    """Draw each frame's envelope towards those of the reference's frames that resemble it.

    Args:
        mel: (1, n_mels, T), converted already: what resembles a frame of the reference says the same.
        normalized: The same, with zero mean and unit deviation per band of the training data.
        f0: (1, T) in Hz, 0 where unvoiced.
        frames: Of the reference.
        strength: 0 leaves the mel, 1 takes the reference's envelopes.

    Returns:
        (1, n_mels, T).

    Source: nearest frames of the target, as kNN-VC (Baas et al., 2023) takes them, here of the converted mel, envelopes only.
    """
    if strength == 0:
        return mel
    # In blocks, so that memory grows with the length and not with its square.
    found = [
        torch.softmax(frames.log_weights - torch.cdist(block, frames.keys).square() / TEMPERATURE, dim=-1) @ frames.envelopes
        for block in torch.split(_keys(normalized, f0), BLOCK)
    ]
    move = torch.cat(found).T.unsqueeze(0) - _envelope(mel)
    return mel + strength * gaussian_smooth(move, MOVE_FRAMES, dim=2)
