"""Keys, made, listed and revoked by an admin through the API, or with `endcap keys` beside a running server."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct
from sqlalchemy.engine import Connection

from affinity.catalog import AdvertiserId
from affinity.navigation import Moment
from affinity.store import ensure_advertisers
from auction.campaign import Name
from bidder_api.access import Role, mint_key
from bidder_api.call import Answer, Call
from bidder_api.errors import Invalid, NotFound
from bidder_api.resources import moment, page_of, read_page
from bidder_api.store import KeyRecord, get_key, insert_key, list_keys, revoke_key

BOUND_ROLES = frozenset({Role.ADVERTISER, Role.AGENCY})
Origin = Annotated[str, Meta(max_length=256, pattern=r"^https?://[a-zA-Z0-9.\-\[\]:]+(?![\s\S])")]


class KeyDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/keys`.

    Attributes:
        role: what the key may be used for.
        advertiser_id: the advertiser an advertiser's key speaks for.
        advertiser_ids: the advertisers an agency's key speaks for.
        origin: the web origin (`https://shop.example`) a site's key may be used from; left out, no web page may use it.
        expires_at: when it stops working by itself.
    """

    role: Role
    name: Name = "unnamed"
    advertiser_id: AdvertiserId | None = None
    advertiser_ids: Annotated[list[AdvertiserId], Meta(max_length=200)] = []
    origin: Origin | None = None
    expires_at: Moment | None = None


class Key(Struct, frozen=True, kw_only=True):
    """A key as it stands; its text is not kept and cannot be shown."""

    key_id: str
    role: str
    name: str
    advertiser_ids: list[str]
    origin: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class NewKey(Key, frozen=True, kw_only=True):
    """A key just made: the only time its text is shown. A repeat with the same Idempotency-Key has `key` null."""

    key: str | None


KeyPage = page_of("Key", Key)


class KeyDesk:
    """The operations on keys, which need what secrets are hashed with."""

    def __init__(self, hash_key: bytes) -> None:
        self._hash_key = hash_key

    def create(self, connection: Connection, call: Call) -> Answer:
        """Make a key."""
        record, text = make_key(connection, call.retailer_id, call.body, self._hash_key, call.now_ms)
        shown = show(record)
        call.log("create", "key", record.key_id, after=shown)
        body = new_key(shown, text)
        return Answer(body=body, kept_body=new_key(shown, None), headers={"Location": f"/v1/keys/{record.key_id}"})

    def list_all(self, connection: Connection, call: Call) -> Answer:
        """Return a page of keys, revoked ones too."""

        def read(after: str | None, limit: int) -> list[KeyRecord]:
            return list_keys(connection, call.retailer_id, after, limit)

        page = read_page(call.query, read, lambda record: record.key_id)
        return Answer(body=page | {"items": [show(record) for record in page["items"]]})

    def read(self, connection: Connection, call: Call) -> Answer:
        """Return one key."""
        return Answer(body=show(_find(connection, call)))

    def revoke(self, connection: Connection, call: Call) -> Answer:
        """Revoke a key; within a second no process lets it in. Revoking it again changes nothing."""
        record = _find(connection, call)
        if record.revoked_at_ms is None:
            revoke_key(connection, call.retailer_id, record.key_id, call.now_ms)
            after = get_key(connection, call.retailer_id, record.key_id)
            assert after is not None
            call.log("revoke", "key", record.key_id, before=show(record), after=show(after))
        return Answer()


def make_key(
    connection: Connection, retailer_id: str, draft: KeyDraft, hash_key: bytes, now_ms: int
) -> tuple[KeyRecord, str]:
    """Make a key and return it with its text; advertisers it names are created if unknown.

    Raises:
        Invalid: the role and what the key is bound to do not fit, or it would be expired from the start.
    """
    advertiser_ids = sorted({*draft.advertiser_ids, *([draft.advertiser_id] if draft.advertiser_id else [])})
    if draft.role is Role.ADVERTISER and len(advertiser_ids) != 1:
        raise Invalid("advertiser_id_missing", "an advertiser's key speaks for one advertiser", "/advertiser_id")
    if draft.role is Role.AGENCY and not advertiser_ids:
        raise Invalid("advertiser_id_missing", "an agency's key speaks for some advertisers", "/advertiser_ids")
    if draft.role not in BOUND_ROLES and advertiser_ids:
        raise Invalid("advertiser_id_not_allowed", f"a key of role {draft.role} speaks for no advertiser", "/role")
    if draft.origin is not None and draft.role is not Role.SITE:
        raise Invalid("origin_wrong", "only a site's key is bound to an origin", "/origin")
    expires_at_ms = None if draft.expires_at is None else int(draft.expires_at.timestamp() * 1000)
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        raise Invalid("expires_in_the_past", "expires_at must be in the future", "/expires_at")
    minted = mint_key(draft.role, hash_key, now_ms)
    record = KeyRecord(
        key_id=minted.key_id,
        secret_hash=minted.secret_hash,
        role=draft.role,
        advertiser_ids=advertiser_ids,
        origin=draft.origin,
        name=draft.name,
        created_at_ms=now_ms,
        expires_at_ms=expires_at_ms,
        revoked_at_ms=None,
    )
    ensure_advertisers(connection, retailer_id, advertiser_ids, now_ms)
    insert_key(connection, retailer_id, record)
    return record, minted.text


def show(record: KeyRecord) -> Key:
    """Return what may be seen of a key."""
    return Key(
        key_id=record.key_id,
        role=record.role,
        name=record.name,
        advertiser_ids=record.advertiser_ids,
        origin=record.origin,
        created_at=moment(record.created_at_ms),
        expires_at=None if record.expires_at_ms is None else moment(record.expires_at_ms),
        revoked_at=None if record.revoked_at_ms is None else moment(record.revoked_at_ms),
    )


def new_key(shown: Key, text: str | None) -> NewKey:
    """Return a key as it is answered when made."""
    return NewKey(**{name: getattr(shown, name) for name in Key.__struct_fields__}, key=text)


def _find(connection: Connection, call: Call) -> KeyRecord:
    record = get_key(connection, call.retailer_id, call.path["key_id"])
    if record is None:
        raise NotFound("key", call.path["key_id"])
    return record
