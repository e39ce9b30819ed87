"""Somebody who receives webhooks: a real HTTP server on this machine that answers as it is told and keeps what came."""

import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from msgspec import Struct


class Received(Struct, frozen=True):
    """One request: its headers by their names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Listens while the block runs.

    Args:
        answers: statuses of the first answers; 200 afterwards. A function is called with the handler instead.
        port: where; 0 takes a free one.
        tls: to listen with.
    """

    def __init__(self, *answers: int | Callable[[Any], None], port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.answers = list(answers)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the library's name
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.received.append(Received(self.path, headers, body))
                answer = outer.answers.pop(0) if outer.answers else 200
                if callable(answer):
                    answer(self)
                    return
                self.send_response(answer)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False
            block_on_close = True

            def handle_error(self, *_: object) -> None:  # a client that went away is what some tests are about
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self, count: int, within_s: float = 20.0) -> list[Received]:
        """Wait until so many came, and return them."""
        ends = time.monotonic() + within_s
        while len(self.received) < count and time.monotonic() < ends:
            time.sleep(0.01)
        assert len(self.received) >= count, f"{len(self.received)} of {count} came"
        return self.received
