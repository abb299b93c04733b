"""Settings of the steps of this recipe besides the training, whose are in `vcae/training/config.py`."""

from __future__ import annotations

from dataclasses import dataclass

from vcae.config import at_least, within
from vcae.text.ctc import LANGUAGE_WEIGHT, WORD_SCORE


@dataclass(frozen=True)
class LabelRecipe:
    """Settings of `recipes/transcribe/label.py`."""

    manifest: str = "manifest.csv"
    # The recordings of this corpus's training split that have no transcript are read.
    corpus: str = "librispeech"
    # Every n-th of these readers is kept for the test.
    test_every: int = 16
    # Most recordings to read for training; all when 0.
    n_train: int = 0
    output: str = "cache/labelled.csv"


@dataclass(frozen=True)
class LexiconRecipe:
    """Settings of `recipes/transcribe/lexicon.py`."""

    n_words: int = 60000
    # Most pronunciations of a word.
    n_pronunciations: int = 2
    n_pairs: int = 300000
    output: str = "vcae/weights/words.safetensors"

    def __post_init__(self) -> None:
        # Words have numbers of 16 bits.
        within(self, 1, 65536, "n_words")
        at_least(self, 1, "n_pronunciations", "n_pairs")


@dataclass(frozen=True)
class TranscriberTestRecipe:
    """Settings of `recipes/transcribe/evaluate.py`."""

    # Transcribed latents of the splits `held` and `dev` of label.py's manifest.
    held: str = "cache/transcribed-held.safetensors"
    dev: str = "cache/transcribed-dev.safetensors"
    transcriber: str = "transcriber"
    lexicon: str = "words"
    # Largest number of recordings of each set.
    n_recordings: int = 80
    # Weights of the language model and of each word to be tried.
    language_weights: tuple[float, ...] = (LANGUAGE_WEIGHT,)
    word_scores: tuple[float, ...] = (WORD_SCORE,)
    output: str = "out/transcribe/results.json"
