"""Webhooks, what is to be delivered to each, and who delivers.

Every function takes an open connection and the retailer's id; who calls decides what one transaction is.
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

metadata = sa.MetaData()

webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("webhook_id", sa.Text, primary_key=True),
    sa.Column("advertiser_id", sa.Text),  # whose notices; None is everybody's, for the retailer's own
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("event_types", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("secret_generation", sa.Integer, nullable=False),
    sa.Column("previous_until_ms", sa.BigInteger),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
)
deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("delivery_id", sa.Text, primary_key=True),
    sa.Column("webhook_id", sa.Text, nullable=False),
    sa.Column("notice_seq", sa.BigInteger, nullable=False),  # 0 for a test
    sa.Column("notice_id", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempt_count", sa.Integer, nullable=False),
    sa.Column("next_attempt_at_ms", sa.BigInteger, nullable=False),
    sa.Column("last_attempt_at_ms", sa.BigInteger),
    sa.Column("last_status", sa.Integer),
    sa.Column("last_error", sa.Text),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    sa.Index("webhook_deliveries_by_notice", "retailer_id", "webhook_id", "notice_id", unique=True),
    sa.Index("webhook_deliveries_by_status", "retailer_id", "status", "webhook_id", "next_attempt_at_ms"),
)
leases = sa.Table(
    "webhook_leases",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("held_until_ms", sa.BigInteger, nullable=False),
    sa.Column("handed_out_seq", sa.BigInteger, nullable=False),  # up to which notices have their deliveries
)

WebhookStatus = Literal["active", "paused"]
DeliveryStatus = Literal["pending", "delivered", "dead"]


class WebhookRecord(Struct, frozen=True, kw_only=True):
    """A webhook as it is kept; its secret is nowhere, and derived from its id and generation."""

    webhook_id: str
    advertiser_id: str | None
    url: str
    event_types: list[str]
    status: WebhookStatus
    secret_generation: int
    previous_until_ms: int | None
    version: int
    created_at_ms: int
    updated_at_ms: int

    def wants(self, kind: str, advertiser_id: str) -> bool:
        """Say whether a notice is for it."""
        return self.advertiser_id in (None, advertiser_id) and (not self.event_types or kind in self.event_types)


class DeliveryRecord(Struct, frozen=True, kw_only=True):
    """One notice for one webhook, as it is kept."""

    delivery_id: str
    webhook_id: str
    notice_seq: int
    notice_id: str
    type: str
    body: str
    status: DeliveryStatus
    attempt_count: int
    next_attempt_at_ms: int
    last_attempt_at_ms: int | None
    last_status: int | None
    last_error: str | None
    created_at_ms: int


class Tally(Struct, frozen=True):
    """How deliveries stand; `oldest_ms` is when the oldest one that waits was made, None where none does."""

    pending_count: int
    dead_count: int
    oldest_ms: int | None


# --- webhooks


def insert_webhook(connection: Connection, retailer_id: str, record: WebhookRecord) -> None:
    """Keep a new webhook."""
    connection.execute(webhooks.insert().values(retailer_id=retailer_id, **_row(record)))


def update_webhook(connection: Connection, retailer_id: str, record: WebhookRecord) -> None:
    """Keep a webhook's new state."""
    connection.execute(webhooks.update().where(*_is(webhooks, retailer_id, record.webhook_id)).values(**_row(record)))


def delete_webhook(connection: Connection, retailer_id: str, webhook_id: str) -> None:
    """Delete a webhook with everything that was or is to be delivered to it.

    The webhook first: who hands out to it meanwhile holds its row, and has its deliveries deleted afterwards.
    """
    for table in (webhooks, deliveries):
        connection.execute(table.delete().where(*_is(table, retailer_id, webhook_id)))


def get_webhook(
    connection: Connection, retailer_id: str, webhook_id: str, *, to_change: bool = False
) -> WebhookRecord | None:
    """Return a webhook; `to_change`: nobody else changes it until the transaction ends."""
    query = sa.select(*_columns(webhooks, WebhookRecord)).where(*_is(webhooks, retailer_id, webhook_id))
    row = connection.execute(query.with_for_update() if to_change else query).first()
    return None if row is None else _webhook(row)


def list_webhooks(
    connection: Connection,
    retailer_id: str,
    advertiser_ids: Collection[str | None] | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> list[WebhookRecord]:
    """Return webhooks by id, of all or of some advertisers; None among these is the retailer's own."""
    query = sa.select(*_columns(webhooks, WebhookRecord)).where(webhooks.c.retailer_id == retailer_id)
    if advertiser_ids is not None:
        named = [one for one in advertiser_ids if one is not None]
        whose = webhooks.c.advertiser_id.in_(named)
        query = query.where(whose | webhooks.c.advertiser_id.is_(None) if None in advertiser_ids else whose)
    if after is not None:
        query = query.where(webhooks.c.webhook_id > after)
    return [_webhook(row) for row in connection.execute(query.order_by(webhooks.c.webhook_id).limit(limit))]


def hold_webhooks(connection: Connection, retailer_id: str) -> list[WebhookRecord]:
    """Return all webhooks; nobody changes or deletes one until the transaction ends."""
    query = sa.select(*_columns(webhooks, WebhookRecord)).where(webhooks.c.retailer_id == retailer_id)
    return [_webhook(row) for row in connection.execute(query.order_by(webhooks.c.webhook_id).with_for_update())]


# --- deliveries


def insert_deliveries(connection: Connection, retailer_id: str, records: Sequence[DeliveryRecord]) -> None:
    """Add deliveries; one that the webhook has of the same notice stays as it is."""
    if records:
        values = [{"retailer_id": retailer_id, **msgspec.structs.asdict(record)} for record in records]
        connection.execute(_insert(connection, deliveries).on_conflict_do_nothing(), values)


def get_delivery(connection: Connection, retailer_id: str, delivery_id: str) -> DeliveryRecord | None:
    """Return a delivery."""
    query = sa.select(*_columns(deliveries, DeliveryRecord)).where(
        deliveries.c.retailer_id == retailer_id, deliveries.c.delivery_id == delivery_id
    )
    row = connection.execute(query).first()
    return None if row is None else DeliveryRecord(**row._mapping)


def list_deliveries(
    connection: Connection,
    retailer_id: str,
    webhook_id: str,
    status: str | None = None,
    before: str | None = None,
    limit: int | None = None,
) -> list[DeliveryRecord]:
    """Return a webhook's deliveries, the newest first."""
    query = sa.select(*_columns(deliveries, DeliveryRecord)).where(*_is(deliveries, retailer_id, webhook_id))
    if status is not None:
        query = query.where(deliveries.c.status == status)
    if before is not None:
        query = query.where(deliveries.c.delivery_id < before)
    found = connection.execute(query.order_by(deliveries.c.delivery_id.desc()).limit(limit))
    return [DeliveryRecord(**row._mapping) for row in found]


def list_due(connection: Connection, retailer_id: str, now_ms: int) -> list[str]:
    """Return the active webhooks to which something is to be delivered now."""
    query = sa.select(deliveries.c.webhook_id).join(webhooks, _of_webhook()).where(*_due(retailer_id, now_ms))
    return list(connection.execute(query.distinct()).scalars())


def next_due(
    connection: Connection, retailer_id: str, webhook_id: str, now_ms: int
) -> tuple[WebhookRecord, DeliveryRecord] | None:
    """Return a webhook and the first notice of those that are to be delivered to it now, None where there is none."""
    query = sa.select(*_columns(deliveries, DeliveryRecord)).join(webhooks, _of_webhook())
    query = query.where(*_due(retailer_id, now_ms), deliveries.c.webhook_id == webhook_id)
    row = connection.execute(query.order_by(deliveries.c.notice_seq, deliveries.c.delivery_id).limit(1)).first()
    if row is None:
        return None
    whose = sa.select(*_columns(webhooks, WebhookRecord)).where(*_is(webhooks, retailer_id, webhook_id))
    return _webhook(connection.execute(whose).one()), DeliveryRecord(**row._mapping)


def keep_attempt(connection: Connection, retailer_id: str, before: DeliveryRecord, after: DeliveryRecord) -> bool:
    """Keep what became of an attempt; say whether the delivery was still as it was before."""
    done = connection.execute(
        deliveries.update()
        .where(
            deliveries.c.retailer_id == retailer_id,
            deliveries.c.delivery_id == before.delivery_id,
            deliveries.c.status == before.status,
            deliveries.c.attempt_count == before.attempt_count,
        )
        .values(**msgspec.structs.asdict(after))
    )
    return done.rowcount == 1


def forget_deliveries(connection: Connection, retailer_id: str, before_ms: int) -> None:
    """Delete what was delivered, or given up, and is old."""
    connection.execute(
        deliveries.delete().where(
            deliveries.c.retailer_id == retailer_id,
            deliveries.c.status.in_(["delivered", "dead"]),
            deliveries.c.created_at_ms < before_ms,
        )
    )


def tally(connection: Connection, retailer_id: str) -> Tally:
    """Count the deliveries that wait and those that were given up."""
    query = (
        sa.select(deliveries.c.status, sa.func.count(), sa.func.min(deliveries.c.created_at_ms))
        .where(deliveries.c.retailer_id == retailer_id, deliveries.c.status.in_(["pending", "dead"]))
        .group_by(deliveries.c.status)
    )
    found = {row[0]: (int(row[1]), row[2]) for row in connection.execute(query)}
    pending_count, oldest_ms = found.get("pending", (0, None))
    return Tally(pending_count, found.get("dead", (0, None))[0], oldest_ms)


# --- who delivers


def read_lease(connection: Connection, retailer_id: str) -> tuple[str, int, int] | None:
    """Return (holder, held_until_ms, handed_out_seq)."""
    query = sa.select(leases.c.holder, leases.c.held_until_ms, leases.c.handed_out_seq)
    row = connection.execute(query.where(leases.c.retailer_id == retailer_id)).first()
    return None if row is None else (row[0], row[1], row[2])


def take_lease(connection: Connection, retailer_id: str, holder: str, now_ms: int, until_ms: int) -> int | None:
    """Take the lease, or hold it for longer; return up to which notice all are handed out.

    None where somebody else holds it. Until the transaction ends nobody else can take it.
    """
    first = {"retailer_id": retailer_id, "holder": holder, "held_until_ms": until_ms, "handed_out_seq": 0}
    connection.execute(_insert(connection, leases).values(**first).on_conflict_do_nothing())
    taken = connection.execute(
        leases.update()
        .where(leases.c.retailer_id == retailer_id, (leases.c.holder == holder) | (leases.c.held_until_ms <= now_ms))
        .values(holder=holder, held_until_ms=until_ms)
        .returning(leases.c.handed_out_seq)
    ).first()
    return None if taken is None else int(taken[0])


def release_lease(connection: Connection, retailer_id: str, holder: str) -> None:
    """Let somebody else take the lease at once."""
    connection.execute(
        leases.update().where(leases.c.retailer_id == retailer_id, leases.c.holder == holder).values(held_until_ms=0)
    )


def set_handed_out(connection: Connection, retailer_id: str, seq: int) -> None:
    """Keep up to which notice all are handed out; the caller holds the lease."""
    connection.execute(leases.update().where(leases.c.retailer_id == retailer_id).values(handed_out_seq=seq))


def _is(table: sa.Table, retailer_id: str, webhook_id: str) -> Sequence[sa.ColumnElement[bool]]:
    return table.c.retailer_id == retailer_id, table.c.webhook_id == webhook_id


def _of_webhook() -> sa.ColumnElement[bool]:
    return (webhooks.c.retailer_id == deliveries.c.retailer_id) & (webhooks.c.webhook_id == deliveries.c.webhook_id)


def _due(retailer_id: str, now_ms: int) -> Sequence[sa.ColumnElement[bool]]:
    return (
        deliveries.c.retailer_id == retailer_id,
        deliveries.c.status == "pending",
        deliveries.c.next_attempt_at_ms <= now_ms,
        webhooks.c.status == "active",
    )


def _columns(table: sa.Table, kind: type[Struct]) -> list[sa.Column[Any]]:
    return [table.c[name] for name in kind.__struct_fields__]


def _row(record: WebhookRecord) -> dict[str, Any]:
    return {**msgspec.structs.asdict(record), "event_types": msgspec.json.encode(record.event_types).decode()}


def _webhook(row: sa.Row[Any]) -> WebhookRecord:
    values = dict(row._mapping)
    values["event_types"] = msgspec.json.decode(values["event_types"], type=list[str])
    return WebhookRecord(**values)


def _insert(connection: Connection, table: sa.Table) -> Any:
    """Return the dialect's own INSERT, which knows ON CONFLICT."""
    return postgres_insert(table) if connection.dialect.name == "postgresql" else sqlite_insert(table)
