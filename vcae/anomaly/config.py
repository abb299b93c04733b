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
    """A detector of anomalies that learns from normal recordings alone."""

    mel: MelConfig = field(default_factory=lambda: MelConfig(hop_length=512, n_mels=128))
    # frames, interpolation, denoising, convolutional: error of the reconstruction; latent: distance in its code;
    # statistics, modulation: distance of a clip's mel statistics and of how its bands are modulated; encoder: distance in what
    # the shipped checkpoint's speaker encoder makes of it; exposure: the side on which these three lie, between normal sounds and a
    # shipped bank of others; faults: the strongest place that would be named, for clicks, hum and the like in speech; combined: all of
    # `members`, by their fit on normal data.
    model: str = "combined"
    members: tuple[str, ...] = ("interpolation", "statistics", "modulation", "encoder", "exposure")
    # Frames that the reconstruction sees at once.
    context: int = 5
    # Of the convolutional form: frames of a training crop.
    crop: int = 32
    width: int = 128
    code: int = 16
    n_blocks: int = 2
    # Parts that are held out in turn; each network has not seen one of them.
    folds: int = 3
    max_steps: int = 200
    batch_size: int = 256
    learning_rate: float = 1e-3
    # The training ends when the held-out loss has not fallen for so many looks at it.
    patience: int = 3
    look_every: int = 50
    # trimmed: the hardest share of a batch does not train; rejection: the most anomalous share of the recordings is left out.
    robust: str = "none"
    trim: float = 0.2
    # gamma or empirical: what the probability under the normal data is read from.
    tail: str = "gamma"
    # Longer recordings are scored in parts of this length.
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
        """The members that are fitted: those of the combination, or the model alone."""
        return self.members if self.model == "combined" else (self.model,)


UNKNOWN_SCORES = ("softmax", "energy", "distance")


@dataclass(frozen=True)
class OpenSetConfig:
    """A classifier of sounds that may say "unknown"."""

    mel: MelConfig = field(default_factory=lambda: MelConfig(hop_length=512))
    width: int = 64
    n_blocks: int = 3
    embedding_dim: int = 32
    crop_s: float = 2.0
    batch_size: int = 32
    max_steps: int = 300
    learning_rate: float = 3e-3
    # Level of a crop in training, up and down; and whether crops are mixed.
    gain_db: float = 6.0
    mix: bool = True
    # Sounds of no class that are made of a batch's and learned as such, as a share of it.
    strange: float = 0.5
    # Share of a class that is held back from learning to set the thresholds, which keep such a share of what was held back.
    held_out: float = 0.2
    keep: float = 0.95
    # The score that decides what is unknown.
    by: str = "distance"
    seed: int = 0

    def __post_init__(self) -> None:
        one_of(self, UNKNOWN_SCORES, "by")
        require(0 < self.held_out < 1, f"held_out is {self.held_out}; it is a share and must lie between 0 and 1")
        require(0 <= self.strange <= 1, f"strange is {self.strange}; it is a share of a batch, 0 to 1")
        require(0 < self.keep <= 1, f"keep is {self.keep}; it is a share, over 0 and up to 1")
        positive(self, "width", "n_blocks", "embedding_dim")
        require(self.max_steps > 0 and self.batch_size > 1, "max_steps must be positive, and batch_size 2 or more")
        positive(self, "crop_s", "learning_rate")
