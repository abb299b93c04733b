"""Decoding of content, F0 and a speaker embedding to a mel, at once or by sections."""

from __future__ import annotations

from torch import Tensor

from vcae.audio.sections import LazySections, Sections
from vcae.engine.engine import Engine
from vcae.model.decoder import Decoder, log_f0_mean
from vcae.model.reference import Reference


def decode_voice(
    model: Engine,
    latent: Tensor,
    f0: Tensor,
    speaker_embedding: Tensor,
    decoder: Decoder | None = None,
    f0_mean: Tensor | None = None,
    reference: Reference | None = None,
) -> Tensor:
    """Decode content (1, D, ceil(T / stride)) and F0 (1, T) to a log-mel (1, n_mels, T), with a voice's own decoder if it has one.

    For a section, `f0_mean` (1, 1) is the mean log-F0 of the whole recording. `reference` is for the decoder's attention.
    """
    autoencoder = model.autoencoder
    mel: Tensor = (decoder or autoencoder.decoder)(
        latent, f0.shape[-1], speaker_embedding, f0, f0_mean=f0_mean, reference=reference
    )
    return mel * autoencoder.mel_deviation + autoencoder.mel_mean


def decode_sections(
    model: Engine,
    latent: Sections,
    f0: Tensor,
    speaker_embedding: Tensor,
    decoder: Decoder | None = None,
    f0_mean: Tensor | None = None,
    reference: Reference | None = None,
) -> LazySections:
    """Apply `decode_voice` by sections: content of ceil(T / stride) steps and F0 (1, T) to a mel of T frames.

    `f0_mean` (1, 1) is the mean log-F0 to which F0 is relative, that of `f0` when None; `reference` as in `decode_voice`.
    """
    stride, mean = model.autoencoder.config.content.stride, log_f0_mean(f0) if f0_mean is None else f0_mean
    reach = (decoder or model.autoencoder.decoder).reach

    def compute(start: int, stop: int) -> Tensor:
        code = latent.read(start // stride, -(-stop // stride))
        return decode_voice(model, code, f0[:, start:stop], speaker_embedding, decoder, mean, reference)

    return LazySections(f0.shape[-1], compute, reach, stride)
