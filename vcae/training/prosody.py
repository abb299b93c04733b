"""Losses of the prosody predictor: durations of units, voicing and F0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vcae.audio.f0 import F0_MIN_HZ
from vcae.model.autoencoder import Autoencoder


def runs(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Collapse a sequence of codes (T,) into the codes of its runs and their lengths, each (U,)."""
    collapsed, lengths = torch.unique_consecutive(codes, return_counts=True)
    return collapsed, lengths


def prosody_losses(model: Autoencoder, codes: Tensor, f0: Tensor) -> dict[str, Tensor]:
    """Return the losses of durations, voicing and F0 predicted from units.

    Args:
        model: Autoencoder with a quantizer and a prosody predictor.
        codes: (B, 1, ceil(T / stride)), of the first stage.
        f0: (B, T) in Hz, 0 where unvoiced.

    Returns:
        `durations` (Poisson likelihood of run lengths, which preserves their sum), `voicing` (cross entropy), `contour` (L1 of log-F0
        relative to the item's mean), and `prosody`, their weighted sum.
    """
    prosody = model.prosody
    assert prosody is not None
    with torch.autocast(f0.device.type, enabled=False):
        content = model.decode_units(codes)
        contour = prosody.contour(content, f0.shape[-1])
        voiced = (f0 > 0).float()
        voicing = F.binary_cross_entropy_with_logits(contour.voicing, voiced)
        log_f0 = torch.log(f0.clamp(min=F0_MIN_HZ))
        mean = (log_f0 * voiced).sum(dim=-1, keepdim=True) / voiced.sum(dim=-1, keepdim=True).clamp(min=1)
        wrong = ((contour.relative_log_f0 - (log_f0 - mean)).abs() * voiced).sum() / voiced.sum().clamp(min=1)
        found = [runs(item[0]) for item in codes]
        n = max(len(units) for units, _ in found)
        # The first and last run of a crop are cut off, so they are context only and not part of the loss.
        units = torch.stack([F.pad(u, (0, n - len(u))) for u, _ in found])
        lengths = torch.stack([F.pad(k, (0, n - len(k))) for _, k in found]).float()
        index = torch.arange(n, device=codes.device)
        count = torch.tensor([len(u) for u, _ in found], device=codes.device)[:, None]
        inner = ((index > 0) & (index < count - 1)).float()
        mask = (index < count).float().unsqueeze(1)
        expected = prosody.log_durations(model.decode_units(units.unsqueeze(1)), mask)
        likelihood = F.poisson_nll_loss(expected, lengths, log_input=True, reduction="none")
        durations = (likelihood * inner).sum() / inner.sum().clamp(min=1)
    return {"durations": durations, "voicing": voicing, "contour": wrong, "prosody": durations + voicing + 4 * wrong}
