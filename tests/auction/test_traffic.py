"""The traffic curve: flat at first, learnt by quarters of an hour, laid over days of any length."""

import numpy as np
import pytest

from auction.traffic import QUARTER_MS, TrafficCurve
from tests.auction.paced_days import DAY_MS, MIDNIGHT_MS, prices_of_day, run_day, view_of


def gone(curve: TrafficCurve, *hours: float) -> list[float]:
    return [float(part) for part in curve.gone(MIDNIGHT_MS + np.array(hours) * 3_600_000.0)]


def test_a_day_nothing_is_known_of_is_flat() -> None:
    curve = TrafficCurve()
    curve.begin_day(MIDNIGHT_MS, MIDNIGHT_MS + DAY_MS)
    assert gone(curve, -1, 0, 6, 12, 24, 30) == pytest.approx([0, 0, 0.25, 0.5, 1, 1])


def test_what_was_seen_of_a_quarter_is_expected_of_it() -> None:
    curve = TrafficCurve()
    curve.begin_day(MIDNIGHT_MS, MIDNIGHT_MS + DAY_MS)
    for quarter in range(96):
        curve.learn(quarter, 300 if quarter >= 48 else 100)
    assert gone(curve, 12)[0] == pytest.approx(0.25, abs=0.02)
    again = TrafficCurve(curve.auction_counts)
    again.begin_day(MIDNIGHT_MS, MIDNIGHT_MS + DAY_MS)
    assert gone(again, 12) == gone(curve, 12)


def test_a_quarter_without_traffic_is_not_without_hope() -> None:
    curve = TrafficCurve()
    for quarter in range(96):
        curve.learn(quarter, 0 if quarter < 48 else 100)
    curve.begin_day(MIDNIGHT_MS, MIDNIGHT_MS + DAY_MS)
    assert 0 < gone(curve, 12)[0] < 0.05


@pytest.mark.parametrize("hours", [23, 25])
def test_a_day_of_another_length_is_covered_whole(hours: int) -> None:
    curve = TrafficCurve([float(number) for number in range(96)])
    curve.begin_day(MIDNIGHT_MS, MIDNIGHT_MS + hours * 3_600_000)
    assert gone(curve, 0, hours) == pytest.approx([0, 1])
    assert gone(curve, hours - 0.5)[0] < 1


def test_a_view_learns_the_quarters_it_watched_whole() -> None:
    view = view_of(10**12)
    prices = prices_of_day(4_000, 5, traffic_swing=0.9)
    late = prices.at_ms >= MIDNIGHT_MS + 5 * QUARTER_MS // 2  # it starts in the midst of a quarter
    run_day(view, type(prices)(prices.at_ms[late], prices.price_micros[late], prices.happens[late]), 10**12)
    counts = np.array(view.memory().auction_counts)
    assert (counts[:3] < 0).all()
    assert (counts[3:95] >= 0).all()
    assert counts[95] < 0, "the last one is not over"
    came = np.bincount((prices.at_ms - MIDNIGHT_MS) // QUARTER_MS, minlength=96)
    assert np.abs(counts[3:95] - came[3:95]).max() <= 1
