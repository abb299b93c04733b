"""Settings of the networks, as a checkpoint keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field

from vcae.audio.config import MelConfig
from vcae.config import at_least, one_of, positive, require, within


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
        require(
            not self.variational or (self.project and self.latent_noise == 0),
            "content.variational needs content.project, and content.latent_noise 0: its own noise is learned",
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
    # After which blocks, counted from 1, frames look up the reference's; empty: the voice is its embedding alone.
    attention: tuple[int, ...] = ()
    # Of what is looked up: features of the reference's mel.
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
    """The whole autoencoder. `speaker: null` is the lecture notes' plain one: a single undivided code."""

    mel: MelConfig = field(default_factory=MelConfig)
    content: ContentConfig = field(default_factory=ContentConfig)
    speaker: SpeakerConfig | None = field(default_factory=SpeakerConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    # A discrete code instead of the continuous latent, and what reads it aloud without a source.
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
    # Samples of a frame, and from one frame to the next.
    n_fft: int = 512
    hop_length: int = 256
    # Of the convolutions over sub-bands, before and after; and how many of them on each side.
    channels: int = 32
    n_convs: int = 1
    # Bands, and numbers of each, that the blocks with memory see.
    n_bands: int = 24
    width: int = 48
    n_blocks: int = 3

    def __post_init__(self) -> None:
        positive(self, "sample_rate", "hop_length", "channels", "n_convs", "n_blocks", "width", where="denoiser")
        require(
            self.n_fft % 8 == 0 and self.n_fft == 2 * self.hop_length and self.n_fft <= 4096,
            f"denoiser.n_fft is {self.n_fft}; twice the hop_length ({self.hop_length}), a multiple of 8 up to 4096, is needed",
        )
        require(
            self.width <= 1024 and self.channels <= 1024 and self.n_blocks <= 64 and self.n_convs <= 64,
            f"denoiser.width is {self.width}, channels {self.channels}, n_blocks {self.n_blocks} and n_convs {self.n_convs}; "
            "up to 1024, 1024, 64 and 64 are allowed",
        )
        require(
            2 <= self.n_bands <= self.n_fft // 8,
            f"denoiser.n_bands is {self.n_bands}; from 2 to n_fft / 8 ({self.n_fft // 8}) is needed",
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
        positive(self, "speaker_dim", "quantile_dim", "latent_dim", "width")

    @property
    def n_features(self) -> int:
        """Numbers that describe a voice: embedding, median and spread of log-F0, quantiles."""
        return self.speaker_dim + 2 + self.quantile_dim
