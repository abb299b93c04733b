"""Recordings to score units on, with their alignments and mels."""

import csv
import functools
import json
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from settings import UnitsRecipe

from vcae.audio.config import MelConfig
from vcae.audio.io import read_sound, resample
from vcae.audio.loudness import normalize_level
from vcae.audio.mel import LogMel
from vcae.errors import DataError
from vcae.evaluation import units
from vcae.evaluation.alignment import SAMPLE_RATE, Alignment, Interval, align

MIN_WORD_S = 0.3


@dataclass(frozen=True)
class Recording:
    """Row of the manifest with the alignment of its phones and words, or None if alignment failed."""

    path: Path
    speaker: str
    transcript: str
    alignment: Alignment | None


def read_rows(recipe: UnitsRecipe) -> list[dict[str, str]]:
    with Path(recipe.manifest).open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def load_recordings(recipe: UnitsRecipe, rows: Iterable[dict[str, str]]) -> list[Recording]:
    """Align rows, or read their alignments from `alignments.json`."""
    cache = Path(recipe.output_dir) / "alignments.json"
    known: dict[str, Any] = json.loads(cache.read_text()) if cache.is_file() else {}
    found, size = [], len(known)
    for row in track(list(rows), description="aligning", console=Console(stderr=True)):
        path, key = Path(recipe.manifest).parent / row["path"], f"{row['path']} | {row['transcript']}"
        if key not in known:
            try:
                sound = read_sound(path)
                known[key] = asdict(align(resample(sound.wav, sound.sample_rate, SAMPLE_RATE), row["transcript"]))
            except DataError as error:
                known[key] = {"error": str(error)}
        kept, alignment = known[key], None
        if "error" not in kept:
            phones, words = (tuple(Interval(**entry) for entry in kept[part]) for part in ("phones", "words"))
            alignment = Alignment(phones, words)
        found.append(Recording(path, row["speaker"], row["transcript"], alignment))
    if len(known) > size:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(known))
    return found


def parallel_rows(recipe: UnitsRecipe, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Choose prompts read by the same speakers, and return their rows."""
    read: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for row in rows:
        if row["corpus"] in recipe.words_corpora and row["transcript"]:
            read[row["speaker"]][row["transcript"]] = row
    full = [by_prompt for by_prompt in read.values() if len(by_prompt) >= recipe.words_prompts]
    if len(full) < 2 or not recipe.words_prompts:
        return []
    shared = sorted(set(full[0]).intersection(*full[1:]))
    chosen = random.Random(recipe.seed).sample(shared, min(recipe.words_prompts, len(shared)))
    return [by_prompt[prompt] for prompt in chosen for by_prompt in full]


@functools.lru_cache(maxsize=4096)
@torch.inference_mode()
def mel_of(path: Path, config: MelConfig) -> np.ndarray:
    """Return the log-mel (n_mels, T) of a file, brought to the models' level."""
    sound = read_sound(path)
    wav = normalize_level(resample(sound.wav, sound.sample_rate, config.sample_rate))
    return _log_mel(config)(torch.from_numpy(wav)[None])[0].numpy()


@functools.lru_cache(maxsize=2)
def _log_mel(config: MelConfig) -> LogMel:
    return LogMel(config)


def find_words(recordings: list[Recording], codes: list[np.ndarray], grid: units.Grid) -> list[units.Word]:
    """List the words of at least `MIN_WORD_S`."""
    found = []
    for n, recording in enumerate(recordings):
        for word in recording.alignment.words if recording.alignment else ():
            start, end = grid.span(word.start_s, word.end_s, len(codes[n]))
            if word.end_s - word.start_s >= MIN_WORD_S and end > start:
                found.append(units.Word(word.label, recording.speaker, recording.transcript, n, start, end))
    return found
