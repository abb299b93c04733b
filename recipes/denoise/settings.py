"""Settings of this recipe's steps."""

from __future__ import annotations

from dataclasses import dataclass

from vcae.config import at_least, require


@dataclass(frozen=True)
class NoiseBankRecipe:
    """What `recipes/denoise/prepare.py` makes the noises and rooms of."""

    # CSV with the columns path, class and fold.
    sounds: str
    output: str = "cache/noise.safetensors"
    # Folds that are kept for the test.
    held_out: tuple[int, ...] = (5,)
    n_rooms: int = 600
    # Noises that are made, and the seconds of each.
    n_made: int = 2000
    made_s: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "n_rooms", "n_made")
        require(self.made_s >= 1, f"made_s is {self.made_s}; at least 1 second is needed")


@dataclass(frozen=True)
class DenoiseTestRecipe:
    """What `recipes/denoise/evaluate.py` measures."""

    # CSV with the columns path, speaker, split and duration_s.
    manifest: str
    # CSV with the columns path, class and fold; of it, the folds that the training held out.
    sounds: str
    folds: tuple[int, ...] = (5,)
    # CSV with the column path: noises of a kind that the training has nothing of.
    machines: str | None = None
    split: str = "dev"
    per_speaker: int = 2
    min_s: float = 2.0
    max_s: float = 8.0
    snrs_db: tuple[float, ...] = (0.0, 5.0, 10.0)
    systems: tuple[str, ...] = ("ours", "noisereduce", "noisereduce-stationary", "rnnoise")
    # Conditions without noise: clean, and each kind of damage.
    others: tuple[str, ...] = ("clean", "room", "telephone", "opus")
    denoiser: str = "denoiser"
    output_dir: str = "out/denoise"
    # Have what was made judged (extra `eval`); otherwise it is written and listed alone.
    judge: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "per_speaker")
        require(0 < self.min_s < self.max_s, f"min_s is {self.min_s} and max_s {self.max_s}; 0 < min_s < max_s is needed")
