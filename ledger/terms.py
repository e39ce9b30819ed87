"""The words both sides of a promise to bill share: identifiers, charge bases, and the terms of one charge.

Holds no cryptography (see `beacon.py`) and no database; the auction may import it.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from ledger.money import Micros

# Printable, no control characters, and no line end smuggled in behind the last character.
Identifier = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]

NO_VISITOR = bytes(16)  # the pseudonym of a visitor who gave no consent

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
_PAIRS = [_ALPHABET[pair >> 5] + _ALPHABET[pair & 31] for pair in range(1024)]


class ChargeOn(StrEnum):
    """The outcome that is paid for."""

    IMPRESSION = "impression"
    CLICK = "click"


class ChargeTerms(Struct, frozen=True, gc=False):
    """What a beacon promises: who pays what, for which slot of which auction.

    Attributes:
        auction_id: `auc_…`, as minted by `new_id`.
        slot_position: place in the placement, from 1.
        is_sponsored: False for an organic fill, whose advertiser, campaign, bid and basis are None and price 0. A
            booked fill is sponsored: it has an advertiser and, as its bid, the booking's id, but no basis, and price 0.
        price_micros: clearing price of one event of kind `charge_on`.
        quality_ppm: predicted clicks per million impressions, as it was ranked.
        visitor_pseudonym: 16 bytes, keyed; NO_VISITOR without consent. Never enters the ledger's tables.
        variant: name of the experiment's variant, or None.
        issued_at_ms: UTC, milliseconds since 1970.
    """

    auction_id: str
    placement_id: str
    slot_position: int
    product_id: str
    is_sponsored: bool
    advertiser_id: str | None
    campaign_id: str | None
    bid_id: str | None
    charge_on: ChargeOn | None
    price_micros: Micros
    quality_ppm: int
    visitor_pseudonym: bytes
    variant: str | None
    issued_at_ms: int


def new_id(prefix: str, now_ms: int, entropy: bytes) -> str:
    """Return `prefix_` and 26 characters: 48 bits of time, then 80 of chance, so that ids sort by time.

    Args:
        prefix: kind of thing, such as `cmp` or `auc`.
        now_ms: UTC, milliseconds since 1970, below 2^48.
        entropy: 10 random bytes.
    """
    n = now_ms << 80 | int.from_bytes(entropy, "big")
    p = _PAIRS  # two digits at once: this is on the slot path
    return (
        f"{prefix}_{p[n >> 120]}{p[n >> 110 & 1023]}{p[n >> 100 & 1023]}{p[n >> 90 & 1023]}{p[n >> 80 & 1023]}"
        f"{p[n >> 70 & 1023]}{p[n >> 60 & 1023]}{p[n >> 50 & 1023]}{p[n >> 40 & 1023]}{p[n >> 30 & 1023]}"
        f"{p[n >> 20 & 1023]}{p[n >> 10 & 1023]}{p[n & 1023]}"
    )
