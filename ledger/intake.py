"""From a reported event to something that can be billed: the token opened, its life and its traffic checked.

Reads no table and writes nothing; whether it was reported before is for `writer.py` to find out.
"""

from msgspec import Struct

from ledger.beacon import BeaconKeys
from ledger.calendar import Calendar
from ledger.errors import BeaconRefused
from ledger.event import EventResult, EventType, ReportedEvent
from ledger.settings import Settings
from ledger.terms import ChargeTerms
from ledger.traffic import DATA_CENTRE, ROBOT, declares_robot, is_in_ranges

_CLICK = EventType.CLICK


class Received(Struct, frozen=True, gc=False):
    """An event with an authentic token.

    Attributes:
        reported_at_ms: when it happened in the reporter's words, or None.
        occurred_at_ms: the same, brought between the fill and now, so that no clock can move a charge further.
        day: whose daily budget it counts against, YYYY-MM-DD.
        invalid: why it is not charged whatever the token says, or None.
        is_late: True when the promise no longer holds for this type of event.
        client_key: tells browsers apart while the process runs, where address and user agent are known; else None.
    """

    event_id: str
    type: EventType
    token_id: str
    terms: ChargeTerms
    reported_at_ms: int | None
    occurred_at_ms: int
    day: str
    invalid: str | None
    is_late: bool
    client_key: int | None = None


def receive(
    event: ReportedEvent, keys: BeaconKeys, calendar: Calendar, settings: Settings, now_ms: int
) -> Received | EventResult:
    """Return what was reported, or a `rejected` result for a token that is not ours or too old to open."""
    try:
        beacon = keys.redeem_beacon(event.beacon_token, now_ms)
    except BeaconRefused as refusal:
        return EventResult(event.event_id, "rejected", refusal.code)
    terms = beacon.terms
    issued_at_ms = terms.issued_at_ms
    reported_at_ms = None if event.occurred_at is None else round(event.occurred_at.timestamp() * 1000)
    occurred_at_ms = now_ms if reported_at_ms is None else min(max(reported_at_ms, issued_at_ms), now_ms)
    life_ms = settings.click_life_ms if event.type is _CLICK else settings.impression_life_ms
    return Received(
        event.event_id,
        event.type,
        beacon.token_id,
        terms,
        reported_at_ms,
        occurred_at_ms,
        calendar.day(occurred_at_ms),
        _invalid(event, settings),
        now_ms > issued_at_ms + life_ms,
        _client_key(event, settings),
    )


def _invalid(event: ReportedEvent, settings: Settings) -> str | None:
    client = event.client
    if client is None or settings.invalid_traffic == "off":
        return None
    if client.user_agent is not None and declares_robot(client.user_agent):
        return ROBOT
    ranges = settings.data_centre_ranges
    return DATA_CENTRE if ranges and client.ip is not None and is_in_ranges(client.ip, ranges) else None


def _client_key(event: ReportedEvent, settings: Settings) -> int | None:
    """Return Python's own hash, whose secret ends with the process, so that what is remembered names nobody."""
    client = event.client
    if client is None or client.ip is None or settings.invalid_traffic != "on":
        return None
    return hash((client.ip, client.user_agent))
