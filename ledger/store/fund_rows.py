"""What advertisers have, owe and may spend; money that came in, and what was undone."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ledger.store.statements import expect, insert_into, upsert
from ledger.store.tables import LEGS_MAX, balances, campaign_limits, campaign_spend, entries, fundings, funds, reversals


def read_transaction_entries(connection: Connection, retailer_id: str, transaction_id: str) -> list[Any]:
    """Return the entries of one transaction in their order; its id says where they begin."""
    number = transaction_id.removeprefix("txn_")
    if number == transaction_id or not number.isascii() or not number.isdecimal() or len(number) > 18:
        return []
    found = connection.execute(
        sa.select(entries)
        .where(
            entries.c.retailer_id == retailer_id,
            entries.c.seq >= int(number),
            entries.c.seq < int(number) + LEGS_MAX,
            entries.c.transaction_id == transaction_id,
        )
        .order_by(entries.c.seq)
    )
    return list(found)


def read_reversal(connection: Connection, retailer_id: str, transaction_id: str) -> str | None:
    """Return the id of the transaction that reversed this one."""
    found = connection.execute(
        sa.select(reversals.c.transaction_id).where(
            reversals.c.retailer_id == retailer_id, reversals.c.reverses == transaction_id
        )
    )
    return found.scalar()


def insert_reversal(
    connection: Connection, retailer_id: str, reverses: str, transaction_id: str, reason: str, recorded_at_ms: int
) -> None:
    """Note that a transaction is reversed; the key lets it happen once."""
    connection.execute(
        reversals.insert().values(
            retailer_id=retailer_id,
            reverses=reverses,
            transaction_id=transaction_id,
            reason=reason,
            recorded_at_ms=recorded_at_ms,
        )
    )


def read_funding(connection: Connection, retailer_id: str, kind: str, reference: str) -> Any | None:
    """Return the top-up or promotional credit booked under a reference."""
    return connection.execute(
        sa.select(fundings).where(
            fundings.c.retailer_id == retailer_id, fundings.c.kind == kind, fundings.c.reference == reference
        )
    ).first()


def list_fundings(
    connection: Connection, retailer_id: str, kind: str, advertiser_id: str | None, after: str | None, limit: int
) -> list[Any]:
    """Return top-ups or promotional credits by reference."""
    query = sa.select(fundings).where(fundings.c.retailer_id == retailer_id, fundings.c.kind == kind)
    if advertiser_id is not None:
        query = query.where(fundings.c.advertiser_id == advertiser_id)
    if after is not None:
        query = query.where(fundings.c.reference > after)
    return list(connection.execute(query.order_by(fundings.c.reference).limit(limit)))


def insert_funding(connection: Connection, values: Mapping[str, Any]) -> None:
    """Book a reference."""
    connection.execute(fundings.insert().values(**values))


def ensure_funds(connection: Connection, retailer_id: str, advertiser_id: str) -> None:
    """Give an advertiser a purse, empty unless there is one."""
    values = {"promo_micros": 0, "wallet_micros": 0, "credit_line_micros": 0, "owed_micros": 0}
    connection.execute(
        insert_into(connection, funds)
        .values(retailer_id=retailer_id, advertiser_id=advertiser_id, **values)
        .on_conflict_do_nothing()
    )


def set_credit_line(connection: Connection, retailer_id: str, advertiser_id: str, amount_micros: int) -> None:
    """Set the most an advertiser may owe. It may already owe more: then nothing is charged on credit."""
    connection.execute(
        funds.update()
        .where(funds.c.retailer_id == retailer_id, funds.c.advertiser_id == advertiser_id)
        .values(credit_line_micros=amount_micros)
    )


def read_posted(connection: Connection, retailer_id: str, account: str) -> int:
    """Return what was posted to an account, debit +."""
    query = sa.select(sa.func.coalesce(sa.func.sum(balances.c.debit_micros - balances.c.credit_micros), 0)).where(
        balances.c.retailer_id == retailer_id, balances.c.account == account
    )
    return int(connection.execute(query).scalar_one())


def move_owed(connection: Connection, retailer_id: str, advertiser_id: str, micros: int) -> None:
    """Add to what an advertiser owes, whatever its credit line is: an invoice or a bounced payment is owed anyhow."""
    done = connection.execute(
        funds.update()
        .where(funds.c.retailer_id == retailer_id, funds.c.advertiser_id == advertiser_id)
        .values(owed_micros=funds.c.owed_micros + micros)
    )
    expect(done.rowcount, 1, "funds")


def list_spend(connection: Connection, retailer_id: str, from_day: str) -> list[tuple[str, str, int]]:
    """Return (campaign_id, day, spent_micros) from a day on, and every campaign's total under the empty day."""
    found = connection.execute(
        sa.select(campaign_spend.c.campaign_id, campaign_spend.c.day, campaign_spend.c.spent_micros).where(
            campaign_spend.c.retailer_id == retailer_id,
            (campaign_spend.c.day == "") | (campaign_spend.c.day >= from_day),
        )
    )
    return [(row[0], row[1], row[2]) for row in found]


def list_funds(
    connection: Connection, retailer_id: str, advertiser_id: str | None, after: str | None, limit: int | None
) -> list[tuple[str, int, int, int, int]]:
    """Return (advertiser_id, promo, wallet, credit line, owed), by advertiser."""
    query = sa.select(
        funds.c.advertiser_id,
        funds.c.promo_micros,
        funds.c.wallet_micros,
        funds.c.credit_line_micros,
        funds.c.owed_micros,
    ).where(funds.c.retailer_id == retailer_id)
    if advertiser_id is not None:
        query = query.where(funds.c.advertiser_id == advertiser_id)
    if after is not None:
        query = query.where(funds.c.advertiser_id > after)
    found = connection.execute(query.order_by(funds.c.advertiser_id).limit(limit))
    return [(row[0], row[1], row[2], row[3], row[4]) for row in found]


def list_balances(connection: Connection, retailer_id: str) -> list[Any]:
    """Return (account, period, currency, debit_micros, credit_micros) by account and period."""
    return list(
        connection.execute(
            sa.select(
                balances.c.account,
                balances.c.period,
                balances.c.currency,
                balances.c.debit_micros,
                balances.c.credit_micros,
            )
            .where(balances.c.retailer_id == retailer_id)
            .order_by(balances.c.account, balances.c.period, balances.c.currency)
        )
    )


def list_all_spend(connection: Connection, retailer_id: str) -> list[tuple[str, str, int]]:
    """Return every (campaign_id, day, spent_micros)."""
    return list_spend(connection, retailer_id, "")


def set_campaign_limits(
    connection: Connection,
    retailer_id: str,
    campaign_id: str,
    advertiser_id: str,
    daily_micros: int | None,
    total_micros: int | None,
) -> None:
    """Set what a campaign may be charged per day and in all; None is no limit. What is spent stays spent."""
    upsert(
        connection,
        campaign_limits,
        {"retailer_id": retailer_id, "campaign_id": campaign_id},
        {"advertiser_id": advertiser_id, "daily_micros": daily_micros, "total_micros": total_micros},
    )
