"""Open-set classification: some classes are left out of the fit, and their clips should be classified as unknown.

Each fold of the manifest leaves out other classes. All clips of that fold are tested, by a model that was fitted to the known classes' clips
of the other folds; thresholds are the model's own.
"""

from collections import defaultdict

import numpy as np
from rich.console import Console
from rich.progress import track
from settings import AnomalyRecipe
from trials import Clip, sound_rows

from vcae.anomaly import metrics
from vcae.anomaly.config import UNKNOWN_SCORES
from vcae.anomaly.openset import OpenSetClassifier, judge_open_set


def run_open_set(recipe: AnomalyRecipe) -> list[list[str]]:
    """Return each score's AUROC of unknown against known, and the open-set accuracy at the model's thresholds, as means over folds."""
    rows = sound_rows(recipe)
    names, folds = sorted({r["class"] for r in rows}), sorted({int(r["fold"]) for r in rows})
    pairs, figures, closed = defaultdict(list), defaultdict(list), []
    for n, fold in enumerate(track(recipe.sound_folds or folds, description="openset", console=Console(stderr=True))):
        left_out = {names[(2 * n + k) % len(names)] for k in range(recipe.n_unknown)}
        train = [r for r in rows if r["class"] not in left_out and int(r["fold"]) != fold]
        test = [r for r in rows if int(r["fold"]) == fold]
        wavs = [Clip(r["path"], False).load() for r in train]
        model = OpenSetClassifier.fit(wavs, [r["class"] for r in train], recipe.classes)
        found = [model.classify(Clip(r["path"], False).load()) for r in test]
        truth = [None if r["class"] in left_out else r["class"] for r in test]
        judged = judge_open_set(truth, found, model.thresholds, n=1)
        closed.append(judged["closed_accuracy"])
        for name in UNKNOWN_SCORES:
            pairs[name].append((np.array([t is None for t in truth]), np.array([f.scores[name] for f in found])))
            figures[name].append([judged[name][key] for key in ("accepted", "rejected", "open_accuracy")])
    table = [["score", "AUROC, unknown against known", "known accepted and right", "unknown rejected", "open-set accuracy"]]
    for name in UNKNOWN_SCORES:
        area = metrics.bootstrap(pairs[name], metrics.auc, recipe.bootstrap, recipe.seed)
        table.append([name, str(area), *(f"{value:.3f}" for value in np.mean(figures[name], axis=0))])
    table.append(["no unknown (closed)", "", f"{np.mean(closed):.3f}", "", ""])
    return table
