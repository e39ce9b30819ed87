"""From scores to probabilities: monotone calibration, and shrinkage where little was seen."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]

KNOT_COUNT_MAX = 64
GROUP_STRENGTH = 200.0  # showings the group's own rate weighs as much as, against a product's
GLOBAL_STRENGTH = 1_000.0  # and the shop's against a group's


def fit_monotone(score: Float64s, outcome: Float64s) -> tuple[Float64s, Float64s]:
    """Return the knots (score, probability) of the non-decreasing step function nearest to the outcomes.

    At most KNOT_COUNT_MAX knots, of neighbouring steps joined by their means: a probability is never above that of a
    higher score. Between knots it is read off by linear interpolation.

    Args:
        score: (C,) of each case.
        outcome: (C,) 0 or 1, or a rate.
    """
    from scipy.optimize import isotonic_regression  # a second to import, for training alone

    if not len(score):
        return np.zeros(1), np.zeros(1)
    order = np.argsort(score, kind="stable")
    score, outcome = score[order], outcome[order]
    bins = np.array_split(np.arange(len(score)), min(len(score), 4 * KNOT_COUNT_MAX))
    mean_score = np.array([score[one].mean() for one in bins])
    mean_outcome = np.array([outcome[one].mean() for one in bins])
    weight = np.array([float(len(one)) for one in bins])
    fitted = isotonic_regression(mean_outcome, weights=weight)
    begins, values = fitted.blocks[:-1], fitted.x
    knots = [
        (float(np.average(mean_score[a:b], weights=weight[a:b])), float(values[a]))
        for a, b in zip(begins, fitted.blocks[1:], strict=True)
    ]
    while len(knots) > KNOT_COUNT_MAX:
        knots = knots[:1] + knots[1:-1:2] + knots[-1:]
    at = np.array([one for one, _ in knots])
    keep = np.append(np.diff(at) > 0, True)
    return at[keep], np.array([value for _, value in knots])[keep]


def apply_monotone(knots: tuple[Float64s, Float64s], score: NDArray[np.float32] | Float64s) -> Float64s:
    """Return the probabilities of scores; outside the knots, the nearest one's."""
    return np.asarray(np.interp(score, *knots), np.float64)


def back_off(clicks: Float64s, seen: Float64s, group: Int64s, prior_rate: float) -> Float64s:
    """Return each product's click rate, drawn to its group's, and that to the shop's, and that to the prior.

    The mean of a Beta posterior at each level: rates of products seen often are their own, of others their group's.

    Args:
        clicks: (P,) clicks of each product.
        seen: (P,) attention each product had: times it was really seen.
        group: (P,) number of each product's category x brand.
        prior_rate: of the shop, before anything was seen.
    """
    shop = (clicks.sum() + GLOBAL_STRENGTH * prior_rate) / (seen.sum() + GLOBAL_STRENGTH)
    group_count = int(group.max()) + 1 if len(group) else 0
    group_clicks = np.bincount(group, clicks, group_count)
    group_seen = np.bincount(group, seen, group_count)
    of_group = (group_clicks + GLOBAL_STRENGTH * shop) / (group_seen + GLOBAL_STRENGTH)
    return np.asarray((clicks + GROUP_STRENGTH * of_group[group]) / (seen + GROUP_STRENGTH))


def expected_calibration_error(predicted: Float64s, outcome: Float64s, bin_count: int = 10) -> float:
    """Return the mean gap between predicted and true rate over bins of equally many cases."""
    if not len(predicted):
        return 0.0
    order = np.argsort(predicted, kind="stable")
    gaps: Sequence[float] = [
        abs(float(predicted[one].mean() - outcome[one].mean())) * len(one)
        for one in np.array_split(order, bin_count)
        if len(one)
    ]
    return sum(gaps) / len(predicted)
