"""The pronouncer: letters to phones with stress, for words that no dictionary has (grapheme-to-phoneme conversion)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vcae.config import from_dict, positive
from vcae.model.blocks import ConvNeXtStack
from vcae.model.transcriber import PHONES

PART = "pronouncer"
VOWELS = tuple(phone for phone in PHONES if phone[0] in "AEIOU")
# Phones with stress as the CMU dictionary writes it; the number of one is its place plus 1, and 0 is CTC's blank.
STRESSED_PHONES = tuple(
    name for phone in PHONES for name in ((f"{phone}0", f"{phone}1", f"{phone}2") if phone in VOWELS else (phone,))
)
# Letters of words; the number of one is its place plus 1, and 0 is padding.
WORD_LETTERS = "'abcdefghijklmnopqrstuvwxyz"
# Steps of the output for each letter: as many phones a letter may have (x in fox has two).
STEPS = 2


@dataclass(frozen=True)
class PronouncerConfig:
    """Settings of the pronouncer."""

    width: int = 96
    n_blocks: int = 3

    def __post_init__(self) -> None:
        positive(self, "width", "n_blocks", where=PART)


class Pronouncer(nn.Module):
    """Classify steps of a word, two for each letter, as phones, by connectionist temporal classification (CTC).

    Shape:
        - letters: (B, L) int64, numbers in `WORD_LETTERS` plus 1, 0 after the end
        - output: (B, 1 + phones, 2 L), log-probabilities, the blank first
    """

    def __init__(self, config: PronouncerConfig) -> None:
        super().__init__()
        self.config = config
        self.letter = nn.Embedding(1 + len(WORD_LETTERS), config.width)
        self.step = nn.Embedding(STEPS, config.width)
        self.blocks = ConvNeXtStack(config.width, config.n_blocks)
        self.output = nn.Conv1d(config.width, 1 + len(STRESSED_PHONES), 1)

    def forward(self, letters: Tensor) -> Tensor:
        mask = (letters > 0).float().repeat_interleave(STEPS, dim=1)[:, None]
        x = self.letter(letters).repeat_interleave(STEPS, dim=1) + self.step.weight.repeat(letters.shape[1], 1)
        phones: Tensor = self.output(self.blocks(x.transpose(1, 2) * mask, mask)).float().log_softmax(dim=1)
        return phones


def pronouncer_of(sizes: dict[str, Any]) -> Pronouncer:
    """Build a pronouncer from its config as plain data, as stored in a file."""
    return Pronouncer(from_dict(PronouncerConfig, sizes, PART))
