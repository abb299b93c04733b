"""Settings of the steps of this recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from vcae.config import at_least, positive
from vcae.training.config import DecipherConfig, TextCriticConfig


@dataclass(frozen=True)
class TextRecipe:
    """Settings of all steps of `recipes/text`."""

    # CSV with the columns path, speaker, corpus, split and transcript, and the checkpoint whose latent is read.
    manifest: str = "manifest.csv"
    checkpoint: str = "default"
    # Corpora of the speech, and those whose transcripts are the text; no corpus may be both.
    speech_corpora: tuple[str, ...] = ("cmu_arctic", "librispeech")
    text_corpora: tuple[str, ...] = ("speechocean762",)
    # Public-domain books that are added to the text.
    books: tuple[str, ...] = ("bible", "plays")
    # Phones in a piece of the text, about; every tenth piece is kept to measure readability.
    piece_phones: int = 60
    # Speakers of the speech that are kept for the test, with those of the split dev.
    held_speakers: tuple[str, ...] = ("librispeech/19",)
    # Recordings of the speech to learn from, and to test with of each test set.
    n_recordings: int = 600
    n_tests: int = 20
    # Latents of the speech, phones of the text.
    speech: str = "cache/text/speech.safetensors"
    text: str = "cache/text/phones.safetensors"
    # Clusters of the latent, units a second, which the penalty on changes is chosen for, and the length of a step.
    n_clusters: int = 100
    units_a_second: float = 12.0
    step_s: float = 0.032
    # Recordings that the decipherment learns from, and that seeds are chosen by.
    n_part: int = 120
    # The critic gets every n-th piece of the text.
    text_share: int = 8
    decipher: DecipherConfig = field(default_factory=DecipherConfig)
    critic: TextCriticConfig = field(default_factory=TextCriticConfig)
    # Order of the n-gram model by which readability is measured, times that a word must be in the text to count, and recordings to say again.
    held_order: int = 5
    word_count: int = 20
    n_spoken: int = 6
    # Systems of the table.
    systems: tuple[str, ...] = ("paired", "oracle key", "no critic", "decipherment", "critic", "critic and REINFORCE")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    output_dir: str = "runs/text"

    def __post_init__(self) -> None:
        positive(self, "units_a_second", "step_s", "n_recordings", "n_tests", "n_part", "text_share", "word_count", "n_spoken")
        at_least(self, 2, "n_clusters")
        at_least(self, 1, "held_order")
