"""What the serving process hears of events and orders on their way through it to the ledger, once they are durable.

Only what may be forgotten hangs on it: frequency caps, visitors' limits, how late charges come, how likely products are
clicked, what target-ROAS campaigns have earned, and what visitors are known to have bought. Money is the ledger's
alone.
"""

from collections.abc import Callable, Sequence

from affinity.held import HeldOrder, HeldOrderLine
from auction.serving import SlotServer
from ledger.beacon import BeaconKeys
from ledger.command import OrderRecord, OrderResult
from ledger.errors import BeaconRefused
from ledger.event import EventResult, EventType, ReportedEvent

# Of impressions one in sixteen is opened, where nothing needs them all, and stands for the others. Which one, a letter
# of the token's seal says, which is as good as chance: every so-many-th would always be of the same slots.
HEARD_LETTERS = frozenset("Abx7")
HEARD_PLACE = -8
HEARD_OF = 64 // len(HEARD_LETTERS)
# What is recorded but not charged for one of these reasons was still shown and clicked by somebody.
UNBILLED_BUT_REAL = frozenset({"organic", "booked", "funds", "daily_budget", "total_budget"})


class Hearing:
    """Opens the beacons of events and tells the slot server.

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

    def events(self, events: Sequence[ReportedEvent], results: Sequence[EventResult]) -> None:
        """Hear of events and what became of them: of new ones that robots did not make, so each counts once."""
        for event, result in zip(events, results, strict=True):
            is_accepted = result.result == "accepted"
            is_real = is_accepted or (result.result == "unbilled" and result.code in UNBILLED_BUT_REAL)
            if not is_real or event.type is EventType.VIEW:
                continue
            is_click = event.type is EventType.CLICK
            hears_all = is_click or (is_accepted and self._slot_server.counts_renders)
            if not hears_all and event.beacon_token[HEARD_PLACE] not in HEARD_LETTERS:
                continue
            now_ms = self._clock_ms()
            try:
                terms = self._keys.redeem_beacon(event.beacon_token, now_ms).terms
            except BeaconRefused:  # its key was changed since it was accepted
                continue
            if is_accepted:
                self._slot_server.note_event(terms, is_click, now_ms)
            self._slot_server.count_event(terms, is_click, 1.0 if hears_all else HEARD_OF)

    def profiles(self, orders: Sequence[OrderRecord], results: Sequence[OrderResult]) -> None:
        """Take orders into their buyers' profiles; again makes no difference."""
        now_ms = self._clock_ms()
        for record, result in zip(orders, results, strict=True):
            if result.result != "conflict":
                self._visitors.note_order(_held(record), record.visitor, record.customer, now_ms)

    def orders(self, orders: Sequence[OrderRecord], results: Sequence[OrderResult]) -> None:
        """Hear of orders and returns; each counts once. They are in their buyers' profiles when this returns.

        One that is told of again may not have got so far the first time; profiles know which lines they have.
        """
        self.profiles(orders, results)
        for record, result in zip(orders, results, strict=True):
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
