"""Settings of training: data, optimisation, and every objective's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vcae.codec.config import CodecConfig, PolishConfig
from vcae.config import at_least, one_of, positive, require, within
from vcae.model.config import AutoencoderConfig, DenoiserConfig, VoicePriorConfig
from vcae.vocoder.config import VocoderConfig


@dataclass(frozen=True)
class PerturbConfig:
    """What is done to the content encoder's input, and to nothing else."""

    warp: float = 0.25
    tilt_db: float = 6.0
    gain_db: float = 6.0
    noise_db: float = 40.0
    mask_probability: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.warp < 1, f"perturb.warp is {self.warp}; allowed are 0 to 1, as a share of the frequency")
        within(self, 0, 1, "mask_probability", where="perturb")


@dataclass(frozen=True)
class DataConfig:
    """Where training audio comes from and how it is cut."""

    cache: str = "cache/train"
    validation_cache: str = "cache/dev"
    crop_s: float = 1.5
    reference_s: float = 2.5
    batch_size: int = 32
    # Weight of a corpus in the choice of the next crop; a corpus not named has weight 1.
    corpus_weights: Mapping[str, float] = field(default_factory=dict)
    random_gain_db: float = 0.0
    workers: int = 0
    # Crops of one speaker that stand together in a batch, and can be each other's reference.
    crops_a_speaker: int = 1
    # A speaker is drawn in proportion to the seconds there are of it, to this power: 0 draws all alike, 1 every second alike.
    length_exponent: float = 0.0

    def __post_init__(self) -> None:
        positive(self, "crop_s", "reference_s", "batch_size", "crops_a_speaker", where="data")
        within(self, 0, 1, "length_exponent", where="data")
        require(
            self.batch_size % self.crops_a_speaker == 0,
            f"data.batch_size is {self.batch_size}; a multiple of data.crops_a_speaker ({self.crops_a_speaker}) is needed",
        )


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast and where to."""

    output_dir: str = "runs/default"
    seed: int = 0
    max_steps: int = 10000
    warmup_steps: int = 200
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    precision: str = "bf16"
    threads: int = 0
    log_every: int = 50
    validate_every: int = 500
    validation_batches: int = 4
    save_every: int = 500
    # What is validated and saved as the model is the moving average of the weights, with this decay a step; 0: the weights themselves.
    average_decay: float = 0.0
    # Compile the objective: minutes at the start, and faster steps from then on. Needs a C++ compiler.
    compile: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.average_decay < 1, f"train.average_decay is {self.average_decay}; 0 or more, and under 1, is needed")
        one_of(self, ("bf16", "no"), "precision", where="train")
        positive(self, "max_steps", "learning_rate", where="train")


@dataclass(frozen=True)
class NoisingConfig:
    """What clean speech is spoilt with, to learn to mend it: shares of the crops, from 0 to 1."""

    # What recipes/denoise/prepare.py wrote: noises and rooms.
    bank: str = "cache/noise.safetensors"
    snr_min_db: float = -5.0
    snr_max_db: float = 20.0
    no_noise: float = 0.08
    # Of the noises: recorded, made, and, what is left, other voices; another joins some, and a third some of those and others.
    recorded: float = 0.45
    synthetic: float = 0.42
    second: float = 0.3
    room: float = 0.25
    band_limit: float = 0.1
    codec: float = 0.06
    clipping: float = 0.04

    def __post_init__(self) -> None:
        require(
            self.snr_min_db <= self.snr_max_db,
            f"noising.snr_min_db is {self.snr_min_db}; it must not be above snr_max_db ({self.snr_max_db})",
        )
        within(
            self,
            0,
            1,
            "no_noise",
            "recorded",
            "synthetic",
            "second",
            "room",
            "band_limit",
            "codec",
            "clipping",
            where="noising",
        )
        require(
            self.recorded + self.synthetic <= 1,
            f"noising.recorded and synthetic are {self.recorded} and {self.synthetic}; together they are at most 1",
        )


@dataclass(frozen=True)
class AutoencoderRecipe:
    """All numbers of `recipes/autoencoder`."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    # Weight of telling training speakers apart by their embedding, and of keeping a classifier from doing so by the latent.
    speaker_weight: float = 0.0
    adversary_weight: float = 0.0
    # Weight of the speaker encoder recognising the voice of another speaker of the batch after a conversion to it.
    conversion_weight: float = 0.0
    # Weight of finding a frame's code, among those of its utterance, by its code under another perturbation.
    contrast_weight: float = 0.0
    # Weight of the latent staying near its code, and of predicting durations and F0 from the codes.
    commitment_weight: float = 0.25
    prosody_weight: float = 0.1
    # Of a variational content: weight of the KL divergence from the prior, in nats a step; what each dimension may have of it
    # for nothing, in bits a step; and the steps over which the weight grows from nothing.
    kl_weight: float = 0.0
    free_bits: float = 0.0
    kl_warmup_steps: int = 0
    # A checkpoint whose autoencoder the training starts from, and one that lends the weights whose name and shape fit.
    initial: str | None = None
    borrowed: str | None = None
    # all, or decoder: the encoders stay as they are; a quantizer and a prosody learn with the decoder.
    trained: str = "all"

    def __post_init__(self) -> None:
        one_of(self, ("all", "decoder"), "trained")
        at_least(self, 0, "kl_weight", "free_bits", "kl_warmup_steps")
        require(
            self.kl_weight == 0 or self.model.content.variational,
            f"kl_weight is {self.kl_weight}, but there is nothing to weigh; set model.content.variational to true",
        )


@dataclass(frozen=True)
class ConversionRecipe:
    """All numbers of `recipes/conversion`: conversions in, recordings out."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    perturb: PerturbConfig = field(default_factory=lambda: PerturbConfig(warp=0.15, mask_probability=0.3))
    data: DataConfig = field(default_factory=lambda: DataConfig(crop_s=1.984, batch_size=28, crops_a_speaker=4))
    train: TrainConfig = field(default_factory=TrainConfig)
    # The checkpoint that converts what the content encoder hears, and one that lends the weights whose name and shape fit.
    teacher: str = "default"
    borrowed: str | None = "default"
    # On: the recording is heard with the teacher's change of voice added, times a factor; off: the teacher's conversion is heard.
    add_change: bool = True
    change_min: float = 0.8
    change_max: float = 1.3
    # Weight of the differences between frames, beside that of the frames.
    difference_weight: float = 0.5
    # Share of the crops that have no reference to look up, and the most of the reference's steps that are hidden from a crop.
    no_reference: float = 0.15
    hidden_reference: float = 0.3
    # Weights of passing a critic of mels, and of matching its features; 0 and 0: there is none. Both grow over the first steps.
    critic_weight: float = 0.0
    feature_weight: float = 0.0
    critic_width: int = 16
    critic_warmup_steps: int = 200

    def __post_init__(self) -> None:
        require(
            self.change_min <= self.change_max,
            f"change_min is {self.change_min}; it must not be above change_max ({self.change_max})",
        )
        within(self, 0, 1, "no_reference", "hidden_reference")
        at_least(self, 0, "difference_weight", "critic_weight", "feature_weight", "critic_warmup_steps")
        require(self.data.crops_a_speaker >= 2, "data.crops_a_speaker must be at least 2: crops are each other's reference")
        require(
            self.data.batch_size >= 2 * self.data.crops_a_speaker,
            f"data.batch_size is {self.data.batch_size}; at least two speakers ({2 * self.data.crops_a_speaker} crops) are needed",
        )
        require(self.model.speaker is not None, "model.speaker is null; conversion needs a speaker encoder")


@dataclass(frozen=True)
class DiscoveryRecipe:
    """All numbers of `recipes/discovery/train.py`: masked prediction of clusters, before the codes are learned."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    perturb: PerturbConfig = field(default_factory=lambda: PerturbConfig(warp=0.2, mask_probability=0.0))
    data: DataConfig = field(default_factory=lambda: DataConfig(crop_s=3.2, reference_s=0.1, batch_size=16))
    train: TrainConfig = field(default_factory=TrainConfig)
    # A checkpoint whose content latent is clustered for targets; MFCC when null.
    teacher: str | None = None
    n_targets: int = 200
    # A checkpoint that lends the other parts' weights, and the mel's normalisation; and one to start from, which brings all.
    borrowed: str | None = "default"
    initial: str | None = None

    def __post_init__(self) -> None:
        at_least(self, 2, "n_targets")


@dataclass(frozen=True)
class VocoderRecipe:
    """All numbers of `recipes/vocoder`."""

    model: VocoderConfig = field(default_factory=VocoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    # Corrections in training, where each costs a step more time; the model's own number is for use.
    n_corrections: int = 2
    # A checkpoint whose vocoder the training starts from.
    initial: str | None = None
    # A checkpoint whose autoencoder decodes the mels of this share of each batch.
    decoded_by: str | None = None
    decoded_share: float = 0.5


@dataclass(frozen=True)
class DenoiseRecipe:
    """All numbers of `recipes/denoise/train.py`."""

    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    noising: NoisingConfig = field(default_factory=NoisingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    # Weight of the base-10 logarithm of what is wrong with the cleaned sound, sample by sample, as a share of the speech's power.
    error_weight: float = 0.1
    # Carry on from a checkpoint of this recipe.
    initial: str | None = None


@dataclass(frozen=True)
class CodecRecipe:
    """All numbers of `recipes/codec/train.py`."""

    model: CodecConfig = field(default_factory=CodecConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    # What a kilobit a second may cost in squared dB at the lowest and at the highest quality; between them it falls geometrically.
    rate_weight: float = 16.0
    final_rate_weight: float = 0.04
    # Carry on from a checkpoint of this recipe.
    initial: str | None = None

    def __post_init__(self) -> None:
        require(
            0 < self.final_rate_weight <= self.rate_weight,
            f"final_rate_weight is {self.final_rate_weight}; it must be above 0 and at most rate_weight ({self.rate_weight})",
        )


@dataclass(frozen=True)
class PolishRecipe:
    """All numbers of `recipes/codec/polish.py`."""

    model: PolishConfig = field(default_factory=PolishConfig)
    base: str = "vq"
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    critic_channels: int = 24


@dataclass(frozen=True)
class GeneratorRecipe:
    """All settings of `recipes/generator`."""

    # Prepared speech (`recipes/prepare`), and a CSV of recordings with the columns path, speaker, split and duration_s.
    data: str = "cache/train"
    manifest: str = "manifest.csv"
    checkpoint: str = "default"
    # A cache that nothing is trained on; the checkpoint whose units are babbled, and the most utterances of each cache whose units are counted.
    held_data: str = "cache/dev"
    discrete: str = "vq"
    n_utterances: int = 2500
    # Crops of each speaker, their length in seconds, and random groups of them that are described.
    n_crops: int = 12
    crop_s: float = 4.0
    n_groups: int = 12
    # Of the speakers, every so manieth is held out, with its copies at other speeds.
    hold_out_every: int = 10
    model: VoicePriorConfig = field(default_factory=VoicePriorConfig)
    max_steps: int = 750
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.5
    dropout: float = 0.2
    # Deviation of what is added to the whitened numbers in training.
    noise: float = 0.2
    # A voice is new if its embedding has at most this cosine to that of any training speaker.
    limit: float = 0.45
    # Of the training speakers' embeddings, so many principal components are drawn: in the others the decoder knows little.
    directions: int = 32
    # A corpus, two recordings of which go into the file as mels, so many frames of each: new voices are made audible by them.
    bank_corpus: str = "librispeech"
    bank_frames: int = 400
    output: str = "out/generator/voices.safetensors"
    # What stands beside the weights: author, data, licence.
    info: Mapping[str, Any] = field(default_factory=dict)
    # How many voices are drawn to be judged, from so many sources.
    n_voices: int = 100
    n_sources: int = 10
    # Conversions to real voices of the manifest's split, for comparison.
    split: str = "dev"
    n_real: int = 30
    # Conversions to voices of training speakers, spread evenly over the range of F0: real voices as low and high as those that are drawn.
    n_people: int = 30
    seed: int = 0
    output_dir: str = "out/generator"

    def __post_init__(self) -> None:
        positive(self, "n_crops", "crop_s", "n_groups", "max_steps", "batch_size", "learning_rate")
        at_least(self, 2, "hold_out_every")
