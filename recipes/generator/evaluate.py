"""Judge generated voices by conversions to them, compared with conversions of the same sources to real voices.

python recipes/generator/evaluate.py recipes/generator/conf/base.yaml manifest=DATA/manifest.csv --judge
"""

import csv
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

import vcae
from vcae.audio.f0 import SAMPLE_RATE
from vcae.audio.io import Sound, read_sound, write_sound
from vcae.config import load_config
from vcae.errors import DataError, VcaeError
from vcae.evaluation.naturalness import Dnsmos
from vcae.evaluation.voices import Resemblyzer
from vcae.tasks.convert import convert
from vcae.tasks.model import Model
from vcae.training.config import GeneratorRecipe
from vcae.training.data import SpeechCache
from vcae.voice.voice import Voice, voice_from_sounds

# Lengths of sources and of real voices' clips, in seconds.
LENGTHS_S = (2.5, 6.0)
CLIP_FRAMES = 312
# Clips from which the voice of a training speaker is measured.
CLIPS_PER_SPEAKER = 8


def read_clips(recipe: GeneratorRecipe) -> list[tuple[Sound, Sound]]:
    """Return two clips of each speaker of the split: one to convert, and one as the target voice."""
    root, by_speaker = Path(recipe.manifest).parent, defaultdict(list)
    with Path(recipe.manifest).open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            if row["split"] == recipe.split and LENGTHS_S[0] <= float(row["duration_s"]) <= LENGTHS_S[1]:
                by_speaker[row["speaker"]].append(root / row["path"])
    found = [(read_sound(paths[0]), read_sound(paths[1])) for paths in by_speaker.values() if len(paths) > 1]
    if len(found) < 2:
        raise DataError(
            f"{recipe.manifest} has {len(found)} speakers of the split {recipe.split!r} with two clips; two are needed"
        )
    return found[: recipe.n_sources]


def make(model: Model, voices: list[Voice], sources: list[Sound], folder: Path) -> list[dict[str, object]]:
    """Convert one source to each voice, in turn, into a folder."""
    rows = []
    for n, voice in enumerate(voices):
        done, path = convert(model, sources[n % len(sources)], voice), folder / f"{n:03d}.wav"
        write_sound(path, Sound(done.wav.numpy(), done.sample_rate), "converted by vcae", force=True)
        rows.append({"path": str(path), "source": n % len(sources), "f0_hz": done.output_f0_hz})
    return rows


def train_clips(recipe: GeneratorRecipe) -> tuple[list[np.ndarray], list[str]]:
    """Return clips of the training speakers at the original speed, and the speaker of each."""
    cache, clips, names = SpeechCache(recipe.data), [], []
    for name, utterances in zip(cache.speakers, cache.by_speaker, strict=True):
        if "@" not in name:
            for one in utterances[:CLIPS_PER_SPEAKER]:
                clips.append(cache.crop(one, 0, min(one.n_frames - 1, CLIP_FRAMES))[0])
                names.append(name)
    return clips, names


def people(model: Model, recipe: GeneratorRecipe) -> list[Voice]:
    """Return voices of training speakers, each by one recording's first 5 s, spread evenly over the range of F0."""
    cache, found = SpeechCache(recipe.data), []
    for name, utterances in zip(cache.speakers, cache.by_speaker, strict=True):
        long = [one for one in utterances if one.n_frames > CLIP_FRAMES // 2]
        if "@" not in name and long:
            wav, f0 = cache.crop(long[0], 0, min(long[0].n_frames - 1, CLIP_FRAMES))
            found.append((float(np.median(f0[f0 > 0])) if (f0 > 0).any() else 0.0, wav))
    found.sort(key=lambda item: item[0])
    chosen = [found[(2 * n + 1) * len(found) // (2 * recipe.n_people)][1] for n in range(recipe.n_people)]
    return [voice_from_sounds(model, [Sound(wav, SAMPLE_RATE)]) for wav in chosen]


def nearest(vectors: np.ndarray, known: np.ndarray) -> dict[str, object]:
    """Return the cosines of conversions to the nearest known voices."""
    best = (vectors @ known.T).max(axis=1)
    found = {"of": len(known), "median": float(np.median(best)), "max": float(best.max()), "over_80": int((best > 0.8).sum())}
    return found | {"each": [round(float(value), 3) for value in best]}


def judge(recipe: GeneratorRecipe, made: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    """Return the scores of independent judges for the conversions."""
    read_voice, read_quality = Resemblyzer().open(), Dnsmos().open()

    def embed(wav: np.ndarray) -> np.ndarray:
        return np.array(read_voice(wav))

    results: dict[str, object] = {}
    clips, names = train_clips(recipe)
    known, owner = np.stack([embed(clip) for clip in clips]), np.array(names)
    means = np.stack([known[owner == name].mean(axis=0) for name in sorted(set(names))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    for name, rows in made.items():
        wavs = [read_sound(str(row["path"])).wav for row in rows]
        vectors = np.stack([embed(wav) for wav in wavs])
        near = {"nearest_training_clip": nearest(vectors, known), "nearest_training_speaker": nearest(vectors, means)}
        quality = np.array([read_quality(np.clip(wav, -1, 1))["ovrl"] for wav in wavs])
        results[name] = compare(rows, vectors, quality) | near
        print(name, json.dumps(results[name]), flush=True)
    among = np.where(owner[:, None] == owner[None], -1.0, known @ known.T).max(axis=1)
    results["nearest_other_of_real_clips"] = {"median": float(np.median(among)), "over_80": float(np.mean(among > 0.8))}
    return results


def compare(rows: list[dict[str, object]], vectors: np.ndarray, quality: np.ndarray) -> dict[str, object]:
    """Return diversity, naturalness and F0 of conversions."""
    a, b = np.triu_indices(len(rows), 1)
    cosines = np.sum(vectors[a] * vectors[b], axis=1)
    at = np.array([row["source"] for row in rows])
    voice = np.array([row.get("voice", n) for n, row in enumerate(rows)])
    other, same = voice[a] != voice[b], at[a] == at[b]
    pitch = np.log([float(str(row["f0_hz"])) for row in rows])
    return {
        "n": len(rows),
        "pairs_below_718": float(np.mean(cosines[other] < 0.718)),
        "pairs_mean": float(cosines[other].mean()),
        "same_source_below_718": float(np.mean(cosines[other & same] < 0.718)),
        "same_source_mean": float(cosines[other & same].mean()),
        "ovrl": float(quality.mean()),
        "ovrl_by_source": [float(quality[at == s].mean()) for s in sorted(set(at.tolist()))],
        "ovrl_each": [round(float(value), 3) for value in quality],
        "log_f0_mean": float(pitch.mean()),
        "log_f0_deviation": float(pitch.std()),
        "log_f0_each": [round(float(value), 3) for value in pitch],
    }


def run(recipe: GeneratorRecipe, judged: bool) -> None:
    """Draw, convert, judge, and write results.json."""
    started, folder = time.monotonic(), Path(recipe.output_dir)
    model, clips = vcae.load(recipe.checkpoint), read_clips(recipe)
    sources = [source for source, _ in clips]
    voices = [model.new_voice(recipe.seed + n) for n in range(recipe.n_voices)]
    drawn = make(model, voices, sources, folder / "drawn")
    heard = [voice_from_sounds(model, [reference]) for _, reference in clips]
    # Every source in turn, each time with another voice than its own.
    chosen = [(n + 1 + (n // len(heard)) % (len(heard) - 1)) % len(heard) for n in range(recipe.n_real)]
    real = make(model, [heard[v] for v in chosen], sources, folder / "real")
    real = [row | {"voice": v} for row, v in zip(real, chosen, strict=True)]
    known = make(model, people(model, recipe), sources, folder / "people")
    print(f"{len(drawn)} + {len(real)} + {len(known)} conversions, {time.monotonic() - started:.0f} s", flush=True)
    results = {"seed": recipe.seed, **(judge(recipe, {"drawn": drawn, "real": real, "people": known}) if judged else {})}
    results["seconds"] = round(time.monotonic() - started)
    (folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    try:
        given = [a for a in sys.argv[1:] if a != "--judge"]
        run(load_config(GeneratorRecipe, given[0], given[1:]), "--judge" in sys.argv)
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
