"""The parts of a checkpoint as modules that can be written as ONNX: fixed inputs, real numbers, and no decisions that depend on values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.audio.config import MelConfig
from vcae.audio.loudness import PEAK_LIMIT
from vcae.audio.mel import LogMel
from vcae.audio.watermark import CELL_S, N_CELLS, Marker
from vcae.model.autoencoder import Autoencoder
from vcae.model.denoiser import COMPRESSION, FLOOR, GAIN_POWER, SMALLEST_POWER, Denoiser
from vcae.model.reference import Reference
from vcae.model.remainder import N_COMPARED, compared_powers, noise_left
from vcae.vocoder.export import RealFourier, reflected
from vcae.voice.matching import VOICING_WEIGHT


class MelGraph(nn.Module):
    """Log-mel of a signal.

    Shape:
        - wav: (1, T * hop_length), zeros after the last sample; n_samples: (1,) int64, from (T - 1) * hop_length to T * hop_length - 1
        - mel: (1, n_mels, T), natural log magnitude

    Args:
        config: Settings of the mel.
    """

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.log_mel, self.config = LogMel(config), config
        self.fourier = RealFourier(self.log_mel.window, config.n_fft, config.hop_length)

    def forward(self, wav: Tensor, n_samples: Tensor) -> Tensor:
        real, imaginary = self.fourier(reflected(wav, n_samples, self.config.n_fft, self.config.hop_length))
        return self.log_mel.compress((real.square() + imaginary.square()).sqrt())


class ContentGraph(nn.Module):
    """Content encoder with its quantizer, if there is one.

    Shape:
        - mel: (1, n_mels, T); active: (1, 1, T), 1.0 in active frames
        - latent: (1, latent_dim, ceil(T / stride))

    Args:
        autoencoder: In evaluation mode.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, mel: Tensor, active: Tensor) -> Tensor:
        model = self.autoencoder
        latent: Tensor = model.content_encoder(model.normalize(mel), active)
        return latent if model.quantizer is None else model.quantizer.decode(model.quantizer.encode(latent))


class SpeakerGraph(nn.Module):
    """Speaker encoder, and the encoder of the sound of a reference's steps if the decoder attends to it.

    Shape:
        - mel: (1, n_mels, T); active: (1, 1, T)
        - speaker_embedding: (1, speaker_dim), unit norm

    Args:
        autoencoder: In evaluation mode.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder, self.encoder = autoencoder, autoencoder.the_speaker_encoder()

    def forward(self, mel: Tensor, active: Tensor) -> Tensor:
        embedding: Tensor = self.encoder(self.autoencoder.normalize(mel), active)
        return embedding


class ReferenceGraph(nn.Module):
    """Encoder of the sound of a reference's steps, for the decoder's attention.

    Shape:
        - mel: (1, n_mels, T)
        - values: (1, ceil(T / stride), reference_width)

    Args:
        autoencoder: In evaluation mode, with a decoder that attends to a reference.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, mel: Tensor) -> Tensor:
        encoder = self.autoencoder.decoder.reference_encoder
        assert encoder is not None
        values: Tensor = encoder(self.autoencoder.normalize(mel))
        return values


class DecoderGraph(nn.Module):
    """Decoder of a mel from content, F0 and a voice.

    Shape:
        - latent: (1, latent_dim, ceil(T / stride)); f0: (1, T) in Hz, 0 where unvoiced; f0_mean: (1, 1), mean log-F0 of the recording
        - speaker_embedding: (1, speaker_dim)
        - keys: (1, M, latent_dim), values: (1, M, reference_width), log_weights: (1, M), as of `Reference`
        - gate: (1, 1, 1), 1 to attend to the reference, 0 not to
        - mel: (1, n_mels, T)

    Args:
        autoencoder: In evaluation mode.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(
        self,
        latent: Tensor,
        f0: Tensor,
        f0_mean: Tensor,
        speaker_embedding: Tensor,
        keys: Tensor,
        values: Tensor,
        log_weights: Tensor,
        gate: Tensor,
    ) -> Tensor:
        reference = Reference(keys, values, log_weights)
        return self.autoencoder.decode(latent, f0, speaker_embedding, f0_mean=f0_mean, reference=reference, gate=gate)


class CorrectionGraph(nn.Module):
    """Correction of a decoded mel by the errors of the autoencoder on the reference, see `vcae.voice.matching.correct_errors`.

    Shape:
        - mel: (1, n_mels, T); latent: (1, latent_dim, ceil(T / stride)); f0: (1, T) in Hz, 0 where unvoiced
        - keys: (N, latent_dim + 1), values: (N, n_mels), log_weights: (N,), as of `Errors`
        - scale: (1,), twice the squared bandwidth times the width of the keys; strength: (1,), 0 to 1
        - corrected: (1, n_mels, T)

    Args:
        stride: Frames per step of the latent.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(
        self,
        mel: Tensor,
        latent: Tensor,
        f0: Tensor,
        keys: Tensor,
        values: Tensor,
        log_weights: Tensor,
        scale: Tensor,
        strength: Tensor,
    ) -> Tensor:
        code = latent[0].repeat_interleave(self.stride, dim=-1)[:, : f0.shape[-1]]
        queries = torch.cat([code, VOICING_WEIGHT * (f0 > 0).float()]).T
        squares = queries.square().sum(1, keepdim=True) + keys.square().sum(1) - 2 * queries @ keys.T
        means = torch.softmax(log_weights - squares.clamp(min=0) / scale, dim=-1) @ values
        return mel + strength * means.T.unsqueeze(0)


class WatermarkGraph(nn.Module):
    """Watermark of a whole sound, see `vcae.audio.watermark.Marker`.

    Shape:
        - wav: (1, T * 256), zeros after the last sample
        - marked: (1, T * 256)

    Args:
        sample_rate: Hz; a rate at which a frame has two hops of 256 samples.
    """

    gains: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        marker = Marker(sample_rate)
        self.hop, self.per_cell = marker.hop, round(CELL_S * sample_rate / marker.hop)
        self.fourier = RealFourier(torch.hann_window(2 * marker.hop).sqrt(), 2 * marker.hop, marker.hop)
        self.register_buffer("gains", torch.from_numpy(marker.gains()).float())

    def forward(self, wav: Tensor) -> Tensor:
        real, imaginary = self.fourier(F.pad(wav, (self.hop, self.hop)))
        frames = torch.arange(real.shape[-1], device=wav.device)
        gain = self.gains[frames // self.per_cell % N_CELLS].T
        marked = self.fourier.inverse(real * gain, imaginary * gain)
        return marked[:, : wav.shape[-1]].clamp(-PEAK_LIMIT, PEAK_LIMIT)


class DenoiserGraph(nn.Module):
    """Denoiser of a whole recording at its own rate.

    Shape:
        - wav: (1, T * hop_length), zeros after the last sample; strength: (1,), 0 (unchanged) to 1
        - clean: (1, T * hop_length); gains: (1, T), of the upper half of the band, one for each frame of two hops around each hop's start

    Args:
        network: In evaluation mode.
        first: First bin from which the gains are measured.
    """

    def __init__(self, network: Denoiser, first: int) -> None:
        super().__init__()
        self.network, self.first = network, first
        c = network.config
        self.fourier = RealFourier(network.window, c.n_fft, c.hop_length)

    def forward(self, wav: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        hop, half = self.network.config.hop_length, self.network.config.n_fft // 2
        real, imaginary = self.fourier(F.pad(wav, (half, half)))
        a, b = real, imaginary
        size = (a.square() + b.square()).sqrt() + FLOOR
        squeeze = size ** (COMPRESSION - 1)
        c, d = a * squeeze, b * squeeze
        gain = self.network.gains((c.square() + d.square() + SMALLEST_POWER).sqrt())[0] ** GAIN_POWER
        c, d = gain * c, gain * d
        expand = (c.square() + d.square()).sqrt().clamp(min=1e-8) ** (1 / COMPRESSION - 1)
        c, d = c * expand, d * expand
        speech, noise = ((x.square() + y.square()).sum(1) for x, y in ((c, d), (a - c, b - d)))
        left = noise_left(F.pad(compared_powers(speech, noise), (N_COMPARED - 1, 0)), strength)[:, None]
        c, d = c + left * (a - c), d + left * (b - d)
        last = half
        powers = [
            (x[:, self.first : last].square() + y[:, self.first : last].square()).sum(1) + 1e-9 for x, y in ((c, d), (a, b))
        ]
        gains = (powers[0] / powers[1]).sqrt().clamp(max=1.0)
        clean = self.fourier.inverse(c, d)[:, : wav.shape[-1]]
        return clean, gains[:, : wav.shape[-1] // hop]
