"""What the serving process hears of events and orders on their way through it to the ledger, once they are durable.

Only what may be forgotten hangs on it: frequency caps, visitors' limits, how late charges come, and what target-ROAS
campaigns have earned. Money is the ledger's alone.
"""

from collections.abc import Callable, Sequence

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
        """Hear of orders and returns; each counts once."""
        for record, result in zip(orders, results, strict=True):
            persons = [one for one in (record.visitor, record.customer) if one is not None]
            if result.result != "accepted" or not persons:
                continue
            ordered_at_ms = round(record.order.occurred_at.timestamp() * 1000)
            for line in record.order.lines:
                self._slot_server.note_order(
                    persons, line.product_id, line.quantity * line.unit_price_micros, ordered_at_ms
                )
