"""Months, and the invoices and credit notes of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import BigInteger
from sqlalchemy.engine import Connection

from ledger.store.statements import is_reversed, read_columns, upsert
from ledger.store.tables import Closing, DocumentRow, balances, billing_profiles, closings, documents, entries, events


def list_closings(connection: Connection, retailer_id: str) -> list[Closing]:
    """Return every closing of a month, in the order they happened."""
    return [Closing(*row) for row in read_columns(connection, closings, Closing, retailer_id)]


def insert_closing(connection: Connection, retailer_id: str, row: tuple[Any, ...]) -> None:
    """Keep a closing, its columns in the order of `Closing`."""
    values = dict(zip(Closing.__struct_fields__, row, strict=True))
    connection.execute(closings.insert().values(retailer_id=retailer_id, **values))


def closing_leaves(connection: Connection, retailer_id: str) -> Iterator[bytes]:
    """Yield the closings' rows as the chain has them."""
    for row in read_columns(connection, closings, Closing, retailer_id):
        yield msgspec.json.encode(tuple(row))


def list_sealed(connection: Connection, retailer_id: str) -> list[tuple[str, str]]:
    """Return (period, digest) of every sealed month."""
    query = sa.select(closings.c.period, closings.c.digest).where(
        closings.c.retailer_id == retailer_id, closings.c.stage == "sealed"
    )
    return [(row[0], row[1]) for row in connection.execute(query.order_by(closings.c.period))]


def last_sealed(connection: Connection, retailer_id: str) -> str:
    """Return the last sealed month, empty for none."""
    query = sa.select(sa.func.max(closings.c.period)).where(
        closings.c.retailer_id == retailer_id, closings.c.stage == "sealed"
    )
    return connection.execute(query).scalar() or ""


def list_periods(connection: Connection, retailer_id: str) -> list[str]:
    """Return every month something was posted in."""
    query = sa.select(balances.c.period).where(balances.c.retailer_id == retailer_id).distinct()
    return sorted(connection.execute(query).scalars())


def list_agreed(connection: Connection, retailer_id: str, account: str, period: str) -> list[tuple[str, int]]:
    """Return (reason, micros) of what was agreed, booked in a month on an account, and not reversed."""
    query = sa.select(entries.c.reason, entries.c.amount_micros).where(
        entries.c.retailer_id == retailer_id,
        entries.c.period == period,
        entries.c.account == account,
        entries.c.reason.like("booking:%"),
        entries.c.reverses.is_(None),
        ~is_reversed(entries.c.transaction_id, retailer_id),
    )
    return [(row[0], int(row[1])) for row in connection.execute(query.order_by(entries.c.seq))]


def list_consumed(
    connection: Connection, retailer_id: str, advertiser_id: str, period: str
) -> list[tuple[str, str, int, int]]:
    """Return (campaign_id, type, count, micros) of an advertiser's charges booked in a month and not reversed."""
    first_seq = sa.cast(sa.func.substr(events.c.transaction_id, 5), BigInteger)  # an id names its first entry
    query = (
        sa.select(events.c.campaign_id, events.c.type, sa.func.count(), sa.func.sum(events.c.amount_micros))
        .join(entries, (entries.c.retailer_id == events.c.retailer_id) & (entries.c.seq == first_seq))
        .where(
            events.c.retailer_id == retailer_id,
            events.c.advertiser_id == advertiser_id,
            events.c.transaction_id.is_not(None),
            entries.c.period == period,
            ~is_reversed(events.c.transaction_id, retailer_id),
        )
        .group_by(events.c.campaign_id, events.c.type)
        .order_by(events.c.campaign_id, events.c.type)
    )
    return [(row[0], row[1], int(row[2]), int(row[3])) for row in connection.execute(query)]


def sum_charges(connection: Connection, retailer_id: str, accounts: Sequence[str], period: str) -> dict[str, int]:
    """Return what charges booked in a month and not reversed were charged to each of some accounts."""
    query = (
        sa.select(entries.c.account, sa.func.sum(entries.c.amount_micros))
        .where(
            entries.c.retailer_id == retailer_id,
            entries.c.period == period,
            entries.c.account.in_(accounts),
            sa.or_(*(entries.c.reason.like(kind) for kind in ("charge:%", "booking:%", "commission:%"))),
            entries.c.reverses.is_(None),
            ~is_reversed(entries.c.transaction_id, retailer_id),
        )
        .group_by(entries.c.account)
    )
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def find_invoice(connection: Connection, retailer_id: str, advertiser_id: str, period: str) -> str | None:
    """Return the number of the invoice on an advertiser's month."""
    query = sa.select(documents.c.number).where(
        documents.c.retailer_id == retailer_id,
        documents.c.advertiser_id == advertiser_id,
        documents.c.period == period,
        documents.c.kind == "invoice",
    )
    return connection.execute(query).scalar()


def find_return_note(connection: Connection, retailer_id: str, advertiser_id: str, period: str) -> str | None:
    """Return the number of the credit note on what went back of commission in an advertiser's month."""
    query = sa.select(documents.c.number).where(
        documents.c.retailer_id == retailer_id,
        documents.c.advertiser_id == advertiser_id,
        documents.c.period == period,
        documents.c.kind == "credit-note",
        documents.c.invoice_number.is_(None),
    )
    return connection.execute(query).scalar()


def count_documents(connection: Connection, retailer_id: str, prefix: str) -> int:
    """Count the documents whose number begins so."""
    query = sa.select(sa.func.count()).where(
        documents.c.retailer_id == retailer_id, documents.c.number.startswith(prefix, autoescape=True)
    )
    return int(connection.execute(query).scalar_one())


def sum_credited(connection: Connection, retailer_id: str, invoice_number: str) -> tuple[int, int]:
    """Return net and VAT that credit notes gave back of an invoice, in micros."""
    query = sa.select(
        sa.func.coalesce(sa.func.sum(documents.c.net_micros), 0),
        sa.func.coalesce(sa.func.sum(documents.c.vat_micros), 0),
    ).where(documents.c.retailer_id == retailer_id, documents.c.invoice_number == invoice_number)
    row = connection.execute(query).one()
    return int(row[0]), int(row[1])


def insert_document(connection: Connection, retailer_id: str, row: DocumentRow) -> None:
    """Keep a document."""
    connection.execute(documents.insert().values(retailer_id=retailer_id, **msgspec.structs.asdict(row)))


def read_document(connection: Connection, retailer_id: str, number: str) -> DocumentRow | None:
    """Return a document."""
    found = list(read_columns(connection, documents, DocumentRow, retailer_id, documents.c.number == number))
    return DocumentRow(*found[0]) if found else None


def list_documents(
    connection: Connection, retailer_id: str, kind: str, advertiser_id: str | None, after: str | None, limit: int
) -> list[DocumentRow]:
    """Return documents of a kind by number."""
    query = sa.select(*(documents.c[name] for name in DocumentRow.__struct_fields__)).where(
        documents.c.retailer_id == retailer_id, documents.c.kind == kind
    )
    if advertiser_id is not None:
        query = query.where(documents.c.advertiser_id == advertiser_id)
    if after is not None:
        query = query.where(documents.c.number > after)
    return [DocumentRow(*row) for row in connection.execute(query.order_by(documents.c.number).limit(limit))]


def document_leaves(connection: Connection, retailer_id: str) -> Iterator[bytes]:
    """Yield the documents' rows as the chain has them."""
    for row in read_columns(connection, documents, DocumentRow, retailer_id):
        yield msgspec.json.encode(tuple(row))


def set_billing_profile(connection: Connection, retailer_id: str, advertiser_id: str, body: str, now_ms: int) -> None:
    """Set who sells, under the empty id, or to whom an advertiser's invoices go."""
    key = {"retailer_id": retailer_id, "advertiser_id": advertiser_id}
    upsert(connection, billing_profiles, key, {"body": body, "updated_at_ms": now_ms})


def read_billing_profile(connection: Connection, retailer_id: str, advertiser_id: str) -> str | None:
    """Return a profile's body."""
    query = sa.select(billing_profiles.c.body).where(
        billing_profiles.c.retailer_id == retailer_id, billing_profiles.c.advertiser_id == advertiser_id
    )
    return connection.execute(query).scalar()
