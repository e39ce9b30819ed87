"""The journal: balanced transactions, posted once and never changed.

A mistake is corrected by a reversal. Holds the form of a transaction and how it becomes entries, balances and leaves of
the chain; what is posted when is decided in `billing.py` and `funding.py`.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from msgspec import Struct
from sqlalchemy.engine import Connection

from ledger import chain, store
from ledger.chart import AccountName
from ledger.errors import LedgerBroken
from ledger.money import Micros

CHAIN_KIND = "entry"


class Side(IntEnum):
    """The two sides; the number is the sign of the amount in the tables."""

    DEBIT = 1
    CREDIT = -1


_DEBIT = Side.DEBIT


class Posting(Struct, frozen=True, gc=False):
    """One leg of a transaction; the amount is positive, the side carries the sign."""

    account: AccountName
    side: Side
    amount_micros: Micros


class Transaction(Struct, frozen=True, gc=False):
    """Postings recorded together. Cannot be made unless they balance.

    Attributes:
        reason: why, in a word or, for a reversal, in the words of whoever asked.
        period: YYYY-MM it is booked in.
        occurred_at_ms: when it happened out there; when it is written is said to `post`.
        reverses: the transaction this one undoes, or None.
    """

    postings: tuple[Posting, ...]
    reason: str
    period: str
    occurred_at_ms: int
    reverses: str | None = None

    def __post_init__(self) -> None:
        total = 0
        for posting in self.postings:
            amount_micros = posting.amount_micros
            if amount_micros <= 0:
                raise LedgerBroken(f"a posting's amount must be positive, was {amount_micros}")
            total += amount_micros if posting.side is _DEBIT else -amount_micros
        if total or not self.postings:
            raise LedgerBroken(f"debits and credits must be equal, {self.reason} was off by {total} micros")


def post(
    connection: Connection,
    retailer_id: str,
    head: chain.Head,
    transactions: Sequence[Transaction],
    currency: str,
    recorded_at_ms: int,
) -> list[str]:
    """Write transactions, their balances and their leaves, and return their ids in the same order.

    An id names the first entry's sequence number: `txn_17` begins at entry 17.

    Args:
        connection: inside a transaction that holds the chain's head.
        retailer_id: whose books.
        head: the chain's head, moved on.
        transactions: balanced, each posted as a whole.
        currency: the deployment's.
        recorded_at_ms: now.
    """
    seq = head.next_seq(CHAIN_KIND)
    rows: list[tuple[Any, ...]] = []
    transaction_ids: list[str] = []
    moved: dict[tuple[str, str], list[int]] = {}
    for transaction in transactions:
        transaction_id = f"txn_{seq}"
        transaction_ids.append(transaction_id)
        period = transaction.period
        for line, posting in enumerate(transaction.postings, 1):
            account, side, amount_micros = posting.account, posting.side, posting.amount_micros
            rows.append(
                (
                    seq,
                    transaction_id,
                    line,
                    account,
                    amount_micros if side is _DEBIT else -amount_micros,
                    currency,
                    period,
                    transaction.reason,
                    transaction.reverses,
                    transaction.occurred_at_ms,
                    recorded_at_ms,
                )
            )
            seq += 1
            sums = moved.get((account, period))
            if sums is None:
                sums = moved[account, period] = [0, 0]
            sums[side is not _DEBIT] += amount_micros
    leaf_hashes = chain.hash_rows(CHAIN_KIND, rows)
    store.insert_entries(connection, retailer_id, rows, [chain.leaf_check(leaf) for leaf in leaf_hashes])
    store.move_balances(
        connection,
        retailer_id,
        [(account, period, currency, debit, credit) for (account, period), (debit, credit) in moved.items()],
    )
    chain.extend(connection, retailer_id, head, CHAIN_KIND, leaf_hashes)
    return transaction_ids


def mirror(original: Transaction, transaction_id: str, reason: str, period: str, occurred_at_ms: int) -> Transaction:
    """Return the transaction that undoes `original`."""
    postings = tuple(
        Posting(leg.account, Side.CREDIT if leg.side is Side.DEBIT else Side.DEBIT, leg.amount_micros)
        for leg in original.postings
    )
    return Transaction(postings, reason, period, occurred_at_ms, transaction_id)


def read_transaction(connection: Connection, retailer_id: str, transaction_id: str) -> Transaction | None:
    """Return a transaction as it was posted, checked again; None when there is none of that name."""
    rows = store.read_transaction_entries(connection, retailer_id, transaction_id)
    if not rows:
        return None
    postings = tuple(
        Posting(
            AccountName(row.account),
            Side.DEBIT if row.amount_micros > 0 else Side.CREDIT,
            Micros(abs(row.amount_micros)),
        )
        for row in rows
    )
    first = rows[0]
    return Transaction(postings, first.reason, first.period, first.occurred_at_ms, first.reverses)
