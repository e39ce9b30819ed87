"""Receipts of charges: one event and what was posted for it, which anyone can check without the books.

A receipt holds the rows themselves and, for each, the way from its hash to the root of its batch and from the batch's
hash to the root that a signed checkpoint carries. Whoever has the checkpoint and the retailer's public key can tell
that this charge is in the books, at this place, and that the retailer stood by these books when it signed.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from ledger import chain, store
from ledger.chain import Batch, Step
from ledger.checkpoint import Checkpoint
from ledger.errors import ConflictRefused, NotFound, RequestRefused
from ledger.money import Micros

EVENT_KIND, ENTRY_KIND = "event", "entry"


class ProvenRow(Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the books, and the way from it to a checkpoint.

    Attributes:
        row: its columns in the order of the table; as a compact JSON array, what is hashed.
        batch: the batch it is in.
        to_batch: from the row's hash to the batch's root.
        to_checkpoint: from the batch's hash to the root over all batches.
    """

    row: list[str | int | None]
    batch: Batch
    to_batch: list[Step]
    to_checkpoint: list[Step]


class ChargeReceipt(Struct, frozen=True, forbid_unknown_fields=True):
    """An event and the entries of its transaction, none where nothing was charged."""

    event: ProvenRow
    entries: list[ProvenRow]


class Charged(Struct, frozen=True):
    """What a receipt proves."""

    event_id: str
    type: str
    status: str
    code: str | None
    auction_id: str
    product_id: str
    advertiser_id: str | None
    campaign_id: str | None
    bid_id: str | None
    occurred_at: datetime
    amount_micros: Micros
    currency: str
    seq: int
    batch: int
    postings: list[tuple[str, int]]  # account and micros, debit +, credit -


def make_charge_receipt(
    connection: Connection, retailer_id: str, event_id: str, checkpoint: Checkpoint
) -> ChargeReceipt:
    """Return the receipt of an event that a checkpoint covers.

    Raises:
        NotFound: `unknown_event`.
        ConflictRefused: `checkpoint_too_old`, the event came after it; `checkpoint_differs`, it is not of these books.
    """
    store.hold_view(connection)
    event = store.find_event(connection, retailer_id, event_id)
    if event is None:
        raise NotFound("unknown_event", f"there is no event {event_id!r}")
    prove = Prover(connection, retailer_id, checkpoint)
    columns = dict(zip(store.EVENT_COLUMNS, event, strict=True))
    transaction_id = columns["transaction_id"]
    entries = [] if transaction_id is None else store.read_transaction_entries(connection, retailer_id, transaction_id)
    return ChargeReceipt(prove.row(EVENT_KIND, columns["seq"]), [prove.row(ENTRY_KIND, entry.seq) for entry in entries])


class Prover:
    """Finds the ways of rows to one checkpoint.

    Raises:
        ConflictRefused: `checkpoint_differs`, it is not of these books.
    """

    def __init__(self, connection: Connection, retailer_id: str, checkpoint: Checkpoint) -> None:
        hashes = [bytes.fromhex(one) for one in store.read_batch_hashes(connection, retailer_id, checkpoint.batch)]
        if len(hashes) != checkpoint.batch or chain.merkle_root(hashes).hex() != checkpoint.batches_root_hex:
            raise ConflictRefused(
                "checkpoint_differs", "the checkpoint must be of these books, these have other batches"
            )
        self._connection, self._retailer_id = connection, retailer_id
        self._batch_hashes = hashes

    def row(self, kind: str, seq: int) -> ProvenRow:
        """Return a row and its way.

        Raises:
            ConflictRefused: `checkpoint_too_old`, the row came after it.
        """
        found = store.read_batch_of(self._connection, self._retailer_id, kind, seq)
        batch = None if found is None else Batch(*found)
        if batch is None or batch.batch > len(self._batch_hashes):
            raise ConflictRefused(
                "checkpoint_too_old", f"the checkpoint ends at batch {len(self._batch_hashes)}, the charge came later"
            )
        rows = _READERS[kind](self._connection, self._retailer_id, batch.first_seq - 1, batch.leaf_count)
        place = seq - batch.first_seq
        return ProvenRow(
            list(rows[place]),
            batch,
            chain.merkle_path(chain.hash_rows(kind, rows), place),
            chain.merkle_path(self._batch_hashes, batch.batch - 1),
        )


_READERS: dict[str, Callable[[Connection, str, int, int], list[tuple[Any, ...]]]] = {
    EVENT_KIND: lambda *of: [row[:-1] for row in store.read_events_after(*of)],
    ENTRY_KIND: lambda *of: [row[:-1] for row in store.read_entries_after(*of)],
    "commission": store.read_commissions_after,
    "commission-agreement": store.read_agreements_after,
}


def check_charge_receipt(text: bytes, checkpoint: Checkpoint) -> Charged:
    """Return what a receipt proves, given a checkpoint whose signature was checked.

    Raises:
        RequestRefused: `receipt_invalid`, with what does not hold.
    """
    try:
        receipt = msgspec.json.decode(text, type=ChargeReceipt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as refusal:
        raise RequestRefused("receipt_invalid", f"the receipt cannot be read: {refusal}") from None
    event = check_row(receipt.event, EVENT_KIND, store.EVENT_COLUMNS, checkpoint)
    entries = [check_row(one, ENTRY_KIND, store.ENTRY_COLUMNS, checkpoint) for one in receipt.entries]
    check_posted(event["transaction_id"], event["amount_micros"], entries)
    return Charged(
        **{name: event[name] for name in Charged.__struct_fields__ if name in event and name != "seq"},
        occurred_at=datetime.fromtimestamp(event["occurred_at_ms"] / 1000, UTC),
        seq=event["seq"],
        batch=receipt.event.batch.batch,
        postings=[(entry["account"], entry["amount_micros"]) for entry in entries],
    )


def check_posted(transaction_id: str | None, amount_micros: int, entries: Sequence[dict[str, Any]]) -> None:
    """Check that entries are those of a transaction, all of them, and come to what was charged.

    Raises:
        RequestRefused: `receipt_invalid`.
    """
    if any(entry["transaction_id"] != transaction_id for entry in entries):
        raise RequestRefused("receipt_invalid", f"every entry must be of transaction {transaction_id}")
    if [entry["line"] for entry in entries] != list(range(1, len(entries) + 1)):
        raise RequestRefused("receipt_invalid", "the entries must be the lines of the transaction from the first on")
    debit = sum(entry["amount_micros"] for entry in entries if entry["amount_micros"] > 0)
    if sum(entry["amount_micros"] for entry in entries) or debit != amount_micros:
        raise RequestRefused("receipt_invalid", f"the entries must balance and come to {amount_micros} micros")


def check_row(one: ProvenRow, kind: str, columns: Sequence[str], checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the columns of a row that is where the receipt says, in books the checkpoint is of.

    Raises:
        RequestRefused: `receipt_invalid`.
    """
    if len(one.row) != len(columns):
        raise RequestRefused("receipt_invalid", f"an {kind} has {len(columns)} columns, this one {len(one.row)}")
    row = dict(zip(columns, one.row, strict=True))
    batch = one.batch
    try:
        root, place = chain.follow_path(chain.hash_leaf(kind, chain.encode_row(one.row)), one.to_batch)
        top, number = chain.follow_path(bytes.fromhex(batch.hash_hex), one.to_checkpoint)
    except (ValueError, TypeError) as refusal:
        raise RequestRefused("receipt_invalid", str(refusal)) from None
    relinked = chain.link(batch.batch, kind, batch.first_seq, batch.last_seq, root.hex(), batch.prev_hex)
    if relinked != batch or row["seq"] != batch.first_seq + place:
        raise RequestRefused("receipt_invalid", f"{kind} {row['seq']} must be in batch {batch.batch}; it is not")
    if number != batch.batch - 1 or top.hex() != checkpoint.batches_root_hex or batch.batch > checkpoint.batch:
        raise RequestRefused("receipt_invalid", f"batch {batch.batch} must be in the checkpoint's books; it is not")
    return row
