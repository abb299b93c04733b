"""The transcriber: phones and letters from the content latent, by connectionist temporal classification (CTC)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vcae.config import from_dict
from vcae.model.blocks import ConvNeXtStack
from vcae.model.config import TranscriberConfig

PART = "transcriber"
# Kernel of the first convolution.
INPUT_KERNEL = 5
# Symbols of each kind; the number of a symbol is its place here plus 1, and 0 is CTC's blank. Phones are ARPAbet without stress.
PHONES = tuple(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()  # noqa: SIM905
)
LETTERS = tuple(" 'abcdefghijklmnopqrstuvwxyz")


class Transcriber(nn.Module):
    """Classify each step of the content latent as a phone and as a letter.

    Shape:
        - latent: (B, latent_dim, T), the steps of the content encoder
        - mask: (B, 1, T), 1.0 on valid steps, or None
        - output: log-probabilities of phones (B, 1 + 39, T) and of letters (B, 1 + 28, T), the blank first

    Source: Graves et al., Connectionist temporal classification: labelling unsegmented sequence data with recurrent neural networks (2006).
    """

    def __init__(self, config: TranscriberConfig) -> None:
        super().__init__()
        self.config = config
        self.input = nn.Conv1d(config.latent_dim, config.width, INPUT_KERNEL, padding=INPUT_KERNEL // 2)
        self.blocks = ConvNeXtStack(config.width, config.n_blocks)
        self.phones = nn.Conv1d(config.width, 1 + len(PHONES), 1)
        self.letters = nn.Conv1d(config.width, 1 + len(LETTERS), 1)

    @property
    def reach(self) -> int:
        """Receptive field of an output step, in steps to each side."""
        return INPUT_KERNEL // 2 + self.blocks.reach

    def forward(self, latent: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.blocks(self.input(latent if mask is None else latent * mask), mask)
        phones: Tensor = self.phones(x).float().log_softmax(dim=1)
        letters: Tensor = self.letters(x).float().log_softmax(dim=1)
        return phones, letters


def transcriber_of(sizes: dict[str, Any]) -> Transcriber:
    """Build a transcriber from its config as plain data, as stored in a file."""
    return Transcriber(from_dict(TranscriberConfig, sizes, PART))
