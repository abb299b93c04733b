"""The schema of every setting: frozen dataclasses that check themselves. YAML files hold only values."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vcae.errors import ConfigError

T = TypeVar("T")


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ConfigError(what)


@dataclass(frozen=True)
class MelConfig:
    """The one mel definition of the project (HiFi-GAN's family: natural log of a slaney magnitude mel)."""

    sample_rate: int = 16000
    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 80
    f_min: float = 0.0
    f_max: float = 8000.0
    floor: float = 1e-5

    def __post_init__(self) -> None:
        _require(self.sample_rate > 0, f"mel.sample_rate is {self.sample_rate}; it must be positive, in Hz")
        _require(
            0 < self.hop_length <= self.win_length <= self.n_fft,
            f"mel needs 0 < hop_length <= win_length <= n_fft; got {self.hop_length}, {self.win_length}, {self.n_fft}",
        )
        _require(self.n_mels > 0, f"mel.n_mels is {self.n_mels}; it must be positive")
        _require(
            0 <= self.f_min < self.f_max <= self.sample_rate / 2,
            f"mel needs 0 <= f_min < f_max <= {self.sample_rate / 2} Hz; got {self.f_min} and {self.f_max}",
        )
        _require(self.floor > 0, f"mel.floor is {self.floor}; the logarithm needs a positive one")

    @property
    def frame_rate(self) -> float:
        """Frames a second, in Hz."""
        return self.sample_rate / self.hop_length


@dataclass(frozen=True)
class ContentConfig:
    """The encoder of what is said."""

    width: int = 256
    n_blocks: int = 5
    latent_dim: int = 12
    stride: int = 2
    # Blocks that are followed by instance normalisation; 0 turns off the input's normalisation too (plain autoencoder).
    n_normalized: int = 3
    normalize_latent: bool = False
    # Standard deviation of the noise added to the latent in training: with a normalised latent it bounds the bits a frame holds.
    latent_noise: float = 0.0
    # Halve (or quarter, by stride) the rate before the blocks without instance normalisation instead of after them: they see further.
    early_pool: bool = False
    # Off: the latent is what the last block gives, and latent_dim must be width.
    project: bool = True
    # A Gaussian in the neck: the latent is its mean, and in training a draw from it goes on to the decoder.
    variational: bool = False

    def __post_init__(self) -> None:
        _require(
            not self.variational or (self.project and self.latent_noise == 0),
            "content.variational needs content.project, and content.latent_noise 0: its own noise is learned",
        )
        _require(
            self.project or self.latent_dim == self.width,
            f"content.latent_dim is {self.latent_dim}; without content.project it must be content.width ({self.width})",
        )
        _require(self.stride in (1, 2, 4), f"content.stride is {self.stride}; allowed are 1, 2 and 4 frames")
        _require(
            0 <= self.n_normalized <= self.n_blocks,
            f"content.n_normalized is {self.n_normalized}; allowed are 0 to n_blocks ({self.n_blocks})",
        )
        _require(self.latent_noise >= 0, f"content.latent_noise is {self.latent_noise}; it must not be negative")


@dataclass(frozen=True)
class QuantizerConfig:
    """A discrete code in the content's neck."""

    # vq: codebooks, n_stages of them in turn; binary: a bit a channel; onehot: one of the channels.
    kind: str = "vq"
    codebook_size: int = 256
    n_stages: int = 1
    # Share of the items in training that end at a stage drawn at random.
    stage_dropout: float = 0.5
    # Of the codebooks' moving mean, a batch.
    ema_decay: float = 0.99
    # A code that fewer latents a batch fall to, in the moving mean, is restarted.
    dead_code_threshold: float = 0.5
    # Of the one-hot code's softmax in training: it falls over so many batches.
    temperature: float = 2.0
    final_temperature: float = 0.5
    temperature_steps: int = 2000

    def __post_init__(self) -> None:
        kinds = ("vq", "binary", "onehot")
        _require(self.kind in kinds, f"quantizer.kind is {self.kind!r}; allowed are {', '.join(kinds)}")
        _require(2 <= self.codebook_size <= 65536, f"quantizer.codebook_size is {self.codebook_size}; allowed are 2 to 65536")
        _require(1 <= self.n_stages <= 32, f"quantizer.n_stages is {self.n_stages}; allowed are 1 to 32")
        _require(
            self.n_stages == 1 or self.kind == "vq",
            f"quantizer.n_stages is {self.n_stages}; only kind vq has several stages",
        )
        for name in ("stage_dropout", "ema_decay"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"quantizer.{name} is {value}; allowed are 0 to 1")
        _require(
            self.dead_code_threshold > 0, f"quantizer.dead_code_threshold is {self.dead_code_threshold}; it must be positive"
        )
        _require(
            self.temperature > 0 and self.final_temperature > 0 and self.temperature_steps > 0,
            "quantizer.temperature, final_temperature and temperature_steps must be positive",
        )


@dataclass(frozen=True)
class ProsodyConfig:
    """What gives units their durations and their F0 when nobody else does."""

    width: int = 128
    n_blocks: int = 4


@dataclass(frozen=True)
class SpeakerConfig:
    """The encoder of who says it."""

    width: int = 192
    n_blocks: int = 3
    speaker_dim: int = 128


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder from content, speaker and F0 back to a mel."""

    width: int = 256
    n_blocks: int = 8
    use_f0: bool = True


@dataclass(frozen=True)
class AutoencoderConfig:
    """The whole autoencoder. `speaker: null` is the lecture notes' plain one: a single undivided code."""

    mel: MelConfig = field(default_factory=MelConfig)
    content: ContentConfig = field(default_factory=ContentConfig)
    speaker: SpeakerConfig | None = field(default_factory=SpeakerConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    # A discrete code instead of the continuous latent, and what reads it aloud without a source.
    quantizer: QuantizerConfig | None = None
    prosody: ProsodyConfig | None = None

    def __post_init__(self) -> None:
        _require(
            self.prosody is None or self.quantizer is not None, "prosody needs a quantizer; set quantizer, or prosody to null"
        )
        _require(
            self.quantizer is None or not self.content.variational,
            "content.variational and a quantizer exclude each other; set quantizer to null, or content.variational to false",
        )


@dataclass(frozen=True)
class PolishConfig:
    """What gives the codec's base layer, where it is alone, the texture of a recording."""

    width: int = 192
    n_blocks: int = 4

    def __post_init__(self) -> None:
        for name in ("width", "n_blocks"):
            value = getattr(self, name)
            _require(1 <= value <= 1024, f"polish.{name} is {value}; allowed are 1 to 1024")


@dataclass(frozen=True)
class CodecConfig:
    """The speech codec: an enhancement layer over a checkpoint's units, and the priors of all that is sent."""

    # The checkpoint whose two codes a step are the base layer.
    base: str = "vq"
    width: int = 192
    n_blocks: int = 4
    latent_dim: int = 64
    prior_width: int = 256
    pitch_width: int = 64
    # For the base layer where it is alone.
    polish: PolishConfig | None = None

    def __post_init__(self) -> None:
        for name in ("width", "n_blocks", "latent_dim", "prior_width", "pitch_width"):
            value = getattr(self, name)
            _require(1 <= value <= 1024, f"codec.{name} is {value}; allowed are 1 to 1024")


@dataclass(frozen=True)
class DenoiserConfig:
    """The denoising autoencoder."""

    mel: MelConfig = field(default_factory=MelConfig)
    # Samples of the frames that are filtered; they lie where the mel's lie.
    n_fft: int = 512
    width: int = 256
    n_blocks: int = 9
    # Frames that each bin of the result is made of.
    taps: int = 3

    def __post_init__(self) -> None:
        _require(
            self.n_fft % 2 == 0 and 2 * self.mel.hop_length <= self.n_fft <= 4096,
            f"denoiser.n_fft is {self.n_fft}; an even number from twice the mel's hop_length ({self.mel.hop_length}) to 4096 is needed",
        )
        _require(
            1 <= self.width <= 2048 and 1 <= self.n_blocks <= 64,
            f"denoiser.width is {self.width} and n_blocks {self.n_blocks}; allowed are 1 to 2048 and 1 to 64",
        )
        _require(self.taps in (1, 3, 5, 7), f"denoiser.taps is {self.taps}; allowed are 1, 3, 5 and 7")


@dataclass(frozen=True)
class VocoderConfig:
    """The harmonic-plus-noise vocoder."""

    mel: MelConfig = field(default_factory=MelConfig)
    width: int = 320
    n_blocks: int = 6
    # Harmonics are made up to this frequency, a little under half the sample rate.
    harmonic_max_hz: float = 7600.0
    # How often the result's mel is measured and put right, and the momentum of doing so.
    n_corrections: int = 8
    momentum: float = 0.5
    # Frames of filtering in each frame of the mel, each with a window as many times shorter than the mel's: finer in time, while
    # what is fine in frequency comes from the pulses.
    subframes: int = 1

    def __post_init__(self) -> None:
        _require(
            0 < self.harmonic_max_hz <= self.mel.sample_rate / 2,
            f"vocoder.harmonic_max_hz is {self.harmonic_max_hz}; it must lie in 0 to {self.mel.sample_rate / 2} Hz",
        )
        _require(
            self.subframes in (1, 2, 4) and self.mel.hop_length % self.subframes == 0,
            f"vocoder.subframes is {self.subframes}; allowed are 1, 2 and 4, if they divide the mel's hop_length ({self.mel.hop_length})",
        )
        _require(
            self.mel.win_length == self.mel.n_fft and self.mel.n_fft % self.mel.hop_length == 0,
            f"a vocoder needs mel.win_length equal to n_fft, and n_fft a multiple of hop_length; got {self.mel.win_length}, "
            f"{self.mel.n_fft} and {self.mel.hop_length}",
        )
        _require(self.n_corrections >= 0, f"vocoder.n_corrections is {self.n_corrections}; it must not be negative")


@dataclass(frozen=True)
class PerturbConfig:
    """What is done to the content encoder's input, and to nothing else."""

    warp: float = 0.25
    tilt_db: float = 6.0
    gain_db: float = 6.0
    noise_db: float = 40.0
    mask_probability: float = 0.5
    mask_max_s: float = 0.3

    def __post_init__(self) -> None:
        _require(0 <= self.warp < 1, f"perturb.warp is {self.warp}; allowed are 0 to 1, as a share of the frequency")
        _require(0 <= self.mask_probability <= 1, f"perturb.mask_probability is {self.mask_probability}; allowed are 0 to 1")


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

    def __post_init__(self) -> None:
        _require(self.crop_s > 0 and self.reference_s > 0, "data.crop_s and data.reference_s must be positive, in s")
        _require(self.batch_size > 0, f"data.batch_size is {self.batch_size}; it must be positive")


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast and where to."""

    output_dir: str = "runs/default"
    seed: int = 0
    max_steps: int = 10000
    warmup_steps: int = 200
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    precision: str = "bf16"
    threads: int = 0
    log_every: int = 50
    validate_every: int = 500
    validation_batches: int = 4
    save_every: int = 500

    def __post_init__(self) -> None:
        _require(self.precision in ("bf16", "no"), f"train.precision is {self.precision!r}; allowed are 'bf16' and 'no'")
        _require(self.max_steps > 0, f"train.max_steps is {self.max_steps}; it must be positive")
        _require(self.learning_rate > 0, f"train.learning_rate is {self.learning_rate}; it must be positive")


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
        _require(self.trained in ("all", "decoder"), f"trained is {self.trained!r}; allowed are 'all' and 'decoder'")
        for name in ("kl_weight", "free_bits", "kl_warmup_steps"):
            _require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must not be negative")
        _require(
            self.kl_weight == 0 or self.model.content.variational,
            f"kl_weight is {self.kl_weight}, but there is nothing to weigh; set model.content.variational to true",
        )


@dataclass(frozen=True)
class LadderRecipe:
    """All numbers of `recipes/ladder`."""

    # What the rungs have in common; its content.latent_dim and kl_weight are each rung's own.
    autoencoder: AutoencoderRecipe
    # Numbers a step of the plain rungs.
    dims: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    # KL weights of the variational rungs, which start from the plain one of so many numbers, and their steps.
    kl_weights: tuple[float, ...] = ()
    variational_dim: int = 16
    variational_steps: int = 250
    # Where the plain rungs are joined, and what stands beside them.
    output: str = "runs/ladder/ladder.safetensors"
    info: Mapping[str, Any] = field(default_factory=dict)
    # Measured on: a CSV with the columns path and split.
    manifest: str = "DATA/manifest.csv"
    split: str = "dev"
    # Recordings of at least so long that are made into sound and judged, and batches of training data that PCA is fitted on.
    n_files: int = 10
    min_s: float = 3.0
    pca_batches: int = 60
    seed: int = 0
    output_dir: str = "out/ladder"

    def __post_init__(self) -> None:
        _require(
            len(self.dims) > 0 and all(1 <= n <= 1024 for n in (*self.dims, self.variational_dim)),
            f"dims is {self.dims} and variational_dim {self.variational_dim}; give at least one, each of 1 to 1024",
        )
        _require(len(set(self.dims)) == len(self.dims), f"dims is {self.dims}; each may stand there once")
        _require(all(w >= 0 for w in self.kl_weights), f"kl_weights is {self.kl_weights}; none may be negative")
        _require(
            not self.kl_weights or self.variational_dim in self.dims,
            f"variational_dim is {self.variational_dim}, which is none of dims ({self.dims}); add it there",
        )
        for name in ("n_files", "pca_batches", "variational_steps"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be positive")


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
    # Share of the frames under masks, about, and the length of a mask.
    mask_share: float = 0.4
    mask_s: float = 0.16
    # Weight of the frames under masks over that of the others.
    mask_weight: float = 2.0
    # Blocks between the latent and the prediction; they are not kept.
    predictor_blocks: int = 3
    # A checkpoint that lends the other parts' weights, and the mel's normalisation; and one to start from, which brings all.
    borrowed: str | None = "default"
    initial: str | None = None

    def __post_init__(self) -> None:
        _require(0 < self.mask_share < 1, f"mask_share is {self.mask_share}; it must lie between 0 and 1")
        _require(self.mask_s > 0, f"mask_s is {self.mask_s}; it must be positive, in s")
        _require(self.n_targets > 1, f"n_targets is {self.n_targets}; at least 2 are needed")


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
class NoisingConfig:
    """What clean speech is spoilt with, to learn to mend it: shares of the crops, from 0 to 1."""

    # What recipes/denoise/prepare.py wrote: noises and rooms.
    bank: str = "cache/noise.safetensors"
    snr_min_db: float = -5.0
    snr_max_db: float = 20.0
    no_noise: float = 0.08
    # Of the noises: from the bank, made by random filters, and other voices; a second one joins some.
    recorded: float = 0.5
    synthetic: float = 0.35
    second: float = 0.4
    room: float = 0.25
    band_limit: float = 0.1
    codec: float = 0.08

    def __post_init__(self) -> None:
        _require(
            self.snr_min_db <= self.snr_max_db,
            f"noising.snr_min_db is {self.snr_min_db}; it must not be above snr_max_db ({self.snr_max_db})",
        )
        for name in ("no_noise", "recorded", "synthetic", "second", "room", "band_limit", "codec"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"noising.{name} is {value}; allowed are 0 to 1, as a share")
        _require(
            self.recorded + self.synthetic <= 1,
            f"noising.recorded and synthetic are {self.recorded} and {self.synthetic}; together they are at most 1",
        )


@dataclass(frozen=True)
class DenoiseRecipe:
    """All numbers of `recipes/denoise/train.py`."""

    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    noising: NoisingConfig = field(default_factory=NoisingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    # Of the spectrum with its phases, over 1 less it for magnitudes alone.
    phase_share: float = 0.3
    # Of the distance of the filtered sound's log-mel, and of the restored mel's.
    sound_mel_weight: float = 0.1
    mel_weight: float = 0.2
    # Of the base-10 logarithm of what is wrong with the filtered sound, sample by sample, as a share of the speech's power.
    error_weight: float = 0.0
    # Carry on from a checkpoint of this recipe.
    initial: str | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.phase_share <= 1, f"phase_share is {self.phase_share}; allowed are 0 to 1")


@dataclass(frozen=True)
class NoiseBankRecipe:
    """What `recipes/denoise/prepare.py` makes the noises and rooms of."""

    # CSV with the columns path, class and fold.
    sounds: str
    output: str = "cache/noise.safetensors"
    # Folds that are kept for the test.
    held_out: tuple[int, ...] = (5,)
    n_rooms: int = 600
    room_s: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.n_rooms >= 1, f"n_rooms is {self.n_rooms}; at least 1 is needed")
        _require(0.05 <= self.room_s <= 4, f"room_s is {self.room_s}; allowed are 0.05 to 4")


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
    systems: tuple[str, ...] = ("ours", "ours-restored", "noisereduce", "noisereduce-stationary", "rnnoise")
    # Conditions without noise: clean, and each kind of damage.
    others: tuple[str, ...] = ("clean", "room", "telephone", "opus")
    denoiser: str = "denoiser"
    output_dir: str = "out/denoise"
    # Have what was made judged (extra `eval`); otherwise it is written and listed alone.
    judge: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.per_speaker >= 1, f"per_speaker is {self.per_speaker}; at least 1 is needed")
        _require(0 < self.min_s < self.max_s, f"min_s is {self.min_s} and max_s {self.max_s}; 0 < min_s < max_s is needed")


@dataclass(frozen=True)
class CodecRecipe:
    """All numbers of `recipes/codec/train.py`."""

    model: CodecConfig = field(default_factory=CodecConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    # What a kilobit a second may cost in squared dB at the lowest and at the highest quality; between them it falls geometrically.
    rate_weight: float = 16.0
    final_rate_weight: float = 0.04
    # Errors this far under the loudest of the spectrogram count half of what they could, in dB, and none less than the share.
    masked_db: float = 50.0
    masked_share: float = 0.2
    # Carry on from a checkpoint of this recipe.
    initial: str | None = None

    def __post_init__(self) -> None:
        _require(
            0 < self.final_rate_weight <= self.rate_weight,
            f"final_rate_weight is {self.final_rate_weight}; it must be above 0 and at most rate_weight ({self.rate_weight})",
        )
        _require(0 <= self.masked_share <= 1, f"masked_share is {self.masked_share}; allowed are 0 to 1")


@dataclass(frozen=True)
class PolishRecipe:
    """All numbers of `recipes/codec/polish.py`."""

    model: PolishConfig = field(default_factory=PolishConfig)
    base: str = "vq"
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    critic_channels: int = 24
    adversarial_weight: float = 0.2
    feature_weight: float = 1.0


@dataclass(frozen=True)
class CodecReleaseRecipe:
    """What `recipes/codec/release.py` turns networks in training into."""

    networks: str
    output: str
    polish: str | None = None
    # How much of what the polish changes is kept: more sounds better, less keeps the voice and the words better.
    polish_strength: float = 1.0
    cache: str = "cache/train"
    # Of the speaker embedding.
    speaker_bytes: int = 32
    # Of what is left of the average spectrum.
    timbre_bytes: int = 16
    speaker_utterances: int = 4000
    # Utterances that the average spectrum is looked at in.
    timbre_utterances: int = 250
    # Utterances that rates and phases are counted on.
    utterances: int = 60
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(
            min(self.speaker_bytes, self.timbre_bytes) >= 1 and self.speaker_bytes + self.timbre_bytes <= 64,
            f"speaker_bytes is {self.speaker_bytes} and timbre_bytes {self.timbre_bytes}; they must be at least 1, and 64 together at most",
        )
        _require(self.utterances > 0, f"utterances is {self.utterances}; it must be positive")
        _require(0 <= self.polish_strength <= 1, f"polish_strength is {self.polish_strength}; allowed are 0 to 1")


@dataclass(frozen=True)
class SwapRecipe:
    """All settings of `recipes/speaker_swap`."""

    first: str
    second: str
    output_dir: str = "out/speaker_swap"
    pitch: str = "auto"
    seed: int = 0
    checkpoint: str = "default"


@dataclass(frozen=True)
class FinetuneRecipe:
    """All settings of `recipes/finetune`."""

    # A folder of recordings of one voice, and the name it is saved under.
    clips: str
    name: str
    checkpoint: str = "default"
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    crop_s: float = 1.6
    reference_s: float = 2.4
    batch_size: int = 16
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class EvaluateRecipe:
    """All settings of `recipes/evaluate`."""

    # CSV with the columns path, speaker, split, duration_s[, transcript].
    manifest: str
    split: str = "dev"
    n_pairs: int = 132
    seed: int = 0
    min_s: float = 1.5
    # Have the conversions judged; otherwise they are made and listed alone.
    judge: bool = True
    # Seconds of the target that the systems hear; one clip when 0.
    reference_s: float = 0.0
    systems: tuple[str, ...] = ("vcae", "world-statistics", "world-nearest", "target")
    match: str = "auto"
    detail: str | float = "auto"
    checkpoint: str = "default"
    output_dir: str = "out/evaluate"


@dataclass(frozen=True)
class UnitsRecipe:
    """All settings of `recipes/units`."""

    # CSV with the columns path, speaker, split, duration_s and transcript.
    manifest: str
    split: str = "dev"
    checkpoints: tuple[str, ...] = ("vq",)
    # k-means on plain features, learned on recordings of another split, and how many codes each has.
    peers: tuple[str, ...] = ("mfcc", "mfcc-cmvn", "mel", "mel-cmn")
    train_split: str = "train"
    train_utterances: int = 1500
    codebook_size: int = 256
    # At most so many tokens of a phone (in a context) of a speaker are compared.
    abx_tokens: int = 10
    # Sentences that several speakers of these corpora read; words are told apart across speakers.
    words_corpora: tuple[str, ...] = ("cmu_arctic",)
    words_prompts: int = 150
    seed: int = 0
    output_dir: str = "out/units"

    def __post_init__(self) -> None:
        _require(self.codebook_size >= 2, f"codebook_size is {self.codebook_size}; at least 2 are needed")
        _require(self.abx_tokens >= 2, f"abx_tokens is {self.abx_tokens}; at least 2 are needed")


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
            _require(task in PROBE_TASKS, f"tasks has {task!r}; allowed are {', '.join(PROBE_TASKS)}")
        for name in ("train_per_speaker", "n_sentences", "n_prompts", "n_words", "draws", "bootstrap"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be positive")
        _require(
            self.sentence_s == 0 or self.sentence_s >= 0.3,
            f"sentence_s is {self.sentence_s}; allowed are 0 or 0.3 and more, in s",
        )


@dataclass(frozen=True)
class VoicePriorConfig:
    """The prior that new voices are drawn from: a small variational autoencoder of what describes a voice."""

    speaker_dim: int = 128
    # Of the quantiles of the mel bands, so many principal components.
    quantile_dim: int = 24
    latent_dim: int = 16
    width: int = 64

    def __post_init__(self) -> None:
        for name in ("speaker_dim", "quantile_dim", "latent_dim", "width"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be positive")

    @property
    def n_features(self) -> int:
        """Numbers that describe a voice: embedding, median and spread of log-F0, quantiles."""
        return self.speaker_dim + 2 + self.quantile_dim


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
    # Crops of each speaker, their length in seconds, and random groups of 2 to so many of them that are described.
    n_crops: int = 12
    crop_s: float = 4.0
    n_groups: int = 12
    group_size: int = 5
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
    # The KL term grows to its full weight over so many steps, and is free up to so many nats a latent.
    anneal_steps: int = 300
    free_nats: float = 0.02
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
    # How many voices are drawn to be judged, from so many sources; voices of how many clips of a training speaker are compared with.
    n_voices: int = 100
    n_sources: int = 10
    clips_per_speaker: int = 8
    # Conversions to real voices of the manifest's split, for comparison.
    split: str = "dev"
    n_real: int = 30
    # Conversions to voices of training speakers, spread evenly over the range of F0: real voices as low and high as those that are drawn.
    n_people: int = 30
    seed: int = 0
    output_dir: str = "out/generator"

    def __post_init__(self) -> None:
        for name in ("n_crops", "crop_s", "n_groups", "group_size", "max_steps", "batch_size", "learning_rate", "anneal_steps"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be positive")
        _require(self.hold_out_every > 1, f"hold_out_every is {self.hold_out_every}; it must be 2 or more")
        _require(self.free_nats >= 0, f"free_nats is {self.free_nats}; it must not be negative")


@dataclass(frozen=True)
class ReleaseRecipe:
    """All settings of `recipes/release`."""

    autoencoder: str
    vocoder: str
    output: str
    # The vocoder stays in the shipped checkpoint of that name, and is not copied.
    share_vocoder: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)


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
        _require(self.model in ANOMALY_MODELS, f"model is {self.model!r}; allowed are {', '.join(ANOMALY_MODELS)}")
        single = ANOMALY_MODELS[:-1]
        _require(
            bool(self.members) and all(m in single for m in self.members) and len(set(self.members)) == len(self.members),
            f"members are {', '.join(self.members) or 'none'}; allowed are {', '.join(single)}, each once",
        )
        _require(
            self.context % 2 == 1 and self.context >= 3, f"context is {self.context}; an odd number of frames from 3 is needed"
        )
        _require(self.crop >= 8, f"crop is {self.crop}; at least 8 frames are needed")
        _require(self.width > 0 and self.code > 0 and self.n_blocks > 0, "width, code and n_blocks must be positive")
        _require(2 <= self.folds <= 20, f"folds is {self.folds}; allowed are 2 to 20")
        _require(
            self.max_steps > 0 and self.batch_size > 0 and self.patience > 0 and self.look_every > 0,
            "max_steps, batch_size, patience and look_every must be positive",
        )
        _require(self.learning_rate > 0, f"learning_rate is {self.learning_rate}; it must be positive")
        robust = ("none", "trimmed", "rejection")
        _require(self.robust in robust, f"robust is {self.robust!r}; allowed are {', '.join(robust)}")
        _require(0 <= self.trim <= 0.5, f"trim is {self.trim}; allowed are 0 to 0.5, as a share of the recordings")
        _require(self.tail in ("gamma", "empirical"), f"tail is {self.tail!r}; allowed are 'gamma' and 'empirical'")
        _require(self.segment_s >= 1, f"segment_s is {self.segment_s}; at least 1 s is needed")

    @property
    def parts(self) -> tuple[str, ...]:
        """The members that are fitted: those of the combination, or the model alone."""
        return self.members if self.model == "combined" else (self.model,)


@dataclass(frozen=True)
class OthersRecipe:
    """The bank of other sounds that normal ones are told from: `recipes/anomaly/others.py`."""

    # CSV with the columns path, speaker, split and duration_s.
    speech: str | None = None
    speech_split: str = "train"
    n_speech: int = 300
    # Clips of one speaker at most.
    n_per_speaker: int = 2
    n_synthetic: int = 600
    seconds: float = 5.0
    seed: int = 0
    output: str = "vcae/anomaly/others.safetensors"

    def __post_init__(self) -> None:
        _require(
            self.n_speech >= 0 and self.n_synthetic >= 0 and self.n_speech + self.n_synthetic >= 2,
            f"n_speech is {self.n_speech} and n_synthetic {self.n_synthetic}; at least 2 sounds are needed in all",
        )
        _require(self.n_per_speaker > 0, f"n_per_speaker is {self.n_per_speaker}; it must be positive")
        _require(1 <= self.seconds <= 60, f"seconds is {self.seconds}; allowed are 1 to 60")


@dataclass(frozen=True)
class FaultsRecipe:
    """The network that finds faults in speech: `recipes/anomaly/learn_faults.py`."""

    # CSV with the columns path, split and duration_s.
    speech: str | None = None
    speech_split: str = "train"
    # Recordings to put faults into.
    n_speech: int = 2000
    crop_s: float = 3.0
    # A crop has none to this many.
    most_faults: int = 3
    max_steps: int = 2200
    batch_size: int = 12
    learning_rate: float = 2e-3
    # Of a faulty frame in the loss; a clean one has 1.
    fault_weight: float = 3.0
    seed: int = 0
    output: str = "vcae/anomaly/faults.safetensors"

    def __post_init__(self) -> None:
        _require(
            self.n_speech > 0 and self.max_steps > 0 and self.batch_size > 0,
            "n_speech, max_steps and batch_size must be positive",
        )
        _require(self.crop_s >= 2, f"crop_s is {self.crop_s}; at least 2 s are needed to put faults in")
        _require(0 <= self.most_faults <= 6, f"most_faults is {self.most_faults}; allowed are 0 to 6")
        _require(self.learning_rate > 0 and self.fault_weight > 0, "learning_rate and fault_weight must be positive")


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
        _require(self.by in UNKNOWN_SCORES, f"by is {self.by!r}; allowed are {', '.join(UNKNOWN_SCORES)}")
        _require(0 < self.held_out < 1, f"held_out is {self.held_out}; it is a share and must lie between 0 and 1")
        _require(0 <= self.strange <= 1, f"strange is {self.strange}; it is a share of a batch, 0 to 1")
        _require(0 < self.keep <= 1, f"keep is {self.keep}; it is a share, over 0 and up to 1")
        _require(
            self.width > 0 and self.n_blocks > 0 and self.embedding_dim > 0,
            "width, n_blocks and embedding_dim must be positive",
        )
        _require(self.max_steps > 0 and self.batch_size > 1, "max_steps must be positive, and batch_size 2 or more")
        _require(self.crop_s > 0 and self.learning_rate > 0, "crop_s, in s, and learning_rate must be positive")


ANOMALY_TASKS = ("machines", "sounds", "faults", "pollution", "thresholds", "openset")


@dataclass(frozen=True)
class AnomalyRecipe:
    """All settings of `recipes/anomaly`. A task whose manifest is null is left out."""

    # CSV with the columns path and label (`machine;normal` or `machine;abnormal`).
    machines: str | None = None
    # CSV with the columns path, class and fold.
    sounds: str | None = None
    # CSV with the columns path, speaker and split.
    speech: str | None = None
    tasks: tuple[str, ...] = ANOMALY_TASKS
    # Of every system of this project; a system is one of its models' names.
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
    # Of the DCASE baseline; 100 are published.
    baseline_epochs: int = 100
    # Normal clips of a machine are dealt out to so many folds.
    machine_folds: int = 5
    # Folds that are tested and classes that are the normal one in turn; all of them when empty.
    sound_folds: tuple[int, ...] = ()
    sound_classes: tuple[str, ...] = ()
    # Clips of each other class that are tested as anomalies, in a fold.
    sound_others: int = 8
    speech_split: str = "dev"
    fault_train: int = 60
    fault_test: int = 20
    # Shares of anomalies among the training recordings, and the ways to fit to them.
    pollution: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2)
    robust: tuple[str, ...] = ("none", "trimmed", "rejection")
    pollution_systems: tuple[str, ...] = ("combined",)
    cost_miss: float = 100.0
    cost_false_alarm: float = 1.0
    prior: float = 0.01
    # Draws of a dev and a test half of the scored recordings.
    threshold_splits: int = 50
    classes: OpenSetConfig = field(default_factory=OpenSetConfig)
    n_unknown: int = 3
    bootstrap: int = 1000
    seed: int = 0
    output_dir: str = "out/anomaly"

    def __post_init__(self) -> None:
        for name, allowed in (("tasks", ANOMALY_TASKS), ("systems", ANOMALY_MODELS), ("pollution_systems", ANOMALY_MODELS)):
            unknown = sorted(set(getattr(self, name)) - set(allowed))
            _require(not unknown, f"{name} has {', '.join(unknown)}; allowed are {', '.join(allowed)}")
        _require(self.machine_folds >= 2, f"machine_folds is {self.machine_folds}; at least 2 are needed")
        _require(
            all(0 <= p < 0.5 for p in self.pollution), f"pollution is {self.pollution}; allowed are shares from 0 to under .5"
        )
        _require(self.bootstrap > 0 and self.threshold_splits > 0, "bootstrap and threshold_splits must be positive")


def _cast(annotation: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(annotation)
        if value is None and type(None) in options:
            return None
        wanted = [o for o in options if o is not type(None)]
        fitting = next((o for o in wanted if isinstance(o, type) and type(value) is o), wanted[-1])
        return _cast(fitting, value, where)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return from_dict(annotation, value, where)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is tuple and isinstance(value, list | tuple):
        # YAML has lists where a frozen config has tuples of one type.
        return tuple(_cast(typing.get_args(annotation)[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    expected = origin or annotation
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        name = getattr(expected, "__name__", str(expected))
        raise ConfigError(f"{where} is {value!r}; a value of type {name} is needed")
    return value


def from_dict(cls: type[T], values: Any, where: str = "") -> T:
    """Build a config dataclass from plain data, strictly.

    Args:
        cls: A dataclass of this module.
        values: Nested mappings, as YAML or JSON gives them. A missing key takes the dataclass's default.
        where: Prefix for messages, such as `model.content`.

    Returns:
        The checked dataclass.

    Raises:
        ConfigError: For an unknown key (the nearest valid one is named), a wrong type, or a value out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the configuration'} is {values!r}; a mapping of names to values is needed")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    made = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            raise ConfigError(f"unknown key {path}; the nearest valid key is {near[0]}, all are {', '.join(known)}")
        made[key] = _cast(hints[key], value, path)
    missing = [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.name not in made and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where or 'the configuration'} lacks {', '.join(missing)}; all keys are {', '.join(known)}")
    return cls(**made)


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config dataclass into nested plain data that `from_dict` reads back."""
    return dataclasses.asdict(config)


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    import yaml

    if path in seen:
        raise ConfigError(f"{path} is its own base; break the circle {' -> '.join(map(str, (*seen, path)))}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}; a mapping of names to values is needed")
    base = values.pop("base", None)
    return values if base is None else _merge(_read_yaml(path.parent / str(base), (*seen, path)), values)


def load_config(cls: type[T], path: str | Path, overrides: list[str] | None = None) -> T:
    """Read a YAML file into a config dataclass.

    Args:
        cls: A dataclass of this module.
        path: The YAML file. A top-level `base: other.yaml` names a file whose values this one changes.
        overrides: Settings such as `train.max_steps=100`; the right side is YAML.

    Returns:
        The checked dataclass.

    Raises:
        ConfigError: If the file cannot be read, or for anything `from_dict` refuses.
    """
    import yaml

    values = _read_yaml(Path(path))
    for item in overrides or []:
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"override {item!r} has no '='; write it as section.name=value")
        nested: Any = yaml.safe_load(text)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values = _merge(values, nested)
    return from_dict(cls, values)
