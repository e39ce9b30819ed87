"""Where a webhook may lead, and that it is connected to the very address that was looked at."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import httpcore2
import pytest

from bidder_api.webhooks.address import Address, AddressRefused, CheckedNetwork, Outlets

INSIDE = [
    "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1",
    "100.64.0.1", "169.254.0.1", "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1",
    "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "fe80::1",
    "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::",
    "2001:0:1::1",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]


@pytest.mark.parametrize("address", INSIDE)
def test_no_address_of_the_inside_is_let_through(address: str) -> None:
    assert not Outlets().lets_through(ip_address(address), is_plain=False)


@pytest.mark.parametrize("address", OUTSIDE)
def test_public_addresses_are_let_through_encrypted_only(address: str) -> None:
    assert Outlets().lets_through(ip_address(address), is_plain=False)
    assert not Outlets(loopback="on").lets_through(ip_address(address), is_plain=True)


def test_an_operator_may_name_networks_but_never_the_metadata_service() -> None:
    outlets = Outlets("10.1.0.0/16, 169.254.0.0/16, 100.64.0.0/10, fd00::/8, 168.63.129.0/24")
    assert outlets.lets_through(ip_address("10.1.2.3"), is_plain=False)
    assert outlets.lets_through(ip_address("::ffff:10.1.2.3"), is_plain=False)
    assert not outlets.lets_through(ip_address("10.1.2.3"), is_plain=True)
    for address in ("10.2.0.1", "169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "127.0.0.1"):
        assert not outlets.lets_through(ip_address(address), is_plain=False), address


def test_loopback_is_for_development() -> None:
    for is_plain in (True, False):
        assert Outlets(loopback="on").lets_through(ip_address("127.0.0.1"), is_plain=is_plain)
        assert not Outlets(private_ranges="127.0.0.0/8").lets_through(ip_address("127.0.0.1"), is_plain=is_plain)


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/hook", "ftp://shop.example/", "https://", "https:///hook", "//shop.example", "hook",
        "https://user:secret@shop.example/", "https://user@shop.example/", "https://shop.example/#part",
        "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest/meta-data", "https://10.0.0.1:8443/",
        "https://[::ffff:127.0.0.1]/", "https://localhost/", "https://a.localhost/", "https://shop.example:99999/",
        "https://shop.example:0/", "https://shop.example/a b", "https://shop.example\\@127.0.0.1/", "https://é.example/",
        "https://shop.example/\n", "javascript:alert(1)", "file:///etc/passwd", "https://[::1",
    ],
)  # fmt: skip
def test_a_url_that_can_only_be_wrong_is_refused_when_it_is_set(url: str) -> None:
    assert Outlets().fault_of(url) is not None


@pytest.mark.parametrize("url", ["https://shop.example/hook?x=1", "https://shop.example:8443/", "https://1.1.1.1/x"])
def test_other_urls_are_taken(url: str) -> None:
    assert Outlets().fault_of(url) is None


def test_without_tls_only_this_machine_and_only_where_it_is_set() -> None:
    outlets = Outlets(loopback="on")
    for url in ("http://127.0.0.1:8080/hook", "http://localhost:1/", "http://[::1]/", "https://localhost/"):
        assert outlets.fault_of(url) is None, url
    for url in ("http://shop.example/", "http://10.0.0.1/", "http://1.1.1.1/"):
        assert outlets.fault_of(url) is not None, url


class Wires:
    """Stands for the network: keeps where connections go, and lets some fail."""

    def __init__(self, *dead: str) -> None:
        self.tried: list[str] = []
        self._dead = dead

    async def connect_tcp(self, host: str, *_: Any) -> Any:
        self.tried.append(host)
        if host in self._dead:
            raise httpcore2.ConnectError
        return self


def connect(answers: list[Sequence[str]], *dead: str) -> tuple[Wires, int]:
    """Connect to a name whose addresses are another answer each time; return where it led, and the look-ups."""
    asked = 0

    async def resolve(_host: str, _port: int) -> Sequence[Address]:
        nonlocal asked
        asked += 1
        return [ip_address(one) for one in answers[min(asked, len(answers)) - 1]]

    network = CheckedNetwork(Outlets(), is_plain=False, resolve=resolve)
    wires = Wires(*dead)
    network._network = wires  # type: ignore[assignment]
    try:
        asyncio.run(network.connect_tcp("shop.example", 443))
    except AddressRefused:
        wires.tried.append("refused")
    return wires, asked


def test_the_address_that_was_looked_at_is_the_one_connected_to() -> None:
    """A name that answers otherwise when asked again is not asked again."""
    wires, asked = connect([["1.1.1.1"], ["127.0.0.1"]])
    assert (wires.tried, asked) == (["1.1.1.1"], 1)


def test_a_name_with_one_address_inside_is_refused_whole() -> None:
    assert connect([["1.1.1.1", "10.0.0.1"]])[0].tried == ["refused"]
    assert connect([[]])[0].tried == ["refused"]


def test_the_next_address_is_tried_where_one_is_dead() -> None:
    assert connect([["1.1.1.1", "2606:4700::1111"]], "1.1.1.1")[0].tried == ["1.1.1.1", "2606:4700::1111"]
