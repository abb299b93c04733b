"""Metrics of anomaly scores: areas under curves, decisions and their expected cost, with bootstrap intervals. No accuracy.

n recordings; labels (n,) bool, True where anomalous; scores (n,), larger where more anomalous. A recording is called anomalous when its score
is the threshold or higher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vcae.errors import ConfigError, DataError

MAX_FPR = 0.1
QUANTILE = 0.9
Statistic = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class CostTable:
    """Costs of mistakes, and prior probability of anomalies.

    Attributes:
        miss: Cost of an anomaly called normal.
        false_alarm: Cost of a normal recording called anomalous.
        prior: Fraction of anomalous recordings in use; it is usually far higher in test sets.
    """

    miss: float = 100.0
    false_alarm: float = 1.0
    prior: float = 0.01

    def __post_init__(self) -> None:
        for name in ("miss", "false_alarm"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"the cost of a {name.replace('_', ' ')} is {value}; it must be 0 or more")
        if not 0 < self.prior < 1:
            raise ConfigError(f"the prior is {self.prior}; it is the fraction of anomalies and must be between 0 and 1")

    def cost(self, miss_rate: Any, false_alarm_rate: Any) -> Any:
        """Return the expected cost per recording: prior miss P(miss) + (1 - prior) false_alarm P(false alarm)."""
        return self.prior * self.miss * miss_rate + (1 - self.prior) * self.false_alarm * false_alarm_rate


@dataclass(frozen=True)
class Decisions:
    """Counts of a threshold's decisions on labelled recordings, and rates computed from them."""

    hits: int
    misses: int
    false_alarms: int
    passes: int

    @property
    def precision(self) -> float:
        """Fraction of the recordings called anomalous that are anomalous; 0 if there are none."""
        return self.hits / max(self.hits + self.false_alarms, 1)

    @property
    def recall(self) -> float:
        """Fraction of the anomalies that are found."""
        return self.hits / max(self.hits + self.misses, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.hits / max(2 * self.hits + self.misses + self.false_alarms, 1)

    @property
    def false_alarm_rate(self) -> float:
        """Fraction of the normal recordings that are called anomalous."""
        return self.false_alarms / max(self.false_alarms + self.passes, 1)


@dataclass(frozen=True)
class Interval:
    """Estimate with its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Curve:
    """Rates at thresholds (K,), from above all scores (nothing is anomalous) to below all of them."""

    thresholds: np.ndarray
    false_alarm_rate: np.ndarray
    hit_rate: np.ndarray

    def cost(self, costs: CostTable) -> np.ndarray:
        """Return the expected cost per recording (K,) at each threshold."""
        return np.asarray(costs.cost(1 - self.hit_rate, self.false_alarm_rate))


def check(labels: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores as arrays (n,).

    Raises:
        DataError: If their numbers differ, a score is not finite, or all recordings have the same label.
    """
    known, found = np.asarray(labels).astype(bool).ravel(), np.asarray(scores, dtype=np.float64).ravel()
    if len(known) != len(found):
        raise DataError(f"there are {len(known)} labels for {len(found)} scores; each recording needs both")
    if not np.isfinite(found).all():
        raise DataError(f"{int((~np.isfinite(found)).sum())} scores are not finite; score these recordings again")
    if not known.any() or known.all():
        kind = "normal" if known.any() else "anomalous"
        raise DataError(f"there are {len(known)} recordings and none is {kind}; give recordings of both kinds")
    return known, found


def auc(labels: Any, scores: Any) -> float:
    """Return the area under the ROC curve: how often an anomaly scores above a normal recording, ties counted half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*check(labels, scores)))


def partial_auc(labels: Any, scores: Any, max_fpr: float = MAX_FPR) -> float:
    """Return the area under the ROC curve up to a false alarm rate, standardised: .5 is chance, 1 is perfect.

    Args:
        labels: (n,), True where anomalous.
        scores: (n,).
        max_fpr: The largest false alarm rate that counts, over 0 to 1.

    Source: McClish, Analyzing a portion of the ROC curve (1989): (1 + (A - A_chance) / (A_perfect - A_chance)) / 2; the figure of DCASE 2020
    task 2's baseline, by the same function of scikit-learn.
    """
    from sklearn.metrics import roc_auc_score

    known, found = check(labels, scores)
    return float(roc_auc_score(known, found, max_fpr=max_fpr))


def roc(labels: Any, scores: Any) -> Curve:
    """Return the ROC curve; thresholds are half-way between neighbouring scores, the first and last outside of all scores."""
    from sklearn.metrics import roc_curve

    known, found = check(labels, scores)
    alarms, hits, at = roc_curve(known, found, drop_intermediate=False)
    # scikit-learn's thresholds are scores; those half-way to the next lower score decide the same and generalise better.
    lower = np.append(at[2:], at[-1] - (np.ptp(found) * 0.01 or 1.0))
    middle = np.concatenate([[found.max() + (np.ptp(found) * 0.01 or 1.0)], (at[1:] + lower) / 2])
    return Curve(middle, alarms, hits)


def decide(labels: Any, scores: Any, threshold: float) -> Decisions:
    """Return the counts of a threshold's decisions."""
    known, found = check(labels, scores)
    called = found >= threshold
    return Decisions(
        int((called & known).sum()), int((~called & known).sum()), int((called & ~known).sum()), int((~called & ~known).sum())
    )


def expected_cost(labels: Any, scores: Any, threshold: float, costs: CostTable) -> float:
    """Return the expected cost per recording of a threshold, at the prior of the cost table."""
    made = decide(labels, scores, threshold)
    return float(costs.cost(1 - made.recall, made.false_alarm_rate))


def cost_threshold(labels: Any, scores: Any, costs: CostTable) -> float:
    """Choose the threshold of least expected cost from a dev set.

    The scores of both labels are smoothed by a Gaussian kernel first (Silverman's width): without smoothing, the minimum over a few
    recordings is a plateau or an accidental gap, whose edges do not generalise. The smoothing is applied to the inverse hyperbolic sine
    of the standardised scores, as anomalies vary far more than normal recordings.

    Args:
        labels: (n,), True where anomalous.
        scores: (n,).
        costs: Costs of mistakes.

    Returns:
        The threshold, within the smoothed scores' range.

    Source: Duda, Hart and Stork, Pattern Classification (2001), 2.2 (minimum risk); Silverman, Density Estimation (1986), 3.31.
    """
    known, found = check(labels, scores)
    middle = float(np.median(found[~known]))
    deviation = float(found[~known].std()) or float(found.std()) or 1.0
    bent = np.arcsinh((found - middle) / deviation)
    normal, anomalous = bent[~known], bent[known]
    # At the scores, and evenly over their range.
    span = np.ptp(bent) or 1.0
    even = np.linspace(bent.min() - 0.05 * span, bent.max() + 0.05 * span, 1024)
    at = np.unique(np.concatenate([np.quantile(bent, np.linspace(0, 1, 1025)), even]))
    cost = costs.cost(_smooth_share_below(anomalous, at), 1 - _smooth_share_below(normal, at))
    least = np.flatnonzero(cost <= cost.min() + 1e-9)
    return float(middle + deviation * np.sinh(at[least[len(least) // 2]]))


def _smooth_share_below(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the smoothed cumulative distribution of values (m,) at points (K,)."""
    from scipy.special import ndtr

    quartiles = np.percentile(values, [25, 75])
    spread = min(values.std() or np.inf, (quartiles[1] - quartiles[0]) / 1.34 or np.inf)
    width = 0.9 * (spread if np.isfinite(spread) else 1e-6) * len(values) ** -0.2
    share: np.ndarray = ndtr((at[:, None] - values) / width).mean(axis=1)
    return share


def f1_threshold(labels: Any, scores: Any) -> float:
    """Choose the threshold with the best F1 on a dev set; of several, the highest."""
    known, found = check(labels, scores)
    curve = roc(known, found)
    hits, alarms = curve.hit_rate * known.sum(), curve.false_alarm_rate * (~known).sum()
    return float(curve.thresholds[int(np.argmax(2 * hits / (known.sum() + hits + alarms)))])


def gamma_threshold(normal_scores: Any, quantile: float = QUANTILE) -> float:
    """Return a quantile of the gamma distribution fitted to the scores (m,) of normal recordings.

    Source: the baseline of DCASE 2022 task 2, whose decisions use the 90th percentile; location and scale are fitted with the shape.

    Raises:
        DataError: If there are fewer than three scores, or all are equal.
    """
    from scipy.stats import gamma

    found = np.asarray(normal_scores, dtype=np.float64).ravel()
    if len(found) < 3 or np.ptp(found) == 0 or not np.isfinite(found).all():
        raise DataError(
            f"a gamma distribution cannot be fitted to {len(found)} scores of {len(set(found.tolist()))} values; give more"
        )
    shape, location, scale = gamma.fit(found)
    threshold = float(gamma.ppf(quantile, shape, loc=location, scale=scale))
    return threshold if np.isfinite(threshold) else float(np.quantile(found, quantile))


def bootstrap(
    groups: Sequence[tuple[Any, Any]], statistic: Statistic, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return the mean of a statistic over groups of recordings, with a percentile bootstrap interval.

    Recordings are resampled within each group and label, so that every resample has as many normal and anomalous ones; the groups
    themselves (machines, classes) are fixed: the interval is for other recordings of the same machines.

    Args:
        groups: Labels (n,) and scores (n,) of each group.
        statistic: Function of labels and scores.
        n: Number of resamples.
        seed: Seed of the resampling; the same seed draws the same recordings, so that two systems can be compared in pairs.
        level: Confidence level of the interval.
    """
    known = [check(*group) for group in groups]
    if not known:
        raise DataError("there are no groups of recordings; give at least one")
    value = float(np.mean([statistic(*group) for group in known]))
    draws = [_draw(labels, n, seed + k) for k, (labels, _) in enumerate(known)]
    means = _resampled([(labels, scores) for labels, scores in known], draws, statistic)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def bootstrap_difference(
    first: Sequence[tuple[Any, Any]],
    second: Sequence[tuple[Any, Any]],
    statistic: Statistic,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the difference of the mean of a statistic between two systems on the same recordings, with its interval.

    Both are resampled in the same way, so that variation common to both cancels.

    Raises:
        DataError: If the two did not score the same recordings.
    """
    one, other = [check(*g) for g in first], [check(*g) for g in second]
    if len(one) != len(other) or any(not np.array_equal(a[0], b[0]) for a, b in zip(one, other, strict=True)):
        raise DataError("the two systems did not score the same recordings; compare them on the same ones, in the same order")
    draws = [_draw(labels, n, seed + k) for k, (labels, _) in enumerate(one)]
    value = np.mean([statistic(*g) for g in one]) - np.mean([statistic(*g) for g in other])
    low, high = np.quantile(
        _resampled(one, draws, statistic) - _resampled(other, draws, statistic), [(1 - level) / 2, (1 + level) / 2]
    )
    return Interval(float(value), float(low), float(high))


def _draw(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return indices (n, len(labels)) of recordings resampled with replacement within each label."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((n, len(labels)), dtype=np.int64)
    for label in (False, True):
        at = np.flatnonzero(labels == label)
        drawn[:, at] = rng.choice(at, size=(n, len(at)))
    return drawn


def _resampled(
    groups: Sequence[tuple[np.ndarray, np.ndarray]], draws: Sequence[np.ndarray], statistic: Statistic
) -> np.ndarray:
    """Return the mean over groups (n,) of a statistic, in each resample."""
    total = np.zeros(len(draws[0]))
    for (labels, scores), drawn in zip(groups, draws, strict=True):
        if statistic in (auc, partial_auc):
            total += resampled_areas(labels, scores, drawn, 1.0 if statistic is auc else MAX_FPR)
        else:
            total += [statistic(labels, scores[at]) for at in drawn]
    return total / len(groups)


def resampled_areas(labels: np.ndarray, scores: np.ndarray, drawn: np.ndarray, max_fpr: float = 1.0) -> np.ndarray:
    """Return AUC, or the standardised partial AUC, of many resamples at once.

    Args:
        labels: (n,).
        scores: (n,).
        drawn: (R, n), indices of resampled recordings; each has the label of the recording it replaces.
        max_fpr: 1 for the whole area.

    Returns:
        (R,), the values of `auc` or `partial_auc` for each resample.
    """
    _, rank = np.unique(-scores, return_inverse=True)
    levels = int(rank.max()) + 1
    rows = np.arange(len(drawn))[:, None]

    def cumulative(kind: np.ndarray) -> np.ndarray:
        counts = np.bincount((rows * levels + rank[drawn[:, kind]]).ravel(), minlength=len(drawn) * levels)
        shares = np.cumsum(counts.reshape(len(drawn), levels), axis=1) / kind.sum()
        return np.concatenate([np.zeros((len(drawn), 1)), shares], axis=1)

    alarms, hits = cumulative(~labels), cumulative(labels)
    # Each step of the curve, cut off where the false alarm rate ends.
    left, right = alarms[:, :-1], alarms[:, 1:]
    width = np.minimum(right, max_fpr) - np.minimum(left, max_fpr)
    slope = np.divide(hits[:, 1:] - hits[:, :-1], right - left, out=np.zeros_like(left), where=right > left)
    area = (width * (hits[:, :-1] + slope * width / 2)).sum(axis=1)
    if max_fpr == 1:
        return np.asarray(area)
    chance = max_fpr**2 / 2
    return np.asarray((1 + (area - chance) / (max_fpr - chance)) / 2)


def summarize(
    groups: Sequence[tuple[Any, Any]],
    threshold: float | None = None,
    costs: CostTable | None = None,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return all metrics of scored recordings with their intervals.

    Args:
        groups: Labels and scores of each machine or class; metrics are averaged over them.
        threshold: Threshold for precision, recall, F1 and expected cost; without it only the areas.
        costs: Costs for the expected cost.
        n: Number of resamples.
        seed: Seed of the resampling.
    """
    figures: dict[str, Statistic] = {"auc": auc, "pauc": partial_auc}
    if threshold is not None:
        at, table = threshold, costs or CostTable()
        figures |= {
            "precision": lambda labels, scores: decide(labels, scores, at).precision,
            "recall": lambda labels, scores: decide(labels, scores, at).recall,
            "f1": lambda labels, scores: decide(labels, scores, at).f1,
            "cost": lambda labels, scores: expected_cost(labels, scores, at, table),
        }
    return {name: bootstrap(groups, statistic, n, seed) for name, statistic in figures.items()}
