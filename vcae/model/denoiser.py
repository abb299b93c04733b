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
# Bins of a sub-band of the encoder, and bins between sub-bands.
KERNEL, STRIDE = 8, 4
# Its name in a file.
PART = "denoiser"


def compress_spectrum(spectrum: Tensor) -> Tensor:
    """Compress the magnitudes of a complex spectrum of any shape and keep its phases."""
    return spectrum * (spectrum.abs() + FLOOR) ** (COMPRESSION - 1)


def expand_spectrum(spectrum: Tensor) -> Tensor:
    """Invert `compress_spectrum`, except for its floor."""
    return spectrum * spectrum.abs().clamp(min=1e-8) ** (1 / COMPRESSION - 1)


class FrequencyConv(nn.Module):
    """Residual convolution of width 3 over the sub-bands of a frame, as one matrix product.

    Shape:
        - x: (M, F, C); output: (M, F, C)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(3 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(self.norm(x), (0, 0, 1, 1))
        return x + F.silu(self.linear(torch.cat([y[:, :-2], y[:, 1:-1], y[:, 2:]], dim=-1)))


class RecurrentBlock(nn.Module):
    """GRU over time with weights shared by all bands, then mixing of the bands of a frame with weights shared by all channels.

    Shape:
        - x: (B, T, F, C); memory: (1, B * F, C), the state of the GRU; output: the same two shapes

    Source: the RNNFormer block of FastEnhancer (Ahn et al., 2025), with its attention between bands replaced by the token mixing of MLP-Mixer
    (Tolstikhin et al., 2021), which trains several times faster on a CPU.
    """

    def __init__(self, channels: int, n_bands: int) -> None:
        super().__init__()
        self.time_norm = nn.LayerNorm(channels)
        self.memory = nn.GRU(channels, channels)
        self.time_out = nn.Linear(channels, channels)
        self.band_norm = nn.LayerNorm(channels)
        self.band_in = nn.Linear(n_bands, 2 * n_bands)
        self.band_out = nn.Linear(2 * n_bands, n_bands)
        self.channel_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        b, t, f, c = x.shape
        series = self.time_norm(x).transpose(0, 1).reshape(t, b * f, c)
        remembered, memory = self.memory(series, memory)
        x = x + self.time_out(remembered).view(t, b, f, c).transpose(0, 1)
        mixed = self.band_out(F.silu(self.band_in(self.band_norm(x).transpose(2, 3))))
        return x + self.channel_out(mixed.transpose(2, 3)), memory


class Denoiser(nn.Module):
    """Denoiser: a complex mask for each bin of the compressed spectrum.

    It is causal, as only the GRUs of `RecurrentBlock` combine frames: with their states passed on, streaming equals offline.

    Shape:
        - wav: (B, N); output: (B, N)

    Source: FastEnhancer (Ahn et al., 2025): strided convolution over bins, recurrence over time, mixing of bands; here with plain
    layer normalisation and convolutions as matrix products.
    """

    window: Tensor

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        c, width = config.channels, config.width
        # The highest bin is not an input of the network; it gets the mask of the one below.
        self.n_sub = (config.n_fft // 2) // STRIDE
        self.register_buffer("window", torch.hann_window(config.n_fft).sqrt(), persistent=False)
        self.input = nn.Linear(2 * KERNEL, c)
        self.encoder = nn.ModuleList(FrequencyConv(c) for _ in range(config.n_convs))
        self.narrow = nn.Linear(self.n_sub, config.n_bands, bias=False)
        self.widen_channels = nn.Linear(c, width)
        self.blocks = nn.ModuleList(RecurrentBlock(width, config.n_bands) for _ in range(config.n_blocks))
        self.norm = nn.LayerNorm(width)
        self.narrow_channels = nn.Linear(width, c)
        self.widen = nn.Linear(config.n_bands, self.n_sub, bias=False)
        self.join = nn.Linear(2 * c, c)
        self.decoder = nn.ModuleList(FrequencyConv(c) for _ in range(config.n_convs))
        self.out_norm = nn.LayerNorm(c)
        self.output = nn.Linear(c, 2 * KERNEL)
        with torch.no_grad():
            bands = _bands(self.n_sub, config.n_bands)
            self.narrow.weight.copy_(bands / bands.sum(dim=1, keepdim=True))
            self.widen.weight.copy_((bands / bands.sum(dim=0, keepdim=True)).T)
            # At first each bin is left as it is; two sub-bands overlap in each bin.
            self.output.weight.mul_(0.1)
            self.output.bias.zero_()[0::2] = 0.5

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
        """Return the initial state of every block."""
        c, device = self.config, self.window.device
        return [torch.zeros(1, n_batch * c.n_bands, c.width, device=device) for _ in range(c.n_blocks)]

    def masks(self, compressed: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the complex masks of frames, and the state after them.

        Args:
            compressed: (B, F, T) complex, from `compress_spectrum`.
            memory: State returned by the previous call; None at the start of a recording.

        Returns:
            Masks (B, F, T), complex, and the state of each block.
        """
        pairs, kept = self.mask_pairs(torch.view_as_real(compressed[:, :-1].transpose(1, 2)), memory)
        mask = torch.view_as_complex(pairs.contiguous()).transpose(1, 2)
        return torch.cat([mask, mask[:, -1:]], dim=1), kept

    def mask_pairs(self, bins: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Compute `masks` in real numbers: pairs of real and imaginary part (B, T, n_fft // 2, 2), without the highest bin."""
        b, t = bins.shape[:2]
        bins = bins.reshape(b * t, -1, 2)
        edge = (KERNEL - STRIDE) // 2
        groups = F.pad(bins, (0, 0, edge, edge)).reshape(b * t, self.n_sub + 1, STRIDE, 2)
        # Two groups of bins are a sub-band, and neighbours share one.
        patches = torch.cat([groups[:, :-1], groups[:, 1:]], dim=2).transpose(2, 3).reshape(b * t, self.n_sub, 2 * KERNEL)
        x = F.silu(self.input(patches))
        for conv in self.encoder:
            x = conv(x)
        y = self.widen_channels(self.narrow(x.transpose(1, 2)).transpose(1, 2)).view(b, t, self.config.n_bands, -1)
        kept = []
        for i, block in enumerate(self.blocks):
            y, after = block(y, None if memory is None else memory[i])
            kept.append(after)
        y = self.narrow_channels(self.norm(y)).flatten(0, 1)
        y = self.widen(y.transpose(1, 2)).transpose(1, 2)
        x = self.join(torch.cat([x, y], dim=-1))
        for conv in self.decoder:
            x = conv(x)
        said = self.output(self.out_norm(x)).float().view(b * t, self.n_sub, KERNEL // STRIDE, STRIDE, 2)
        # Overlap-add: the second half of a sub-band's bins overlaps the first half of the next one's.
        low, high = said[:, :, 0], said[:, :, 1]
        whole = F.pad(low, (0, 0, 0, 0, 0, 1)) + F.pad(high, (0, 0, 0, 0, 1, 0))
        whole = whole.reshape(b * t, -1, 2)[:, edge : edge + 2 * self.config.n_fft // 4]
        # The bins at both ends are in one sub-band only.
        return whole.reshape(b, t, -1, 2), kept

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


def _bands(n_sub: int, n_bands: int) -> Tensor:
    """Return overlapping triangular filters (n_bands, n_sub), narrow at low and wide at high frequencies."""
    # Half linear, half logarithmic: no band is narrower than a sub-band.
    at = torch.linspace(0, 1, n_bands)
    centres = (0.45 * at + 0.55 * (torch.exp(3.0 * at) - 1) / (torch.exp(torch.tensor(3.0)) - 1)) * (n_sub - 1)
    gaps = centres.diff().clamp(min=1.0)
    left, right = torch.cat([gaps[:1], gaps])[:, None], torch.cat([gaps, gaps[-1:]])[:, None]
    away = torch.arange(n_sub) - centres[:, None]
    return (1 + torch.where(away < 0, away / left, -away / right)).clamp(min=0.0) + 1e-3


def denoiser_of(sizes: dict[str, Any]) -> Denoiser:
    """Build a denoiser from its config as plain data, as stored in a file."""
    return Denoiser(from_dict(DenoiserConfig, sizes, PART))
