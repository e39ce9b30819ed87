"""The change log as an auditor reads it."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from bidder_api.call import Answer, Call
from bidder_api.errors import Refused
from bidder_api.resources import moment, page_of, read_page
from bidder_api.store import ChangeRecord, list_changes


class LoggedChange(Struct, frozen=True, kw_only=True):
    """One change: who made it, of what, and what was there before and after."""

    seq: int
    recorded_at: datetime
    key_id: str
    role: str
    action: str
    kind: str
    resource_id: str
    before: msgspec.Raw
    after: msgspec.Raw


class ShownChange(Struct, frozen=True, kw_only=True):
    """A change as the OpenAPI document describes it."""

    seq: int
    recorded_at: datetime
    key_id: str
    role: str
    action: str
    kind: str
    resource_id: str
    before: Any
    after: Any


ChangePage = page_of("Change", ShownChange)


def list_all(connection: Connection, call: Call) -> Answer:
    """Return a page of the change log, oldest first."""

    def read(after: str | None, limit: int) -> list[ChangeRecord]:
        if after is not None and not after.isdecimal():
            raise Refused("page_token_invalid", "page_token must be a next_page_token of this list")
        return list_changes(connection, call.retailer_id, int(after or 0), limit)

    page = read_page(call.query, read, lambda record: str(record.seq))
    return Answer(body=page | {"items": [show(record) for record in page["items"]]})


def show(record: ChangeRecord) -> LoggedChange:
    """Return a line of the log with what it kept as JSON put in as it is."""
    return LoggedChange(
        seq=record.seq,
        recorded_at=moment(record.recorded_at_ms),
        key_id=record.key_id,
        role=record.role,
        action=record.action,
        kind=record.kind,
        resource_id=record.resource_id,
        before=msgspec.Raw((record.before or "null").encode()),
        after=msgspec.Raw((record.after or "null").encode()),
    )
