"""Where the console meets a running server. What its pages are made with is imported when the first is asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bidder_api.access import Caller, derive_secret
from bidder_api.settings import master_secret

if TYPE_CHECKING:
    from bidder_api.serving import Serving


def pages(serving: "Serving") -> Sequence[Route]:
    """Return the console's routes, over a running server's own operations."""
    console = _Console(serving)
    return [Route("/console", console), Route("/console/{rest:path}", console)]


class _Console:
    """The console as ASGI, made in a thread with the first request; later requests find it there."""

    def __init__(self, serving: "Serving") -> None:
        self._serving = serving
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            self._app = await anyio.to_thread.run_sync(lambda: _make(self._serving))
        await self._app(scope, receive, send)


def _make(serving: "Serving") -> ASGIApp:
    from starlette.routing import Router

    from bidder_api.console.endpoint import Parts, routes
    from bidder_api.console.sessions import Sessions
    from bidder_api.guard import no_page

    deployment = serving.deployment

    async def ask(caller: Caller, method: str, target: str, **more: Any) -> Response:
        assert serving.app is not None
        return await serving.app.ask(caller, method, target, **more)

    sessions = Sessions(
        serving.database,
        deployment.retailer_id,
        serving.keyring,
        derive_secret(master_secret(serving.settings.server), "console"),
        serving.clock_ms,
    )
    parts = Parts(
        sessions=sessions,
        ask=ask,
        currency=deployment.currency,
        time_zone=deployment.time_zone,
        now_ms=serving.clock_ms,
    )
    return Router(routes=routes(parts), redirect_slashes=False, default=no_page)
