"""Charges undone because their event was found invalid: each once, with its rule, until the month is sealed.

Afterwards it is too late: what was charged in a sealed month is given back by a credit note.
"""

from collections.abc import Iterable
from typing import Any

from msgspec.structs import astuple
from sqlalchemy.engine import Connection

from ledger import chain, store
from ledger.calendar import Calendar
from ledger.command import Finding, InvalidReversed, ReverseInvalid
from ledger.errors import ConflictRefused
from ledger.funding import taken_by
from ledger.journal import Transaction, mirror, post, read_transaction
from ledger.store import FindingRow

CHAIN_KIND = "finding"


def reverse_invalid(
    connection: Connection, retailer_id: str, command: ReverseInvalid, currency: str, calendar: Calendar, now_ms: int
) -> tuple[InvalidReversed, list[str]]:
    """Keep findings and undo what was charged for their events; return what was new, and whose funds it moved.

    An event that was found before is left as it is, so the same command again, or what is left of one that was cut
    off, comes to the same. A charge that somebody undid already stays undone once.

    Raises:
        ConflictRefused: `period_sealed`, the month of an event is; nothing of the command was written.
    """
    head = chain.lock_head(connection, retailer_id)
    found = {one.event_seq: one for one in command.findings}
    new = found.keys() - store.read_found(connection, retailer_id, found)
    charges = store.read_charges(connection, retailer_id, new)
    originals = _read_originals(connection, retailer_id, charges)
    _check_open(charges, originals, store.last_sealed(connection, retailer_id))
    reasons = {seq: f"invalid:{one.rule}:{one.version}" for seq, one in found.items()}
    mirrors = {
        row.seq: mirror(originals[row.seq], row.transaction_id, reasons[row.seq], calendar.period(now_ms), now_ms)
        for row in charges
        if row.seq in originals and row.reversed_by is None
    }
    taken = _sum_taken(mirrors.values())
    store.take_funds(connection, retailer_id, [(who, parts[0], parts[1], parts[2]) for who, parts in taken.items()])
    posted = post(connection, retailer_id, head, list(mirrors.values()), currency, now_ms)
    transaction_ids = dict(zip(mirrors, posted, strict=True))
    for row in charges:
        if row.seq in mirrors:
            by = transaction_ids[row.seq]
            store.insert_reversal(connection, retailer_id, row.transaction_id, by, reasons[row.seq], now_ms)
    rows = [
        _row(number, row, found[row.seq], transaction_ids.get(row.seq, row.reversed_by), now_ms)
        for number, row in enumerate(charges, head.next_seq(CHAIN_KIND))
    ]
    store.insert_findings(connection, retailer_id, rows)
    if rows:
        chain.extend(connection, retailer_id, head, CHAIN_KIND, chain.hash_rows(CHAIN_KIND, [*map(astuple, rows)]))
        chain.save_head(connection, retailer_id, head)
    given_back_micros = sum(row.amount_micros for row in charges if row.seq in mirrors)
    return InvalidReversed(len(rows), given_back_micros), list(taken)


def _read_originals(connection: Connection, retailer_id: str, charges: list[Any]) -> dict[int, Transaction]:
    """Return the transaction of each event that was charged, by the event's sequence number."""
    originals: dict[int, Transaction] = {}
    for row in charges:
        if row.transaction_id is not None:
            original = read_transaction(connection, retailer_id, row.transaction_id)
            assert original is not None
            originals[row.seq] = original
    return originals


def _check_open(charges: list[Any], originals: dict[int, Transaction], sealed_until: str) -> None:
    """Refuse what is of a sealed month: booked in it or, where nothing was booked, happened in it.

    Raises:
        ConflictRefused: `period_sealed`.
    """
    for row in charges:
        period = originals[row.seq].period if row.seq in originals else row.day[:7]
        if period <= sealed_until:
            message = f"event {row.seq} is of {period}, which is sealed: give it back by a credit note"
            raise ConflictRefused("period_sealed", message)


def _sum_taken(transactions: Iterable[Transaction]) -> dict[str, list[int]]:
    """Return what transactions together take out of each advertiser's funds; negative gives back."""
    taken: dict[str, list[int]] = {}
    for transaction in transactions:
        for who, parts in taken_by(transaction).items():
            taken[who] = [sum(pair) for pair in zip(taken.get(who, (0, 0, 0)), parts, strict=True)]
    return taken


def _row(seq: int, charge: Any, finding: Finding, transaction_id: str | None, now_ms: int) -> FindingRow:
    amount_micros = charge.amount_micros
    return FindingRow(seq, charge.seq, finding.rule, finding.version, amount_micros, transaction_id, now_ms)
