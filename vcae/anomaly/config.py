"""Settings of detectors and of the open-set classifier."""

from __future__ import annotations

from dataclasses import dataclass, field

from vcae.audio.config import MelConfig
from vcae.config import at_least, one_of, positive, require, within

ANOMALY_MODELS = (
    *("frames", "interpolation", "denoising", "convolutional"),
    *("latent", "statistics", "modulation", "encoder", "exposure", "faults", "combined"),
)


@dataclass(frozen=True)
class AnomalyConfig:
    """Settings of a detector of anomalies, which learns from normal recordings only."""

    mel: MelConfig = field(default_factory=lambda: MelConfig(hop_length=512, n_mels=128))
    # frames, interpolation, denoising, convolutional: reconstruction error; latent: distance in the code;
    # statistics, modulation: distance of a clip's mel statistics, and of its modulation spectrum; encoder: distance of the activations of
    # the shipped checkpoint's speaker encoder; exposure: a classifier on these three, between normal sounds and a shipped bank of others;
    # faults: strength of the strongest fault, for clicks, hum and the like in speech; combined: all `members`, weighted by their fit on
    # normal data.
    model: str = "combined"
    members: tuple[str, ...] = ("interpolation", "statistics", "modulation", "encoder", "exposure")
    # Input frames of the reconstruction.
    context: int = 5
    # Frames of a training crop of the convolutional model.
    crop: int = 32
    width: int = 128
    code: int = 16
    n_blocks: int = 2
    # Cross-validation folds; each network is trained without one of them.
    folds: int = 3
    max_steps: int = 200
    batch_size: int = 256
    learning_rate: float = 1e-3
    # Early stopping: evaluations of the held-out loss without improvement, and steps between evaluations.
    patience: int = 3
    look_every: int = 50
    # trimmed: the fraction `trim` of a batch with the highest loss is ignored; rejection: the most anomalous fraction of the recordings is
    # left out.
    robust: str = "none"
    trim: float = 0.2
    # Distribution of normal scores for the probability: gamma or empirical.
    tail: str = "gamma"
    # Longer recordings are scored in segments of this length.
    segment_s: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        one_of(self, ANOMALY_MODELS, "model")
        single = ANOMALY_MODELS[:-1]
        require(
            bool(self.members) and all(m in single for m in self.members) and len(set(self.members)) == len(self.members),
            f"members are {', '.join(self.members) or 'none'}; allowed are {', '.join(single)}, each once",
        )
        require(
            self.context % 2 == 1 and self.context >= 3, f"context is {self.context}; an odd number of frames from 3 is needed"
        )
        at_least(self, 8, "crop")
        positive(self, "width", "code", "n_blocks")
        within(self, 2, 20, "folds")
        positive(self, "max_steps", "batch_size", "patience", "look_every")
        positive(self, "learning_rate")
        robust = ("none", "trimmed", "rejection")
        one_of(self, robust, "robust")
        within(self, 0, 0.5, "trim")
        one_of(self, ("gamma", "empirical"), "tail")
        at_least(self, 1, "segment_s")

    @property
    def parts(self) -> tuple[str, ...]:
        """Members to fit: those of the combination, or the model itself."""
        return self.members if self.model == "combined" else (self.model,)


UNKNOWN_SCORES = ("softmax", "energy", "distance")


@dataclass(frozen=True)
class OpenSetConfig:
    """Settings of a classifier of sounds whose answer may be "unknown"."""

    mel: MelConfig = field(default_factory=lambda: MelConfig(hop_length=512))
    width: int = 64
    n_blocks: int = 3
    embedding_dim: int = 32
    crop_s: float = 2.0
    batch_size: int = 32
    max_steps: int = 300
    learning_rate: float = 3e-3
    # Largest random change of a training crop's level, up or down; and whether crops are mixed (mixup).
    gain_db: float = 6.0
    mix: bool = True
    # Sounds of no class, generated from a batch and trained as such, as a fraction of the batch.
    strange: float = 0.5
    # Fraction of each class that is held out from training to set the thresholds, and fraction of these that the thresholds accept.
    held_out: float = 0.2
    keep: float = 0.95
    # Score that decides whether a sound is unknown.
    by: str = "distance"
    seed: int = 0

    def __post_init__(self) -> None:
        one_of(self, UNKNOWN_SCORES, "by")
        require(0 < self.held_out < 1, f"held_out is {self.held_out}; it is a fraction and must be between 0 and 1")
        require(0 <= self.strange <= 1, f"strange is {self.strange}; it is a fraction of a batch, 0 to 1")
        require(0 < self.keep <= 1, f"keep is {self.keep}; it is a fraction above 0 and up to 1")
        positive(self, "width", "n_blocks", "embedding_dim")
        require(self.max_steps > 0 and self.batch_size > 1, "max_steps must be positive, and batch_size 2 or more")
        positive(self, "crop_s", "learning_rate")
