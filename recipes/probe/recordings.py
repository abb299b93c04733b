"""Recordings to probe: rows of the manifest with cached mels and alignments."""

import csv
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from settings import ProbeRecipe

from vcae.audio.config import MelConfig
from vcae.audio.io import read_sound, resample
from vcae.audio.loudness import normalize_level
from vcae.audio.mel import LogMel
from vcae.errors import DataError
from vcae.evaluation.alignment import SAMPLE_RATE, Alignment, Interval, align

console = Console(stderr=True)


@dataclass(frozen=True)
class Recording:
    """Row of the manifest with its log-mel (n_mels, T) at the models' level."""

    path: Path
    speaker: str
    transcript: str
    mel: np.ndarray


def read_rows(recipe: ProbeRecipe) -> list[dict[str, str]]:
    with Path(recipe.manifest).open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def load(recipe: ProbeRecipe, rows: Iterable[dict[str, str]]) -> list[Recording]:
    """Read recordings and compute their mels, or read these from the cache."""
    log_mel, folder, found = LogMel(MelConfig()), Path(recipe.output_dir) / "mels", []
    folder.mkdir(parents=True, exist_ok=True)
    for row in track(list(rows), description="reading", console=console):
        path = Path(recipe.manifest).parent / row["path"]
        kept = folder / (hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16] + ".npy")
        if not kept.exists():
            sound = read_sound(path)
            wav = normalize_level(resample(sound.wav, sound.sample_rate, SAMPLE_RATE))
            with torch.inference_mode():
                np.save(kept, log_mel(torch.from_numpy(wav)[None])[0].numpy())
        found.append(Recording(path, row["speaker"], row.get("transcript") or "", np.load(kept, allow_pickle=False)))
    return found


def train_rows(recipe: ProbeRecipe, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Draw recordings of each training speaker."""
    by_speaker: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if row["split"] == recipe.train_split:
            by_speaker[row["speaker"]].append(row)
    rng = random.Random(recipe.seed)
    draws = (rng.sample(given, min(recipe.train_per_speaker, len(given))) for _, given in sorted(by_speaker.items()))
    return [row for drawn in draws for row in drawn]


def parallel(rows: list[dict[str, str]], n_prompts: int, seed: int, min_speakers: int = 3) -> list[dict[str, str]]:
    """Draw prompts read by the same speakers, at least `min_speakers`, and return their rows by those speakers."""
    read: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for row in rows:
        if row.get("transcript"):
            read[row["transcript"]].setdefault(row["speaker"], row)
    sizes: dict[tuple[str, ...], int] = defaultdict(int)
    for by_speaker in read.values():
        sizes[tuple(sorted(by_speaker))] += 1
    # The speakers with the most prompts in common, by number of speakers times prompts.
    candidates = {s: sum(1 for found in read.values() if set(s) <= set(found)) for s in sizes if len(s) >= min_speakers}
    if not candidates:
        return []
    speakers = max(sorted(candidates), key=lambda s: len(s) * candidates[s])
    prompts = sorted(p for p, found in read.items() if set(speakers) <= set(found))
    chosen = random.Random(seed).sample(prompts, min(n_prompts, len(prompts)))
    return [read[prompt][speaker] for prompt in chosen for speaker in speakers]


def align_all(recipe: ProbeRecipe, recordings: list[Recording]) -> list[Alignment | None]:
    """Return the alignments of recordings, None where alignment failed; they are cached in `alignments.json`."""
    cache = Path(recipe.output_dir) / "alignments.json"
    known = json.loads(cache.read_text()) if cache.is_file() else {}
    size, found = len(known), list[Alignment | None]()
    for n, recording in enumerate(track(recordings, description="aligning", console=console)):
        key = f"{recording.path.parent.name}/{recording.path.name} | {recording.transcript}"
        if key not in known:
            try:
                sound = read_sound(recording.path)
                known[key] = asdict(align(resample(sound.wav, sound.sample_rate, SAMPLE_RATE), recording.transcript))
            except DataError as error:
                known[key] = {"error": str(error)}
        if len(known) > size and (n % 100 == 99 or n == len(recordings) - 1):
            cache.write_text(json.dumps(known))
            size = len(known)
        kept = known[key]
        parts = (tuple(Interval(**entry) for entry in kept.get(part, ())) for part in ("phones", "words"))
        found.append(None if "error" in kept else Alignment(*parts))
    return found
