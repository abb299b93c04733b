"""Settings of this recipe."""

from __future__ import annotations

from dataclasses import dataclass

from vcae.config import positive, require

PROBE_TASKS = ("verification", "identification", "sentences", "words", "matrix")


@dataclass(frozen=True)
class ProbeRecipe:
    """All settings of `recipes/probe`."""

    # CSV with the columns path, speaker, corpus, split and transcript.
    manifest: str
    # Speakers to tell apart; and those of which whitening and the scale of features are learned.
    split: str = "dev"
    train_split: str = "train"
    train_per_speaker: int = 8
    checkpoint: str = "default"
    # One with a discrete code; and more, whose content is probed beside, `ladder:16` being the shipped plain one of 16 numbers.
    discrete: str = "vq"
    others: tuple[str, ...] = ()
    # Resemblyzer as the ceiling, if it is installed.
    ceiling: bool = True
    tasks: tuple[str, ...] = PROBE_TASKS
    # Sentences that several speakers of these corpora read, and in how many of these prompts words are sought.
    corpora: tuple[str, ...] = ("cmu_arctic",)
    n_sentences: int = 20
    # So much of a sentence's beginning is heard, in seconds; all when 0, which is too easy to tell features apart.
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
