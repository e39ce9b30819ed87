"""Tests of changes: they hold their level without a change, and find one that is there."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2, false_discovery_control

from affinity.significance import Change, adjust, rate_change, share_change

LATER = np.arange(16) >= 12
WEEK = np.ones(16)
CASE_COUNT = 6_000


def orders(rng: np.random.Generator, mean: float, scatter: float, count: int = CASE_COUNT) -> np.ndarray:
    """Orders of weeks whose rate scatters about the same mean, before and after."""
    rate = np.full((count, 16), float(mean))
    if scatter:
        rate *= rng.gamma(1 / scatter, scatter, rate.shape)
    return rng.poisson(rate)


def by_rate(rng: np.random.Generator, mean: float, scatter: float) -> Change:
    return rate_change(orders(rng, mean, scatter), WEEK, LATER)


def by_share(rng: np.random.Generator, mean: float, scatter: float) -> Change:
    shop = rng.poisson(2_000 * np.exp(rng.normal(0, 0.15, 16)))  # the shop has good and bad weeks
    part = np.full((CASE_COUNT, 16), mean / 2_000)
    if scatter:
        part *= rng.gamma(1 / scatter, scatter, part.shape)
    return share_change(rng.binomial(shop, part), shop, LATER)


@pytest.mark.parametrize("scatter", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("mean", [5, 40, 400])
@pytest.mark.parametrize("test", [by_rate, by_share])
def test_without_a_change_false_alarms_come_at_the_level(
    test: Callable[[np.random.Generator, float, float], Change], mean: float, scatter: float
) -> None:
    p_value = test(np.random.default_rng(7), mean, scatter).p_value
    p_value = p_value[~np.isnan(p_value)]
    for level, tolerance in ((0.05, 0.011), (0.01, 0.006)):
        assert abs((p_value < level).mean() - level) < tolerance


def test_of_many_categories_without_a_change_seldom_any_is_found() -> None:
    rng = np.random.default_rng(11)
    found = [adjust(rate_change(orders(rng, 40, 0.05, 100), WEEK, LATER).p_value).min() < 0.05 for _ in range(300)]
    assert np.mean(found) < 0.085  # 0.05 and three standard errors


def test_a_planted_change_is_found_and_little_else() -> None:
    rng = np.random.default_rng(13)
    hits, false_share = [], []
    for _ in range(60):
        count = orders(rng, 60, 0.02, 200)
        count[:20, 12:] = rng.poisson(60 * 0.5 * rng.gamma(50, 1 / 50, (20, 4)))
        found = adjust(rate_change(count, WEEK, LATER).p_value) < 0.05
        hits.append(found[:20].mean())
        false_share.append(found[20:].sum() / max(1, found.sum()))
    assert np.mean(hits) > 0.95
    assert np.mean(false_share) < 0.065


def test_a_category_that_moves_as_the_shop_does_has_not_changed_its_share() -> None:
    rng = np.random.default_rng(17)
    shop = rng.poisson(np.where(LATER, 3_000, 1_000))
    count = rng.binomial(shop, 0.04, (50, 16))
    assert (adjust(rate_change(count, WEEK, LATER).p_value) < 0.05).all()
    assert (adjust(share_change(count, shop, LATER).p_value) > 0.05).all()


def test_one_rate_without_scatter_is_the_likelihood_ratio_test() -> None:
    # 120 orders in 12 weeks, 80 in 4: 10 and 20 a week, with nothing scattered about them.
    count = np.where(LATER, 20, 10)[None, :]
    change = rate_change(count, WEEK, LATER)
    assert change.ratio[0] == pytest.approx(2.0)
    gain = 2 * (120 * np.log(10 / 12.5) + 80 * np.log(20 / 12.5))
    from scipy.stats import f

    assert change.p_value[0] == pytest.approx(f.sf(gain, 1, 14))
    assert change.p_value[0] > chi2.sf(gain, 1)  # fourteen weeks are not certainty


def test_too_little_is_not_tested() -> None:
    few = np.zeros((1, 16), int)
    few[0, :19] = 1
    assert np.isnan(rate_change(few, WEEK, LATER).p_value[0])
    assert np.isnan(rate_change(np.array([[30, 40]]), np.ones(2), np.array([False, True])).p_value[0])
    nothing = rate_change(np.zeros((1, 16), int), WEEK, LATER)
    assert np.isnan(nothing.ratio[0])


def test_from_nothing_to_much_is_a_change() -> None:
    count = np.where(LATER, 25, 0)[None, :]
    change = rate_change(count, WEEK, LATER)
    assert np.isinf(change.ratio[0])
    assert change.p_value[0] < 1e-6


def test_adjusting_is_that_of_benjamini_and_hochberg() -> None:
    p_value = np.random.default_rng(3).random(40) ** 3
    assert adjust(p_value) == pytest.approx(false_discovery_control(p_value))
    with_gaps = np.concatenate([[np.nan], p_value, [np.nan]])
    assert adjust(with_gaps)[1:-1] == pytest.approx(false_discovery_control(p_value))
    assert np.isnan(adjust(with_gaps)[[0, -1]]).all()
    small = np.sort(p_value)[:5]
    padded = np.concatenate([small, np.ones(995)])
    assert adjust(small, 1_000) == pytest.approx(false_discovery_control(padded)[:5])
    assert len(adjust(np.zeros(0))) == 0
