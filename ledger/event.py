"""What is reported to have happened to a fill, and what became of it, as they travel on the wire."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from ledger.terms import Identifier

Moment = Annotated[datetime, Meta(tz=True)]
Result = Literal["accepted", "duplicate", "conflict", "rejected", "unbilled"]


class EventType(StrEnum):
    """What happened."""

    IMPRESSION = "impression"  # began to render
    VIEW = "view"  # half of it on screen for a second
    CLICK = "click"


class Client(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The browser on whose behalf a retailer reports. Looked at once, never written down."""

    user_agent: Annotated[str, Meta(max_length=1024)] | None = None
    ip: Annotated[str, Meta(max_length=64)] | None = None


class ReportedEvent(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """One event of `POST /v1/events`.

    Attributes:
        event_id: the reporter's own name for it, the same when sent again; must not name a person.
        beacon_token: says what is charged, to whom and how much; nothing of that is read from the event.
        occurred_at: when it happened; left out, when it arrived.
        client: only from a retailer's key.
    """

    event_id: Identifier
    type: EventType
    beacon_token: Annotated[str, Meta(max_length=4096)]
    occurred_at: Moment | None = None
    client: Client | None = None


class EventBatch(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/events`. `client` beside `events` is that of every event without one of its own."""

    events: Annotated[list[ReportedEvent], Meta(max_length=500)]
    client: Client | None = None


class EventResult(Struct, frozen=True, gc=False):
    """What became of one event.

    Attributes:
        result: `accepted` (recorded, and charged where the bid pays for it), `duplicate` (of one recorded before, whose
            code and amount it carries), `conflict` (the event id names another event), `rejected` (nothing recorded),
            `unbilled` (recorded, and for the reason in `code` not charged).
        code: why, or None; `partial` where less than the price was left to charge.
        amount_micros: what was charged; None where the caller may not see it.
    """

    event_id: str
    result: Result
    code: str | None = None
    amount_micros: int | None = None


class EventResults(Struct, frozen=True):
    """Answer of `POST /v1/events`, in the order of the events. Every one of them is durable."""

    results: list[EventResult]
