"""A small client for the demo's own calls: one connection kept open, JSON in and out."""

import http.client
import time
from typing import Any, Self

import msgspec


class CallFailedError(Exception):
    """The server answered something else than success; the message is its problem document."""


class ServerGoneError(Exception):
    """Nobody answers: the server is not there, not yet or no longer."""


class ApiClient:
    """Calls the API of a server on this machine.

    Args:
        port: where it listens.
        key: sent with every call; None sends none.
    """

    def __init__(self, port: int, key: str | None, timeout_s: float = 30.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._encoder = msgspec.json.Encoder()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(self, method: str, path: str, body: object | None = None, headers: dict[str, str] | None = None) -> Any:
        """Return the decoded answer of one call; None for an empty one.

        Raises:
            CallFailedError: the status was not a success.
            ServerGoneError: nobody answers.
        """
        status, raw = self.raw(method, path, None if body is None else self._encoder.encode(body), headers)
        if not 200 <= status < 300:
            raise CallFailedError(f"{method} {path}: {status} {raw[:500].decode('utf-8', 'replace')}")
        return msgspec.json.decode(raw) if raw else None

    def raw(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Return status and body of one call; a connection the server closed meanwhile is opened anew, once.

        Raises:
            ServerGoneError: nobody answers.
        """
        for attempt in (1, 2):
            try:
                self._connection.request(method, path, body, self._headers | (headers or {}))
                response = self._connection.getresponse()
                return response.status, response.read()
            except (http.client.HTTPException, OSError) as failure:
                self._connection.close()
                was_closed = isinstance(
                    failure, http.client.RemoteDisconnected | BrokenPipeError | ConnectionResetError
                )
                if attempt == 2 or not was_closed:
                    raise ServerGoneError(str(failure)) from failure
        raise AssertionError("unreachable")

    def wait_until(self, path: str, deadline_s: float) -> None:
        """Wait until a path answers 200.

        Raises:
            TimeoutError: it did not in time.
        """
        ends = time.monotonic() + deadline_s
        last = "no answer"
        while time.monotonic() < ends:
            try:
                status, raw = self.raw("GET", path)
                if status == 200:
                    return
                last = f"{status} {raw[:200].decode('utf-8', 'replace')}"
            except ServerGoneError as failure:
                last = str(failure)
            time.sleep(0.05)
        raise TimeoutError(f"{path} was not there after {deadline_s:g} s: {last}")
