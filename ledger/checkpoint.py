"""Signed checkpoints: where the chain stood, for somebody outside to keep.

Whoever holds one can tell later that nothing before it was changed and that the chain was not cut shorter.
"""

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct
from sqlalchemy.engine import Connection

from ledger import chain, store
from ledger.errors import NotFound, RequestRefused


class Checkpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """A chain's head at a moment, signed with Ed25519.

    Attributes:
        batch: the last batch; `hash_hex` its hash.
        batches_root_hex: root of the tree over the hashes of all batches, for receipts of charges.
        last_seqs: last sequence number by kind of row.
        made_at_ms: UTC, milliseconds since 1970.
        public_key_hex: whose signature it is; compare it with the one you were given.
        signature_hex: over the JSON array of "endcap checkpoint" and the first five.
    """

    batch: int
    hash_hex: str
    batches_root_hex: str
    last_seqs: dict[str, int]
    made_at_ms: int
    public_key_hex: str
    signature_hex: str


def make_checkpoint(connection: Connection, retailer_id: str, seed: bytes, now_ms: int) -> Checkpoint:
    """Return the chain's head, signed with the key of a 32-byte seed.

    Raises:
        NotFound: `no_chain`, nothing was written yet.
    """
    store.hold_view(connection)
    head = store.read_chain_head(connection, retailer_id)
    if head is None or not head[0]:
        raise NotFound("no_chain", "there is nothing in the books yet")
    batch, hash_hex, last_seqs = head[0], head[1], msgspec.json.decode(head[2], type=dict[str, int])
    tree = chain.GrowingTree()
    for one in store.read_batch_hashes(connection, retailer_id, batch):
        tree.add(bytes.fromhex(one))
    key = Ed25519PrivateKey.from_private_bytes(seed)
    unsigned = Checkpoint(
        batch, hash_hex, tree.root().hex(), last_seqs, now_ms, key.public_key().public_bytes_raw().hex(), ""
    )
    return msgspec.structs.replace(unsigned, signature_hex=key.sign(_content(unsigned)).hex())


def read_checkpoint(text: bytes, public_key_hex: str | None) -> Checkpoint:
    """Return a checkpoint whose signature is right.

    Args:
        text: JSON, as `msgspec.json.encode` wrote the checkpoint.
        public_key_hex: whose it must be; None takes the key it names, which proves only that it is whole.

    Raises:
        RequestRefused: `checkpoint_invalid`.
    """
    try:
        found = msgspec.json.decode(text, type=Checkpoint)
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key_hex or found.public_key_hex))
        key.verify(bytes.fromhex(found.signature_hex), _content(found))
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, InvalidSignature):
        raise RequestRefused("checkpoint_invalid", "the checkpoint must be whole and signed by the key") from None
    return found


def _content(one: Checkpoint) -> bytes:
    return msgspec.json.encode(
        ["endcap checkpoint", one.batch, one.hash_hex, one.batches_root_hex, one.last_seqs, one.made_at_ms],
        order="sorted",
    )
