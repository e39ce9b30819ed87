"""What a shop's trade comes to for its merchant: which categories do better or worse and why, best-sellers, returns.

Compares a period of whole weeks with its history (`trade.Weeks`), so that weekdays are alike in both. Amounts of the
history are made as long as the period. Nothing here reads a database or a clock.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.cross_sell import Pairs, find_pairs
from affinity.decomposition import Factors, decompose, price_parts, round_to_sum
from affinity.errors import TradeRefused
from affinity.signals import COMPLEMENT_COUNT_MAX, Signals, Trend
from affinity.significance import Change, adjust, rate_change, share_change
from affinity.tally import Tally, distinct, tally
from affinity.trade import SHOP, OrderLines, Trade, Weeks

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]
Flags = NDArray[np.bool_]

LEVEL = 0.05  # share of the findings that may be chance
MANIFOLD = 3.0  # from such a ratio on, times are easier read than per cent
LEAST_CHANGE = 0.05  # a smaller one is steady, however certain
BEST_SELLER_SHARE = 0.1  # of the products sold in a category
BEST_SELLER_COUNT_MAX = 10  # in a category
BEST_SELLER_ORDER_COUNT_MIN = 5  # of fewer orders nothing is a best-seller

ONE = Fraction(1)

FACTORS = {  # of revenue, cause before effect, with what each is
    "traffic": "visits to the shop",
    "interest": "share of these visits that looked at the category",
    "availability": "share of looks that found the product in stock",
    "conversion": "orders per visit that looked and found stock",
    "lines": "different products per order",
    "units": "units of a product per order",
    "price": "prices of products sold in both periods",
    "mix": "dearer or cheaper products sold instead of others",
}


class Measures(Struct, frozen=True, kw_only=True):
    """What a category comes to in one period; null is what is not known or has nothing to be counted per.

    Attributes:
        revenue_micros: of what was sold, before returns.
        orders: with something of the category.
        visits: to the shop; where `basis` is orders, orders of the shop.
        interest, availability, conversion, lines, units: see `FACTORS`.
        unit_price_micros: paid per unit, on average; to the nearest micro.
        return_rate: units returned per unit sold in the same weeks.
        returned_micros: what was paid for these.
    """

    revenue_micros: int
    orders: float
    visits: float
    interest: float | None
    availability: float | None
    conversion: float | None
    lines: float | None
    units: float | None
    unit_price_micros: int | None
    return_rate: float | None
    returned_micros: int


class Comparison(Struct, frozen=True, kw_only=True):
    """A rate in the period over that of its history, and how likely so great a difference is by chance.

    Attributes:
        ratio: null where the history has none.
        p_value: adjusted for all categories; null where there is too little to say.
    """

    ratio: float | None
    p_value: float | None

    @property
    def trend(self) -> Trend | None:
        """Return where it goes, None if nothing can be said."""
        if self.p_value is None:
            return None
        ratio = math.inf if self.ratio is None else self.ratio
        if self.p_value >= LEVEL or 1 / (1 + LEAST_CHANGE) < ratio < 1 + LEAST_CHANGE:
            return "steady"
        return "rising" if ratio > 1 else "falling"


class CategoryLine(Struct, frozen=True, kw_only=True):
    """How a category did; the shop is the category named "".

    Attributes:
        basis: what traffic is counted in: `visits`, or `orders` of the shop where navigation does not tell.
        orders_against_history: orders a week.
        orders_against_shop: share of the shop's orders that have something of the category.
        returns_against_history: returned lines per line sold.
        change_micros: of revenue; `parts` add up to it.
        parts: what each of `FACTORS` changed of it; without those that are not known.
        cause: the greatest part in the direction of the change.
        trend: `rising` does better than the shop does, `falling` worse; where the shop is steady, than its own history
            may tell too. Null: too few orders to say.
    """

    category_id: str
    basis: str
    orders_against_history: Comparison
    orders_against_shop: Comparison
    returns_against_history: Comparison
    period: Measures
    history: Measures
    change_micros: int
    parts: dict[str, int]
    cause: str | None
    trend: Trend | None


class BestSeller(Struct, frozen=True, kw_only=True):
    """A product among the best of a category (the shop: ""), by units or by revenue."""

    category_id: str
    product_id: str
    units_rank: int
    revenue_rank: int
    orders: int
    units: int
    revenue_micros: int


class CrossSell(Struct, frozen=True, kw_only=True):
    """Two products bought together more often than chance would have it.

    Attributes:
        orders: each is in.
        together: orders both are in.
        lift: the same, over what it would be by chance.
        p_value: adjusted for all pairs.
    """

    product_ids: tuple[str, str]
    orders: tuple[int, int]
    together: int
    lift: float
    p_value: float


class MerchandisingReport(Struct, frozen=True, kw_only=True):
    """All of it: the shop first, then its categories by how much their revenue changed.

    Attributes:
        from_ms, until_ms: the period; `history_from_ms`, `history_until_ms`: what it is compared with.
        notes: what one must know to read the figures.
    """

    currency: str
    from_ms: int
    until_ms: int
    history_from_ms: int
    history_until_ms: int
    categories: list[CategoryLine]
    best_sellers: list[BestSeller]
    cross_sell: list[CrossSell]
    notes: list[str]


def report_trade(
    trade: Trade, weeks: Weeks, is_available: Flags, *, currency: str, use_visits: bool, top_count: int
) -> MerchandisingReport:
    """Return what a shop's trade comes to.

    Args:
        trade: of the weeks compared.
        weeks: the period and its history.
        is_available: (L,) of each look, whether the product could be bought then.
        currency: ISO 4217.
        use_visits: count traffic in visits where navigation tells of them; else always in orders.
        top_count: best-sellers of each category, and pairs, that are named.

    Raises:
        TradeRefused: nothing was sold in the period or in its history.
    """
    counts = tally(trade, weeks, is_available)
    later = weeks.is_period
    if not counts.orders[0, later].any() or not counts.orders[0, ~later].any():
        which = "period" if not counts.orders[0, later].any() else "history"
        raise TradeRefused(f"nothing was sold in the {which}: there is nothing to compare")
    lines = list(_category_lines(trade, counts, weeks, use_visits=use_visits))
    return MerchandisingReport(
        currency=currency,
        from_ms=int(weeks.begins_ms[later][0]),
        until_ms=int(weeks.ends_ms[later][-1]),
        history_from_ms=int(weeks.begins_ms[~later][0]),
        history_until_ms=int(weeks.ends_ms[~later][-1]),
        categories=[lines[0], *sorted(lines[1:], key=lambda one: (-abs(one.change_micros), one.category_id))],
        best_sellers=_best_sellers(trade, weeks, top_count),
        cross_sell=_cross_sell(trade, weeks, top_count),
        notes=[],
    )


def signals_of(report: MerchandisingReport, trade: Trade, weeks: Weeks, now_ms: int) -> Signals:
    """Return what rules and placements may ask: best-sellers by units, trends of categories, and cross-sell pairs."""
    ranking = rank_sellers(trade, weeks)
    sold_count = np.bincount(ranking.category, minlength=len(trade.categories))
    place_count = np.minimum(BEST_SELLER_COUNT_MAX, np.ceil(sold_count * BEST_SELLER_SHARE))
    is_best = ranking.units_rank <= place_count[ranking.category]
    is_best &= ranking.orders[ranking.product] >= BEST_SELLER_ORDER_COUNT_MIN
    best, in_shop = set(ranking.product[is_best].tolist()), ranking.category == trade.categories.index(SHOP)
    trends = {one.category_id: one.trend for one in report.categories if one.category_id != SHOP}
    return Signals(
        computed_at_ms=now_ms,
        from_ms=report.from_ms,
        until_ms=report.until_ms,
        best_sellers=[trade.product_ids[row] for row in ranking.product[in_shop].tolist() if row in best],
        category_trends={category: trend for category, trend in sorted(trends.items()) if trend is not None},
        bought_together=_bought_together(trade, weeks),
    )


class Ranking(Struct, frozen=True, eq=False):
    """Every product sold in the period, in its category and in each above it: N rows, best first by units.

    Attributes:
        category, product: (N,) rows of both.
        units_rank, revenue_rank: (N,) place in the category, from 1.
        units, revenue_micros, orders: (P,) of each product.
    """

    category: Int64s
    product: Int64s
    units_rank: Int64s
    revenue_rank: Int64s
    units: Int64s
    revenue_micros: Int64s
    orders: Int64s


def rank_sellers(trade: Trade, weeks: Weeks) -> Ranking:
    """Rank what was sold in the period.

    Of as many units the one with more revenue comes first, then the one in more orders, then by id.
    """
    product_count = len(trade.product_ids)
    units, revenue, orders = _sums_by_product(_sold(trade, weeks, weeks.is_period), product_count)
    sold = np.flatnonzero(units)
    rows, category = trade.spread(trade.product_category[sold])
    product = sold[rows]
    by_id = np.argsort(np.argsort(np.array(trade.product_ids, dtype=object), kind="stable"), kind="stable")[product]
    by_units = np.lexsort((by_id, -orders[product], -revenue[product], -units[product], category))
    by_revenue = np.lexsort((by_id, -orders[product], -units[product], -revenue[product], category))
    units_rank, revenue_rank = (_rank_within(category, order)[by_units] for order in (by_units, by_revenue))
    return Ranking(category[by_units], product[by_units], units_rank, revenue_rank, units, revenue, orders)


def _best_sellers(trade: Trade, weeks: Weeks, count_max: int) -> list[BestSeller]:
    ranking = rank_sellers(trade, weeks)
    named = np.flatnonzero(np.minimum(ranking.units_rank, ranking.revenue_rank) <= count_max)
    return [
        BestSeller(
            category_id=trade.categories[ranking.category[row]],
            product_id=trade.product_ids[product],
            units_rank=int(ranking.units_rank[row]),
            revenue_rank=int(ranking.revenue_rank[row]),
            orders=int(ranking.orders[product]),
            units=int(ranking.units[product]),
            revenue_micros=int(ranking.revenue_micros[product]),
        )
        for row, product in zip(named.tolist(), ranking.product[named].tolist(), strict=True)
    ]


def say(line: CategoryLine, currency: str) -> str:
    """Return a sentence on a category: what happened, against what, and what it comes from."""
    name = line.category_id or "The shop"
    orders = _percent_change(line.orders_against_history.ratio)
    clauses = [f"{name}: orders {orders} on its history{_odds(line.orders_against_history)}"]
    if line.category_id:
        shop = line.orders_against_shop
        clauses.append(f"share of the shop's orders {_percent_change(shop.ratio)}{_odds(shop)}")
    change = f"revenue {line.change_micros / 1_000_000:+,.2f} {currency}"
    if line.cause is None:
        return f"{', '.join(clauses)}; {change}."
    part = line.parts[line.cause] / 1_000_000
    return f"{', '.join(clauses)}; {change}, of which {part:+,.2f} by {line.cause}: {_because(line, line.cause)}."


def _because(line: CategoryLine, cause: str) -> str:
    """Return what a factor is, and how it moved."""
    what = FACTORS[cause]
    if line.basis == "orders":
        what = {"traffic": "orders of the shop", "conversion": "share of the shop's orders with the category"}.get(
            cause, what
        )
    if cause in ("price", "mix"):
        before, after = (
            "" if one.unit_price_micros is None else f"{one.unit_price_micros / 1_000_000:,.2f}"
            for one in (line.history, line.period)
        )
        return f"{what} (paid per unit {before} → {after})"
    name = "visits" if cause == "traffic" else cause
    before, after = (_figure(name, getattr(one, name)) for one in (line.history, line.period))
    return f"{what} {before} → {after}"


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "none"
    if name == "visits":
        return f"{value:,.0f}"
    if name not in ("interest", "availability", "conversion"):
        return f"{value:.2f}"
    return f"{value:.1%}" if value >= 0.01 else f"{value:.2%}"


def _percent_change(ratio: float | None) -> str:
    if ratio is None:
        return "up from none"
    if ratio >= MANIFOLD:
        return f"{ratio:,.1f}-fold"
    change = f"{abs(ratio - 1):.0%}"
    return "even" if change == "0%" else f"{'up' if ratio > 1 else 'down'} {change}"


def _odds(comparison: Comparison) -> str:
    if comparison.p_value is None:
        return " (too few to say)"
    return f" (p = {comparison.p_value:.2g})" if comparison.trend != "steady" else " (may be chance)"


def _trend(own: Comparison, against_shop: Comparison, of_shop: Trend | None) -> Trend | None:
    if against_shop.trend == "steady" and of_shop == "steady":
        return own.trend  # the shop stands still: what moves, moves by itself
    return against_shop.trend


def _category_lines(trade: Trade, counts: Tally, weeks: Weeks, *, use_visits: bool) -> Iterator[CategoryLine]:
    later = weeks.is_period
    everything = np.ones(len(later), np.int64)
    against_history = _adjusted(rate_change(counts.orders, everything, later))
    against_shop = _adjusted(share_change(counts.orders, counts.orders[:1], later), skipped=0)
    returns = _adjusted(rate_change(counts.return_lines, counts.lines, later))
    prices = _price_changes(trade, weeks)
    totals = {
        name: (getattr(counts, name)[:, ~later].sum(1).tolist(), getattr(counts, name)[:, later].sum(1).tolist())
        for name in Tally.__struct_fields__
    }
    tells_visits = use_visits and bool(counts.visits[0].all())  # navigation was recorded in every week
    for row, category_id in enumerate(trade.categories):
        before, after = ({name: both[when][row] for name, both in totals.items()} for when in (0, 1))
        if not before["orders"] and not after["orders"]:
            continue
        has_visits = tells_visits and all(one["looks_available"] or not one["orders"] for one in (before, after))
        basis = "visits" if has_visits else "orders"
        shop_before, shop_after = (totals[basis][when][0] for when in (0, 1))
        first = _factors(before, shop_before, weeks.scale, has_visits=has_visits)
        second = _factors(after, shop_after, ONE, has_visits=has_visits)
        yield CategoryLine(
            category_id=category_id,
            basis=basis,
            orders_against_history=against_history[row],
            orders_against_shop=against_shop[row],
            returns_against_history=returns[row],
            trend=_trend(against_history[row], against_shop[row], against_history[0].trend),
            **_explain(_measure(before, first, weeks.scale), _measure(after, second, ONE), first, second, prices[row]),
        )


def _explain(history: Measures, period: Measures, before: Factors, after: Factors, price_part: float) -> dict[str, Any]:
    """Return the fields of a category's line that say what changed its revenue, and by what."""
    change = period.revenue_micros - history.revenue_micros
    parts = _parts(history.revenue_micros, period.revenue_micros, before, after, price_part)
    direction = 1 if change > 0 else -1
    return {
        "period": period,
        "history": history,
        "change_micros": change,
        "parts": parts,
        "cause": max(parts, key=lambda name: parts[name] * direction) if change else None,
    }


def _factors(own: Mapping[str, int], shop_total: int, scale: Fraction, *, has_visits: bool) -> dict[str, float | None]:
    """Return the factors of one period's revenue, its amounts made `scale` times as long."""
    seen = own["visits"] if has_visits else shop_total
    availability = _ratio(own["looks_available"], own["looks"]) if has_visits else None
    return {
        "traffic": float(shop_total * scale),
        "interest": _ratio(own["visits"], shop_total) if has_visits else None,
        "availability": availability,
        "conversion": _ratio(own["orders"], seen * (1.0 if availability is None else availability)),
        "lines": _ratio(own["lines"], own["orders"]),
        "units": _ratio(own["units"], own["lines"]),
        "price": _ratio(own["revenue_micros"], own["units"]),
    }


def _measure(own: Mapping[str, int], factors: Factors, scale: Fraction) -> Measures:
    unit_price_micros = factors["price"]
    return Measures(
        revenue_micros=math.floor(own["revenue_micros"] * scale),
        orders=float(own["orders"] * scale),
        visits=factors["traffic"] or 0.0,
        **{name: factors[name] for name in ("interest", "availability", "conversion", "lines", "units")},
        unit_price_micros=None if unit_price_micros is None else round(unit_price_micros),
        return_rate=_ratio(own["units_returned"], own["units"]),
        returned_micros=math.floor(own["returned_micros"] * scale),
    )


def _parts(before_micros: int, after_micros: int, before: Factors, after: Factors, price_part: float) -> dict[str, int]:
    """Return what each factor changed of the revenue; their sum is the change."""
    parts = decompose(before_micros, after_micros, before, after)
    if before_micros and after_micros:
        per_unit = parts.pop("price")
        return parts | round_to_sum({"price": price_part, "mix": per_unit - price_part}, per_unit)
    return parts | {"mix": 0}


def _price_changes(trade: Trade, weeks: Weeks) -> Float64s:
    """Return (K,) what prices of the products sold in both periods changed of each category's revenue."""
    count = len(trade.product_ids)
    sums = [_sums_by_product(_sold(trade, weeks, chosen), count) for chosen in (~weeks.is_period, weeks.is_period)]
    (units_before, before, _), (units_after, after, _) = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = price_parts(
            before.astype(np.float64) * float(weeks.scale),
            after.astype(np.float64),
            before / units_before,
            after / units_after,
        )
    rows, category = trade.spread(trade.product_category)
    changes: Float64s = np.bincount(category, weights=parts[rows], minlength=len(trade.categories)).astype(np.float64)
    return changes


def _sold(trade: Trade, weeks: Weeks, chosen: Flags) -> OrderLines:
    """Return the lines sold in some of the weeks."""
    week = weeks.number(trade.lines.at_ms)
    return trade.lines.only((week >= 0) & chosen[np.maximum(week, 0)] & (trade.lines.quantity > 0))


def _sums_by_product(lines: OrderLines, product_count: int) -> tuple[Int64s, Int64s, Int64s]:
    """Return (P,) units, (P,) revenue in micros and (P,) orders."""
    units, revenue = np.zeros(product_count, np.int64), np.zeros(product_count, np.int64)
    np.add.at(units, lines.product, lines.quantity)
    np.add.at(revenue, lines.product, lines.amount_micros)
    _, product = distinct(lines.order, lines.product, max(product_count, 1))
    return units, revenue, np.bincount(product, minlength=product_count)


def _rank_within(group: Int64s, order: Int64s) -> Int64s:
    """Return each one's place from 1 in its group, `order` being sorted by group and then by merit."""
    sorted_group = group[order]
    begins = np.searchsorted(sorted_group, sorted_group)
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - begins + 1
    return rank


def _pairs(trade: Trade, weeks: Weeks) -> Pairs:
    lines = _sold(trade, weeks, np.ones(len(weeks.begins_ms), np.bool_))
    return find_pairs(lines.order, lines.product, LEVEL)


def _bought_together(trade: Trade, weeks: Weeks) -> list[tuple[str, str, float]]:
    """Return the pairs, the best first, that are among the best of either product."""
    pairs = _pairs(trade, weeks)
    beyond = (pairs.together - pairs.by_chance).tolist()
    count = np.zeros(len(trade.product_ids), np.int64)
    kept = []
    for row, (one, other) in enumerate(pairs.product.tolist()):
        if min(count[one], count[other]) < COMPLEMENT_COUNT_MAX:
            kept.append((trade.product_ids[one], trade.product_ids[other], beyond[row]))
        count[one] += 1
        count[other] += 1
    return kept


def _cross_sell(trade: Trade, weeks: Weeks, count_max: int) -> list[CrossSell]:
    pairs = _pairs(trade, weeks)
    return [
        CrossSell(
            product_ids=(trade.product_ids[one], trade.product_ids[other]),
            orders=(int(pairs.orders[row, 0]), int(pairs.orders[row, 1])),
            together=int(pairs.together[row]),
            lift=float(pairs.lift[row]),
            p_value=float(pairs.p_value[row]),
        )
        for row, (one, other) in enumerate(pairs.product[:count_max].tolist())
    ]


def _adjusted(change: Change, skipped: int | None = None) -> Sequence[Comparison]:
    p_value = change.p_value.copy()
    if skipped is not None:
        p_value[skipped] = np.nan
    return [
        Comparison(ratio=ratio if math.isfinite(ratio) else None, p_value=None if math.isnan(p) else p)
        for ratio, p in zip(change.ratio.tolist(), adjust(p_value).tolist(), strict=True)
    ]


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
