"""The vocoder as an ONNX graph: the same computation in real numbers, as ONNX Runtime has no inverse STFT."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.vocoder.excitation import PitchTrack, pulse_train
from vcae.vocoder.neural import MAX_LOG_MAGNITUDE, HarmonicNoiseVocoder

INPUTS = ("mel", "log_f0", "voiced", "turns", "noise")
OPSET = 18


class _RealFourier(nn.Module):
    """STFT and inverse STFT with centred frames as convolutions; spectra are pairs of real and imaginary parts."""

    analysis: Tensor
    synthesis: Tensor
    overlap: Tensor

    def __init__(self, window: Tensor, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        n_bins, window = n_fft // 2 + 1, window.double()
        angle = 2 * math.pi / n_fft * torch.outer(torch.arange(n_bins), torch.arange(n_fft)).double()
        # Each bin except the first and the last also represents its mirror image.
        weight = torch.full((n_bins, 1), 2.0 / n_fft).double()
        weight[0] = weight[-1] = 1.0 / n_fft
        forward = torch.cat([angle.cos(), -angle.sin()]) * window
        backward = torch.cat([weight * angle.cos(), -weight * angle.sin()]) * window
        self.register_buffer("analysis", forward.float().unsqueeze(1))
        self.register_buffer("synthesis", backward.float().unsqueeze(1))
        self.register_buffer("overlap", window.square().float()[None, None])

    def forward(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        padded = F.pad(wav.unsqueeze(1), (self.n_fft // 2, self.n_fft // 2), mode="reflect")
        real, imaginary = F.conv1d(padded, self.analysis, stride=self.hop_length).chunk(2, dim=1)
        return real, imaginary

    def inverse(self, real: Tensor, imaginary: Tensor) -> Tensor:
        wav = F.conv_transpose1d(torch.cat([real, imaginary], dim=1), self.synthesis, stride=self.hop_length)
        weight = F.conv_transpose1d(torch.ones_like(real[:, :1]), self.overlap, stride=self.hop_length)
        middle = slice(self.n_fft // 2, -(self.n_fft // 2))
        return (wav[..., middle] / weight[..., middle]).squeeze(1)


class RealVocoder(nn.Module):
    """Vocoder in real arithmetic: its Fourier transforms are convolutions, its complex numbers pairs.

    Shape:
        - mel: (B, n_mels, T); log_f0, voiced, turns: (B, T), see `PitchTrack`; noise: (B, (T - 1) * hop_length)
        - output: (B, (T - 1) * hop_length)

    Args:
        vocoder: The vocoder that provides the weights.
    """

    def __init__(self, vocoder: HarmonicNoiseVocoder) -> None:
        super().__init__()
        self.vocoder = vocoder
        c, s = vocoder.config.mel, vocoder.config.subframes
        self.fourier = _RealFourier(vocoder.window, c.n_fft, c.hop_length)
        self.short_fourier = _RealFourier(vocoder.short_window, c.n_fft // s, c.hop_length // s)

    def forward(self, mel: Tensor, log_f0: Tensor, voiced: Tensor, turns: Tensor, noise: Tensor) -> Tensor:
        v, c = self.vocoder, self.vocoder.config
        envelope = v.envelope(mel)
        pulses = pulse_train(
            PitchTrack(log_f0, voiced, turns), noise.shape[-1], c.mel.sample_rate, c.mel.hop_length, c.harmonic_max_hz
        )
        # The last frame is at the end of the signal and has one subframe.
        harmonic, phase, breath = (x[..., : x.shape[-1] - (c.subframes - 1)] for x in v.predict(mel, log_f0, voiced))
        between = v.between(envelope)
        between = between[..., : between.shape[-1] - (c.subframes - 1)]
        gain = torch.exp((between + harmonic).clamp(max=MAX_LOG_MAGNITUDE))
        noise_gain = torch.exp((between + breath).clamp(max=MAX_LOG_MAGNITUDE))
        (a, b), (p, q) = self.short_fourier(pulses), self.short_fourier(noise)
        cos, sin = gain * phase.cos(), gain * phase.sin()
        wav = self.short_fourier.inverse(a * cos - b * sin + p * noise_gain, a * sin + b * cos + q * noise_gain)
        wanted, previous = v.spread_bands(mel), wav
        for _ in range(c.n_corrections):
            real, imaginary = self.fourier(wav + c.momentum * (wav - previous))
            previous = wav
            change = v.correction(wanted, (real.square() + imaginary.square()).sqrt())
            wav = self.fourier.inverse(real * change, imaginary * change)
        return wav


def export_onnx(vocoder: HarmonicNoiseVocoder, path: str | Path) -> None:
    """Write the vocoder as an ONNX file with inputs `mel`, `log_f0`, `voiced`, `turns`, `noise` and output `wav`.

    `PitchTrack.of` computes `log_f0`, `voiced` and `turns` from F0. Batch size and number of frames are dynamic. Needs the extra `export`.

    Args:
        vocoder: In evaluation mode.
        path: The .onnx file to write.
    """
    c = vocoder.config.mel
    frames = 64
    f0 = torch.full((2, frames), 120.0)
    pitch = PitchTrack.of(f0, c.sample_rate, c.hop_length)
    example = (
        torch.zeros(2, c.n_mels, frames),
        pitch.log_f0,
        pitch.voiced,
        pitch.turns,
        torch.randn(2, (frames - 1) * c.hop_length),
    )
    batch, time = torch.export.Dim("batch", min=1, max=256), torch.export.Dim("frames", min=8, max=1 << 20)
    shapes = ({0: batch, 2: time}, *({0: batch, 1: time},) * 3, {0: batch, 1: c.hop_length * time - c.hop_length})
    program = torch.onnx.export(
        RealVocoder(vocoder).eval(),
        example,
        input_names=list(INPUTS),
        output_names=["wav"],
        dynamic_shapes=shapes,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(path))
