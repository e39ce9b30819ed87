"""What an advertiser saves under a name and writes bids with: audiences and navigation patterns live the same life."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from affinity.store import next_change_seq
from bidder_api.call import Answer, Call, check_match, etag
from bidder_api.errors import Conflict, NotFound
from bidder_api.resources import given, make_id, moment, own_advertiser, read_of_tenants, read_page, sees

S = TypeVar("S", bound=Any)  # a struct with advertiser_id, status, updated_at, change_seq and its own id


class SavedKind(Generic[S]):
    """The operations on one kind of saved thing.

    Args:
        kind: its word, of which `<kind>_id` is made.
        path: where it is listed.
        prefix: of its ids.
        make: builds one from its fields.
        check: refuses content that cannot be; with the connection, the retailer and the thing.
        insert, get, list_some, update: the store's functions.
        show: adds to one what only the serving process knows.
    """

    def __init__(
        self,
        *,
        kind: str,
        path: str,
        prefix: str,
        make: Callable[..., S],
        check: Callable[[Connection, str, S], None],
        insert: Callable[[Connection, str, S], None],
        get: Callable[[Connection, str, str], S | None],
        list_some: Callable[[Connection, str, str | None, str | None, int], list[S]],
        update: Callable[[Connection, str, S], bool],
        show: Callable[[S], object],
    ) -> None:
        self._kind, self._path, self._prefix, self._id_field = kind, path, prefix, f"{kind}_id"
        self._make, self._check, self._show = make, check, show
        self._insert, self._get, self._list_some, self._update = insert, get, list_some, update

    def create(self, connection: Connection, call: Call) -> Answer:
        """Save a new one."""
        draft: Struct = call.body
        values = msgspec.structs.asdict(draft)
        values["advertiser_id"] = own_advertiser(connection, call, values["advertiser_id"])
        now = moment(call.now_ms)
        made = self._make(
            **values,
            **{self._id_field: make_id(self._prefix, call)},
            status="active",
            created_at=now,
            updated_at=now,
            change_seq=next_change_seq(connection, call.retailer_id),
        )
        self._check(connection, call.retailer_id, made)
        self._insert(connection, call.retailer_id, made)
        call.log("create", self._kind, self._id_of(made), after=made)
        headers = {"ETag": etag(made.change_seq), "Location": f"{self._path}/{self._id_of(made)}"}
        return Answer(body=self._show(made), headers=headers)

    def read(self, connection: Connection, call: Call) -> Answer:
        """Return one."""
        found = self._find(connection, call)
        return Answer(body=self._show(found), headers={"ETag": etag(found.change_seq)})

    def list_own(self, connection: Connection, call: Call) -> Answer:
        """Return a page of the caller's."""

        def read(after: str | None, limit: int) -> list[S]:
            return read_of_tenants(
                call.caller,
                lambda tenant: self._list_some(connection, call.retailer_id, tenant, after, limit),
                self._id_of,
                limit,
            )

        return Answer(body=read_page(call.query, read, self._id_of))

    def change(self, connection: Connection, call: Call) -> Answer:
        """Change some of one. Bids written with it keep what they were written with."""
        before = self._find(connection, call)
        check_match(call, before.change_seq)
        if before.status == "archived":
            raise Conflict(f"{self._kind}_archived", "what is archived cannot be changed")
        after = self._store(connection, call, "update", before, given(call.body))
        return Answer(body=self._show(after), headers={"ETag": etag(after.change_seq)})

    def archive(self, connection: Connection, call: Call) -> Answer:
        """Archive one. Archiving it again changes nothing."""
        before = self._find(connection, call)
        check_match(call, before.change_seq)
        if before.status != "archived":
            self._store(connection, call, "archive", before, {"status": "archived"})
        return Answer()

    def _store(self, connection: Connection, call: Call, action: str, before: S, changed: dict[str, Any]) -> S:
        after = msgspec.structs.replace(
            before,
            **changed,
            updated_at=moment(call.now_ms),
            change_seq=next_change_seq(connection, call.retailer_id),
        )
        if action == "update":
            self._check(connection, call.retailer_id, after)
        self._update(connection, call.retailer_id, after)
        call.log(action, self._kind, self._id_of(after), before=before, after=after)
        return after

    def _find(self, connection: Connection, call: Call) -> S:
        saved_id = call.path[self._id_field]
        found = self._get(connection, call.retailer_id, saved_id)
        if found is None or not sees(call.caller, found.advertiser_id):
            raise NotFound(self._kind, saved_id)
        return found

    def _id_of(self, saved: S) -> str:
        return str(getattr(saved, self._id_field))
