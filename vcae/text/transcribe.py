"""Transcription of recordings of any length by the shipped transcriber."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from vcae.audio.sections import SectionRunner
from vcae.checkpoint import load_module
from vcae.engine.engine import Engine, Samples, as_sound, choose_device
from vcae.engine.listening import MIN_SOURCE_S, Source, analyse_sections, encode_latent_sections
from vcae.errors import CheckpointError, ConfigError
from vcae.model.transcriber import LETTERS, PART, PHONES, Transcriber, transcriber_of
from vcae.text.ctc import WordSearch, collapse
from vcae.text.lexicon import load_lexicon
from vcae.text.transcript import KINDS, Symbol, Transcript

SHIPPED = "transcriber"
# Seconds of a recording that are in memory at a time.
SECTION_S = 30.0


@lru_cache(maxsize=2)
def shared_transcriber(device: str, name: str | Path = SHIPPED) -> Transcriber:
    """Return a transcriber on a device, loaded once per process.

    Raises:
        CheckpointError: If the file cannot be loaded, or holds no transcriber.
    """
    return load_module(name, PART, transcriber_of)[0].to(device).requires_grad_(False)


@torch.inference_mode()
def transcribe_source(
    engine: Engine, source: Source, kind: str = "words", name: str | None = None, transcriber: str | Path = SHIPPED
) -> Transcript:
    """Transcribe a recording of any length, in bounded memory.

    Args:
        engine: Engine whose content encoder the transcriber reads: that of the checkpoint `default`.
        source: The recording; at least 0.5 s.
        kind: `words`, `phones` or `letters`.
        name: Name in the transcript; the source's when None.
        transcriber: Name of a shipped transcriber, or a path.

    Raises:
        AudioError: For unusable audio.
        CheckpointError: If the transcriber cannot be loaded, or was made for another latent.
        ConfigError: For an unknown kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"as is {kind!r}; allowed are {', '.join(KINDS)}")
    network = shared_transcriber(str(engine.device), transcriber)
    have, need = engine.autoencoder.config.content.latent_dim, network.config.latent_dim
    if have != need:
        raise CheckpointError(
            f"{engine.checkpoint.path} has a latent of {have} numbers, and the transcriber reads {need}; use the checkpoint 'default'"
        )
    step = max(round(SECTION_S * engine.mel_config.frame_rate), 1)
    heard, runner = analyse_sections(
        engine, source, MIN_SOURCE_S, lambda n: SectionRunner(step, n > step, engine.device), with_f0=False
    )
    latent = encode_latent_sections(engine, heard.mel, heard.active, runner)
    search = WordSearch(load_lexicon()) if kind == "words" else None
    kept = []
    for start, stop in runner.spans(latent.n):
        first, last = max(start - network.reach, 0), min(stop + network.reach, latent.n)
        phones, letters = network(latent.read(first, last).to(engine.device))
        made = (letters if kind == "letters" else phones)[0, :, start - first : stop - first].T.cpu().numpy()
        if search is None:
            kept.append(made)
        else:
            search.add(made)
    if search is not None:
        labels = search.finish()
    else:
        names = LETTERS if kind == "letters" else PHONES
        labels = [(names[n - 1], a, b) for n, a, b in collapse(np.concatenate(kept))]
    step_s = engine.autoencoder.config.content.stride * engine.mel_config.hop_length / engine.sample_rate
    symbols = tuple(_timed(labels, step_s, heard.duration_s))
    return Transcript(name or source.name, kind, symbols, heard.duration_s)


def _timed(labels: list[tuple[str, int, int]], step_s: float, duration_s: float) -> list[Symbol]:
    """Return labels with times; a step's frames are centred on it."""
    made = []
    for label, first, last in labels:
        start, end = (min(max((n - 0.25) * step_s, 0.0), duration_s) for n in (first, last))
        made.append(Symbol(label, start, end))
    return made


@lru_cache(maxsize=1)
def _shared_engine(device: str) -> Engine:
    return Engine(device=device)


def transcribe(wav: Samples, sample_rate: int | None = None, kind: str = "words", device: str = "auto") -> Transcript:
    """Transcribe a recording of English speech.

    Args:
        wav: Samples, a sound, or the path of a file, in any form that `as_sound` accepts; at least 0.5 s.
        sample_rate: Sample rate of arrays, in Hz.
        kind: `words`, `phones` (ARPAbet) or `letters`.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        The transcript, with times.

    Raises:
        AudioError: For unusable audio.
        ConfigError: For an unknown kind, or a device that is not available.
    """
    return transcribe_source(_shared_engine(choose_device(device).type), as_sound(wav, sample_rate), kind)
