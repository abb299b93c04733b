"""Settings of this recipe."""

from __future__ import annotations

from dataclasses import dataclass

from vcae.config import at_least


@dataclass(frozen=True)
class UnitsRecipe:
    """Settings of `recipes/units`."""

    # CSV with the columns path, speaker, split, duration_s and transcript.
    manifest: str
    split: str = "dev"
    checkpoints: tuple[str, ...] = ("vq",)
    # K-means on plain features, trained on recordings of another split; number of training utterances, and number of codes of each.
    peers: tuple[str, ...] = ("mfcc", "mfcc-cmvn", "mel", "mel-cmn")
    train_split: str = "train"
    train_utterances: int = 1500
    codebook_size: int = 256
    # Most tokens of a phone (in a context) per speaker that are compared.
    abx_tokens: int = 10
    # Corpora with sentences that several speakers read; words are discriminated across speakers.
    words_corpora: tuple[str, ...] = ("cmu_arctic",)
    words_prompts: int = 150
    seed: int = 0
    output_dir: str = "out/units"

    def __post_init__(self) -> None:
        at_least(self, 2, "codebook_size")
        at_least(self, 2, "abx_tokens")
