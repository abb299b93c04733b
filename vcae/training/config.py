"""Settings of training: data, optimisation, and all objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vcae.codec.config import CodecConfig, PolishConfig
from vcae.config import at_least, one_of, positive, require, within
from vcae.model.config import AutoencoderConfig, DenoiserConfig, TranscriberConfig, VoicePriorConfig
from vcae.vocoder.config import VocoderConfig


@dataclass(frozen=True)
class PerturbConfig:
    """Settings of the perturbation of the content encoder's input."""

    warp: float = 0.25
    tilt_db: float = 6.0
    gain_db: float = 6.0
    noise_db: float = 40.0
    mask_probability: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.warp < 1, f"perturb.warp is {self.warp}; allowed are 0 to 1, as a fraction of the frequency")
        within(self, 0, 1, "mask_probability", where="perturb")


@dataclass(frozen=True)
class DataConfig:
    """Settings of the training data: caches, crops and batches."""

    cache: str = "cache/train"
    validation_cache: str = "cache/dev"
    crop_s: float = 1.5
    reference_s: float = 2.5
    batch_size: int = 32
    # Weight of a corpus when crops are drawn; a corpus that is not listed has weight 1.
    corpus_weights: Mapping[str, float] = field(default_factory=dict)
    random_gain_db: float = 0.0
    workers: int = 0
    # Consecutive crops of one speaker in a batch, which can be each other's reference.
    crops_a_speaker: int = 1
    # A speaker's probability is its duration to this power: with 0 all speakers are equally likely, with 1 all seconds.
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
    """Settings of the trainer: steps, optimiser, precision, logging and output."""

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
    # Decay per step of the moving average of the weights, which is validated and saved as the model; 0 uses the weights themselves.
    average_decay: float = 0.0
    # Compile the objective: takes minutes at the start and makes each step faster. Needs a C++ compiler.
    compile: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.average_decay < 1, f"train.average_decay is {self.average_decay}; it must be 0 or more and below 1")
        one_of(self, ("bf16", "no"), "precision", where="train")
        positive(self, "max_steps", "learning_rate", where="train")


@dataclass(frozen=True)
class NoisingConfig:
    """Settings of the degradation of clean speech for the denoiser; probabilities are from 0 to 1."""

    # Noises and room impulse responses, written by recipes/denoise/prepare.py.
    bank: str = "cache/noise.safetensors"
    snr_min_db: float = -5.0
    snr_max_db: float = 20.0
    no_noise: float = 0.08
    # Probability of a recorded and of a synthetic noise from the bank; otherwise it is other voices. Probability of a second
    # noise, and of a third.
    recorded: float = 0.45
    synthetic: float = 0.42
    second: float = 0.3
    # Probability that a noise gets the course of another one's level.
    shaken: float = 0.0
    # Probability that only bursts of a noise are left.
    bursts: float = 0.0
    room: float = 0.25
    band_limit: float = 0.1
    codec: float = 0.06
    clipping: float = 0.04

    def __post_init__(self) -> None:
        require(
            self.snr_min_db <= self.snr_max_db,
            f"noising.snr_min_db is {self.snr_min_db}; it must not be above snr_max_db ({self.snr_max_db})",
        )
        names = ("no_noise", "recorded", "synthetic", "second", "shaken", "bursts", "room", "band_limit", "codec", "clipping")
        within(self, 0, 1, *names, where="noising")
        require(
            self.recorded + self.synthetic <= 1,
            f"noising.recorded and synthetic are {self.recorded} and {self.synthetic}; their sum must be at most 1",
        )


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Settings of `recipes/autoencoder`."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    # Weight of classifying training speakers by their embedding, and of an adversarial speaker classifier on the latent.
    speaker_weight: float = 0.0
    adversary_weight: float = 0.0
    # Weight of classifying the target speaker after a conversion to another speaker of the batch.
    conversion_weight: float = 0.0
    # Weight of the contrastive loss between codes of two perturbations of an utterance.
    contrast_weight: float = 0.0
    # Weights of the commitment loss, and of predicting durations and F0 from the codes.
    commitment_weight: float = 0.25
    prosody_weight: float = 0.1
    # Of a variational latent: weight of the KL divergence from the prior, in nats per step; free bits of each dimension per
    # step; and the steps over which the weight grows from 0.
    kl_weight: float = 0.0
    free_bits: float = 0.0
    kl_warmup_steps: int = 0
    # A checkpoint whose autoencoder the training starts from, and one from which weights of the same name and shape are copied.
    initial: str | None = None
    borrowed: str | None = None
    # all, or decoder: then the encoders are frozen; a quantizer and a prosody predictor are trained with the decoder.
    trained: str = "all"

    def __post_init__(self) -> None:
        one_of(self, ("all", "decoder"), "trained")
        at_least(self, 0, "kl_weight", "free_bits", "kl_warmup_steps")
        require(
            self.kl_weight == 0 or self.model.content.variational,
            f"kl_weight is {self.kl_weight}, but the latent is not variational; set model.content.variational to true",
        )


@dataclass(frozen=True)
class ConversionRecipe:
    """Settings of `recipes/conversion`: training on own conversions as input and recordings as target."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    perturb: PerturbConfig = field(default_factory=lambda: PerturbConfig(warp=0.15, mask_probability=0.3))
    data: DataConfig = field(default_factory=lambda: DataConfig(crop_s=1.984, batch_size=28, crops_a_speaker=4))
    train: TrainConfig = field(default_factory=TrainConfig)
    # The checkpoint that converts the content encoder's input, and one from which weights of the same name and shape are copied.
    teacher: str = "default"
    borrowed: str | None = "default"
    # The input is the recording plus the teacher's change of voice times a random factor; without it, the teacher's conversion.
    add_change: bool = True
    change_min: float = 0.8
    change_max: float = 1.3
    # Weight of the loss on differences between frames, relative to that on frames.
    difference_weight: float = 0.5
    # Fraction of the crops without a reference, and largest fraction of the reference's steps that is masked for a crop.
    no_reference: float = 0.15
    hidden_reference: float = 0.3
    # Weights of the adversarial loss and of feature matching; with both 0 there is no critic. Both grow over the first steps.
    critic_weight: float = 0.0
    feature_weight: float = 0.0
    critic_width: int = 16
    critic_warmup_steps: int = 200
    # The state of a training (its state.safetensors) whose critic goes on learning; null begins a new one.
    critic_state: str | None = None
    # Conversions of the batch to its next voice, spoken by the vocoder: weights of the distance of a recogniser's features to those of the
    # recording, of 1 less the cosine to the voice's embedding, and of the critic. All 0 converts nothing.
    recogniser_weight: float = 0.0
    voice_weight: float = 0.0
    # Weights of 1 less the cosine to the voice that a network for speaker verification finds, and of what it finds of the source's voice.
    verifier_weight: float = 0.0
    leak_weight: float = 0.0
    converted_critic_weight: float = 0.0
    # How many of the batch's crops are spoken, and how many of these keep their own voice.
    n_spoken: int = 12
    n_own: int = 4
    vocoder: str = "default"
    # The last of the spoken crops are given with noise, in rooms, on telephones; what is to be found in them is the clean recording.
    n_degraded: int = 0
    noising: NoisingConfig = field(default_factory=NoisingConfig)
    # Whether a spoken crop gets a random number of its target's recordings, so that voices are also learned from little speech.
    few_references: bool = False

    def __post_init__(self) -> None:
        require(
            self.change_min <= self.change_max,
            f"change_min is {self.change_min}; it must not be above change_max ({self.change_max})",
        )
        within(self, 0, 1, "no_reference", "hidden_reference")
        at_least(self, 0, "difference_weight", "critic_weight", "feature_weight", "critic_warmup_steps", "recogniser_weight")
        at_least(self, 0, "voice_weight", "verifier_weight", "leak_weight", "converted_critic_weight", "n_own", "n_degraded")
        require(
            self.n_degraded <= self.n_spoken - self.n_own,
            f"n_degraded is {self.n_degraded}; it must be at most n_spoken - n_own ({self.n_spoken - self.n_own})",
        )
        require(
            not self.converts or self.n_own <= self.n_spoken <= self.data.batch_size,
            f"n_own is {self.n_own} and n_spoken {self.n_spoken}; 0 <= n_own <= n_spoken <= data.batch_size "
            f"({self.data.batch_size}) must hold",
        )
        require(self.data.crops_a_speaker >= 2, "data.crops_a_speaker must be at least 2: crops are each other's reference")
        require(
            self.data.batch_size >= 2 * self.data.crops_a_speaker,
            f"data.batch_size is {self.data.batch_size}; at least two speakers ({2 * self.data.crops_a_speaker} crops) are needed",
        )
        require(self.model.speaker is not None, "model.speaker is null; conversion needs a speaker encoder")

    @property
    def converts(self) -> bool:
        """Whether the loss has parts on conversions."""
        return self.recogniser_weight + self.voice_weight + self.converted_critic_weight + self.verifies > 0

    @property
    def verifies(self) -> bool:
        """Whether the loss has parts of a network for speaker verification."""
        return self.verifier_weight + self.leak_weight > 0


@dataclass(frozen=True)
class RobustRecipe:
    """Settings of `recipes/conversion/robust.py`: the encoders learn to ignore noise, rooms and codecs."""

    # Degradations, milder than the denoiser's.
    noising: NoisingConfig = field(
        default_factory=lambda: NoisingConfig(
            snr_min_db=5.0, snr_max_db=40.0, no_noise=0.1, room=0.5, codec=0.3, band_limit=0.15
        )
    )
    perturb: PerturbConfig = field(default_factory=lambda: PerturbConfig(warp=0.0, noise_db=60.0, mask_probability=0.0))
    data: DataConfig = field(
        default_factory=lambda: DataConfig(crop_s=3.968, reference_s=2.0, batch_size=16, length_exponent=0.5)
    )
    train: TrainConfig = field(default_factory=TrainConfig)
    # The checkpoint whose encoder is trained, and whose content of clean recordings is the target.
    initial: str = "default"
    # A checkpoint of this recipe whose encoders go on learning; null begins with those of `initial`.
    started: str | None = None
    # What is learned: "content", "voice" (the speaker encoder, and that of the reference), or both.
    parts: tuple[str, ...] = ("content",)
    # Fraction of the crops that are not degraded.
    clean_share: float = 0.15
    # The end of each crop that the encoder does not get, in seconds; the target includes it. The last steps of its input weigh more.
    hidden_end_s: float = 0.5
    edge_steps: int = 8
    edge_weight: float = 3.0

    def __post_init__(self) -> None:
        within(self, 0, 1, "clean_share")
        at_least(self, 0, "hidden_end_s", "edge_weight")
        positive(self, "edge_steps")
        require(
            bool(self.parts) and set(self.parts) <= {"content", "voice"},
            f"parts is {list(self.parts)}; allowed are content, voice or both",
        )


@dataclass(frozen=True)
class DiscoveryRecipe:
    """Settings of `recipes/discovery/train.py`: masked prediction of clusters, before the codes are learned."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    perturb: PerturbConfig = field(default_factory=lambda: PerturbConfig(warp=0.2, mask_probability=0.0))
    data: DataConfig = field(default_factory=lambda: DataConfig(crop_s=3.2, reference_s=0.1, batch_size=16))
    train: TrainConfig = field(default_factory=TrainConfig)
    # A checkpoint whose content latent is clustered for the targets; null clusters MFCC.
    teacher: str | None = None
    n_targets: int = 200
    # A checkpoint from which the other parts' weights and the mel's normalisation are copied; and one whose weights are all copied.
    borrowed: str | None = "default"
    initial: str | None = None

    def __post_init__(self) -> None:
        at_least(self, 2, "n_targets")


@dataclass(frozen=True)
class VocoderRecipe:
    """Settings of `recipes/vocoder`."""

    model: VocoderConfig = field(default_factory=VocoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    # Corrections in training, where each one slows down the step; the model's own number is for inference.
    n_corrections: int = 2
    # A checkpoint whose vocoder the training starts from.
    initial: str | None = None
    # A checkpoint whose autoencoder decodes the mels of this fraction of each batch.
    decoded_by: str | None = None
    decoded_share: float = 0.5


@dataclass(frozen=True)
class TaughtConfig:
    """Settings of the denoiser's learning from another one, its teacher."""

    # Folder that recipes/denoise/teach.py wrote; null for no teacher.
    folder: str | None = None
    # Taught crops of a batch, in addition to those of `data`.
    batch_size: int = 12
    # Of the loss of taught crops, the share for the teacher's output; the rest is for the clean speech.
    output_share: float = 0.5
    # Weight of the error of the teacher's features, which a linear layer predicts from the state after one of the GRUs.
    feature_weight: float = 0.3
    layer: int = 1
    # Frames at the start of a crop without that error, as the teacher had the audio before it.
    n_unknown: int = 12

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_size")
        at_least(self, 0, "feature_weight", "layer", "n_unknown")
        within(self, 0, 1, "output_share", where="taught")


@dataclass(frozen=True)
class DenoiseRecipe:
    """Settings of `recipes/denoise/train.py`."""

    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    noising: NoisingConfig = field(default_factory=NoisingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    taught: TaughtConfig = field(default_factory=TaughtConfig)
    # Weight of the base-10 logarithm of the waveform error relative to the speech's power.
    error_weight: float = 0.1
    # Weight of errors of the magnitudes where speech is attenuated too much, relative to those where noise is left.
    attenuation_weight: float = 1.0
    # A checkpoint of this recipe from which training starts; it may have fewer recurrent layers.
    initial: str | None = None

    def __post_init__(self) -> None:
        require(
            self.taught.layer < self.model.n_layers,
            f"taught.layer is {self.taught.layer}; model.n_layers is {self.model.n_layers}, and the first layer is 0",
        )


@dataclass(frozen=True)
class CodecRecipe:
    """Settings of `recipes/codec/train.py`."""

    model: CodecConfig = field(default_factory=CodecConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    # Weight of the rate, in squared dB per kbit/s, at the lowest and at the highest quality; between them it falls geometrically.
    rate_weight: float = 16.0
    final_rate_weight: float = 0.04
    # A checkpoint of this recipe from which training starts.
    initial: str | None = None

    def __post_init__(self) -> None:
        require(
            0 < self.final_rate_weight <= self.rate_weight,
            f"final_rate_weight is {self.final_rate_weight}; it must be above 0 and at most rate_weight ({self.rate_weight})",
        )


@dataclass(frozen=True)
class PolishRecipe:
    """Settings of `recipes/codec/polish.py`."""

    model: PolishConfig = field(default_factory=PolishConfig)
    base: str = "vq-narrow"
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    critic_channels: int = 24


@dataclass(frozen=True)
class GeneratorRecipe:
    """Settings of `recipes/generator`."""

    # Prepared speech (`recipes/prepare`), and a CSV of recordings with the columns path, speaker, split and duration_s.
    data: str = "cache/train"
    manifest: str = "manifest.csv"
    checkpoint: str = "default"
    # A cache that is not trained on; the checkpoint whose units are babbled; and the largest number of utterances of each cache whose units
    # are counted.
    held_data: str = "cache/dev"
    discrete: str = "vq"
    n_utterances: int = 2500
    # Crops of each speaker, their length in seconds, and random groups of them, each of which gives one set of voice features.
    n_crops: int = 12
    crop_s: float = 4.0
    n_groups: int = 12
    # Hold out every n-th speaker, together with its copies at other speeds.
    hold_out_every: int = 10
    model: VoicePriorConfig = field(default_factory=VoicePriorConfig)
    max_steps: int = 750
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.5
    dropout: float = 0.2
    # Standard deviation of the noise added to the whitened features in training.
    noise: float = 0.2
    # A voice is new if its embedding has at most this cosine to that of any training speaker.
    limit: float = 0.45
    # Principal components of the training speakers' embeddings that are sampled; the decoder has learned little about the others.
    directions: int = 32
    # A corpus from which two recordings are stored in the file as mels, and the frames of each: samples of new voices are made from them.
    bank_corpus: str = "librispeech"
    bank_frames: int = 400
    output: str = "out/generator/voices.safetensors"
    # Metadata stored with the weights: author, data, licence.
    info: Mapping[str, Any] = field(default_factory=dict)
    # Number of voices that are sampled for evaluation, and of source recordings.
    n_voices: int = 100
    n_sources: int = 10
    # Conversions to real voices of the manifest's split, for comparison.
    split: str = "dev"
    n_real: int = 30
    # Conversions to training speakers, spread evenly over the range of F0: real voices with the same range of F0 as the sampled ones.
    n_people: int = 30
    seed: int = 0
    output_dir: str = "out/generator"

    def __post_init__(self) -> None:
        positive(self, "n_crops", "crop_s", "n_groups", "max_steps", "batch_size", "learning_rate")
        at_least(self, 2, "hold_out_every")


@dataclass(frozen=True)
class TranscriberRecipe:
    """Settings of `recipes/transcribe`."""

    model: TranscriberConfig = field(default_factory=TranscriberConfig)
    # CSV with the columns path, speaker, corpus, split and transcript, the split to use, and the checkpoint whose latent is read.
    manifest: str = "manifest.csv"
    split: str = "train"
    checkpoint: str = "default"
    # Latents of the transcribed speech, written by prepare.py.
    latents: str = "cache/transcribed.safetensors"
    # Hold out every n-th speaker of this corpus, to choose by.
    held_corpus: str = "librispeech"
    hold_out_every: int = 5
    n_epochs: int = 16
    # Share of a corpus's recordings that an epoch uses, where it is not all.
    corpus_shares: Mapping[str, float] = field(default_factory=dict)
    # Steps of the latent in a batch, with padding.
    batch_steps: int = 5000
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    # Share of the training in which the learning rate grows.
    warmup: float = 0.05
    average_decay: float = 0.998
    letters_weight: float = 0.4
    # Largest factor of the speed, and of the noise on the latent, whose deviation is 1.
    speed: float = 1.15
    noise: float = 0.4
    seed: int = 0
    output_dir: str = "runs/transcribe"

    def __post_init__(self) -> None:
        positive(self, "n_epochs", "batch_steps", "learning_rate", "warmup")
        at_least(self, 2, "hold_out_every")
        at_least(self, 1, "speed")
        within(self, 0, 1, "average_decay", "noise", "letters_weight")


@dataclass(frozen=True)
class DecipherConfig:
    """Settings of decipherment by expectation maximisation."""

    # Random starts of a seed, and the iterations of each with pairs and then with triples of phones.
    n_starts: int = 2
    iterations: int = 10
    trigram_iterations: int = 8
    # Probability that a step has the phone of the step before, and share of steps before which a phone is missing.
    stay: float = 0.55
    skip: float = 0.05
    # Exponent of the likelihoods in the end and at first.
    scale: float = 0.5
    first_scale: float = 0.25
    # Standard deviation of the random starts around the clusters, and steps at the mean of all that every phone is given.
    spread: float = 0.2
    prior: float = 5.0
    # Alignments of the paired system.
    paired_iterations: int = 8

    def __post_init__(self) -> None:
        positive(self, "n_starts", "iterations", "trigram_iterations", "scale", "first_scale", "prior", "paired_iterations")
        at_least(self, 0, "spread")
        within(self, 0, 0.9, "stay", "skip")


@dataclass(frozen=True)
class TextCriticConfig:
    """Settings of a recogniser of units that learns from a critic of text."""

    width: int = 64
    batch_size: int = 32
    # Units in a crop.
    crop: int = 40
    steps: int = 250
    # Steps by REINFORCE after those.
    reinforce_steps: int = 120
    reader_rate: float = 2e-3
    critic_rate: float = 1e-3
    gradient_penalty: float = 1.5
    diversity: float = 0.5
    smoothness: float = 0.01
    # Weight of the reconstruction of units in the reward, and of the entropy of the phones.
    reconstruction: float = 0.5
    entropy: float = 0.01

    def __post_init__(self) -> None:
        positive(self, "width", "batch_size", "crop", "steps", "reinforce_steps", "reader_rate", "critic_rate")
        at_least(self, 0, "gradient_penalty", "diversity", "smoothness", "reconstruction", "entropy")
