"""Small shops for tests: orders and visits written down, read as a server would read them."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np

from affinity.catalog import Product
from affinity.merchandising import CategoryLine, MerchandisingReport, report_trade
from affinity.navigation_log import LogLine
from affinity.trade import Trade, TradeReader, Weeks, weeks_until

LAST_DAY = date(2026, 11, 22)  # a Sunday
HOUR_MS = 3_600_000
FOR_EVER_MS = 1 << 62


def at(day: int, hour: float = 12.0) -> int:
    """Return a moment of a day of November 2026 (below 1: of October), UTC milliseconds."""
    return int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000) + int(((day - 1) * 24 + hour) * HOUR_MS)


def visitor(number: int) -> bytes:
    """Return a visitor's pseudonym."""
    return number.to_bytes(16, "big")


def event(number: int, at_ms: int, action: str, product_id: str | None = None, **more: object) -> LogLine:
    """Return a line of the navigation log."""
    return LogLine(visitor(number), at_ms, action, product_id=product_id, **more)  # type: ignore[arg-type]


def product(product_id: str, category: str | None, price: int = 10) -> Product:
    """Return a product whose price is in whole units of currency."""
    return Product(product_id=product_id, product_type=category, price_micros=price * 1_000_000)


def read_trade(
    weeks: Weeks,
    products: Sequence[Product],
    orders: Sequence[tuple[object, int, str, int, int]] = (),
    events: Sequence[LogLine] = (),
    purchases_until_ms: int = 0,
) -> Trade:
    """Return a shop's trade; prices of orders are in whole units of currency."""
    reader = TradeReader(weeks, products, purchases_until_ms)
    reader.add_order_lines((one, when, name, units, price * 1_000_000) for one, when, name, units, price in orders)
    reader.add_navigation(events)
    return reader.finish()


def compared(
    trade: Trade, weeks: Weeks, is_available: np.ndarray | None = None, **more: object
) -> tuple[MerchandisingReport, dict[str, CategoryLine]]:
    """Return the report, and its lines by category."""
    available = np.ones(len(trade.visits.product), np.bool_) if is_available is None else is_available
    fields: dict[str, object] = {"currency": "EUR", "use_visits": True, "top_count": 10}
    report = report_trade(trade, weeks, available, **fields | more)  # type: ignore[arg-type]
    return report, {line.category_id: line for line in report.categories}


def weeks_of(period_count: int, history_count: int) -> Weeks:
    """Return weeks that end on the last day."""
    return weeks_until(LAST_DAY, period_count, history_count, "UTC")
