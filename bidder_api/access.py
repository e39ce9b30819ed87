"""Keys and users, and whom they speak for.

A key is `ec_sk_<id>_<secret>_<checksum>` (`ec_pk_…` for the publishable keys of sites). Only a keyed hash of its secret
is kept, so neither the database nor a log can give it back. The tenant of a call comes from its key and from nowhere
else.
"""

import hashlib
import hmac
import secrets
import threading
import zlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct
from sqlalchemy.engine import Connection
from starlette.concurrency import run_in_threadpool

from bidder_api.database import Database
from bidder_api.errors import Unauthenticated
from bidder_api.store import KeyRecord, UserRecord, list_users, read_key_version, read_live_keys
from ledger.terms import new_id

REFRESH_INTERVAL_S = 0.25  # a revoked key stops working within this and one query
KNOWN_COUNT_MAX = 10_000
SECRET_BYTES = 32
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_SECRET_LENGTH: Final = 52  # 256 bits, 5 a character
_CHECKSUM_LENGTH: Final = 7


class Role(StrEnum):
    """What a key may be used for."""

    SITE = "site"
    RETAILER = "retailer"
    ADVERTISER = "advertiser"
    AGENCY = "agency"
    MERCHANT = "merchant"
    CRM = "crm"
    FINANCE = "finance"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Caller(Struct, frozen=True):
    """Whom a call is from, as its key says.

    Attributes:
        role: what the key may be used for.
        advertiser_id: the advertiser it speaks for; None for the retailer's own staff and for an agency of several.
        key_id: `key_…`, or `usr_…` of a user signed in to the console, for the change log.
        advertiser_ids: every advertiser it speaks for; empty means the role is not bound to any.
        origin: for a site's key, the only web origin it may be used from.
    """

    role: str
    advertiser_id: str | None
    key_id: str
    advertiser_ids: frozenset[str] = frozenset()
    origin: str | None = None


class MintedKey(Struct, frozen=True):
    """A new key: its text is shown once, the rest is kept."""

    text: str
    key_id: str
    secret_hash: bytes


def derive_secret(master: bytes, purpose: str) -> bytes:
    """Return 32 bytes for one purpose, from which neither the master nor another purpose's can be told."""
    return HKDF(SHA256(), 32, salt=None, info=b"endcap " + purpose.encode()).derive(master)


def mint_key(role: Role, hash_key: bytes, now_ms: int) -> MintedKey:
    """Make a new key with 256 bits of chance in it."""
    key_id = new_id("key", now_ms, secrets.token_bytes(10))
    secret = _base32(int.from_bytes(secrets.token_bytes(SECRET_BYTES), "big"), _SECRET_LENGTH)
    stem = f"ec_{'pk' if role is Role.SITE else 'sk'}_{key_id.removeprefix('key_')}_{secret}"
    return MintedKey(f"{stem}_{_checksum(stem)}", key_id, hash_secret(hash_key, secret))


def parse_key(text: str) -> tuple[str, str] | None:
    """Return the id and the secret of a key, None where its form or checksum is wrong (no look-up needed then)."""
    stem, _, checksum = text.rpartition("_")
    parts = stem.split("_")
    if len(parts) != 4 or parts[0] != "ec" or parts[1] not in ("sk", "pk"):
        return None
    if len(parts[3]) != _SECRET_LENGTH or not hmac.compare_digest(checksum.encode(), _checksum(stem).encode()):
        return None
    return "key_" + parts[2], parts[3]


def hash_secret(hash_key: bytes, secret: str) -> bytes:
    """Return what is kept of a secret."""
    return hmac.digest(hash_key, secret.encode(), "sha256")


class Keyring:
    """Every live key, and every user of the console, in memory; follows the database a few times a second.

    Args:
        database: where the keys are kept.
        retailer_id: whose.
        hash_key: what their secrets are hashed with.
        clock_ms: UTC, milliseconds since 1970.
    """

    def __init__(self, database: Database, retailer_id: str, hash_key: bytes, clock_ms: Callable[[], int]) -> None:
        self._database = database
        self._retailer_id = retailer_id
        self._hash_key = hash_key
        self._clock_ms = clock_ms
        self._version = -1
        self._records: dict[str, KeyRecord] = {}
        self._users: dict[str, UserRecord] = {}
        self._known: dict[bytes, tuple[Caller, int]] = {}  # digest of the header: whom, and until when
        self._refreshing = threading.Lock()

    def known_caller(self, authorization: bytes) -> Caller | None:
        """Return whom an `Authorization` header that was checked before is from, without any waiting."""
        entry = self._known.get(_fingerprint(authorization))
        return entry[0] if entry is not None and entry[1] > self._clock_ms() else None

    async def identify(self, authorization: bytes) -> Caller:
        """Return whom an `Authorization` header is from.

        Raises:
            Unauthenticated: no key, or one that is not (or no longer) valid; which of these is not told.
        """
        scheme, _, credential = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthenticated("key_missing", "send the key as: Authorization: Bearer <key>")
        parsed = parse_key(credential.strip().decode("ascii", "replace"))
        if parsed is not None:
            key_id, secret = parsed
            if key_id not in self._records:
                await self.refresh()  # perhaps it was made a moment ago, by another process
            record = self._records.get(key_id)
            if record is not None and hmac.compare_digest(record.secret_hash, hash_secret(self._hash_key, secret)):
                expires_at_ms = record.expires_at_ms if record.expires_at_ms is not None else 1 << 62
                if expires_at_ms > self._clock_ms():
                    caller = caller_of_key(record)
                    if len(self._known) >= KNOWN_COUNT_MAX:
                        self._known.clear()
                    self._known[_fingerprint(authorization)] = (caller, expires_at_ms)
                    return caller
        raise Unauthenticated("key_invalid", "the key is not valid: unknown, mistyped, expired or revoked")

    def caller_known_as(self, subject_id: str) -> Caller | None:
        """Return whom a live key (`key_…`) or user (`usr_…`) speaks for, None where it is not, or no longer, there."""
        user = self._users.get(subject_id)
        if user is not None:
            return caller_of(user.user_id, user.role, user.advertiser_ids)
        key = self._records.get(subject_id)
        if key is None or (key.expires_at_ms is not None and key.expires_at_ms <= self._clock_ms()):
            return None
        return caller_of_key(key)

    def name_of(self, subject_id: str) -> str:
        """Return what a key or user is called."""
        found = self._users.get(subject_id) or self._records.get(subject_id)
        return subject_id if found is None else found.name

    def user_named(self, name: str) -> UserRecord | None:
        """Return the user of a name who may sign in."""
        return next((user for user in self._users.values() if user.name == name), None)

    async def refresh(self) -> None:
        """Read keys and users again if any changed."""
        await run_in_threadpool(self.refresh_now)

    def refresh_now(self) -> None:
        """Read keys and users again if any changed; blocks."""

        def work(connection: Connection) -> tuple[int, Sequence[KeyRecord], Sequence[UserRecord]] | None:
            version = read_key_version(connection, self._retailer_id)
            if version == self._version:
                return None
            return (
                version,
                read_live_keys(connection, self._retailer_id),
                list_users(connection, self._retailer_id),
            )

        with self._refreshing:
            fresh = self._database.read(work)
            if fresh is not None:
                self._version, records, users = fresh
                self._records = {record.key_id: record for record in records}
                self._users = {user.user_id: user for user in users if user.disabled_at_ms is None}
                self._known = {}


def caller_of_key(record: KeyRecord) -> Caller:
    """Return whom a key speaks for."""
    return caller_of(record.key_id, record.role, record.advertiser_ids, record.origin)


def caller_of(subject_id: str, role: str, advertiser_ids: Sequence[str], origin: str | None = None) -> Caller:
    """Return whom a key or user of a role speaks for."""
    only = advertiser_ids[0] if len(advertiser_ids) == 1 else None
    return Caller(role, only, subject_id, frozenset(advertiser_ids), origin)


def _fingerprint(authorization: bytes) -> bytes:
    """Return what a header is remembered by, so that no secret is; on the slot path."""
    return hashlib.blake2b(authorization, digest_size=16).digest()


def _checksum(stem: str) -> str:
    return _base32(zlib.crc32(stem.encode()), _CHECKSUM_LENGTH)


def _base32(number: int, length: int) -> str:
    return "".join([_ALPHABET[number >> shift & 31] for shift in range(5 * (length - 1), -1, -5)])
