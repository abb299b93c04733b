"""Reconstruction networks: small networks that predict a normalised mel from itself or from a part of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vcae.anomaly.config import AnomalyConfig
from vcae.model.blocks import ConvNeXtStack

NETWORKS = ("frames", "interpolation", "denoising", "convolutional")
# Denoising autoencoder: standard deviation of the noise on a normalised mel, and fraction of frames and of bands that are hidden.
NOISE, HIDDEN = 0.5, 0.15


class FrameNet(nn.Module):
    """Autoencoder of a few stacked frames; with `hide_centre` it predicts the centre frame from the others.

    Shape:
        - windows: (B, n_mels, context)
        - output: (B, n_mels, context), or (B, n_mels, 1) with hide_centre; code (B, code)

    Source: Koizumi et al., DCASE 2020 task 2 (2020); Suefusa et al., Anomalous Sound Detection Based on Interpolation Deep
    Neural Network (2020).
    """

    def __init__(self, n_mels: int, context: int, width: int, code: int, hide_centre: bool, noisy: bool = False) -> None:
        super().__init__()
        self.context, self.hide_centre, self.noisy, self.n_mels = context, hide_centre, noisy, n_mels
        seen = context - 1 if hide_centre else context
        self.encoder = nn.Sequential(
            *(nn.Linear(n_mels * seen, width), nn.LayerNorm(width), nn.GELU()),
            *(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()),
            nn.Linear(width, code),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(code, width), nn.LayerNorm(width), nn.GELU()),
            *(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()),
            nn.Linear(width, n_mels * (1 if hide_centre else context)),
        )

    def target(self, windows: Tensor) -> Tensor:
        """Return the part of the windows that is predicted."""
        centre = self.context // 2
        return windows[:, :, centre : centre + 1] if self.hide_centre else windows

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        if self.hide_centre:
            centre = self.context // 2
            windows = torch.cat([windows[:, :, :centre], windows[:, :, centre + 1 :]], dim=2)
        elif self.noisy and self.training:
            windows = windows + NOISE * torch.randn_like(windows)
            windows = windows * (torch.rand(len(windows), 1, windows.shape[2]) > HIDDEN)
            windows = windows * (torch.rand(len(windows), windows.shape[1], 1) > HIDDEN)
        code = self.encoder(windows.flatten(1))
        return self.decoder(code).unflatten(1, (self.n_mels, -1)), code


class ConvNet(nn.Module):
    """Autoencoder of ConvNeXt blocks over time, with a narrow code at half the frame rate.

    Shape:
        - windows: (B, n_mels, T); output: (B, n_mels, T); code (B, code, T // 2)
    """

    def __init__(self, n_mels: int, width: int, code: int, n_blocks: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(n_mels, width, 1)
        self.encoder = ConvNeXtStack(width, n_blocks)
        self.neck = nn.Conv1d(width, code, 2, stride=2)
        self.open = nn.ConvTranspose1d(code, width, 2, stride=2)
        self.decoder = ConvNeXtStack(width, n_blocks)
        self.leave = nn.Conv1d(width, n_mels, 1)

    def target(self, windows: Tensor) -> Tensor:
        """Return the part of the windows that is predicted: all."""
        return windows

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        n = windows.shape[2]
        padded = windows if n % 2 == 0 else torch.cat([windows, windows[:, :, -1:]], dim=2)
        code = self.neck(self.encoder(self.enter(padded)))
        return self.leave(self.decoder(self.open(code)))[:, :, :n], code


Network = FrameNet | ConvNet


def make_network(kind: str, config: AnomalyConfig) -> Network:
    """Build the untrained network of a kind."""
    n_mels = config.mel.n_mels
    if kind == "convolutional":
        # Half the width, as its blocks are three times as wide inside and run on every frame.
        return ConvNet(n_mels, max(1, config.width // 2), config.code, config.n_blocks)
    return FrameNet(n_mels, config.context, config.width, config.code, kind == "interpolation", kind == "denoising")


def window_length(kind: str, config: AnomalyConfig) -> int:
    """Return the number of frames of a training window."""
    return config.crop if kind == "convolutional" else config.context


def reconstruct(net: Network, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run a network over a whole normalised mel.

    Args:
        net: In evaluation mode.
        mel: (n_mels, T), normalised.

    Returns:
        Reconstruction (n_mels, T) and squared errors (n_mels, T), both averaged over all windows with a frame; code (D, T').
    """
    if isinstance(net, ConvNet):
        out, code = net(mel[None])
        return out[0], (out[0] - mel).square(), code[0]
    half = net.context // 2
    n = mel.shape[1]
    padded = torch.cat([mel[:, :1].expand(-1, half), mel, mel[:, -1:].expand(-1, half)], dim=1)
    windows = padded.unfold(1, net.context, 1).transpose(0, 1)
    out, code = net(windows)
    if net.hide_centre:
        made = out[:, :, 0].T
        return made, (made - mel).square(), code.T
    made, errors, count = torch.zeros_like(mel), torch.zeros_like(mel), torch.zeros(n)
    for k in range(net.context):
        # Position k of window t is frame t + k - half.
        first, last = max(0, half - k), min(n, n + half - k)
        at = slice(first + k - half, last + k - half)
        piece = out[first:last, :, k].T
        made[:, at] += piece
        errors[:, at] += (piece - mel[:, at]).square()
        count[at] += 1
    return made / count, errors / count, code.T
