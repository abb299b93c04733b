"""The vocoder as an ONNX graph: the same computation in real numbers, as ONNX Runtime has no inverse STFT."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.vocoder.excitation import PitchTrack, pulse_train
from vcae.vocoder.neural import MAX_CORRECTION, MAX_LOG_MAGNITUDE, HarmonicNoiseVocoder

INPUTS = ("mel", "log_f0", "voiced", "turns", "noise")
OPSET = 18


class RealVocoder(nn.Module):
    """A vocoder whose Fourier transforms are convolutions and whose complex numbers are pairs.

    Shape:
        - mel: (B, n_mels, T); log_f0, voiced, turns: (B, T), see `PitchTrack`; noise: (B, (T - 1) * hop_length)
        - output: (B, (T - 1) * hop_length)

    Args:
        vocoder: Whose weights are used.
    """

    analysis: Tensor
    synthesis: Tensor
    overlap: Tensor

    def __init__(self, vocoder: HarmonicNoiseVocoder) -> None:
        super().__init__()
        self.vocoder = vocoder
        c = vocoder.config.mel
        n, n_bins = c.n_fft, c.n_fft // 2 + 1
        window = F.pad(vocoder.window.double(), ((n - c.win_length) // 2, (n - c.win_length + 1) // 2))
        angle = 2 * math.pi / n * torch.outer(torch.arange(n_bins), torch.arange(n)).double()
        # Each bin but the first and the last stands for its mirror image too.
        weight = torch.full((n_bins, 1), 2.0 / n).double()
        weight[0] = weight[-1] = 1.0 / n
        forward = torch.cat([angle.cos(), -angle.sin()]) * window
        backward = torch.cat([weight * angle.cos(), -weight * angle.sin()]) * window
        self.register_buffer("analysis", forward.float().unsqueeze(1))
        self.register_buffer("synthesis", backward.float().unsqueeze(1))
        self.register_buffer("overlap", window.square().float()[None, None])

    def forward(self, mel: Tensor, log_f0: Tensor, voiced: Tensor, turns: Tensor, noise: Tensor) -> Tensor:
        v, c = self.vocoder, self.vocoder.config
        harmonic, phase, breath = v.predict(mel, log_f0, voiced)
        envelope = v.envelope(mel)
        pulses = pulse_train(
            PitchTrack(log_f0, voiced, turns), noise.shape[-1], c.mel.sample_rate, c.mel.hop_length, c.harmonic_max_hz
        )
        gain = torch.exp((envelope + harmonic).clamp(max=MAX_LOG_MAGNITUDE))
        noise_gain = torch.exp((envelope + breath).clamp(max=MAX_LOG_MAGNITUDE))
        (a, b), (p, q) = self._stft(pulses), self._stft(noise)
        cos, sin = gain * phase.cos(), gain * phase.sin()
        real, imaginary = a * cos - b * sin + p * noise_gain, a * sin + b * cos + q * noise_gain
        last: tuple[Tensor, Tensor] | None = None
        for _ in range(c.n_corrections):
            now = self._stft(self._istft(real, imaginary))
            real, imaginary = now
            if last is not None:
                real, imaginary = real + c.momentum * (real - last[0]), imaginary + c.momentum * (imaginary - last[1])
            last = now
            change = torch.exp(v.lack(envelope, (real.square() + imaginary.square()).sqrt()))
            real, imaginary = real * change, imaginary * change
        return self._istft(real, imaginary)

    def _stft(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        c = self.vocoder.config.mel
        padded = F.pad(wav.unsqueeze(1), (c.n_fft // 2, c.n_fft // 2), mode="reflect")
        real, imaginary = F.conv1d(padded, self.analysis, stride=c.hop_length).chunk(2, dim=1)
        return real, imaginary

    def _istft(self, real: Tensor, imaginary: Tensor) -> Tensor:
        c = self.vocoder.config.mel
        wav = F.conv_transpose1d(torch.cat([real, imaginary], dim=1), self.synthesis, stride=c.hop_length)
        weight = F.conv_transpose1d(torch.ones_like(real[:, :1]), self.overlap, stride=c.hop_length)
        middle = slice(c.n_fft // 2, -(c.n_fft // 2))
        return (wav[..., middle] / weight[..., middle]).squeeze(1)


def export_onnx(vocoder: HarmonicNoiseVocoder, path: str | Path) -> None:
    """Write the vocoder as an ONNX file with inputs `mel`, `log_f0`, `voiced`, `turns`, `noise` and output `wav`.

    `PitchTrack.of` makes the three in the middle from F0. Batch and frames are free. Needs the extra `export`.

    Args:
        vocoder: In evaluation mode.
        path: Of the .onnx file.
    """
    c = vocoder.config.mel
    frames = 64
    f0 = torch.full((2, frames), 120.0)
    pitch = PitchTrack.of(f0, c.sample_rate, c.hop_length)
    example = (torch.zeros(2, c.n_mels, frames), pitch.log_f0, pitch.voiced, pitch.turns, torch.randn(2, (frames - 1) * c.hop_length))
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
