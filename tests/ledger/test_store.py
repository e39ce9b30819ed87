"""What others may read of the ledger's tables, on both databases."""

from bidder_api.database import Database
from ledger.store import erase_visitors, insert_order, read_ordered_lines

R = "shop"


def put(database: Database, order_id: str, part: int, visitor: bytes | None, quantity: int) -> None:
    key = {"retailer_id": R, "order_id": order_id, "part": part}
    who = {"visitor": visitor, "customer": b"c" if visitor is None else None, "channel": "web", "store_id": None}
    times = {"occurred_at_ms": 5 + part, "recorded_at_ms": 9, "digest": f"{order_id}{part}", "traffic_source": None}
    lines = [
        {**key, "line": line, "product_id": f"p{line}", "quantity": quantity, "unit_price_micros": 7} for line in (1, 2)
    ]
    database.transact(lambda connection: insert_order(connection, {**key, **who, **times}, lines))


def test_the_lines_of_orders_and_returns_are_read_with_their_buyers_as_long_as_these_are_known(
    database: Database,
) -> None:
    put(database, "o1", 0, b"v", 2)
    put(database, "o1", 1, b"v", -1)
    put(database, "o2", 0, None, 1)

    def lines() -> list[tuple[object, ...]]:
        rows = database.read(lambda connection: [tuple(row) for row in read_ordered_lines(connection, R)])
        return sorted(rows, key=lambda row: row[2:])

    of_customer = [(None, b"c", "o2", 5, "p1", 1, 7), (None, b"c", "o2", 5, "p2", 1, 7)]
    assert lines() == [
        (b"v", None, "o1", 5, "p1", 2, 7), (b"v", None, "o1", 5, "p2", 2, 7),
        (b"v", None, "o1", 6, "p1", -1, 7), (b"v", None, "o1", 6, "p2", -1, 7), *of_customer,
    ]  # fmt: skip
    database.transact(lambda connection: erase_visitors(connection, R, [b"v"], 9, 9))
    assert lines() == of_customer
    assert database.read(lambda connection: list(read_ordered_lines(connection, "another shop"))) == []
