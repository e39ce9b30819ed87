"""What the ledger and the database's files hold of visitors, for whoever reads or erases it all."""

from collections.abc import Callable, Collection
from itertools import groupby
from typing import Any

from sqlalchemy.engine import Connection

from affinity.erasure import Elsewhere
from affinity.errors import ErasureUnfinished
from affinity.held import HeldElsewhere, HeldOrder, HeldOrderLine, HeldTouch, to_moment
from bidder_api.database import Database, TracesLeft
from ledger.settings import Settings
from ledger.store import erase_visitors, read_orders_of, read_touches_of

PSEUDONYM_TABLES = ("profiles", "visitor_links", "orders")  # those with indexes over pseudonyms


def holdings(database: Database, retailer_id: str, clock_ms: Callable[[], int], ledger_settings: Settings) -> Elsewhere:
    """Return how what the ledger holds of visitors is read and erased, and the database's files are scrubbed."""

    def erase(connection: Connection, pseudonyms: Collection[bytes]) -> None:
        erase_visitors(connection, retailer_id, pseudonyms, clock_ms(), ledger_settings.click_life_ms)

    def read(connection: Connection, pseudonyms: Collection[bytes]) -> HeldElsewhere:
        return HeldElsewhere(
            orders=_orders(read_orders_of(connection, retailer_id, pseudonyms)),
            touches=[
                HeldTouch(type=touch.type, occurred_at=to_moment(touch.occurred_at_ms))
                for touch in read_touches_of(connection, retailer_id, pseudonyms)
            ],
        )

    def scrub(pseudonyms: Collection[bytes]) -> None:
        try:
            database.scrub(pseudonyms, PSEUDONYM_TABLES)
        except TracesLeft as failure:
            raise ErasureUnfinished(f"the database's files could not be cleaned now: {failure}") from failure

    return Elsewhere(erase=erase, read=read, scrub=scrub)


def _orders(rows: list[Any]) -> list[HeldOrder]:
    """Return orders of their lines, which come one after the other."""
    orders = []
    for _, lines in groupby(rows, key=lambda row: (row.order_id, row.part)):
        order_rows = list(lines)
        order = order_rows[0]
        orders.append(
            HeldOrder(
                order_id=order.order_id,
                occurred_at=to_moment(order.occurred_at_ms),
                channel=order.channel,
                store_id=order.store_id,
                traffic_source=order.traffic_source,
                lines=[
                    HeldOrderLine(
                        product_id=line.product_id, quantity=line.quantity, unit_price_micros=line.unit_price_micros
                    )
                    for line in order_rows
                ],
            )
        )
    return orders
