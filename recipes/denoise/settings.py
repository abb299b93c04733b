"""Settings of the steps of this recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vcae.config import at_least, require, within
from vcae.options import DENOISE_STRENGTH
from vcae.training.config import DataConfig, NoisingConfig


@dataclass(frozen=True)
class NoiseBankRecipe:
    """Settings of `recipes/denoise/prepare.py`."""

    # CSV with the columns path, class and fold.
    sounds: str
    # Further such tables.
    more_sounds: tuple[str, ...] = ()
    output: str = "cache/noise.safetensors"
    # Folds kept for the test.
    held_out: tuple[int, ...] = (5,)
    n_rooms: int = 600
    # A bank made before, whose rooms are used instead of simulating some.
    rooms: str | None = None
    # Synthetic noises, and the seconds of each.
    n_made: int = 2000
    made_s: float = 8.0
    # Processes that read and make noises.
    workers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "n_rooms", "n_made", "workers")
        require(self.made_s >= 1, f"made_s is {self.made_s}; at least 1 second is needed")


@dataclass(frozen=True)
class TeachRecipe:
    """Settings of `recipes/denoise/teach.py`."""

    noising: NoisingConfig = field(default_factory=NoisingConfig)
    # Its batches are the recordings of a shard.
    data: DataConfig = field(default_factory=DataConfig)
    output_dir: str = "cache/taught"
    n_shards: int = 410
    # Numbers of a frame that are kept of the teacher's state: its principal components.
    n_features: int = 96
    workers: int = 2
    seed: int = 1000

    def __post_init__(self) -> None:
        at_least(self, 1, "n_shards", "n_features", "workers")


@dataclass(frozen=True)
class DenoiseTestRecipe:
    """Settings of `recipes/denoise/evaluate.py` and `convert.py`."""

    # CSV with the columns path, speaker, split, duration_s and, for words, transcript.
    manifest: str
    # CSV with the columns path, class and fold; of it, the folds held out from training.
    sounds: str
    folds: tuple[int, ...] = (5,)
    # CSV with the column path: recorded noises of kinds that are not in the training data.
    machines: str | None = None
    split: str = "dev"
    # Clips of each speaker, and the clips left out before them.
    per_speaker: int = 2
    skip: int = 0
    min_s: float = 2.0
    max_s: float = 8.0
    snrs_db: tuple[float, ...] = (-5.0, 0.0, 5.0, 10.0, 20.0)
    systems: tuple[str, ...] = ("ours", "rnnoise", "deepfilternet", "noisereduce")
    # Systems that ran elsewhere: name, and the folder of their outputs, called like the files of OUTPUT_DIR/noisy.
    folders: Mapping[str, str] = field(default_factory=dict)
    # Conditions without noise: clean, and each kind of degradation.
    others: tuple[str, ...] = ("clean", "room", "telephone", "opus")
    denoiser: str = "denoiser"
    # Strength of `ours`, 0 to 1.
    strength: float = DENOISE_STRENGTH
    output_dir: str = "out/denoise"
    # Judges of `vcae evaluate`.
    judges: tuple[str, ...] = ("whisper", "distillmos", "pesq", "stoi", "dnsmos")
    # Judge the outputs (extra `eval`); otherwise they are only written and listed.
    judge: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "per_speaker")
        at_least(self, 0, "skip")
        within(self, 0, 1, "strength")
        require(0 < self.min_s < self.max_s, f"min_s is {self.min_s} and max_s {self.max_s}; 0 < min_s < max_s is needed")
