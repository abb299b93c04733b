"""Retrieval: converted frames are pulled towards the most similar frames of the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vcae.audio.frames import gaussian_smooth

# Cepstral coefficients by which frames are compared, and frames of context on each side.
N_CEPSTRUM = 24
CONTEXT = (-4, -2, 0, 2, 4)
# Weight of a difference in voicing, in the units of the coefficients.
VOICING_WEIGHT = 3.0
# Softmax temperature on squared distances.
TEMPERATURE = 10.0
# Standard deviation in bands of the smoothing that gives a frame's envelope; harmonics remain those of the converted F0.
ENVELOPE_BANDS = 1.5
# Standard deviation in frames of the smoothing of the change over time.
MOVE_FRAMES = 1.0
# Most frames of the reference, evenly spaced if there are more: 120 s.
MAX_FRAMES = 7500
BLOCK = 2048
# Receptive field in frames to each side.
REACH = 4 + 3


@dataclass(frozen=True)
class Frames:
    """Frames of a reference for retrieval.

    Attributes:
        keys: (T, K), cepstra in context and voicing.
        envelopes: (T, n_mels), natural log magnitude, smoothed over harmonics.
        log_weights: (T,), natural log of the frames' weights; 0 for a voice that is not mixed.
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
    """Collect the frames of references for `retrieve`.

    Args:
        mels: Each (1, n_mels, T), natural log magnitude.
        normalized: The same, normalised per band by the training data.
        f0s: Each (1, T) in Hz, 0 where unvoiced.

    Returns:
        At most `MAX_FRAMES` frames, rounded to half precision (a hundredth of a decibel), as in a saved voice.
    """
    keys = torch.cat([_keys(x, f0) for x, f0 in zip(normalized, f0s, strict=True)])
    envelopes = torch.cat([_envelope(mel)[0].T for mel in mels])
    step = -(-len(keys) // MAX_FRAMES)
    kept = [x[::step].half().float().contiguous() for x in (keys, envelopes)]
    return Frames(kept[0], kept[1], torch.zeros(len(kept[0]), device=keys.device))


def retrieve(mel: Tensor, normalized: Tensor, f0: Tensor, frames: Frames, strength: float) -> Tensor:
    """Pull each frame's envelope towards those of similar frames of the reference.

    Args:
        mel: (1, n_mels, T), already converted, so that similar frames of the reference have the same content.
        normalized: The same, normalised per band by the training data.
        f0: (1, T) in Hz, 0 where unvoiced.
        frames: Frames of the reference.
        strength: 0 leaves the mel unchanged, 1 replaces the envelopes by the reference's.

    Returns:
        (1, n_mels, T).

    Source: nearest frames of the target as in kNN-VC (Baas et al., 2023), here for the converted mel, and envelopes only.
    """
    if strength == 0:
        return mel
    # In blocks, so that memory is linear and not quadratic in the length.
    found = [
        torch.softmax(frames.log_weights - torch.cdist(block, frames.keys).square() / TEMPERATURE, dim=-1) @ frames.envelopes
        for block in torch.split(_keys(normalized, f0), BLOCK)
    ]
    move = torch.cat(found).T.unsqueeze(0) - _envelope(mel)
    return mel + strength * gaussian_smooth(move, MOVE_FRAMES, dim=2)
