"""Settings of this recipe's steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from vcae.anomaly.config import ANOMALY_MODELS, AnomalyConfig, OpenSetConfig
from vcae.config import at_least, positive, require, within


@dataclass(frozen=True)
class OthersRecipe:
    """Settings of `recipes/anomaly/others.py`, which makes the bank of other sounds."""

    # CSV with the columns path, speaker, split and duration_s.
    speech: str | None = None
    speech_split: str = "train"
    n_speech: int = 300
    n_synthetic: int = 600
    seconds: float = 5.0
    seed: int = 0
    output: str = "vcae/anomaly/others.safetensors"

    def __post_init__(self) -> None:
        require(
            self.n_speech >= 0 and self.n_synthetic >= 0 and self.n_speech + self.n_synthetic >= 2,
            f"n_speech is {self.n_speech} and n_synthetic {self.n_synthetic}; at least 2 sounds are needed in all",
        )
        within(self, 1, 60, "seconds")


@dataclass(frozen=True)
class FaultsRecipe:
    """Settings of `recipes/anomaly/learn_faults.py`, which trains the network that detects faults in speech."""

    # CSV with the columns path, split and duration_s.
    speech: str | None = None
    speech_split: str = "train"
    # Recordings to put faults into.
    n_speech: int = 2000
    crop_s: float = 3.0
    # Largest number of faults in a crop.
    most_faults: int = 3
    max_steps: int = 2200
    batch_size: int = 12
    learning_rate: float = 2e-3
    # Weight of a faulty frame in the loss, relative to a clean one.
    fault_weight: float = 3.0
    seed: int = 0
    output: str = "vcae/anomaly/faults.safetensors"

    def __post_init__(self) -> None:
        positive(self, "n_speech", "max_steps", "batch_size")
        at_least(self, 2, "crop_s")
        within(self, 0, 6, "most_faults")
        positive(self, "learning_rate", "fault_weight")


ANOMALY_TASKS = ("machines", "sounds", "faults", "pollution", "thresholds", "openset")


@dataclass(frozen=True)
class AnomalyRecipe:
    """Settings of `recipes/anomaly`. Tasks whose manifest is null are skipped."""

    # CSV with the columns path and label (`machine;normal` or `machine;abnormal`).
    machines: str | None = None
    # CSV with the columns path, class and fold.
    sounds: str | None = None
    # CSV with the columns path, speaker and split.
    speech: str | None = None
    tasks: tuple[str, ...] = ANOMALY_TASKS
    # Settings of all systems of this project; a system is the name of one of its models.
    model: AnomalyConfig = field(default_factory=AnomalyConfig)
    systems: tuple[str, ...] = ("combined", *ANOMALY_MODELS[:-1])
    peers: tuple[str, ...] = (
        "isolation-forest",
        "one-class-svm",
        "gaussian-mixture",
        "pyod-autoencoder",
        "isolation-forest-windows",
        "one-class-svm-windows",
        "gaussian-mixture-windows",
        "pyod-autoencoder-windows",
        "dcase-autoencoder",
    )
    # Epochs of the DCASE baseline, which was published with 100.
    baseline_epochs: int = 100
    # Cross-validation folds of a machine's normal clips.
    machine_folds: int = 5
    # Folds that are tested and classes that are the normal one in turn; all of them when empty.
    sound_folds: tuple[int, ...] = ()
    sound_classes: tuple[str, ...] = ()
    # Clips of each other class that are tested as anomalies, per fold.
    sound_others: int = 8
    speech_split: str = "dev"
    fault_train: int = 60
    fault_test: int = 20
    # Fractions of anomalies among the training recordings, and the kinds of fit.
    pollution: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2)
    robust: tuple[str, ...] = ("none", "trimmed", "rejection")
    pollution_systems: tuple[str, ...] = ("combined",)
    cost_miss: float = 100.0
    cost_false_alarm: float = 1.0
    prior: float = 0.01
    # Random splits of the scored recordings into a dev and a test half.
    threshold_splits: int = 50
    classes: OpenSetConfig = field(default_factory=OpenSetConfig)
    n_unknown: int = 3
    bootstrap: int = 1000
    seed: int = 0
    output_dir: str = "out/anomaly"

    def __post_init__(self) -> None:
        for name, allowed in (("tasks", ANOMALY_TASKS), ("systems", ANOMALY_MODELS), ("pollution_systems", ANOMALY_MODELS)):
            unknown = sorted(set(getattr(self, name)) - set(allowed))
            require(not unknown, f"{name} has {', '.join(unknown)}; allowed are {', '.join(allowed)}")
        at_least(self, 2, "machine_folds")
        require(
            all(0 <= p < 0.5 for p in self.pollution),
            f"pollution is {self.pollution}; allowed are fractions from 0 to below .5",
        )
        positive(self, "bootstrap", "threshold_splits")
