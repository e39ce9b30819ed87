"""Proof that the books are as they were written: every row against the chain, every figure against the rows.

Reads everything once, in the order it was written, on one consistent view. The chain is walked batch by batch; the rows
of a batch must give its root; figures kept beside the books (balances, funds, spend) must be what the rows add up to.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ledger import chain, store
from ledger.chart import COMMISSION, REVENUE, account_advertiser
from ledger.checkpoint import Checkpoint
from ledger.closing import period_digest

READ_COUNT = 4000  # rows fetched at once
UNREADABLE = (ValueError, TypeError, OverflowError, AttributeError, msgspec.MsgspecError)  # what damaged values lead to
LeafReader = Callable[[Connection, str], Iterator[bytes]]  # canonical bytes of one kind of leaf, in their order

OWN_LEAVES: dict[str, LeafReader] = {
    "document": store.document_leaves,
    "closing": store.closing_leaves,
    "finding": store.finding_leaves,
    "commission-agreement": store.agreement_leaves,
    "commission": store.commission_leaves,
}

_SEQ, _TRANSACTION, _LINE, _ACCOUNT, _AMOUNT, _CURRENCY, _PERIOD, _REASON, _REVERSES = range(9)
_EVENT = {name: position for position, name in enumerate(store.EVENT_COLUMNS)}


class BadRow(Struct, frozen=True):
    """The first row that is not as it was written.

    Attributes:
        table: where it is.
        key: which one it is.
        rule: what does not hold, and what came instead.
    """

    table: str
    key: str
    rule: str


class Verdict(Struct, frozen=True):
    """What was checked, and the first thing found wrong, if any.

    Attributes:
        unread_kinds: leaves nobody gave a reader for; their batches fit the chain, their rows were not looked at.
    """

    bad: BadRow | None
    batch_count: int
    event_count: int
    entry_count: int
    unread_kinds: list[str] = []

    @property
    def is_good(self) -> bool:
        """Say whether nothing is wrong."""
        return self.bad is None


class _Found(Exception):  # carries the answer out of the loops
    def __init__(self, table: str, key: object, rule: str) -> None:
        super().__init__(rule)
        self.bad = BadRow(table, str(key), rule)


def verify(
    connection: Connection,
    retailer_id: str,
    leaf_readers: Mapping[str, LeafReader],
    checkpoint: Checkpoint | None = None,
) -> Verdict:
    """Check the books, and name the first row that was edited, deleted, inserted or moved.

    Without a checkpoint a tail that was cut off together with the chain's head cannot be missed.

    Args:
        connection: with no statement run on it yet, so that it can hold one view.
        retailer_id: whose books.
        leaf_readers: by kind, how to read the leaves that other packages appended.
        checkpoint: what the chain must contain; its signature is for the caller to check.
    """
    store.hold_view(connection)
    walk = _Walk(connection, retailer_id, leaf_readers, checkpoint)
    bad: BadRow | None = None
    try:
        walk.check_chain()
        walk.check_figures()
    except _Found as found:
        bad = found.bad
    except (DBAPIError, connection.dialect.loaded_dbapi.Error, *UNREADABLE) as failure:
        what = str(getattr(failure, "orig", failure))
        bad = BadRow("database", f"after batch {walk.batch_count}", f"every row must be readable, one is not: {what}")
    finally:
        walk.close()
    return Verdict(bad, walk.batch_count, walk.event_count, walk.entry_count, sorted(walk.unread_kinds))


class _Rows:
    """One table's rows in their order, some thousands at a time."""

    def __init__(self, table: str, fetch: Callable[[int], list[tuple[Any, ...]]]) -> None:
        self.table = table
        self._fetch = fetch
        self._rows: deque[tuple[Any, ...]] = deque()
        self._last = 0

    def take(self, count: int) -> list[tuple[Any, ...]]:
        """Return the next rows, fewer where there are no more."""
        while len(self._rows) < count:
            more = self._fetch(self._last)
            if not more:
                break
            self._last = more[-1][0]
            self._rows.extend(more)
        take = self._rows.popleft
        return [take() for _ in range(min(count, len(self._rows)))]


class _Walk:
    def __init__(
        self,
        connection: Connection,
        retailer_id: str,
        leaf_readers: Mapping[str, LeafReader],
        checkpoint: Checkpoint | None,
    ) -> None:
        self._connection, self._retailer_id = connection, retailer_id
        self._checkpoint = checkpoint
        self._events = self._rows("events", store.read_events_after)
        self._entries = self._rows("entries", store.read_entries_after)
        self._links = self._rows("chain", store.read_chain_after)
        readers: Mapping[str, LeafReader] = {**OWN_LEAVES, **leaf_readers}
        self._others = {kind: reader(connection, retailer_id) for kind, reader in readers.items()}
        self._last_seqs: dict[str, int] = {}
        self._charges: dict[str, int] = {}  # posted and not yet matched with its event
        self._commissions: dict[str, int] = {}  # posted and not yet matched with its row
        self._balances: dict[tuple[str, str, str], list[int]] = {}
        self._spent: dict[tuple[str, str], int] = {}
        self._reversed: dict[str, str] = {}
        self._batches = chain.GrowingTree()
        self.batch_count = self.event_count = self.entry_count = 0
        self.unread_kinds: set[str] = set()

    def _rows(self, table: str, fetch: Callable[[Connection, str, int, int], list[tuple[Any, ...]]]) -> _Rows:
        return _Rows(table, lambda after: fetch(self._connection, self._retailer_id, after, READ_COUNT))

    def close(self) -> None:
        """Leave nothing open of what was not read to its end."""
        for leaves in self._others.values():
            if isinstance(leaves, Generator):
                with suppress(DBAPIError, self._connection.dialect.loaded_dbapi.Error):
                    leaves.close()

    def check_chain(self) -> None:
        """Check every batch in order, then that nothing lies beyond the last."""
        prev_hex = chain.GENESIS_HEX
        while links := self._links.take(READ_COUNT):
            for columns in links:
                prev_hex = self._check_batch(chain.Batch(*columns), prev_hex)
        self._check_head(prev_hex)
        for rows in (self._entries, self._events):
            if beyond := rows.take(1):
                raise _Found(rows.table, beyond[0][0], "every row must be in a batch of the chain, this one is not")
        for kind, leaves in self._others.items():
            if next(leaves, None) is not None:
                raise _Found(kind, self._last_seqs.get(kind, 0) + 1, "every row must be in a batch of the chain")
        if self._checkpoint is not None and self._checkpoint.batch > self.batch_count:
            raise _Found(
                "chain", self._checkpoint.batch, f"the checkpoint has {self._checkpoint.batch} batches, "
                f"the chain only {self.batch_count}: its tail was cut off",
            )  # fmt: skip

    def _check_batch(self, batch: chain.Batch, prev_hex: str) -> str:
        expected = self.batch_count + 1
        if batch.batch != expected:
            raise _Found("chain", expected, f"batches must follow one another, batch {expected} is missing")
        first_seq = self._last_seqs.get(batch.kind, 0) + 1
        relinked = chain.link(batch.batch, batch.kind, first_seq, batch.last_seq, batch.root_hex, prev_hex)
        if relinked != batch or batch.last_seq < first_seq:
            raise _Found("chain", batch.batch, "a batch must carry the hash of the one before and its own")
        self._check_rows(batch)
        self._last_seqs[batch.kind] = batch.last_seq
        self.batch_count = expected
        kept = self._checkpoint
        if kept is not None and expected <= kept.batch:
            self._batches.add(bytes.fromhex(batch.hash_hex))
            is_end = expected == kept.batch
            if is_end and (kept.hash_hex, kept.batches_root_hex) != (batch.hash_hex, self._batches.root().hex()):
                raise _Found("chain", expected, "the batch must have the hash that the checkpoint saw")
        return batch.hash_hex

    def _check_rows(self, batch: chain.Batch) -> None:
        if batch.kind == "entry":
            rows = self._take(self._entries, batch)
            self.entry_count += len(rows)
            self._add_entries(rows)
        elif batch.kind == "event":
            rows = self._take(self._events, batch)
            self.event_count += len(rows)
            self._add_events(rows)
        elif batch.kind in self._others:
            leaves = self._others[batch.kind]
            some = list(islice(leaves, batch.leaf_count))
            hashes = [chain.hash_leaf(batch.kind, leaf) for leaf in some]
            if len(hashes) < batch.leaf_count:
                raise _Found(batch.kind, batch.first_seq + len(hashes), "the row is missing")
            if chain.merkle_root(hashes).hex() != batch.root_hex:
                raise _Found(batch.kind, f"{batch.first_seq}..{batch.last_seq}", "one of these rows was touched")
            if batch.kind == "commission":
                self._match_commissions(some)
        else:
            self.unread_kinds.add(batch.kind)

    def _match_commissions(self, leaves: list[bytes]) -> None:
        for leaf in leaves:
            row = store.CommissionRow(*msgspec.json.decode(leaf))
            posted = self._commissions.pop(row.transaction_id, None)
            if posted != row.amount_micros:
                rule = f"what is posted for it must be {row.amount_micros} micros, is {posted}"
                raise _Found("commissions", row.seq, rule)

    def _take(self, source: _Rows, batch: chain.Batch) -> list[tuple[Any, ...]]:
        """Return the batch's rows once they give its root, without their leaf checks."""
        rows = source.take(batch.leaf_count)
        plain = [row[:-1] for row in rows]
        hashes = chain.hash_rows(batch.kind, plain)
        if len(hashes) == batch.leaf_count and chain.merkle_root(hashes).hex() == batch.root_hex:
            return plain
        seq = batch.first_seq
        for row, leaf_hash in zip(rows, hashes, strict=True):
            if row[0] != seq:
                rule = f"the row is missing, {row[0]} came instead" if row[0] > seq else "the row is not in its place"
                raise _Found(source.table, seq, rule)
            if chain.leaf_check(leaf_hash) != row[-1]:
                raise _Found(source.table, seq, "the row must be as it was written; it was changed")
            seq += 1
        if len(rows) < batch.leaf_count:
            raise _Found(source.table, seq, "the row is missing")
        raise _Found(
            source.table,
            batch.first_seq,
            f"rows {batch.first_seq} to {batch.last_seq} must give the root of batch {batch.batch}; one was changed",
        )

    def _add_entries(self, rows: list[tuple[Any, ...]]) -> None:
        balances, at = self._balances, 0
        while at < len(rows):
            first = rows[at]
            transaction_id, total, revenue, commission = first[_TRANSACTION], 0, 0, 0
            if transaction_id != f"txn_{first[_SEQ]}":
                raise _Found("entries", first[_SEQ], "a transaction must begin with the entry its id names")
            while at < len(rows) and rows[at][_TRANSACTION] == transaction_id:
                row = rows[at]
                account, amount_micros = row[_ACCOUNT], row[_AMOUNT]
                total += amount_micros
                if account == REVENUE:
                    revenue -= amount_micros
                elif account == COMMISSION:
                    commission -= amount_micros
                key = (account, row[_PERIOD], row[_CURRENCY])
                sums = balances.get(key)
                if sums is None:
                    sums = balances[key] = [0, 0]
                sums[amount_micros < 0] += abs(amount_micros)
                at += 1
            if total:
                raise _Found("entries", first[_SEQ], f"{transaction_id} must add up to 0, adds up to {total}")
            if first[_REASON].startswith("charge:") and first[_REVERSES] is None:
                self._charges[transaction_id] = revenue
            if commission and first[_REVERSES] is None:
                self._commissions[transaction_id] = commission
            if first[_REVERSES] is not None:
                if first[_REVERSES] in self._reversed:
                    raise _Found("entries", first[_SEQ], f"{first[_REVERSES]} must be reversed at most once")
                self._reversed[first[_REVERSES]] = transaction_id

    def _add_events(self, rows: list[tuple[Any, ...]]) -> None:
        spent = self._spent
        at_transaction, at_amount = _EVENT["transaction_id"], _EVENT["amount_micros"]
        at_campaign, at_day = _EVENT["campaign_id"], _EVENT["day"]
        for row in rows:
            transaction_id, amount_micros = row[at_transaction], row[at_amount]
            posted = 0 if transaction_id is None else self._charges.pop(transaction_id, None)
            if posted != amount_micros:
                raise _Found("events", row[0], f"what is posted for it must be {amount_micros} micros, is {posted}")
            if amount_micros:
                for day in (row[at_day], ""):
                    key = (row[at_campaign], day)
                    spent[key] = spent.get(key, 0) + amount_micros

    def _check_head(self, hash_hex: str) -> None:
        head = store.read_chain_head(self._connection, self._retailer_id)
        here = (self.batch_count, hash_hex, self._last_seqs)
        kept = (0, chain.GENESIS_HEX, {}) if head is None else (head[0], head[1], msgspec.json.decode(head[2]))
        if kept != here:
            raise _Found("chain_heads", kept[0], f"the head must be batch {self.batch_count}, where the chain ends")
        if self._charges:
            raise _Found("events", next(iter(self._charges)), "every charge must have its event, this has none")
        if self._commissions:
            first = next(iter(self._commissions))
            raise _Found("commissions", first, "every commission must have its row, this has none")

    def check_figures(self) -> None:
        """Check balances, funds, spend and reversals against what the rows add up to."""
        connection, retailer_id = self._connection, self._retailer_id
        kept = {
            (row.account, row.period, row.currency): [row.debit_micros, row.credit_micros]
            for row in store.list_balances(connection, retailer_id)
        }
        _compare("balances", kept, self._balances)
        spent = {(campaign, day): micros for campaign, day, micros in store.list_all_spend(connection, retailer_id)}
        _compare("campaign_spend", spent, self._spent)
        funds = {
            (who, part): micros
            for who, promo, wallet, _, owed in store.list_funds(connection, retailer_id, None, None, None)
            for part, micros in (("promo", promo), ("wallet", wallet), ("unbilled", owed))
            if micros
        }
        _compare("funds", funds, self._funds())
        for period, digest in store.list_sealed(connection, retailer_id):
            derived = period_digest(connection, retailer_id, period)
            if digest != derived:
                raise _Found("closings", period, f"the sealed report must have the digest {digest}, has {derived}")
        _compare("reversals", dict(store.list_reversals(connection, retailer_id)), self._reversed)

    def _funds(self) -> dict[tuple[str, str], int]:
        funds: dict[tuple[str, str], int] = {}
        for (account, _, _), (debit, credit) in self._balances.items():
            who, family = account_advertiser(account), account.partition(":")[0]
            if who is not None and family != "returns":  # nothing to spend until a credit note gives it back
                is_owed = family in ("unbilled", "receivable")
                key = (who, "unbilled" if is_owed else family)
                funds[key] = funds.get(key, 0) + (debit - credit if is_owed else credit - debit)
        return {key: micros for key, micros in funds.items() if micros}


def _compare(table: str, kept: Mapping[Any, Any], derived: Mapping[Any, Any]) -> None:
    for key in [*derived, *kept]:
        if kept.get(key) != derived.get(key):
            raise _Found(table, key, f"must be {derived.get(key)}, which the rows add up to, is {kept.get(key)}")
