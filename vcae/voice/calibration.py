"""Calibration of a voice: the map of spectra that gives conversions to it the spectra of its recordings, checked on speech that is held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from vcae.engine.engine import Engine
from vcae.engine.listening import Analysis
from vcae.voice.pitch import convert_f0
from vcae.voice.readers import Reader, load_readers
from vcae.voice.speaking import speak
from vcae.voice.spectrum import Spectra, SpectrumMap, distance_db, fit_map
from vcae.voice.voice import Voice

# Strength of the map. At full strength voices are a little more similar, and more words are lost.
STRENGTH = 0.7


def calibrate(
    model: Engine, voice: Voice, recordings: Sequence[Analysis], progress: Callable[[float], object] = lambda share: None
) -> SpectrumMap:
    """Return the map of a voice, measured on the shipped readers' speech converted to it.

    Args:
        model: Model that measured the voice.
        voice: Voice; a map that it has is not used.
        recordings: Recordings of the voice.
        progress: Called with the fraction done, 0 to 1; an exception that it raises ends the work.
    """
    return _fit(_speak(model, voice, progress), _recorded(recordings))


def check_calibration(
    model: Engine,
    voice: Voice,
    recordings: Sequence[Analysis],
    held: Sequence[Analysis],
    progress: Callable[[float], object] = lambda share: None,
) -> tuple[float, float]:
    """Return the distance in dB between the spectra of conversions and of held-out recordings, without the map and with it.

    The map is measured on every second reader and on `recordings`, and the distances on the other readers and on `held`.

    Args:
        model: Model that measured the voice.
        voice: Voice, measured without `held`.
        recordings: Recordings of the voice.
        held: Others, which were held out.
        progress: As in `calibrate`.
    """
    spoken = _speak(model, voice, progress)
    trial, wanted = _fit(spoken[::2], _recorded(recordings)), _measure(_recorded(held))
    unmapped = spoken[1::2]
    mapped = [Reader(trial(part.mel, part.f0), part.f0) for part in unmapped]
    return distance_db(_measure(unmapped), wanted), distance_db(_measure(mapped), wanted)


@torch.inference_mode()
def convert_reader(model: Engine, voice: Voice, reader: Reader) -> Reader:
    """Convert a reader's speech to a voice, without the map of the voice."""
    mel, f0 = reader.mel.to(model.device), reader.f0.to(model.device)
    moved = convert_f0(f0, voice)
    latent = model.autoencoder.encode_content(mel)
    return Reader(speak(model, latent, moved, replace(voice, spectrum_map=None)), moved)


def _speak(model: Engine, voice: Voice, progress: Callable[[float], object]) -> list[Reader]:
    readers, spoken = load_readers(), []
    for n, reader in enumerate(readers, 1):
        spoken.append(convert_reader(model, voice, reader))
        progress(n / len(readers))
    return spoken


def _recorded(recordings: Sequence[Analysis]) -> list[Reader]:
    return [Reader(seen.mel, seen.f0) for seen in recordings]


def _measure(speech: Sequence[Reader]) -> Spectra:
    return Spectra.measure([part.mel for part in speech], [part.f0 for part in speech])


def _fit(spoken: Sequence[Reader], recorded: Sequence[Reader]) -> SpectrumMap:
    return fit_map(_measure(spoken), _measure(recorded)).scaled(STRENGTH)
