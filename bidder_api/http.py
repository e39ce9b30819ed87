"""The HTTP/1.1 server: uvicorn with the caps it does not have itself.

A request's head is bounded in bytes and in fields, a whole request in time, and a connection that says nothing is
closed. The time costs nothing per request: a sweep looks at the open connections once a second.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, cast

import msgspec
from starlette.types import ASGIApp
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bidder_api.problems import PROBLEM_TYPE, Problem

HEAD_BYTES_MAX = 32 * 1024
HEADER_COUNT_MAX = 100
SWEEP_INTERVAL_S = 1.0


class HeadTooLarge(Exception):
    """The head of a request is over one of its caps."""


class JoiningTransport:
    """A connection's way out, on which an answer's head waits for its body: one packet and one system call for both.

    Only a head that says how long the body is: what is streamed may be long in coming.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing  # asked after every answer

    def write(self, data: bytes) -> None:
        """Send `data`, and before it the head that waited; or keep it, where it is the head of what follows."""
        if self._head:
            data = self._head + data
            self._head = b""
        elif data.endswith(b"\r\n\r\n") and data.startswith(b"HTTP/1.1 ") and b"\r\ncontent-length: " in data:
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send a head that nothing follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Send what waits, and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class CappedProtocol(HttpToolsProtocol):
    """One connection, with a bounded head and the time its request began."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.is_in_head = False
        self.head_bytes = 0
        self.busy_since: float | None = None  # by the loop's clock; None between requests
        self.idle_since: float | None = None
        self.refusal: Problem | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count the time until the first request."""
        self.idle_since = self.loop.time()
        super().connection_made(JoiningTransport(cast(asyncio.Transport, transport)))  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Refuse a head that goes on for too long before it is parsed."""
        if self.is_in_head:
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES_MAX:
                self.refuse(431, "head_too_large", f"a request's head may be {HEAD_BYTES_MAX} bytes at most")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.is_in_head = True
        self.head_bytes = 0
        self.busy_since = self.loop.time()
        self.idle_since = None
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the path's bytes."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field and its bytes."""
        self._count(len(name) + len(value) + 4)
        if len(self.headers) >= HEADER_COUNT_MAX:
            self.refusal = _problem(431, "head_too_large", f"a request may have {HEADER_COUNT_MAX} header fields")
            raise HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """End the head."""
        self.is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request."""
        self.busy_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """End the answer."""
        cast(JoiningTransport, self.transport).flush()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request, as a problem."""
        refusal = self.refusal or _problem(400, "request_malformed", msg)
        self.refuse(refusal.status, refusal.code, refusal.detail)

    def refuse(self, status: int, code: str, detail: str) -> None:
        """Answer with a problem and close the connection."""
        body = msgspec.json.encode(_problem(status, code, detail))
        head = [
            STATUS_LINE[status],
            b"content-type: " + PROBLEM_TYPE.encode() + b"\r\n",
            b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body),
        ]
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(b"".join([*head, body]))
        self.transport.close()

    def _count(self, size: int) -> None:
        self.head_bytes += size
        if self.head_bytes > 2 * HEAD_BYTES_MAX:  # a head in several pieces is counted when it comes and when parsed
            self.refusal = _problem(431, "head_too_large", f"a request's head may be {HEAD_BYTES_MAX} bytes at most")
            raise HeadTooLarge


def _problem(status: int, code: str, detail: str) -> Problem:
    title = STATUS_LINE[status].decode().split(" ", 2)[2].strip()
    return Problem(title=title, status=status, code=code, detail=detail, retryable=status == 408)


class DrainingServer(Server):
    """Uvicorn's server, which ends with status 0 after SIGTERM and sweeps out connections that are too slow.

    Args:
        config: uvicorn's.
        request_deadline_s: seconds one whole request may take to arrive.
        idle_deadline_s: seconds a connection may say nothing before its first request.
    """

    def __init__(self, config: Config, request_deadline_s: float, idle_deadline_s: float) -> None:
        super().__init__(config)
        self._request_deadline_s = request_deadline_s
        self._idle_deadline_s = idle_deadline_s

    async def main_loop(self) -> None:
        """Serve until asked to stop."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            await super().main_loop()
        finally:
            sweeping.cancel()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now = loop.time()
            for connection in list(self.server_state.connections):
                if not isinstance(connection, CappedProtocol):
                    continue
                if connection.busy_since is not None and now - connection.busy_since > self._request_deadline_s:
                    detail = f"a whole request must arrive within {self._request_deadline_s:g} s"
                    connection.refuse(408, "request_too_slow", detail)
                elif connection.idle_since is not None and now - connection.idle_since > self._idle_deadline_s:
                    connection.transport.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on SIGTERM and SIGINT, and end as a program that was asked to."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        earlier = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)


def server_of(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    request_deadline_s: float,
    keep_alive_s: int,
    drain_s: int,
    connection_count_max: int,
) -> DrainingServer:
    """Return the server of an application.

    Args:
        app: what answers.
        host: address to listen on.
        port: TCP port to listen on.
        request_deadline_s: seconds one whole request may take to arrive.
        keep_alive_s: seconds an idle connection is kept.
        drain_s: most seconds a stop waits for requests under way.
        connection_count_max: connections served at once.
    """
    config = Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=CappedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=connection_count_max,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=drain_s,
        backlog=2048,
    )
    return DrainingServer(config, request_deadline_s, keep_alive_s)
