"""The denoising autoencoder: from a noisy spectrum to a filter that cleans it, and to the clean mel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vcae.audio.mel import LogMel
from vcae.config import from_dict
from vcae.model.blocks import KERNEL, ConvNeXtStack
from vcae.model.config import DenoiserConfig

# Magnitudes are raised to this power before the network and in its loss: quiet parts count as an ear counts them.
# Source: Ephrat et al., Looking to listen (2018).
COMPRESSION = 0.3
FLOOR = 1e-4
# Of log-mels, about, so that the network's numbers are near one.
MEL_DEVIATION = 2.5
# What it is called in a file.
PART = "denoiser"


@dataclass(frozen=True)
class DenoiserOutput:
    """What the network says of a signal.

    Attributes:
        spectrum: (B, F, T) complex, of the signal.
        filters: (B, taps, F, T) complex: what each bin of a frame takes of the frames around it.
        mel: (B, n_mels, T), natural log magnitude: the clean speech as the house's mel.
    """

    spectrum: Tensor
    filters: Tensor
    mel: Tensor


def compress_spectrum(spectrum: Tensor) -> Tensor:
    """Compress the magnitudes of a complex spectrum of any shape, and keep its phases."""
    return spectrum * (spectrum.abs() + FLOOR) ** (COMPRESSION - 1)


class Denoiser(nn.Module):
    """Look at a noisy spectrum and say what is speech in it, twice: as a filter of each bin over a few frames, and as a clean mel.

    Shape:
        - wav: (B, N); output: `DenoiserOutput`

    Source: filters over frames instead of a mask, Mack and Habets, Deep filtering (2020); the denoising autoencoder of the lecture notes.
    """

    window: Tensor

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.n_bins = config.n_fft // 2 + 1
        self.log_mel = LogMel(config.mel)
        self.register_buffer("window", torch.hann_window(config.n_fft).sqrt(), persistent=False)
        self.input = nn.Linear(3 * self.n_bins, config.width)
        self.stack = ConvNeXtStack(config.width, config.n_blocks)
        self.norm = nn.LayerNorm(config.width)
        self.filters = nn.Linear(config.width, 2 * config.taps * self.n_bins)
        self.mel = nn.Linear(config.width, config.mel.n_mels)
        # At first each bin and each band is left as it is.
        nn.init.zeros_(self.mel.weight)
        nn.init.zeros_(self.mel.bias)
        nn.init.normal_(self.filters.weight, std=0.002)
        with torch.no_grad():
            bias = self.filters.bias.view(config.taps, self.n_bins, 2).zero_()
            bias[config.taps // 2, :, 0] = 1.0

    @property
    def reach(self) -> int:
        """Frames to each side that a sample of the result depends on, those that its own frames overlap with among them."""
        overlap = -(-self.config.n_fft // self.config.mel.hop_length)
        return self.config.n_blocks * (KERNEL // 2) + self.config.taps // 2 + 2 * overlap

    def analyse(self, wav: Tensor) -> Tensor:
        """Return the spectrum (B, F, T) of a signal (B, N), in frames that lie where those of the mel lie."""
        c = self.config
        return torch.stft(wav, c.n_fft, c.mel.hop_length, window=self.window, pad_mode="constant", return_complex=True)

    def synthesise(self, spectrum: Tensor, n_samples: int) -> Tensor:
        """Return the signal (B, n_samples) of a spectrum (B, F, T)."""
        c = self.config
        return torch.istft(spectrum, c.n_fft, c.mel.hop_length, window=self.window, length=n_samples)

    def hear(self, spectrum: Tensor) -> Tensor:
        """Return what the network thinks of each frame of a spectrum (B, F, T): (B, T, width)."""
        with torch.autocast(spectrum.device.type, enabled=False):
            magnitude = spectrum.abs() + FLOOR
            squeezed = compress_spectrum(spectrum)
            seen = torch.cat([squeezed.real, squeezed.imag, (magnitude.log() - math.log(FLOOR)) / 5 - 1], dim=1)
        x = self.stack(self.input(seen.transpose(1, 2)).transpose(1, 2))
        thought: Tensor = self.norm(x.transpose(1, 2))
        return thought

    def filters_of(self, thought: Tensor) -> Tensor:
        """Return the filters (B, taps, F, T) that follow from what the network thinks (B, T, width)."""
        pairs = self.filters(thought).float().view(*thought.shape[:2], self.config.taps, self.n_bins, 2)
        filters: Tensor = torch.view_as_complex(pairs.permute(0, 2, 3, 1, 4).contiguous())
        return filters

    def mel_of(self, thought: Tensor, heard: Tensor) -> Tensor:
        """Return the clean log-mel (B, n_mels, T) that follows from it, beside the log-mel that is heard (B, n_mels, T)."""
        change: Tensor = self.mel(thought).float().transpose(1, 2)
        return heard + MEL_DEVIATION * change

    def forward(self, wav: Tensor) -> DenoiserOutput:
        with torch.no_grad(), torch.autocast(wav.device.type, enabled=False):
            spectrum, heard = self.analyse(wav), self.log_mel(wav)
        thought = self.hear(spectrum)
        return DenoiserOutput(spectrum, self.filters_of(thought), self.mel_of(thought, heard))

    def filter(self, spectrum: Tensor, filters: Tensor) -> Tensor:
        """Filter a spectrum (B, F, T) over time by (B, taps, F, T)."""
        side, n = self.config.taps // 2, spectrum.shape[-1]
        padded = nn.functional.pad(spectrum, (side, side))
        return sum((filters[:, k] * padded[..., k : k + n] for k in range(self.config.taps)), start=torch.zeros_like(spectrum))

    def clean(self, wav: Tensor) -> Tensor:
        """Return a signal (B, N) without its noise."""
        n, hop = wav.shape[-1], self.config.mel.hop_length
        # One frame more, so that the last samples lie under two windows as all others do.
        spectrum = self.analyse(nn.functional.pad(wav, (0, hop)))
        return self.synthesise(self.filter(spectrum, self.filters_of(self.hear(spectrum))), n + hop)[..., :n]

    def restore(self, wav: Tensor) -> Tensor:
        """Return the clean log-mel (B, n_mels, T) of a noisy signal (B, N)."""
        said: DenoiserOutput = self(wav)
        return said.mel


def denoiser_of(sizes: dict[str, Any]) -> Denoiser:
    """Build a denoiser from the plain data of its config, as a file holds them."""
    return Denoiser(from_dict(DenoiserConfig, sizes, PART))
