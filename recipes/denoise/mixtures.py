"""Speech with noise at a known ratio, and otherwise degraded speech, from recordings that no model was trained on."""

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve
from settings import DenoiseTestRecipe

from vcae.audio.f0 import SAMPLE_RATE
from vcae.audio.io import read_sound, resample
from vcae.errors import DataError
from vcae.training.denoise import CODECS, codec_damage

PEAK = 0.9


@dataclass(frozen=True)
class Mixture:
    """A clean and a degraded recording, (N,) each, at 16 kHz.

    Attributes:
        condition: Name of the degradation.
        n: Number of the clip; the file is called by both.
        transcript: The spoken words; empty if unknown.
    """

    clean: np.ndarray
    noisy: np.ndarray
    condition: str
    n: int
    transcript: str = ""

    @property
    def file_name(self) -> str:
        return f"{self.condition.replace(' ', '_')}-{self.n:03d}.wav"


def read(path: Path) -> np.ndarray:
    sound = read_sound(path)
    return resample(sound.wav, sound.sample_rate, SAMPLE_RATE)


def table(path: str) -> list[dict[str, str]]:
    try:
        with Path(path).open(newline="", encoding="utf-8") as opened:
            return [row | {"path": str(Path(path).parent / row["path"])} for row in csv.DictReader(opened)]
    except OSError as error:
        raise DataError(f"cannot read the table {path} ({error.strerror}); check the path") from error


def speech_rows(recipe: DenoiseTestRecipe) -> list[dict[str, str]]:
    """Return the manifest's rows of the chosen clips: of every speaker of the split, the first of the allowed length."""
    chosen: dict[str, list[dict[str, str]]] = {}
    for row in sorted(table(recipe.manifest), key=lambda row: (row["speaker"], row["path"])):
        if row["split"] == recipe.split and recipe.min_s <= float(row["duration_s"]) <= recipe.max_s:
            chosen.setdefault(row["speaker"], []).append(row)
    found = [row for rows in chosen.values() for row in rows[recipe.skip : recipe.skip + recipe.per_speaker]]
    if not found:
        raise DataError(
            f"{recipe.manifest} has no clip of {recipe.min_s:g} to {recipe.max_s:g} s in the split {recipe.split!r}"
        )
    return found


def speech(recipe: DenoiseTestRecipe) -> list[np.ndarray]:
    """Return the chosen clips."""
    return [read(Path(row["path"])) for row in speech_rows(recipe)]


def noises(recipe: DenoiseTestRecipe) -> dict[str, list[np.ndarray]]:
    """Return the noises by kind: sounds of the held-out folds, one of each class in turn; and machines."""
    rng, rows = random.Random(recipe.seed), [row for row in table(recipe.sounds) if int(row["fold"]) in recipe.folds]
    rng.shuffle(rows)
    # One of each class before the second of any.
    rank: dict[str, int] = {}
    for row in rows:
        row["rank"] = f"{rank.setdefault(row['class'], 0):03d}"
        rank[row["class"]] += 1
    found = {"sounds": [read(Path(row["path"])) for row in sorted(rows, key=lambda row: (row["rank"], row["class"]))]}
    if recipe.machines is not None:
        machines = table(recipe.machines)
        rng.shuffle(machines)
        found["machines"] = [read(Path(row["path"])) for row in machines[:40]]
    return found


def mix(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> tuple[np.ndarray, np.ndarray]:
    """Add repeated noise at a ratio of the mean powers of the whole clip; both are attenuated if the sum would clip."""
    noise = np.resize(np.trim_zeros(noise), len(clean))
    noise = noise * np.sqrt(np.square(clean).mean() / max(np.square(noise).mean(), 1e-9)) * 10 ** (-snr_db / 20)
    noisy = clean + noise
    scale = min(1.0, PEAK / np.abs(noisy).max())
    return (clean * scale).astype(np.float32), (noisy * scale).astype(np.float32)


def room(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reverberate a recording by decaying noise, RT60 0.5 s; the rooms in training are image-source models."""
    n = SAMPLE_RATE // 2
    response = rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / n) * 0.08
    response[: SAMPLE_RATE // 400] = 0
    response[0] = 1
    return fftconvolve(clean, response)[: len(clean)].astype(np.float32)


def degrade(clean: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    """Return a clip reverberated, through a telephone codec, through Opus at its lowest rate, or unchanged."""
    if how == "clean":
        return clean
    if how == "room":
        return room(clean, rng)
    which = {"telephone": "GSM610", "opus": "OPUS"}
    if how not in which:
        raise DataError(f"others has {how!r}; allowed are clean, room, {', '.join(which)}")
    return codec_damage(clean, [coding for _, coding, _, _ in CODECS].index(which[how]))


def mixtures(recipe: DenoiseTestRecipe) -> Iterator[Mixture]:
    """Yield the mixtures of all conditions."""
    rows, clips, kinds = speech_rows(recipe), speech(recipe), noises(recipe)
    texts = [row.get("transcript") or "" for row in rows]
    for kind, bank in kinds.items():
        for snr in recipe.snrs_db:
            for i, clip in enumerate(clips):
                yield Mixture(*mix(clip, bank[(i + recipe.skip) % len(bank)], snr), f"{kind} {snr:g} dB", i, texts[i])
    for how in recipe.others:
        for i, clip in enumerate(clips):
            clean = (clip * min(1.0, PEAK / np.abs(clip).max())).astype(np.float32)
            rng = np.random.default_rng([recipe.seed, i])
            yield Mixture(clean, degrade(clean, how, rng), how, i, texts[i])
