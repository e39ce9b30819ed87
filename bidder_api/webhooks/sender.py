"""One delivery over HTTP: no redirect is followed, no more than the head of the answer is read, and it ends in time."""

import asyncio
import socket
import ssl

import httpcore2
from msgspec import Struct

from bidder_api.webhooks.address import AddressRefused, CheckedNetwork, Outlets, Resolve, Resolver

TIMEOUT_S = 15.0  # the least that Standard Webhooks recommends
RETRY_AFTER_S_MAX = 86_400
USER_AGENT = "endcap-webhooks"


class Outcome(Struct, frozen=True):
    """What became of an attempt.

    Attributes:
        status: HTTP status of the answer, None where there was none.
        error: why it is not delivered, a stable word; None where it is.
        retry_after_s: how long the receiver asks to be left alone, 0 where it does not say.
    """

    status: int | None
    error: str | None
    retry_after_s: int = 0


class Sender:
    """Posts deliveries, each on a connection of its own.

    Args:
        outlets: where they may lead.
        tls: what certificates are believed; None is what the system believes.
        timeout_s: most seconds for one delivery, from the look-up of the name to the head of the answer.
        resolve: finds a name's addresses; None is as the system does.
    """

    def __init__(
        self,
        outlets: Outlets,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
        resolve: Resolve | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._resolver = Resolver()
        tls = tls or ssl.create_default_context()
        self._pools = {
            is_plain: httpcore2.AsyncConnectionPool(
                ssl_context=tls,
                max_keepalive_connections=0,  # the address is looked at anew each time
                network_backend=CheckedNetwork(outlets, is_plain=is_plain, resolve=resolve or self._resolver),
            )
            for is_plain in (False, True)
        }

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Outcome:
        """Send a delivery and return what became of it; whatever goes wrong is an answer too."""
        all_headers = [("content-type", "application/json"), ("user-agent", USER_AGENT), *headers.items()]
        pool = self._pools[url.startswith("http:")]
        try:
            async with asyncio.timeout(self._timeout_s):
                async with pool.stream("POST", url, headers=all_headers, content=body) as answer:
                    return outcome_of(answer.status, dict(answer.headers).get(b"retry-after", b""))
        except AddressRefused:
            return Outcome(None, "address_refused")
        except (TimeoutError, httpcore2.TimeoutException):
            return Outcome(None, "timeout")
        except socket.gaierror:
            return Outcome(None, "name_unknown")
        except httpcore2.NetworkError as failure:
            is_tls = isinstance(failure.__context__, ssl.SSLError) or isinstance(failure.__cause__, ssl.SSLError)
            return Outcome(None, "tls_failed" if is_tls else "connection_failed")
        except (httpcore2.ProtocolError, httpcore2.UnsupportedProtocol):
            return Outcome(None, "protocol_error")

    async def close(self) -> None:
        """Close what is open."""
        for pool in self._pools.values():
            await pool.aclose()
        self._resolver.close()


def outcome_of(status: int, retry_after: bytes) -> Outcome:
    """Return what an answer means: 2xx is delivered, everything else is not."""
    if 200 <= status < 300:
        return Outcome(status, None)
    asked_s = int(retry_after) if retry_after.isdigit() and len(retry_after) < 10 else 0
    return Outcome(status, "redirect_refused" if 300 <= status < 400 else "refused", min(asked_s, RETRY_AFTER_S_MAX))
