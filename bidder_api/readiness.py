"""What still keeps the process from serving, and the two pages that say so."""

from collections.abc import Callable, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bidder_api.problems import plain_problem

_encode = msgspec.json.Encoder().encode


class Readiness:
    """What has to be done before the process is ready; each is taken off the list when done.

    Args:
        pending: words for what is still to do.

    Attributes:
        degraded: asked what a process that is ready goes without now.
    """

    def __init__(self, *pending: str) -> None:
        self._pending = list(pending)
        self.degraded: Callable[[], Sequence[str]] = tuple

    @property
    def is_ready(self) -> bool:
        """Say whether nothing is left to do."""
        return not self._pending

    @property
    def pending(self) -> tuple[str, ...]:
        """Return what is left to do."""
        return tuple(self._pending)

    def done(self, what: str) -> None:
        """Take something off the list; it need not be on it."""
        if what in self._pending:
            self._pending.remove(what)

    def undone(self, what: str) -> None:
        """Put something on the list again."""
        if what not in self._pending:
            self._pending.append(what)


def routes(readiness: Readiness) -> list[Route]:
    """Return `/healthz`, which answers as long as the process does, and `/readyz`."""

    async def healthz(_request: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def readyz(_request: Request) -> Response:
        if readiness.is_ready:
            degraded = list(readiness.degraded())
            said = {"status": "ready", "degraded": degraded} if degraded else {"status": "ready"}
            return Response(_encode(said), media_type="application/json")
        return plain_problem(503, "not_ready", "still to come: " + ", ".join(readiness.pending), retryable=True)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
