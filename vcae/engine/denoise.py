"""Denoising of recordings of any length by sections, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcae.audio.io import Sound
from vcae.audio.sections import LazySections, SectionRunner
from vcae.checkpoint import load_module
from vcae.engine.engine import Samples, as_sound, choose_device
from vcae.engine.listening import LeveledRecording, Source, read_leveled
from vcae.files import provenance
from vcae.model.denoiser import PART, denoiser_of
from vcae.options import check_strength

SHIPPED = "denoiser"
MIN_S = 0.1
# Length of a section in seconds.
SECTION_S = 10.0


@dataclass(frozen=True)
class Cleaned:
    """Recording that is denoised while it is read; it can be used as a source.

    Attributes:
        name: Name for messages.
        sample_rate: Hz.
        duration_s: Length in seconds.
    """

    name: str
    sample_rate: int
    duration_s: float
    _cleaner: Cleaner
    _taken: LeveledRecording
    _runner: SectionRunner
    _strength: float

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the denoised samples (n,), float32, at the original level; can be repeated."""
        yield from self._cleaner._blocks(self._taken, self._runner, self._strength)


class Cleaner:
    """Denoiser, loaded and ready for use.

    Args:
        name: Name of a shipped file, or a path.
        device: See `choose_device`.

    Raises:
        CheckpointError: If the file cannot be loaded, or has no denoiser.
        ConfigError: If the device is not available.
    """

    def __init__(self, name: str | Path = SHIPPED, device: str = "auto") -> None:
        self.device = choose_device(device)
        network, self.file = load_module(name, PART, denoiser_of)
        self.network = network.to(self.device).requires_grad_(False)
        self.mel_config = network.config.mel

    def __repr__(self) -> str:
        return f"Cleaner({self.file.path.stem}, {self.sample_rate} Hz, {self.device})"

    @property
    def sample_rate(self) -> int:
        """Sample rate of the output, in Hz."""
        return self.mel_config.sample_rate

    def clean(self, source: Source, strength: float = 1.0, section_s: float = SECTION_S) -> Cleaned:
        """Denoise a recording.

        The receptive field of the network is bounded, so sections of any length give the same samples.

        Args:
            source: A `Sound`, or a `SoundReader`; at least 0.1 s.
            strength: Strength from 0 (unchanged) to 1 (full denoising).
            section_s: Length of a section in seconds; a shorter recording is a single section in memory.

        Raises:
            AudioError: For unusable audio, or a full disk.
            ConfigError: For a strength that is not allowed.
        """
        check_strength(strength)
        step = max(round(section_s * self.mel_config.frame_rate), 1)
        taken, runner = read_leveled(
            source, self.sample_rate, self.mel_config.hop_length, MIN_S, lambda n: SectionRunner(step, n > step, self.device)
        )
        return Cleaned(source.name, self.sample_rate, taken.duration_s, self, taken, runner, strength)

    def _blocks(self, taken: LeveledRecording, runner: SectionRunner, strength: float) -> Iterator[np.ndarray]:
        hop = self.mel_config.hop_length

        def compute(start: int, stop: int) -> Tensor:
            heard = taken.wav.read(start, stop)[0].to(self.device)
            return torch.lerp(heard, self.network.clean(heard), strength)[None]

        clean = LazySections(taken.wav.n, compute, self.network.reach * hop, hop)
        with torch.inference_mode():
            for section in runner.run(clean.read, runner.spans(taken.wav.n, hop)):
                yield np.clip(section[0, 0].cpu().numpy() / np.float32(taken.gain), -1, 1)

    def sound(self, source: Source, strength: float = 1.0) -> Sound:
        """Denoise a recording all at once; arguments and errors as in `clean`."""
        cleaned = self.clean(source, strength)
        return Sound(np.concatenate(list(cleaned.blocks())), self.sample_rate, source.name)


@lru_cache(maxsize=2)
def shared_cleaner(device: str) -> Cleaner:
    """Return the shipped denoiser on a device, loaded once per process."""
    return Cleaner(device=device)


def denoise(wav: Samples, sample_rate: int | None = None, strength: float = 1.0, device: str = "auto") -> Sound:
    """Denoise a recording of speech.

    Args:
        wav: Samples, a sound, or the path of a file, in any form that `as_sound` accepts; at least 0.1 s.
        sample_rate: Sample rate of arrays, in Hz.
        strength: Strength from 0 (unchanged) to 1 (full denoising).
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        The sound at 16 kHz, at its original level.

    Raises:
        AudioError: For unusable audio.
        ConfigError: For a strength that is not allowed.
    """
    cleaner = shared_cleaner(choose_device(device).type)
    return replace(cleaner.sound(as_sound(wav, sample_rate), strength), comment=provenance(cleaner.file, "denoised"))
