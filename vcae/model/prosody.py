"""Prosody predicted from units: the duration of each unit, and the F0 contour."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vcae.audio.config import MelConfig
from vcae.model.blocks import ConvNeXtStack
from vcae.model.config import ProsodyConfig

# Largest distance of log-F0 from its mean, in nats.
MAX_RELATIVE = 0.7


@dataclass(frozen=True)
class Contour:
    """F0 contour predicted from units, relative to a speaker's mean.

    Attributes:
        voicing: (B, T), log odds that a frame is voiced.
        relative_log_f0: (B, T), natural log of F0 over the utterance's mean.
    """

    voicing: Tensor
    relative_log_f0: Tensor


class Prosody(nn.Module):
    """Predict durations of collapsed units, and F0 of expanded ones.

    Source: the duration predictor of Ren et al., FastSpeech (2019); durations and F0 from discrete units as in Polyak et al., Speech
    resynthesis from discrete disentangled self-supervised representations (2021).
    """

    def __init__(self, config: ProsodyConfig, mel: MelConfig, latent_dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.duration_input = nn.Conv1d(latent_dim, config.width, 3, padding=1)
        self.duration_stack = ConvNeXtStack(config.width, max(config.n_blocks // 2, 1))
        self.duration_output = nn.Conv1d(config.width, 1, 1)
        self.contour_input = nn.Conv1d(latent_dim, config.width, 3, padding=1)
        self.contour_stack = ConvNeXtStack(config.width, config.n_blocks)
        self.contour_output = nn.Conv1d(config.width, 2, 1)

    def log_durations(self, content: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the log of the expected duration in code steps (B, U) of collapsed units' content (B, latent_dim, U); mask (B, 1, U)."""
        x = self.duration_input(content if mask is None else content * mask)
        out: Tensor = self.duration_output(self.duration_stack(x, mask))
        return out[:, 0]

    def contour(self, content: Tensor, n: int) -> Contour:
        """Return the F0 contour over n frames for content (B, latent_dim, ceil(n / stride))."""
        x = self.contour_input(content).repeat_interleave(self.stride, dim=-1)[..., :n]
        voicing, relative = self.contour_output(self.contour_stack(x)).unbind(1)
        return Contour(voicing, MAX_RELATIVE * torch.tanh(relative))
