"""`Idempotency-Key`: sending a call again answers as the first time and does nothing.

The key is claimed, and its answer kept, in the transaction of the effect itself: after a crash both are there or
neither is. A refusal keeps nothing, so the mended call may use the same key.
"""

from sqlalchemy.engine import Connection

from bidder_api.errors import Conflict
from bidder_api.store import IdempotentAnswer, claim_answer, forget_answers, keep_answer

KEPT_MS = 48 * 3600 * 1000  # promised: 24 h


def replay_or_claim(
    connection: Connection, retailer_id: str, scope: str, key: str, fingerprint: bytes, now_ms: int
) -> IdempotentAnswer | None:
    """Return what the key was answered before; None when this call is the first and has claimed it.

    Keys are told apart by `scope`, whose key it is; `fingerprint` is a digest of method, path and body.

    Raises:
        Conflict: the key came with another call before.
    """
    earlier = claim_answer(connection, retailer_id, scope, key, fingerprint, now_ms)
    if earlier is not None and earlier.fingerprint != fingerprint:
        raise Conflict("idempotency_key_reused", "this Idempotency-Key was sent before with another call or body")
    return earlier


def settle(connection: Connection, retailer_id: str, scope: str, key: str, answer: IdempotentAnswer) -> None:
    """Keep the answer to a key this transaction has claimed."""
    keep_answer(connection, retailer_id, scope, key, answer)


def forget_old(connection: Connection, retailer_id: str, now_ms: int) -> int:
    """Delete answers older than promised; return how many."""
    return forget_answers(connection, retailer_id, now_ms - KEPT_MS)
