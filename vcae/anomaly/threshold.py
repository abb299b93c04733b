"""Choice of a detector's threshold by expected cost, with an explanation in words."""

from __future__ import annotations

import numpy as np

from vcae.anomaly.detector import Threshold
from vcae.anomaly.metrics import CostTable, cost_threshold, decide, expected_cost
from vcae.errors import DataError

# Fewest recordings of each label; fewer have no variance.
LEAST_CLIPS = 2


def choose_threshold(normal: np.ndarray, anomalous: np.ndarray, costs: CostTable) -> Threshold:
    """Choose the threshold of least expected cost on a dev set.

    Args:
        normal: (n,), scores of normal recordings that the detector was not fitted to.
        anomalous: (m,), scores of anomalous ones.
        costs: Costs of mistakes, and prior probability of anomalies.

    Returns:
        The threshold with an explanation, and the counts of its decisions on these recordings.

    Raises:
        DataError: For too few recordings, or scores that are not finite.
    """
    for name, scores in (("normal", normal), ("anomalous", anomalous)):
        if len(scores) < LEAST_CLIPS:
            raise DataError(
                f"{len(scores)} {name} recordings could be scored; at least {LEAST_CLIPS} are needed to choose a threshold"
            )
    labels = np.r_[np.zeros(len(normal), bool), np.ones(len(anomalous), bool)]
    scores = np.concatenate([normal, anomalous])
    value = cost_threshold(labels, scores, costs)
    made, cost = decide(labels, scores, value), expected_cost(labels, scores, value, costs)
    facts = {
        "cost_miss": costs.miss,
        "cost_false_alarm": costs.false_alarm,
        "prior": costs.prior,
        "normal": len(normal),
        "anomalous": len(anomalous),
        "false_alarms": made.false_alarms,
        "misses": made.misses,
        "expected_cost": cost,
    }
    reason = (
        f"least expected cost where a miss costs {costs.miss:g}, a false alarm {costs.false_alarm:g} and {100 * costs.prior:.3g} % "
        f"are anomalous; on {len(normal)} normal and {len(anomalous)} anomalous recordings: {made.false_alarms} false alarms, "
        f"{made.misses} misses, {cost:.4g} per recording"
    )
    return Threshold(value, reason, facts)
