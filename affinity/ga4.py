"""Google Analytics 4's names for what visitors do, turned into our own events.

Events may come as GA4's Measurement Protocol sends them, as its BigQuery export writes them, or under our names with
GA4's `items`. An event of several items becomes one of ours for each, under event ids that are the same whenever the
same event is sent again. GA4 tells of much that is not shopping: those events are left out, and counted.

Source: Google, Measurement Protocol (GA4) reference; GA4 ecommerce events; GA4 BigQuery Export schema.
"""

import re
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from affinity.catalog import CATEGORY_SEPARATOR, CategoryId, PriceMicros, ProductId
from affinity.errors import EventRefused
from affinity.navigation import (
    EVENT_COUNT_MAX,
    Action,
    Consent,
    ConsentSignal,
    EventId,
    Moment,
    NavigationBatch,
    NavigationEvent,
    QueryText,
    VisitorId,
)

ITEM_COUNT_MAX = 200  # of one event, as GA4 allows
EXPANDED_COUNT_MAX = 5_000  # events a batch may become
PRICE_MAX = 10**6
MICROS = 1_000_000
TIMESTAMP_MICROS_MAX = 32_503_680_000_000_000  # the year 3000
NOT_SET = ("", "(not set)", None)  # how the export writes that nothing was said

_ACTIONS = {action.value: action for action in Action} | {"view_search_results": Action.SEARCH}
_MARKS = re.compile(
    rb'"(?:items|event_name|name|params|event_params|event_timestamp|timestamp_micros|user_pseudo_id|client_id|user_id'
    rb'|item_id|search_term|ad_personalization)"\s*:'
)

Text = Annotated[str, Meta(max_length=512)]
TimestampMicros = Annotated[int, Meta(ge=0, le=TIMESTAMP_MICROS_MAX)]
Quantity = Annotated[int, Meta(ge=0, le=10**6)]


class Ga4Item(Struct, frozen=True, kw_only=True):
    """One of an event's `items`; what is not said here is not looked at."""

    item_id: ProductId | None = None
    item_category: Text | None = None
    item_category2: Text | None = None
    item_category3: Text | None = None
    item_category4: Text | None = None
    item_category5: Text | None = None
    price: Decimal | None = None
    quantity: Quantity | None = None

    @property
    def category_id(self) -> str | None:
        """Return the item's categories as one path."""
        levels = (
            self.item_category,
            self.item_category2,
            self.item_category3,
            self.item_category4,
            self.item_category5,
        )
        return CATEGORY_SEPARATOR.join(one for one in levels if one is not None and one not in NOT_SET)[:256] or None


Items = Annotated[list[Ga4Item], Meta(max_length=ITEM_COUNT_MAX)]


class Ga4Params(Struct, frozen=True, kw_only=True):
    """An event's `params`, as the Measurement Protocol sends them."""

    items: Items | None = None
    currency: Text | None = None
    search_term: QueryText | None = None
    transaction_id: Text | None = None


class Ga4Value(Struct, frozen=True, kw_only=True):
    """The value of one of the export's `event_params`."""

    string_value: str | None = None


class Ga4Param(Struct, frozen=True, kw_only=True):
    """One of the export's `event_params`."""

    key: str
    value: Ga4Value | None = None


class Ga4Ecommerce(Struct, frozen=True, kw_only=True):
    """The export's `ecommerce`."""

    transaction_id: Text | None = None


class Ga4Event(Struct, frozen=True, kw_only=True):
    """One event under GA4's names, ours, or both; fields GA4 has besides are not looked at."""

    action: Action | None = None
    event_name: Text | None = None
    name: Text | None = None
    visitor_id: VisitorId | None = None
    user_pseudo_id: VisitorId | None = None
    client_id: VisitorId | None = None
    user_id: VisitorId | None = None
    occurred_at: Moment | None = None
    event_timestamp: TimestampMicros | None = None
    timestamp_micros: TimestampMicros | None = None
    event_id: EventId | None = None
    product_id: ProductId | None = None
    item_id: ProductId | None = None
    category_id: CategoryId | None = None
    query: QueryText | None = None
    search_term: QueryText | None = None
    quantity: Quantity | None = None
    price_micros: PriceMicros | None = None
    currency: Text | None = None
    transaction_id: Text | None = None
    items: Items | None = None
    params: Ga4Params | None = None
    event_params: list[Ga4Param] | None = None
    ecommerce: Ga4Ecommerce | None = None
    traffic_source: str | dict[str, Any] | None = None


class Ga4Consent(Struct, frozen=True, kw_only=True):
    """Consent as the Measurement Protocol sends it, or as an object of ours."""

    ad_personalization: Literal["GRANTED", "DENIED"] | None = None
    personalised: bool | None = None

    def signal(self) -> ConsentSignal | None:
        """Return it as ours; None where it says nothing of personalisation."""
        if self.personalised is not None:
            return Consent(self.personalised)
        return None if self.ad_personalization is None else Consent(self.ad_personalization == "GRANTED")


class Ga4Batch(Struct, frozen=True, kw_only=True):
    """A body under GA4's names: who and when may be said once for all events."""

    events: Annotated[list[Ga4Event], Meta(max_length=EVENT_COUNT_MAX)]
    client_id: VisitorId | None = None
    user_id: VisitorId | None = None
    timestamp_micros: TimestampMicros | None = None
    consent: Ga4Consent | str | None = None


class ReadBatch(Struct, frozen=True):
    """A batch of ours, and where it came from.

    Attributes:
        places: of each event, its place among those that were sent.
        ignored_count: events left out, as they tell of nothing we keep.
    """

    batch: NavigationBatch
    places: list[int] | range
    ignored_count: int = 0


_decode_own_batch = msgspec.json.Decoder(NavigationBatch).decode
_decode_own_event = msgspec.json.Decoder(NavigationEvent).decode
_decode_batch = msgspec.json.Decoder(Ga4Batch, strict=False).decode  # the export writes whole numbers as text
_decode_event = msgspec.json.Decoder(Ga4Event, strict=False).decode


def read_batch(raw: bytes, currency: str | None = None) -> ReadBatch:
    """Return the batch in a body of `POST /v1/navigation`, under whichever names.

    Args:
        raw: the body.
        currency: of the deployment: prices in another are not known.

    Raises:
        msgspec.MsgspecError: it is no batch.
        EventRefused: an event under GA4's names does not say what it must, or they become too many.
    """
    try:
        own = _decode_own_batch(raw)
        return ReadBatch(own, range(len(own.events)))
    except msgspec.ValidationError:
        if not _MARKS.search(raw):
            raise
    given = _decode_batch(raw)
    events: list[NavigationEvent] = []
    places: list[int] = []
    ignored_count = 0
    for place, event in enumerate(given.events):
        expanded = _expand(event, given, currency, f"/events/{place}")
        if expanded is None:
            ignored_count += 1
            continue
        events += expanded
        places += [place] * len(expanded)
        if len(events) > EXPANDED_COUNT_MAX:
            raise EventRefused(
                f"a batch may have {EXPANDED_COUNT_MAX} items in all, had more",
                f"/events/{place}",
                code="too_many_items",
            )
    consent = given.consent.signal() if isinstance(given.consent, Ga4Consent) else given.consent
    return ReadBatch(NavigationBatch(events, consent), places, ignored_count)


def read_event(raw: bytes, currency: str | None = None) -> list[NavigationEvent] | None:
    """Return the events of one line of a file; None where it tells of nothing we keep.

    Raises:
        msgspec.MsgspecError, EventRefused: as `read_batch`.
    """
    try:
        return [_decode_own_event(raw)]
    except msgspec.ValidationError:
        if not _MARKS.search(raw):
            raise
    return _expand(_decode_event(raw), Ga4Batch(events=[]), currency, "")


def _expand(event: Ga4Event, batch: Ga4Batch, currency: str | None, pointer: str) -> list[NavigationEvent] | None:
    name = event.action or event.event_name or event.name
    if name is None:
        raise EventRefused("an event must say its action or event_name", f"{pointer}/event_name")
    action = _ACTIONS.get(name)
    if action is None:
        return None
    params = event.params or Ga4Params()
    told = {one.key: one.value.string_value for one in event.event_params or () if one.value is not None}
    ecommerce = event.ecommerce or Ga4Ecommerce()
    transaction_id = event.transaction_id or params.transaction_id or ecommerce.transaction_id
    transaction_id = transaction_id or told.get("transaction_id")
    prices_are_ours = (event.currency or params.currency or told.get("currency") or currency) == currency
    base = NavigationEvent(
        visitor_id=_visitor_of(event, batch, pointer),
        action=action,
        occurred_at=_moment_of(event, batch, pointer),
        event_id=event.event_id or _name_event(event, batch, name),
        product_id=event.product_id or event.item_id,
        category_id=event.category_id,
        query=event.query or event.search_term or params.search_term or (told.get("search_term") or "")[:512] or None,
        quantity=event.quantity,
        price_micros=event.price_micros,
        traffic_source=_traffic_source_of(event),
    )
    items = event.items or params.items
    if not items:
        return [base]
    events = []
    seen: Counter[str | None] = Counter()
    for place, item in enumerate(items):
        product_id = None if item.item_id in NOT_SET else item.item_id
        event_id = None if base.event_id is None else f"{base.event_id}#{place}"
        if action is Action.PURCHASE and transaction_id not in NOT_SET and product_id is not None:
            seen[product_id] += 1
            event_id = name_purchase(str(transaction_id), product_id, seen[product_id])
        events.append(
            msgspec.structs.replace(
                base,
                event_id=event_id,
                product_id=product_id,
                category_id=base.category_id or (None if product_id is not None else item.category_id),
                quantity=1 if item.quantity is None else item.quantity,
                price_micros=_micros(item.price, pointer) if prices_are_ours else None,
            )
        )
    return events


def name_purchase(order_id: str, product_id: str, occurrence: int) -> str:
    """Return the event id of a product of an order: the same from whoever reports it.

    Args:
        order_id: GA4's transaction.
        product_id: what was bought.
        occurrence: from 1, for one that is in the order several times.
    """
    return f"purchase\0{order_id}\0{product_id}\0{occurrence}"


def _name_event(event: Ga4Event, batch: Ga4Batch, name: str) -> str | None:
    """Return an event id for an event without one, as GA4's are: to the microsecond no two are the same."""
    micros = event.event_timestamp or event.timestamp_micros or batch.timestamp_micros
    if micros is None:
        return None
    items = event.items or (event.params.items if event.params is not None else None) or ()
    return "\0".join(["ga4", name, str(micros), event.product_id or "", *(item.item_id or "" for item in items)])


def _visitor_of(event: Ga4Event, batch: Ga4Batch, pointer: str) -> str:
    named = (
        event.visitor_id or event.user_pseudo_id or event.client_id or batch.client_id or event.user_id or batch.user_id
    )
    if named is None:
        raise EventRefused("an event must say its visitor_id, user_pseudo_id or client_id", f"{pointer}/visitor_id")
    return named


def _moment_of(event: Ga4Event, batch: Ga4Batch, pointer: str) -> datetime:
    if event.occurred_at is not None:
        return event.occurred_at
    micros = event.event_timestamp or event.timestamp_micros or batch.timestamp_micros
    if micros is None:
        raise EventRefused(
            "an event must say its occurred_at, event_timestamp or timestamp_micros", f"{pointer}/occurred_at"
        )
    return datetime.fromtimestamp(micros / MICROS, UTC)


def _traffic_source_of(event: Ga4Event) -> str | None:
    source = event.traffic_source
    if isinstance(source, dict):
        source = source.get("source")
    return source[:128] if isinstance(source, str) and source not in NOT_SET else None


def _micros(price: Decimal | None, pointer: str) -> int | None:
    if price is None:
        return None
    if not price.is_finite() or not 0 <= price <= PRICE_MAX:
        raise EventRefused(f"price must be 0 to {PRICE_MAX}, was {str(price)[:40]}", f"{pointer}/items")
    return int((price * MICROS).to_integral_value())
