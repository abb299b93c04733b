"""Settings of this recipe."""

from __future__ import annotations

from dataclasses import dataclass

from vcae.config import at_least


@dataclass(frozen=True)
class UnitsRecipe:
    """All settings of `recipes/units`."""

    # CSV with the columns path, speaker, split, duration_s and transcript.
    manifest: str
    split: str = "dev"
    checkpoints: tuple[str, ...] = ("vq",)
    # k-means on plain features, learned on recordings of another split, and how many codes each has.
    peers: tuple[str, ...] = ("mfcc", "mfcc-cmvn", "mel", "mel-cmn")
    train_split: str = "train"
    train_utterances: int = 1500
    codebook_size: int = 256
    # At most so many tokens of a phone (in a context) of a speaker are compared.
    abx_tokens: int = 10
    # Sentences that several speakers of these corpora read; words are told apart across speakers.
    words_corpora: tuple[str, ...] = ("cmu_arctic",)
    words_prompts: int = 150
    seed: int = 0
    output_dir: str = "out/units"

    def __post_init__(self) -> None:
        at_least(self, 2, "codebook_size")
        at_least(self, 2, "abx_tokens")
