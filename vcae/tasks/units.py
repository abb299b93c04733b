"""Discrete units: what is said as numbers, and numbers said in a voice."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ, log_f0_statistics
from vcae.audio.frames import gaussian_smooth, n_frames
from vcae.audio.io import Sound
from vcae.audio.loudness import TARGET_LEVEL, active_level, set_level
from vcae.engine.engine import DECODED_CORRECTIONS, Engine
from vcae.engine.listening import Analysis, analyse
from vcae.errors import CheckpointError, ConfigError, DataError
from vcae.model.prosody import Contour, Prosody
from vcae.options import SpeakOptions, parse_share
from vcae.tasks.unit_files import Units, natural_samples
from vcae.voice.speaking import speak
from vcae.voice.voice import Voice

__all__ = ["SpeakOptions", "Speech", "Units", "check_units", "encode_units", "recording_units", "speak_units"]

MAX_S = 3 * 3600.0
# A predicted duration is never longer.
MAX_UNIT_S = 2.0
# Units know little of a melody: what is told of it is smoothed, by this deviation in frames, and taken by half. Widened to the voice's own
# spread, its mistakes cost more of the voice than a flat melody does.
CONTOUR_FRAMES = 4.0
CONTOUR_SHARE = 0.5
# Shorter voiced or unvoiced stretches are taken for mistakes of the voicing, in frames.
MIN_STRETCH = 3
# Units that hold only pauses are not raised to the level of speech: the gain is bounded.
MAX_GAIN = 4.0
# Fewer steps are too short for the vocoder's windows; the last unit is held, and what it gives cut off.
MIN_STEPS = 16


@dataclass(frozen=True)
class Speech:
    """Units as sound.

    Attributes:
        wav: (N,), at the model's rate.
        f0: (1, T) the F0 that was synthesised, in Hz.
        mel: (1, n_mels, T) the mel that was synthesised.
        units: What was said, with the lengths it was given.
        output_f0_hz: Median F0; nan when nothing is voiced.
    """

    wav: Tensor
    f0: Tensor
    mel: Tensor
    units: Units
    output_f0_hz: float


def _step_s(model: Engine) -> float:
    return model.autoencoder.config.content.stride / model.mel_config.frame_rate


@torch.inference_mode()
def recording_units(model: Engine, seen: Analysis, name: str) -> Units:
    """Return the units of a recording that was analysed, one a step: the quantizer's first stage.

    Raises:
        ConfigError: If the checkpoint has no discrete code.
    """
    codes = model.autoencoder.encode_units(seen.mel)[0, 0].tolist()
    quantizer = model.autoencoder.config.quantizer
    return Units(
        name,
        tuple(codes),
        (1,) * len(codes),
        len(seen.wav),
        _step_s(model),
        None if quantizer is None else quantizer.codebook_size,
        model.checkpoint.path.stem,
        model.checkpoint.sha256,
    )


def encode_units(model: Engine, sound: Sound, name: str | None = None) -> Units:
    """Return the units of a sound of at least 0.5 s, one a step.

    Args:
        model: With a discrete code.
        sound: What is said.
        name: Kept with the units; the sound's when None.

    Raises:
        AudioError: For unusable audio.
        ConfigError: If the checkpoint has no discrete code.
    """
    seen = analyse(model, sound)
    return recording_units(model, seen, sound.name if name is None else name)


def check_units(model: Engine, units: Units, options: SpeakOptions | None = None) -> Prosody:
    """Refuse units that this model cannot speak, and return what gives them durations and F0.

    Raises:
        DataError: For an unknown unit, units of another checkpoint, too many of them, or no times where they are asked for.
        CheckpointError: If the checkpoint has no prosody.
        ConfigError: If the checkpoint has no discrete code.
    """
    autoencoder, where = model.autoencoder, units.where or units.name
    if autoencoder.quantizer is None or autoencoder.config.quantizer is None:
        raise ConfigError("this checkpoint has a continuous code and no units; take checkpoint vq")
    if autoencoder.prosody is None:
        raise CheckpointError(f"{model.checkpoint.path} has units but no prosody to speak them with; take checkpoint vq")
    if units.sha256 is not None and units.sha256 != model.checkpoint.sha256:
        raise DataError(
            f"{where} is of checkpoint {units.checkpoint} ({units.sha256[:12]}...), and the one in use is {model.checkpoint.path.stem} "
            f"({model.checkpoint.sha256[:12]}...); take the checkpoint that made them, or make the units again"
        )
    codebook_size = autoencoder.config.quantizer.codebook_size
    for position, unit in enumerate(units.units, 1):
        if not 0 <= unit < codebook_size:
            raise DataError(f"{where}, unit {position}: there is no unit {unit}; this checkpoint has 0 to {codebook_size - 1}")
    if units.lengths is None and options is not None and options.durations == "file":
        raise DataError(f"{where} has units without times; take durations auto or predicted")
    if not units.units:
        raise DataError(f"{where} is empty; give at least one unit")
    _check_total(len(units.units) if units.lengths is None else sum(units.lengths), _step_s(model), where)
    return autoencoder.prosody


def _check_total(n_steps: int, step_s: float, where: str) -> None:
    most = int(MAX_S / step_s)
    if n_steps > most:
        raise DataError(f"{where} has {n_steps} steps of {step_s:g} s; allowed are {most} ({MAX_S / 3600:g} hours), so cut it")


def round_durations(durations: list[float]) -> tuple[int, ...]:
    """Round durations to whole steps, at least 1; what rounding takes or gives is carried on, so that the total is kept."""
    lengths, wanted, placed = [], 0.0, 0
    for duration in durations:
        wanted += duration
        lengths.append(max(1, round(wanted - placed)))
        placed += lengths[-1]
    return tuple(lengths)


def predict_lengths(model: Engine, prosody: Prosody, units: Units) -> Units:
    """Return the collapsed units with the lengths that the model gives them."""
    collapsed = units.collapse()
    codes = torch.tensor(collapsed.units, device=model.device)[None, None]
    most = math.log(MAX_UNIT_S / _step_s(model))
    durations = prosody.log_durations(model.autoencoder.decode_units(codes))[0].clamp(0.0, most).exp()
    return replace(collapsed, lengths=round_durations(durations.tolist()), n_samples=None)


def clean_voicing(voiced: Tensor, shortest: int = MIN_STRETCH) -> Tensor:
    """Close unvoiced gaps (T,) of fewer frames than `shortest`, then drop voiced islands of fewer; the ends are no gaps."""
    runs = [(value, len(list(run))) for value, run in itertools.groupby(voiced.tolist())]
    last = len(runs) - 1
    closed = [(value or (n < shortest and 0 < i < last), n) for i, (value, n) in enumerate(runs)]
    flat = [value for value, n in closed for _ in range(n)]
    kept = [(value, len(list(run))) for value, run in itertools.groupby(flat)]
    return torch.tensor(
        [value and n >= shortest for value, n in kept for _ in range(n)], dtype=torch.bool, device=voiced.device
    )


def contour_f0(contour: Contour, voice: Voice, semitones: float = 0.0) -> Tensor:
    """Put a contour, smoothed and taken in part, at a voice's median.

    Args:
        contour: Of one sequence.
        voice: Whose; where it has no voiced frame, nothing is voiced.
        semitones: To shift by.

    Returns:
        (1, T) in Hz, 0 where unvoiced.
    """
    voiced = clean_voicing(contour.voicing[0] > 0)
    relative = contour.relative_log_f0[0]
    if math.isnan(voice.log_f0_median) or not bool(voiced.any()):
        return torch.zeros_like(relative)[None]
    smooth = gaussian_smooth(relative[None, None], CONTOUR_FRAMES, dim=2)[0, 0]
    log_f0 = voice.log_f0_median + semitones * math.log(2) / 12 + CONTOUR_SHARE * (smooth - smooth[voiced].median())
    return torch.where(voiced, log_f0.exp().clamp(F0_MIN_HZ, F0_MAX_HZ), torch.zeros_like(relative))[None]


@torch.inference_mode()
def speak_units(model: Engine, units: Units, voice: Voice, options: SpeakOptions | None = None) -> Speech:
    """Say units in a voice.

    Args:
        model: With a discrete code, a prosody and a speaker part.
        units: What to say; as long as the recording they come from, or as their predicted durations.
        voice: From `hear_voice`, `mix_voices` or `load_voice`.
        options: How; the defaults when None.

    Returns:
        The sound, at the models' level.

    Raises:
        DataError: As `check_units`.
        CheckpointError: If the checkpoint has no prosody.
        ConfigError: For a checkpoint without a discrete code, or without a speaker part.
    """
    options = options or SpeakOptions()
    prosody = check_units(model, units, options)
    if units.lengths is None or options.durations == "predicted":
        units = predict_lengths(model, prosody, units)
    assert units.lengths is not None
    step_s = _step_s(model)
    _check_total(sum(units.lengths), step_s, units.where or units.name)
    n = natural_samples(sum(units.lengths), step_s) if units.n_samples is None else units.n_samples
    lengths = torch.tensor(units.lengths, device=model.device)
    lengths[-1] += max(MIN_STEPS - sum(units.lengths), 0)
    codes = torch.tensor(units.units, device=model.device).repeat_interleave(lengths)[None, None]
    content = model.autoencoder.decode_units(codes)
    n_all = max(n, natural_samples(MIN_STEPS, step_s))
    semitones = 0.0 if options.pitch == "auto" else float(options.pitch)
    f0 = contour_f0(prosody.contour(content, n_frames(n_all, model.mel_config.hop_length)), voice, semitones)
    mel = speak(model, content, f0, voice, parse_share("match", options.match))
    wav = model.vocode(mel, f0, n_all, options.seed, DECODED_CORRECTIONS)[0, :n].numpy()
    levelled = set_level(wav, min(TARGET_LEVEL, MAX_GAIN * active_level(wav)))
    kept = n_frames(n, model.mel_config.hop_length)
    f0, mel = f0[:, :kept].cpu(), mel[..., :kept].cpu()
    return Speech(torch.from_numpy(levelled), f0, mel, replace(units, n_samples=n), math.exp(log_f0_statistics(f0[0])[0]))
