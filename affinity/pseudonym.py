"""Who a visitor is to us: a keyed hash of the id the retailer sends. Raw ids never reach a disk."""

from hashlib import blake2b

PSEUDONYM_SIZE = 16
NO_VISITOR = bytes(PSEUDONYM_SIZE)


class Pseudonymizer:
    """Turns raw ids of visitors and customers into pseudonyms, always the same under one key.

    Visitors and customers share one space of ids: a CRM that knows a person as `c-1` writes the profile of `c-1`,
    and a visitor linked to customer `c-1` has that profile.

    Args:
        key: 16 to 64 secret bytes; whoever has it can tell whether an id they know is here.
    """

    def __init__(self, key: bytes) -> None:
        if not 16 <= len(key) <= 64:
            raise ValueError(f"key must be 16 to 64 bytes, was {len(key)}")
        self._visitors = blake2b(key=key, digest_size=PSEUDONYM_SIZE, person=b"endcap visitor")
        self._events = blake2b(key=key, digest_size=8, person=b"endcap event")

    def of(self, visitor_id: str) -> bytes:
        """Return the 16 bytes a visitor or customer is kept under."""
        hashed = self._visitors.copy()
        hashed.update(visitor_id.encode())
        return hashed.digest()

    def of_event(self, event_id: str, pseudonym: bytes) -> int:
        """Return what a visitor's event id is remembered as: 63 bits, never 0."""
        hashed = self._events.copy()
        hashed.update(pseudonym)
        hashed.update(event_id.encode())
        return int.from_bytes(hashed.digest(), "little") >> 1 or 1
