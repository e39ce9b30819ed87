"""What the serving process hears of events and orders on their way through it to the ledger, once they are durable.

Only what may be forgotten hangs on it: frequency caps, visitors' limits, how late charges come, what target-ROAS
campaigns have earned, and what visitors are known to have bought. Money is the ledger's alone.
"""

from collections.abc import Callable, Sequence

from affinity.held import HeldOrder, HeldOrderLine
from auction.serving import SlotServer
from ledger.beacon import BeaconKeys
from ledger.command import OrderRecord, OrderResult
from ledger.errors import BeaconRefused
from ledger.event import EventResult, EventType, ReportedEvent

HEARD_OF = 16  # impressions of which one is opened, where nothing but the delay of charges depends on them


class Hearing:
    """Opens the beacons of accepted events and tells the slot server.

    Args:
        slot_server: who fills pages.
        keys: what beacons are sealed with; used on the event loop only.
        clock_ms: UTC, milliseconds since 1970.
    """

    def __init__(self, slot_server: SlotServer, keys: BeaconKeys, clock_ms: Callable[[], int]) -> None:
        self._slot_server = slot_server
        self._visitors = slot_server.visitors
        self._keys = keys
        self._clock_ms = clock_ms
        self._impression_count = 0

    def events(self, events: Sequence[ReportedEvent], results: Sequence[EventResult]) -> None:
        """Hear of events and what became of them; only accepted ones count, so each does once."""
        for event, result in zip(events, results, strict=True):
            if result.result != "accepted" or event.type is EventType.VIEW:
                continue
            is_click = event.type is EventType.CLICK
            if not is_click and not self._slot_server.counts_renders:
                self._impression_count += 1
                if self._impression_count % HEARD_OF:
                    continue
            now_ms = self._clock_ms()
            try:
                beacon = self._keys.redeem_beacon(event.beacon_token, now_ms)
            except BeaconRefused:  # its key was changed since it was accepted
                continue
            self._slot_server.note_event(beacon.terms, is_click, now_ms)

    def orders(self, orders: Sequence[OrderRecord], results: Sequence[OrderResult]) -> None:
        """Hear of orders and returns; each counts once. They are in their buyers' profiles when this returns.

        One that is told of again may not have got so far the first time; profiles know which lines they have.
        """
        now_ms = self._clock_ms()
        for record, result in zip(orders, results, strict=True):
            if result.result != "conflict":
                self._visitors.note_order(_held(record), record.visitor, record.customer, now_ms)
            persons = [one for one in (record.visitor, record.customer) if one is not None]
            if result.result != "accepted" or not persons:
                continue
            ordered_at_ms = round(record.order.occurred_at.timestamp() * 1000)
            for line in record.order.lines:
                self._slot_server.note_order(
                    persons, line.product_id, line.quantity * line.unit_price_micros, ordered_at_ms
                )


def _held(record: OrderRecord) -> HeldOrder:
    """Return an order as visitors' profiles take it."""
    order = record.order
    return HeldOrder(
        order_id=order.order_id,
        occurred_at=order.occurred_at,
        channel=order.channel,
        store_id=order.store_id,
        traffic_source=order.traffic_source,
        lines=[
            HeldOrderLine(product_id=line.product_id, quantity=line.quantity, unit_price_micros=line.unit_price_micros)
            for line in order.lines
        ],
    )
