"""A market is the same again from the same seed, its money balances, and its parts act as they do in the server."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sim.result import RunResult, encode_result
from sim.run import run
from sim.scenario import Scenario, convert_scenario

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "sentence": "A market small enough for a test.",
    "world": {"product_count": 120, "category_count": 4, "brand_count": 8, "visitor_count": 40},
    "traffic": {"sessions_per_day": 60, "pages_per_session": 4},
    "run": {"bid_minutes": 240, "bootstrap": 50},
    "placements": [
        {"placement_id": "top", "page_types": ["category", "search"], "slot_count": 3, "floor_micros": 20_000},
        {"placement_id": "hero", "page_types": ["home"], "slot_count": 2, "floor_micros": 20_000},
    ],
    "bidders": [
        {"policy": "truthful", "count": 3, "products_each": 10},
        {"policy": "shaded", "share_ppm": 600_000, "count": 2, "products_each": 10, "charge_on": "impression"},
        {"policy": "paced", "daily_budget_micros": 700_001, "count": 2, "products_each": 10},
        {"policy": "bandit", "count": 1, "products_each": 10},
        {"policy": "target-roas", "target_roas_ppm": 4_000_000, "count": 1, "products_each": 10},
        {"policy": "truthful", "target_roas_ppm": 4_000_000, "pacing": "even", "products_each": 10},
        {"policy": "prober", "count": 1, "products_each": 10},
        {"policy": "drainer", "count": 1, "products_each": 10},
        {"policy": "click-fraud", "share_ppm": 500_000, "rival_click_ppm": 50_000, "products_each": 10},
    ],
}


def tiny(**changes: Any) -> Scenario:
    return convert_scenario({**TINY, **changes}, "here")


@pytest.fixture(scope="module")
def result() -> RunResult:
    return run(tiny())


def values(result: RunResult) -> dict[str, float]:
    return {one.name: one.value for one in result.measures if one.value is not None}


@pytest.mark.parametrize(
    "setting",
    [
        {"PYTHONHASHSEED": "1", "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        {"PYTHONHASHSEED": "4242", "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
        {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C", "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX"},
    ],
)
def test_the_same_seed_gives_the_same_bytes_in_another_process(result: RunResult, setting: dict[str, str]) -> None:
    program = (
        "import sys, msgspec\n"
        "from sim.run import run\nfrom sim.result import encode_result\nfrom sim.scenario import convert_scenario\n"
        "sys.stdout.buffer.write(encode_result(run(convert_scenario(msgspec.json.decode(sys.argv[1]), 'here'))))\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", program, msgspec.json.encode(TINY).decode()],
        env={**os.environ, **setting},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=True,
    ).stdout
    assert there == encode_result(result)


def test_another_seed_gives_other_bytes(result: RunResult) -> None:
    assert encode_result(run(tiny(seed=4))) != encode_result(result)


def test_the_books_balance_and_say_what_the_measures_say(result: RunResult) -> None:
    assert result.books.sum_micros == 0
    assert result.books.overspent_micros == 0
    assert result.books.billed_micros > 0
    assert values(result)["revenue"] == result.books.billed_micros / 1_000_000
    assert sum(bidder.spend_micros for bidder in result.bidders) == result.books.billed_micros
    assert sum(placement.revenue_micros for placement in result.placements) == result.books.billed_micros
    assert sum(period.revenue_micros for period in result.periods) == result.books.billed_micros


def test_a_budget_that_runs_out_is_spent_and_never_passed(result: RunResult) -> None:
    poor = run(tiny(bidders=[{"policy": "truthful", "daily_budget_micros": 300_007, "count": 4, "products_each": 10}]))
    spent = [bidder.spend_micros for bidder in poor.bidders]
    assert max(spent) <= 300_007
    assert 300_007 in spent
    assert values(poor)["budget_use"] > 0.8
    assert all(bidder.spend_micros <= 700_001 for bidder in result.bidders if bidder.policy == "paced")


def test_an_advertiser_without_money_left_is_not_served() -> None:
    group = {"policy": "truthful", "count": 4, "products_each": 10}
    broke, rich = run(tiny(bidders=[{**group, "funds_micros": 1}])), run(tiny(bidders=[group]))
    assert broke.books.billed_micros <= 4
    assert values(broke)["fill_rate"] < 0.2 * values(rich)["fill_rate"]


def test_a_floor_above_every_bid_sells_nothing_and_loses_no_affinity() -> None:
    placements = [{**placement, "floor_micros": 900_000_000} for placement in TINY["placements"]]
    dear = run(tiny(placements=placements))
    found = values(dear)
    # Impression bids have a floor of their own, which this one does not touch.
    clicks_only = [group for group in TINY["bidders"] if "charge_on" not in group]
    none = values(run(tiny(placements=placements, bidders=clicks_only)))
    assert none["fill_rate"] == 0.0
    assert none["affinity_lost"] == 0.0
    assert none["revenue"] == 0.0
    assert found["fill_rate"] > 0.0


def test_a_rule_that_hides_everything_leaves_every_slot_to_the_shop() -> None:
    rule = {
        "name": "Hide it all",
        "stage": "live",
        "effect": {"exclude": True},
        "target": {"field": "price_micros", "at_least": 0},
    }
    assert values(run(tiny(rules=[rule])))["fill_rate"] == 0.0
    assert values(run(tiny(rules=[{**rule, "stage": "draft"}])))["fill_rate"] > 0.0


def test_a_pattern_is_only_met_by_who_did_it() -> None:
    pattern = {"within": "session", "steps": [{"action": "view_item_list", "at_least": 3}]}
    everyone = run(tiny(bidders=[{"policy": "truthful", "count": 4, "products_each": 10}]))
    patient = run(
        tiny(bidders=[{"policy": "truthful", "count": 4, "products_each": 10, "navigation_pattern": pattern}])
    )
    nobody = run(
        tiny(
            world={**TINY["world"], "consent_ppm": 0},
            bidders=[{"policy": "truthful", "count": 4, "products_each": 10, "navigation_pattern": pattern}],
        )
    )
    assert 0 < values(patient)["fill_rate"] < 0.7 * values(everyone)["fill_rate"]
    assert values(nobody)["fill_rate"] == 0.0


def test_a_frequency_cap_shows_a_bid_only_so_often() -> None:
    capped = {"policy": "truthful", "count": 1, "products_each": 1, "frequency_cap": {"count": 1, "window_s": 86_400}}
    world = {**TINY["world"], "visitor_count": 5, "consent_ppm": 1_000_000}
    shown = [bidder.impressions for bidder in run(tiny(world=world, bidders=[capped])).bidders]
    free = [
        bidder.impressions for bidder in run(tiny(world=world, bidders=[{**capped, "frequency_cap": None}])).bidders
    ]
    assert 0 < shown[0] <= 5 < free[0]


def test_five_worlds_give_intervals_over_worlds() -> None:
    several = run(tiny(run={**TINY["run"], "repeats": 5}, traffic={"sessions_per_day": 15, "pages_per_session": 3}))
    assert several.intervals_over == "worlds"
    use = next(one for one in several.measures if one.name == "budget_use")
    assert use.low is not None
    assert several.books.sum_micros == 0


def test_clicks_of_rivals_are_billed_once_and_counted_apart() -> None:
    victims = {"policy": "truthful", "count": 3, "products_each": 10, "daily_budget_micros": 5_000_000}
    fraud = {"policy": "click-fraud", "share_ppm": 500_000, "count": 1, "products_each": 10}
    calm = run(tiny(bidders=[victims, {**fraud, "rival_click_ppm": 1}]))
    hit = run(tiny(bidders=[victims, {**fraud, "rival_click_ppm": 300_000}]))
    assert values(calm)["hostile_spend"] < 0.01
    assert values(hit)["hostile_spend"] > 0.5
    by_policy = {bidder.policy: bidder for bidder in hit.bidders}
    assert by_policy["click-fraud"].hostile_micros == 0, "nobody has its own products clicked"
    assert by_policy["truthful"].hostile_micros > 0
    assert sum(bidder.spend_micros for bidder in hit.bidders) == hit.books.billed_micros
    assert hit.books.events["duplicate"] > 0, "some were clicked by visitors too, and are billed once"
    assert sum(bidder.hostile_micros for bidder in hit.bidders) < hit.books.billed_micros
    assert hit.books.sum_micros == 0


def test_the_server_steers_a_target_by_the_sales_it_hears_of() -> None:
    clicks = {"click_ppm": 300_000, "order_ppm": 400_000}
    group = {"policy": "truthful", "count": 4, "products_each": 10}
    world = {**TINY["world"], "consent_ppm": 1_000_000}
    traffic = {"sessions_per_day": 300, "pages_per_session": 4}
    free = run(tiny(bidders=[group], clicks=clicks, world=world, traffic=traffic))
    steered = run(tiny(bidders=[{**group, "target_roas_ppm": 6_000_000}], clicks=clicks, world=world, traffic=traffic))
    assert values(free)["roas"] < 5
    assert abs(values(steered)["roas"] - 6) < 0.6
    assert values(steered)["revenue"] < values(free)["revenue"]
