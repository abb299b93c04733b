"""Settings of this recipe's last step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vcae.config import positive, require, within


@dataclass(frozen=True)
class CodecReleaseRecipe:
    """What `recipes/codec/release.py` turns networks in training into."""

    networks: str
    output: str
    polish: str | None = None
    # How much of what the polish changes is kept: more sounds better, less keeps the voice and the words better.
    polish_strength: float = 1.0
    cache: str = "cache/train"
    # Of the speaker embedding.
    speaker_bytes: int = 32
    # Of what is left of the average spectrum.
    timbre_bytes: int = 16
    # Utterances that the average spectrum is looked at in.
    timbre_utterances: int = 250
    # Utterances that rates and phases are counted on.
    utterances: int = 60
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            min(self.speaker_bytes, self.timbre_bytes) >= 1 and self.speaker_bytes + self.timbre_bytes <= 64,
            f"speaker_bytes is {self.speaker_bytes} and timbre_bytes {self.timbre_bytes}; they must be at least 1, and 64 together at most",
        )
        positive(self, "utterances")
        within(self, 0, 1, "polish_strength")
