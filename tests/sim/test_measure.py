"""Measures divide what they say they divide, and their intervals cover."""

import numpy as np

from sim.chance import Int64s, key_of, whole_numbers
from sim.measure import COLUMN, COLUMNS, DEFINITIONS, Tally, interval, measure


def sessions(count: int, seed: int) -> Int64s:
    tally = Tally(count)
    for row, price in enumerate(whole_numbers(key_of(seed, "prices"), count, 0, 2_000_000)):
        tally.add(row, "pages", 2)
        tally.add(row, "revenue_micros", int(price))
    return tally.rows


def test_a_measure_is_the_division_of_its_sums() -> None:
    tally = Tally(2)
    for column, amount in (
        ("pages", 100), ("slots", 400), ("paid_fills", 100), ("paid_clicks", 10), ("charges", 10),
        ("charges_at_floor", 4), ("revenue_micros", 5_000_000), ("value_micros", 8_000_000),
        ("sales_micros", 20_000_000), ("appeal_shown", 90), ("appeal_organic", 100),
    ):  # fmt: skip
        tally.add(1, column, amount)
    found = {one.name: one.value for one in measure([tally.rows], 20, 1)}
    assert found["revenue"] == 5.0
    assert found["revenue_per_thousand_pages"] == 50.0
    assert found["fill_rate"] == 0.25
    assert found["price_per_click"] == 0.5
    assert found["charges_at_floor"] == 0.4
    assert found["advertiser_surplus"] == 3.0
    assert found["roas"] == 4.0
    assert found["affinity_lost"] == 0.1
    assert found["budget_use"] is None


def test_intervals_cover_the_truth_nine_times_in_ten() -> None:
    covered = 0
    for seed in range(100):
        revenue = next(one for one in measure([sessions(200, seed)], 100, seed) if one.name == "revenue")
        assert revenue.low is not None
        assert revenue.high is not None
        covered += revenue.low <= 200.0 <= revenue.high
    assert 80 <= covered <= 97


def test_many_worlds_are_resampled_whole() -> None:
    worlds = [sessions(50, seed) for seed in range(6)]
    for world in worlds:
        world[:, COLUMN["budget_micros"]] = 10
        world[:, COLUMN["budget_spent_micros"]] = 9
    use = {one.name: one for one in measure(worlds, 50, 1)}["budget_use"]
    assert (use.value, use.low, use.high) == (0.9, 0.9, 0.9)
    assert {one.name: one for one in measure(worlds[:2], 50, 1)}["budget_use"].low is None


def test_the_ends_hold_the_middle_ninety() -> None:
    assert interval([float(value) for value in range(100)]) == (5.0, 94.0)


def test_every_column_a_measure_names_is_counted() -> None:
    named = {name for one in DEFINITIONS for name in (*one.plus, *one.minus, *one.over)}
    assert named <= set(COLUMNS)
    assert np.array_equal(Tally(3).rows, np.zeros((3, len(COLUMNS)), dtype=np.int64))
