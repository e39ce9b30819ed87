"""What is held of a visitor beside their profile, as they may ask to see it (`GET /v1/visitors/{visitor_id}`)."""

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct

from affinity.navigation_log import FILL_ACTIONS, LogLine
from affinity.profile import ProfileDraft
from affinity.record import VisitorRecord


class HeldLink(Struct, frozen=True, kw_only=True):
    """One of the person's devices, or their customer; raw ids are not kept, so each is named by its pseudonym.

    Attributes:
        profile: its own, null where it has none: the person's is the customer's.
    """

    pseudonym: str
    is_customer: bool
    profile: ProfileDraft | None


class HeldEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the navigation log: what the visitor did, or a sponsored fill shown to or clicked by them.

    Attributes:
        placement_id, slot_position, bid_id: of a fill (`served`, `rendered`, `clicked`).
    """

    pseudonym: str
    action: str
    occurred_at: datetime
    product_id: str | None = None
    category_id: str | None = None
    query: str | None = None
    quantity: int | None = None
    price_micros: int | None = None
    traffic_source: str | None = None
    placement_id: str | None = None
    slot_position: int | None = None
    bid_id: str | None = None


class HeldOrderLine(Struct, frozen=True, kw_only=True):
    """A product of an order; a negative quantity came back."""

    product_id: str
    quantity: int
    unit_price_micros: int


class HeldOrder(Struct, frozen=True, kw_only=True):
    """An order or a return to one."""

    order_id: str
    occurred_at: datetime
    channel: str
    store_id: str | None
    traffic_source: str | None
    lines: list[HeldOrderLine]


class HeldTouch(Struct, frozen=True, kw_only=True):
    """A sponsored product the visitor clicked, kept to credit orders to it."""

    type: str
    occurred_at: datetime


class HeldElsewhere(Struct, frozen=True, kw_only=True):
    """What other packages hold."""

    orders: list[HeldOrder] = []
    touches: list[HeldTouch] = []


class HeldState(Struct, frozen=True, kw_only=True):
    """What is held in memory of a visitor with all their devices, beside the events it comes from.

    Attributes:
        event_count: events that patterns and ranking look at.
        category_share, brand_share: parts of 1 of what they lean towards, the strongest first.
        bought_products, bought_categories, bought_brands: when each was bought last.
        served_bids: times each bid with a frequency cap was shown.
        shown_placements: times a sponsored product was shown in each limited placement.
    """

    seen_at: datetime | None
    event_count: int
    category_share: dict[str, float]
    brand_share: dict[str, float]
    bought_products: dict[str, datetime]
    bought_categories: dict[str, datetime]
    bought_brands: dict[str, datetime]
    dismissed_products: list[str]
    served_bids: dict[str, int]
    shown_placements: dict[str, int]


def describe_state(record: VisitorRecord) -> HeldState:
    """Return what a record holds."""
    return HeldState(
        seen_at=to_moment(record.seen_at_ms) if record.seen_at_ms else None,
        event_count=len(record.events),
        category_share=_shares(record.category_weight, record.category_total),
        brand_share=_shares(record.brand_weight, record.brand_total),
        bought_products=_moments(record.bought_product),
        bought_categories=_moments(record.bought_category),
        bought_brands=_moments(record.bought_brand),
        dismissed_products=list(record.dismissed),
        served_bids={bid_id: len(times) for bid_id, times in record.served_at_ms.items()},
        shown_placements={placement_id: len(shown.at_ms) for placement_id, shown in record.shown.items()},
    )


def describe_line(line: LogLine) -> HeldEvent:
    """Return a line of the navigation log as it is shown to whom it is about."""
    said = {"pseudonym": line.pseudonym.hex(), "action": line.action, "occurred_at": to_moment(line.at_ms)}
    if line.action in FILL_ACTIONS:
        return HeldEvent(
            **said,  # type: ignore[arg-type]
            placement_id=line.category_id or None,
            slot_position=line.quantity,
            bid_id=line.product_id or None,
        )
    return HeldEvent(
        **said,  # type: ignore[arg-type]
        product_id=line.product_id,
        category_id=line.category_id,
        query=line.query,
        quantity=line.quantity,
        price_micros=line.price_micros,
        traffic_source=line.traffic_source,
    )


def describe_events(record: VisitorRecord, lines: Iterable[LogLine]) -> list[HeldEvent]:
    """Return the events of a visitor's own record that are in none of the lines: another process logged them."""
    told = {(line.pseudonym, line.at_ms, line.action, line.product_id) for line in lines}
    return [
        HeldEvent(
            pseudonym=record.pseudonym.hex(),
            action=one.action.value,
            occurred_at=to_moment(one.at_ms),
            product_id=one.product_id,
            category_id=one.category_id,
            query=one.query,
            quantity=one.quantity,
            price_micros=one.price_micros,
            traffic_source=one.traffic_source,
        )
        for one in record.events
        if (record.pseudonym, one.at_ms, one.action.value, one.product_id) not in told
    ]


def to_moment(at_ms: int) -> datetime:
    """Return a time of day in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _shares(weights: dict[str, float], total: float) -> dict[str, float]:
    strongest = sorted(weights.items(), key=lambda one: -one[1])
    return {name: round(weight / total, 6) for name, weight in strongest if total}


def _moments(times: dict[str, int]) -> dict[str, datetime]:
    return {name: to_moment(at_ms) for name, at_ms in times.items()}
