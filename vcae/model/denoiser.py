"""The denoiser: a small causal network that estimates gains for the bands of a noisy spectrum."""

from __future__ import annotations

import math
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
SMALLEST_POWER = 1e-14
# Added to the compressed magnitude of a band before its logarithm: about 40 dB below the quietest speech of the training.
FEATURE_FLOOR = 0.01
# Level of a band in the frames before a recording.
START_LEVEL = -1.5
# Added to the mean magnitude of a frame when its spectrum is flattened.
SILENCE = 1e-3
# Frames that the first convolution combines.
CONTEXT = 3
# The gains of a finished denoiser are raised to this power: they are a little too low for recordings to be understood best.
GAIN_POWER = 0.8
# Its name in a file.
PART = "denoiser"


def compress_spectrum(spectrum: Tensor) -> Tensor:
    """Compress the magnitudes of a complex spectrum of any shape and keep its phases."""
    return spectrum * (magnitudes_of(spectrum) + FLOOR) ** (COMPRESSION - 1)


def magnitudes_of(spectrum: Tensor) -> Tensor:
    """Return the magnitudes of a complex spectrum of any shape, in a fraction of the time of `abs` on a CPU."""
    # The small number keeps the gradient of silence finite.
    return (torch.view_as_real(spectrum).square().sum(dim=-1) + SMALLEST_POWER).sqrt()


def expand_spectrum(spectrum: Tensor) -> Tensor:
    """Invert `compress_spectrum`, except for its floor."""
    return spectrum * spectrum.abs().clamp(min=1e-8) ** (1 / COMPRESSION - 1)


class Denoiser(nn.Module):
    """Denoiser: a gain for each band of the compressed spectrum, from convolutions over bands and GRUs over time.

    It is causal: it combines frames in GRUs, and with the levels of frames before. With these passed on, streaming equals offline.

    Shape:
        - wav: (B, N); output: (B, N)

    Source: gains of bands from GRUs, as in RNNoise (Valin, A hybrid DSP/deep learning approach to real-time full-band speech enhancement, 2018),
    here with single bins as the lowest bands, so that gaps between harmonics are filtered without a pitch filter; convolutions before and
    after them, as in DeepFilterNet (Schröter et al., 2022).
    """

    window: Tensor
    bands: Tensor
    means: Tensor
    lags: Tensor

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        n, width, c = config.n_bands, config.width, config.channels
        self.register_buffer("window", torch.hann_window(config.n_fft).sqrt(), persistent=False)
        bands = band_shapes(config)
        self.register_buffer("bands", bands, persistent=False)
        self.register_buffer("means", (bands / bands.sum(dim=1, keepdim=True)).T.contiguous(), persistent=False)
        self.register_buffer("lags", lag_shapes(config), persistent=False)
        # Two features of each band: its level relative to the frame's mean, and to its own mean over the last second.
        self.near = nn.Conv2d(2, c, (CONTEXT, 5), stride=(1, 2), padding=(0, 2))
        self.wide = nn.Conv2d(c, 2 * c, (1, 3), stride=(1, 2), padding=(0, 1))
        self.dense = nn.Linear(2 * c * (n // 4), width)
        self.direct = nn.Linear(n + 1 + config.n_lags, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.n_layers))
        self.layers = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(config.n_layers))
        self.out_norm = nn.LayerNorm(width)
        self.spread = nn.Linear(width, c * (n // 2))
        self.join = nn.Conv2d(2 * c, c, (1, 3), padding=(0, 1))
        self.output = nn.Conv2d(c, 2, (1, 3), padding=(0, 1))
        with torch.no_grad():
            # At first most of each band is let through.
            self.output.weight.mul_(0.3)
            assert self.output.bias is not None
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
        """Return the initial state: levels of the frames before (B, n_past + CONTEXT - 1, n_bands), and the state of every GRU."""
        c, device = self.config, self.window.device
        before = torch.full((n_batch, c.n_past + CONTEXT - 1, c.n_bands), START_LEVEL, device=device)
        return [before, *(torch.zeros(1, n_batch, c.width, device=device) for _ in range(c.n_layers))]

    def gains(self, magnitudes: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the gains of frames, what a teacher's state is predicted from, and the state after them.

        Args:
            magnitudes: (B, F, T) of the spectrum from `compress_spectrum`, with n_fft // 2 + 1 bins.
            memory: State returned by the previous call; None at the start of a recording.

        Returns:
            Gains (B, F, T), 0 to 1, the values (B, T, width) after each of the GRUs, and the state for the next call.
        """
        before, *states = self.start(len(magnitudes)) if memory is None else memory
        # The highest bin is not an input; it gets the gain of the one below.
        x, near, before = self.features(magnitudes[:, :-1].transpose(1, 2), before)
        x, after, kept = self.remember(x, states)
        gains = self.decode(x, near).transpose(1, 2)
        return torch.cat([gains, gains[:, -1:]], dim=1), after, [before, *kept]

    def decode(self, x: Tensor, near: Tensor) -> Tensor:
        """Return the gains (B, T, n_fft // 2) from the last state (B, T, width) and the output of the first convolution."""
        b, t = x.shape[:2]
        y = self.spread(self.out_norm(x)).view(b, t, self.config.channels, -1).transpose(1, 2)
        y = self.output(F.silu(self.join(torch.cat([y, near], dim=1))))
        # Each of half as many places has the gains of two bands.
        gains = torch.sigmoid(y.permute(0, 2, 3, 1).reshape(b, t, -1).float())
        return gains @ self.bands

    def features(self, magnitudes: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input of the GRUs (B, T, width), that of the decoder (B, channels, T, n_bands / 2), and the levels to keep."""
        n = self.config.n_past
        levels = torch.cat([before, (magnitudes @ self.means + FEATURE_FLOOR).log()], dim=1)
        # The mean over a frame and those before it.
        usual = F.avg_pool1d(levels.transpose(1, 2), n + 1, 1).transpose(1, 2)
        recent = levels[:, n:]
        loudness = recent.mean(dim=-1, keepdim=True)
        shape = recent - loudness
        near = F.silu(self.near(torch.stack([shape, recent - usual], dim=1)))
        wide = F.silu(self.wide(near)).permute(0, 2, 1, 3).flatten(2)
        flat = magnitudes / (magnitudes.mean(dim=-1, keepdim=True) + SILENCE) - 1
        now = slice(CONTEXT - 1, None)
        known = torch.cat([shape[:, now], loudness[:, now], flat @ self.lags], dim=-1)
        return F.silu(self.dense(wide) + self.direct(known)), near, levels[:, -(n + CONTEXT - 1) :]

    def remember(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return what the GRUs make of their input (B, T, width), the same after each of them, and their states."""
        after, kept = [], []
        for norm, layer, state in zip(self.norms, self.layers, states, strict=True):
            remembered, last = layer(norm(x), state)
            x = x + remembered
            after.append(x)
            kept.append(last)
        return x, after, kept

    def filter(self, spectrum: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the denoised spectrum (B, F, T), and the state after it; `memory` as of `gains`."""
        compressed = compress_spectrum(spectrum)
        gains, _, memory = self.gains(magnitudes_of(compressed), memory)
        return expand_spectrum(gains**GAIN_POWER * compressed), memory

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


def lag_shapes(config: DenoiserConfig) -> Tensor:
    """Return cosines (n_fft // 2, n_lags) of the lowest 3 kHz: harmonics of a voice are a peak at the lag of its period, 2 to 14 ms."""
    bins = torch.arange(config.n_fft // 2, dtype=torch.float32)[:, None]
    lags = torch.logspace(math.log10(0.002), math.log10(0.01375), config.n_lags) * config.sample_rate
    hz = bins * config.sample_rate / config.n_fft
    return torch.cos(2 * math.pi * bins * lags / config.n_fft) * torch.exp(-((hz / 3000) ** 2)) * (bins > 0) / 16


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
