"""Settings of the steps of this recipe besides the training, whose are in `vcae/training/acoustic.py`."""

from __future__ import annotations

from dataclasses import dataclass, field

from vcae.config import at_least, positive
from vcae.model.pronouncer import PronouncerConfig


@dataclass(frozen=True)
class PrepareRecipe:
    """Settings of `recipes/say/prepare.py`."""

    # CSV with the columns path, speaker, corpus and transcript, the cache of its sound, and the checkpoint whose latent is learned.
    manifest: str = "manifest.csv"
    cache: str = "cache/train"
    checkpoint: str = "default"
    # Corpus and name of the readers to learn from.
    speakers: tuple[str, ...] = ()
    # Folder of what is written, a file for each reader.
    spoken: str = "cache/spoken"


@dataclass(frozen=True)
class PronunciationRecipe:
    """Settings of `recipes/say/pronunciations.py`."""

    model: PronouncerConfig = field(default_factory=PronouncerConfig)
    hold_out_every: int = 50
    n_epochs: float = 3.0
    batch_words: int = 128
    learning_rate: float = 4e-3
    seed: int = 0
    output_dir: str = "runs/say"

    def __post_init__(self) -> None:
        positive(self, "n_epochs", "batch_words", "learning_rate")
        at_least(self, 2, "hold_out_every")
