"""Batches from a prepared cache. Batch i is a pure function of (seed, i): resuming needs no sampler state."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import Dataset

from vcae.audio.f0 import HOP_LENGTH, SAMPLE_RATE
from vcae.errors import DataError
from vcae.training.cache import INDEX_FORMAT
from vcae.training.config import DataConfig


@dataclass(frozen=True)
class Utterance:
    """Position of an utterance in the cache."""

    speaker: int
    shard: int
    start: int
    n_samples: int
    f0_start: int
    n_frames: int


class SpeechCache:
    """Opened cache: utterances by speaker, and crops of their audio and F0.

    Args:
        folder: Folder that `prepare_cache` wrote.

    Raises:
        DataError: If the cache is missing or of another format.
    """

    def __init__(self, folder: str | Path) -> None:
        root = Path(folder)
        try:
            index = json.loads((root / "index.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"no prepared cache in {root} ({error.strerror}); make it with recipes/prepare/cache.py") from error
        if index.get("format") != INDEX_FORMAT:
            raise DataError(
                f"the cache {root} has format {index.get('format')}; format {INDEX_FORMAT} is read: prepare it again"
            )
        self.speakers: list[str] = sorted({u["speaker"] for u in index["utterances"]})
        number = {name: i for i, name in enumerate(self.speakers)}
        corpus = {u["speaker"]: u["corpus"] for u in index["utterances"]}
        self.corpora = [corpus[name] for name in self.speakers]
        self.utterances = [
            Utterance(number[u["speaker"]], u["shard"], u["start"], u["n_samples"], u["f0_start"], u["n_frames"])
            for u in index["utterances"]
        ]
        self.by_speaker: list[list[Utterance]] = [[] for _ in self.speakers]
        for utterance in self.utterances:
            self.by_speaker[utterance.speaker].append(utterance)
        self._names = {name: [u["name"] for u in index["utterances"] if u["speaker"] == name] for name in self.speakers}
        self._files: list[Any] = [safe_open(root / name, framework="np") for name in index["shards"]]
        self._audio = [file.get_slice("audio") for file in self._files]
        self._f0 = [file.get_tensor("f0") for file in self._files]

    def names(self, speaker: str) -> list[str]:
        """Return the names of the files of a speaker's utterances, in the order of `by_speaker`."""
        return self._names[speaker]

    def crop(self, utterance: Utterance, start_frame: int, n_hops: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut a crop out of an utterance, zero-padded when the utterance is shorter.

        Returns:
            wav (n_hops * hop_length,) float32 and f0 (n_hops + 1,) in Hz.
        """
        n = n_hops * HOP_LENGTH
        first = utterance.start + start_frame * HOP_LENGTH
        end = min(first + n, utterance.start + utterance.n_samples)
        wav = self._audio[utterance.shard][first:end].astype(np.float32) / 32767
        f0_first = utterance.f0_start + start_frame
        f0 = self._f0[utterance.shard][f0_first : min(f0_first + n_hops + 1, utterance.f0_start + utterance.n_frames)]
        return np.pad(wav, (0, n - len(wav))), np.pad(f0, (0, n_hops + 1 - len(f0)))


class CropDataset(Dataset[dict[str, Tensor]]):
    """Dataset of batches of random crops; the config sets the balance of speakers and the crops per speaker.

    Item i is a whole batch:
        - wav: (B, crop samples), f0: (B, crop frames) in Hz, speaker: (B,) int64
        - reference: (B, reference samples), another utterance of the speaker, or another crop of the same one
        - index: () int64, number of the batch, from which the other random numbers of the step are derived
        - part: (2,) int64, number of this part of the step's batch, and number of parts

    The parts, concatenated in order, are the batch of a single process with a batch size larger by the number of parts.

    Args:
        cache: The opened cache.
        config: Lengths, batch size of a part, balance.
        seed: Determines every batch.
        part: Number of the part to return, and number of parts: the rank of a process and the world size.
    """

    def __init__(self, cache: SpeechCache, config: DataConfig, seed: int, part: tuple[int, int] = (0, 1)) -> None:
        self.cache, self.config, self.seed, self.part = cache, config, seed, part
        weights = np.array([config.corpus_weights.get(corpus, 1.0) for corpus in cache.corpora], dtype=np.float64)
        if weights.sum() <= 0:
            raise DataError(f"data.corpus_weights leaves no speaker; the cache has the corpora {sorted(set(cache.corpora))}")
        if config.length_exponent:
            seconds = np.array([sum(u.n_samples for u in own) for own in cache.by_speaker]) / SAMPLE_RATE
            weights = weights * seconds**config.length_exponent
        self.probabilities = weights / weights.sum()

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        crop = round(self.config.crop_s * SAMPLE_RATE / HOP_LENGTH)
        reference = round(self.config.reference_s * SAMPLE_RATE / HOP_LENGTH)
        size, (rank, world) = self.config.batch_size, self.part
        speakers = rng.choice(len(self.probabilities), size * world // self.config.crops_a_speaker, p=self.probabilities)
        speakers = speakers.repeat(self.config.crops_a_speaker)
        wavs, f0s, references = [], [], []
        for row, speaker in enumerate(speakers):
            utterances = self.cache.by_speaker[int(speaker)]
            i = int(rng.integers(len(utterances)))
            # Another utterance if the speaker has more than one.
            j = (i + int(rng.integers(1, len(utterances)))) % len(utterances) if len(utterances) > 1 else i
            start, other_start = _start(rng, utterances[i], crop), _start(rng, utterances[j], reference)
            gain = 10 ** (float(rng.uniform(-1, 1)) * self.config.random_gain_db / 20)
            if row // size != rank:
                continue
            wav, f0 = self.cache.crop(utterances[i], start, crop)
            other, _ = self.cache.crop(utterances[j], other_start, reference)
            gain = min(gain, 1 / max(float(np.abs(wav).max()), 1e-3))
            wavs.append(wav * np.float32(gain))
            f0s.append(f0)
            references.append(other)
        return {
            "wav": torch.from_numpy(np.stack(wavs)),
            "f0": torch.from_numpy(np.stack(f0s)),
            "reference": torch.from_numpy(np.stack(references)),
            "speaker": torch.from_numpy(speakers[rank * size : (rank + 1) * size].astype(np.int64)),
            "index": torch.tensor(index),
            "part": torch.tensor(self.part),
        }


def _start(rng: np.random.Generator, utterance: Utterance, n_hops: int) -> int:
    return int(rng.integers(0, max(utterance.n_samples // HOP_LENGTH - n_hops, 0) + 1))
