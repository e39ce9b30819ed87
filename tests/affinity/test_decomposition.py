"""The parts of a change add up to it, whatever the factors, and say what changed."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affinity.decomposition import decompose, log_mean, price_parts, round_to_sum

FACTOR = st.floats(1e-6, 1e6)
NAMES = ["traffic", "interest", "conversion", "units", "price"]


def revenue(factors: dict[str, float]) -> int:
    return round(math.prod(Fraction(x) for x in factors.values()))


def slack(total: tuple[int, int], parts: dict[str, int]) -> float:
    """Return what a part may be off: it is rounded, and so is revenue, which a few micros feel."""
    rounded = 0.0 if not all(total) else float(log_mean(*total)) * sum(1 / one for one in total)
    return 2 * len(parts) + rounded + 1e-9 * max(map(abs, parts.values()))


@st.composite
def two_periods(draw: st.DrawFn) -> tuple[dict[str, float], dict[str, float]]:
    names = NAMES[: draw(st.integers(1, 5))]
    return tuple({name: draw(FACTOR) for name in names} for _ in range(2))  # type: ignore[return-value]


@given(two_periods())
def test_the_parts_add_up_exactly(periods: tuple[dict[str, float], dict[str, float]]) -> None:
    before, after = periods
    total = revenue(before), revenue(after)
    assert sum(decompose(*total, before, after).values()) == total[1] - total[0]


@given(two_periods(), st.randoms(use_true_random=False))
def test_the_order_of_the_factors_does_not_matter(
    periods: tuple[dict[str, float], dict[str, float]], random: "np.random.Generator"
) -> None:
    before, after = periods
    total = revenue(before), revenue(after)
    if not all(total):
        return  # then the first that is nothing has it all
    names = list(before)
    random.shuffle(names)
    shuffled = [{name: one[name] for name in names} for one in periods]
    first, second = decompose(*total, before, after), decompose(*total, *shuffled)
    assert all(abs(first[name] - second[name]) <= slack(total, first) for name in names)


@given(two_periods())
def test_backwards_the_parts_are_the_opposite(periods: tuple[dict[str, float], dict[str, float]]) -> None:
    before, after = periods
    total = revenue(before), revenue(after)
    there, back = decompose(*total, before, after), decompose(*total[::-1], after, before)
    assert all(abs(there[name] + back[name]) <= slack(total, there) for name in before)


def test_the_factor_that_changed_alone_has_the_whole_change() -> None:
    before = {"traffic": 1_000.0, "conversion": 0.05, "price": 2_000_000.0}
    after = before | {"conversion": 0.03}
    parts = decompose(100_000_000, 60_000_000, before, after)
    assert parts == {"traffic": 0, "conversion": -40_000_000, "price": 0}


def test_two_factors_share_by_their_logarithms() -> None:
    # 40 becomes 36: half as many orders, twice the units, a tenth off the price. L = (36 - 40) / ln(0.9) = 37.9649.
    before, after = {"orders": 4.0, "units": 1.0, "price": 10e6}, {"orders": 2.0, "units": 2.0, "price": 9e6}
    parts = decompose(40_000_000, 36_000_000, before, after)
    assert parts["orders"] == pytest.approx(-26_315_253, abs=5)
    assert parts["units"] == pytest.approx(26_315_253, abs=5)
    assert parts["price"] == pytest.approx(-4_000_000, abs=5)


@pytest.mark.parametrize(
    ("before", "after", "has_it"),
    [
        ({"traffic": 9.0, "conversion": 0.5, "price": 2.0}, {"traffic": 9.0, "conversion": 0.0, "price": None}, 1),
        ({"traffic": 9.0, "conversion": 0.5, "price": 2.0}, {"traffic": 0.0, "conversion": None, "price": None}, 0),
        ({"traffic": 0.0, "conversion": None, "price": None}, {"traffic": 9.0, "conversion": 0.5, "price": 2.0}, 0),
        ({"traffic": 9.0, "conversion": 0.5, "price": 0.0}, {"traffic": 9.0, "conversion": 0.5, "price": 2.0}, 2),
    ],
)
def test_of_nothing_the_first_factor_that_is_nothing_is_the_cause(
    before: dict[str, float | None], after: dict[str, float | None], has_it: int
) -> None:
    total = 0 if None in before.values() or before["price"] == 0 else 9, 0 if None in after.values() else 9
    parts = list(decompose(*total, before, after).values())
    change = total[1] - total[0]
    assert parts == [change if row == has_it else 0 for row in range(3)]


def test_what_is_known_in_neither_period_has_no_part() -> None:
    before, after = {"traffic": 2.0, "interest": None, "price": 5.0}, {"traffic": 4.0, "interest": None, "price": 5.0}
    assert decompose(10, 20, before, after) == {"traffic": 10, "price": 0}


@given(st.floats(1e-9, 1e12), st.floats(1e-9, 1e12))
def test_the_logarithmic_mean_lies_between(one: float, other: float) -> None:
    mean = float(log_mean(one, other))
    assert min(one, other) * (1 - 1e-9) <= mean <= max(one, other) * (1 + 1e-9)
    assert mean == pytest.approx(float(log_mean(other, one)))
    assert mean <= (one + other) / 2 * (1 + 1e-9)


def test_only_products_sold_before_and_after_have_a_price_that_changed() -> None:
    before, after = np.array([100.0, 50.0, 0.0]), np.array([120.0, 0.0, 70.0])
    parts = price_parts(before, after, np.array([10.0, 5.0, np.nan]), np.array([12.0, np.nan, 7.0]))
    assert parts == pytest.approx([20.0, 0.0, 0.0])  # as many units, a fifth dearer: all of it is price


@given(st.dictionaries(st.sampled_from("abcde"), st.floats(-1e15, 1e15), min_size=1), st.integers(-(10**16), 10**16))
def test_rounding_keeps_the_sum(parts: dict[str, float], total: int) -> None:
    assert sum(round_to_sum(parts, total).values()) == total
