"""Every customer computed anew from orders and navigation: what they bought, and which segments they entered.

Lines and links in, profiles and entries out, all under pseudonyms. `computed.py` holds the figures.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from msgspec import Struct

from affinity.computed import (
    CustomerScale,
    OrderStatus,
    Purchases,
    clv_tier,
    lifecycle,
    measure_customers,
    rfm_class,
)
from affinity.navigation import Action
from affinity.navigation_log import FILL_ACTIONS, NavigationLog
from affinity.record import ProductFacts

SAME_PURCHASE_MS = 3_600_000  # a purchase in navigation this near an order of the same product is that order's
ORDERED_COUNT_MAX = 64
PERSONS_PER_STEP = 1_000
FROM_ANYWHERE = ""


class PurchaseLine(NamedTuple):
    """Something bought, or given back.

    Attributes:
        pseudonym: whom it counts for.
        quantity: how many; negative ones are returned.
        price_micros: paid for one, None where it is not known.
        order_id: "" where navigation told of it.
    """

    pseudonym: bytes
    at_ms: int
    product_id: str | None
    quantity: int
    price_micros: int | None
    order_id: str = ""


class NavigationPurchases(NamedTuple):
    """What the navigation log tells of purchases.

    Attributes:
        lines: the purchases.
        pseudonyms: everybody who is in the log, and therefore consented.
    """

    lines: list[PurchaseLine]
    pseudonyms: set[bytes]

    def with_orders(self, rows: Iterable[Any], consented: Set[bytes]) -> tuple[list[PurchaseLine], int]:
        """Return these purchases and those of orders; and how many lines of orders nobody consented to.

        A line counts for its order's customer, or for the visitor where only that one is known to have consented.

        Args:
            rows: visitor, customer, order id, time, product id, quantity and unit price of each line of an order.
            consented: of whom navigation, a profile or a link is kept, which is only done with consent.
        """
        lines, left_out = list(self.lines), 0
        for visitor, customer, order_id, at_ms, product_id, quantity, price_micros in rows:
            buyer = next((one for one in (customer, visitor) if one is not None and bytes(one) in consented), None)
            if buyer is None:
                left_out += 1
            else:
                lines.append(PurchaseLine(bytes(buyer), at_ms, product_id, quantity, price_micros, order_id))
        return lines, left_out


class ComputedProfile(Struct, frozen=True, kw_only=True):
    """What was computed of one pseudonym; a customer's devices add up, so that unlinking parts them.

    Attributes:
        through_ms: when it was computed: it knows nothing later.
        purchases: all of them, summed up.
        bought: product id to when it was ordered last, the latest ORDERED_COUNT_MAX of them. What navigation told of is
            in the visitor's record already.
        segments: of the person, beside their own pseudonym: where they stood in each of `lifecycle`, `rfm`, `clv`.
    """

    through_ms: int
    purchases: Purchases
    bought: dict[str, int] = {}
    segments: dict[str, str] = {}


class SegmentEntry(NamedTuple):
    """That somebody came into a segment.

    Attributes:
        segment_id: of the CRM; or computed: `lifecycle:lapsing`, `rfm:champion`, `clv:top`.
        from_segment_id: what they left for it, FROM_ANYWHERE where nothing is asked of that.
    """

    pseudonym: bytes
    segment_id: str
    from_segment_id: str
    entered_at_ms: int


class Computation(NamedTuple):
    """What became of all customers."""

    scale: CustomerScale
    profiles: dict[bytes, ComputedProfile]
    entries: list[SegmentEntry]


def read_purchases(
    log: NavigationLog, progress: Callable[[int, int | None], None] = lambda done, total: None
) -> NavigationPurchases:
    """Read the purchases of the whole navigation log; an event sent twice counts once."""
    lines: list[PurchaseLine] = []
    pseudonyms: set[bytes] = set()
    seen: set[int] = set()
    segments = log.segments()
    for done, name in enumerate(segments):
        progress(done, len(segments))
        for line in log.read(name):
            if line.action in FILL_ACTIONS:
                continue
            pseudonyms.add(line.pseudonym)
            if line.action != Action.PURCHASE or line.event in seen:
                continue
            if line.event:
                seen.add(line.event)
            quantity = max(1 if line.quantity is None else line.quantity, 1)
            lines.append(PurchaseLine(line.pseudonym, line.at_ms, line.product_id, quantity, line.price_micros))
    progress(len(segments), len(segments))
    return NavigationPurchases(lines, pseudonyms)


def compute_customers(
    lines: Iterable[PurchaseLine],
    customer_of: Mapping[bytes, bytes],
    before: Mapping[bytes, Mapping[str, str]] | None,
    facts: Mapping[str, ProductFacts],
    now_ms: int,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Computation:
    """Compute every buyer.

    A web order comes twice, as an order and in navigation: within an hour of an order of the same product by the same
    person, a purchase in navigation is left out.

    Args:
        lines: what was bought, in any order.
        customer_of: the customer of each linked visitor.
        before: the segments each person stood in when they were computed last; None the first time, which finds where
            everybody stands and counts nobody as having entered.
        facts: what the catalogue says of each product.
        now_ms: the moment computed for.
        progress: called with how many persons are done, and of how many.
    """
    by_person: dict[bytes, list[PurchaseLine]] = defaultdict(list)
    for line in lines:
        by_person[customer_of.get(line.pseudonym, line.pseudonym)].append(line)
    devices: dict[bytes, list[bytes]] = defaultdict(list)
    for device, customer in customer_of.items():
        devices[customer].append(device)

    profiles: dict[bytes, ComputedProfile] = {}
    whole: dict[bytes, Purchases] = {}
    for done, (person, of_person) in enumerate(by_person.items()):
        if done % PERSONS_PER_STEP == 0:
            progress(done, len(by_person))
        whole[person] = Purchases()
        for pseudonym, own in _split(_without_repeats(of_person)).items():
            purchases = _sum_up(own, facts)
            profiles[pseudonym] = ComputedProfile(through_ms=now_ms, purchases=purchases, bought=_last_ordered(own))
            whole[person].add(purchases)

    scale = measure_customers(whole.values())
    entries: list[SegmentEntry] = []
    for person, purchases in whole.items():
        segments = _segments(purchases, scale, now_ms)
        own_profile = profiles.get(person) or ComputedProfile(through_ms=now_ms, purchases=Purchases())
        profiles[person] = ComputedProfile(
            through_ms=now_ms, purchases=own_profile.purchases, bought=own_profile.bought, segments=segments
        )
        if before is not None:
            known = next((before[one] for one in (person, *devices[person]) if one in before), NEWCOMER)
            entries += _entered(person, known, segments, now_ms)
    progress(len(by_person), len(by_person))
    return Computation(scale, profiles, entries)


NEWCOMER: Mapping[str, str] = {"lifecycle": "prospect"}


def entries_between(
    pseudonym: bytes, before: Sequence[str], after: Sequence[str], now_ms: int, from_count_max: int = 20
) -> list[SegmentEntry]:
    """Return what was entered when the named segments of a visitor became others."""
    if before == after:
        return []
    left = [one for one in before if one not in set(after)][:from_count_max]
    return [
        SegmentEntry(pseudonym, entered, origin, now_ms)
        for entered in dict.fromkeys(after)
        if entered not in set(before)
        for origin in (FROM_ANYWHERE, *left)
    ]


def _segments(purchases: Purchases, scale: CustomerScale, now_ms: int) -> dict[str, str]:
    named = {
        "lifecycle": lifecycle(purchases, now_ms),
        "rfm": rfm_class(purchases, scale),
        "clv": clv_tier(purchases, scale),
    }
    return {kind: name for kind, name in named.items() if name is not None}


def _entered(person: bytes, before: Mapping[str, str], after: Mapping[str, str], now_ms: int) -> Iterable[SegmentEntry]:
    for kind, name in after.items():
        was = [f"{kind}:{before[kind]}"] if kind in before else []
        yield from entries_between(person, was, [f"{kind}:{name}"], now_ms)


def _without_repeats(lines: list[PurchaseLine]) -> list[PurchaseLine]:
    """Leave out of navigation what an order tells as well."""
    ordered: dict[str | None, list[int]] = defaultdict(list)
    for line in lines:
        if line.order_id and line.quantity > 0:
            ordered[line.product_id].append(line.at_ms)
            ordered[None].append(line.at_ms)  # a purchase without a product is any order's
    return [
        line
        for line in lines
        if line.order_id or not any(abs(line.at_ms - at) <= SAME_PURCHASE_MS for at in ordered.get(line.product_id, ()))
    ]


def _split(lines: Iterable[PurchaseLine]) -> dict[bytes, list[PurchaseLine]]:
    by_pseudonym: dict[bytes, list[PurchaseLine]] = defaultdict(list)
    for line in lines:
        by_pseudonym[line.pseudonym].append(line)
    return by_pseudonym


def _sum_up(lines: list[PurchaseLine], facts: Mapping[str, ProductFacts]) -> Purchases:
    purchases = Purchases()
    bought: dict[str, int] = defaultdict(int)
    returned: dict[str, int] = defaultdict(int)
    last_order_id = ""
    for line in sorted(lines, key=lambda one: one.at_ms):
        known = facts.get(line.product_id) if line.product_id is not None else None
        price = line.price_micros if line.price_micros is not None or known is None else known.price_micros
        amount = 0 if price is None else price * line.quantity
        if line.quantity > 0:
            purchases.note(line.at_ms, amount)
            bought[line.order_id] += line.quantity
            last_order_id = line.order_id
        elif line.order_id in bought:  # of an order that is not known, nothing is given back
            purchases.amount_micros += amount
            returned[line.order_id] -= line.quantity
        else:
            continue
        if known is not None:
            purchases.note_units(line.quantity, price, known.shelf_price_micros, known.price_rank)
    purchases.last_order_status = _status(bought[last_order_id], returned[last_order_id])
    return purchases


def _status(bought: int, returned: int) -> OrderStatus:
    if not returned:
        return "kept"
    return "returned" if returned >= bought else "partly_returned"


def _last_ordered(lines: list[PurchaseLine]) -> dict[str, int]:
    last: dict[str, int] = {}
    for line in lines:
        if line.order_id and line.product_id is not None and line.quantity > 0:
            last[line.product_id] = max(last.get(line.product_id, 0), line.at_ms)
    latest = sorted(last, key=last.__getitem__)[-ORDERED_COUNT_MAX:]
    return {product_id: last[product_id] for product_id in latest}
