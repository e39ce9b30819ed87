"""Reads the core of a Transparency and Consent string, version 2 (IAB Europe TCF): what a visitor agreed to.

Nothing is decided here. Vendors come as ranges and are never spelled out, so that a string of a few bytes cannot name
a hundred million of them.

Source: IAB Tech Lab, Transparency and Consent String with Global Vendor & CMP List Formats v2, "The Core String".
"""

import binascii
from base64 import b64decode
from enum import IntEnum

from msgspec import Struct

VERSION = 2
TEXT_LENGTH_MAX = 16_384
PURPOSE_COUNT = 24

_VERSION_BITS = 6
_SKIPPED_BITS = 36 + 36 + 12 + 12 + 6 + 12 + 12 + 6 + 1 + 1 + 12  # times, CMP, language, list, policy, special features
_ID_BITS = 16
_COUNT_BITS = 12

Range = tuple[int, int]


class TcfUnreadable(ValueError):
    """The text is no TC string of version 2."""


class Restriction(IntEnum):
    """What a publisher asks of vendors for one purpose."""

    NOT_ALLOWED = 0
    REQUIRE_CONSENT = 1
    REQUIRE_LEGITIMATE_INTEREST = 2


class PublisherRestriction(Struct, frozen=True):
    """A publisher's restriction of one purpose, for some vendors."""

    purpose: int
    restriction: int
    vendors: list[Range]


class TcCore(Struct, frozen=True, kw_only=True):
    """What the core segment says.

    Attributes:
        purposes_consented, purposes_legitimate: numbers of the purposes agreed to, and of those disclosed under
            legitimate interest and not objected to.
        is_purpose_one_untold: purpose 1 was not disclosed at all, as the publisher's country does not ask for it.
        vendors_consented, vendors_legitimate: the same of vendors; first and last of each range.
    """

    purposes_consented: frozenset[int]
    purposes_legitimate: frozenset[int]
    is_purpose_one_untold: bool
    vendors_consented: list[Range]
    vendors_legitimate: list[Range]
    restrictions: list[PublisherRestriction]


def read_tc_string(text: str) -> TcCore:
    """Return what a TC string's core segment says; its other segments are not looked at.

    Raises:
        TcfUnreadable: not base64url, of another version, or cut short.
    """
    core = text.partition(".")[0]
    try:
        raw = b64decode(core + "=" * (-len(core) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TcfUnreadable("a TC string must be base64url") from None
    bits = _Bits(raw)
    version = bits.whole(_VERSION_BITS)
    if version != VERSION:
        raise TcfUnreadable(f"a TC string must be of version {VERSION}, was {version}")
    bits.skip(_SKIPPED_BITS)
    purposes_consented, purposes_legitimate = bits.numbers(PURPOSE_COUNT), bits.numbers(PURPOSE_COUNT)
    is_purpose_one_untold = bits.flag()
    bits.skip(12)  # the publisher's country
    return TcCore(
        purposes_consented=frozenset(purposes_consented),
        purposes_legitimate=frozenset(purposes_legitimate),
        is_purpose_one_untold=is_purpose_one_untold,
        vendors_consented=_vendors(bits),
        vendors_legitimate=_vendors(bits),
        restrictions=[
            PublisherRestriction(bits.whole(6), bits.whole(2), _ranges(bits)) for _ in range(bits.whole(_COUNT_BITS))
        ],
    )


def is_in(vendor_id: int, ranges: list[Range]) -> bool:
    """Say whether a vendor is in one of the ranges."""
    return any(first <= vendor_id <= last for first, last in ranges)


class _Bits:
    """Reads numbers off a run of bits, from the first on."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def whole(self, count: int) -> int:
        """Return the number in the next bits."""
        first, self._at = self._at, self._at + count
        if self._at > 8 * len(self._raw):
            raise TcfUnreadable("a TC string must hold its whole core segment, this one is cut short")
        window = self._raw[first >> 3 : (self._at + 7) >> 3]
        return int.from_bytes(window, "big") >> (-self._at % 8) & ((1 << count) - 1)

    def flag(self) -> bool:
        """Return the next bit."""
        return bool(self.whole(1))

    def skip(self, count: int) -> None:
        """Pass over bits."""
        self._at += count

    def numbers(self, count: int) -> list[int]:
        """Return the places, from 1, of the bits that are set among the next."""
        field = f"{self.whole(count):0{count}b}" if count else ""
        return [place for place, bit in enumerate(field, 1) if bit == "1"]


def _vendors(bits: _Bits) -> list[Range]:
    id_max = bits.whole(_ID_BITS)
    is_by_range = bits.flag()
    return _ranges(bits) if is_by_range else [(one, one) for one in bits.numbers(id_max)]


def _ranges(bits: _Bits) -> list[Range]:
    ranges = []
    for _ in range(bits.whole(_COUNT_BITS)):
        is_range, first = bits.flag(), bits.whole(_ID_BITS)
        ranges.append((first, bits.whole(_ID_BITS) if is_range else first))
    return ranges
