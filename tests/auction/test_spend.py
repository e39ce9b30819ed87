"""Who may still be served: budgets, funds, what is pending, days in the retailer's time zone, and pacing."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from auction.builder import build_snapshot
from auction.campaign import Campaign
from auction.loss import LossReason
from auction.pacing import Pacing
from auction.settings import Settings
from auction.spend import PacingMemory, SpendView
from tests.auction.worlds import NOW_MS, campaign, source

TODAY = datetime.fromtimestamp(NOW_MS / 1000, UTC).date().isoformat()


def view(*campaigns: Campaign, funds: int | None = 10**12, **settings: Any) -> SpendView:
    made = SpendView(Settings(**settings), build_snapshot(source(campaigns=list(campaigns))))
    made.refresh(NOW_MS)
    if funds is not None:
        for advertiser_id in ("adv_a", "adv_b", "adv_c"):
            made.apply_funds(advertiser_id, funds)
    return made


def reason(spend: SpendView, row: int = 0) -> int:
    return int(spend.campaign_reason[row])


def test_an_advertiser_without_known_funds_is_not_served() -> None:
    assert reason(view(campaign(), funds=None)) == LossReason.NO_FUNDS
    assert reason(view(campaign(), funds=0)) == LossReason.NO_FUNDS
    assert reason(view(campaign(), funds=1)) == 0


def test_budgets_end_what_is_served() -> None:
    spend = view(campaign(daily_budget_micros=100, total_budget_micros=150))
    spend.apply_campaign("cmp_a", TODAY, 99, 99)
    assert reason(spend) == 0
    spend.apply_campaign("cmp_a", TODAY, 100, 100)
    assert reason(spend) == LossReason.DAILY_BUDGET_SPENT
    spend.apply_campaign("cmp_a", TODAY, 0, 150)
    assert reason(spend) == LossReason.TOTAL_BUDGET_SPENT


def test_yesterdays_spend_is_not_todays_and_late_news_of_it_changes_nothing() -> None:
    spend = view(campaign(daily_budget_micros=100))
    spend.apply_campaign("cmp_a", TODAY, 100, 100)
    spend.apply_campaign("cmp_a", "2020-01-01", 5, 105)
    assert reason(spend) == LossReason.DAILY_BUDGET_SPENT
    spend.refresh(NOW_MS + 86_400_000)
    assert reason(spend) == 0


def test_the_day_turns_at_the_retailers_midnight() -> None:
    spend = view(campaign(daily_budget_micros=100))
    paris_midnight = int(datetime.fromisoformat("2026-09-22T00:00:00+02:00").timestamp() * 1000)
    spend.refresh(paris_midnight - 1)
    spend.apply_campaign("cmp_a", "2026-09-21", 100, 100)
    assert reason(spend) == LossReason.DAILY_BUDGET_SPENT
    spend.refresh(paris_midnight)
    assert reason(spend) == 0
    assert spend.hour_of_day(paris_midnight - 1) == 23
    assert spend.hour_of_day(paris_midnight) == 0


def test_an_hour_twice_or_never_is_still_an_hour() -> None:
    spend = view(campaign())
    for text, hour in (
        ("2026-10-25T02:30:00+01:00", 2),
        ("2026-10-25T23:30:00+01:00", 23),
        ("2026-03-29T03:30:00+02:00", 3),
    ):
        moment = int(datetime.fromisoformat(text).timestamp() * 1000)
        spend.refresh(moment)
        assert spend.hour_of_day(moment) == hour


def test_what_shown_fills_may_cost_counts_before_it_is_settled() -> None:
    spend = view(campaign(daily_budget_micros=1_000_000), pending_z=0.0)
    spend.add_pending([(0, 600_000.0, 300_000)])
    assert reason(spend) == 0
    spend.add_pending([(0, 400_000.0, 300_000)])
    assert reason(spend) == LossReason.DAILY_BUDGET_SPENT
    spend.apply_campaign("cmp_a", TODAY, 300_000, 300_000)  # settled, so no longer pending
    assert reason(spend) == LossReason.DAILY_BUDGET_SPENT
    spend.refresh(NOW_MS + 10 * 3_600_000 // 1)
    assert reason(spend) == 0, "what did not come for long is not waited for"


def test_pending_of_one_campaign_counts_against_its_advertisers_funds() -> None:
    spend = view(campaign("cmp_a"), campaign("cmp_b", "adv_a"), funds=1_000_000, pending_z=0.0)
    spend.add_pending([(0, 1_001_000.0, 1)])
    assert reason(spend, 0) == LossReason.NO_FUNDS
    spend.refresh(NOW_MS + 1)
    assert reason(spend, 1) == LossReason.NO_FUNDS


@pytest.mark.parametrize("seed", range(6))
def test_the_quick_judgement_is_never_laxer_than_the_full_one(seed: int) -> None:
    """What is served next is judged from bounds; the bounds may stop it early, never late."""
    chance = np.random.default_rng(seed)
    has_budgets = seed % 2 == 0
    campaigns = [
        campaign(
            f"cmp_{number}",
            f"adv_{'ab'[number % 2]}",
            daily_budget_micros=int(chance.integers(1, 10**6)) if has_budgets else None,
        )
        for number in range(6)
    ]
    spend = view(*campaigns, funds=10**9 if has_budgets else 500_000)
    ends = 0
    for _ in range(400):
        row = int(chance.integers(6))
        if reason(spend, row) == 0:
            spend.add_pending([(row, float(chance.integers(1, 20_000)), int(chance.integers(1, 100_000)))])
            quick = reason(spend, row)
            spend._judge_all()
            ends += reason(spend, row) != 0
            assert (quick == 0) <= (reason(spend, row) == 0)
    assert ends > 0


def test_bounds_wear_down_until_the_full_judgement_is_asked() -> None:
    spend = view(campaign("cmp_a"), campaign("cmp_b", "adv_a"), funds=1_000_000, pending_z=0.0)
    shown = 0
    while reason(spend, shown % 2) == 0:
        spend.add_pending([(shown % 2, 1_000.0, 1_000)])
        shown += 1
        assert shown <= 1_001
    assert reason(spend, (shown + 1) % 2) == LossReason.NO_FUNDS


def test_a_new_snapshot_keeps_what_is_known() -> None:
    spend = view(campaign("cmp_b", daily_budget_micros=100), pending_z=0.0)
    spend.apply_campaign("cmp_b", TODAY, 40, 40)
    spend.add_pending([(0, 50.0, 1)])
    bound = build_snapshot(source(campaigns=[campaign("cmp_a"), campaign("cmp_b", daily_budget_micros=100)]))
    spend.bind(bound)
    row = bound.campaign_row["cmp_b"]
    assert reason(spend, row) == 0
    spend.add_pending([(row, 10.0, 1)])
    assert reason(spend, row) == LossReason.DAILY_BUDGET_SPENT


def test_a_full_state_begins_with_nothing() -> None:
    spend = view(campaign())
    spend.forget()
    assert reason(spend) == LossReason.NO_FUNDS


def test_even_pacing_lowers_bids_of_a_campaign_ahead_of_its_day_and_only_those() -> None:
    even = campaign("cmp_a", daily_budget_micros=1_000_000, pacing="even")
    asap = campaign("cmp_b", "adv_b", daily_budget_micros=1_000_000, pacing="asap")
    spend = view(even, asap)
    for step in range(1, 200):
        spend.apply_campaign("cmp_a", TODAY, 4_000 * step, 4_000 * step)
        spend.apply_campaign("cmp_b", TODAY, 4_000 * step, 4_000 * step)
        spend.refresh(NOW_MS + step * 1_000)
    assert spend.pacing_ppm[1] == 1_000_000
    assert 10_000 <= spend.pacing_ppm[0] < 500_000
    lowest = int(spend.pacing_ppm[0])
    for step in range(200, 1_000):
        spend.refresh(NOW_MS + step * 1_000)
    assert spend.pacing_ppm[0] > lowest, "with nothing spent it comes back"


def test_a_new_snapshot_keeps_the_pacing_and_another_budget_looks_for_its_level_again() -> None:
    even = campaign("cmp_a", daily_budget_micros=1_000_000, pacing="even")
    spend = view(even)
    for step in range(1, 20):
        spend.apply_campaign("cmp_a", TODAY, 4_000 * step, 4_000 * step)
        spend.refresh(NOW_MS + step * 1_000)
    before = int(spend.pacing_ppm[0])
    assert before < 900_000
    spend.bind(build_snapshot(source(campaigns=[even])))
    assert spend.pacing_ppm[0] == before
    assert spend.memory().campaigns["cmp_a"].days_paced > 0
    spend.bind(build_snapshot(source(campaigns=[campaign("cmp_a", daily_budget_micros=9_000_000, pacing="even")])))
    assert spend.pacing_ppm[0] == before
    assert spend.memory().campaigns["cmp_a"].days_paced == 0


def test_what_was_learnt_is_there_again_after_a_start() -> None:
    even = campaign("cmp_a", daily_budget_micros=1_000_000, pacing="even")
    spend = view(even)
    for step in range(1, 20):
        spend.apply_campaign("cmp_a", TODAY, 4_000 * step, 4_000 * step)
        spend.refresh(NOW_MS + step * 1_000)
        spend.note_delay(True, 60_000)
    again = SpendView(Settings(), build_snapshot(source(campaigns=[even])))
    again.recall(msgspec.json.decode(msgspec.json.encode(spend.memory()), type=PacingMemory))
    assert again.pacing_ppm[0] == spend.pacing_ppm[0]
    assert again.memory() == spend.memory()


def test_what_was_spent_before_the_start_moves_no_multiplier() -> None:
    spend = view(campaign("cmp_a", daily_budget_micros=1_000_000, pacing="even"))
    spend.refresh(NOW_MS + 1_000)
    spend.apply_campaign("cmp_a", TODAY, 400_000, 9_400_000)
    spend.refresh(NOW_MS + 2_000)
    assert spend.pacing_ppm[0] == 1_000_000


def test_the_day_begins_with_the_mean_of_the_day_before() -> None:
    pacing = Pacing(1, 10_000)
    yes, none = np.array([True]), np.zeros(1)
    budget = np.array([1_000_000.0])
    for spent in (300_000.0, 400_000.0):
        pacing.step(yes, np.array([spent]), budget, np.array([0.001]), np.array([0.9]))
    lowest = float(pacing.log_pacing[0])
    pacing.begin_day(none)
    assert lowest < pacing.log_pacing[0] < 0


def test_a_total_budget_of_a_flight_is_spread_over_its_days() -> None:
    """Ten days for a budget of 10: a campaign that spends 1 by noon of its first day is ahead of its plan."""
    ends = datetime.fromtimestamp(NOW_MS / 1000 + 10 * 86_400, UTC)
    flight = campaign("cmp_a", total_budget_micros=10_000_000, flight_ends_at=ends, pacing="even")
    endless = campaign("cmp_b", "adv_b", total_budget_micros=10_000_000, pacing="even")
    spend = view(flight, endless)
    for step in range(1, 100):
        for name in ("cmp_a", "cmp_b"):
            spend.apply_campaign(name, TODAY, 10_000 * step, 10_000 * step)
        spend.refresh(NOW_MS + step * 1_000)
    assert spend.pacing_ppm[0] < 500_000
    assert spend.pacing_ppm[1] == 1_000_000, "without an end there is nothing to spread it over"


def test_flights_that_are_over_or_not_begun_have_no_plan_and_do_no_harm() -> None:
    soon, past = (datetime.fromtimestamp(NOW_MS / 1000 + days * 86_400, UTC) for days in (5, -5))
    campaigns = [
        campaign("cmp_a", flight_starts_at=soon, flight_ends_at=soon, pacing="even"),
        campaign("cmp_b", "adv_b", flight_ends_at=past, pacing="even"),
        campaign("cmp_c", "adv_c", flight_ends_at=past, total_budget_micros=5, pacing="even"),
    ]
    spend = view(*campaigns)
    for step in range(1, 5):
        spend.refresh(NOW_MS + step * 1_000)
    assert spend.pacing_ppm.tolist() == [1_000_000] * 3


class TestPending:
    def test_a_charge_takes_nothing_from_what_others_may_cost(self) -> None:
        spend = view(campaign(daily_budget_micros=1_000_000), pending_z=0.0)
        spend.add_pending([(0, 600_000.0, 700_000)])
        spend.apply_campaign("cmp_a", TODAY, 400_000, 400_000)
        assert reason(spend) == LossReason.DAILY_BUDGET_SPENT

    def test_without_experience_all_is_waited_for_and_then_nothing(self) -> None:
        spend = view(campaign(daily_budget_micros=1_000_000), pending_life_s=600)
        spend.add_pending([(0, 1_000_000.0, 2_000_000)])
        spend.refresh(NOW_MS + 500_000)
        assert reason(spend) == LossReason.DAILY_BUDGET_SPENT
        spend.refresh(NOW_MS + 601_000)
        assert reason(spend) == 0

    def test_charges_that_came_late_are_waited_for_as_long_and_no_longer(self) -> None:
        spend = view(campaign(daily_budget_micros=1_000_000), pending_life_s=600, pending_z=0.0)
        for _ in range(2_000):
            spend.note_delay(True, 60_000)
            spend.note_delay(False, 1_000)
        spend.add_pending([(0, 1_001_000.0, 2_000_000)])
        for second in range(10, 70, 10):
            spend.refresh(NOW_MS + second * 1_000)
            assert reason(spend) == LossReason.DAILY_BUDGET_SPENT, second
        for second in range(70, 130, 10):
            spend.refresh(NOW_MS + second * 1_000)
        assert reason(spend) == 0

    def test_impressions_are_waited_for_by_the_delays_of_impressions(self) -> None:
        spend = view(campaign(daily_budget_micros=1_000_000), pending_life_s=600, pending_z=0.0)
        for _ in range(2_000):
            spend.note_delay(True, 500_000)
            spend.note_delay(False, 1_000)
        spend.add_pending([(0, 1_001_000.0, 1_001_000)])
        for second in range(10, 100, 10):
            spend.refresh(NOW_MS + second * 1_000)
        assert reason(spend) == 0
