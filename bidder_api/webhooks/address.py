"""Which addresses a webhook may lead to: the public internet, and what the operator names beside it.

A webhook's URL is somebody else's word, and the server that calls it stands where that somebody does not: beside
databases, consoles, and the cloud's metadata service. So a name is resolved, **every** address it has is looked at, and
the connection is made to an address that was looked at; what the name says a moment later does not matter.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

import httpcore2
from msgspec import Struct

from ledger.traffic import parse_ranges

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
LOOK_UP_COUNT_MAX = 8  # names looked up at the same time

# Where clouds tell a machine its credentials. All but Azure's (a public address) are private anyhow; they are named so
# that no range an operator allows lets them in.
METADATA = frozenset(map(ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16")))
# IPv6 that carries an IPv4 address (RFC 6052), at the end of it: what counts is that one.
_TRANSLATED = ip_network("64:ff9b::/96")
_LOCAL_TRANSLATED = ip_network("64:ff9b:1::/48")
# Kept for the IETF's protocols (RFC 6890). Clouds answer in them too; interpreters differ over which part is public.
_PROTOCOLS = ip_network("192.0.0.0/24"), ip_network("2001::/23")


class AddressRefused(Exception):  # a refusal is an answer, not an error
    """A name leads where webhooks may not."""


class Outlets(Struct, frozen=True):
    """Where webhooks may lead beyond the public internet.

    Attributes:
        private_ranges: networks of the operator's own.
        loopback: `on`: to this very machine, also without TLS; for development.
    """

    private_ranges: str = ""
    loopback: Literal["on", "off"] = "off"

    def lets_through(self, address: Address, *, is_plain: bool) -> bool:
        """Say whether a connection to an address may be made; a plain one leaves the machine never."""
        address = carried(address)
        if address in METADATA:
            return False
        if address.is_loopback:
            return self.loopback == "on"
        if is_plain:
            return False
        if any(address in network for network in parse_ranges(self.private_ranges)):
            return True
        return is_public(address)

    def fault_of(self, url: str) -> str | None:
        """Return what is wrong with a URL as far as can be said without asking anybody, None for nothing."""
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
        except ValueError as refusal:
            return f"it must be a URL: {refusal}"
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            return "it must be printable ASCII without spaces; write a name in other letters as xn--…"
        if not host or port == 0:
            return "it must name a host"
        if parts.username is not None or parts.password is not None or parts.fragment:
            return "it must carry no user, password or fragment"
        return self._fault_of_host(parts, host)

    def _fault_of_host(self, parts: SplitResult, host: str) -> str | None:
        is_plain = parts.scheme == "http"
        if parts.scheme != "https" and not (is_plain and self.loopback == "on"):
            return "it must begin with https://"
        try:
            address = ip_address(host)
        except ValueError:
            is_here = host == "localhost" or host.endswith(".localhost")
            if is_here and self.loopback == "off":
                return "it must not lead to this machine"
            return "http:// may lead to this machine only" if is_plain and not is_here else None
        return None if self.lets_through(address, is_plain=is_plain) else "it must lead to a public address"


def carried(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, else itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _TRANSLATED:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Say whether an address is one of the public internet's, and of a single machine."""
    if isinstance(address, IPv6Address) and (
        address.teredo is not None or address.is_site_local or address in _LOCAL_TRANSLATED
    ):
        return False
    if any(address in network for network in _PROTOCOLS):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


class Resolver:
    """Looks names up in threads of its own: one that takes its time must not hold up what else runs in threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOK_UP_COUNT_MAX, thread_name_prefix="webhook names")

    async def __call__(self, host: str, port: int) -> list[Address]:
        """Return every address of a name, in the system's order.

        Raises:
            socket.gaierror: it has none.
        """

        def look_up() -> list[Address]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(ip_address(str(address[0])) for *_, address in found))

        return await asyncio.get_running_loop().run_in_executor(self._threads, look_up)

    def close(self) -> None:
        """Let go of the threads, without waiting for who still looks."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that may be connected to.

    Args:
        outlets: which these are.
        is_plain: whether the connections will not be encrypted.
        resolve: finds a name's addresses.
    """

    def __init__(self, outlets: Outlets, *, is_plain: bool, resolve: Resolve) -> None:
        self._outlets = outlets
        self._is_plain = is_plain
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of a host that answers.

        Raises:
            AddressRefused: one of its addresses may not be connected to, so none is tried.
        """
        addresses = await self._resolve(host, port)
        if not addresses or not all(self._outlets.lets_through(one, is_plain=self._is_plain) for one in addresses):
            raise AddressRefused(host)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._network.connect_tcp(str(addresses[-1]), port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._network.sleep(seconds)
