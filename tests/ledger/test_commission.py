"""What an agreement asks for a line: within its bounds, rounded once per line, and back with what comes back."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.commission import (
    Agreement,
    OrderedLine,
    check_terms,
    commission_kept,
    commission_of,
    round_half_even,
    units_kept,
)
from ledger.errors import RequestRefused


def agreement(**changes: Any) -> Agreement:
    fields: dict[str, Any] = {
        "seq": 1, "agreement_id": "cag_1", "advertiser_id": "adv-1", "rate_bps": 833, "min_micros": None,
        "max_micros": None, "starts_at_ms": 0, "ends_at_ms": None, "recorded_at_ms": 0,
    }  # fmt: skip
    return Agreement(**fields | changes)


def line(part: int, number: int, product_id: str, quantity: int, unit_price_micros: int = 10) -> OrderedLine:
    return OrderedLine(part, number, part, product_id, quantity, unit_price_micros)


@given(part=st.integers(0, 10**24), whole=st.integers(1, 10**9))
def test_a_half_goes_to_the_even_micro(part: int, whole: int) -> None:
    assert round_half_even(part, whole) == round(Fraction(part, whole))  # Python's own rounding of exact fractions


def test_known_commissions() -> None:
    assert commission_of(10_000_000, agreement(rate_bps=1200)) == 1_200_000
    assert [commission_of(sales, agreement(rate_bps=5000)) for sales in (1, 3, 5, 7)] == [0, 2, 2, 4]
    bounded = agreement(rate_bps=1000, min_micros=300_000, max_micros=5_000_000)
    assert [commission_of(sales, bounded) for sales in (0, 1, 20_000_000, 10**9)] == [0, 300_000, 2_000_000, 5_000_000]


@given(
    charged=st.integers(0, 10**15), bought=st.integers(1, 50), backs=st.lists(st.integers(0, 50), max_size=6),
)  # fmt: skip
def test_returns_take_back_no_more_than_there_was_and_a_whole_return_exactly_it(
    charged: int, bought: int, backs: list[int]
) -> None:
    left, stays = bought, [charged]
    for back in [*backs, bought]:
        left -= min(back, left)
        stays.append(commission_kept(charged, left, bought))
    assert stays == sorted(stays, reverse=True)
    assert (stays[0], stays[-1]) == (charged, 0)


def test_what_comes_back_is_taken_from_its_own_line_first() -> None:
    order = [line(0, 1, "p1", 2, 10), line(0, 2, "p2", 1), line(0, 3, "p1", 3, 8)]
    assert units_kept(order) == {1: 2, 2: 1, 3: 3}
    assert units_kept([*order, line(1, 1, "p1", -2, 8)]) == {1: 2, 2: 1, 3: 1}
    assert units_kept([*order, line(1, 1, "p1", -2, 8), line(2, 1, "p1", -2, 8)]) == {1: 1, 2: 1, 3: 0}
    assert units_kept([*order, line(1, 1, "p1", -99, 9), line(2, 1, "p9", -1)]) == {1: 0, 2: 1, 3: 0}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"starts_at_ms": 5, "ends_at_ms": 5}, "ends_before_start"),
        ({"min_micros": 2, "max_micros": 1}, "min_above_max"),
    ],
)
def test_terms_that_make_no_sense_are_refused(changes: dict[str, int], code: str) -> None:
    with pytest.raises(RequestRefused) as refusal:
        check_terms(agreement(**changes))
    assert refusal.value.code == code


def test_an_order_falls_under_one_of_two_that_follow_each_other() -> None:
    one, two = agreement(ends_at_ms=100), agreement(starts_at_ms=100)
    assert not one.overlaps(two)
    assert not two.overlaps(one)
    assert agreement().overlaps(one)
    assert [one.covers(at_ms) for at_ms in (0, 99, 100)] == [True, True, False]
    assert [two.covers(at_ms) for at_ms in (99, 100)] == [False, True]
