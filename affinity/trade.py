"""What a shop sold and what was looked at, as columns: lines of orders, visits, and the looks within them.

Filled line by line from orders and from the navigation log, and counted by category and week. Visitors are numbers
here, to tell visits apart, and are gone once that is done.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.catalog import Product, category_and_ancestors
from affinity.computed import ORDER_GAP_MS
from affinity.errors import TradeRefused
from affinity.navigation import Action
from affinity.navigation_log import LogLine
from affinity.sessions import SESSION_GAP_MS

Int64s = NDArray[np.int64]
Flags = NDArray[np.bool_]

SHOP = ""  # stands for the whole shop among the categories
REVENUE_MAX = 1 << 62
_LOOK, _TOUCH, _OTHER = 2, 1, 0
_VISITORS_OWN = frozenset(action.value for action in Action)
_LOOKS = frozenset({Action.VIEW_ITEM.value, Action.SELECT_ITEM.value})
_TOUCHES = _LOOKS | {Action.ADD_TO_CART.value, Action.ADD_TO_WISHLIST.value, Action.PURCHASE.value}


class Weeks(Struct, frozen=True, eq=False):
    """The B weeks that are compared, in the order of time: those of the history, then those of the period.

    Attributes:
        begins_ms: (B,) midnight in the shop's time zone.
        ends_ms: (B,) seven days later, by the calendar.
        is_period: (B,) whether the week is of the period, not of its history.
    """

    begins_ms: Int64s
    ends_ms: Int64s
    is_period: Flags

    def number(self, at_ms: Int64s) -> Int64s:
        """Return the week of each moment, -1 for none."""
        week = np.searchsorted(self.begins_ms, at_ms, side="right") - 1
        return np.where((week >= 0) & (at_ms < self.ends_ms[np.maximum(week, 0)]), week, -1)

    @property
    def scale(self) -> Fraction:
        """Return how long the period is, in lengths of its history."""
        return Fraction(int(self.is_period.sum()), int((~self.is_period).sum()))


def weeks_until(
    last_day: date, period_count: int, history_count: int, time_zone: str, *, a_year_before: bool = False
) -> Weeks:
    """Return the weeks of a period that ends with a day, and of the history it is compared with.

    The history is the weeks just before; or, `a_year_before`, weeks that many 364 days earlier, weekday by weekday.
    """
    zone = ZoneInfo(time_zone)
    first = last_day + timedelta(days=1 - 7 * period_count)
    history_first = first - (timedelta(days=364) if a_year_before else timedelta(days=7 * history_count))
    days = [history_first + timedelta(days=7 * week) for week in range(history_count)]
    days += [first + timedelta(days=7 * week) for week in range(period_count)]

    def midnight(day: date) -> int:
        return int(datetime.combine(day, time(), zone).timestamp() * 1000)

    return Weeks(
        np.array([midnight(day) for day in days], np.int64),
        np.array([midnight(day + timedelta(days=7)) for day in days], np.int64),
        np.arange(len(days)) >= history_count,
    )


class OrderLines(Struct, frozen=True, eq=False):
    """E lines of orders; a negative quantity is a return.

    Attributes:
        order: (E,) number of the order, of all its lines alike.
        product: (E,) row of the product.
        quantity: (E,) units.
        unit_price_micros: (E,) paid per unit.
        at_ms: (E,) when it was ordered or returned.
    """

    order: Int64s
    product: Int64s
    quantity: Int64s
    unit_price_micros: Int64s
    at_ms: Int64s

    @property
    def amount_micros(self) -> Int64s:
        """Return what each line comes to, negative for returns."""
        return self.quantity * self.unit_price_micros

    def only(self, kept: Flags) -> "OrderLines":
        """Return some of the lines."""
        return OrderLines(*(getattr(self, name)[kept] for name in self.__struct_fields__))


class Visits(Struct, frozen=True, eq=False):
    """V visits, with the L products and categories that were looked at in them.

    Attributes:
        begins_ms: (V,) time of a visit's first event.
        visit: (L,) in which visit.
        product: (L,) row of the product, -1 where a category alone was looked at.
        category: (L,) row of the category, among `Trade.categories`.
        at_ms: (L,) when.
        is_look: (L,) whether it was a look at a product, which may have found it out of stock.
    """

    begins_ms: Int64s
    visit: Int64s
    product: Int64s
    category: Int64s
    at_ms: Int64s
    is_look: Flags


class Trade(Struct, frozen=True, eq=False):
    """All of it.

    Attributes:
        product_ids: (P,) of the product rows, those that left the catalogue too.
        product_category: (P,) row of each product's own category; 0, the shop, where it has none.
        categories: (K,) the shop, then every category and those above, sorted.
        above: (K, D) rows of each category itself and of those above it, the shop first, filled up with -1.
        lines: of orders.
        visits: empty without navigation.
    """

    product_ids: list[str]
    product_category: Int64s
    categories: list[str]
    above: Int64s
    lines: OrderLines
    visits: Visits

    def spread(self, category: Int64s) -> tuple[Int64s, Int64s]:
        """Return (N',) row of the input and (N',) category: each of (N,) categories, and each of those above it."""
        rows, depth = np.nonzero(self.above[category] >= 0)
        return rows, self.above[category][rows, depth]


class TradeReader:
    """Takes orders and navigation in, within the weeks that are compared.

    Args:
        weeks: what lies outside is left out.
        products: the catalogue, for categories and, where navigation gives no price, prices.
        purchases_until_ms: purchases that navigation tells of count as orders before this moment.

    Attributes:
        last_sold_at_ms: time of the last purchase navigation told of, in the weeks or not; 0 for none.
    """

    def __init__(self, weeks: Weeks, products: Sequence[Product], purchases_until_ms: int) -> None:
        self._weeks = weeks
        self._span = int(weeks.begins_ms[0]), int(weeks.ends_ms[-1])
        self._purchases_until_ms = purchases_until_ms
        self.last_sold_at_ms = 0
        self._category_of: Mapping[str, str] = {one.product_id: one.product_type or SHOP for one in products}
        self._price_of = {
            one.product_id: one.price_micros if one.sale_price_micros is None else one.sale_price_micros
            for one in products
        }
        self._products: dict[str, int] = {}
        self._named: dict[str, int] = {}
        self._visitors: dict[bytes, int] = {}
        self._orders: dict[object, int] = {}
        self._lines = array("q")  # five numbers a line, as `OrderLines` has them
        self._events = array("q")  # visitor, event id, product, category, time, kind
        self._purchases = array("q")  # visitor, event id, product, quantity, price, time

    def add_order_lines(self, lines: Iterable[tuple[object, int, str, int, int]]) -> None:
        """Take lines of orders: (order, UTC milliseconds, product, quantity, micros per unit)."""
        first, end = self._span
        for order, at_ms, product_id, quantity, unit_price_micros in lines:
            if first <= at_ms < end and quantity:
                row = self._products.setdefault(product_id, len(self._products))
                number = self._orders.setdefault(order, len(self._orders))
                self._lines.extend((number, row, quantity, unit_price_micros, at_ms))

    def add_navigation(self, lines: Iterable[LogLine]) -> None:
        """Take lines of the navigation log; an event that is in it twice counts once."""
        first, end = self._span
        for line in lines:
            if line.action == Action.PURCHASE and line.at_ms < self._purchases_until_ms:
                self.last_sold_at_ms = max(self.last_sold_at_ms, line.at_ms)
            if not first <= line.at_ms < end or line.action not in _VISITORS_OWN:
                continue
            self._add_event(self._visitors.setdefault(line.pseudonym, len(self._visitors)), line)

    def _add_event(self, visitor: int, line: LogLine) -> None:
        product = -1 if line.product_id is None else self._products.setdefault(line.product_id, len(self._products))
        category = -1
        if line.category_id is not None:
            category = self._named.setdefault(line.category_id, len(self._named))
        kind = _OTHER
        if product >= 0:
            kind = _LOOK if line.action in _LOOKS else _TOUCH if line.action in _TOUCHES else _OTHER
        elif category >= 0:
            kind = _TOUCH
        self._events.extend((visitor, line.event, product, category, line.at_ms, kind))
        if line.action == Action.PURCHASE and line.product_id is not None and line.at_ms < self._purchases_until_ms:
            quantity = 1 if line.quantity is None else line.quantity
            price = self._price_of.get(line.product_id, 0) if line.price_micros is None else line.price_micros
            if quantity:
                self._purchases.extend((visitor, line.event, product, quantity, price, line.at_ms))

    def finish(self) -> Trade:
        """Return everything taken in.

        Raises:
            TradeRefused: amounts beyond what can be added up.
        """
        own = [self._category_of.get(product_id, SHOP) for product_id in self._products]
        categories, above = _tree({*own, *self._named, *self._category_of.values()})
        row_of = {category: row for row, category in enumerate(categories)}
        product_category = _int64s([row_of[category] for category in own])
        return Trade(
            list(self._products),
            product_category,
            categories,
            above,
            self._finish_lines(),
            self._finish_visits(product_category, _int64s([row_of[category] for category in self._named])),
        )

    def _finish_lines(self) -> OrderLines:
        lines = OrderLines(*_columns(self._lines, 5))
        visitor, *others = _once(_columns(self._purchases, 6))
        if len(visitor):
            by_visitor = np.lexsort((others[-1], visitor))
            visitor, at_ms = visitor[by_visitor], others[-1][by_visitor]
            is_new = np.ones(len(visitor), np.bool_)
            is_new[1:] = (visitor[1:] != visitor[:-1]) | (at_ms[1:] - at_ms[:-1] > ORDER_GAP_MS)
            bought = OrderLines(len(self._orders) + np.cumsum(is_new) - 1, *(column[by_visitor] for column in others))
            lines = OrderLines(
                *(np.concatenate([getattr(lines, name), getattr(bought, name)]) for name in lines.__struct_fields__)
            )
        if np.abs(lines.quantity.astype(np.float64) * lines.unit_price_micros).sum() > REVENUE_MAX:
            raise TradeRefused("amounts of the orders are beyond what can be added up", code="trade_too_large")
        return lines

    def _finish_visits(self, product_category: Int64s, named: Int64s) -> Visits:
        visitor, product, category, at_ms, kind = _once(_columns(self._events, 6))
        order = np.lexsort((at_ms, visitor))
        visitor, product, category, at_ms, kind = (one[order] for one in (visitor, product, category, at_ms, kind))
        is_new = np.ones(len(visitor), np.bool_)
        is_new[1:] = (visitor[1:] != visitor[:-1]) | (at_ms[1:] - at_ms[:-1] > SESSION_GAP_MS)
        visit = np.cumsum(is_new) - 1
        row = np.zeros(len(visitor), np.int64)
        row[product >= 0] = product_category[product[product >= 0]]
        is_named = (category >= 0) & (row == 0)
        row[is_named] = named[category[is_named]]
        kept = kind > _OTHER
        return Visits(at_ms[is_new], visit[kept], product[kept], row[kept], at_ms[kept], kind[kept] == _LOOK)


def _columns(rows: "array[int]", width: int) -> list[Int64s]:
    """Return the columns of rows of so many numbers that were written one after the other."""
    return list(np.array(rows, np.int64).reshape(-1, width).T.copy())


def _once(columns: list[Int64s]) -> list[Int64s]:
    """Return columns of events without the second, their ids: those in the log once, and again what has no id."""
    visitor, event, *others = columns
    order = np.lexsort((event, visitor))
    is_again = np.zeros(len(order), np.bool_)
    is_again[order[1:]] = (np.diff(visitor[order]) == 0) & (np.diff(event[order]) == 0) & (event[order[1:]] != 0)
    return [column[~is_again] for column in (visitor, *others)]


def _tree(named: set[str]) -> tuple[list[str], Int64s]:
    every = {above for category in named for above in category_and_ancestors(category)}
    categories = [SHOP, *sorted(every)]
    row_of = {category: row for row, category in enumerate(categories)}
    rows = [[0, *(row_of[one] for one in category_and_ancestors(category))] for category in categories]
    above = np.full((len(rows), max(map(len, rows))), -1, np.int64)
    for row, of_row in enumerate(rows):
        above[row, : len(of_row)] = of_row
    return categories, above


def _int64s(numbers: Sequence[int]) -> Int64s:
    return np.array(numbers, np.int64)
