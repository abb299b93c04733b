"""The voice in a few bytes: principal components of the speaker embedding and of the residual spectrum, each with its own quantisation levels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vcae.errors import BitstreamError

# Factor by which another bit reduces a component's mean squared error: a little less than the 4 of fine uniform quantisation.
GAIN = 3.6
LLOYD_STEPS = 30


def fit_levels(vectors: Tensor, n_bytes: int) -> dict[str, Tensor]:
    """Fit principal components and quantisation levels to vectors.

    Args:
        vectors: (N, D), vectors of the training data.
        n_bytes: Size of a coded vector.

    Returns:
        The tensors of `Levels`: `mean` (D,), `basis` (D, K), `bits` (K,) int32, `levels` (K, 2 ** max bits) with zeros where unused.

    Source: bits by reverse water-filling, Cover and Thomas, Elements of Information Theory, section 10.3; levels by Lloyd, Least squares
    quantization in PCM (1982).
    """
    data = vectors.double().cpu().numpy()
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


class Levels:
    """Quantiser of vectors to bytes and back.

    Args:
        tensors: From `fit_levels`.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._mean, self._basis, self._levels = (tensors[name].float().cpu() for name in ("mean", "basis", "levels"))
        self._bits = [int(n) for n in tensors["bits"]]
        self.n_bytes = -(-sum(self._bits) // 8)

    @staticmethod
    def fit(tensors: Mapping[str, Tensor], dim: int) -> bool:
        """Return whether the shapes and bits of a file's tensors are consistent."""
        mean, basis, bits, levels = (tensors[name] for name in ("mean", "basis", "bits", "levels"))
        n = bits.numel()
        if mean.shape != (dim,) or basis.shape != (dim, n) or bits.dim() != 1 or not n:
            return False
        return bool((bits >= 0).all()) and int(bits.max()) <= 16 and levels.shape == (n, 1 << int(bits.max()))

    def encode(self, vector: Tensor) -> bytes:
        """Return the bytes of a vector (1, D)."""
        seen = ((vector[0].float().cpu() - self._mean) @ self._basis).tolist()
        total = 0
        for value, bits, levels in zip(seen, self._bits, self._levels, strict=True):
            total = total << bits | int((levels[: 1 << bits] - value).abs().argmin())
        return total.to_bytes(self.n_bytes, "big")

    def decode(self, data: bytes) -> Tensor:
        """Return the vector (1, D).

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
        return (self._mean + self._basis @ torch.stack(seen[::-1]))[None]


class VoiceLevels:
    """Quantiser of a voice to bytes and back: its speaker embedding and, optionally, its timbre.

    Args:
        embedding: Quantiser of the speaker embedding.
        timbre: Quantiser of the timbre: the mean error of the base layer's mel over active frames, normalised per band.
    """

    def __init__(self, embedding: Levels, timbre: Levels) -> None:
        self._embedding, self._timbre = embedding, timbre

    def encode(self, embedding: Tensor, timbre: Tensor | None = None) -> bytes:
        """Return the bytes of an embedding (1, D), and of a timbre (1, n_mels) if there is one."""
        return self._embedding.encode(embedding) + (b"" if timbre is None else self._timbre.encode(timbre))

    def decode(self, data: bytes) -> tuple[Tensor, Tensor | None]:
        """Return the embedding (1, D), of unit norm, and the timbre (1, n_mels) or None.

        Raises:
            BitstreamError: For another number of bytes.
        """
        short, whole = self._embedding.n_bytes, self._embedding.n_bytes + self._timbre.n_bytes
        if len(data) not in (short, whole):
            raise BitstreamError(
                f"the voice takes {len(data)} bytes and should take {short} or {whole}; get a fresh copy of the file"
            )
        embedding = torch.nn.functional.normalize(self._embedding.decode(data[:short]), dim=1)
        return embedding, self._timbre.decode(data[short:]) if len(data) == whole else None
