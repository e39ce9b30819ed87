"""A shop's trade counted by category and week: visits, looks, orders, units, revenue, returns. All sums are exact."""

from collections.abc import Iterable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.trade import OrderLines, Trade, Weeks

Int64s = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Tally(Struct, frozen=True, eq=False):
    """What happened in each category and week, (K, B) each; the first category is the shop.

    Attributes:
        visits: that looked at something of the category; of the shop: all.
        looks: at its products.
        looks_available: of these, at products that could be bought at that moment.
        orders: with something of the category.
        lines: different products in an order, summed over orders.
        units: sold.
        revenue_micros: of these, before returns.
        return_lines, units_returned, returned_micros: returns made in that week, of whenever it was sold.
    """

    visits: Int64s
    looks: Int64s
    looks_available: Int64s
    orders: Int64s
    lines: Int64s
    units: Int64s
    revenue_micros: Int64s
    return_lines: Int64s
    units_returned: Int64s
    returned_micros: Int64s


def tally(trade: Trade, weeks: Weeks, is_available: Flags) -> Tally:
    """Count a shop's trade by category and week.

    Args:
        trade: as read.
        weeks: what lies in none of them is left out.
        is_available: (L,) of each look in `trade.visits`, whether the product could be bought then.
    """
    shape = len(trade.categories), len(weeks.begins_ms)
    week = weeks.number(trade.lines.at_ms)
    sold, returned = ((week >= 0) & sign for sign in (trade.lines.quantity > 0, trade.lines.quantity < 0))
    visits = _tally_visits(trade, weeks, is_available, shape)
    return Tally(
        *visits,
        *_tally_orders(trade, trade.lines.only(sold), week[sold], shape),
        *_tally_returns(trade, trade.lines.only(returned), week[returned], shape),
    )


def availability_of(trade: Trade, weeks: Weeks, changes: Iterable[tuple[str, int, bool]]) -> Flags:
    """Return (L,) of each look whether the product could be bought then; where that is not known, it could.

    Args:
        trade: as read.
        weeks: that are compared.
        changes: (product, from when on in UTC milliseconds, whether it can be bought), of one product by time.
    """
    row_of = {product_id: row for row, product_id in enumerate(trade.product_ids)}
    known = sorted((row_of[one], from_ms, is_available) for one, from_ms, is_available in changes if one in row_of)
    begins, width = int(weeks.begins_ms[0]), int(weeks.ends_ms[-1] - weeks.begins_ms[0]) + 2

    def place(row: Int64s, at_ms: Int64s) -> Int64s:
        return row * width + np.clip(at_ms - begins + 1, 0, width - 1)

    rows = np.array([row for row, _, _ in known], np.int64)
    places = place(rows, np.array([from_ms for _, from_ms, _ in known], np.int64))
    is_available = np.array([now for _, _, now in known], np.bool_)
    product = trade.visits.product
    last = np.searchsorted(places, place(product, trade.visits.at_ms), side="right") - 1
    is_known = last >= 0
    is_known[is_known] = rows[last[is_known]] == product[is_known]
    answer = np.ones(len(product), np.bool_)
    answer[is_known] = is_available[last[is_known]]
    return answer


def _tally_visits(trade: Trade, weeks: Weeks, is_available: Flags, shape: tuple[int, int]) -> list[Int64s]:
    visits = trade.visits
    week_of_visit = weeks.number(visits.begins_ms)
    of_visit, of_category = distinct(visits.visit, visits.category, shape[0])
    rows, category = trade.spread(of_category)
    of_visit, category = distinct(of_visit[rows], category, shape[0])
    week = week_of_visit[of_visit]
    counted = _sum_by(category, week, np.ones(len(week), np.int64), shape)
    in_weeks = week_of_visit[week_of_visit >= 0]
    counted[0] = np.bincount(in_weeks, minlength=shape[1])  # a visit counts for the shop whatever was done
    looks = []
    for chosen in (visits.is_look, visits.is_look & is_available):
        rows, category = trade.spread(visits.category[chosen])
        week = week_of_visit[visits.visit[chosen]][rows]
        looks.append(_sum_by(category, week, np.ones(len(week), np.int64), shape))
    return [counted, *looks]


def _tally_orders(trade: Trade, sold: OrderLines, week: Int64s, shape: tuple[int, int]) -> list[Int64s]:
    order, product = distinct(sold.order, sold.product, max(len(trade.product_ids), 1))
    week_of_order = np.full(int(sold.order.max(initial=-1)) + 1, -1, np.int64)
    week_of_order[sold.order] = week
    rows, category = trade.spread(trade.product_category[product])
    lines = _sum_by(category, week_of_order[order[rows]], np.ones(len(rows), np.int64), shape)
    in_order, in_category = distinct(order[rows], category, shape[0])
    orders = _sum_by(in_category, week_of_order[in_order], np.ones(len(in_order), np.int64), shape)
    rows, category = trade.spread(trade.product_category[sold.product])
    sums = [_sum_by(category, week[rows], column[rows], shape) for column in (sold.quantity, sold.amount_micros)]
    return [orders, lines, *sums]


def _tally_returns(trade: Trade, back: OrderLines, week: Int64s, shape: tuple[int, int]) -> list[Int64s]:
    rows, category = trade.spread(trade.product_category[back.product])
    columns = (np.ones_like(back.order), -back.quantity, -back.amount_micros)
    return [_sum_by(category, week[rows], column[rows], shape) for column in columns]


def distinct(first: Int64s, second: Int64s, second_count: int) -> tuple[Int64s, Int64s]:
    """Return the distinct pairs of two columns, the second of which is below `second_count`."""
    pairs = np.sort(first * second_count + second)  # numpy's own `unique` hashes whole numbers, and crawls on these
    pairs = pairs[np.diff(pairs, prepend=-1) != 0]
    return pairs // second_count, pairs % second_count


def _sum_by(category: Int64s, week: Int64s, values: Int64s, shape: tuple[int, int]) -> Int64s:
    """Return (K, B) exact sums of whole numbers; week -1 is left out."""
    sums = np.zeros(shape[0] * shape[1], np.int64)
    inside = week >= 0
    np.add.at(sums, category[inside] * shape[1] + week[inside], values[inside])
    return sums.reshape(shape)
