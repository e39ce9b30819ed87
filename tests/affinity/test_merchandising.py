"""A merchandising report is right on shops small enough to work out by hand, and names the cause one planted."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affinity.errors import TradeRefused
from affinity.merchandising import say, signals_of
from affinity.navigation_log import LogLine
from affinity.signals import COMPLEMENT_COUNT_MAX
from tests.affinity.trades import at, compared, event, product, read_trade, weeks_of

RUN, TRAIL, HAT = (
    product("run", "Shoes > Running"), product("trail", "Shoes > Running", 20), product("hat", "Hats", 5),
)  # fmt: skip
MICROS = 1_000_000


def visits(day: int, looked: str, count: int, first: int = 0) -> list[LogLine]:
    """Return visits of so many visitors who each look at one product."""
    return [event(first + number, at(day), "view_item", looked) for number in range(count)]


def test_a_worked_example() -> None:
    """A week of 10 visits, 8 to running shoes, all in stock, 4 orders of a pair at 10; then half the looks find none.

    Then 2 orders, of two pairs each at 9: as many of those who found stock bought, 36 in all. By hand, with
    L(40, 36) = -4 / ln 0.9 = 37.9649: availability L ln ½ = -26.3153, units L ln 2 = +26.3153, price L ln 0.9 = -4.
    """
    weeks = weeks_of(1, 1)
    events = [*visits(10, "run", 8), *visits(10, "hat", 2, 50), *visits(17, "run", 8), *visits(17, "hat", 2, 50)]
    orders = [(f"h{n}", at(10), "run", 1, 10) for n in range(4)] + [(f"p{n}", at(17), "run", 2, 9) for n in range(2)]
    trade = read_trade(weeks, [RUN, TRAIL, HAT], orders, events)
    is_available = np.ones(20, np.bool_)
    is_available[np.flatnonzero(trade.visits.at_ms == at(17))[:4]] = False
    report, lines = compared(trade, weeks, is_available)
    running = lines["Shoes > Running"]
    assert running.basis == "visits"
    assert (running.history.revenue_micros, running.period.revenue_micros) == (40 * MICROS, 36 * MICROS)
    assert (running.history.visits, running.history.interest) == (10, 0.8)
    assert (running.history.availability, running.period.availability) == (1.0, 0.5)
    assert (running.history.conversion, running.period.conversion) == (0.5, 0.5)
    assert (running.period.lines, running.period.units, running.period.unit_price_micros) == (1.0, 2.0, 9 * MICROS)
    expected = {"traffic": 0, "interest": 0, "availability": -26_315_253, "conversion": 0, "lines": 0,
                "units": 26_315_253, "price": -4_000_000, "mix": 0}  # fmt: skip
    assert running.parts == pytest.approx(expected, abs=5)
    assert sum(running.parts.values()) == running.change_micros == -4 * MICROS
    assert running.cause == "availability"
    assert "share of looks that found the product in stock 100.0% → 50.0%" in say(running, "EUR")
    assert report.categories[0].category_id == ""
    assert lines["Shoes"].parts == running.parts  # all of it is in running
    assert "Hats" not in lines  # nothing was sold of it in either period


def test_dearer_products_instead_of_others_are_mix_and_not_price() -> None:
    weeks = weeks_of(1, 1)
    before = [(f"h{n}", at(10), name, 1, price) for n, (name, price) in enumerate([("run", 10)] * 3 + [("trail", 20)])]
    after = [(f"p{n}", at(17), name, 1, price) for n, (name, price) in enumerate([("run", 10)] + [("trail", 20)] * 3)]
    _, lines = compared(read_trade(weeks, [RUN, TRAIL], before + after), weeks)
    parts = lines["Shoes > Running"].parts
    assert (parts["price"], parts["mix"]) == (0, 20 * MICROS)  # 50 became 70, and no price moved


def test_prices_alone_are_price_and_not_mix() -> None:
    weeks = weeks_of(1, 1)
    shelf = [("run", 10), ("trail", 20)]
    orders = [(name, at(10), name, 1, price) for name, price in shelf]
    orders += [(f"{name} later", at(17), name, 1, 2 * price) for name, price in shelf]
    _, lines = compared(read_trade(weeks, [RUN, TRAIL], orders), weeks)
    parts = lines["Shoes > Running"].parts
    assert (parts["price"], parts["mix"]) == pytest.approx((30 * MICROS, 0), abs=3)


def test_without_navigation_traffic_is_the_shops_orders() -> None:
    # 4 orders, 2 of them with shoes; then 8 orders, 2 with shoes: twice the traffic, half the share.
    weeks = weeks_of(1, 1)
    orders = [(f"h{n}", at(10), "run" if n < 2 else "hat", 1, 10) for n in range(4)]
    orders += [(f"p{n}", at(17), "run" if n < 2 else "hat", 1, 10) for n in range(8)]
    _, lines = compared(read_trade(weeks, [RUN, HAT], orders), weeks)
    shoes = lines["Shoes"]
    assert (shoes.basis, shoes.period.interest, shoes.period.availability) == ("orders", None, None)
    assert set(shoes.parts) == {"traffic", "conversion", "lines", "units", "price", "mix"}
    assert shoes.parts["traffic"] == -shoes.parts["conversion"] > 0
    assert shoes.change_micros == 0
    assert shoes.cause is None


def test_navigation_that_misses_a_week_is_not_taken_for_traffic() -> None:
    weeks = weeks_of(1, 2)
    orders = [(f"{day}", at(day), "run", 1, 10) for day in (3, 10, 17)]
    events = [*visits(10, "run", 5), *visits(17, "run", 5)]
    _, lines = compared(read_trade(weeks, [RUN], orders, events), weeks)
    assert lines["Shoes"].basis == "orders"
    _, lines = compared(read_trade(weeks, [RUN], orders, [*events, *visits(3, "run", 5)]), weeks)
    assert lines["Shoes"].basis == "visits"


def test_a_history_is_made_as_long_as_the_period() -> None:
    weeks = weeks_of(1, 3)
    orders = [(f"{day}{n}", at(day), "run", 1, 10) for day in (-3, 3, 10, 17) for n in range(2)]
    _, lines = compared(read_trade(weeks, [RUN], orders), weeks)
    assert lines["Shoes"].history == lines["Shoes"].period
    assert set(lines["Shoes"].parts.values()) == {0}


def test_what_is_sold_no_more_and_what_is_new_lose_and_gain_all_by_one_cause() -> None:
    weeks = weeks_of(1, 1)
    orders = [("h", at(10), "run", 3, 10), ("p", at(17), "hat", 2, 5)]
    events = [*visits(10, "run", 2), *visits(10, "hat", 2, 50), *visits(17, "run", 2), *visits(17, "hat", 2, 50)]
    _, lines = compared(read_trade(weeks, [RUN, HAT], orders, events), weeks)
    assert (lines["Shoes"].cause, lines["Shoes"].parts["conversion"]) == ("conversion", -30 * MICROS)
    assert (lines["Hats"].cause, lines["Hats"].parts["conversion"]) == ("conversion", 10 * MICROS)
    gone = [one for one in events if not (one.product_id == "run" and one.at_ms == at(17))]
    _, lines = compared(read_trade(weeks, [RUN, HAT], orders, gone), weeks)
    assert (lines["Shoes"].cause, lines["Shoes"].parts["interest"]) == ("interest", -30 * MICROS)
    trade = read_trade(weeks, [RUN, HAT], orders, events)
    is_available = ~((trade.visits.at_ms == at(17)) & (trade.visits.product == trade.product_ids.index("run")))
    _, lines = compared(trade, weeks, is_available)
    assert (lines["Shoes"].cause, lines["Shoes"].parts["availability"]) == ("availability", -30 * MICROS)


def shop_of(rate: dict[str, float], later: dict[str, float], seed: int, factor: float = 1.0) -> list[tuple]:
    """Return orders of 16 weeks: so many a week with each product, others in the last four, `factor` as many then."""
    rng, orders = np.random.default_rng(seed), []
    for week in range(16):
        day = 17 - 7 * (15 - week)
        is_later = week >= 12
        for name, mean in (later if is_later else rate).items():
            count = rng.poisson(mean * (factor if is_later else 1.0))
            orders += [((name, week, n), at(day), name, 1, 10) for n in range(count)]
    return orders


NAMES = {f"p{row}": f"C{row}" for row in range(30)}


def test_a_category_that_loses_is_found_with_its_cause_and_the_others_are_not() -> None:
    weeks, even = weeks_of(4, 12), dict.fromkeys(NAMES, 40.0)
    products = [product(name, category) for name, category in NAMES.items()]
    events = [event(week * 1_000 + n, at(17 - 7 * week), "view_item", name)
              for week in range(16) for n, name in enumerate([name for name in NAMES for _ in range(20)])]  # fmt: skip
    trade = read_trade(weeks, products, shop_of(even, even | {"p3": 15.0, "p7": 75.0}, 1), events)
    report, lines = compared(trade, weeks)
    assert {one.category_id: one.trend for one in report.categories if one.trend in ("rising", "falling")} == {
        "C3": "falling", "C7": "rising",
    }  # fmt: skip
    assert (lines["C3"].cause, lines["C7"].cause) == ("conversion", "conversion")
    assert lines["C3"].orders_against_history.ratio == pytest.approx(15 / 40, abs=0.07)
    assert lines["C0"].trend == "steady"
    sentence = say(lines["C3"], "EUR")
    assert sentence.startswith("C3: orders down 6")
    assert "by conversion: orders per visit that looked and found stock" in sentence


def test_where_the_whole_shop_rises_no_category_over_performs() -> None:
    weeks, even = weeks_of(4, 12), dict.fromkeys(NAMES, 40.0)
    products = [product(name, category) for name, category in NAMES.items()]
    report, lines = compared(read_trade(weeks, products, shop_of(even, even, 2, factor=2.0)), weeks)
    assert {one.trend for one in report.categories if one.category_id} == {"steady"}
    assert all(one.orders_against_history.trend == "rising" for one in report.categories)
    assert lines[""].cause == "traffic"


def test_shops_without_a_change_seldom_have_findings() -> None:
    weeks, even = weeks_of(4, 12), dict.fromkeys(NAMES, 15.0)
    products = [product(name, category) for name, category in NAMES.items()]
    alarms = 0
    for seed in range(40):
        report, _ = compared(read_trade(weeks, products, shop_of(even, even, 100 + seed)), weeks)
        alarms += any(one.trend in ("rising", "falling") for one in report.categories if one.category_id)
    assert alarms <= 8  # two tests at 5 %; three standard errors above what chance would have it


def test_returns_are_rates_of_what_is_sold_and_a_change_of_them_is_found() -> None:
    weeks = weeks_of(4, 12)
    orders = [((week, n), at(17 - 7 * week), "run", 2, 10) for week in range(16) for n in range(30)]
    orders += [((week, n), at(18 - 7 * week), "hat", 1, 5) for week in range(16) for n in range(30)]
    orders += [(("r", week, n), at(19 - 7 * week), "run", -1, 10) for week in range(16)
               for n in range(15 if week < 4 else 6)]  # fmt: skip
    orders += [(("s", week, n), at(19 - 7 * week), "hat", -1, 5) for week in range(16) for n in range(6)]
    _report, lines = compared(read_trade(weeks, [RUN, HAT], orders), weeks)
    assert (lines["Shoes"].history.return_rate, lines["Shoes"].period.return_rate) == (0.1, 0.25)
    assert lines["Shoes"].returns_against_history.trend == "rising"
    assert lines["Hats"].returns_against_history.trend == "steady"
    assert lines["Shoes"].change_micros == 0  # returns are no part of what was sold
    assert lines[""].period.return_rate == pytest.approx(21 / 90)
    assert lines["Shoes"].period.returned_micros == 4 * 15 * 10 * MICROS
    assert lines["Shoes"].history.returned_micros == 4 * 6 * 10 * MICROS  # a week's, as many weeks as the period has


def test_best_sellers_are_ranked_in_their_category_and_above_by_units_and_by_revenue() -> None:
    weeks = weeks_of(1, 1)
    orders = [("h", at(10), "run", 50, 10)]  # of the history, which is no merit
    orders += [(("a", n), at(17), "run", 1, 10) for n in range(6)] + [
        (("b", n), at(17), "trail", 1, 20) for n in range(5)
    ]
    orders += [(("c", n), at(17), "hat", 2, 5) for n in range(4)] + [("d", at(17), "hat", -3, 5)]
    report, _ = compared(read_trade(weeks, [RUN, TRAIL, HAT], orders), weeks)
    ranks = {(one.category_id, one.product_id): (one.units_rank, one.revenue_rank) for one in report.best_sellers}
    assert ranks["", "hat"] == (1, 3)
    assert ranks["", "run"] == (2, 2)
    assert ranks["", "trail"] == (3, 1)
    assert ranks["Shoes", "run"] == ranks["Shoes > Running", "run"] == (1, 2)
    run = next(one for one in report.best_sellers if (one.category_id, one.product_id) == ("", "run"))
    assert (run.units, run.orders, run.revenue_micros) == (6, 6, 60 * MICROS)


def test_of_equal_products_the_ids_decide() -> None:
    weeks = weeks_of(1, 1)
    orders = [("h", at(10), "run", 1, 10)] + [
        ((name, n), at(17), name, 1, 10) for name in ("trail", "run") for n in (1, 2)
    ]
    report, _ = compared(read_trade(weeks, [RUN, TRAIL], orders), weeks)
    assert [one.product_id for one in report.best_sellers if not one.category_id] == ["run", "trail"]


def test_signals_are_the_best_tenth_and_the_trends_of_the_report() -> None:
    weeks = weeks_of(4, 12)
    products = [product(f"s{row}", "Shoes") for row in range(20)] + [product("only", "Hats"), product("rare", "Bags")]
    orders = [((row, week, n), at(17 - 7 * week), f"s{row}", 1, 10)
              for row in range(20) for week in range(16) for n in range(3 + (20 - row))]  # fmt: skip
    orders += [
        (("o", week, n), at(17 - 7 * week), "only", 1, 10) for week in range(16) for n in range(40 if week < 4 else 8)
    ]
    orders += [(("r", n), at(17), "rare", 1, 10) for n in range(4)]
    trade = read_trade(weeks, products, orders)
    report, _ = compared(trade, weeks)
    signals = signals_of(report, trade, weeks, 5)
    assert signals.best_sellers == ["only", "s0", "s1"]  # two of twenty; the best hat; a bag sold four times is none
    assert signals.category_trends == {"Hats": "rising", "Shoes": "falling"}  # of bags too few are sold to say
    assert (signals.from_ms, signals.until_ms) == (report.from_ms, report.until_ms)
    assert signals.trend_of("Hats > Caps") == "rising"  # nothing is known of caps: what is above them counts
    assert signals.trend_of("Bags") is None
    assert signals.trend_of(None) is None


def test_pairs_are_named_by_product() -> None:
    weeks = weeks_of(1, 1)
    orders: list[tuple[object, int, str, int, int]] = []
    for n in range(100):
        names = ["run", "trail"] if n < 12 else ["run"] if n < 20 else ["hat"]
        orders += [(n, at(10 if n % 2 else 17), name, 1, 10) for name in names]
    trade = read_trade(weeks, [RUN, TRAIL, HAT], orders)
    report, _ = compared(trade, weeks)
    assert signals_of(report, trade, weeks, 5).bought_together == [("run", "trail", pytest.approx(12 - 20 * 12 / 100))]
    [pair] = report.cross_sell
    assert set(pair.product_ids) == {"run", "trail"}
    assert (pair.together, sorted(pair.orders), pair.lift) == (12, [12, 20], 5.0)


@pytest.mark.parametrize(("days", "which"), [([10], "period"), ([17], "history"), ([], "period")])
def test_where_nothing_was_sold_there_is_nothing_to_compare(days: Sequence[int], which: str) -> None:
    weeks = weeks_of(1, 1)
    trade = read_trade(weeks, [RUN], [("o", at(day), "run", 1, 10) for day in days])
    with pytest.raises(TradeRefused, match=which) as refusal:
        compared(trade, weeks)
    assert refusal.value.code == "trade_empty"


@st.composite
def shops(draw: st.DrawFn) -> tuple[list[tuple[object, int, str, int, int]], list[LogLine]]:
    days, names = st.sampled_from([3, 10, 17, 20]), st.sampled_from(["run", "trail", "hat", "gone"])
    line = st.tuples(st.integers(1, 9), days, names, st.integers(-1, 4), st.integers(0, 30))
    look = st.tuples(
        st.integers(1, 9), days, names, st.sampled_from(["view_item", "search", "add_to_cart", "purchase"])
    )
    orders = [((number, day), at(day), name, units, price)
              for number, day, name, units, price in draw(st.lists(line, min_size=1, max_size=30))]  # fmt: skip
    events = [event(number, at(day), action, name) for number, day, name, action in draw(st.lists(look, max_size=30))]
    return [("first", at(10), "run", 1, 7), ("last", at(17), "run", 1, 8), *orders], events


@given(shops(), st.integers(0, 2**32 - 1))
def test_whatever_a_shop_sells_the_parts_add_up_to_the_change(
    shop: tuple[list[tuple[object, int, str, int, int]], list[LogLine]], seed: int
) -> None:
    weeks = weeks_of(1, 2)
    trade = read_trade(weeks, [RUN, TRAIL, HAT], *shop)
    is_available = np.random.default_rng(seed).random(len(trade.visits.product)) < 0.7
    report, lines = compared(trade, weeks, is_available)
    for line in report.categories:
        assert sum(line.parts.values()) == line.change_micros
        assert line.change_micros == line.period.revenue_micros - line.history.revenue_micros
        assert all(line.parts[line.cause] * np.sign(line.change_micros) >= part * np.sign(line.change_micros)
                   for part in line.parts.values()) if line.cause else line.change_micros == 0  # fmt: skip
        assert say(line, "EUR").endswith(".")
    leaves = [lines[name].change_micros for name in ("Shoes", "Hats") if name in lines]
    if "gone" not in trade.product_ids:
        assert abs(sum(leaves) - lines[""].change_micros) <= 2  # the history's amounts are rounded down


def test_best_sellers_are_kept_best_first_and_pairs_as_long_as_they_are_among_the_best_of_one_product() -> None:
    weeks = weeks_of(1, 1)
    names = [f"p{number:02d}" for number in range(COMPLEMENT_COUNT_MAX + 5)]
    products = [
        product("hub", "Hubs"),
        *(product(name, f"C{name}") for name in names),
        *(product(f"x{n}", "X") for n in range(2)),
    ]
    orders: list[tuple[object, int, str, int, int]] = [("h", at(10), "hub", 1, 10)]
    for place, name in enumerate(names):  # each goes with the hub, later ones more often, and with nothing else
        for n in range(10 + place):
            orders += [((name, n), at(17), one, 1, 10) for one in ("hub", name)]
    orders += [(("x", n), at(17), "x0", 1, 10) for n in range(4_000)]
    trade = read_trade(weeks, products, orders)
    report, _ = compared(trade, weeks)
    signals = signals_of(report, trade, weeks, 5)
    assert signals.best_sellers == ["x0", "hub", *reversed(names)]
    assert [set(pair[:2]) for pair in signals.bought_together] == [{"hub", name} for name in reversed(names)]
    bound = signals.bind({one.product_id: row for row, one in enumerate(products)})
    assert len(bound.complements_of([0])) == COMPLEMENT_COUNT_MAX
    assert bound.complements_of([1]).tolist() == [0], "the hub is the best of it, though not the other way about"
