"""Orders and navigation become columns: each once, in its week, its visit and its category."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affinity.errors import TradeRefused
from affinity.tally import availability_of, tally
from affinity.trade import weeks_until
from tests.affinity.trades import FOR_EVER_MS, LAST_DAY, at, event, product, read_trade, visitor, weeks_of

RUN, HAT = product("run", "Shoes > Running"), product("hat", "Hats", 5)


def test_weeks_begin_at_midnight_of_the_shop_also_when_clocks_change() -> None:
    zone = ZoneInfo("Europe/Paris")
    weeks = weeks_until(date(2026, 10, 31), 1, 2, "Europe/Paris")  # clocks went back on the 25th
    begins = [datetime.fromtimestamp(one / 1000, zone) for one in weeks.begins_ms.tolist()]
    assert [(one.day, one.hour) for one in begins] == [(11, 0), (18, 0), (25, 0)]
    assert (weeks.ends_ms - weeks.begins_ms).tolist() == [604_800_000, 604_800_000, 604_800_000 + 3_600_000]
    assert weeks.is_period.tolist() == [False, False, True]


def test_a_year_before_is_the_same_weekdays_and_what_lies_between_is_in_no_week() -> None:
    weeks = weeks_until(LAST_DAY, 2, 2, "UTC", a_year_before=True)
    first = datetime.fromtimestamp(weeks.begins_ms[0] / 1000, UTC)
    assert first.date() == LAST_DAY + timedelta(days=1 - 14 - 364)
    assert first.weekday() == datetime.fromtimestamp(weeks.begins_ms[2] / 1000, UTC).weekday()
    moments = np.array([weeks.begins_ms[0] - 1, weeks.begins_ms[0], weeks.ends_ms[1], weeks.ends_ms[-1] - 1, at(23, 0)])
    assert weeks.number(moments).tolist() == [-1, 0, -1, 3, -1]


def test_a_visit_ends_after_half_an_hour_and_counts_once_in_every_category_above() -> None:
    weeks = weeks_of(1, 1)
    events = [
        event(1, at(17, 10.0), "view_item", "run"),
        event(1, at(17, 10.4), "view_item", "run"),
        event(1, at(17, 10.5), "search"),
        event(1, at(17, 11.1), "view_item", "hat"),  # another visit
        event(2, at(17, 12.0), "search"),  # a visit to the shop alone
        event(3, at(17, 12.0), "view_item_list", category_id="Shoes"),  # interest in shoes without a look at one
        event(4, at(17, 12.0), "served", "run"),  # no act of the visitor's
    ]
    trade = read_trade(weeks, [RUN, HAT], events=events)
    counts = tally(trade, weeks, np.ones(len(trade.visits.product), np.bool_))
    visits = dict(zip(trade.categories, counts.visits[:, 1].tolist(), strict=True))
    assert visits == {"": 4, "Hats": 1, "Shoes": 2, "Shoes > Running": 1}
    looks = dict(zip(trade.categories, counts.looks[:, 1].tolist(), strict=True))
    assert looks == {"": 3, "Hats": 1, "Shoes": 2, "Shoes > Running": 2}


def test_an_event_that_is_in_the_log_twice_counts_once() -> None:
    weeks = weeks_of(1, 1)
    bought = event(1, at(17), "purchase", "run", event=77, quantity=2, price_micros=9_000_000)
    trade = read_trade(weeks, [RUN], events=[bought, bought, event(2, at(17), "purchase", "run", event=77)],
                       purchases_until_ms=FOR_EVER_MS)  # fmt: skip
    assert trade.lines.quantity.tolist() == [2, 1]  # another visitor's event may have the same number
    assert trade.lines.unit_price_micros.tolist() == [9_000_000, 10_000_000]  # without a price, the catalogue's


def test_purchases_of_navigation_count_until_orders_are_reported() -> None:
    weeks = weeks_of(1, 1)
    events = [event(1, at(10), "purchase", "run"), event(1, at(20), "purchase", "run")]
    orders = [("o1", at(20), "run", 1, 10)]
    trade = read_trade(weeks, [RUN], orders, events, purchases_until_ms=at(15))
    assert sorted(trade.lines.at_ms.tolist()) == [at(10), at(20)]
    assert len(set(trade.lines.order.tolist())) == 2


def test_purchases_within_a_minute_are_one_order() -> None:
    weeks = weeks_of(1, 1)
    events = [event(1, at(17) + ms, "purchase", name) for ms, name in ((0, "run"), (30_000, "hat"), (120_000, "hat"))]
    trade = read_trade(weeks, [RUN, HAT], events=[*events, event(2, at(17), "purchase", "hat")],
                       purchases_until_ms=FOR_EVER_MS)  # fmt: skip
    assert sorted(Counter(trade.lines.order.tolist()).values()) == [1, 1, 2]


def test_visitors_are_no_part_of_what_is_read() -> None:
    trade = read_trade(weeks_of(1, 1), [RUN], events=[event(9, at(17), "view_item", "run")])
    assert visitor(9) not in repr(trade).encode()
    assert not any(isinstance(value, bytes) for value in trade.product_ids)


def test_amounts_beyond_what_can_be_added_up_are_refused() -> None:
    orders = [(number, at(17), "run", 10**6, 10**6) for number in range(10)]
    with pytest.raises(TradeRefused) as refusal:
        read_trade(weeks_of(1, 1), [RUN], orders)
    assert refusal.value.code == "trade_too_large"


@given(
    st.lists(st.tuples(st.sampled_from(["run", "hat", "gone"]), st.integers(-20, 30), st.booleans()), max_size=12),
    st.lists(st.tuples(st.sampled_from(["run", "hat", "new"]), st.integers(9, 22)), max_size=12),
)
def test_a_look_finds_what_was_reported_last_before_it(
    reported: list[tuple[str, int, bool]], looks: list[tuple[str, int]]
) -> None:
    weeks = weeks_of(1, 1)
    changes = sorted({(name, at(day)): (name, at(day), now) for name, day, now in reported}.values())
    trade = read_trade(weeks, [RUN], events=[event(1, at(day), "view_item", name) for name, day in looks])
    visits = trade.visits
    wanted = [
        next((now for name, from_ms, now in reversed(changes) if name == looked and from_ms <= at_ms), True)
        for looked, at_ms in (
            (trade.product_ids[row], ms) for row, ms in zip(visits.product, visits.at_ms, strict=True)
        )
    ]
    assert availability_of(trade, weeks, changes).tolist() == wanted


CATEGORIES = {"a": "X > Y", "b": "X > Y", "c": "X > Z", "d": "W", "e": None}


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int, str, int, int]]:
    line = st.tuples(
        st.integers(1, 6), st.sampled_from([4, 9, 11, 16, 20]), st.sampled_from("abcde"), st.integers(-2, 3),
        st.integers(0, 9),
    )  # fmt: skip
    return draw(st.lists(line, max_size=25))


@given(histories())
def test_sums_are_those_of_reading_every_line(lines: list[tuple[int, int, str, int, int]]) -> None:
    weeks = weeks_of(1, 1)
    orders = [((number, day), at(day), name, units, price) for number, day, name, units, price in lines]
    trade = read_trade(weeks, [product(name, path) for name, path in CATEGORIES.items()], orders)
    counts = tally(trade, weeks, np.zeros(0, np.bool_))
    for row, category in enumerate(trade.categories):
        for week, days in enumerate(([9, 11], [16, 20])):
            of_it = [
                one for one in orders
                if one[0][1] in days and (not category or f"{CATEGORIES[one[2]]} >".startswith(f"{category} >"))
            ]  # fmt: skip
            sold, back = [one for one in of_it if one[3] > 0], [one for one in of_it if one[3] < 0]
            assert counts.orders[row, week] == len({one[0] for one in sold})
            assert counts.lines[row, week] == len({(one[0], one[2]) for one in sold})
            assert counts.units[row, week] == sum(one[3] for one in sold)
            assert counts.revenue_micros[row, week] == sum(one[3] * one[4] * 1_000_000 for one in sold)
            assert counts.return_lines[row, week] == len(back)
            assert counts.units_returned[row, week] == -sum(one[3] for one in back)
            assert counts.returned_micros[row, week] == -sum(one[3] * one[4] * 1_000_000 for one in back)
