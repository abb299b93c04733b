"""Settings of this recipe."""

from __future__ import annotations

from dataclasses import dataclass

from vcae.config import positive, require

PROBE_TASKS = ("verification", "identification", "sentences", "words", "matrix")


@dataclass(frozen=True)
class ProbeRecipe:
    """Settings of `recipes/probe`."""

    # CSV with the columns path, speaker, corpus, split and transcript.
    manifest: str
    # Split of the test speakers, and split of those from which whitening and the scale of features are learned.
    split: str = "dev"
    train_split: str = "train"
    train_per_speaker: int = 8
    checkpoint: str = "default"
    # A checkpoint with a discrete code; and others whose content is probed too, where `ladder:16` is the shipped plain one with 16 values.
    discrete: str = "vq-narrow"
    others: tuple[str, ...] = ()
    # Compare with Resemblyzer as an upper bound, if it is installed.
    ceiling: bool = True
    tasks: tuple[str, ...] = PROBE_TASKS
    # Corpora with sentences that several speakers read, number of sentences, and number of prompts from which words are taken.
    corpora: tuple[str, ...] = ("cmu_arctic",)
    n_sentences: int = 20
    # Seconds of each sentence that are used, from its beginning; all when 0, which is too easy to distinguish features.
    sentence_s: float = 1.0
    n_prompts: int = 300
    n_words: int = 20
    draws: int = 10
    bootstrap: int = 200
    seed: int = 0
    output_dir: str = "out/probe"

    def __post_init__(self) -> None:
        for task in self.tasks:
            require(task in PROBE_TASKS, f"tasks has {task!r}; allowed are {', '.join(PROBE_TASKS)}")
        positive(self, "train_per_speaker", "n_sentences", "n_prompts", "n_words", "draws", "bootstrap")
        require(
            self.sentence_s == 0 or self.sentence_s >= 0.3,
            f"sentence_s is {self.sentence_s}; allowed are 0 or 0.3 and more, in s",
        )
