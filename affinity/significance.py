"""Whether a count changed by more than chance: tests of rates and shares by the week, and of many at once.

Orders of a shop scatter more than a Poisson or binomial count would: promotions, holidays, a customer who orders twice.
So the scatter is measured, week by week within each period, and a change has to stand out against it: a
quasi-likelihood F test of the difference of two periods' rates, with the dispersion taken as at least 1. A dozen weeks
measure it poorly, so each is drawn to what all of them have in common, as far as they do.

Source: McCullagh and Nelder, "Generalized Linear Models", 2nd ed. 1989, §4.5, §6.2 and §9.2; dispersions as in Lund,
Nettleton, McCarthy and Smyth, "Detecting differential expression in RNA-sequence data using quasi-likelihood with
shrunken dispersion estimates", Stat. Appl. Genet. Mol. Biol. 11, 2012. For many at once: Benjamini and Hochberg,
"Controlling the False Discovery Rate", J. R. Stat. Soc. B 57, 1995; it also holds for categories and those above them,
which move together (Benjamini and Yekutieli, Ann. Stat. 29, 2001).
"""

from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Float64s = NDArray[np.float64]
Flags = NDArray[np.bool_]

EVENT_COUNT_MIN = 20  # in both periods together: of less, nothing is said
DRAWN_COUNT_MIN = 10  # of fewer, each dispersion stands for itself
LEAST_DISPERSION = 0.01  # below it one counts as this
FREEDOM_MAX = 1e6
WEEK_COUNT_MIN = 4  # in both periods together, so that their scatter can be measured


class Change(Struct, frozen=True, eq=False):
    """How rates of K things changed from one period to another.

    Attributes:
        ratio: (K,) rate of the later period over that of the earlier one; infinite from 0, NaN from 0 to 0.
        p_value: (K,) how likely at least so great a change is by chance; NaN where there is too little to say.
    """

    ratio: Float64s
    p_value: Float64s


def rate_change(count: NDArray[Any], exposure: NDArray[Any], is_later: Flags) -> Change:
    """Test whether events per exposure differ between two periods: counts that have no upper bound.

    Args:
        count: (K, B) events of each week.
        exposure: (B,) or (K, B) what they are counted per; weeks alike for a rate of time.
        is_later: (B,) whether the week is of the later period.
    """
    events = count.astype(np.float64)
    per = np.broadcast_to(exposure, events.shape).astype(np.float64)
    alike, apart = _expected(events, per, is_later)
    gain = 2 * (_log_terms(events, apart) - _log_terms(events, alike)).sum(1)
    return _judge(events, per, is_later, gain, (events - apart) ** 2, apart)


def share_change(count: NDArray[Any], total: NDArray[Any], is_later: Flags) -> Change:
    """Test whether a part's share of a whole differs between two periods, each of the whole being in the part or not.

    Args:
        count: (K, B) the part, of each week.
        total: (B,) or (K, B) the whole; the part is never more.
        is_later: (B,) whether the week is of the later period.
    """
    events = count.astype(np.float64)
    whole = np.broadcast_to(total, events.shape).astype(np.float64)
    alike, apart = _expected(events, whole, is_later)
    likelihood = _log_terms(events, apart) + _log_terms(whole - events, whole - apart)
    likelihood -= _log_terms(events, alike) + _log_terms(whole - events, whole - alike)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.where(whole > 0, apart * (whole - apart) / whole, 0.0)
    return _judge(events, whole, is_later, 2 * likelihood.sum(1), (events - apart) ** 2, variance)


def adjust(p_value: Float64s, test_count: int | None = None) -> Float64s:
    """Return p-values adjusted for how many were looked at: below q, at most a share q is expected to be chance.

    Args:
        p_value: (N,) NaN where nothing was tested, and stays so.
        test_count: how many tests there were, where those with p-values near 1 are left out of `p_value`.
    """
    adjusted = np.full(len(p_value), np.nan)
    tested = np.flatnonzero(~np.isnan(p_value))
    if not len(tested):
        return adjusted
    order = tested[np.argsort(p_value[tested], kind="stable")]
    scaled = p_value[order] * (len(order) if test_count is None else test_count) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


def _judge(
    events: Float64s, per: Float64s, is_later: Flags, gain: Float64s, squared: Float64s, variance: Float64s
) -> Change:
    """Return ratios and p-values from the gain in deviance and the scatter within the periods."""
    from scipy.special import fdtrc  # heavy to import, and for reports alone

    with np.errstate(divide="ignore", invalid="ignore"):
        scatter = np.where(variance > 0, squared / variance, 0.0).sum(1)
        rate = [events[:, period].sum(1) / per[:, period].sum(1) for period in (is_later, ~is_later)]
        ratio = rate[0] / rate[1]
    is_week = (per > 0).sum(1)
    has_both = (per[:, is_later].sum(1) > 0) & (per[:, ~is_later].sum(1) > 0)
    is_enough = (events.sum(1) >= EVENT_COUNT_MIN) & (is_week >= WEEK_COUNT_MIN) & has_both
    p_value = np.full(len(events), np.nan)
    own_freedom = (is_week[is_enough] - 2).astype(np.float64)
    dispersion, freedom = _draw_together(scatter[is_enough] / own_freedom, own_freedom)
    statistic = np.maximum(gain[is_enough], 0.0) / np.maximum(1.0, dispersion)
    p_value[is_enough] = fdtrc(1.0, np.minimum(freedom, FREEDOM_MAX), statistic)
    return Change(ratio, p_value)


def _draw_together(dispersion: Float64s, freedom: Float64s) -> tuple[Float64s, Float64s]:
    """Return dispersions drawn to a common one, and their degrees of freedom, greater by what the common one is worth.

    It is worth the more, the less the dispersions differ beyond what so few weeks make them differ anyway.
    """
    from scipy.optimize import brentq
    from scipy.special import digamma, polygamma

    if len(dispersion) < DRAWN_COUNT_MIN:
        return dispersion, freedom
    half = freedom / 2
    logs = np.log(np.maximum(dispersion, LEAST_DISPERSION)) - digamma(half) + np.log(half)
    beyond = float(np.var(logs, ddof=1) - polygamma(1, half).mean())
    worth = FREEDOM_MAX
    if beyond > polygamma(1, FREEDOM_MAX / 2):
        worth = 2 * brentq(lambda x: polygamma(1, x) - beyond, 1e-3, FREEDOM_MAX / 2)
    common = float(np.exp(logs.mean() + digamma(worth / 2) - np.log(worth / 2)))
    return (worth * common + freedom * dispersion) / (worth + freedom), worth + freedom


def _expected(events: Float64s, per: Float64s, is_later: Flags) -> tuple[Float64s, Float64s]:
    """Return the (K, B) expected counts with one rate for all weeks, and with one for each period."""
    with np.errstate(divide="ignore", invalid="ignore"):
        alike = per * np.nan_to_num(events.sum(1) / per.sum(1))[:, None]
        apart = np.empty_like(per)
        for period in (is_later, ~is_later):
            rate = np.nan_to_num(events[:, period].sum(1) / per[:, period].sum(1))
            apart[:, period] = per[:, period] * rate[:, None]
    return alike, apart


def _log_terms(count: Float64s, expected: Float64s) -> Float64s:
    """Return the terms of a log-likelihood; nothing of nothing counts 0."""
    return np.where(count > 0, count * np.log(np.where(expected > 0, expected, 1.0)), 0.0)
