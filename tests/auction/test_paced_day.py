"""Whole days of bidding: a budget lasts its day and buys nearly what it could, and promises little it cannot keep.

Short forms of what `tests/bench/bench_pacing.py` measures with 100,000 auctions.
"""

import pytest

from tests.auction.paced_days import (
    BUDGET_SHARE,
    CLICK_MICROS,
    MIDNIGHT_MS,
    PPM,
    prices_of_day,
    run_day,
    run_days,
    run_late_clicks,
    run_target_day,
    share_of_everything,
    view_of,
)


@pytest.mark.parametrize("phase", [0.0, 0.5])
def test_a_budget_lasts_the_day_and_buys_nearly_as_much_as_hindsight(phase: float) -> None:
    """The third day of a campaign that could spend three times its budget, with prices that swing by 60 %."""
    *_, day = run_days(day_count=3, auction_count=3_000, seed=3, phase=phase)
    assert day.run.spent_micros <= day.budget_micros
    assert day.run.spent_micros >= 0.99 * day.budget_micros
    assert day.run.last_win_share >= 0.95
    assert day.run.event_count >= 0.95 * day.best_event_count


def test_a_campaign_in_a_hurry_is_spent_early_and_never_lowered() -> None:
    prices = prices_of_day(2_000, 3)
    budget = share_of_everything(prices, BUDGET_SHARE)
    run = run_day(view_of(budget, "asap"), prices, budget)
    assert set(run.pacing_ppm) == {PPM}
    assert run.last_win_share < 0.6
    assert run.spent_micros >= 0.99 * budget


@pytest.mark.parametrize("is_delay_random", [False, True])
def test_clicks_that_come_late_find_the_budget_they_were_promised(is_delay_random: bool) -> None:
    """Twenty-two auctions a second for a budget of 200 clicks, each click a minute after its fill."""
    runs = [run_late_clicks(200, 40_000, 120_000, seed, is_delay_random=is_delay_random) for seed in range(2)]
    spent = sum(run.spent_micros for run in runs)
    assert sum(run.given_back_micros for run in runs) <= 0.005 * spent
    assert spent >= 0.95 * len(runs) * 200 * CLICK_MICROS


def test_a_target_is_reached_and_bids_only_ever_lowered() -> None:
    day = run_target_day(2.4, prices_of_day(8_000, 1, swing=0.3), seed=1)
    assert day.late_roas == pytest.approx(2.4, rel=0.05)
    lowest, highest = day.factors_ppm
    assert 0 < lowest < highest <= PPM


def test_a_target_that_is_exceeded_anyway_lowers_nothing_for_good() -> None:
    prices = prices_of_day(4_000, 2, swing=0.3)
    day = run_target_day(0.5, prices, seed=2, order_delay_ms=60_000)
    full = prices.charge_micros(PPM)
    late = prices.at_ms >= MIDNIGHT_MS + 43_200_000
    assert day.late_spent_micros >= 0.95 * int(full[late].sum())
    assert day.late_roas > 0.5
