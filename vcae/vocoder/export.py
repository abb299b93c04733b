"""The vocoder in real numbers, for ONNX: the same computation, as ONNX Runtime has no inverse STFT."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.vocoder.excitation import PitchTrack, pulse_train
from vcae.vocoder.neural import MAX_LOG_MAGNITUDE, HarmonicNoiseVocoder


class RealFourier(nn.Module):
    """STFT and inverse STFT as convolutions; spectra are pairs of real and imaginary parts.

    The sines are computed in the graph from whole numbers, which keeps files small and the angles exact.

    Args:
        window: (n_fft,).
        n_fft: Samples of a frame.
        hop_length: Samples from frame to frame.
    """

    window: Tensor
    bins: Tensor
    samples: Tensor
    mirror: Tensor

    def __init__(self, window: Tensor, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        n_bins = n_fft // 2 + 1
        self.register_buffer("bins", torch.arange(n_bins)[:, None])
        self.register_buffer("samples", torch.arange(n_fft)[None])
        self.register_buffer("window", window.detach().clone())
        # Each bin except the first and the last also represents its mirror image.
        mirror = torch.full((n_bins, 1), 2.0 / n_fft)
        mirror[0] = mirror[-1] = 1.0 / n_fft
        self.register_buffer("mirror", mirror)

    def _waves(self) -> tuple[Tensor, Tensor]:
        angle = (self.bins * self.samples % self.n_fft).float() * (2 * math.pi / self.n_fft)
        return angle.cos() * self.window, -angle.sin() * self.window

    def forward(self, padded: Tensor) -> tuple[Tensor, Tensor]:
        """Return real and imaginary part (B, n_fft // 2 + 1, T) of a padded signal (B, (T - 1) * hop_length + n_fft)."""
        real, imaginary = self._waves()
        waves = torch.cat([real, imaginary]).unsqueeze(1)
        spectrum = F.conv1d(padded.unsqueeze(1), waves, stride=self.hop_length)
        n = self.n_fft // 2 + 1
        return spectrum[:, :n], spectrum[:, n:]

    def inverse(self, real: Tensor, imaginary: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the signal (B, T * hop_length) of a spectrum; frames where `present` (B, 1, T) is 0 are left out."""
        cosine, sine = self._waves()
        waves = (torch.cat([cosine, sine]) * torch.cat([self.mirror, self.mirror])).unsqueeze(1)
        there = torch.ones_like(real[:, :1]) if present is None else present
        spectrum = torch.cat([real, imaginary], dim=1) * there
        wav = F.conv_transpose1d(spectrum, waves, stride=self.hop_length)
        weight = F.conv_transpose1d(there, self.window.square()[None, None], stride=self.hop_length)
        half = self.n_fft // 2
        middle = slice(half, half + real.shape[-1] * self.hop_length)
        return (wav[..., middle] / weight[..., middle].clamp(min=1e-8)).squeeze(1)


def reflected(wav: Tensor, n_samples: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Pad a signal by reflection for centred frames, wherever it ends.

    Args:
        wav: (B, T * hop_length), of which the first `n_samples` count.
        n_samples: (1,) int64.
        n_fft: Samples of a frame.
        hop_length: Samples from frame to frame.

    Returns:
        (B, (T - 1) * hop_length + n_fft).
    """
    at = (torch.arange(wav.shape[-1] - hop_length + n_fft, device=wav.device) - n_fft // 2).abs()
    last = n_samples - 1
    return wav[:, torch.where(at > last, 2 * last - at, at).clamp(min=0)]


class RealVocoder(nn.Module):
    """Vocoder in real arithmetic: its Fourier transforms are convolutions, its complex numbers pairs.

    Shape:
        - mel: (B, n_mels, T); log_f0, voiced, turns: (B, T), see `PitchTrack`; noise: (B, T * hop_length)
        - n_samples: (1,) int64, length of the sound, from (T - 1) * hop_length to T * hop_length - 1
        - output: (B, T * hop_length), of which the first `n_samples` count

    Args:
        vocoder: The vocoder that provides the weights.
        n_corrections: Iterations that correct the mel; the vocoder's number when None.
    """

    def __init__(self, vocoder: HarmonicNoiseVocoder, n_corrections: int | None = None) -> None:
        super().__init__()
        self.vocoder = vocoder
        c, s = vocoder.config.mel, vocoder.config.subframes
        self.n_corrections = vocoder.config.n_corrections if n_corrections is None else n_corrections
        self.fourier = RealFourier(vocoder.window, c.n_fft, c.hop_length)
        self.short_fourier = RealFourier(vocoder.short_window, c.n_fft // s, c.hop_length // s)

    def forward(self, mel: Tensor, log_f0: Tensor, voiced: Tensor, turns: Tensor, noise: Tensor, n_samples: Tensor) -> Tensor:
        v, c = self.vocoder, self.vocoder.config
        n_fft, hop = c.mel.n_fft, c.mel.hop_length
        short_fft, short_hop = n_fft // c.subframes, hop // c.subframes
        pitch = PitchTrack(log_f0, voiced, turns)
        pulses = pulse_train(pitch, noise.shape[-1], c.mel.sample_rate, hop, c.harmonic_max_hz)
        harmonic, phase, breath = v.predict(mel, log_f0, voiced)
        between = v.between(v.envelope(mel))
        # The sound may end before the last subframes.
        frames = torch.arange(between.shape[-1], device=mel.device)
        present = (frames <= n_samples // short_hop).float()[None, None].expand(mel.shape[0], -1, -1)
        gain = torch.exp((between + harmonic).clamp(max=MAX_LOG_MAGNITUDE))
        noise_gain = torch.exp((between + breath).clamp(max=MAX_LOG_MAGNITUDE))
        (a, b), (p, q) = (self.short_fourier(reflected(x, n_samples, short_fft, short_hop)) for x in (pulses, noise))
        cos, sin = gain * phase.cos(), gain * phase.sin()
        wav = self.short_fourier.inverse(a * cos - b * sin + p * noise_gain, a * sin + b * cos + q * noise_gain, present)
        wanted, previous = v.spread_bands(mel), wav
        for _ in range(self.n_corrections):
            moved = reflected(wav + c.momentum * (wav - previous), n_samples, n_fft, hop)
            real, imaginary = self.fourier(moved)
            previous = wav
            change = v.correction(wanted, (real.square() + imaginary.square() + 1e-12).sqrt())
            wav = self.fourier.inverse(real * change, imaginary * change)
        return wav
