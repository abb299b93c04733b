"""Settings of the steps of this recipe besides the training, whose are in `vcae/training/acoustic.py`."""

from __future__ import annotations

from dataclasses import dataclass


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
