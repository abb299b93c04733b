"""The autoencoder: joins content encoder, speaker encoder and decoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vcae.audio.frames import active_frames, length_mask
from vcae.errors import ConfigError
from vcae.model.config import AutoencoderConfig
from vcae.model.content import ContentEncoder
from vcae.model.decoder import Decoder
from vcae.model.prosody import Prosody
from vcae.model.quantizer import Quantizer, QuantizerOutput, make_quantizer
from vcae.model.reference import Reference
from vcae.model.speaker import SpeakerEncoder
from vcae.model.variational import Gaussian


@dataclass(frozen=True)
class AutoencoderOutput:
    """Result of one forward pass.

    Attributes:
        mel: (B, n_mels, T), natural log magnitude.
        latent: (B, latent_dim, ceil(T / stride)), before quantisation.
        speaker_embedding: (B, speaker_dim), unit norm, or None for the plain autoencoder.
        quantization: The quantizer's output, or None without one.
        posterior: The Gaussian whose mean is the latent, or None if the latent is not variational.
    """

    mel: Tensor
    latent: Tensor
    speaker_embedding: Tensor | None
    quantization: QuantizerOutput | None = None
    posterior: Gaussian | None = None


class Autoencoder(nn.Module):
    """A spectrogram autoencoder whose code is split into content and speaker.

    Inputs and outputs are log-mels as `LogMel` makes them; the normalisation to zero mean and unit deviation per band
    (fixed statistics of the training data) is part of the module.

    Shape:
        - mel: (B, n_mels, T); f0: (B, T) in Hz, 0 where unvoiced; lengths: (B,) valid frames, or None
        - reference: (B, n_mels, T') mel of the voice to take
    """

    mel_mean: Tensor
    mel_deviation: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        n_mels, content = config.mel.n_mels, config.content
        self.content_encoder = ContentEncoder(content, n_mels)
        self.speaker_encoder = None if config.speaker is None else SpeakerEncoder(config.speaker, n_mels)
        speaker_dim = 0 if config.speaker is None else config.speaker.speaker_dim
        self.decoder = Decoder(config.decoder, config.mel, content.latent_dim, content.stride, speaker_dim)
        self.quantizer = None if config.quantizer is None else make_quantizer(config.quantizer, content.latent_dim)
        self.prosody = (
            None if config.prosody is None else Prosody(config.prosody, config.mel, content.latent_dim, content.stride)
        )
        self.register_buffer("mel_mean", torch.full((n_mels, 1), -5.0))
        self.register_buffer("mel_deviation", torch.full((n_mels, 1), 2.0))

    def normalize(self, mel: Tensor) -> Tensor:
        """Scale a log-mel (B, n_mels, T) to zero mean and unit deviation per band of the training data."""
        return (mel - self.mel_mean) / self.mel_deviation

    def encode_latent(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the content latent (B, latent_dim, ceil(T / stride)) of a log-mel (B, n_mels, T), before quantisation."""
        mask = None if lengths is None else length_mask(lengths, mel.shape[-1])
        latent: Tensor = self.content_encoder(self.normalize(mel), active_frames(mel, mask), mask)
        return latent

    def encode_posterior(self, mel: Tensor, lengths: Tensor | None = None) -> Gaussian:
        """Return the Gaussian of a variational latent (B, latent_dim, ceil(T / stride)) of a log-mel (B, n_mels, T).

        Raises:
            ConfigError: If the latent is not variational.
        """
        mask = None if lengths is None else length_mask(lengths, mel.shape[-1])
        return self.content_encoder.posterior(self.normalize(mel), active_frames(mel, mask), mask)

    def encode_content(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the decoder's content input (B, latent_dim, ceil(T / stride)) for a log-mel (B, n_mels, T), quantised if there is a quantizer."""
        latent = self.encode_latent(mel, lengths)
        if self.quantizer is None:
            return latent
        quantized = self.quantizer.decode(self.quantizer.encode(latent))
        if lengths is None:
            return quantized
        stride = self.config.content.stride
        return quantized * length_mask((lengths + stride - 1) // stride, quantized.shape[-1])

    def encode_units(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the codes (B, S, ceil(T / stride)) of a log-mel (B, n_mels, T), the coarsest stage first.

        Raises:
            ConfigError: If this autoencoder has no discrete code.
        """
        return self._the_quantizer().encode(self.encode_latent(mel, lengths))

    def decode_units(self, codes: Tensor) -> Tensor:
        """Return the decoder's content input (B, latent_dim, T) for codes (B, S, T) of all stages or of the first ones.

        Raises:
            ConfigError: For codes that this autoencoder does not have.
        """
        return self._the_quantizer().decode(codes)

    def _the_quantizer(self) -> Quantizer:
        if self.quantizer is None:
            raise ConfigError("this checkpoint has a continuous latent and no units; use the checkpoint 'vq'")
        return self.quantizer

    def encode_speaker(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the speaker embedding (B, speaker_dim), unit norm, of a log-mel (B, n_mels, T).

        Raises:
            ConfigError: If this is a plain autoencoder, which has no speaker part.
        """
        mask = None if lengths is None else length_mask(lengths, mel.shape[-1])
        embedding: Tensor = self.the_speaker_encoder()(self.normalize(mel), active_frames(mel, mask), mask)
        return embedding

    def the_speaker_encoder(self) -> SpeakerEncoder:
        """Return the speaker encoder.

        Raises:
            ConfigError: If this is a plain autoencoder, which has no speaker part.
        """
        if self.speaker_encoder is None:
            raise ConfigError("this checkpoint is a plain autoencoder without a speaker part; choose another to convert voices")
        return self.speaker_encoder

    def encode_reference(self, mel: Tensor) -> Reference | None:
        """Return what the decoder may look up in a log-mel (B, n_mels, T) of the voice to take; None where it looks up nothing."""
        encoder = self.decoder.reference_encoder
        if encoder is None:
            return None
        return Reference(self.encode_content(mel).transpose(1, 2), encoder(self.normalize(mel)))

    def decode(
        self,
        latent: Tensor,
        f0: Tensor,
        speaker_embedding: Tensor | None,
        lengths: Tensor | None = None,
        f0_mean: Tensor | None = None,
        reference: Reference | None = None,
        gate: Tensor | None = None,
    ) -> Tensor:
        """Decode to a log-mel (B, n_mels, T).

        Args:
            latent: (B, latent_dim, ceil(T / stride)).
            f0: (B, T) in Hz, 0 where unvoiced; sets T.
            speaker_embedding: (B, speaker_dim), or None for the plain autoencoder.
            lengths: (B,), valid frames, or None.
            f0_mean: (B, 1), mean log-F0 of the whole recording if `f0` is a section of it, or None.
            reference: From `encode_reference`, or None.
            gate: (B, 1, 1), scales the result of the attention to the reference, or None for 1.
        """
        mask = None if lengths is None else length_mask(lengths, f0.shape[-1])
        normalized: Tensor = self.decoder(latent, f0.shape[-1], speaker_embedding, f0, mask, f0_mean, reference, gate)
        return normalized * self.mel_deviation + self.mel_mean

    def forward(self, mel: Tensor, f0: Tensor, reference: Tensor | None = None) -> AutoencoderOutput:
        posterior = self.encode_posterior(mel) if self.config.content.variational else None
        latent = self.encode_latent(mel) if posterior is None else posterior.mean
        noise = self.config.content.latent_noise
        content = latent + noise * torch.randn_like(latent) if self.training and noise else latent
        if posterior is not None and self.training:
            content = posterior.sample()
        quantization: QuantizerOutput | None = None
        if self.quantizer is not None:
            quantization = self.quantizer(content)
            content = quantization.quantized
        speaker = None if self.speaker_encoder is None else self.encode_speaker(mel if reference is None else reference)
        return AutoencoderOutput(self.decode(content, f0, speaker), latent, speaker, quantization, posterior)
