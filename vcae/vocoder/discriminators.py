"""Discriminators: networks that tell recordings from what the vocoder made of their mels. Used in training only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.audio.mel import LogMel
from vcae.config import DiscriminatorConfig, MelConfig

RESOLUTIONS = ((512, 128), (1024, 256), (256, 64))
PERIODS = (2, 3, 5, 7, 11)


class _Convolutions(nn.Module):
    """A stack of 2-D convolutions; returns every layer's output, the last one the judgement."""

    def __init__(self, width: int, kernels: list[tuple[int, int]], strides: list[tuple[int, int]], channels: list[int]) -> None:
        super().__init__()
        sizes = [1, *(width * c for c in channels)]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, k, s, (k[0] // 2, k[1] // 2))
            for a, b, k, s in zip(sizes[:-1], sizes[1:], kernels, strides, strict=True)
        )
        self.output = nn.Conv2d(sizes[-1], 1, (3, 1), 1, (1, 0))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            found.append(x)
        return [*found, self.output(x)]


class Discriminator(nn.Module):
    """All the discriminators that a config asks for, with their least-squares and feature-matching losses.

    Shape:
        - predicted, target: (B, N); output: a dict of scalars: `discriminator` trains these networks alone, `adversarial` and
          `features` train the vocoder alone

    Source: multi-period, Kong et al., HiFi-GAN (2020); multi-resolution, Jang et al., UnivNet (2021); least squares, Mao et al. (2017).
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.spectra = nn.ModuleList()
        self.parts = nn.ModuleList()
        self.kinds: list[tuple[str, int]] = []
        if config.resolution_width:
            for n_fft, hop in RESOLUTIONS:
                self.kinds.append(("resolution", len(self.spectra)))
                self.spectra.append(LogMel(MelConfig(16000, n_fft, n_fft, hop, 20)))
                kernels, strides = [(9, 3), (5, 3), (5, 3), (3, 3)], [(4, 1), (2, 1), (2, 2), (2, 1)]
                self.parts.append(_Convolutions(config.resolution_width, kernels, strides, [1, 1, 2, 2]))
        if config.period_width:
            for period in PERIODS:
                self.kinds.append(("period", period))
                kernels, strides = [(5, 1)] * 4 + [(3, 1)], [(3, 1)] * 4 + [(1, 1)]
                self.parts.append(_Convolutions(config.period_width, kernels, strides, [1, 2, 4, 8, 8]))
        if config.patch_width:
            self.kinds.append(("patch", len(self.spectra)))
            self.spectra.append(LogMel(MelConfig()))
            kernels, strides = [(5, 5), (5, 5), (3, 3)], [(2, 1), (2, 2), (2, 1)]
            self.parts.append(_Convolutions(config.patch_width, kernels, strides, [1, 2, 4]))

    def _judge(self, wav: Tensor) -> list[list[Tensor]]:
        found = []
        for (kind, which), part in zip(self.kinds, self.parts, strict=True):
            if kind == "period":
                x = F.pad(wav, (0, -wav.shape[-1] % which), "reflect").unflatten(-1, (-1, which))
                found.append(part(4 * x.unsqueeze(1)))
                continue
            spectrum = self.spectra[which]
            assert isinstance(spectrum, LogMel)
            with torch.autocast(wav.device.type, enabled=False):
                seen = spectrum.spectrum(wav).abs()
                seen = torch.log(seen.clamp(min=1e-3)) if kind == "resolution" else spectrum.compress(seen).clamp(min=-9)
            found.append(part((0.3 * seen + 0.5).unsqueeze(1)))
        return found

    def forward(self, predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
        real, fake = self._judge(target), self._judge(predicted.detach())
        zero = predicted.new_zeros(())
        discriminator = sum(
            ((1 - r[-1].float()).square().mean() + f[-1].float().square().mean() for r, f in zip(real, fake, strict=True)),
            start=zero,
        )
        # The vocoder's losses must not train the discriminators.
        self.requires_grad_(False)
        judged = self._judge(predicted)
        self.requires_grad_(True)
        adversarial = sum(((1 - j[-1].float()).square().mean() for j in judged), start=zero)
        features = [
            (a.float() - b.float().detach()).abs().mean()
            for j, r in zip(judged, real, strict=True)
            for a, b in zip(j[:-1], r[:-1], strict=True)
        ]
        n = len(self.parts)
        return {"discriminator": discriminator / n, "adversarial": adversarial / n, "features": torch.stack(features).mean()}
