"""Correction of the decoder's systematic errors for a voice, estimated on the reference.

A decoder trained on a distance is biased towards averages: its spectra vary too little over time, and voices are mixed with those of the
training. A clip of a few seconds is enough to measure both, by comparing it with the autoencoder's copy of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vcae.audio.frames import active_frames
from vcae.audio.sections import SectionRunner, Sections

# Quantiles of each band. The outermost are left out, as the extremes of a short clip are unreliable.
N_QUANTILES = 25
OUTERMOST = 0.02
# Fewest frames of a class (voiced, unvoiced) for its quantiles.
MIN_FRAMES = 20
# Seconds of reference sound from which the correction is full; with less it is weaker in proportion.
FULL_MATCH_S = 3.0
# Kernel bandwidth: root mean square distance per feature of the content code. It applies to references of up to this many frames (10 s), and
# shrinks with more, as is optimal for kernel regression (Scott, Multivariate Density Estimation, 1992).
BANDWIDTH = 0.3
BANDWIDTH_FRAMES = 625
BANDWIDTH_EXPONENT = 0.25
# Weight of a difference in voicing, in units of the features.
VOICING_WEIGHT = 2.0
# Most frames of the reference, evenly spaced if there are more: 120 s.
MAX_MEMORY = 7500
BLOCK = 2048
# Most values that are sorted at a time.
QUANTILE_NUMBERS = 1 << 22


# Quantiles (n_mels, N_QUANTILES) of unvoiced and of voiced frames; None for a class with too few frames.
Quantiles = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Errors:
    """Errors of the autoencoder for a voice, frame by frame.

    Attributes:
        keys: (T, D + 1), content code and weighted voicing.
        values: (T, n_mels), the reference's mel minus the autoencoder's copy of it.
        log_weights: (T,), natural log of the frames' weights; 0 for a voice that is not mixed.
        bandwidth: Kernel bandwidth: root mean square distance per feature of the content code.
    """

    keys: Tensor
    values: Tensor
    log_weights: Tensor
    bandwidth: float = BANDWIDTH


def _keys(latent: Tensor, f0: Tensor, stride: int) -> Tensor:
    code = latent[0].repeat_interleave(stride, dim=-1)[:, : f0.shape[-1]]
    return torch.cat([code, VOICING_WEIGHT * (f0 > 0).float()]).T.contiguous()


def measure_errors(
    mels: Sequence[Tensor], copies: Sequence[Tensor], latents: Sequence[Tensor], f0s: Sequence[Tensor], stride: int
) -> Errors:
    """Measure the errors of the autoencoder for a voice.

    Args:
        mels: Each (1, n_mels, T), mels of the references.
        copies: Each (1, n_mels, T), the autoencoder's copies of them in their own voice.
        latents: Each (1, D, ceil(T / stride)), their content codes.
        f0s: Each (1, T) in Hz, 0 where unvoiced.
        stride: Frames per code.

    Returns:
        The errors of active frames, at most `MAX_MEMORY` of them.
    """
    active = torch.cat([active_frames(mel)[0, 0] > 0 for mel in mels])
    keys = torch.cat([_keys(latent, f0, stride) for latent, f0 in zip(latents, f0s, strict=True)])[active]
    values = torch.cat([(mel - copy)[0].T for mel, copy in zip(mels, copies, strict=True)])[active]
    step = -(-len(keys) // MAX_MEMORY)
    keys, values = keys[::step], values[::step]
    bandwidth = BANDWIDTH * max(1.0, len(keys) / BANDWIDTH_FRAMES) ** -BANDWIDTH_EXPONENT
    return Errors(keys, values, torch.zeros(len(keys), device=keys.device), bandwidth)


def correct_errors(mel: Tensor, latent: Tensor, f0: Tensor, stride: int, errors: Errors, strength: float = 1.0) -> Tensor:
    """Add to each frame the mean error of the autoencoder at frames of the reference with similar content.

    Args:
        mel: (1, n_mels, T), decoded mel.
        latent: (1, D, ceil(T / stride)), the content code that it was decoded from.
        f0: (1, T) in Hz, 0 where unvoiced.
        stride: Frames per code.
        errors: Errors measured on the reference.
        strength: 0 leaves the mel unchanged, 1 corrects fully.

    Returns:
        (1, n_mels, T).

    Source: kernel regression, Nadaraya (1964) and Watson (1964); similar frames of the reference as in kNN-VC (Baas et al.,
    2023), but their errors instead of the frames themselves, which preserves the words of the source.
    """
    scale = 2 * errors.bandwidth**2 * errors.keys.shape[1]
    # In blocks, so that memory is linear and not quadratic in the length.
    blocks = torch.split(_keys(latent, f0, stride), BLOCK)
    means = [
        torch.softmax(errors.log_weights - torch.cdist(block, errors.keys).square() / scale, dim=-1) @ errors.values
        for block in blocks
    ]
    return mel + strength * torch.cat(means).T.unsqueeze(0)


def band_quantiles(mels: Sequence[Tensor], f0s: Sequence[Tensor]) -> Quantiles:
    """Return the quantiles of each band over active frames, for unvoiced and for voiced frames.

    Args:
        mels: Each (1, n_mels, T), natural log magnitude; their frames are pooled.
        f0s: Each (1, T) in Hz, 0 where unvoiced.

    Returns:
        Two tensors (n_mels, N_QUANTILES), ascending along the last axis; None for a class with fewer than `MIN_FRAMES` frames.
    """
    frames = torch.cat([mel[0] for mel in mels], dim=1)
    active = torch.cat([active_frames(mel)[0, 0] > 0 for mel in mels])
    voiced = torch.cat([f0[0] > 0 for f0 in f0s])
    return frame_quantiles(frames[:, active & ~voiced]), frame_quantiles(frames[:, active & voiced])


def section_quantiles(mel: Sections, f0: Tensor, active: Tensor, runner: SectionRunner) -> Quantiles:
    """Compute `band_quantiles` of a mel that is read by sections, a few bands at a time to bound memory.

    Args:
        mel: Natural log magnitude.
        f0: (1, T) in Hz, 0 where unvoiced.
        active: (T,), true in active frames.
        runner: Runner of computations over the sections.
    """
    voiced = f0[0] > 0
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    n_mels = mel.read(0, 1).shape[1]
    at_once = max(QUANTILE_NUMBERS // mel.n, 1)
    for first in range(0, n_mels, at_once):
        bands = slice(first, first + at_once)
        frames = torch.cat(
            [mel.read(start, stop)[0, bands][:, active[start:stop]] for start, stop in runner.spans(mel.n)], dim=1
        )
        for several, chosen in zip(found, (~voiced[active], voiced[active]), strict=True):
            quantiles = frame_quantiles(frames[:, chosen])
            if quantiles is not None:
                several.append(quantiles)
    unvoiced, spoken = (torch.cat(several) if several else None for several in found)
    return unvoiced, spoken


def frame_quantiles(frames: Tensor) -> Tensor | None:
    """Return the quantiles (n_mels, N_QUANTILES) of frames (n_mels, n); None for fewer than `MIN_FRAMES`."""
    if frames.shape[1] < MIN_FRAMES:
        return None
    levels = torch.linspace(OUTERMOST, 1 - OUTERMOST, N_QUANTILES, device=frames.device)
    ordered = frames.float().sort(dim=1).values
    # torch.quantile does not accept long inputs; this is the same linear interpolation.
    at = levels * (frames.shape[1] - 1)
    left = at.floor().long().clamp(max=frames.shape[1] - 2)
    return torch.lerp(ordered[:, left], ordered[:, left + 1], (at - left).expand(len(ordered), -1)).contiguous()


def map_quantiles(mel: Tensor, f0: Tensor, have: Quantiles, wanted: Quantiles, strength: float = 1.0) -> Tensor:
    """Map each band of a section so that the quantiles `have` of its recording become those wanted.

    Args:
        mel: (1, n_mels, T), natural log magnitude.
        f0: (1, T) in Hz, 0 where unvoiced.
        have: Quantiles of the recording, from `band_quantiles`.
        wanted: Quantiles of the reference. A class that either side lacks is unchanged.
        strength: 0 leaves the mel unchanged, 1 matches fully.

    Returns:
        (1, n_mels, T). The map is linear between quantiles, and a shift outside them.

    Source: histogram equalisation of speech features, de la Torre et al. (2005); for over-smoothed spectra, the global
    variance of Toda and Tokuda (2007), which matches the second moment only.
    """
    matched = mel.clone()
    for present, goal, frames in zip(have, wanted, (f0[0] <= 0, f0[0] > 0), strict=True):
        if present is not None and goal is not None:
            x = mel[0][:, frames]
            matched[0][:, frames] = x + strength * (_map(x.contiguous(), present, goal) - x)
    return matched


def _map(x: Tensor, present: Tensor, wanted: Tensor) -> Tensor:
    rising = torch.arange(N_QUANTILES, device=x.device) * 1e-5
    present, wanted = present + rising, wanted + rising
    right = torch.searchsorted(present, x).clamp(1, N_QUANTILES - 1)
    left = right - 1
    x0, x1 = present.gather(1, left), present.gather(1, right)
    y0, y1 = wanted.gather(1, left), wanted.gather(1, right)
    inside = y0 + (y1 - y0) * ((x - x0) / (x1 - x0)).clamp(0, 1)
    return inside + (x - present[:, :1]).clamp(max=0) + (x - present[:, -1:]).clamp(min=0)
