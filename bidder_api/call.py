"""How a management operation runs: in a worker thread, in one transaction with everything that belongs to it.

One transaction holds the idempotency key, the change itself, the line in the change log and its place in the hash
chain: all of it or nothing.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response

from affinity.pattern import NavigationPattern
from affinity.special import SpecialCategories
from bidder_api.access import Caller
from bidder_api.changes import Actor, Change, record_changes
from bidder_api.database import Database
from bidder_api.errors import Conflict, Invalid, Refused
from bidder_api.idempotency import replay_or_claim, settle
from bidder_api.operations import Operation
from bidder_api.store import IdempotentAnswer

_encoder = msgspec.json.Encoder()


CheckPattern = Callable[[NavigationPattern, str], None]  # the pattern, and its JSON pointer


class Answer(Struct, frozen=True, kw_only=True):
    """What a handler answers with.

    Attributes:
        body: encoded as JSON; None is an empty body.
        status: None means the operation's own.
        kept_body: what a replay of the same `Idempotency-Key` gets instead, where the body may be seen only once.
    """

    body: object | None = None
    status: int | None = None
    headers: dict[str, str] = {}
    kept_body: object | None = None


class Call(Struct, kw_only=True):
    """One call of a management operation, checked and decoded.

    Attributes:
        check_live_pattern: refuses a bid's pattern there is no room for.
    """

    retailer_id: str
    caller: Caller
    now_ms: int
    path: dict[str, str]
    body: Any
    query: Any
    if_match: str | None
    special: SpecialCategories
    low_funds_micros: int
    check_live_pattern: CheckPattern
    changes: list[Change] = []

    def log(
        self, action: str, kind: str, resource_id: str, *, before: object | None = None, after: object | None = None
    ) -> None:
        """Note a change for the change log; it is written at the end of the transaction."""
        self.changes.append(Change(action, kind, resource_id, before, after))


T = TypeVar("T")

Work = Callable[[Connection, Call], Answer]
Endpoint = Callable[[Request], Awaitable[Response]]


class Desk:
    """Where management calls are carried out.

    Args:
        database: the deployment's.
        retailer_id: whose deployment it is.
        clock_ms: UTC, milliseconds since 1970.
        thread_count: calls carried out at the same time; the others wait.
        count_call: told how many seconds each call took, by operation.
        special: names of segments and attributes that are refused.
        low_funds_micros: below what an advertiser's funds are low where it set nothing itself.
        check_live_pattern: refuses a bid's pattern there is no room for.
    """

    def __init__(
        self,
        database: Database,
        retailer_id: str,
        clock_ms: Callable[[], int],
        thread_count: int = 4,
        count_call: Callable[[str, float], None] = lambda operation, seconds: None,
        special: SpecialCategories | None = None,
        low_funds_micros: int = 0,
        check_live_pattern: CheckPattern = lambda pattern, pointer: None,
    ) -> None:
        self.low_funds_micros = low_funds_micros
        self._check_live_pattern = check_live_pattern
        self.special = SpecialCategories() if special is None else special
        self.database = database
        self.retailer_id = retailer_id
        self.clock_ms = clock_ms
        self._thread_count = thread_count
        self._count_call = count_call
        self._threads: anyio.CapacityLimiter | None = None

    def reading(self, work: Work) -> Endpoint:
        """Return the endpoint of an operation that only looks."""

        async def endpoint(request: Request) -> Response:
            call = self._call(request)
            operation: Operation = request.scope["operation"]
            return await self.in_thread(
                operation, lambda: _respond(operation, self.database.read(lambda connection: work(connection, call)))
            )

        return endpoint

    def changing(self, work: Work) -> Endpoint:
        """Return the endpoint of an operation that changes something."""

        async def endpoint(request: Request) -> Response:
            operation: Operation = request.scope["operation"]
            call = self._call(request)
            key = _idempotency_key(request, operation)
            if operation.needs_if_match and call.if_match is None:
                raise Refused("if_match_missing", "send If-Match with the ETag of what you are changing", status=428)
            scope = f"{call.caller.role}:{','.join(sorted(call.caller.advertiser_ids))}"
            fingerprint = hashlib.sha256(
                b"\0".join([request.method.encode(), request.scope["raw_path"], request.scope.get("raw_body", b"")])
            ).digest()

            def transaction(connection: Connection) -> Response:
                attempt = msgspec.structs.replace(call, changes=[])
                if key is not None:
                    earlier = replay_or_claim(connection, self.retailer_id, scope, key, fingerprint, call.now_ms)
                    if earlier is not None:
                        return Response(
                            earlier.body,
                            status_code=earlier.status,
                            headers={**earlier.headers, "Idempotent-Replayed": "true"},
                            media_type="application/json" if earlier.body else None,
                        )
                answer = work(connection, attempt)
                actor = Actor(call.caller.key_id, call.caller.role)
                record_changes(connection, self.retailer_id, actor, attempt.changes, call.now_ms)
                response = _respond(operation, answer)
                if key is not None:
                    kept = response.body if answer.kept_body is None else _encoder.encode(answer.kept_body)
                    settle(
                        connection,
                        self.retailer_id,
                        scope,
                        key,
                        IdempotentAnswer(
                            fingerprint=fingerprint,
                            status=response.status_code,
                            headers=answer.headers,
                            body=bytes(kept),
                        ),
                    )
                return response

            return await self.in_thread(operation, lambda: self.database.transact(transaction))

        return endpoint

    async def in_thread(self, operation: Operation, work: Callable[[], T]) -> T:
        """Run something in one of the management threads, and count how long it took."""
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(self._thread_count)
        began = time.perf_counter()
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._threads)
        finally:
            self._count_call(operation.name, time.perf_counter() - began)

    def _call(self, request: Request) -> Call:
        scope = request.scope
        return Call(
            retailer_id=self.retailer_id,
            caller=scope["caller"],
            now_ms=self.clock_ms(),
            path=scope.get("path_params", {}),
            body=scope.get("body"),
            query=scope.get("query"),
            if_match=request.headers.get("if-match"),
            special=self.special,
            low_funds_micros=self.low_funds_micros,
            check_live_pattern=self._check_live_pattern,
        )


def etag(change_seq: int) -> str:
    """Return the ETag of a resource last changed at that place in the change sequence."""
    return f'"{change_seq}"'


def check_match(call: Call, change_seq: int) -> None:
    """Check `If-Match` against a resource's ETag; `*` matches any.

    Raises:
        Refused: 412, the resource changed since the caller read it.
    """
    if call.if_match is None:
        return
    tags = [tag.strip() for tag in call.if_match.split(",")]
    if "*" not in tags and etag(change_seq) not in tags:
        raise Refused(
            "etag_stale", f"it was changed since: If-Match is {call.if_match}, now {etag(change_seq)}", status=412
        )


def _respond(operation: Operation, answer: Answer) -> Response:
    status = answer.status or operation.status
    body = b"" if answer.body is None else _encoder.encode(answer.body)
    headers = {"Cache-Control": "no-store", **answer.headers}
    return Response(body, status_code=status, headers=headers, media_type="application/json" if body else None)


def _idempotency_key(request: Request, operation: Operation) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is None or not operation.takes_idempotency_key:
        return None
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise Refused("idempotency_key_invalid", "Idempotency-Key must be 1 to 255 printable ASCII characters")
    return key


__all__ = ["Answer", "Call", "Conflict", "Desk", "Invalid", "Work", "check_match", "etag"]
