"""Loss of AUC when some of the training recordings are anomalies, with and without robust fitting."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.progress import track
from settings import AnomalyRecipe
from trials import Trial

from vcae.anomaly import metrics
from vcae.anomaly.config import AnomalyConfig

Get = Callable[[Trial, str, AnomalyConfig], dict[str, dict[str, float]]]
Pairs = dict[tuple[str, str], dict[float, list[tuple[np.ndarray, np.ndarray]]]]


def pollution_rows(recipe: AnomalyRecipe, trials: Sequence[tuple[float, Trial]], get: Get) -> list[list[str]]:
    """Return the AUC by system, kind of fit and fraction of anomalies, and the loss against the plain fit to clean recordings."""
    found: Pairs = defaultdict(lambda: defaultdict(list))
    for system in recipe.pollution_systems:
        for robust in recipe.robust:
            config = replace(recipe.model, robust=robust)
            for share, trial in track(trials, description=f"pollution: {system}, {robust}", console=Console(stderr=True)):
                scores = get(trial, system, config)[system]
                labels = np.array([c.anomalous for c in trial.test])
                found[system, robust][share].append((labels, np.array([scores[c.name] for c in trial.test])))
    return _rows(recipe, found)


def _rows(recipe: AnomalyRecipe, found: Pairs) -> list[list[str]]:
    shares = sorted(recipe.pollution)
    rows = [["system", "fit", *(f"AUC at {share:.0%}" for share in shares), *(f"lost at {share:.0%}" for share in shares[1:])]]
    for (system, robust), by_share in found.items():
        aucs = [metrics.bootstrap(by_share[share], metrics.auc, recipe.bootstrap, recipe.seed) for share in shares]
        lost = [
            metrics.bootstrap_difference(by_share[shares[0]], by_share[share], metrics.auc, recipe.bootstrap, recipe.seed)
            for share in shares[1:]
        ]
        cells = [f"{a.value:.3f} [{a.low:.3f}, {a.high:.3f}]" for a in lost]
        rows.append([system, re.sub("none", "plain", robust), *map(str, aucs), *cells])
    return rows
