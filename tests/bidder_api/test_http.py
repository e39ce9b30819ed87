"""What no handler ever sees: heads without end, requests that do not finish, bytes that are none."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bidder_api.http import HEAD_BYTES_MAX, HEADER_COUNT_MAX, DrainingServer, JoiningTransport, server_of


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def stream(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        await asyncio.sleep(0.5)
        yield b"late"

    return StreamingResponse(chunks())


class Running:
    """A server on a free port, in a thread of its own."""

    def __init__(self) -> None:
        routes = [Route("/echo", echo, methods=["GET", "POST"]), Route("/stream", stream, methods=["GET"])]
        app = Starlette(routes=routes)
        self.server: DrainingServer = server_of(
            app,
            host="127.0.0.1",
            port=0,
            request_deadline_s=1.0,
            keep_alive_s=1,
            drain_s=1,
            connection_count_max=100,
        )
        self.thread = threading.Thread(target=self.server.run)

    def start(self) -> None:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port: int = self.server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()

    def send(self, *parts: bytes, wait_s: float = 0.0) -> bytes:
        """Send bytes, and return what comes back until the server closes or falls silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=4) as connection:
            answer = b""
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(wait_s)
                while chunk := connection.recv(65536):
                    answer += chunk
            except (ConnectionError, TimeoutError):
                pass
            return answer


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    made = Running()
    made.start()
    yield made
    made.stop()


def test_an_ordinary_request_is_answered(running: Running) -> None:
    answer = running.send(
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\n", b"abc", wait_s=0.05
    )
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"abc")


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/echo"), ("GET", "/stream")])
def test_a_head_without_a_body_behind_it_does_not_wait_for_one(running: Running, method: str, path: str) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=4) as connection:
        began = time.monotonic()
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = connection.recv(65536)
        assert time.monotonic() - began < 0.4
        assert head.startswith(b"HTTP/1.1 200")
        assert head.endswith(b"\r\n\r\n")


class Recorded:
    """A transport that only remembers."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.sent.append(b"closed")

    def is_closing(self) -> bool:
        return False


def test_head_and_body_leave_in_one_piece() -> None:
    wire: Any = Recorded()
    joining = JoiningTransport(wire)
    head, streamed = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"
    joining.write(head)
    assert wire.sent == []
    joining.write(b"body")
    joining.write(head)
    joining.flush()
    joining.flush()
    joining.write(streamed)
    joining.write(head)
    joining.close()
    assert wire.sent == [head + b"body", head, streamed, head, b"closed"]


def test_a_head_in_one_piece_over_the_limit_is_refused(running: Running) -> None:
    head = b"GET /echo HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (3 * HEAD_BYTES_MAX) + b"\r\n\r\n"
    answer = running.send(head)
    assert answer.startswith(b"HTTP/1.1 431")
    assert b"application/problem+json" in answer
    assert b"head_too_large" in answer


def test_a_head_that_goes_on_and_on_is_refused(running: Running) -> None:
    parts = [b"GET /echo HTTP/1.1\r\nHost: a\r\nX: "] + [b"x" * 8200] * 4
    assert running.send(*parts, wait_s=0.02).startswith(b"HTTP/1.1 431")


def test_a_path_without_end_is_refused(running: Running) -> None:
    parts = [b"GET /"] + [b"x" * 8200] * 4
    assert running.send(*parts, wait_s=0.02).startswith(b"HTTP/1.1 431")


def test_more_fields_than_anyone_needs_are_refused(running: Running) -> None:
    fields = b"".join(b"X-%d: 1\r\n" % number for number in range(HEADER_COUNT_MAX + 1))
    assert running.send(b"GET /echo HTTP/1.1\r\n" + fields + b"\r\n").startswith(b"HTTP/1.1 431")


def test_bytes_that_are_no_request_are_refused_as_a_problem(running: Running) -> None:
    answer = running.send(b"hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"request_malformed" in answer


def test_two_lengths_in_one_request_are_refused(running: Running) -> None:
    answer = running.send(
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /echo HTTP/1.1\r\nHost: a\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    ],
    ids=["head", "body"],
)
def test_a_request_that_does_not_finish_is_not_waited_for(running: Running, beginning: bytes) -> None:
    began = time.monotonic()
    answer = running.send(beginning)
    assert answer.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 3.5


def test_a_connection_that_says_nothing_is_closed(running: Running) -> None:
    began = time.monotonic()
    assert running.send() == b""
    assert time.monotonic() - began < 3.5
