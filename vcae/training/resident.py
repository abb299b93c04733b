"""Batches from a prepared cache that is wholly in a device's memory: no process decodes or copies sound during the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from vcae.audio.f0 import SAMPLE_RATE
from vcae.training.config import DataConfig
from vcae.training.data import CropDataset, SpeechCache


class ResidentCrops:
    """Random crops of speech, cut on the device; the balance of speakers is that of `CropDataset`.

    An hour of speech takes 115 MB.

    Args:
        folder: Folder that `prepare_cache` wrote.
        config: Lengths, batch size, balance.
        seed: Determines every batch.
        device: Where the speech is kept.

    Raises:
        DataError: If the cache is missing or of another format, or the balance leaves no speaker.
    """

    def __init__(self, folder: str | Path, config: DataConfig, seed: int, device: torch.device) -> None:
        cache = SpeechCache(folder)
        self.config, self.seed, self.device = config, seed, device
        self._probabilities = CropDataset(cache, config, seed).probabilities
        self._audio, starts = _load(Path(folder), device)
        own = [u for utterances in cache.by_speaker for u in utterances]
        self._start = np.array([starts[u.shard] + u.start for u in own])
        self._length = np.array([u.n_samples for u in own])
        self._count = np.array([len(utterances) for utterances in cache.by_speaker])
        self._first = np.cumsum(self._count) - self._count

    def batch(self, index: int) -> dict[str, Tensor]:
        """Return a batch: `wav` (B, N) and `reference` (B, N'), two utterances of each speaker, or two crops of one; `index`; `part`."""
        rng, c = np.random.default_rng([self.seed, index]), self.config
        speakers = rng.choice(len(self._probabilities), c.batch_size, p=self._probabilities)
        count = self._count[speakers]
        one = (rng.random(c.batch_size) * count).astype(np.int64)
        other = (one + 1 + (rng.random(c.batch_size) * np.maximum(count - 1, 1)).astype(np.int64)) % count
        wav, reference = (
            self._cut(rng, self._first[speakers] + chosen, round(seconds * SAMPLE_RATE))
            for chosen, seconds in ((one, c.crop_s), (other, c.reference_s))
        )
        return {"wav": wav, "reference": reference, "index": torch.tensor(index), "part": torch.tensor([0, 1])}

    def _cut(self, rng: np.random.Generator, chosen: np.ndarray, n: int) -> Tensor:
        """Cut (B, n) out of utterances at random places; what a short one lacks is silence."""
        length = self._length[chosen]
        away = (rng.random(len(chosen)) * (np.maximum(length - n, 0) + 1)).astype(np.int64)
        first, left = (torch.from_numpy(x)[:, None].to(self.device) for x in (self._start[chosen] + away, length - away))
        at = torch.arange(n, device=self.device)
        found = self._audio[(first + at).clamp(max=len(self._audio) - 1)]
        return found.float() / 32767 * (at < left)


def _load(folder: Path, device: torch.device) -> tuple[Tensor, list[int]]:
    """Return the samples of all shards on a device, int16, and where each shard starts."""
    shards, starts, n = [], [], 0
    for path in sorted(folder.glob("shard-*.safetensors")):
        with safe_open(path, framework="pt") as opened:
            shards.append(opened.get_tensor("audio").to(device))
        starts.append(n)
        n += len(shards[-1])
    return torch.cat(shards), starts
