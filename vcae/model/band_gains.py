"""Gains for bands of a noisy spectrum, from recurrent layers that read all bands of a frame together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Added to the compressed magnitude of a band before its logarithm: about 40 dB below the quietest speech of the training.
FEATURE_FLOOR = 0.02


class BandGains(nn.Module):
    """Gain for each bin, interpolated between bands, from GRUs over time whose input are the levels of all bands.

    Args:
        n_bins: Bins of a frame, without the highest.
        n_bands: Number of bands.
        n_low: Lowest bands, which are single bins; the others widen with frequency.
        width: Features.
        n_layers: Number of GRUs.

    Shape:
        - magnitudes: (B, T, n_bins), compressed; output: gains (B, T, n_bins), 0 to 1, and the states (1, B, width) of the GRUs

    Source: gains of bands from GRUs, as in RNNoise (Valin, A hybrid DSP/deep learning approach to real-time full-band speech enhancement, 2018).
    """

    shapes: Tensor

    def __init__(self, n_bins: int, n_bands: int, n_low: int, width: int, n_layers: int) -> None:
        super().__init__()
        self.register_buffer("shapes", band_shapes(n_bins, n_bands, n_low), persistent=False)
        self.input = nn.Linear(n_bands + 1, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(n_layers))
        self.layers = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(n_layers))
        self.out_norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, n_bands)
        with torch.no_grad():
            # At first most of each band is let through.
            self.output.weight.mul_(0.3)
            self.output.bias.fill_(1.0)

    def forward(self, magnitudes: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        levels = (magnitudes @ (self.shapes / self.shapes.sum(dim=1, keepdim=True)).T + FEATURE_FLOOR).log()
        mean = levels.mean(dim=-1, keepdim=True)
        x = F.silu(self.input(torch.cat([levels - mean, mean], dim=-1)))
        kept = []
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            remembered, after = layer(norm(x), None if memory is None else memory[i])
            x = x + remembered
            kept.append(after)
        return torch.sigmoid(self.output(self.out_norm(x)).float()) @ self.shapes, kept


def band_shapes(n_bins: int, n_bands: int, n_low: int) -> Tensor:
    """Return the weights (n_bands, n_bins) of bins in bands, which sum to one in each bin.

    The lowest bins are bands of their own; above, triangles overlap whose distance grows by the same factor from one to the next.
    """
    n_wide = n_bands - n_low
    factor = _growth(n_bins - n_low, n_wide)
    steps = torch.cat([torch.ones(n_low - 1), factor ** torch.arange(1, n_wide + 1)])
    centres = torch.cat([torch.zeros(1), steps.cumsum(0)]) / steps.sum() * (n_bins - 1)
    bins = torch.arange(n_bins, dtype=torch.float32)
    upper = torch.searchsorted(centres.contiguous(), bins).clamp(1, n_bands - 1)
    share = ((bins - centres[upper - 1]) / (centres[upper] - centres[upper - 1])).clamp(0, 1)
    shapes = torch.zeros(n_bands, n_bins)
    shapes[upper - 1, bins.long()] = 1 - share
    shapes[upper, bins.long()] += share
    return shapes


def _growth(total: float, n: int) -> float:
    """Return the factor of a geometric series without its first term 1 that sums to a total in n terms."""
    low, high = 1.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(middle**k for k in range(1, n + 1)) < total else (low, middle)
    return low
