"""Options that check themselves. Without torch, so that a wrong option is reported at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vcae.errors import ConfigError

LOUDNESS = ("source", "flat", "running")
AUTO = "auto"
CHANNELS = ("keep", "mono", "separate")
MIN_RATE, MAX_RATE = 8000, 192000
DURATIONS = ("auto", "file", "predicted")
MAX_BABBLE_S = 600.0
SPEEDS = (0.5, 2.0)
MAX_FORMANT = 12.0
MAX_EXPRESSION = 2.0
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


def check_within(name: str, value: float, low: float, high: float, meaning: str = "") -> float:
    """Check that the option `name` is from `low` to `high`, and return it; `meaning` follows the range in the message.

    Raises:
        ConfigError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}; allowed are {low:g} to {high:g}{meaning and ' ' + meaning}")
    return value


def check_manner(speed: float, formant: float, expression: float) -> None:
    """Check speed, shift of the formants and expression.

    Raises:
        ConfigError: For one that is not allowed.
    """
    check_within("speed", speed, *SPEEDS)
    check_within("formant", formant, -MAX_FORMANT, MAX_FORMANT, "semitones")
    check_within("expression", expression, 0, MAX_EXPRESSION)


# Default strength of denoising. More removes more noise, and costs a recogniser words: recipes/denoise/README.md has both.
DENOISE_STRENGTH = 0.97


def check_strength(strength: float) -> float:
    """Check the strength of denoising and return it.

    Raises:
        ConfigError: If it is not within 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength is {strength}; allowed are 0 (unchanged) to 1 (full denoising)")
    return strength


def check_rate(rate: int | None) -> int | None:
    """Check the sample rate of an output in Hz and return it; None is that of the source.

    Raises:
        ConfigError: If it is not within 8000 to 192000.
    """
    if rate is not None and not MIN_RATE <= rate <= MAX_RATE:
        raise ConfigError(f"rate is {rate}; allowed are {MIN_RATE} to {MAX_RATE} Hz")
    return rate


def check_kbps(kbps: float) -> float:
    """Check the codec's bit rate in kbit/s and return it.

    Raises:
        ConfigError: If it is outside of the codec's range.
    """
    if not MIN_KBPS <= kbps <= MAX_KBPS:
        raise ConfigError(f"kbps is {kbps:g}; allowed are {MIN_KBPS:g} to {MAX_KBPS:g}")
    return kbps


@dataclass(frozen=True)
class ConvertOptions:
    """Options of a conversion.

    Attributes:
        pitch: `auto` moves log-F0 to the voice's median and (bounded) standard deviation, `keep` leaves it, a number shifts it by semitones.
        strength: Strength from 0 (the source's own voice) to 1 (the target voice).
        loudness: `source` follows the source's loudness envelope; `flat` only its level; `running` follows the envelope in one pass, so that
            sound is returned while the rest is converted, and its level may differ a little.
        seed: Seed of the vocoder's noise.
        denoise: Denoise the source first: True, False, or `auto`, which does if it is noisy. References are denoised when they are
            measured, see `measure_voice`.
        speed: Factor on the speed, 0.5 to 2; pitch is kept.
        formant: Shift of the formants in semitones, -12 to 12; F0 is kept.
        expression: Factor on the deviation of log-F0 from its mean, 0 (monotone) to 2.
        watermark: Mark the sound inaudibly as made by vcae.
        rate: Sample rate of the result in Hz; None for that of the source, and at least the model's.
        channels: `keep` converts the mix of the channels and places the result among them as the source's voice was, `mono` leaves it
            mono, `separate` converts each channel by itself, for recordings with a speaker on each.

    Raises:
        ConfigError: For a value that is not allowed.
    """

    pitch: str | float = "auto"
    strength: float = 1.0
    loudness: str = "source"
    seed: int = 0
    denoise: bool | str = AUTO
    speed: float = 1.0
    formant: float = 0.0
    expression: float = 1.0
    watermark: bool = True
    rate: int | None = None
    channels: str = "keep"

    def __post_init__(self) -> None:
        parse_pitch(self.pitch)
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"strength is {self.strength}; allowed are 0 to 1")
        if self.loudness not in LOUDNESS:
            raise ConfigError(f"loudness is {self.loudness!r}; allowed are {', '.join(LOUDNESS)}")
        if self.denoise != AUTO and not isinstance(self.denoise, bool):
            raise ConfigError(f"denoise is {self.denoise!r}; allowed are True, False and {AUTO}")
        check_rate(self.rate)
        if self.channels not in CHANNELS:
            raise ConfigError(f"channels is {self.channels!r}; allowed are {', '.join(CHANNELS)}")
        check_manner(self.speed, self.formant, self.expression)


def check_live(options: ConvertOptions) -> ConvertOptions:
    """Check that a conversion with these options can be live, and return them.

    Raises:
        ConfigError: For an option that needs the whole recording.
    """
    for name in ("strength", "speed"):
        if getattr(options, name) != 1:
            raise ConfigError(f"{name} is {getattr(options, name):g}; live it can only be 1")
    return options


@dataclass(frozen=True)
class SpeakOptions:
    """Options for speaking units.

    Attributes:
        pitch: `auto` uses the voice's own range, a number shifts it by semitones.
        durations: `file` uses the units' own, `predicted` the model's, `auto` the units' own if they have them.
        seed: Seed of the vocoder's noise.
        speed: As in `ConvertOptions`, as are the other two.
        formant: Shift of the formants in semitones.
        expression: Factor on the deviation of log-F0 from its mean.
        watermark: Mark the sound inaudibly as made by vcae.

    Raises:
        ConfigError: For a value that is not allowed.
    """

    pitch: str | float = "auto"
    durations: str = "auto"
    seed: int = 0
    speed: float = 1.0
    formant: float = 0.0
    expression: float = 1.0
    watermark: bool = True

    def __post_init__(self) -> None:
        if self.pitch == "keep":
            raise ConfigError("pitch is 'keep', and units have none to keep; allowed are auto, or semitones from -36 to 36")
        parse_pitch(self.pitch)
        if self.durations not in DURATIONS:
            raise ConfigError(f"durations is {self.durations!r}; allowed are {', '.join(DURATIONS)}")
        check_manner(self.speed, self.formant, self.expression)


@dataclass(frozen=True)
class SayOptions:
    """Options for saying a text.

    Attributes:
        pitch: `auto` uses the voice's own range, a number shifts it by semitones.
        speed: Factor on the speed, 0.5 to 2.
        formant, expression, seed, watermark: As in `SpeakOptions`.
        reader: Number of the reader whose manner is taken, among those that the acoustic model learned from.

    Raises:
        ConfigError: For a value that is not allowed.
    """

    pitch: str | float = "auto"
    speed: float = 1.0
    formant: float = 0.0
    expression: float = 1.0
    seed: int = 0
    watermark: bool = True
    reader: int = 0

    def __post_init__(self) -> None:
        if self.pitch == "keep":
            raise ConfigError("pitch is 'keep', and a text has none to keep; allowed are auto, or semitones from -36 to 36")
        parse_pitch(self.pitch)
        check_manner(self.speed, self.formant, self.expression)


@dataclass(frozen=True)
class BabbleOptions:
    """Options of babble.

    Attributes:
        seconds: Duration, at any speed.
        seed: The same seed gives the same babble.
        temperature: Below 1 likely units become more frequent, above 1 less.
        top_p: Units are sampled from the most likely ones that together have this probability.
        speed: As in `ConvertOptions`, as are the other two.
        formant: Shift of the formants in semitones.
        expression: Factor on the deviation of log-F0 from its mean.
        watermark: Mark the sound inaudibly as made by vcae.

    Raises:
        ConfigError: For a value that is not allowed.
    """

    seconds: float = 5.0
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 0.9
    speed: float = 1.0
    formant: float = 0.0
    expression: float = 1.0
    watermark: bool = True

    def __post_init__(self) -> None:
        if not 0.5 <= self.seconds <= MAX_BABBLE_S:
            raise ConfigError(f"seconds is {self.seconds:g}; allowed are 0.5 to {MAX_BABBLE_S:g}")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more")
        if not 0 < self.temperature <= 3:
            raise ConfigError(f"temperature is {self.temperature:g}; allowed are more than 0, to 3")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p:g}; allowed are more than 0, to 1")
        check_manner(self.speed, self.formant, self.expression)
