"""The hash chain: its head, which everybody who appends locks first, so that there is one order of everything."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ledger.store.statements import fetch, insert_into, read_bit_by_bit, sql_of
from ledger.store.tables import CHAIN_COLUMNS, chain, chain_heads


def lock_chain_head(connection: Connection, retailer_id: str) -> tuple[int, str, str] | None:
    """Return batch, hash and last sequence numbers (JSON) and hold the row until the transaction ends."""
    row = connection.exec_driver_sql(sql_of(connection).lock_head, (retailer_id,)).first()
    return None if row is None else (row[0], row[1], row[2])


def insert_chain_head(connection: Connection, retailer_id: str, hash_hex: str) -> None:
    """Begin a chain, unless somebody else just did."""
    values = {"retailer_id": retailer_id, "batch": 0, "hash_hex": hash_hex, "last_seqs": "{}"}
    connection.execute(insert_into(connection, chain_heads).values(**values).on_conflict_do_nothing())


def update_chain_head(connection: Connection, retailer_id: str, batch: int, hash_hex: str, last_seqs: str) -> None:
    """Write where the chain ends."""
    connection.exec_driver_sql(sql_of(connection).update_head, (batch, hash_hex, last_seqs, retailer_id))


def insert_chain_batch(connection: Connection, retailer_id: str, columns: tuple[Any, ...]) -> None:
    """Add one link, its columns in the order of CHAIN_COLUMNS."""
    connection.exec_driver_sql(sql_of(connection).insert_chain, (retailer_id, *columns))


def read_chain_head(connection: Connection, retailer_id: str) -> tuple[int, str, str] | None:
    """Return batch, hash and last sequence numbers (JSON) as they are."""
    row = connection.execute(
        sa.select(chain_heads.c.batch, chain_heads.c.hash_hex, chain_heads.c.last_seqs).where(
            chain_heads.c.retailer_id == retailer_id
        )
    ).first()
    return None if row is None else (row[0], row[1], row[2])


def read_chain_after(connection: Connection, retailer_id: str, batch: int, limit: int) -> list[tuple[Any, ...]]:
    """Return links after a batch, as CHAIN_COLUMNS."""
    return fetch(connection, sql_of(connection).chain_after, (retailer_id, batch, limit))


def read_batch_hashes(connection: Connection, retailer_id: str, last_batch: int) -> Iterator[str]:
    """Yield the hashes of batches 1 to `last_batch`, hexadecimal, in their order."""
    query = sa.select(chain.c.hash_hex).where(chain.c.retailer_id == retailer_id, chain.c.batch <= last_batch)
    yield from (row[0] for row in read_bit_by_bit(connection, query.order_by(chain.c.batch)))


def read_batch_of(connection: Connection, retailer_id: str, kind: str, seq: int) -> tuple[Any, ...] | None:
    """Return the batch, as CHAIN_COLUMNS, that a row of a kind is in."""
    query = (
        sa.select(*(chain.c[name] for name in CHAIN_COLUMNS))
        .where(chain.c.retailer_id == retailer_id, chain.c.kind == kind, chain.c.first_seq <= seq)
        .order_by(chain.c.first_seq.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None or row.last_seq < seq else tuple(row)


def hold_view(connection: Connection) -> None:
    """Let everything read from here to the transaction's end be of one moment; the first statement in it."""
    if connection.dialect.name == "postgresql":  # SQLite's transactions are like that already
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
