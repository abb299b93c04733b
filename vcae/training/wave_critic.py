"""Discriminators of waveforms: they learn to distinguish recordings from what a vocoder makes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vcae.training.config import WaveCriticConfig

SLOPE = 0.1
# (channels in units of the width, kernel over bins and frames, stride) of each layer on spectrograms.
SPECTRUM_LAYERS = ((1, (7, 5), (2, 1)), (2, (5, 3), (2, 1)), (4, (5, 3), (2, 2)), (4, (3, 3), (2, 1)), (4, (3, 3), (1, 1)))
# Likewise on the samples of a period's place, with kernel and stride over periods.
PERIOD_LAYERS = ((1, 5, 3), (2, 5, 3), (4, 5, 3), (8, 5, 3), (8, 5, 1))
# Spectra are compressed to this power of their magnitude, so that weak high frequencies count, and scaled to a deviation of about 1; the power
# below the floor is not distinguished from 0. The scale of samples likewise.
COMPRESSION, FLOOR_POWER, SPECTRUM_SCALE, WAVE_SCALE = 0.3, 1e-8, 8.0, 15.0


class _Layers(nn.Module):
    """Convolutions with leaky ReLU, and a last one that gives the score. Returns the score and the outputs of all layers before it."""

    def __init__(self, layers: list[nn.Conv2d], output: nn.Conv2d) -> None:
        super().__init__()
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, SLOPE)
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.output = weight_norm(output)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        # On a GPU, convolutions in half precision are faster with the channels last.
        x, features = x.contiguous(memory_format=torch.channels_last), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return self.output(x), features


class SpectrumCritic(nn.Module):
    """Discriminator of compressed complex spectrograms of one resolution.

    Shape:
        - wav: (B, N)
        - score: (B, 1, groups of bins, groups of frames); features: outputs of every layer

    Source: complex spectrograms, Défossez et al., High Fidelity Neural Audio Compression (2022); several resolutions, Jang et al., UnivNet
    (2021). The magnitude and each bin's frequency are inputs as well.
    """

    window: Tensor
    place: Tensor

    def __init__(self, n_fft: int, width: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        layers, n = [], 4
        for times, kernel, stride in SPECTRUM_LAYERS:
            layers.append(nn.Conv2d(n, times * width, kernel, stride, (kernel[0] // 2, kernel[1] // 2)))
            n = times * width
        self.network = _Layers(layers, nn.Conv2d(n, 1, 3, padding=1))
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("place", torch.linspace(-1, 1, n_fft // 2 + 1)[None, None, :, None], persistent=False)

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast(wav.device.type, enabled=False):
            spectrum = torch.stft(
                wav.float(), self.n_fft, self.n_fft // 4, window=self.window, normalized=True, return_complex=True
            )
            parts = torch.view_as_real(spectrum).permute(0, 3, 1, 2)
            power = parts.square().sum(1, keepdim=True) + FLOOR_POWER
            compressed = SPECTRUM_SCALE * parts * power ** ((COMPRESSION - 1) / 2)
            place = self.place.expand(len(wav), -1, -1, power.shape[-1])
            x = torch.cat([compressed, SPECTRUM_SCALE * power ** (COMPRESSION / 2) - 1, place], dim=1)
        found: tuple[Tensor, list[Tensor]] = self.network(x)
        return found


class PeriodCritic(nn.Module):
    """Discriminator of every n-th sample.

    Shape:
        - wav: (B, N)
        - score: (B, 1, groups of periods, period); features: outputs of every layer

    Source: Kong et al., HiFi-GAN (2020).
    """

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        layers, n = [], 1
        for times, kernel, stride in PERIOD_LAYERS:
            layers.append(nn.Conv2d(n, times * width, (kernel, 1), (stride, 1), (kernel // 2, 0)))
            n = times * width
        self.network = _Layers(layers, nn.Conv2d(n, 1, (3, 1), padding=(1, 0)))

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        whole = wav[:, : wav.shape[-1] // self.period * self.period]
        found: tuple[Tensor, list[Tensor]] = self.network(WAVE_SCALE * whole.reshape(len(wav), 1, -1, self.period))
        return found


class WaveCritic(nn.Module):
    """Discriminators of several resolutions and periods.

    Shape:
        - wav: (B, N)
        - output: for each discriminator its score, target 1 for recordings and 0 for synthesised sound, and its features

    Source: least squares, Mao et al., Least Squares Generative Adversarial Networks (2017).
    """

    def __init__(self, config: WaveCriticConfig) -> None:
        super().__init__()
        self.critics = nn.ModuleList(
            [
                *(SpectrumCritic(n_fft, config.width) for n_fft in config.resolutions),
                *(PeriodCritic(period, config.period_width) for period in config.periods),
            ]
        )

    def forward(self, wav: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        return [critic(wav) for critic in self.critics]


def wave_critic_losses(critic: WaveCritic, real: Tensor, made: Tensor, n_unpaired: int = 0) -> dict[str, Tensor]:
    """Return the losses of the discriminators and those of the vocoder under them; one backward pass serves both.

    Args:
        critic: The discriminators.
        real: (B, N), recordings.
        made: (B, N), synthesised sound; all but the first `n_unpaired` are copies of the recordings.
        n_unpaired: Rows of `made` that say or sound like something else than those of `real`.

    Returns:
        `critic`: squared error of the discriminators, whose gradient reaches them only. `passing`: squared distance of the scores of
        `made` from a recording's; `features`: mean absolute distance of the features of copies, relative to the mean magnitude of those
        of recordings (Larsen et al., 2016; normalised as in Défossez et al., 2022). The gradients of these two reach the vocoder only.
    """
    n = len(real)
    seen = critic(torch.cat([real, made.detach()]))
    still = {name: parameter.detach() for name, parameter in critic.named_parameters()}
    judged = torch.func.functional_call(critic, still, (made,))
    learned, passing, features = [], [], []
    for (scores, found), (score, own) in zip(seen, judged, strict=True):
        learned.append((scores[:n].float() - 1).square().mean() + scores[n:].float().square().mean())
        passing.append((score.float() - 1).square().mean())
        for theirs, ours in zip(found, own, strict=True):
            wanted = theirs[n_unpaired:n].detach()
            features.append(((ours[n_unpaired:] - wanted).abs().mean() / wanted.abs().mean().clamp(min=1e-4)).float())
    return {name: torch.stack(x).mean() for name, x in (("critic", learned), ("passing", passing), ("features", features))}
