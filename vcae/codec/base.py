"""Shared parts of encoder and decoder: the networks, the base layer, the level code, and descriptions of damage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcae.audio.sections import LazySections, SectionRunner, Sections
from vcae.codec import files
from vcae.codec.block import MAX_QUALITY
from vcae.codec.pitch import reference_hz
from vcae.codec.polish import Polish
from vcae.engine.decoding import decode_sections
from vcae.engine.engine import Engine, Samples, choose_device
from vcae.engine.listening import SectionedAnalysis
from vcae.errors import CheckpointError
from vcae.model_file import shipped_as
from vcae.voice.voice import Voice, measure_voice

DEFAULT = "codec"
# Level of code 0 in dB; codes count half decibels from here.
LEVEL_DB = -110.0


def level_code(level: float) -> int:
    """Return the code, 0 to 255, of a gain relative to the models' level."""
    return min(max(round((20 * math.log10(max(level, 1e-9)) - LEVEL_DB) * 2), 0), 255)


def level_of(code: int) -> float:
    """Return the gain for a code of `level_code`."""
    return float(10 ** ((code / 2 + LEVEL_DB) / 20))


def quality_share(quality: int) -> float:
    """Scale a quality, 1 to 255, to the networks' range of 0 to 1."""
    return (quality - 1) / (MAX_QUALITY - 1)


@dataclass(frozen=True)
class Damage:
    """Part of a file that could not be decoded.

    Attributes:
        start_s: Start in the sound, in seconds.
        stop_s: End in the sound, in seconds.
        offset: Byte of the file where the damage was found.
        reason: Description of the damage.
    """

    start_s: float
    stop_s: float
    offset: int
    reason: str


@dataclass(frozen=True)
class Base:
    """Analysis of a recording for the codec: everything that is coded at any rate.

    Attributes:
        analysis: Analysis of the recording, to be read in sections.
        runner: Runner of computations over its sections.
        codes: (2, S), codes of the base layer.
        voicing: (S,), see `vcae.codec.pitch`.
        place: (S,), quantised F0, relative to the reference.
        reference: Code of the reference F0.
        speaker: (1, speaker_dim), speaker embedding.
    """

    analysis: SectionedAnalysis
    runner: SectionRunner
    codes: np.ndarray
    voicing: Tensor
    place: Tensor
    reference: int
    speaker: Tensor


class Networks:
    """Networks of a codec, together with its base layer's checkpoint and vocoder.

    Args:
        name: Name of a shipped codec, or a path.
        device: See `vcae.engine.engine.choose_device`.
        load: Function that returns the base layer's checkpoint for its name, on the same device; None loads it.

    Raises:
        CheckpointError: If it cannot be loaded, or was trained on another checkpoint of the base layer.
        ConfigError: If the device is not available.
    """

    def __init__(self, name: str | Path = DEFAULT, device: str = "auto", load: Callable[[str], Engine] | None = None) -> None:
        self.file = files.load_codec(name, choose_device(device))
        wanted = self.file.metadata["base_sha256"]
        # A shipped checkpoint may have another name now than when the codec was trained.
        base = shipped_as(wanted) or self.file.config.base
        self.model = load(base) if load is not None else Engine(base, device)
        have = self.model.checkpoint.sha256
        if have != wanted:
            raise CheckpointError(
                f"{self.file.path} was trained on the base layer {wanted[:12]}..., and {base} is {have[:12]}...; "
                "reinstall vcae, or train the codec again"
            )
        self.enhancement = self.file.enhancement

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.file.path.stem}, over checkpoint {self.model.checkpoint.path.stem}, {self.sample_rate} Hz)"

    @property
    def sample_rate(self) -> int:
        """Sample rate of all decoded signals, in Hz."""
        return self.model.sample_rate

    def voice(self, clips: Samples | Sequence[Samples], sample_rate: int | None = None) -> Voice:
        """Measure a target voice for decompression; arguments and errors as `vcae.voice.voice.measure_voice`."""
        return measure_voice(self.model, clips, sample_rate)


def decode_base(model: Engine, codes: np.ndarray, f0: Tensor, embedding: Tensor, reference: int) -> Sections:
    """Decode the base layer's mel, of T frames, from codes (2, ceil(T / 2)), F0 (1, T) in Hz and a speaker embedding (1, speaker_dim)."""
    device = model.device

    def latent(start: int, stop: int) -> Tensor:
        return model.autoencoder.decode_units(torch.from_numpy(codes[None, :, start:stop]).to(device))

    mean = torch.tensor([[math.log(reference_hz(reference))]], device=device)
    return decode_sections(model, LazySections(codes.shape[1], latent), f0.to(device), embedding.to(device), None, mean)


def polished(polish: Polish, mel: Sections, embedding: Tensor) -> Sections:
    """Return the normalised mel, refined by the `Polish` network."""
    return LazySections(mel.n, lambda start, stop: polish(mel.read(start, stop), embedding), polish.reach)
