"""Text to speech in any voice, sentence by sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ
from vcae.audio.frames import gaussian_smooth, n_frames
from vcae.audio.io import Sound
from vcae.audio.loudness import TARGET_LEVEL, active_level, set_level
from vcae.audio.watermark import mark_blocks
from vcae.checkpoint import load_module
from vcae.engine.engine import DECODED_CORRECTIONS, Engine, Samples, choose_device
from vcae.errors import CheckpointError
from vcae.model.acoustic import (
    MAX_DURATION_S,
    MIN_DURATION_S,
    PART,
    PAUSE,
    SYMBOLS,
    WORD_END,
    WORD_START,
    AcousticModel,
    Symbols,
    acoustic_of,
)
from vcae.options import SayOptions
from vcae.tasks.model import Model, load
from vcae.tasks.units import MAX_GAIN, MIN_STEPS, clean_voicing
from vcae.text.pronunciation import Pronunciation
from vcae.text.spelling import COMMA, Sentence, sentences
from vcae.voice.formant import FormantShift
from vcae.voice.pitch import SPREAD_BOUNDS, scale_f0
from vcae.voice.speaking import speak
from vcae.voice.voice import Voice

SHIPPED = "acoustic"
# Silence at the start and end of a sentence, and after one, in seconds.
LEAD_S, TAIL_S = 0.05, 0.1
SENTENCE_PAUSE_S, PART_PAUSE_S = 0.35, 0.1
# Deviation of the Gaussian that smooths the predicted F0, in frames.
CONTOUR_FRAMES = 1.5
# Largest factor that restores the deviation of a latent's channel, and the silent steps at each end that its deviation leaves out.
MAX_RESTORED, EDGE_STEPS = 2.5, 3
# As in `vcae.voice.speaking`, but stronger: predicted content has words to spare.
DISTRIBUTION, DISTRIBUTION_S = 0.5, 3.0
STRESSES = {"0": 1, "1": 2, "2": 3}


@dataclass(frozen=True)
class SaidSentence:
    """A sentence as speech.

    Attributes:
        words: Its words.
        wav: (N,) float32, with the pause after it.
        f0: (1, T) the F0 that was synthesised, in Hz.
        phones: Its phones with stress; a pause is SIL.
        ends_s: End of each phone in seconds from the start of the sentence.
    """

    words: tuple[str, ...]
    wav: np.ndarray
    f0: Tensor
    phones: tuple[str, ...]
    ends_s: tuple[float, ...]


@lru_cache(maxsize=2)
def shared_acoustic(device: str, name: str | Path = SHIPPED) -> AcousticModel:
    """Return an acoustic model on a device, loaded once per process.

    Raises:
        CheckpointError: If the file cannot be loaded, or holds no acoustic model.
    """
    return load_module(name, PART, acoustic_of)[0].to(device).requires_grad_(False)


@lru_cache(maxsize=1)
def shared_pronunciation() -> Pronunciation:
    """Return the shipped pronunciations, loaded once per process."""
    return Pronunciation()


def phones_of(sentence: Sentence, pronunciation: Pronunciation) -> tuple[list[str], list[int]]:
    """Return the phones with stress of a sentence, pauses included, and each one's place in its word."""
    phones, places = [PAUSE], [0]
    for token in sentence.tokens:
        if token == COMMA:
            phones.append(PAUSE)
            places.append(0)
            continue
        said = pronunciation(token)
        phones += said
        places += [WORD_START * (n == 0) + WORD_END * (n == len(said) - 1) for n in range(len(said))]
    return [*phones, PAUSE], [*places, 0]


def as_symbols(phones: Sequence[str], places: Sequence[int], device: torch.device) -> Symbols:
    """Return phones with stress as the input of the acoustic model, (1, P)."""
    names = [phone.rstrip("012") for phone in phones]
    rows = (
        [SYMBOLS.index(name) for name in names],
        [STRESSES.get(phone[-1], 0) for phone in phones],
        list(places),
    )
    return Symbols(*(torch.tensor([row], device=device) for row in rows))


def relative_f0(voicing: Tensor, relative: Tensor, voice: Voice, options: SayOptions) -> Tensor:
    """Return F0 (1, T) in Hz, 0 where unvoiced, for predicted log odds of voicing and relative log-F0 (T,) of a sentence.

    The contour has the voice's median, and its standard deviation within bounds.
    """
    voiced = clean_voicing(voicing > 0)
    if math.isnan(voice.log_f0_median) or not bool(voiced.any()):
        return torch.zeros_like(relative)[None]
    smooth = gaussian_smooth(relative[None, None], CONTOUR_FRAMES, dim=2)[0, 0]
    own = float(smooth[voiced].std(correction=0))
    ratio = min(max(voice.log_f0_spread / max(own, 1e-3), SPREAD_BOUNDS[0]), SPREAD_BOUNDS[1])
    semitones = 0.0 if options.pitch == "auto" else float(options.pitch)
    centre = voice.log_f0_median + semitones * math.log(2) / 12
    log_f0 = centre + ratio * (smooth - smooth[voiced].median())
    f0 = torch.where(voiced, log_f0.exp().clamp(F0_MIN_HZ, F0_MAX_HZ), torch.zeros_like(relative))
    return scale_f0(f0[None], options.expression)


def restore_deviation(latent: Tensor) -> Tensor:
    """Scale each channel of a predicted latent (1, D, T) to the deviation 1 that those of recordings have; a mean prediction has less.

    Source: Toda and Tokuda, A speech parameter generation algorithm considering global variance for HMM-based speech synthesis (2007).
    """
    deviation = latent[..., EDGE_STEPS : -EDGE_STEPS or None].std(dim=-1, keepdim=True)
    return latent * (1 / deviation).clamp(1.0, MAX_RESTORED)


@torch.inference_mode()
def say_sentence(
    engine: Engine, sentence: Sentence, voice: Voice, options: SayOptions, network: AcousticModel, pronunciation: Pronunciation
) -> SaidSentence:
    """Say a sentence in a voice.

    Args:
        engine: Engine whose content latent the acoustic model predicts: that of the checkpoint `default`.
        sentence: From `sentences`.
        voice: Target voice.
        options: Options of the speech.
        network: The acoustic model.
        pronunciation: Pronunciations of words.
    """
    phones, places = phones_of(sentence, pronunciation)
    symbols = as_symbols(phones, places, engine.device)
    speaker = torch.tensor([options.reader], device=engine.device)
    encoded = network.encode(symbols, speaker)
    durations = network.log_durations(encoded).exp().clamp(MIN_DURATION_S, MAX_DURATION_S) / options.speed
    durations[0, 0], durations[0, -1] = LEAD_S, TAIL_S
    seconds = float(durations.sum())
    step_s = network.config.step_s
    n = round(seconds * engine.sample_rate)
    n_steps = max(math.ceil(seconds / step_s) + 1, MIN_STEPS)
    durations[0, -1] += n_steps * step_s - seconds
    latent, voicing, relative = network(encoded, durations, speaker, n_steps)
    latent = restore_deviation(latent)
    f0 = relative_f0(voicing[0], relative[0], voice, options)
    mel = speak(engine, latent, f0, voice, DISTRIBUTION, DISTRIBUTION_S)
    if options.formant:
        mel = FormantShift(engine.mel_config, options.formant)(mel, f0)
    made = (n_steps * 2 - 1) * engine.mel_config.hop_length
    wav = engine.vocode(mel, f0, made, options.seed, DECODED_CORRECTIONS)[0, :n].numpy()
    levelled = set_level(wav, min(TARGET_LEVEL, MAX_GAIN * active_level(wav)))
    pause = (SENTENCE_PAUSE_S if sentence.last else PART_PAUSE_S) / options.speed
    wav = np.pad(levelled, (0, round(pause * engine.sample_rate))).astype(np.float32)
    kept = n_frames(n, engine.mel_config.hop_length)
    ends = tuple(durations[0].cumsum(0).clamp(max=seconds).tolist())
    return SaidSentence(sentence.words, wav, f0[:, :kept].cpu(), tuple(phones), ends)


def say_sentences(
    engine: Engine, text: str, voice: Voice, options: SayOptions | None = None, acoustic: str | Path = SHIPPED
) -> Iterator[SaidSentence]:
    """Say a text of any length in a voice, a sentence at a time.

    Args:
        engine: As in `say_sentence`.
        text: English; numbers and signs are read as words, and letters of other scripts are left out.
        voice: Target voice.
        options: Options of the speech; the defaults when None.
        acoustic: Name of a shipped acoustic model, or a path.

    Raises:
        DataError: If the text has no English word.
        CheckpointError: If the acoustic model cannot be loaded, or was made for another latent.
    """
    network = shared_acoustic(str(engine.device), acoustic)
    have, need = engine.autoencoder.config.content.latent_dim, network.config.latent_dim
    if have != need or engine.autoencoder.quantizer is not None:
        raise CheckpointError(
            f"{engine.checkpoint.path} has a latent of {have} numbers, and the acoustic model predicts {need}; use the checkpoint 'default'"
        )
    for sentence in sentences(text):
        yield say_sentence(engine, sentence, voice, options or SayOptions(), network, shared_pronunciation())


def say_blocks(
    engine: Engine, text: str, voice: Voice, options: SayOptions | None = None, acoustic: str | Path = SHIPPED
) -> Iterator[np.ndarray]:
    """Yield the sound of `say_sentences` in blocks (n,), marked inaudibly unless the options say otherwise.

    Arguments and errors as there.
    """
    options = options or SayOptions()
    blocks = (said.wav for said in say_sentences(engine, text, voice, options, acoustic))
    yield from mark_blocks(blocks, engine.sample_rate) if options.watermark else blocks


@lru_cache(maxsize=1)
def _shared_model(device: str) -> Model:
    return load(device=device)


def say(
    text: str,
    speaker: Voice | Samples,
    sample_rate: int | None = None,
    options: SayOptions | None = None,
    device: str = "auto",
) -> Sound:
    """Say an English text in a voice.

    Args:
        text: The text, of any length.
        speaker: A voice, or a recording of one: samples, a sound, or the path of a file.
        sample_rate: Sample rate of arrays, in Hz.
        options: Options of the speech; the defaults when None.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        The sound, at 16 kHz.

    Raises:
        DataError: If the text has no English word.
        AudioError: For an unusable recording.
        ConfigError: For a device that is not available.
    """
    model = _shared_model(choose_device(device).type)
    voice = speaker if isinstance(speaker, Voice) else model.voice(speaker, sample_rate)
    wav = np.concatenate(list(say_blocks(model, text, voice, options)))
    return Sound(wav, model.sample_rate, "speech")
