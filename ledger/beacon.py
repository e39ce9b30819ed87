"""Beacon tokens: self-contained promises to bill, sealed so that a browser can carry but neither read nor change them.

Holds the binary layout, the keys and their daily rotation; no database and no decision about billing.

A token is base64url without padding over::

    1   layout version
    1   key id (which of the configured master keys)
    12  nonce: 6 bytes of issue time (ms since 1970), 6 bytes that differ for every token of that millisecond
    n   AES-256-GCM of the terms, under the key of that UTC day; the two bytes before the nonce are authenticated too
    16  tag

The terms are, big-endian: flags (1), how each id is written (1), slot position (2), price (8), quality (4), the ids of
auction, advertiser, campaign and bid (each absent, 16 bytes, or length and text), placement and product (length and
text), then variant (length and text) and visitor pseudonym (16) where the flags say so. An id of the form `new_id`
gives is always written as 16 bytes, so equal terms have one encoding.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
from collections.abc import Mapping
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from ledger.errors import BeaconRefused
from ledger.money import Micros
from ledger.terms import NO_VISITOR, ChargeOn, ChargeTerms

LAYOUT_VERSION = 1
SECRET_BYTES_MIN = 32
KEY_ID_MAX = 255
TOKEN_LENGTH_MAX = 4096  # longer ones are refused unread; ours stay under 400 characters with ids of `new_id`'s form
PREVIOUS_DAY_COUNT = 2  # a token lives at most a day, so the day before and one more for skewed clocks
CLOCK_SKEW_MS_MAX = 60_000  # how far in the future another process's clock may have issued a token

_DAY_MS = 86_400_000
_FIXED = struct.Struct(">BBHQI")
_LENGTH = struct.Struct(">H")
_SPONSORED, _CHARGED, _ON_CLICK, _VARIANT, _VISITOR = 1, 2, 4, 8, 16
_ABSENT, _PACKED, _TEXT = 0, 1, 2
_ALL_PACKED = _PACKED << 6 | _PACKED << 4 | _PACKED << 2 | _PACKED
_BASIS = {0: None, _CHARGED: ChargeOn.IMPRESSION, _CHARGED | _ON_CLICK: ChargeOn.CLICK}
_CROCKFORD = b"0123456789abcdefghjkmnpqrstvwxyz"
_PYTHON_32 = b"0123456789abcdefghijklmnopqrstuv"
_TO_PYTHON = bytes(
    _PYTHON_32[_CROCKFORD.index(byte)] if byte in _CROCKFORD else ord("!") for byte in range(256)
)  # "!" makes int() refuse
_TO_URL = bytes.maketrans(b"+/", b"-_")
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")  # "!" is in no alphabet: the standard one's signs are refused
_PADDING = (b"", b"=", b"==", b"=")  # a length of 1 modulo 4 is refused by the decoder whatever follows
_RAW_BYTES_MIN = 14 + 16 + 16
_PAIRS = [chr(_CROCKFORD[n >> 5]) + chr(_CROCKFORD[n & 31]) for n in range(1024)]
_CACHED_ID_COUNT_MAX = 100_000


class Beacon(Struct, frozen=True, gc=False):
    """A redeemed token: what was promised, and the name the ledger knows the promise by.

    Attributes:
        token_id: 24 hexadecimal digits, ordered by issue time; charges are once per (token_id, event type).
    """

    token_id: str
    terms: ChargeTerms


class BeaconKeys:
    """Seals and redeems tokens. One per process; not shared between threads that seal.

    Args:
        secrets_by_id: master secrets, each at least 32 bytes, by a number from 0 to 255.
        sealing_id: the one new tokens are made with; the others are only accepted.
        first_count: where the counter in the nonces starts; chance, so that processes do not meet.
    """

    def __init__(self, secrets_by_id: Mapping[int, bytes], sealing_id: int, first_count: int | None = None) -> None:
        if sealing_id not in secrets_by_id:
            raise ValueError(f"sealing_id must be one of {sorted(secrets_by_id)}, was {sealing_id}")
        for key_id, secret in secrets_by_id.items():
            if not 0 <= key_id <= KEY_ID_MAX or len(secret) < SECRET_BYTES_MIN:
                raise ValueError(f"beacon key {key_id} must have an id up to 255 and at least {SECRET_BYTES_MIN} bytes")
        self._secrets = dict(secrets_by_id)
        self._sealing_id = sealing_id
        self._sealing_head = bytes([LAYOUT_VERSION, sealing_id])
        self._ciphers: dict[tuple[int, int], AESGCM] = {}
        self._sealing_day = 0  # 1970-01-01, and the cipher of the day that was sealed last
        self._sealing_cipher = self._cipher(sealing_id, 0)
        self._count = secrets.randbits(48) if first_count is None else first_count
        self._packed: dict[tuple[str | None, str | None, str | None, str, str], tuple[int, bytes]] = {}
        self._auction_id: str | None = None  # the one that was packed last
        self._auction = (_ABSENT, b"")
        self._unpacked: dict[bytes, str] = {}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `id:secret,id:secret…`, secrets in base64url; the first one seals, all are accepted.

        Raises:
            ValueError: the rule that was broken; never the secret.
        """
        secrets_by_id: dict[int, bytes] = {}
        first: int | None = None
        for part in text.split(","):
            key_id, colon, secret = part.strip().partition(":")
            if not colon or not key_id.isdecimal() or int(key_id) in secrets_by_id:
                raise ValueError("beacon keys must be id:secret pairs with ids of their own, separated by commas")
            try:
                secrets_by_id[int(key_id)] = base64.b64decode(
                    secret + "=" * (-len(secret) % 4), altchars=b"-_", validate=True
                )
            except (binascii.Error, ValueError) as refusal:
                raise ValueError(f"beacon key {key_id} must be base64url") from refusal
            first = int(key_id) if first is None else first
        assert first is not None
        return cls(secrets_by_id, first)

    @staticmethod
    def generate(key_id: int = 1) -> str:
        """Return the text of one new random key, as `parse` reads it."""
        return f"{key_id}:{base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip('=')}"

    def seal_beacon(self, terms: ChargeTerms) -> str:
        """Return the token that promises `terms`; no two are alike, even for equal terms."""
        self._count = count = (self._count + 1) & 0xFFFF_FFFF_FFFF
        day = terms.issued_at_ms // _DAY_MS
        if day != self._sealing_day:
            self._sealing_day, self._sealing_cipher = day, self._cipher(self._sealing_id, day)
        head, nonce = self._sealing_head, (terms.issued_at_ms << 48 | count).to_bytes(12, "big")
        sealed = self._sealing_cipher.encrypt(nonce, self._encode(terms), head)
        return binascii.b2a_base64(head + nonce + sealed, newline=False).translate(_TO_URL).rstrip(b"=").decode()

    def redeem_beacon(self, token: str, now_ms: int) -> Beacon:
        """Return what `token` promises.

        How long a promise holds depends on what is reported, so that is for the caller to check (see `intake.py`).

        Raises:
            BeaconRefused: `forged` (not ours, changed, or encoded in another way), `expired` (its day's key is no
                longer accepted) or `from_the_future`.
        """
        if len(token) > TOKEN_LENGTH_MAX:
            raise BeaconRefused("forged")
        try:
            standard = token.encode("ascii").translate(_TO_STANDARD) + _PADDING[len(token) & 3]
            raw = binascii.a2b_base64(standard)
        except (binascii.Error, UnicodeEncodeError):
            raise BeaconRefused("forged") from None
        if len(raw) < _RAW_BYTES_MIN or binascii.b2a_base64(raw, newline=False) != standard:
            raise BeaconRefused("forged")
        key_id = raw[1]
        if raw[0] != LAYOUT_VERSION or key_id not in self._secrets:
            raise BeaconRefused("forged")
        nonce = raw[2:14]
        issued_at_ms = int.from_bytes(nonce[:6], "big")
        issued_day = issued_at_ms // _DAY_MS
        if issued_day < now_ms // _DAY_MS - PREVIOUS_DAY_COUNT:
            raise BeaconRefused("expired")
        if issued_at_ms > now_ms + CLOCK_SKEW_MS_MAX:
            raise BeaconRefused("from_the_future")
        try:
            plain = self._cipher(key_id, issued_day).decrypt(nonce, raw[14:], raw[:2])
        except InvalidTag:
            raise BeaconRefused("forged") from None
        return Beacon(nonce.hex(), _decode(plain, issued_at_ms, self._unpacked))

    def _cipher(self, key_id: int, day: int) -> AESGCM:
        """Return the cipher of one day. Days the caller has bounded, so that few are kept."""
        cipher = self._ciphers.get((key_id, day))
        if cipher is None:
            if len(self._ciphers) >= 64:
                self._ciphers.clear()
            message = b"endcap beacon" + day.to_bytes(8, "big")
            cipher = AESGCM(hmac.digest(self._secrets[key_id], message, hashlib.sha256))
            self._ciphers[key_id, day] = cipher
        return cipher

    def _encode(self, terms: ChargeTerms) -> bytes:
        charge_on, variant, pseudonym = terms.charge_on, terms.variant, terms.visitor_pseudonym
        auction_id = terms.auction_id
        if auction_id != self._auction_id:  # a page's tokens come one after the other
            self._auction_id, self._auction = auction_id, _pack_id(auction_id, "auc_")
        names = terms.advertiser_id, terms.campaign_id, terms.bid_id, terms.placement_id, terms.product_id
        packed = self._packed.get(names)
        if packed is None:
            if len(self._packed) >= _CACHED_ID_COUNT_MAX:
                self._packed.clear()
            packed = self._packed[names] = _pack_names(*names)
        auction_form, auction = self._auction
        forms, rest = packed
        flags = _SPONSORED if terms.is_sponsored else 0
        if charge_on is not None:
            flags |= _CHARGED | _ON_CLICK if charge_on is ChargeOn.CLICK else _CHARGED
        if variant is not None:
            flags |= _VARIANT
            rest += _prefixed(variant)
        if pseudonym != NO_VISITOR:
            if len(pseudonym) != 16:
                raise ValueError(f"visitor_pseudonym must have 16 bytes, had {len(pseudonym)}")
            flags |= _VISITOR
            rest += pseudonym
        fixed = _FIXED.pack(
            flags, auction_form << 6 | forms, terms.slot_position, terms.price_micros, terms.quality_ppm
        )
        return fixed + auction + rest


def _pack_names(
    advertiser_id: str | None, campaign_id: str | None, bid_id: str | None, placement_id: str, product_id: str
) -> tuple[int, bytes]:
    """Return how a bid's ids are written, and the bytes of them, of the placement and of the product."""
    forms, parts = 0, b""
    for text, prefix in ((advertiser_id, "adv_"), (campaign_id, "cmp_"), (bid_id, "bid_")):
        form, packed = _pack_id(text, prefix)
        forms, parts = forms << 2 | form, parts + packed
    return forms, parts + _prefixed(placement_id) + _prefixed(product_id)


def _pack_id(text: str | None, prefix: str) -> tuple[int, bytes]:
    """Return how an id is written, and its bytes."""
    if text is None:
        return _ABSENT, b""
    if len(text) == 30 and text.startswith(prefix) and text.isascii() and text[4] < "8":
        digits = text[4:].encode().translate(_TO_PYTHON)
        if b"!" not in digits:
            return _PACKED, int(digits, 32).to_bytes(16, "big")
    return _TEXT, _prefixed(text)


def _unpack_id(packed: bytes, prefix: str) -> str:
    n = int.from_bytes(packed, "big")
    p = _PAIRS
    return (
        f"{prefix}{p[n >> 120]}{p[n >> 110 & 1023]}{p[n >> 100 & 1023]}{p[n >> 90 & 1023]}{p[n >> 80 & 1023]}"
        f"{p[n >> 70 & 1023]}{p[n >> 60 & 1023]}{p[n >> 50 & 1023]}{p[n >> 40 & 1023]}{p[n >> 30 & 1023]}"
        f"{p[n >> 20 & 1023]}{p[n >> 10 & 1023]}{p[n & 1023]}"
    )


def _prefixed(text: str) -> bytes:
    encoded = text.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def _decode(plain: bytes, issued_at_ms: int, unpacked: dict[bytes, str]) -> ChargeTerms:
    """Read the terms back. `plain` was authenticated, so it is ours and well formed."""
    flags, forms, slot_position, price_micros, quality_ppm = _FIXED.unpack_from(plain)
    if forms == _ALL_PACKED:  # by far the most, and this is the hot path
        auction_id: str | None = _unpack_id(plain[16:32], "auc_")
        advertiser_id: str | None = _unpack_known(b"adv_" + plain[32:48], unpacked)
        campaign_id: str | None = _unpack_known(b"cmp_" + plain[48:64], unpacked)
        bid_id: str | None = _unpack_known(b"bid_" + plain[64:80], unpacked)
        offset = 80
    else:
        auction_id, offset = _read_id(plain, 16, forms >> 6, b"auc_", unpacked)
        advertiser_id, offset = _read_id(plain, offset, forms >> 4 & 3, b"adv_", unpacked)
        campaign_id, offset = _read_id(plain, offset, forms >> 2 & 3, b"cmp_", unpacked)
        bid_id, offset = _read_id(plain, offset, forms & 3, b"bid_", unpacked)
    placement_id, offset = _read_text(plain, offset)
    product_id, offset = _read_text(plain, offset)
    variant = None
    if flags & _VARIANT:
        variant, offset = _read_text(plain, offset)
    pseudonym = NO_VISITOR
    if flags & _VISITOR:
        pseudonym = plain[offset : offset + 16]
        offset += 16
    assert auction_id is not None
    assert offset == len(plain)
    return ChargeTerms(
        auction_id,
        placement_id,
        slot_position,
        product_id,
        flags & _SPONSORED != 0,
        advertiser_id,
        campaign_id,
        bid_id,
        _BASIS[flags & (_CHARGED | _ON_CLICK)],
        Micros(price_micros),
        quality_ppm,
        pseudonym,
        variant,
        issued_at_ms,
    )


def _read_id(plain: bytes, offset: int, form: int, prefix: bytes, unpacked: dict[bytes, str]) -> tuple[str | None, int]:
    if form == _PACKED:
        packed = plain[offset : offset + 16]
        if prefix == b"auc_":
            return _unpack_id(packed, "auc_"), offset + 16
        return _unpack_known(prefix + packed, unpacked), offset + 16
    if form == _TEXT:
        return _read_text(plain, offset)
    return None, offset


def _unpack_known(key: bytes, unpacked: dict[bytes, str]) -> str:
    """Return the id of a thing that many tokens name: four bytes of prefix, then the packed ones."""
    text = unpacked.get(key)
    if text is None:
        if len(unpacked) >= _CACHED_ID_COUNT_MAX:
            unpacked.clear()
        text = unpacked[key] = _unpack_id(key[4:], key[:4].decode())
    return text


def _read_text(plain: bytes, offset: int) -> tuple[str, int]:
    start = offset + 2
    end = start + (plain[offset] << 8 | plain[offset + 1])
    return plain[start:end].decode(), end
