"""The engine earns what theory says it must."""

import numpy as np
import pytest

from sim.textbook import hold_at_once, hold_textbook_auctions, hold_uniform_at_once


@pytest.mark.parametrize(
    ("bidder_count", "floor_ppm", "revenue", "sold"),
    [
        (2, 0, 1 / 3, 1.0),
        (2, 500_000, 5 / 12, 3 / 4),  # Myerson's reserve for even values
        (3, 0, 1 / 2, 1.0),
        (1, 500_000, 1 / 4, 1 / 2),  # nobody to compete with: the floor is the price
    ],
)
def test_mean_revenue_is_the_theorys(bidder_count: int, floor_ppm: int, revenue: float, sold: float) -> None:
    found = hold_textbook_auctions(6_000, bidder_count, floor_ppm, seed=2)
    assert abs(found.mean_revenue - revenue) < 3 * found.standard_error
    assert abs(found.sold - sold) < 3 * 0.5 / 6_000**0.5
    assert found.efficient == 1.0


def test_a_planted_price_fault_would_be_seen() -> None:
    found = hold_textbook_auctions(6_000, 2, 0, seed=2)
    first_price_revenue = 2 / 3  # what the mean would be if winners paid their bids
    assert abs(found.mean_revenue - first_price_revenue) > 100 * found.standard_error


@pytest.mark.parametrize(
    ("bidder_count", "floor_ppm", "revenue", "sold"),
    [(2, 0, 1 / 3, 1.0), (2, 500_000, 5 / 12, 3 / 4), (3, 0, 1 / 2, 1.0), (1, 500_000, 1 / 4, 1 / 2)],
)
def test_a_million_auctions_at_once_earn_what_theory_says(
    bidder_count: int, floor_ppm: int, revenue: float, sold: float
) -> None:
    found = hold_uniform_at_once(1_000_000, bidder_count, floor_ppm, seed=2)
    assert found.standard_error < 0.0004
    assert abs(found.mean_revenue - revenue) < 3 * found.standard_error
    assert abs(found.sold - sold) <= 3 * 0.5 / 1_000
    assert found.efficient == 1.0


def test_at_once_and_by_the_engine_the_same_values_earn_the_same() -> None:
    at_once, engine = hold_uniform_at_once(2_000, 2, 500_000, seed=3), hold_textbook_auctions(2_000, 2, 500_000, seed=3)
    assert (at_once.sold, at_once.efficient) == (engine.sold, engine.efficient)
    assert abs(at_once.mean_revenue - engine.mean_revenue) < 1e-6, "a micro, where an exact tie goes to another"


def test_no_floor_earns_more_than_the_half() -> None:
    revenue = {
        floor: hold_uniform_at_once(300_000, 2, floor, seed=1).mean_revenue for floor in range(0, 1_000_001, 100_000)
    }
    assert max(revenue, key=lambda floor: revenue[floor]) == 500_000


def test_three_bidders_of_edelman_ostrovsky_and_schwarz_pay_what_their_paper_says() -> None:
    """Values 10, 4 and 2 a click, two slots of 200 and 100 clicks an hour (AER 97, 2007, section I)."""
    block = hold_at_once(np.array([[10, 4, 2]]) * 1_000_000, [1000, 500], 0)[0]
    winners, critical, vcg = block[:3].tolist()
    assert winners == [0, 1]
    assert critical == [4_000_000, 2_000_000]  # the next bid
    assert vcg == [3_000_000, 2_000_000]  # 600 and 200 an hour
