"""The console's way to what it shows: the API's own operations, carried out in this process for whoever is signed in.

So a page shows what the API answers, and may do what the API lets its reader do; and what was called can be shown as
the commands that would give the same.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct
from starlette.responses import Response

from bidder_api.access import Caller

T = TypeVar("T")

PAGE_SIZE = 200
Ask = Callable[..., Awaitable[Response]]  # as `Guard.ask`


class Page(Struct):
    """One page of a list, of whatever kind."""

    items: list[Any]
    next_page_token: str | None = None


class Asking:
    """The calls of one page.

    Args:
        ask: carries a call out.
        caller: for whom.
        origin: the server's address, for the commands.
    """

    def __init__(self, ask: Ask, caller: Caller, origin: str) -> None:
        self._ask = ask
        self._caller = caller
        self._origin = origin
        self.commands: list[str] = []

    async def get(self, path: str, kind: type[T], query: Mapping[str, Any] | None = None) -> T:
        """Return what an operation answers to GET.

        Raises:
            Exception: what it refuses with.
        """
        response = await self.raw(path, query)
        return msgspec.json.decode(response.body, type=kind)

    async def raw(self, path: str, query: Mapping[str, Any] | None = None, accept: str | None = None) -> Response:
        """Return an operation's answer to GET as it is."""
        target = _target(path, query)
        headers = {} if accept is None else {"Accept": accept}
        self.commands.append(self._command(target, headers))
        return await self._ask(self._caller, "GET", target, headers=headers)

    async def list(self, path: str, kind: type[T], query: Mapping[str, Any], page_count_max: int) -> list[T]:
        """Return the items of a list, of so many pages at most."""
        items: list[T] = []
        token: str | None = None
        for _ in range(page_count_max):
            more = {} if token is None else {"page_token": token}
            response = await self._ask(self._caller, "GET", _target(path, {**query, "page_size": PAGE_SIZE, **more}))
            page = msgspec.json.decode(response.body, type=Page)
            items += msgspec.convert(page.items, list[kind])  # type: ignore[valid-type]
            token = page.next_page_token
            if token is None:
                break
        self.commands.append(self._command(_target(path, {**query, "page_size": PAGE_SIZE}), {}))
        return items

    async def patch(self, path: str, body: Mapping[str, Any], if_match: str) -> None:
        """Change something as PATCH does.

        Raises:
            Exception: what the operation refuses with.
        """
        await self._ask(self._caller, "PATCH", path, body=msgspec.json.encode(body), headers={"If-Match": if_match})

    def _command(self, target: str, headers: Mapping[str, str]) -> str:
        more = "".join(f" -H '{name}: {value}'" for name, value in headers.items())
        return f"curl -H \"Authorization: Bearer $ENDCAP_KEY\"{more} '{self._origin}{target}'"


def quoted(identifier: str) -> str:
    """Return an id as a part of a path."""
    return quote(identifier, safe="")


def _target(path: str, query: Mapping[str, Any] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path
