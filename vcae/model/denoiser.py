"""The denoiser: a small causal network that estimates complex masks for the frames of a noisy spectrum."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.config import from_dict
from vcae.model.config import DenoiserConfig

# Magnitudes are compressed by this power in the input of the network, where its masks are applied, and in its loss.
# Source: Ephrat et al., Looking to listen (2018).
COMPRESSION = 0.3
FLOOR = 1e-4
# Added to the compressed magnitude of a band before its logarithm: about 40 dB below the quietest speech of the training.
FEATURE_FLOOR = 0.02
# Its name in a file.
PART = "denoiser"


def compress_spectrum(spectrum: Tensor) -> Tensor:
    """Compress the magnitudes of a complex spectrum of any shape and keep its phases."""
    # Several times faster than `abs` on a CPU.
    magnitudes = torch.view_as_real(spectrum).square().sum(dim=-1).sqrt()
    return spectrum * (magnitudes + FLOOR) ** (COMPRESSION - 1)


def expand_spectrum(spectrum: Tensor) -> Tensor:
    """Invert `compress_spectrum`, except for its floor."""
    return spectrum * spectrum.abs().clamp(min=1e-8) ** (1 / COMPRESSION - 1)


class Denoiser(nn.Module):
    """Denoiser: a gain for each band of the compressed spectrum, from GRUs over time.

    It is causal, as only the GRUs combine frames: with their states passed on, streaming equals offline.

    Shape:
        - wav: (B, N); output: (B, N)

    Source: gains of bands from GRUs, as in RNNoise (Valin, A hybrid DSP/deep learning approach to real-time full-band speech enhancement, 2018);
    here the bands are single bins at low frequencies, so that gaps between harmonics are filtered without a pitch filter.
    """

    window: Tensor
    bands: Tensor

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        n, width = config.n_bands, config.width
        self.register_buffer("window", torch.hann_window(config.n_fft).sqrt(), persistent=False)
        self.register_buffer("bands", band_shapes(config), persistent=False)
        self.input = nn.Linear(n + 1, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.n_layers))
        self.layers = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(config.n_layers))
        self.out_norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, n)
        with torch.no_grad():
            # At first most of each band is let through.
            self.output.weight.mul_(0.3)
            self.output.bias.fill_(1.0)

    @property
    def latency(self) -> int:
        """Longest delay from input to output, in samples."""
        return self.config.n_fft

    def analyse(self, wav: Tensor) -> Tensor:
        """Return the spectrum (B, F, T) of a signal (B, N): a frame every hop, the first around the first sample."""
        c = self.config
        return torch.stft(wav, c.n_fft, c.hop_length, window=self.window, pad_mode="constant", return_complex=True)

    def synthesise(self, spectrum: Tensor, n_samples: int) -> Tensor:
        """Return the signal (B, n_samples) of a spectrum (B, F, T)."""
        hop = self.config.hop_length
        frames = torch.fft.irfft(spectrum.transpose(1, 2), self.config.n_fft) * self.window
        # Two windows overlap at each sample, and their squares sum to one.
        made = (frames[:, :-1, hop:] + frames[:, 1:, :hop]).flatten(1)
        return F.pad(made[:, :n_samples], (0, max(0, n_samples - made.shape[1])))

    def start(self, n_batch: int) -> list[Tensor]:
        """Return the initial state of every layer."""
        c, device = self.config, self.window.device
        return [torch.zeros(1, n_batch, c.width, device=device) for _ in range(c.n_layers)]

    def masks(self, compressed: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the complex masks of frames, and the state after them.

        Args:
            compressed: (B, F, T) complex, from `compress_spectrum`.
            memory: State returned by the previous call; None at the start of a recording.

        Returns:
            Masks (B, F, T), complex, and the state of each layer.
        """
        pairs, kept = self.mask_pairs(torch.view_as_real(compressed[:, :-1].transpose(1, 2)), memory)
        mask = torch.view_as_complex(pairs.contiguous()).transpose(1, 2)
        return torch.cat([mask, mask[:, -1:]], dim=1), kept

    def mask_pairs(self, bins: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Compute `masks` in real numbers: pairs of real and imaginary part (B, T, n_fft // 2, 2), without the highest bin."""
        gains, kept = self.gains((bins.square().sum(dim=-1) + 1e-12).sqrt(), memory)
        return torch.stack([gains, torch.zeros_like(gains)], dim=-1), kept

    def gains(self, magnitudes: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the gains (B, T, n_fft // 2), 0 to 1, of compressed magnitudes of the same shape, and the state of each layer."""
        levels = (magnitudes @ (self.bands / self.bands.sum(dim=1, keepdim=True)).T + FEATURE_FLOOR).log()
        mean = levels.mean(dim=-1, keepdim=True)
        x = F.silu(self.input(torch.cat([levels - mean, mean], dim=-1)))
        kept = []
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            remembered, after = layer(norm(x), None if memory is None else memory[i])
            x = x + remembered
            kept.append(after)
        return torch.sigmoid(self.output(self.out_norm(x)).float()) @ self.bands, kept

    def filter(self, spectrum: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the denoised spectrum (B, F, T), and the state after it; arguments as of `masks`."""
        compressed = compress_spectrum(spectrum)
        masks, memory = self.masks(compressed, memory)
        return expand_spectrum(masks * compressed), memory

    def forward(self, wav: Tensor) -> Tensor:
        n, hop = wav.shape[-1], self.config.hop_length
        # One more frame, so that two windows overlap at the last samples too.
        spectrum = self.analyse(F.pad(wav, (0, hop)))
        return self.synthesise(self.filter(spectrum)[0], n + hop)[..., :n]


def band_shapes(config: DenoiserConfig) -> Tensor:
    """Return the weights (n_bands, n_fft // 2) of bins in bands, which sum to one in each bin.

    The lowest bins are bands of their own; above, triangles overlap whose distance grows by the same factor from one to the next.
    """
    n_bins, n_low, n_wide = config.n_fft // 2, config.n_low, config.n_bands - config.n_low
    factor = _growth(n_bins - n_low, n_wide)
    steps = torch.cat([torch.ones(n_low - 1), factor ** torch.arange(1, n_wide + 1)])
    centres = torch.cat([torch.zeros(1), steps.cumsum(0)]) / steps.sum() * (n_bins - 1)
    bins = torch.arange(n_bins, dtype=torch.float32)
    upper = torch.searchsorted(centres.contiguous(), bins).clamp(1, config.n_bands - 1)
    share = ((bins - centres[upper - 1]) / (centres[upper] - centres[upper - 1])).clamp(0, 1)
    shapes = torch.zeros(config.n_bands, n_bins)
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


def denoiser_of(sizes: dict[str, Any]) -> Denoiser:
    """Build a denoiser from its config as plain data, as stored in a file."""
    return Denoiser(from_dict(DenoiserConfig, sizes, PART))
