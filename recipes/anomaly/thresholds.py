"""Thresholds chosen on one half of the scored recordings, and the expected cost of their decisions on the other half."""

import numpy as np
from settings import AnomalyRecipe

from vcae.anomaly import metrics
from vcae.anomaly.metrics import CostTable

CHOICES = {
    "cost table": lambda labels, scores, costs: metrics.cost_threshold(labels, scores, costs),
    "90th percentile of a gamma": lambda labels, scores, costs: metrics.gamma_threshold(scores[~labels]),
    "best F1": lambda labels, scores, costs: metrics.f1_threshold(labels, scores),
}


def halves(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of a dev and a test half, stratified by label."""
    first: list[int] = []
    for label in (False, True):
        at = rng.permutation(np.flatnonzero(labels == label))
        first += at[: (len(at) + 1) // 2].tolist()
    dev = np.sort(first)
    return dev, np.setdiff1d(np.arange(len(labels)), dev)


def threshold_rows(
    recipe: AnomalyRecipe, scored: dict[str, dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]]
) -> list[list[str]]:
    """Return the mean expected cost on the test halves by task, system and method; the gamma is fitted to the dev half's normal scores.

    The interval is the 2.5 to 97.5 % range of the mean over groups between random splits.
    """
    costs = CostTable(recipe.cost_miss, recipe.cost_false_alarm, recipe.prior)
    rows = [["task", "system", *(f"expected cost, {name}" for name in CHOICES), "cost table is least"]]
    for task, systems in scored.items():
        for system in [s for s in systems if s in recipe.systems]:
            found = np.array([_draw(systems[system], costs, recipe.seed + k) for k in range(recipe.threshold_splits)])
            cells = [
                f"{m:.3f} [{low:.3f}, {high:.3f}]"
                for m, low, high in zip(found.mean(0), *np.quantile(found, [0.025, 0.975], axis=0), strict=True)
            ]
            least = float((found[:, 0] < found[:, 1:].min(1)).mean())
            rows.append([task, system, *cells, f"in {least:.0%} of draws"])
    return rows


def _draw(groups: dict[str, tuple[np.ndarray, np.ndarray]], costs: CostTable, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    made = []
    for labels, scores in groups.values():
        dev, test = halves(labels, rng)
        chosen = [choose(labels[dev], scores[dev], costs) for choose in CHOICES.values()]
        made.append([metrics.expected_cost(labels[test], scores[test], at, costs) for at in chosen])
    return np.mean(made, axis=0).tolist()
