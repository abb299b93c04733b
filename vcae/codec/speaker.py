"""The voice in a few bytes: principal components of the speaker embedding, each rounded to one of its own levels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vcae.errors import BitstreamError

# What a further bit of a component divides its mean square error by: a little less than the 4 of a fine uniform step.
GAIN = 3.6
LLOYD_STEPS = 30


def fit_speaker_levels(embeddings: Tensor, n_bytes: int) -> dict[str, Tensor]:
    """Choose components and levels for embeddings.

    Args:
        embeddings: (N, D), of the training data.
        n_bytes: What one embedding may take.

    Returns:
        `mean` (D,), `basis` (D, K), `bits` (K,) int32, `levels` (K, 2 ** max bits), unused ones zero: what `SpeakerLevels` takes.

    Source: bits by reverse water-filling, Cover and Thomas, Elements of Information Theory, section 10.3; levels by Lloyd, Least squares
    quantization in PCM (1982).
    """
    data = embeddings.double().cpu().numpy()
    mean = data.mean(axis=0)
    variance, basis = np.linalg.eigh(np.cov((data - mean).T))
    variance, basis = variance[::-1].copy(), basis[:, ::-1]
    bits = np.zeros(len(variance), dtype=np.int64)
    for _ in range(8 * n_bytes):
        most = int(variance.argmax())
        bits[most] += 1
        variance[most] /= GAIN
    kept = int(np.flatnonzero(bits)[-1]) + 1
    seen = (data - mean) @ basis[:, :kept]
    levels = np.zeros((kept, 1 << int(bits.max())))
    for k in range(kept):
        levels[k, : 1 << bits[k]] = _lloyd(seen[:, k], 1 << int(bits[k]))
    return {
        "mean": torch.from_numpy(mean).float(),
        "basis": torch.from_numpy(basis[:, :kept].copy()).float(),
        "bits": torch.from_numpy(bits[:kept]).int(),
        "levels": torch.from_numpy(levels).float(),
    }


def _lloyd(values: np.ndarray, n: int) -> np.ndarray:
    levels = np.quantile(values, (np.arange(n) + 0.5) / n)
    for _ in range(LLOYD_STEPS):
        nearest = np.abs(values[:, None] - levels).argmin(axis=1)
        counts = np.bincount(nearest, minlength=n)
        sums = np.bincount(nearest, values, minlength=n)
        levels = np.where(counts > 0, sums / np.maximum(counts, 1), levels)
    fitted: np.ndarray = levels
    return fitted


class SpeakerLevels:
    """Speaker embeddings to bytes and back.

    Args:
        tensors: From `fit_speaker_levels`.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._mean, self._basis, self._levels = (tensors[name].float().cpu() for name in ("mean", "basis", "levels"))
        self._bits = [int(n) for n in tensors["bits"]]
        self.n_bytes = -(-sum(self._bits) // 8)

    @staticmethod
    def fit(tensors: Mapping[str, Tensor], speaker_dim: int) -> bool:
        """Say whether a file's `speaker.` tensors have shapes and bits that fit each other."""
        mean, basis, bits, levels = (tensors[f"speaker.{name}"] for name in ("mean", "basis", "bits", "levels"))
        n = bits.numel()
        if mean.shape != (speaker_dim,) or basis.shape != (speaker_dim, n) or bits.dim() != 1 or not n:
            return False
        return bool((bits >= 0).all()) and int(bits.max()) <= 16 and levels.shape == (n, 1 << int(bits.max()))

    def encode(self, embedding: Tensor) -> bytes:
        """Return the bytes of an embedding (1, D)."""
        seen = ((embedding[0].float().cpu() - self._mean) @ self._basis).tolist()
        total = 0
        for value, bits, levels in zip(seen, self._bits, self._levels, strict=True):
            total = total << bits | int((levels[: 1 << bits] - value).abs().argmin())
        return total.to_bytes(self.n_bytes, "big")

    def decode(self, data: bytes) -> Tensor:
        """Return the embedding (1, D), of unit norm.

        Raises:
            BitstreamError: For another number of bytes.
        """
        if len(data) != self.n_bytes:
            raise BitstreamError(
                f"the voice takes {len(data)} bytes and should take {self.n_bytes}; get a fresh copy of the file"
            )
        total, seen = int.from_bytes(data, "big"), []
        for bits, levels in zip(reversed(self._bits), reversed(list(self._levels)), strict=True):
            seen.append(levels[total & ((1 << bits) - 1)])
            total >>= bits
        embedding = self._mean + self._basis @ torch.stack(seen[::-1])
        return torch.nn.functional.normalize(embedding, dim=0)[None]
