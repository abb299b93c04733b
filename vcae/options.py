"""What may be asked for: options that check themselves. No import of torch here, so that a wrong one is told at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vcae.errors import ConfigError

LOUDNESS = ("source", "flat")
DURATIONS = ("auto", "file", "predicted")
MAX_BABBLE_S = 600.0
MIN_KBPS, MAX_KBPS = 0.6, 6.0


def parse_pitch(pitch: str | float) -> str | float:
    """Check a pitch setting: `auto`, `keep`, or semitones from -36 to 36.

    Raises:
        ConfigError: For anything else.
    """
    if pitch in ("auto", "keep"):
        return pitch
    try:
        semitones = float(pitch)
    except ValueError:
        semitones = math.nan
    if not abs(semitones) <= 36:
        raise ConfigError(f"pitch is {pitch!r}; allowed are auto, keep, or semitones from -36 to 36")
    return semitones


def parse_share(name: str, value: str | float) -> str | float:
    """Check a setting that is `auto`, or 0 to 1.

    Raises:
        ConfigError: For anything else.
    """
    if value == "auto":
        return value
    try:
        share = float(value)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ConfigError(f"{name} is {value!r}; allowed are auto, or 0 to 1")
    return share


def check_strength(strength: float) -> float:
    """Return the strength.

    Raises:
        ConfigError: If it is not within 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength is {strength}; allowed are 0 (as it was) to 1 (all the noise away that can be)")
    return strength


def check_kbps(kbps: float) -> float:
    """Return the codec's rate in kilobits a second.

    Raises:
        ConfigError: If it cannot be asked for.
    """
    if not MIN_KBPS <= kbps <= MAX_KBPS:
        raise ConfigError(f"kbps is {kbps:g}; allowed are {MIN_KBPS:g} to {MAX_KBPS:g}")
    return kbps


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Attributes:
        pitch: `auto` moves log-F0 to the voice's median and bounded spread, `keep` leaves it, a number shifts it by semitones.
        strength: From the source's own voice (0) to the one asked for (1).
        match: How far frames are drawn to the voice's own, 0 to 1; `auto` decides by the length of the reference.
        detail: How much of the source's detail is kept that its code leaves out; it carries words, and a trace of the source's voice.
            `auto` keeps all of it beside a continuous code and none beside units, which are to be all that is sent.
        loudness: `source` follows the source's envelope; `flat` only takes its level.
        seed: Of the vocoder's noise.
        denoise: Clean the source first. A reference is cleaned where it is heard, see `hear_voice`.

    Raises:
        ConfigError: For a value that is not allowed.
    """

    pitch: str | float = "auto"
    strength: float = 1.0
    match: str | float = "auto"
    detail: str | float = "auto"
    loudness: str = "source"
    seed: int = 0
    denoise: bool = False

    def __post_init__(self) -> None:
        parse_pitch(self.pitch)
        parse_share("match", self.match)
        parse_share("detail", self.detail)
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"strength is {self.strength}; allowed are 0 to 1")
        if self.loudness not in LOUDNESS:
            raise ConfigError(f"loudness is {self.loudness!r}; allowed are {' and '.join(LOUDNESS)}")


@dataclass(frozen=True)
class SpeakOptions:
    """How to speak units.

    Attributes:
        pitch: `auto` is the voice's own range, a number shifts it by semitones.
        durations: `file` takes the units' own, `predicted` the model's, `auto` the units' own where they have them.
        match: How far frames are drawn to the voice's own, 0 to 1; `auto` decides by the length of the reference.
        seed: Of the vocoder's noise.

    Raises:
        ConfigError: For a value that is not allowed.
    """

    pitch: str | float = "auto"
    durations: str = "auto"
    match: str | float = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pitch == "keep":
            raise ConfigError("pitch is 'keep', and units have none to keep; allowed are auto, or semitones from -36 to 36")
        parse_pitch(self.pitch)
        parse_share("match", self.match)
        if self.durations not in DURATIONS:
            raise ConfigError(f"durations is {self.durations!r}; allowed are {', '.join(DURATIONS)}")


@dataclass(frozen=True)
class BabbleOptions:
    """How to babble.

    Attributes:
        seconds: How long.
        seed: The same seed gives the same babble.
        temperature: Under 1 what is likely comes more often, over 1 less.
        top_p: Only the likeliest units are drawn that together have this probability.

    Raises:
        ConfigError: For a value that is not allowed.
    """

    seconds: float = 5.0
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 0.9

    def __post_init__(self) -> None:
        if not 0.5 <= self.seconds <= MAX_BABBLE_S:
            raise ConfigError(f"seconds is {self.seconds:g}; allowed are 0.5 to {MAX_BABBLE_S:g}")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more")
        if not 0 < self.temperature <= 3:
            raise ConfigError(f"temperature is {self.temperature:g}; allowed are more than 0, to 3")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p:g}; allowed are more than 0, to 1")
