"""Weighs what is known of a candidate into one logit: a conditional logistic regression over each visitor's candidates.

With few visitors to learn from, the weights stay near those given; so a small shop is ranked by the plain blend.
"""

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]

PRIOR_STRENGTH = 5.0  # cases' worth, for each standard deviation of a feature
ITERATION_COUNT_MAX = 60


def fit_combiner(feature: Float32s, is_there: Bools, is_target: Bools, prior: Float64s) -> Float64s:
    """Return the weights under which what came next is most likely, given that it is one of the candidates.

    A visitor for whom several products came next counts once, shared between them; one for whom none of the
    candidates did does not count.

    Args:
        feature: (C, T, F) of each visitor's candidates.
        is_there: (C, T) whether there is such a candidate.
        is_target: (C, T) whether it came next.
        prior: (F,) weights without any case.

    Source: McFadden, "Conditional logit analysis of qualitative choice behavior" (1974).
    """
    from scipy.optimize import minimize  # slow to import, for training alone

    is_of_use = is_target.any(axis=1)
    is_there = is_there[is_of_use]
    case_count = len(is_there)
    if not case_count:
        return prior
    row = feature[is_of_use][is_there]
    mean, scale = row.mean(axis=0, dtype=np.float64), row.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-6, scale, np.inf)  # what never differs tells nothing
    row = ((row - mean) / scale).astype(np.float32)
    case = np.repeat(np.arange(case_count), is_there.sum(axis=1))
    first = np.flatnonzero(np.diff(case, prepend=-1))
    target = is_target[is_of_use][is_there].astype(np.float64)
    target /= np.add.reduceat(target, first)[case]
    finite = np.isfinite(scale)
    start = np.where(finite, prior * np.where(finite, scale, 0.0), 0.0)

    def loss(weight: Float64s) -> tuple[float, Float64s]:
        logit = (row @ weight.astype(np.float32)).astype(np.float64)
        logit -= np.maximum.reduceat(logit, first)[case]
        odds = np.exp(logit)
        total = np.add.reduceat(odds, first)
        off = weight - start
        value = float(target @ (np.log(total)[case] - logit)) + PRIOR_STRENGTH * float(off @ off)
        slope = ((odds / total[case] - target).astype(np.float32) @ row).astype(np.float64)
        return value / case_count, (slope + 2.0 * PRIOR_STRENGTH * off) / case_count

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATION_COUNT_MAX})
    return np.asarray(found.x / scale)
