"""Denoising: recordings of any length, cleaned section by section, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcae.audio.io import Sound
from vcae.audio.sections import Computed, Workshop
from vcae.checkpoint import load_module
from vcae.engine.engine import Samples, as_sound, choose_device
from vcae.engine.listening import Source, Taken, take_in
from vcae.files import provenance
from vcae.model.denoiser import PART, denoiser_of
from vcae.options import check_strength

SHIPPED = "denoiser"
MIN_S = 0.1
# Seconds of a recording that are in memory at a time.
SECTION_S = 10.0


@dataclass(frozen=True)
class Cleaned:
    """A recording whose cleaned sound is made while it is read; a source for whatever takes one.

    Attributes:
        name: For messages.
        sample_rate: Hz.
        duration_s: Length in seconds.
    """

    name: str
    sample_rate: int
    duration_s: float
    _cleaner: Cleaner
    _taken: Taken
    _work: Workshop
    _strength: float

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the cleaned samples (n,), float32, at the level they were heard at; can be gone through again."""
        yield from self._cleaner._blocks(self._taken, self._work, self._strength)


class Cleaner:
    """The denoiser ready for use.

    Args:
        name: Name of a shipped file, or a path.
        device: See `choose_device`.

    Raises:
        CheckpointError: If the file cannot be loaded, or holds no denoiser.
        ConfigError: If the device is not there.
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
        """Rate of what is made, in Hz."""
        return self.mel_config.sample_rate

    def clean(self, source: Source, strength: float = 1.0, section_s: float = SECTION_S) -> Cleaned:
        """Hear a recording, and return it without its noise.

        The network sees so many frames to each side and no more, so sections of any length give the same samples.

        Args:
            source: A `Sound`, or a `SoundReader`; at least 0.1 s.
            strength: From the recording as it is (0) to all that can be taken away (1).
            section_s: Seconds of a section; a recording of at most that many is one, and kept in memory.

        Raises:
            AudioError: For unusable audio, or a full disk.
            ConfigError: For a strength that is not allowed.
        """
        check_strength(strength)
        step = max(round(section_s * self.mel_config.frame_rate), 1)
        taken, work = take_in(
            source, self.sample_rate, self.mel_config.hop_length, MIN_S, lambda n: Workshop(step, n > step, self.device)
        )
        return Cleaned(source.name, self.sample_rate, taken.duration_s, self, taken, work, strength)

    def _blocks(self, taken: Taken, work: Workshop, strength: float) -> Iterator[np.ndarray]:
        hop = self.mel_config.hop_length

        def compute(start: int, stop: int) -> Tensor:
            heard = taken.wav.read(start, stop)[0].to(self.device)
            return torch.lerp(heard, self.network.clean(heard), strength)[None]

        clean = Computed(taken.wav.n, compute, self.network.reach * hop, hop)
        with torch.inference_mode():
            for section in work.work(clean.read, work.walk(taken.wav.n, hop)):
                yield np.clip(section[0, 0].cpu().numpy() / np.float32(taken.gain), -1, 1)

    def sound(self, source: Source, strength: float = 1.0) -> Sound:
        """Return a recording without its noise, all at once; arguments and errors as in `clean`."""
        cleaned = self.clean(source, strength)
        return Sound(np.concatenate(list(cleaned.blocks())), self.sample_rate, source.name)


@lru_cache(maxsize=2)
def shared_cleaner(device: str) -> Cleaner:
    """Return the shipped denoiser on a device, loaded once a process."""
    return Cleaner(device=device)


def denoise(wav: Samples, sample_rate: int | None = None, strength: float = 1.0, device: str = "auto") -> Sound:
    """Take the noise from a recording of speech.

    Args:
        wav: Samples, a sound, or the path of a file, as `as_sound` takes them; at least 0.1 s.
        sample_rate: Of samples, in Hz.
        strength: From the recording as it is (0) to all that can be taken away (1).
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        The sound at 16 kHz, at the level it had.

    Raises:
        AudioError: For unusable audio.
        ConfigError: For a strength that is not allowed.
    """
    cleaner = shared_cleaner(choose_device(device).type)
    return replace(cleaner.sound(as_sound(wav, sample_rate), strength), comment=provenance(cleaner.file, "denoised"))
