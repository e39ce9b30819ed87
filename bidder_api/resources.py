"""What every resource of the management API shares: lists by keyset, partial changes, and whose things they are."""

import base64
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import fields
from sqlalchemy.engine import Connection

from affinity.store import has_advertiser
from bidder_api.access import Caller, Role
from bidder_api.call import Call
from bidder_api.errors import Invalid, Refused
from ledger.terms import new_id

T = TypeVar("T")

PAGE_SIZE_MAX = 200
PageToken = Annotated[str, Meta(min_length=1, max_length=1024)]


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of a list.

    Attributes:
        page_size: most items answered.
        page_token: where to go on, as the page before answered it.
    """

    page_size: Annotated[int, Meta(ge=1, le=PAGE_SIZE_MAX)] = 50
    page_token: PageToken | None = None


def page_of(name: str, item: Any) -> type[Struct]:
    """Return the type of one page of a list of `item`."""
    made: type[Struct] = msgspec.defstruct(
        f"{name}Page", [("items", list[item]), ("next_page_token", str | None, None)], frozen=True
    )
    made.__doc__ = "One page of a list; `next_page_token` is null on the last."
    return made


def read_page(query: Any, read: Callable[[str | None, int], Sequence[T]], key: Callable[[T], str]) -> dict[str, Any]:
    """Return one page, and the token of the next if there is one.

    Args:
        query: a PageQuery.
        read: reads so many items after a key.
        key: what the items are ordered by.
    """
    items = list(read(parse_page_token(query.page_token), query.page_size + 1))
    has_more = len(items) > query.page_size
    items = items[: query.page_size]
    return {"items": items, "next_page_token": page_token(key(items[-1])) if has_more else None}


def page_token(after: str) -> str:
    """Return the opaque token of what follows a key."""
    return base64.urlsafe_b64encode(b"1" + after.encode()).rstrip(b"=").decode()


def parse_page_token(token: str | None) -> str | None:
    """Return the key a token stands for.

    Raises:
        Refused: it is none of ours.
    """
    if token is None:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        if raw[:1] == b"1" and len(raw) > 1 and b"\0" not in raw:
            return raw[1:].decode()
    except ValueError:
        pass
    refusal = Refused("page_token_invalid", "page_token must be a next_page_token of this list")
    refusal.parameter = "page_token"
    raise refusal


def patch_type(draft: type[Struct], name: str, leave_out: Iterable[str] = ()) -> type[Struct]:
    """Return the type of a partial change: `draft` with every field optional, and null only where it was allowed."""
    hints = get_type_hints(draft, include_extras=True)
    made: type[Struct] = msgspec.defstruct(
        name,
        [(field.name, hints[field.name] | UnsetType, UNSET) for field in fields(draft) if field.name not in leave_out],
        frozen=True,
        forbid_unknown_fields=True,
        kw_only=True,
    )
    made.__doc__ = "A partial change: only what is given changes."
    return made


def given(patch: Struct) -> dict[str, Any]:
    """Return the fields a partial change gives."""
    return {name: value for name, value in msgspec.structs.asdict(patch).items() if value is not UNSET}


def make_id(prefix: str, call: Call) -> str:
    """Return a new id."""
    return new_id(prefix, call.now_ms, secrets.token_bytes(10))


def moment(now_ms: int) -> datetime:
    """Return a time in milliseconds since 1970 as a moment in UTC."""
    return datetime.fromtimestamp(now_ms // 1000, UTC).replace(microsecond=now_ms % 1000 * 1000)


def own_advertiser(connection: Connection, call: Call, named: str | None) -> str:
    """Return the advertiser a new thing shall belong to.

    Raises:
        Invalid: the caller may not name one, must name one, or named one that is not there for it.
    """
    caller = call.caller
    if caller.role == Role.ADVERTISER:
        if named is not None:
            raise Invalid(
                "advertiser_id_not_allowed", "only an admin or agency may name an advertiser", "/advertiser_id"
            )
        assert caller.advertiser_id is not None
        return caller.advertiser_id
    if named is None:
        if caller.advertiser_id is None:
            raise Invalid("advertiser_id_missing", "name the advertiser this is for", "/advertiser_id")
        return caller.advertiser_id
    is_known = (
        named in caller.advertiser_ids
        if caller.role == Role.AGENCY
        else has_advertiser(connection, call.retailer_id, named)
    )
    if not is_known:
        raise Invalid("advertiser_unknown", f"there is no advertiser {named!r}", "/advertiser_id")
    return named


def sees(caller: Caller, advertiser_id: str) -> bool:
    """Say whether a thing of that advertiser exists for the caller."""
    return caller.role not in (Role.ADVERTISER, Role.AGENCY) or advertiser_id in caller.advertiser_ids


def tenants(caller: Caller, named: str | None = None) -> Sequence[str | None]:
    """Return the advertisers whose things the caller sees, of the named one only if any is; None is everybody's."""
    if named is not None:
        return [named] if sees(caller, named) else []
    if caller.role in (Role.ADVERTISER, Role.AGENCY):
        return sorted(caller.advertiser_ids)
    return [None]


def read_of_tenants(
    caller: Caller,
    read: Callable[[str | None], Sequence[T]],
    key: Callable[[T], str],
    limit: int,
    named: str | None = None,
) -> list[T]:
    """Return the first `limit` things, by key, of all advertisers the caller sees, or of the named one."""
    return sorted([item for tenant in tenants(caller, named) for item in read(tenant)], key=key)[:limit]
