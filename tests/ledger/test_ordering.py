"""Orders as they are read again: by time and channel, one after the other, of one retailer."""

from datetime import UTC, datetime, timedelta

from bidder_api.database import Database
from ledger.command import OrderLine, OrderRecord, ReportedOrder
from ledger.ordering import keep_orders
from ledger.store import count_orders, read_order_lines, read_order_span

R = "shop"
START = datetime(2026, 11, 23, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
HOUR_MS = 3_600_000


def order(order_id: str, hours: int, *lines: tuple[str, int, int], channel: str = "web") -> OrderRecord:
    made = ReportedOrder(
        order_id=order_id,
        occurred_at=START + timedelta(hours=hours),
        channel=channel,  # type: ignore[arg-type]
        lines=[OrderLine(product_id=one, quantity=units, unit_price_micros=price) for one, units, price in lines],
    )
    return OrderRecord(made, None, None)


def keep(database: Database, retailer_id: str, *records: OrderRecord) -> None:
    results = database.transact(lambda connection: keep_orders(connection, retailer_id, list(records), 0))
    assert {one.result for one in results} == {"accepted"}


def test_lines_are_read_by_time_and_channel_one_order_after_the_other(database: Database) -> None:
    keep(
        database,
        R,
        order("b", 1, ("p2", 1, 5), ("p1", 2, 7)),
        order("a", 2, ("p1", 1, 7), channel="app"),
        order("c", 3, ("p1", 1, 6), channel="store"),
        order("d", 9, ("p1", 1, 7)),
    )
    keep(database, R, order("b", 4, ("p1", -1, 7)))
    keep(database, "other", order("b", 0, ("p1", 100, 1)))

    def read(*channels: str, until: int = 9) -> list[tuple[object, ...]]:
        span = START_MS + HOUR_MS, START_MS + until * HOUR_MS
        return database.read(lambda connection: list(read_order_lines(connection, R, *span, channels)))

    assert read("web", "app") == [
        (("a", 0), START_MS + 2 * HOUR_MS, "p1", 1, 7),
        (("b", 0), START_MS + HOUR_MS, "p2", 1, 5),
        (("b", 0), START_MS + HOUR_MS, "p1", 2, 7),
        (("b", 1), START_MS + 4 * HOUR_MS, "p1", -1, 7),
    ]
    assert [line[0] for line in read("store")] == [("c", 0)]
    assert [line[0] for line in read("web", until=10)][-1] == ("d", 0)
    span = START_MS + HOUR_MS, START_MS + 9 * HOUR_MS
    assert database.read(lambda connection: count_orders(connection, R, *span)) == 4
    assert database.read(lambda connection: read_order_span(connection, R)) == (
        START_MS + HOUR_MS,
        START_MS + 9 * HOUR_MS,
    )
    assert database.read(lambda connection: read_order_span(connection, "nobody")) is None
