"""The door every request comes through: which operation it is, who asks, and whether its bytes are in order.

Pure ASGI, and its own dispatcher: a fixed path costs one dict look-up, a known key another. What it refuses never
reaches a handler; what a handler refuses is turned into a problem here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bidder_api.access import Caller, Keyring, Role
from bidder_api.errors import Forbidden, Invalid, Refused
from bidder_api.operations import Operation
from bidder_api.problems import Problem, make_problem, plain_problem, problem_of, problem_response, response_to

Endpoint = Callable[[Request], Awaitable[Response]]

IDENTIFIER_LENGTH_MAX = 64
LENGTH_MAX = {"beacon_token": 4096, "transaction_id": 128}  # of parameters that may be longer
PREFLIGHT_MAX_AGE_S = 7200
_log = structlog.get_logger("guard")


class Door(Struct, frozen=True):
    """An operation and what carries it out."""

    operation: Operation
    endpoint: Endpoint
    decoder: msgspec.json.Decoder[Any] | None


class Doors:
    """Operations by method and path.

    Raises:
        ValueError: an operation without a route or a route without an operation; the table is the contract.
    """

    def __init__(self, operations: Iterable[Operation], routes: Iterable[Route]) -> None:
        endpoints = {
            (method, route.path): route.endpoint
            for route in routes
            for method in sorted((route.methods or set()) - {"HEAD"})
        }
        self.operations = list(operations)
        described = {(operation.method, operation.path) for operation in self.operations}
        if described != set(endpoints):
            raise ValueError(f"operations and routes differ: {sorted(described ^ set(endpoints))}")
        self._fixed: dict[str, dict[str, Door]] = {}
        self._trees: dict[int, list[tuple[tuple[str, ...], dict[str, Door]]]] = {}
        for operation in self.operations:
            decodes = operation.body is not None and not operation.is_hot
            door = Door(
                operation,
                endpoints[operation.method, operation.path],
                msgspec.json.Decoder(operation.body) if decodes else None,
            )
            self._methods_at(operation)[operation.method] = door

    def fixed(self, path: str) -> dict[str, Door] | None:
        """Return the methods of a path without parameters."""
        return self._fixed.get(path)

    def find(self, raw_path: bytes) -> tuple[dict[str, Door], dict[str, bytes]] | None:
        """Return the methods of a path and its parameters' raw values.

        Split before it is unquoted, so that an id may hold a slash (`%2F`).
        """
        segments = raw_path.split(b"/")[1:]
        for template, methods in self._trees.get(len(segments), ()):
            pairs = list(zip(template, segments, strict=True))
            if all(segment != b"" if part[0] == "{" else part.encode() == segment for part, segment in pairs):
                return methods, {part[1:-1]: unquote_to_bytes(segment) for part, segment in pairs if part[0] == "{"}
        return None

    def _methods_at(self, operation: Operation) -> dict[str, Door]:
        if not operation.parameters:
            return self._fixed.setdefault(operation.path, {})
        tree = self._trees.setdefault(len(operation.segments), [])
        for template, methods in tree:
            if template == operation.segments:
                return methods
        tree.append((operation.segments, {}))
        return tree[-1][1]


class Guard:
    """The ASGI application: operations through their doors, everything else to the pages.

    Args:
        doors: the operations.
        keyring: whose keys are valid.
        pages: what answers paths that are no operation (the shop, the documentation) and the lifespan.
        body_deadline_s: seconds a body may take to arrive.
        count_problem: told the code of each refusal.
    """

    def __init__(
        self,
        doors: Doors,
        keyring: Keyring,
        pages: ASGIApp,
        body_deadline_s: float,
        count_problem: Callable[[str], None],
    ) -> None:
        self.doors = doors
        self._count_problem = count_problem
        self._keyring = keyring
        self._pages = pages
        self._body_deadline_s = body_deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        try:
            answer = await self._answer(scope, receive)
        except ClientDisconnect:
            return
        except Exception as failure:
            answer = self._problem(failure, scope)
        await answer(scope, receive, send)

    def _problem(self, failure: Exception, scope: Scope) -> Response:
        problem, response = _answer_to(failure, scope)
        self._count_problem(problem.code)
        _open_to_origins(scope, response)
        return response

    async def _show_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the pages answer; what they fail with before they have begun to is turned into a problem too."""
        has_started = False

        async def send_once(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._pages(scope, receive, send_once)
        except ClientDisconnect:
            return
        except Exception as failure:
            if has_started:
                raise
            await self._problem(failure, scope)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> ASGIApp:
        """Return what answers a request: an operation's response, or the pages."""
        path, method = scope["path"], scope["method"]
        parameters: dict[str, bytes] = {}
        methods = self.doors.fixed(path)
        if methods is None:
            found = self.doors.find(scope["raw_path"])
            if found is None:
                _read_headers(scope)
                return self._show_page
            methods, parameters = found
        authorization, length, content_type, origin = _read_headers(scope)
        door = methods.get("GET" if method == "HEAD" else method)
        if door is None:
            return _answer_unusual(method, methods, origin)
        operation = door.operation
        scope["operation"] = operation
        caller = None
        if authorization is not None:
            caller = self._keyring.known_caller(authorization) or await self._keyring.identify(authorization)
        _check_caller(operation, caller, origin)
        response = await self._carry_out(door, caller, parameters, scope, receive, length, content_type)
        if operation.is_cross_origin and origin is not None:
            _open_to_origins(scope, response)
        return response

    async def ask(
        self, caller: Caller, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        """Carry out an operation for somebody who is known otherwise than by a key in a header.

        What the role may do, parameters, body and ETag are checked as in any call.

        Args:
            caller: whom it is for.
            method: of the operation.
            target: its path and query, as on the first line of a request.
            body: JSON, where the operation takes one.
            headers: such as `If-Match` and `Accept`.

        Raises:
            Exception: what the operation refuses with; `problems.py` knows what to say of it.
        """
        path, _, query = target.partition("?")
        methods, parameters = self.doors.fixed(path), dict[str, bytes]()
        if methods is None:
            found = self.doors.find(path.encode())
            assert found is not None
            methods, parameters = found
        door = methods[method]
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
            "operation": door.operation,
        }

        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        _check_caller(door.operation, caller, None)
        return await self._carry_out(door, caller, parameters, scope, receive, len(body), None)

    async def _carry_out(
        self,
        door: Door,
        caller: Caller | None,
        parameters: Mapping[str, bytes],
        scope: Scope,
        receive: Receive,
        length: int | None,
        content_type: str | None,
    ) -> Response:
        """Return an operation's answer to whoever may have it."""
        operation = door.operation
        scope["caller"] = caller
        if parameters:
            scope["path_params"] = {name: _identifier(name, value) for name, value in parameters.items()}
        if operation.query is not None:
            scope["query"] = read_query(scope["query_string"], operation.query)
        if length is not None and length > operation.body_size_max:
            raise _too_large(operation)
        if door.decoder is not None:
            if content_type is not None and not _is_json(content_type):
                raise Refused(
                    "body_not_json", f"Content-Type must be application/json, was {content_type!r}", status=415
                )
            raw = await read_body(receive, operation, self._body_deadline_s)
            scope["raw_body"] = raw
            scope["body"] = door.decoder.decode(raw)
        return await door.endpoint(Request(scope, receive))


async def read_body(receive: Receive, operation: Operation, deadline_s: float) -> bytes:
    """Return the whole body.

    Raises:
        Refused: it is larger than the operation allows, or did not arrive in time.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > operation.body_size_max:
                    raise _too_large(operation)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError:
        raise Refused(
            "body_too_slow",
            f"the body must arrive within {deadline_s:g} s",
            status=408,
            retryable=True,
            headers={"Connection": "close"},
        ) from None


def read_query(query_string: bytes, kind: type[Struct]) -> Struct:
    """Return the query parameters as a struct.

    Raises:
        Refused: an unknown, repeated or malformed parameter.
    """
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query_string),
            errors="strict",
            max_num_fields=50,
        )
    except ValueError as malformed:
        raise Refused("query_malformed", f"the query string cannot be read: {malformed}") from None
    values: dict[str, str] = {}
    for name, text in pairs:
        if name in values:
            raise _parameter("parameter_repeated", name, f"{name} may be given once")
        if text.lower() == "null":  # would be taken for "not given"
            raise _parameter("parameter_out_of_range", name, f"{name} must not be {text!r}; leave it out")
        values[name] = text
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as refusal:
        problem = problem_of(refusal)
        assert problem is not None
        name = (problem.pointer or "").removeprefix("/")
        code = problem.code.replace("field_", "parameter_", 1)
        raise _parameter(code, name, f"{name}: {problem.detail}" if name else problem.detail) from None


def _read_headers(scope: Scope) -> tuple[bytes | None, int | None, str | None, str | None]:
    """Return authorization, content length, content type and origin, and refuse what is ambiguous."""
    authorization = length = content_type = origin = None
    host_count = 0
    for name, value in scope["headers"]:
        if name == b"host":
            host_count += 1
        elif name == b"authorization":
            if authorization is not None:
                raise Refused("header_repeated", "Authorization may be sent once")
            authorization = value
        elif name == b"content-length":
            length = int(value)
        elif name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == b"origin":
            origin = value.decode("latin-1")
    if host_count != 1 and (host_count or scope.get("http_version") != "1.0"):
        raise Refused("host_invalid", f"a request must carry one Host, this one carries {host_count}")
    return authorization, length, content_type, origin


def _check_caller(operation: Operation, caller: Caller | None, origin: str | None) -> None:
    if caller is None:
        if operation.roles:
            from bidder_api.errors import Unauthenticated

            raise Unauthenticated("key_missing", "this needs a key; send it as: Authorization: Bearer <key>")
        return
    if not operation.admits(caller.role):
        raise Forbidden("role_not_allowed", f"a key of role {caller.role} may not call {operation.name}")
    if caller.role == Role.SITE and origin != caller.origin:
        raise Forbidden("origin_not_allowed", f"this key may be used from {caller.origin} only, not from {origin}")


def _identifier(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _parameter("parameter_invalid", name, f"{name} must be UTF-8") from None
    length_max = LENGTH_MAX.get(name, IDENTIFIER_LENGTH_MAX)
    if not 1 <= len(text) <= length_max:
        message = f"{name} must be 1 to {length_max} characters, was {len(text)}"
        raise _parameter("parameter_invalid", name, message)
    if any(character < " " or character == "\x7f" for character in text):
        raise _parameter("parameter_invalid", name, f"{name} must hold no control characters")
    return text


def _parameter(code: str, name: str, message: str) -> Refused:
    refusal = Refused(code, message)
    refusal.parameter = name or None
    return refusal


def _too_large(operation: Operation) -> Refused:
    return Refused(
        "body_too_large",
        f"the body of {operation.name} may be {operation.body_size_max} bytes at most",
        status=413,
        headers={"Connection": "close"},
    )


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _answer_unusual(method: str, methods: Mapping[str, Door], origin: str | None) -> Response:
    allowed = sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])})
    if method != "OPTIONS":
        refusal = Refused("method_not_allowed", f"{method} is not one of {', '.join(allowed)}", status=405)
        refusal.headers = {"Allow": ", ".join(allowed)}
        answer = response_to(refusal)
        assert answer is not None
        return answer
    headers = {"Allow": ", ".join(allowed)}
    if origin is not None and any(door.operation.is_cross_origin for door in methods.values()):
        headers |= {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": ", ".join(sorted(methods)),
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
        }
    return Response(status_code=204, headers=headers)


def _open_to_origins(scope: Scope, response: Response) -> None:
    operation = scope.get("operation")
    if operation is not None and operation.is_cross_origin:
        response.headers["Access-Control-Allow-Origin"] = "*"


def _answer_to(failure: Exception, scope: Scope) -> tuple[Problem, Response]:
    problem = problem_of(failure)
    if problem is not None:
        return problem, problem_response(problem, getattr(failure, "headers", None) or {})
    if isinstance(failure, PoolTimeout | OperationalError | InterfaceError) or (
        isinstance(failure, DBAPIError) and failure.connection_invalidated
    ):
        _log.warning("database_unavailable", path=_named_path(scope), failure=str(getattr(failure, "orig", failure)))
        busy = "the database cannot be reached or is busy; try again"
        problem = make_problem(503, "database_unavailable", busy, retryable=True)
    else:
        _log.error("request_failed", path=_named_path(scope), method=scope["method"], exc_info=failure)
        problem = make_problem(500, "internal", "this is our mistake and has been logged")
    return problem, problem_response(problem)


def _named_path(scope: Scope) -> str:
    """Return a path as it may be logged: ids in it, a visitor's among them, by their names only."""
    operation: Operation | None = scope.get("operation")
    return str(scope["path"]) if operation is None else operation.path


async def no_page(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a path nothing is at."""
    await plain_problem(404, "path_unknown", f"there is nothing at {scope['path']}")(scope, receive, send)


__all__ = ["Door", "Doors", "Endpoint", "Guard", "Invalid", "no_page", "problem_response", "read_body", "read_query"]
