"""Trials of all systems: normal recordings to fit to, and normal and anomalous ones to score."""

import csv
import functools
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from faults import KINDS, Fault, make_fault
from settings import AnomalyRecipe

from vcae.audio.io import read_sound, resample
from vcae.errors import DataError

SAMPLE_RATE = 16000
# Recordings with a lower peak are left out as silent.
MIN_PEAK = 1e-4


@dataclass(frozen=True)
class Clip:
    """Recording, unchanged or with a synthetic fault."""

    path: str
    anomalous: bool
    fault: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of the clip in tables of scores."""
        return f"{self.path}#{self.fault}" if self.fault else self.path

    def load(self) -> np.ndarray:
        """Return the samples (N,) at 16 kHz."""
        return self.make()[0]

    def make(self) -> tuple[np.ndarray, list[Fault]]:
        """Return the samples (N,) at 16 kHz and the synthetic faults."""
        wav = _read(self.path)
        return make_fault(wav, self.fault, self.seed) if self.fault else (wav, [])


@dataclass(frozen=True)
class Trial:
    """Trial: a system is fitted to `train` and scores `test`. Trials of one group are evaluated together."""

    task: str
    group: str
    part: str
    train: tuple[Clip, ...]
    test: tuple[Clip, ...]


@functools.lru_cache(maxsize=2048)
def _read(path: str) -> np.ndarray:
    sound = read_sound(path)
    return resample(sound.wav, sound.sample_rate, SAMPLE_RATE)


def read_manifest(path: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a manifest, with paths made relative to the current folder.

    Raises:
        DataError: If it cannot be read or lacks a column.
    """
    try:
        with open(path, newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
    except OSError as error:
        raise DataError(f"cannot read the manifest {path}: {error.strerror}") from error
    missing = [c for c in columns if not rows or c not in rows[0]]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}, or rows")
    return [row | {"path": str(Path(path).parent / row["path"])} for row in rows]


def _deal(items: Sequence[Clip], n: int, seed: int) -> list[list[Clip]]:
    order = random.Random(seed).sample(list(items), len(items))
    return [order[k::n] for k in range(n)]


def machine_trials(recipe: AnomalyRecipe) -> list[Trial]:
    """Make trials on machines: normal clips are tested once, by a model fitted to the other folds; anomalies by the models of all folds."""
    if recipe.machines is None:
        return []
    machines: dict[str, dict[bool, list[Clip]]] = defaultdict(lambda: {False: [], True: []})
    for row in read_manifest(recipe.machines, ("path", "label")):
        machine, _, label = row["label"].partition(";")
        machines[machine][label != "normal"].append(Clip(row["path"], label != "normal"))
    trials = []
    for machine, clips in sorted(machines.items()):
        if len(clips[False]) < 2 * recipe.machine_folds or not clips[True]:
            continue
        folds = _deal(clips[False], recipe.machine_folds, recipe.seed)
        for k, fold in enumerate(folds):
            train = tuple(c for other in folds if other is not fold for c in other)
            trials.append(Trial("machines", machine, str(k + 1), train, (*fold, *clips[True])))
    return trials


def sound_rows(recipe: AnomalyRecipe) -> list[dict[str, str]]:
    """Return the rows of sounds that are not silent."""
    rows = read_manifest(str(recipe.sounds), ("path", "class", "fold"))
    return [row for row in rows if np.abs(_read(row["path"])).max(initial=0) > MIN_PEAK]


def sound_trials(recipe: AnomalyRecipe) -> list[Trial]:
    """Make trials on sound classes: each class in turn is normal, fitted on other folds and tested against other classes in one fold."""
    if recipe.sounds is None:
        return []
    rows = sound_rows(recipe)
    names, folds = sorted({r["class"] for r in rows}), sorted({int(r["fold"]) for r in rows})
    trials = []
    for name in recipe.sound_classes or names:
        for fold in recipe.sound_folds or folds:
            train = [Clip(r["path"], False) for r in rows if r["class"] == name and int(r["fold"]) != fold]
            test = [Clip(r["path"], False) for r in rows if r["class"] == name and int(r["fold"]) == fold]
            for other in names:
                clips = [Clip(r["path"], True) for r in rows if r["class"] == other != name and int(r["fold"]) == fold]
                test += random.Random(recipe.seed + fold).sample(clips, min(recipe.sound_others, len(clips)))
            if not train or not any(not c.anomalous for c in test):
                raise DataError(f"{recipe.sounds} has no clips of {name} to fit to and to test in fold {fold}")
            trials.append(Trial("sounds", name, str(fold), tuple(train), tuple(test)))
    return trials


def fault_trials(recipe: AnomalyRecipe) -> list[Trial]:
    """Make trials on faults: fitted to clean speech of half of the speakers, tested on that of the others with and without each fault."""
    if recipe.speech is None:
        return []
    rows = [r for r in read_manifest(recipe.speech, ("path", "speaker", "split")) if r["split"] == recipe.speech_split]
    speakers = sorted({r["speaker"] for r in rows})
    heard = set(speakers[::2])
    shuffled = random.Random(recipe.seed).sample(rows, len(rows))
    train = [Clip(r["path"], False) for r in shuffled if r["speaker"] in heard][: recipe.fault_train]
    clean = [Clip(r["path"], False) for r in shuffled if r["speaker"] not in heard][: recipe.fault_test]
    if not train or not clean:
        raise DataError(
            f"{recipe.speech} has {len(speakers)} speakers of the split {recipe.speech_split!r}; at least 2 are needed"
        )
    faulty = [Clip(c.path, True, kind, recipe.seed + n) for kind in KINDS for n, c in enumerate(clean)]
    return [Trial("faults", "all", "1", tuple(train), (*clean, *faulty))]


def polluted_trials(recipe: AnomalyRecipe) -> list[tuple[float, Trial]]:
    """Return fractions and trials: the first part of each group with anomalies added to its training recordings and not tested.

    The normal training recordings and the test recordings are the same for all fractions.
    """
    found: list[tuple[float, Trial]] = []
    first: dict[tuple[str, str], str] = {}
    for trial in machine_trials(recipe) + sound_trials(recipe):
        if trial.part != first.setdefault((trial.task, trial.group), trial.part):
            continue
        anomalies = _anomalies_to_mix(recipe, trial)
        most = max(recipe.pollution, default=0.0)
        mixed = anomalies[: round(most / (1 - most) * len(trial.train))]
        test = tuple(c for c in trial.test if c not in mixed)
        for share in recipe.pollution:
            n = round(share / (1 - share) * len(trial.train))
            task = f"pollution-{round(100 * share)}"
            found.append((share, replace(trial, task=task, train=(*trial.train, *mixed[:n]), test=test)))
    return found


def _anomalies_to_mix(recipe: AnomalyRecipe, trial: Trial) -> list[Clip]:
    """Return anomalies in a fixed order: those of the machine itself, or clips of other sound classes from the training folds."""
    if trial.task == "machines":
        pool = [c for c in trial.test if c.anomalous]
    else:
        rows = sound_rows(recipe)
        pool = [Clip(r["path"], True) for r in rows if r["class"] != trial.group and r["fold"] != trial.part]
    return random.Random(recipe.seed + 1).sample(pool, len(pool))
