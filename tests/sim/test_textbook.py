"""The engine earns what theory says it must."""

import pytest

from sim.textbook import hold_textbook_auctions


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
