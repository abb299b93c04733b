"""The acoustic model: phones to durations, F0 and the content latent, which the decoder makes audible in any voice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vcae.config import from_dict, positive
from vcae.model.blocks import ConvNeXtStack
from vcae.model.prosody import MAX_RELATIVE
from vcae.model.transcriber import PHONES

PART = "acoustic"
# The symbols of a text: a pause, and ARPAbet's phones; the stress of a vowel is given besides.
PAUSE = "SIL"
SYMBOLS = (PAUSE, *PHONES)
# Kinds of stress: none (consonants and pauses), unstressed, primary, secondary.
N_STRESSES = 4
# Flags of a symbol's place in its word, added up.
WORD_START, WORD_END = 1, 2
# Bounds on a predicted duration in seconds.
MIN_DURATION_S, MAX_DURATION_S = 0.016, 0.8


@dataclass(frozen=True)
class AcousticConfig:
    """Settings of the acoustic model.

    Attributes:
        latent_dim: Numbers of the content latent in a step.
        step_s: Seconds of a step, in which there are two frames of F0.
        width, text_blocks, sound_blocks: Size of the network, in symbols and in steps.
        speakers: Names of the readers it learned from, whose manner of reading it can take.
    """

    latent_dim: int = 64
    step_s: float = 0.032
    width: int = 160
    text_blocks: int = 3
    sound_blocks: int = 4
    speakers: tuple[str, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        positive(self, "latent_dim", "step_s", "width", "text_blocks", "sound_blocks", where="acoustic")


@dataclass(frozen=True)
class Symbols:
    """Symbols of texts, all (B, P) int64.

    Attributes:
        symbol: Number in `SYMBOLS`.
        stress: 0 none, 1 unstressed, 2 primary, 3 secondary.
        place: Sum of `WORD_START` and `WORD_END`.
    """

    symbol: Tensor
    stress: Tensor
    place: Tensor


class AcousticModel(nn.Module):
    """Predict durations, F0 and content of a text.

    The duration of each symbol comes from the text alone; the content from the symbols, each spread over its duration.

    Shape:
        - symbols: (B, P); speaker: (B,) number of the reader; mask: (B, 1, P), 1.0 on valid symbols, or None
        - durations: (B, P) in seconds
        - latent: (B, latent_dim, T); voicing and relative log-F0: (B, 2 T), frames

    Source: Ren et al., FastSpeech 2: fast and high-quality end-to-end text to speech (2021), with the content latent in the mel's place.
    """

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.symbol, self.stress, self.place = (nn.Embedding(n, width) for n in (len(SYMBOLS), N_STRESSES, 4))
        self.reader = nn.Embedding(max(len(config.speakers), 1), width)
        self.text = ConvNeXtStack(width, config.text_blocks)
        self.duration = nn.Sequential(nn.Conv1d(width, width, 3, padding=1), nn.GELU(), nn.Conv1d(width, 1, 1))
        self.position = nn.Linear(4, width)
        self.sound = ConvNeXtStack(width, config.sound_blocks)
        self.norm = nn.LayerNorm(width)
        # Latent, voicing and F0 of two frames.
        self.output = nn.Linear(width, config.latent_dim + 4)

    def encode(self, symbols: Symbols, speaker: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return features (B, width, P) of the symbols."""
        x = self.symbol(symbols.symbol) + self.stress(symbols.stress) + self.place(symbols.place)
        x = (x + self.reader(speaker)[:, None]).transpose(1, 2)
        encoded: Tensor = self.text(x if mask is None else x * mask, mask)
        return encoded

    def log_durations(self, encoded: Tensor) -> Tensor:
        """Return the log of the expected durations in seconds (B, P)."""
        out: Tensor = self.duration(encoded)
        return out[:, 0]

    def forward(
        self, encoded: Tensor, durations: Tensor, speaker: Tensor, n_steps: int, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return latent (B, latent_dim, T), log odds of voicing (B, 2 T), and relative log-F0 (B, 2 T), of `n_steps` steps.

        Args:
            encoded: From `encode`.
            durations: (B, P) in seconds, 0 where there is no symbol.
            speaker: (B,).
            n_steps: T.
            mask: (B, 1, T), 1.0 on valid steps, or None.
        """
        share, features = spread(durations, n_steps, self.config.step_s)
        x = (share @ encoded.transpose(1, 2) + self.position(features) + self.reader(speaker)[:, None]).transpose(1, 2)
        x = self.sound(x if mask is None else x * mask, mask).transpose(1, 2)
        made = self.output(self.norm(x))
        latent, voicing, relative = made.split((self.config.latent_dim, 2, 2), dim=-1)
        return latent.transpose(1, 2), voicing.flatten(1), (MAX_RELATIVE * torch.tanh(relative)).flatten(1)


def spread(durations: Tensor, n_steps: int, step_s: float) -> tuple[Tensor, Tensor]:
    """Return the share of each symbol in each step (B, T, P), and where in its symbol and in the text each step's middle is (B, T, 4).

    Step t has the frames 2 t and 2 t + 1, centred on a quarter of a step before and after its middle.
    """
    ends = durations.cumsum(dim=1)
    starts = ends - durations
    middle = (torch.arange(n_steps, device=durations.device) + 0.25) * step_s
    low, high = (middle - step_s / 2)[None, :, None], (middle + step_s / 2)[None, :, None]
    share = (torch.minimum(high, ends[:, None]) - torch.maximum(low, starts[:, None])).clamp(min=0) / step_s
    inside = ((middle[None, :, None] >= starts[:, None]) & (middle[None, :, None] < ends[:, None])).float()
    of = ((middle[None, :, None] - starts[:, None]) / durations.clamp(min=1e-4)[:, None]).clamp(0, 1)
    place = (inside * of).sum(-1)
    log_duration = (inside * durations.clamp(min=1e-3).log()[:, None]).sum(-1)
    total = ends[:, -1:].clamp(min=step_s)
    left = ((total - middle[None]) / 1.0).clamp(0, 1)
    features = [torch.cos(torch.pi * place), torch.sin(torch.pi * place), log_duration, left]
    return share, torch.stack(features, dim=-1)


def acoustic_of(sizes: dict[str, Any]) -> AcousticModel:
    """Build an acoustic model from its config as plain data, as stored in a file."""
    return AcousticModel(from_dict(AcousticConfig, sizes, PART))
