"""Discrete units: encoding of speech as units, and speaking of units in a voice."""

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
from vcae.audio.sections import LazySections
from vcae.audio.stretch import stretch_f0, stretch_mel
from vcae.audio.watermark import mark
from vcae.engine.engine import DECODED_CORRECTIONS, Engine
from vcae.engine.listening import Analysis, analyse
from vcae.errors import CheckpointError, ConfigError, DataError
from vcae.model.prosody import Contour, Prosody
from vcae.model_file import shipped_as
from vcae.options import SpeakOptions
from vcae.tasks.unit_files import Units, natural_samples
from vcae.voice.formant import FormantShift
from vcae.voice.pitch import scale_f0
from vcae.voice.speaking import speak
from vcae.voice.voice import Voice

__all__ = ["SpeakOptions", "Speech", "Units", "check_units", "encode_units", "recording_units", "speak_units"]

MAX_S = 3 * 3600.0
# Longest predicted duration of a unit.
MAX_UNIT_S = 2.0
# F0 predicted from units is unreliable: it is smoothed with this standard deviation in frames, and its deviation from the mean halved. With the
# voice's full standard deviation, its errors would harm the voice more than a flat contour does.
CONTOUR_FRAMES = 4.0
CONTOUR_SHARE = 0.5
# Shortest voiced or unvoiced stretch in frames; shorter ones are taken for errors.
MIN_STRETCH = 3
# Largest gain, so that units of pauses are not amplified to the level of speech.
MAX_GAIN = 4.0
# Fewest steps that the vocoder's windows need; the last unit is repeated, and its sound cut off.
MIN_STEPS = 16


@dataclass(frozen=True)
class Speech:
    """Spoken units.

    Attributes:
        wav: (N,), at the model's rate.
        f0: (1, T) the F0 that was synthesised, in Hz.
        mel: (1, n_mels, T) the mel that was synthesised.
        units: The units, with the durations used.
        output_f0_hz: Median F0; nan if nothing is voiced.
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
    """Return the units of an analysed recording, one per step: codes of the quantizer's first stage.

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
    """Encode a sound of at least 0.5 s as units, one per step.

    Args:
        model: Model with a discrete code.
        sound: The sound.
        name: Name of the units; the sound's when None.

    Raises:
        AudioError: For unusable audio.
        ConfigError: If the checkpoint has no discrete code.
    """
    seen = analyse(model, sound)
    return recording_units(model, seen, sound.name if name is None else name)


def check_units(model: Engine, units: Units, options: SpeakOptions | None = None) -> Prosody:
    """Check that the model can speak units, and return its prosody predictor.

    Raises:
        DataError: For an unknown unit, units of another checkpoint, too many of them, or missing times that the options need.
        CheckpointError: If the checkpoint has no prosody predictor.
        ConfigError: If the checkpoint has no discrete code.
    """
    autoencoder, where = model.autoencoder, units.where or units.name
    if autoencoder.quantizer is None or autoencoder.config.quantizer is None:
        raise ConfigError("this checkpoint has a continuous latent and no units; use the checkpoint 'vq'")
    if autoencoder.prosody is None:
        raise CheckpointError(f"{model.checkpoint.path} has units but no prosody to speak them with; use the checkpoint 'vq'")
    if units.sha256 is not None and units.sha256 != model.checkpoint.sha256:
        known = shipped_as(units.sha256)
        remedy = (
            "take the checkpoint that made them, or make the units again" if known is None else f"take the checkpoint {known}"
        )
        raise DataError(
            f"{where} is of checkpoint {units.checkpoint} ({units.sha256[:12]}...), and the one in use is {model.checkpoint.path.stem} "
            f"({model.checkpoint.sha256[:12]}...); {remedy}"
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
    """Round durations to whole steps, at least 1; rounding errors are carried over, so that the total is preserved."""
    lengths, wanted, placed = [], 0.0, 0
    for duration in durations:
        wanted += duration
        lengths.append(max(1, round(wanted - placed)))
        placed += lengths[-1]
    return tuple(lengths)


def predict_lengths(model: Engine, prosody: Prosody, units: Units) -> Units:
    """Return the collapsed units with the durations that the model predicts."""
    collapsed = units.collapse()
    codes = torch.tensor(collapsed.units, device=model.device)[None, None]
    most = math.log(MAX_UNIT_S / _step_s(model))
    durations = prosody.log_durations(model.autoencoder.decode_units(codes))[0].clamp(0.0, most).exp()
    return replace(collapsed, lengths=round_durations(durations.tolist()), n_samples=None)


def clean_voicing(voiced: Tensor, shortest: int = MIN_STRETCH) -> Tensor:
    """Close unvoiced gaps (T,) shorter than `shortest` frames, except at the ends; then remove voiced stretches shorter than that."""
    runs = [(value, len(list(run))) for value, run in itertools.groupby(voiced.tolist())]
    last = len(runs) - 1
    closed = [(value or (n < shortest and 0 < i < last), n) for i, (value, n) in enumerate(runs)]
    flat = [value for value, n in closed for _ in range(n)]
    kept = [(value, len(list(run))) for value, run in itertools.groupby(flat)]
    return torch.tensor(
        [value and n >= shortest for value, n in kept for _ in range(n)], dtype=torch.bool, device=voiced.device
    )


def contour_f0(contour: Contour, voice: Voice, semitones: float = 0.0) -> Tensor:
    """Turn a predicted contour, smoothed and scaled down, into F0 around a voice's median.

    Args:
        contour: Contour of one sequence.
        voice: Target voice; if it has no voiced frame, nothing is voiced.
        semitones: Shift in semitones.

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


def _deliver(model: Engine, mel: Tensor, f0: Tensor, n: int, options: SpeakOptions) -> tuple[Tensor, Tensor]:
    """Return mel and F0 of `n` samples, at the formants and the speed asked for."""
    if options.formant:
        mel = FormantShift(model.mel_config, options.formant)(mel, f0)
    if options.speed == 1:
        return mel, f0
    frames = n_frames(n, model.mel_config.hop_length)
    whole = LazySections(mel.shape[-1], lambda start, stop: mel[..., start:stop])
    return stretch_mel(whole, frames, options.speed).read(0, frames), stretch_f0(f0, frames, options.speed)


@torch.inference_mode()
def speak_units(
    model: Engine, units: Units, voice: Voice, options: SpeakOptions | None = None, n_samples: int | None = None
) -> Speech:
    """Speak units in a voice.

    Args:
        model: Model with a discrete code, a prosody predictor and a speaker part.
        units: The units; the sound is as long as their recording, or as their predicted durations, divided by the speed.
        voice: Target voice, from `measure_voice`, `mix_voices` or `load_voice`.
        options: Options; the defaults when None.
        n_samples: Length of the sound, if it shall be another.

    Returns:
        The sound, at the models' level.

    Raises:
        DataError: As `check_units`.
        CheckpointError: If the checkpoint has no prosody predictor.
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
    least = math.ceil(MIN_STEPS * max(options.speed, 1.0))
    lengths[-1] += max(least - sum(units.lengths), 0)
    codes = torch.tensor(units.units, device=model.device).repeat_interleave(lengths)[None, None]
    content = model.autoencoder.decode_units(codes)
    n_all = max(n, natural_samples(least, step_s))
    semitones = 0.0 if options.pitch == "auto" else float(options.pitch)
    f0 = contour_f0(prosody.contour(content, n_frames(n_all, model.mel_config.hop_length)), voice, semitones)
    f0 = scale_f0(f0, options.expression)
    n_made = round(n_all / options.speed)
    mel, f0 = _deliver(model, speak(model, content, f0, voice), f0, n_made, options)
    n_out = round(n / options.speed) if n_samples is None else n_samples
    wav = model.vocode(mel, f0, n_made, options.seed, DECODED_CORRECTIONS)[0, :n_out].numpy()
    levelled = set_level(wav, min(TARGET_LEVEL, MAX_GAIN * active_level(wav)))
    if options.watermark:
        levelled = mark(levelled, model.sample_rate)
    kept = n_frames(n_out, model.mel_config.hop_length)
    f0, mel = f0[:, :kept].cpu(), mel[..., :kept].cpu()
    return Speech(torch.from_numpy(levelled), f0, mel, replace(units, n_samples=n), math.exp(log_f0_statistics(f0[0])[0]))
