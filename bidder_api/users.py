"""People who sign in to the console by name and password; keys are for programs, and let in to the console too.

Passwords are kept as scrypt makes them (RFC 7914), each with a salt of its own. `endcap users` makes and disables users
beside a running server.
"""

import base64
import hashlib
import hmac
import secrets
import unicodedata
from typing import Annotated

from msgspec import Meta, Struct
from sqlalchemy.engine import Connection

from affinity.catalog import AdvertiserId
from affinity.store import ensure_advertisers
from bidder_api.access import Role
from bidder_api.errors import Conflict, Invalid
from bidder_api.keys import BOUND_ROLES
from bidder_api.store import UserRecord, insert_user, list_users
from ledger.terms import new_id

LOG2_N, R, P = 15, 8, 3  # 32 MiB and about a fifth of a second; as OWASP's password storage cheat sheet has it
PASSWORD_LENGTH_MIN, PASSWORD_LENGTH_MAX = 12, 256

UserName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._@+-]*(?![\s\S])")]


class UserDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A user to be made; an advertiser's speaks for one advertiser, an agency's for some."""

    name: UserName
    role: Role
    advertiser_ids: Annotated[list[AdvertiserId], Meta(max_length=200)] = []


class User(Struct, frozen=True, kw_only=True):
    """A user as the change log has it: nothing of its password."""

    user_id: str
    name: str
    role: str
    advertiser_ids: list[str]


def make_user(connection: Connection, retailer_id: str, draft: UserDraft, password: str, now_ms: int) -> UserRecord:
    """Make a user; advertisers it names are created if unknown.

    Raises:
        Conflict: the name is taken.
        Invalid: role and advertisers do not fit, or the password is too short or too long.
    """
    advertiser_ids = sorted(set(draft.advertiser_ids))
    if draft.role is Role.SITE:
        raise Invalid("role_not_allowed", "a site is no user", "/role")
    if (draft.role in BOUND_ROLES) != bool(advertiser_ids):
        raise Invalid(
            "advertiser_id_missing" if draft.role in BOUND_ROLES else "advertiser_id_not_allowed",
            "advertisers and agencies speak for advertisers, and nobody else does",
            "/advertiser_ids",
        )
    if draft.role is Role.ADVERTISER and len(advertiser_ids) != 1:
        raise Invalid("advertiser_id_missing", "an advertiser speaks for one advertiser", "/advertiser_ids")
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        raise Invalid(
            "password_length",
            f"a password must have {PASSWORD_LENGTH_MIN} to {PASSWORD_LENGTH_MAX} characters",
            "/password",
        )
    if any(user.name == draft.name for user in list_users(connection, retailer_id)):
        raise Conflict("name_taken", f"there is a user {draft.name!r} already", "/name")
    record = UserRecord(
        user_id=new_id("usr", now_ms, secrets.token_bytes(10)),
        name=draft.name,
        password_hash=hash_password(password),
        role=draft.role,
        advertiser_ids=advertiser_ids,
        created_at_ms=now_ms,
        disabled_at_ms=None,
    )
    ensure_advertisers(connection, retailer_id, advertiser_ids, now_ms)
    insert_user(connection, retailer_id, record)
    return record


def show(record: UserRecord) -> User:
    """Return what may be seen of a user."""
    return User(user_id=record.user_id, name=record.name, role=record.role, advertiser_ids=record.advertiser_ids)


def hash_password(password: str) -> str:
    """Return what is kept of a password: `scrypt$log2 N$r$p$salt$hash`; takes time on purpose."""
    salt = secrets.token_bytes(16)
    made = _scrypt(password, salt, LOG2_N, R, P)
    return "$".join(["scrypt", str(LOG2_N), str(R), str(P), *(base64.b64encode(one).decode() for one in (salt, made))])


def is_password(password: str, kept: str) -> bool:
    """Say whether a password is the one that is kept; takes as long either way."""
    _, log2_n, r, p, salt, made = kept.split("$")
    asked = _scrypt(password, base64.b64decode(salt), int(log2_n), int(r), int(p))
    return hmac.compare_digest(asked, base64.b64decode(made))


def _scrypt(password: str, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    typed = unicodedata.normalize("NFKC", password[: PASSWORD_LENGTH_MAX + 1]).encode("utf-8", "replace")
    n = 1 << log2_n
    return hashlib.scrypt(typed, salt=salt, n=n, r=r, p=p, maxmem=2 * 128 * n * r, dklen=32)
