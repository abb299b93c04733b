"""Figures against scikit-learn, closed forms and cases worked by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from vcae.anomaly import metrics
from vcae.anomaly.metrics import CostTable
from vcae.errors import ConfigError, DataError

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=bool)
SCORES = np.array([1.0, 2.0, 3.0, 6.0, 4.0, 5.0, 7.0, 8.0])


def gaussian(n_normal, n_anomalous, shift, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat([False, True], [n_normal, n_anomalous])
    return labels, rng.normal(size=len(labels)) + shift * labels


def test_areas_of_a_case_worked_by_hand():
    # Of 16 pairs, the normal 6 lies above the anomalies 4 and 5.
    assert metrics.auc(LABELS, SCORES) == pytest.approx(14 / 16)
    assert metrics.auc(LABELS, np.ones(8)) == 0.5
    # Up to a false alarm rate of .1 half of the anomalies are found: A = .05, chance .005, perfect .1.
    assert metrics.partial_auc(LABELS, SCORES) == pytest.approx((1 + (0.05 - 0.005) / (0.1 - 0.005)) / 2)


def test_auc_is_that_of_two_gaussians():
    labels, scores = gaussian(4000, 4000, 1.0)
    assert metrics.auc(labels, scores) == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.015)


@pytest.mark.parametrize("max_fpr", [1.0, 0.1, 0.37])
def test_many_resamples_at_once_are_those_one_by_one(max_fpr):
    rng = np.random.default_rng(1)
    labels = np.repeat([False, True], [23, 17])
    scores = np.round(rng.normal(size=40) + labels, 1)  # With ties.
    drawn = metrics._draw(labels, 50, seed=3)
    assert (labels[drawn] == labels).all()
    one_by_one = [roc_auc_score(labels, scores[at], max_fpr=None if max_fpr == 1 else max_fpr) for at in drawn]
    assert metrics.resampled_areas(labels, scores, drawn, max_fpr) == pytest.approx(one_by_one, abs=1e-12)


def test_decisions_are_those_of_scikit_learn():
    made = metrics.decide(LABELS, SCORES, 3.0)
    assert (made.hits, made.misses, made.false_alarms, made.passes) == (4, 0, 2, 2)  # 3 itself is anomalous.
    expected = precision_recall_fscore_support(LABELS, SCORES >= 3.0, average="binary")[:3]
    assert (made.precision, made.recall, made.f1) == pytest.approx(expected)
    nothing = metrics.decide(LABELS, SCORES, 9.0)
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.false_alarm_rate) == (0, 0, 0, 0)


def test_expected_cost_weighs_by_the_prior_and_not_by_the_test_set():
    costs = CostTable(miss=100, false_alarm=1, prior=0.01)
    assert metrics.expected_cost(LABELS, SCORES, 6.5, costs) == pytest.approx(0.01 * 100 * 0.5)
    assert metrics.expected_cost(LABELS, SCORES, 3.5, costs) == pytest.approx(0.99 * 0.25)
    twice = np.concatenate([LABELS, LABELS[:4]]), np.concatenate([SCORES, SCORES[:4]])
    assert metrics.expected_cost(*twice, 3.5, costs) == pytest.approx(0.99 * 0.25)


def test_the_curve_decides_what_its_rates_say():
    labels, scores = gaussian(30, 20, 1.0)
    scores = np.round(scores, 1)
    curve = metrics.roc(labels, scores)
    assert (np.diff(curve.thresholds) < 0).all()
    costs = CostTable(20, 2, 0.2)
    for at, alarms, hits, cost in zip(curve.thresholds, curve.false_alarm_rate, curve.hit_rate, curve.cost(costs), strict=True):
        made = metrics.decide(labels, scores, at)
        assert (made.false_alarm_rate, made.recall) == pytest.approx((alarms, hits))
        assert metrics.expected_cost(labels, scores, at, costs) == pytest.approx(cost)


@pytest.mark.parametrize("costs", [CostTable(100, 1, 0.01), CostTable(100, 1, 0.1), CostTable(1, 1, 0.05)])
def test_the_cost_threshold_nears_the_best_of_two_gaussians(costs):
    """Where the densities' ratio equals the ratio of the costs: t = d / 2 + ln((1 - p) f / (p m)) / d."""
    distance = 2.0
    labels, scores = gaussian(4000, 4000, distance)
    best = distance / 2 + np.log((1 - costs.prior) * costs.false_alarm / (costs.prior * costs.miss)) / distance
    assert metrics.cost_threshold(labels, scores, costs) == pytest.approx(best, abs=0.3)


def test_the_cost_threshold_costs_less_on_unseen_data_than_the_empirical_one():
    costs, smooth, plain = CostTable(), [], []
    test = gaussian(5000, 5000, 2.0, seed=99)
    for seed in range(60):
        labels, scores = gaussian(10, 10, 2.0, seed)
        curve = metrics.roc(labels, scores)
        lucky = float(curve.thresholds[int(np.argmin(curve.cost(costs)))])
        smooth.append(metrics.expected_cost(*test, metrics.cost_threshold(labels, scores, costs), costs))
        plain.append(metrics.expected_cost(*test, lucky, costs))
    assert np.mean(smooth) < np.mean(plain) - 0.005


def test_equal_scores_still_give_a_threshold():
    labels, scores = LABELS, np.where(LABELS, 2.0, 1.0)
    threshold = metrics.cost_threshold(labels, scores, CostTable())
    assert metrics.decide(labels, scores, threshold).f1 == 1
    assert np.isfinite(metrics.cost_threshold(labels, np.ones(8), CostTable()))


def test_the_f1_threshold_is_the_best_there_is():
    labels, scores = gaussian(40, 15, 1.0)
    best = metrics.decide(labels, scores, metrics.f1_threshold(labels, scores)).f1
    assert best == max(metrics.decide(labels, scores, at).f1 for at in [*(scores - 1e-9), scores.max()])


def test_the_gamma_threshold_is_the_quantile_of_a_gamma():
    drawn = np.random.default_rng(0).gamma(4.0, 2.0, 20000)
    assert metrics.gamma_threshold(drawn) == pytest.approx(stats.gamma.ppf(0.9, 4.0, scale=2.0), rel=0.03)
    with pytest.raises(DataError, match="cannot be fitted to 2 scores of 1 values"):
        metrics.gamma_threshold([1.0, 1.0])


def test_bootstrap_intervals_hold_the_truth_as_often_as_they_say():
    truth, held = stats.norm.cdf(1 / np.sqrt(2)), 0
    for seed in range(100):
        found = metrics.bootstrap([gaussian(40, 40, 1.0, seed + 5)], metrics.auc, n=300, seed=seed)
        assert found.low <= found.value <= found.high
        held += found.low <= truth <= found.high
    assert 86 <= held <= 99


def test_bootstrap_is_seeded_and_differences_are_paired():
    group = gaussian(30, 30, 1.0)
    again = [metrics.bootstrap([group], metrics.auc, 200, seed=4) for _ in range(2)]
    assert again[0] == again[1] != metrics.bootstrap([group], metrics.auc, 200, seed=5)
    same = metrics.bootstrap_difference([group], [group], metrics.auc, 200)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = (group[0], group[1] + 0.5 * group[0])
    assert metrics.bootstrap_difference([better], [group], metrics.auc, 200).low > 0
    with pytest.raises(DataError, match="did not score the same recordings"):
        metrics.bootstrap_difference([group], [(~group[0], group[1])], metrics.auc)


def test_the_summary_has_every_figure_and_no_accuracy():
    found = metrics.summarize([(LABELS, SCORES)], 3.5, CostTable(), n=50)
    assert list(found) == ["auc", "pauc", "precision", "recall", "f1", "cost"]
    assert found["cost"].value == pytest.approx(0.2475)
    assert list(metrics.summarize([(LABELS, SCORES)], n=10)) == ["auc", "pauc"]


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [1.0], "2 labels for 1 scores"),
        ([0, 1], [1.0, np.nan], "1 scores are not finite"),
        ([0, 0], [1.0, 2.0], "2 recordings and none is anomalous"),
        ([1, 1], [1.0, 2.0], "2 recordings and none is normal"),
    ],
)
def test_what_cannot_be_judged_is_named(labels, scores, message):
    for figure in (metrics.auc, metrics.partial_auc, metrics.roc):
        with pytest.raises(DataError, match=message):
            figure(labels, scores)


@pytest.mark.parametrize(("values", "message"), [((-1, 1, 0.1), "cost of a miss is -1"), ((1, 1, 1.0), "prior is 1.0")])
def test_bad_costs_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        CostTable(*values)
