"""The hash chain: every commit's rows under a Merkle root, every root bound to the one before.

A leaf is SHA-256 of 0x00, the kind, a line end, and the row as a compact JSON array of its columns in their order: one
canonical encoding that any language can make again. A node is SHA-256 of 0x01 and up to 16 children, from the left,
until one is left: the root. A batch's hash is SHA-256 of 0x02 and the JSON array
`[batch, kind, count, first_seq, last_seq, root_hex, prev_hex]`; the next batch carries it as `prev_hex`. A tree of the
same form over the hashes of batches 1 to n proves in a few hundred bytes that a batch is one of them.

Per kind of leaf, sequence numbers run from 1 without gaps. Whoever appends holds the lock on the head until commit, so
there is one order of everything, also with several writers on PostgreSQL.
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.engine import Connection

from ledger import store

ARITY = 16  # children of a node in the tree
GENESIS_HEX = "0" * 64  # what the first batch carries as the hash before it

encode_row = msgspec.json.Encoder().encode
_sha256 = hashlib.sha256


class Head(Struct):
    """Where the chain ends: the last batch, its hash, and the last sequence number per kind."""

    batch: int
    hash_hex: str
    last_seqs: dict[str, int]

    def next_seq(self, kind: str) -> int:
        """Return the number of the next leaf of this kind."""
        return self.last_seqs.get(kind, 0) + 1


class Batch(Struct, frozen=True):
    """One link of the chain."""

    batch: int
    kind: str
    leaf_count: int
    first_seq: int
    last_seq: int
    root_hex: str
    prev_hex: str
    hash_hex: str


def append_batch(connection: Connection, retailer_id: str, kind: str, leaves: Sequence[bytes]) -> int:
    """Bind rows to the chain in the caller's transaction; return the sequence number of the first.

    Args:
        connection: inside a transaction; the chain's head stays locked until it ends.
        retailer_id: whose chain.
        kind: what the rows are; sequence numbers count per kind.
        leaves: canonical bytes of each row, in the order of their own sequence numbers.
    """
    head = lock_head(connection, retailer_id)
    first_seq = head.next_seq(kind)
    extend(connection, retailer_id, head, kind, [hash_leaf(kind, leaf) for leaf in leaves])
    save_head(connection, retailer_id, head)
    return first_seq


def lock_head(connection: Connection, retailer_id: str) -> Head:
    """Return the chain's head and keep everybody else from appending until the transaction ends."""
    row = store.lock_chain_head(connection, retailer_id)
    if row is None:
        store.insert_chain_head(connection, retailer_id, GENESIS_HEX)
        row = store.lock_chain_head(connection, retailer_id)
        assert row is not None
    batch, hash_hex, last_seqs = row
    return Head(batch, hash_hex, msgspec.json.decode(last_seqs, type=dict[str, int]))


def extend(connection: Connection, retailer_id: str, head: Head, kind: str, leaf_hashes: Sequence[bytes]) -> None:
    """Add one batch and move `head` behind it; no leaves, no batch."""
    if not leaf_hashes:
        return
    first_seq = head.next_seq(kind)
    last_seq = first_seq + len(leaf_hashes) - 1
    batch = link(head.batch + 1, kind, first_seq, last_seq, merkle_root(leaf_hashes).hex(), head.hash_hex)
    store.insert_chain_batch(connection, retailer_id, msgspec.structs.astuple(batch))
    head.batch, head.hash_hex = batch.batch, batch.hash_hex
    head.last_seqs[kind] = last_seq


def save_head(connection: Connection, retailer_id: str, head: Head) -> None:
    """Write where the chain now ends."""
    last_seqs = msgspec.json.encode(head.last_seqs, order="sorted").decode()
    store.update_chain_head(connection, retailer_id, head.batch, head.hash_hex, last_seqs)


def link(batch: int, kind: str, first_seq: int, last_seq: int, root_hex: str, prev_hex: str) -> Batch:
    """Return the batch with its hash."""
    count = last_seq - first_seq + 1
    content = encode_row((batch, kind, count, first_seq, last_seq, root_hex, prev_hex))
    return Batch(batch, kind, count, first_seq, last_seq, root_hex, prev_hex, _sha256(b"\x02" + content).hexdigest())


def hash_leaf(kind: str, leaf: bytes) -> bytes:
    """Return the hash of one row's canonical bytes."""
    return _sha256(b"\x00" + kind.encode() + b"\n" + leaf).digest()


def hash_rows(kind: str, rows: Sequence[tuple[Any, ...]]) -> list[bytes]:
    """Return the leaf hashes of rows given as their columns."""
    prefix, encode, sha256 = b"\x00" + kind.encode() + b"\n", encode_row, _sha256
    return [sha256(prefix + encode(row)).digest() for row in rows]


def merkle_root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes in their order; there is at least one."""
    level = leaf_hashes
    while len(level) > 1:
        level = [
            _sha256(b"\x01" + b"".join(level[first : first + ARITY])).digest() for first in range(0, len(level), ARITY)
        ]
    return level[0]


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """One level of the way from a leaf up to a root: its place among its siblings, and the others' hashes in order."""

    place: Annotated[int, Meta(ge=0, lt=ARITY)]
    others_hex: Annotated[list[str], Meta(max_length=ARITY - 1)]


def merkle_path(leaf_hashes: Sequence[bytes], place: int) -> list[Step]:
    """Return the way from a leaf, counted from 0, to the root of `merkle_root`."""
    steps: list[Step] = []
    level = leaf_hashes
    while len(level) > 1:
        first = place - place % ARITY
        siblings = level[first : first + ARITY]
        others = [one.hex() for number, one in enumerate(siblings) if number != place - first]
        steps.append(Step(place - first, others))
        level = [
            _sha256(b"\x01" + b"".join(level[begin : begin + ARITY])).digest() for begin in range(0, len(level), ARITY)
        ]
        place //= ARITY
    return steps


def follow_path(leaf_hash: bytes, steps: Sequence[Step]) -> tuple[bytes, int]:
    """Return the root a leaf's way leads to, and the leaf's place in the tree, from 0.

    Raises:
        ValueError: a hash is not hexadecimal, or a place is beyond its siblings.
    """
    node, place = leaf_hash, 0
    for depth, step in enumerate(steps):
        children = [bytes.fromhex(one) for one in step.others_hex]
        if step.place > len(children) or any(len(child) != len(leaf_hash) for child in children):
            raise ValueError("a step must hold whole hashes and a place among them")
        children.insert(step.place, node)
        node = _sha256(b"\x01" + b"".join(children)).digest()
        place += step.place * ARITY**depth
    return node, place


class GrowingTree:
    """The root over hashes that come one by one, without keeping them."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = []

    def add(self, leaf_hash: bytes) -> None:
        """Take one more hash at the end."""
        depth, node = 0, leaf_hash
        while True:
            if depth == len(self._levels):
                self._levels.append([])
            level = self._levels[depth]
            level.append(node)
            if len(level) < ARITY:
                return
            node = _sha256(b"\x01" + b"".join(level)).digest()
            level.clear()
            depth += 1

    def root(self) -> bytes:
        """Return what `merkle_root` gives for all hashes so far; there is at least one."""
        carried: list[bytes] = []
        for depth, level in enumerate(self._levels):
            nodes = [*level, *carried]
            if depth + 1 == len(self._levels) and len(nodes) == 1:
                return nodes[0]
            carried = [_sha256(b"\x01" + b"".join(nodes)).digest()] if nodes else []
        return carried[0]


def leaf_check(leaf_hash: bytes) -> int:
    """Return what is kept beside a row to name it when its batch no longer fits."""
    return int.from_bytes(leaf_hash[:8], "big", signed=True)
