"""Whole days of bidding: a budget lasts its day and buys nearly what it could, and promises little it cannot keep.

Short forms of what `tests/bench/bench_pacing.py` measures with 100,000 auctions.
"""

import numpy as np
import pytest

from tests.auction.paced_days import (
    MIDNIGHT_MS,
    PPM,
    Prices,
    best_fixed,
    prices_of_day,
    run_day,
    run_target_day,
    share_of_everything,
    view_of,
    view_with_target,
)


@pytest.mark.parametrize("phase", [0.0, 0.5])
def test_a_budget_lasts_the_day_and_buys_nearly_as_much_as_hindsight(phase: float) -> None:
    """The third day of a campaign that could spend three times its budget, with prices that swing by 60 %."""
    days = [prices_of_day(3_000, 3, day, phase=phase) for day in range(3)]
    budget = share_of_everything(days[0], 0.3)
    view = view_of(budget)
    for day, prices in enumerate(days):
        run = run_day(view, prices, budget, spent_before_micros=day * budget)
    assert run.spent_micros <= budget
    assert run.spent_micros >= 0.99 * budget
    assert run.last_win_share >= 0.95
    assert run.event_count >= 0.95 * best_fixed(days[2], budget)[0]


def test_a_campaign_in_a_hurry_is_spent_early_and_never_lowered() -> None:
    prices = prices_of_day(2_000, 3)
    budget = share_of_everything(prices, 0.3)
    run = run_day(view_of(budget, "asap"), prices, budget)
    assert set(run.pacing_ppm) == {PPM}
    assert run.last_win_share < 0.6
    assert run.spent_micros >= 0.99 * budget


@pytest.mark.parametrize("delays", ["all a minute", "a minute on average"])
def test_clicks_that_come_late_find_the_budget_they_were_promised(delays: str) -> None:
    """Eleven auctions a second for a budget of 200 clicks, each click a minute after its fill."""
    spent = given_back = 0
    for seed in range(2):
        chance = np.random.default_rng(seed)
        count = 40_000
        prices = Prices(
            at_ms=MIDNIGHT_MS + 36_000_000 + np.sort(chance.integers(0, 1_800_000, count)),
            price_micros=chance.integers(300_000, 900_000, count),
            happens=chance.integers(0, PPM, count) < 120_000,
        )
        delay = 60_000 if delays == "all a minute" else chance.exponential(60_000, count).astype(np.int64)
        run = run_day(view_of(120_000_000, "asap"), prices, 120_000_000, 120_000, delay)
        spent, given_back = spent + run.spent_micros, given_back + run.given_back_micros
    assert given_back <= 0.005 * spent
    assert spent >= 0.95 * 2 * 120_000_000


def test_a_target_is_reached_and_bids_only_ever_lowered() -> None:
    prices = prices_of_day(8_000, 1, swing=0.3)
    spent, sales, (lowest, highest) = run_target_day(view_with_target(2.4), prices, 100_000, 18_000_000, 600_000, 1)
    assert sum(sales[6:]) / sum(spent[6:]) == pytest.approx(2.4, rel=0.05)
    assert 0 < lowest < highest <= PPM


def test_a_target_that_is_exceeded_anyway_lowers_nothing_for_good() -> None:
    prices = prices_of_day(4_000, 2, swing=0.3)
    spent, sales, _ = run_target_day(view_with_target(0.5), prices, 100_000, 18_000_000, 60_000, 2)
    full = prices.charge_micros(PPM)
    late = prices.at_ms >= MIDNIGHT_MS + 43_200_000
    assert sum(spent[6:]) >= 0.95 * int(full[late].sum())
    assert sum(sales[6:]) > 0.5 * sum(spent[6:])
