"""HTTP of the slot path: decode, fill, encode. Start reading the slot path here.

`POST /v1/fills` → `engine.hold_auction` → `eligibility` → `rules` → `quality` → `kernel`, and back.
"""

import asyncio
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from affinity.shared_visitors import SharedVisitors
from auction.candidates import read_request
from auction.errors import BodyTooLarge
from auction.request import SlotRequest
from auction.serving import NS_PER_MS, SlotServer

WRITE_RECEIPTS_AFTER_S = 0.05
READ_SHARE = 0.5  # of the time left, that a page waits for a visitor who is shared with other processes
RECEIPTS_PER_WRITE = 64  # as many as are written without holding up a fill

_encode = msgspec.json.Encoder().encode


class JsonAnswer(Response):
    """A JSON body with nothing but what HTTP needs around it."""

    media_type = "application/json"

    def __init__(self, content: bytes) -> None:
        self.status_code = 200
        self.body = content
        self.background = None
        self.raw_headers = [
            (b"content-length", b"%d" % len(content)),
            (b"content-type", b"application/json"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def routes(server: SlotServer, shared: SharedVisitors | None = None) -> list[Route]:
    """Return the routes of this surface.

    `POST /v1/fills` decodes its own body. `GET /v1/auctions/{auction_id}` tells an advertiser (the caller's
    `advertiser_id`) of its own candidates, whoever has none everything.

    Args:
        server: fills pages.
        shared: where visitors are read from first, within the page's time; None where memory has them.
    """
    writing: list[asyncio.Handle] = []

    def write_receipts() -> None:
        writing.clear()
        assert server.receipts is not None
        server.receipts.write(RECEIPTS_PER_WRITE)
        if server.receipts.waiting_count:
            writing.append(asyncio.get_running_loop().call_soon(write_receipts))

    async def post_fills(request: Request) -> Response:
        arrived_ns = server.clock_ns()
        body = await read_body(request.receive, server.settings.body_bytes_max)
        asked = read_request(body, server.market)
        is_unread = shared is not None and not await prepare(asked, arrived_ns)
        answer = JsonAnswer(_encode(server.fill_since(asked, server.clock_ms(), arrived_ns, is_unread=is_unread)))
        if server.receipts is not None and not writing:
            writing.append(asyncio.get_running_loop().call_later(WRITE_RECEIPTS_AFTER_S, write_receipts))
        return answer

    async def prepare(asked: SlotRequest, arrived_ns: int) -> bool:
        """Have memory know the visitor, in one round trip; say whether there was time for it."""
        assert shared is not None
        if asked.visitor_id is None or asked.consent is None:
            return True
        gone_ms = (server.clock_ns() - arrived_ns) / NS_PER_MS
        is_read = await shared.read_within(asked.visitor_id, (asked.tmax_ms - gone_ms) * READ_SHARE / 1000)
        if not is_read and server.visitors.refuses(asked.consent):
            refusing = server.visitors.pseudonym(asked.visitor_id)
            shared.later([refusing], lambda: server.visitors.withdraw(refusing, server.clock_ms()))
        return is_read

    async def get_auction(request: Request) -> Response:
        caller: Any = request.scope["caller"]
        auction_id = request.path_params["auction_id"]
        return JsonAnswer(_encode(server.receipt(auction_id, caller.advertiser_id)))

    return [
        Route("/v1/fills", post_fills, methods=["POST"]),
        Route("/v1/auctions/{auction_id}", get_auction, methods=["GET"]),
    ]


async def read_body(receive: Receive, size_max: int) -> bytes:
    """Return the whole body.

    Raises:
        BodyTooLarge: it is over `size_max` bytes.
        ClientDisconnect: the caller went away before it was complete.
    """
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        body = body + chunk if body else chunk
        if len(body) > size_max:
            raise BodyTooLarge(f"a body must have at most {size_max} bytes, this has more")
        if not message.get("more_body", False):
            return body
