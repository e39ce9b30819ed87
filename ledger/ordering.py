"""Orders and returns, kept for attribution. They are no part of the books."""

import hashlib

import msgspec
from sqlalchemy.engine import Connection

from ledger import store
from ledger.command import OrderRecord, OrderResult, ReportedOrder


def keep_orders(connection: Connection, retailer_id: str, records: list[OrderRecord], now_ms: int) -> list[OrderResult]:
    """Keep each order once. The same id again with only negative quantities is a return to it.

    An order sent twice, or a return sent twice, is a duplicate; any other content under its id is a conflict.
    """
    return [_keep(connection, retailer_id, record, now_ms) for record in records]


def _keep(connection: Connection, retailer_id: str, record: OrderRecord, now_ms: int) -> OrderResult:
    order = record.order
    digest = _digest(order)
    parts = store.read_order_parts(connection, retailer_id, order.order_id)
    if any(part.digest == digest for part in parts):
        return OrderResult(order.order_id, "duplicate")
    if parts and any(line.quantity >= 0 for line in order.lines):
        return OrderResult(order.order_id, "conflict")
    part = len(parts)
    store.insert_order(
        connection,
        {
            "retailer_id": retailer_id,
            "order_id": order.order_id,
            "part": part,
            "visitor": record.visitor,
            "customer": record.customer,
            "channel": order.channel,
            "store_id": order.store_id,
            "traffic_source": order.traffic_source,
            "digest": digest,
            "occurred_at_ms": round(order.occurred_at.timestamp() * 1000),
            "recorded_at_ms": now_ms,
        },
        [
            {
                "retailer_id": retailer_id,
                "order_id": order.order_id,
                "part": part,
                "line": line,
                "product_id": ordered.product_id,
                "quantity": ordered.quantity,
                "unit_price_micros": ordered.unit_price_micros,
            }
            for line, ordered in enumerate(order.lines, 1)
        ],
    )
    return OrderResult(order.order_id, "accepted")


def _digest(order: ReportedOrder) -> str:
    """Return what tells two orders apart; who bought is not in it, so nothing is left once that is erased."""
    anonymous = msgspec.structs.replace(order, visitor_id=None, customer_id=None)
    return hashlib.sha256(msgspec.json.encode(anonymous)).hexdigest()
