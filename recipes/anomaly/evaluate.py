"""Score machine sounds, sound classes and faults in speech by every model and every peer, all in one table with intervals.

python recipes/anomaly/evaluate.py recipes/anomaly/conf/base.yaml machines=MIMII.csv sounds=ESC10.csv speech=SPEECH.csv

Scores are kept in OUTPUT/scores: after an interruption, run the same command again to resume.
"""

import csv
import functools
import hashlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from faults import SAMPLE_RATE
from openset import run_open_set
from peers import NotInstalledError, fit_peer
from pollution import pollution_rows
from rich.console import Console
from rich.progress import track
from settings import AnomalyRecipe
from thresholds import threshold_rows
from trials import Trial, fault_trials, machine_trials, polluted_trials, sound_trials

import vcae
from vcae.anomaly import metrics
from vcae.anomaly.config import AnomalyConfig
from vcae.anomaly.detector import Detector
from vcae.config import load_config, to_dict
from vcae.errors import ConfigError, VcaeError
from vcae.files import write_file

# Labels and scores of the recordings of each group (a machine, a class, a kind of fault).
Groups = dict[str, tuple[np.ndarray, np.ndarray]]
console = Console(stderr=True)


class Scores:
    """Cache of fits and scores in a folder."""

    def __init__(self, recipe: AnomalyRecipe) -> None:
        self.recipe, self.folder = recipe, Path(recipe.output_dir) / "scores"
        self.skipped: dict[str, str] = {}

    def get(self, trial: Trial, system: str, config: AnomalyConfig | None = None) -> dict[str, dict[str, float]]:
        """Return the scores of all recordings by system: the given one, and the members of a combined one.

        Args:
            trial: Recordings to fit to and to score.
            system: One of this project's models, or of the peers.
            config: Settings of this project's model, instead of the recipe's.
        """
        recipe, own = self.recipe, system not in self.recipe.peers
        config = replace(config or recipe.model, model=system) if own else None
        facts: dict[str, Any] = {
            "system": system,
            "train": [c.name for c in trial.train],
            "test": [(c.name, c.anomalous) for c in trial.test],
            "seed": recipe.seed,
            "config": to_dict(config) if config else recipe.baseline_epochs if system == "dcase-autoencoder" else None,
        }
        if own:
            facts["code"] = _code_hash()
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        kept = self.folder / trial.task / trial.group / f"{trial.part}-{system}-{key}.json"
        if kept.exists():
            return dict(json.loads(kept.read_text())["scores"])
        start = time.perf_counter()
        recordings = [clip.load() for clip in trial.train]
        found: dict[str, dict[str, float]] = defaultdict(dict)
        if config is not None:
            detector = Detector.fit(recordings, SAMPLE_RATE, config)
            fitted = time.perf_counter()
            for clip in trial.test:
                anomaly = detector.score(clip.load(), SAMPLE_RATE)
                found[system][clip.name] = anomaly.score
                for member, value in anomaly.members.items():
                    found[member][clip.name] = value
        else:
            score = fit_peer(system, recordings, recipe.seed, recipe.baseline_epochs)
            fitted = time.perf_counter()
            found[system] = {clip.name: score(clip.load()) for clip in trial.test}
        end = time.perf_counter()
        values = {"fit_s": round(fitted - start, 2), "score_s": round(end - fitted, 2), "facts": facts, "scores": found}
        write_file(kept, json.dumps(values))
        return dict(found)

    def systems(self, trials: Sequence[Trial]) -> dict[str, Groups]:
        """Return labels and scores by system and group; scores of one recording by several parts are averaged."""
        collected: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        labels = {(t.group, c.name): c.anomalous for t in trials for c in t.test}
        given = bool({"combined"} & set(self.recipe.systems))
        members = set(self.recipe.model.members) if given else set()
        wanted = [s for s in self.recipe.systems if s not in members] + list(self.recipe.peers)
        for system in wanted:
            try:
                for trial in track(trials, description=f"{trials[0].task}: {system}", console=console):
                    for name, scores in self.get(trial, system).items():
                        for clip, value in scores.items():
                            collected[name][trial.group][clip].append(value)
            except NotInstalledError as error:
                self.skipped[system] = str(error)
        order = [s for s in (*self.recipe.systems, *self.recipe.peers) if s in collected]
        return {s: {g: _pool(labels, g, found) for g, found in sorted(collected[s].items())} for s in order}


@functools.lru_cache(maxsize=1)
def _code_hash() -> str:
    """Return a hash of the code of this project's detectors, so that scores of other versions are not reused."""
    files = sorted((Path(vcae.__file__).parent / "anomaly").glob("*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


def _pool(labels: dict[tuple[str, str], bool], group: str, found: dict[str, list[float]]) -> tuple[np.ndarray, np.ndarray]:
    names = sorted(found)
    return np.array([labels[group, n] for n in names]), np.array([np.mean(found[n]) for n in names])


def by_fault(groups: Groups, trial: Trial) -> Groups:
    """Split a trial's faulty recordings by kind of fault, each with all clean ones."""
    labels, scores = groups["all"]
    names = sorted(c.name for c in trial.test)
    kinds = np.array([name.rpartition("#")[2] if "#" in name else "" for name in names])
    return {
        kind: (labels[at], scores[at])
        for kind in sorted(set(kinds) - {""})
        for at in [np.flatnonzero((kinds == kind) | ~labels)]
    }


def table(systems: dict[str, Groups], recipe: AnomalyRecipe) -> list[list[str]]:
    """Return means over groups with intervals, the difference to the best peer, and each group's AUC."""
    groups = sorted(next(iter(systems.values())))
    means = {name: np.mean([metrics.auc(*found[g]) for g in groups]) for name, found in systems.items()}
    peers = [p for p in recipe.peers if p in systems]
    best = max(peers, key=lambda p: means[p]) if peers else None
    head = ["system", "AUC", "pAUC", *([f"AUC less that of {best}"] if best else []), *groups]
    rows = [head]
    for name, found in systems.items():
        pairs = [found[g] for g in groups]
        areas = [metrics.bootstrap(pairs, f, recipe.bootstrap, recipe.seed) for f in (metrics.auc, metrics.partial_auc)]
        row = [name, *map(str, areas)]
        if best:
            other = [systems[best][g] for g in groups]
            away = metrics.bootstrap_difference(pairs, other, metrics.auc, recipe.bootstrap, recipe.seed)
            row.append("" if name == best else f"{away.value:+.3f} [{away.low:+.3f}, {away.high:+.3f}]")
        rows.append(row + [f"{metrics.auc(*pair):.3f}" for pair in pairs])
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first of them the head, as a table in markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def run(recipe: AnomalyRecipe, say: Callable[[str], None]) -> dict[str, list[list[str]]]:
    """Run the recipe's tasks, print the table of each when it is done, and write all of them to the output folder."""
    output, scores = Path(recipe.output_dir), Scores(recipe)
    output.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[list[str]]] = {}

    def keep(name: str, rows: list[list[str]]) -> None:
        found[name] = rows
        with (output / f"{name}.csv").open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows(rows)
        say(f"\n{name}\n\n{markdown(rows)}")

    scored: dict[str, dict[str, Groups]] = {}
    for task, make in (("machines", machine_trials), ("sounds", sound_trials), ("faults", fault_trials)):
        trials = make(recipe) if task in recipe.tasks else []
        if trials:
            systems = scores.systems(trials)
            if task == "faults":
                from locations import location_rows

                systems = {name: by_fault(groups, trials[0]) for name, groups in systems.items()}
                keep("locations", location_rows(recipe, trials[0]))
            else:
                scored[task] = systems
            keep(task, table(systems, recipe))
    if "thresholds" in recipe.tasks and scored:
        keep("thresholds", threshold_rows(recipe, scored))
    if "pollution" in recipe.tasks and (polluted := polluted_trials(recipe)):
        keep("pollution", pollution_rows(recipe, polluted, scores.get))
    if "openset" in recipe.tasks and recipe.sounds is not None:
        keep("openset", run_open_set(recipe))
    for name, reason in scores.skipped.items():
        say(f"skipped {name}: {reason}")
    facts = {"recipe": to_dict(recipe), "version": vcae.__version__, "tables": found, "skipped": scores.skipped}
    (output / "results.json").write_text(json.dumps(facts, indent=1) + "\n")
    return found


def main() -> None:
    recipe = load_config(AnomalyRecipe, sys.argv[1], sys.argv[2:])
    if recipe.machines is None and recipe.sounds is None and recipe.speech is None:
        raise ConfigError("there is no data; set machines, sounds or speech to the path of a manifest")
    start = time.perf_counter()
    run(recipe, lambda text: print(text, flush=True))
    print(f"wrote {recipe.output_dir}/results.json after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
