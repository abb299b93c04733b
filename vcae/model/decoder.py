"""The decoder: content, speaker and F0 back to a mel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vcae.audio.config import MelConfig
from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ
from vcae.audio.mel import mel_filterbank
from vcae.model.blocks import KERNEL, ConvNeXtStack
from vcae.model.config import DecoderConfig
from vcae.model.reference import Reference, ReferenceAttention, ReferenceEncoder

TEMPLATE_SIZE = 256


def harmonic_templates(mel: MelConfig, n: int = TEMPLATE_SIZE) -> Tensor:
    """Return the mel pattern of a steady pulse train at `n` log-spaced F0 values.

    Each harmonic has the shape of the Hann window's main lobe. Values are natural logs; each pattern has zero mean and is limited to
    3 nats below its maximum, so it shows the decoder where the harmonics are but not how loud they are.

    Returns:
        (n, n_mels), from `F0_MIN_HZ` to `F0_MAX_HZ`.
    """
    f0 = torch.logspace(math.log10(F0_MIN_HZ), math.log10(F0_MAX_HZ), n, dtype=torch.float64)
    width = mel.sample_rate / mel.win_length
    bins = torch.linspace(0, mel.sample_rate / 2, mel.n_fft // 2 + 1, dtype=torch.float64)
    # Distance of each bin to its nearest harmonic (from the first on), in units in which the main lobe extends 2 to each side.
    order = (bins / f0[:, None]).round().clamp(min=1)
    distance = ((bins - order * f0[:, None]) / width).abs().clamp(max=2)
    magnitude = 0.5 + 0.5 * torch.cos(math.pi * distance / 2)
    pattern = torch.log((magnitude @ mel_filterbank(mel).double().T).clamp(min=1e-5))
    pattern = torch.maximum(pattern, pattern.amax(dim=1, keepdim=True) - 3.0)
    return (pattern - pattern.mean(dim=1, keepdim=True)).float()


def log_f0_mean(f0: Tensor) -> Tensor:
    """Return the mean of log-F0 over voiced frames (B, 1) of F0 (B, T) in Hz, 0 where unvoiced; 0 without any."""
    voiced = (f0 > 0).float()
    log_f0 = torch.log(f0.clamp(min=1.0))
    return (log_f0 * voiced).sum(dim=-1, keepdim=True) / voiced.sum(dim=-1, keepdim=True).clamp(min=1)


class F0Features(nn.Module):
    """Describe F0 for the decoder: voicing, log-F0 relative to the speaker's mean, and positions of the harmonics.

    Shape:
        - f0: (B, T) in Hz, 0 where unvoiced
        - log_f0_mean: (B, 1), from `log_f0_mean`; of these frames when None
        - output: (B, 2 + n_mels, T)
    """

    templates: Tensor

    def __init__(self, mel: MelConfig) -> None:
        super().__init__()
        self.register_buffer("templates", harmonic_templates(mel), persistent=False)

    def forward(self, f0: Tensor, mean: Tensor | None = None) -> Tensor:
        # Gaps are filled only to keep the numbers finite: the results are used in voiced frames only.
        log_f0 = torch.log(torch.where(f0 > 0, f0, torch.full_like(f0, 150.0)))
        voiced = (f0 > 0).float()
        relative = log_f0 - (log_f0_mean(f0) if mean is None else mean)
        low, high = math.log(F0_MIN_HZ), math.log(F0_MAX_HZ)
        at = ((log_f0 - low) / (high - low) * (TEMPLATE_SIZE - 1)).clamp(0, TEMPLATE_SIZE - 1)
        floor = at.floor().clamp(max=TEMPLATE_SIZE - 2)
        share = (at - floor).unsqueeze(-1)
        index = floor.long()
        template = self.templates[index] * (1 - share) + self.templates[index + 1] * share
        template = template.transpose(1, 2) * voiced.unsqueeze(1)
        return torch.cat([voiced.unsqueeze(1), (relative * voiced).unsqueeze(1), template], dim=1)


class Decoder(nn.Module):
    """Decode the content latent into a normalised mel, in the voice of the speaker embedding and at the given F0.

    Shape:
        - latent: (B, latent_dim, ceil(T / stride))
        - speaker_embedding: (B, speaker_dim) or None for the plain autoencoder
        - f0: (B, T) in Hz, 0 where unvoiced; None when `use_f0` is off
        - mask: (B, 1, T) or None
        - f0_mean: (B, 1), mean log-F0 of the whole recording if `f0` is a section of it, or None
        - reference: attended to after the blocks listed in `attention`, or None to decode from the embedding only
        - gate: (B, 1, 1), scales the result of the attention, or None for 1
        - mel: (B, n_mels, T), normalised
    """

    def __init__(self, config: DecoderConfig, mel: MelConfig, latent_dim: int, stride: int, speaker_dim: int) -> None:
        super().__init__()
        self.stride = stride
        # Receptive field in frames to each side.
        self.reach = 2 + config.n_blocks * (KERNEL // 2)
        self.f0_features = F0Features(mel) if config.use_f0 else None
        n_f0 = 2 + mel.n_mels if config.use_f0 else 0
        self.input = nn.Conv1d(latent_dim + n_f0, config.width, 5, padding=2)
        self.stack = ConvNeXtStack(config.width, config.n_blocks, speaker_dim)
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, mel.n_mels)
        self.reference_encoder = (
            ReferenceEncoder(mel.n_mels, config.reference_width, config.reference_blocks, stride) if config.attention else None
        )
        self.attention = nn.ModuleDict(
            {str(n): ReferenceAttention(config.width, latent_dim, config.reference_width) for n in config.attention}
        )

    def forward(
        self,
        latent: Tensor,
        n: int,
        speaker_embedding: Tensor | None,
        f0: Tensor | None,
        mask: Tensor | None = None,
        f0_mean: Tensor | None = None,
        reference: Reference | None = None,
        gate: Tensor | None = None,
    ) -> Tensor:
        x = latent.repeat_interleave(self.stride, dim=-1)[..., :n]
        if self.f0_features is not None and f0 is not None:
            x = torch.cat([x, self.f0_features(f0, f0_mean)], dim=1)
        x = self.input(x if mask is None else x * mask).transpose(1, 2)
        frames = None if mask is None else mask.transpose(1, 2)
        for n, block in enumerate(self.stack.blocks, start=1):
            x = block(x, frames, speaker_embedding)
            if reference is not None and str(n) in self.attention:
                x = self.attention[str(n)](x, reference, gate)
        mel: Tensor = self.output(self.norm(x)).transpose(1, 2)
        return mel
