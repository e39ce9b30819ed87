"""The change log: who changed what, before and after, as leaves of the ledger's hash chain.

A line is written in the transaction of the change itself, and `endcap ledger verify` finds any that was edited,
inserted or taken out.
"""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from bidder_api.store import ChangeRecord, insert_changes, read_changes
from ledger.chain import extend, hash_leaf, lock_head, save_head

CHAIN_KIND = "change"
COMMAND_LINE = "command"  # the actor of changes made with the `endcap` command


class Actor(Struct, frozen=True):
    """Who changes something: a key and its role."""

    key_id: str
    role: str


class Change(Struct, frozen=True):
    """One change, before it is written."""

    action: str
    kind: str
    resource_id: str
    before: object | None
    after: object | None


def record_changes(
    connection: Connection, retailer_id: str, actor: Actor, changes: Sequence[Change], now_ms: int
) -> None:
    """Write changes to the log and append them to the hash chain, in the caller's transaction."""
    if not changes:
        return
    head = lock_head(connection, retailer_id)
    records = [
        ChangeRecord(
            seq=seq,
            recorded_at_ms=now_ms,
            key_id=actor.key_id,
            role=actor.role,
            action=change.action,
            kind=change.kind,
            resource_id=change.resource_id,
            before=_text(change.before),
            after=_text(change.after),
        )
        for seq, change in enumerate(changes, head.next_seq(CHAIN_KIND))
    ]
    insert_changes(connection, retailer_id, records)
    extend(connection, retailer_id, head, CHAIN_KIND, [hash_leaf(CHAIN_KIND, leaf(record)) for record in records])
    save_head(connection, retailer_id, head)


def leaf(record: ChangeRecord) -> bytes:
    """Return the canonical bytes of a line: its fields in their fixed order, as a JSON array."""
    return msgspec.json.encode(list(msgspec.structs.astuple(record)))


def change_leaves(connection: Connection, retailer_id: str) -> Iterator[bytes]:
    """Yield every line's bytes in the order of the chain, for verification."""
    for record in read_changes(connection, retailer_id):
        yield leaf(record)


def _text(value: object | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
