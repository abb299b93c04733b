"""Noisy speech that another network, a teacher, has denoised before: recordings in shards that `recipes/denoise/teach.py` writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vcae.errors import DataError
from vcae.training.draws import Draws

NAMES = ("noisy", "clean", "taught", "features")
FULL_SCALE = 32767


@dataclass(frozen=True)
class Lesson:
    """Crops of noisy speech with what is to become of it.

    Attributes:
        noisy, clean: (B, N), at the same level.
        taught: (B, N), the teacher's output.
        features: (B, N // hop, D) of the teacher, one vector a frame, with a mean square of 1.
    """

    noisy: Tensor
    clean: Tensor
    taught: Tensor
    features: Tensor


class TaughtSpeech:
    """Opened shards, which stay on the disk; each has as many recordings as the others.

    Args:
        folder: Folder of the shards `*.safetensors`: noisy, clean and taught (R, N) int16, and features (R, N // hop + 1, D) float16.
        hop_length: Samples between the frames of the features.

    Raises:
        DataError: If the folder has no shard, or a shard cannot be used.
    """

    def __init__(self, folder: str | Path, hop_length: int) -> None:
        paths = sorted(Path(folder).glob("*.safetensors"))
        if not paths:
            raise DataError(f"there are no taught recordings in {folder}; make them with recipes/denoise/teach.py")
        self._hop, self._shards = hop_length, []
        for path in paths:
            try:
                opened: Any = safe_open(path, framework="np")
                shard = {name: opened.get_slice(name) for name in NAMES}
            except SafetensorError as error:
                raise DataError(f"{path} cannot be used ({error}); make it again with recipes/denoise/teach.py") from error
            self._shards.append(shard)
        shapes = {tuple(shard["noisy"].get_shape()) for shard in self._shards}
        self._rows, self._samples = min(shape[0] for shape in shapes), min(shape[1] for shape in shapes)
        self.dim: int = self._shards[0]["features"].get_shape()[2]

    def crops(self, n_rows: int, n_samples: int, draws: Draws) -> Lesson:
        """Draw random crops of a multiple of the hop.

        Raises:
            DataError: If the recordings are shorter.
        """
        hop = self._hop
        places = (self._samples - n_samples) // hop + 1
        if places < 1 or n_samples % hop:
            raise DataError(
                f"crops of {n_samples} samples are wanted of {self._samples}; a shorter multiple of {hop} is needed"
            )
        chosen = draws.uniform(n_rows, 3).double().numpy()
        found: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
        for shard, row, place in chosen:
            source = self._shards[int(shard * len(self._shards))]
            r, first = int(row * self._rows), int(place * places)
            for name in NAMES:
                step, n = (1, n_samples // hop) if name == "features" else (hop, n_samples)
                found[name].append(source[name][r : r + 1, first * step : first * step + n][0].astype(np.float32))
        crops = {name: torch.from_numpy(np.stack(rows)) for name, rows in found.items()}
        noisy, clean, taught = (crops[name] / FULL_SCALE for name in NAMES[:3])
        return Lesson(noisy, clean, taught, crops["features"])
