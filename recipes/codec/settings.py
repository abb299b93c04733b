"""Settings of this recipe's last step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vcae.config import positive, require, within


@dataclass(frozen=True)
class CodecReleaseRecipe:
    """Settings of `recipes/codec/release.py`, which turns networks in training into a codec for use."""

    networks: str
    output: str
    polish: str | None = None
    # Strength of the polish: higher values sound more natural, lower ones preserve voice and words better.
    polish_strength: float = 1.0
    cache: str = "cache/train"
    # Size of the coded speaker embedding.
    speaker_bytes: int = 32
    # Size of the coded timbre (residual of the average spectrum).
    timbre_bytes: int = 16
    # Utterances from which the timbre is measured.
    timbre_utterances: int = 250
    # Utterances on which bit rates and statistics of phases are measured.
    utterances: int = 60
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            min(self.speaker_bytes, self.timbre_bytes) >= 1 and self.speaker_bytes + self.timbre_bytes <= 64,
            f"speaker_bytes is {self.speaker_bytes} and timbre_bytes {self.timbre_bytes}; they must be at least 1, and their sum at most 64",
        )
        positive(self, "utterances")
        within(self, 0, 1, "polish_strength")
