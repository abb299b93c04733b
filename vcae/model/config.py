"""Settings of the networks, as stored in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from vcae.audio.config import MelConfig
from vcae.config import at_least, one_of, positive, require, within


@dataclass(frozen=True)
class ContentConfig:
    """Settings of the content encoder."""

    width: int = 256
    n_blocks: int = 5
    latent_dim: int = 12
    stride: int = 2
    # Number of blocks followed by instance normalisation; 0 also turns off normalisation of the input (plain autoencoder).
    n_normalized: int = 3
    normalize_latent: bool = False
    # Standard deviation of the noise added to the latent in training; with a normalised latent it bounds the bits per frame.
    latent_noise: float = 0.0
    # Pool by `stride` before the blocks without instance normalisation instead of after them, which enlarges their receptive field.
    early_pool: bool = False
    # Project the last block's output to latent_dim; without it the latent is that output, and latent_dim must equal width.
    project: bool = True
    # Gaussian bottleneck: the latent is its mean, and in training the decoder gets a sample of it.
    variational: bool = False

    def __post_init__(self) -> None:
        require(
            not self.variational or (self.project and self.latent_noise == 0),
            "content.variational needs content.project, and content.latent_noise 0, as its noise is learned",
        )
        require(
            self.project or self.latent_dim == self.width,
            f"content.latent_dim is {self.latent_dim}; without content.project it must be content.width ({self.width})",
        )
        one_of(self, (1, 2, 4), "stride", where="content")
        require(
            0 <= self.n_normalized <= self.n_blocks,
            f"content.n_normalized is {self.n_normalized}; allowed are 0 to n_blocks ({self.n_blocks})",
        )
        at_least(self, 0, "latent_noise", where="content")


@dataclass(frozen=True)
class QuantizerConfig:
    """Settings of the discrete code in the content bottleneck."""

    # vq: n_stages residual codebooks; binary: one bit per channel; onehot: one channel of all.
    kind: str = "vq"
    codebook_size: int = 256
    n_stages: int = 1
    # Fraction of the training items that use only the first stages, up to a random one.
    stage_dropout: float = 0.5
    # Decay per batch of the codebooks' exponential moving average.
    ema_decay: float = 0.99
    # A code is restarted when the moving average of latents per batch assigned to it is lower than this.
    dead_code_threshold: float = 0.5
    # Softmax temperature of the one-hot code in training: start, end, and the number of batches in between.
    temperature: float = 2.0
    final_temperature: float = 0.5
    temperature_steps: int = 2000

    def __post_init__(self) -> None:
        kinds = ("vq", "binary", "onehot")
        one_of(self, kinds, "kind", where="quantizer")
        within(self, 2, 65536, "codebook_size", where="quantizer")
        within(self, 1, 32, "n_stages", where="quantizer")
        require(
            self.n_stages == 1 or self.kind == "vq",
            f"quantizer.n_stages is {self.n_stages}; only kind vq has several stages",
        )
        within(self, 0, 1, "stage_dropout", "ema_decay", where="quantizer")
        positive(self, "dead_code_threshold", "temperature", "final_temperature", "temperature_steps", where="quantizer")


@dataclass(frozen=True)
class ProsodyConfig:
    """Settings of the prosody predictor, which gives units a duration and F0 when there is no source."""

    width: int = 128
    n_blocks: int = 4


@dataclass(frozen=True)
class SpeakerConfig:
    """Settings of the speaker encoder."""

    width: int = 192
    n_blocks: int = 3
    speaker_dim: int = 128


@dataclass(frozen=True)
class DecoderConfig:
    """Settings of the decoder from content, speaker and F0 back to a mel."""

    width: int = 256
    n_blocks: int = 8
    use_f0: bool = True
    # Blocks, counted from 1, after which frames attend to the reference; empty: the voice is given by its embedding only.
    attention: tuple[int, ...] = ()
    # Width and number of blocks of the encoder of the reference's mel.
    reference_width: int = 192
    reference_blocks: int = 2

    def __post_init__(self) -> None:
        require(
            all(1 <= n <= self.n_blocks for n in self.attention) and len(set(self.attention)) == len(self.attention),
            f"decoder.attention is {self.attention}; different blocks from 1 to n_blocks ({self.n_blocks}) are needed",
        )
        require(
            not self.attention or self.width % 4 == 0,
            f"decoder.width is {self.width}; with attention, a multiple of its 4 heads is needed",
        )


@dataclass(frozen=True)
class AutoencoderConfig:
    """Settings of the whole autoencoder. With `speaker: null` it is a plain one, whose code is not split into content and speaker."""

    mel: MelConfig = field(default_factory=MelConfig)
    content: ContentConfig = field(default_factory=ContentConfig)
    speaker: SpeakerConfig | None = field(default_factory=SpeakerConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    # Discrete code instead of the continuous latent, and the predictor of its durations and F0 without a source.
    quantizer: QuantizerConfig | None = None
    prosody: ProsodyConfig | None = None

    def __post_init__(self) -> None:
        require(
            self.prosody is None or self.quantizer is not None, "prosody needs a quantizer; set quantizer, or prosody to null"
        )
        require(
            self.speaker is not None or not self.decoder.attention,
            f"decoder.attention is {self.decoder.attention}, but a plain autoencoder has no reference; set it to [], or give speaker",
        )
        require(
            self.quantizer is None or not self.content.variational,
            "content.variational and a quantizer exclude each other; set quantizer to null, or content.variational to false",
        )


@dataclass(frozen=True)
class DenoiserConfig:
    """Settings of the denoiser."""

    sample_rate: int = 16000
    # Samples of a frame, and between frames.
    n_fft: int = 512
    hop_length: int = 256
    # Bands of the gains; the lowest of them are single bins.
    n_bands: int = 80
    n_low: int = 32
    # Channels of the convolutions; features and number of the recurrent layers.
    channels: int = 16
    width: int = 128
    n_layers: int = 3
    # Frames before a frame whose mean level is a feature.
    n_past: int = 62
    # Lags of the cosine transform of the spectrum.
    n_lags: int = 48

    def __post_init__(self) -> None:
        names = ("sample_rate", "hop_length", "n_bands", "n_low", "channels", "width", "n_layers", "n_past", "n_lags")
        positive(self, *names, where="denoiser")
        require(
            self.n_fft % 8 == 0 and self.n_fft == 2 * self.hop_length and self.n_fft <= 4096,
            f"denoiser.n_fft is {self.n_fft}; twice the hop_length ({self.hop_length}), a multiple of 8 up to 4096, is needed",
        )
        require(
            self.width <= 1024 and self.channels <= 256 and self.n_layers <= 64 and self.n_past <= 4096 and self.n_lags <= 1024,
            f"denoiser.width is {self.width}, channels {self.channels}, n_layers {self.n_layers}, n_past {self.n_past} and n_lags "
            f"{self.n_lags}; up to 1024, 256, 64, 4096 and 1024 are allowed",
        )
        require(
            self.n_low < self.n_bands <= self.n_fft // 4 and self.n_bands % 4 == 0,
            f"denoiser.n_bands is {self.n_bands}; a multiple of 4 above n_low ({self.n_low}) and up to n_fft / 4 ({self.n_fft // 4}) "
            "is needed",
        )


@dataclass(frozen=True)
class VoicePriorConfig:
    """Settings of the prior for sampling new voices: a small variational autoencoder of voice features."""

    speaker_dim: int = 128
    # Principal components of the quantiles of the mel bands.
    quantile_dim: int = 24
    latent_dim: int = 16
    width: int = 64

    def __post_init__(self) -> None:
        positive(self, "speaker_dim", "quantile_dim", "latent_dim", "width")

    @property
    def n_features(self) -> int:
        """Number of features of a voice: embedding, median and standard deviation of log-F0, quantiles."""
        return self.speaker_dim + 2 + self.quantile_dim


@dataclass(frozen=True)
class TranscriberConfig:
    """Settings of the transcriber, which reads phones and letters from the content latent."""

    latent_dim: int = 64
    width: int = 96
    n_blocks: int = 4

    def __post_init__(self) -> None:
        positive(self, "latent_dim", "width", "n_blocks", where="transcriber")
