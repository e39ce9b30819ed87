"""One delivery, to a real receiver: what it sends, and that nothing a receiver does leads it astray or holds it up."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpcore2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bidder_api.webhooks import address, sender
from bidder_api.webhooks.address import Address, Outlets
from bidder_api.webhooks.sender import Outcome, Sender, outcome_of
from tests.receiver import Receiver

BODY = b'{"type":"webhook.test"}'
HERE = Outlets(loopback="on")


def post(url: str, outlets: Outlets = HERE, **settings: Any) -> Outcome:
    async def run() -> Outcome:
        sending = Sender(outlets, **settings)
        try:
            return await sending.post(url, {"webhook-id": "ntc_1"}, BODY)
        finally:
            await sending.close()

    return asyncio.run(run())


def test_it_posts_the_very_bytes() -> None:
    with Receiver() as receiver:
        assert post(receiver.url) == Outcome(200, None)
    (received,) = receiver.received
    assert (received.path, received.body) == ("/hook", BODY)
    assert received.headers["webhook-id"] == "ntc_1"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["user-agent"] == "endcap-webhooks"


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_two_hundreds_are_delivered(status: int) -> None:
    with Receiver(status) as receiver:
        assert post(receiver.url).error is None


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
def test_everything_else_is_not(status: int) -> None:
    with Receiver(status) as receiver:
        assert post(receiver.url) == Outcome(status, "refused")


def redirect(to: str, status: int = 302) -> Any:
    def answer(handler: Any) -> None:
        handler.send_response(status)
        handler.send_header("location", to)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return answer


def follow_redirects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant the fault: go wherever an answer says."""
    first = Sender.post

    async def post_on(self: Sender, url: str, headers: dict[str, str], body: bytes) -> Outcome:
        pool = self._pools[True]
        answer = await pool.request("POST", url, headers=list(headers.items()), content=body)
        location = dict(answer.headers).get(b"location")
        return await first(self, location.decode() if location else url, headers, body)

    monkeypatch.setattr(Sender, "post", post_on)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    with Receiver() as inside, Receiver(redirect(inside.url, status)) as receiver:
        assert post(receiver.url) == Outcome(status, "redirect_refused")
    assert len(receiver.received) == 1
    assert inside.received == []


def test_a_redirect_that_is_followed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    follow_redirects(monkeypatch)
    with Receiver() as inside, Receiver(redirect(inside.url)) as receiver:
        assert post(receiver.url) != Outcome(302, "redirect_refused")
    assert inside.received != []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f000001", "2130706433", "127.1"])
def test_nothing_on_this_machine_is_reached_under_any_name(host: str) -> None:
    with Receiver() as receiver:
        for scheme in ("http", "https"):
            assert post(f"{scheme}://{host}:{receiver.port}/hook", Outlets()).error in (
                "address_refused",
                "name_unknown",
            )
    assert receiver.received == []


def test_a_name_that_leads_inside_is_refused_when_it_is_connected_to() -> None:
    """As with a name that was public when the webhook was made."""

    async def resolve(_host: str, _port: int) -> Sequence[Address]:
        return [ip_address("127.0.0.1")]

    with Receiver() as receiver:
        url = f"https://shop.example:{receiver.port}/hook"
        assert Outlets().fault_of(url) is None
        assert post(url, Outlets(), resolve=resolve) == Outcome(None, "address_refused")
    assert receiver.received == []


def test_an_address_that_is_not_looked_at_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault planted: every address is let through."""
    monkeypatch.setattr(Outlets, "lets_through", lambda *_, **__: True)
    with Receiver() as receiver:
        assert post(receiver.url, Outlets()) == Outcome(200, None)
    assert receiver.received != []


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert post(receiver.url).error is None
    assert (len(proxy.received), len(receiver.received)) == (0, 1)


def write_until_refused(handler: Any, block: bytes, count: int) -> None:
    with contextlib.suppress(OSError):
        for _ in range(count):
            handler.wfile.write(block)


def test_an_endless_body_is_not_read() -> None:
    def flood(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("content-length", str(10**12))
        handler.end_headers()
        write_until_refused(handler, bytes(65_536), 10_000)

    with Receiver(flood) as receiver:
        began = time.monotonic()
        assert post(receiver.url) == Outcome(200, None)
        assert time.monotonic() - began < 5


def test_an_endless_head_is_given_up() -> None:
    def babble(handler: Any) -> None:
        handler.send_response_only(200)
        handler.flush_headers()
        write_until_refused(handler, b"x: " + b"y" * 1000 + b"\r\n", 1_000_000)

    with Receiver(babble) as receiver:
        assert post(receiver.url) == Outcome(None, "protocol_error")


def test_who_says_nothing_is_given_up_in_time() -> None:
    def hang(_handler: Any) -> None:
        time.sleep(0.6)

    with Receiver(hang) as receiver:
        began = time.monotonic()
        assert post(receiver.url, timeout_s=0.2) == Outcome(None, "timeout")
        assert time.monotonic() - began < 0.6


def test_what_is_no_http_is_told_as_such() -> None:
    def mumble(handler: Any) -> None:
        handler.wfile.write(b"\0\1\2 mumble\r\n\r\n")

    with Receiver(mumble) as receiver:
        assert post(receiver.url) == Outcome(None, "protocol_error")


def test_nobody_there_and_no_such_name() -> None:
    with Receiver() as receiver:
        url = receiver.url
    assert post(url) == Outcome(None, "connection_failed")
    assert post("https://nobody.invalid/") == Outcome(None, "name_unknown")


def test_names_that_take_their_time_hold_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def take_time(*_: object, **__: object) -> Any:
        time.sleep(0.4)
        raise socket.gaierror

    async def run() -> float:
        sending = Sender(Outlets())
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        posts = [asyncio.create_task(sending.post(f"https://slow-{n}.example/", {}, BODY)) for n in range(8)]
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await asyncio.to_thread(int)
        waited_s = time.monotonic() - began
        assert {one.error for one in await asyncio.gather(*posts)} == {"name_unknown"}
        await sending.close()
        return waited_s

    monkeypatch.setattr(socket, "getaddrinfo", take_time)
    assert asyncio.run(run()) < 0.3


def test_who_asks_to_be_left_alone_is() -> None:
    assert outcome_of(503, b"120") == Outcome(503, "refused", 120)
    assert outcome_of(429, b"9999999") == Outcome(429, "refused", 86_400)
    for other in (b"", b"soon", b"-5", b"Wed, 21 Oct 2026 07:28:00 GMT", b"9" * 5000):
        assert outcome_of(503, other).retry_after_s == 0


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Return a certificate that signs itself and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    certificate_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path


def test_the_certificate_must_be_the_names_though_the_address_is_connected_to(tmp_path: Path) -> None:
    async def resolve(_host: str, _port: int) -> Sequence[Address]:
        return [ip_address("127.0.0.1")]

    certificate_path, key_path = certificate(tmp_path, "shop.example")
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(certificate_path, key_path)
    believing = ssl.create_default_context(cafile=str(certificate_path))
    with Receiver(tls=listening) as receiver:
        right, wrong = (f"https://{name}:{receiver.port}/hook" for name in ("shop.example", "other.example"))
        assert post(right, tls=believing, resolve=resolve) == Outcome(200, None)
        assert post(wrong, tls=believing, resolve=resolve) == Outcome(None, "tls_failed")
        assert post(right, resolve=resolve) == Outcome(None, "tls_failed"), "signed by itself"
    assert len(receiver.received) == 1


def test_the_time_limit_is_what_the_specification_asks_for() -> None:
    assert 15 <= sender.TIMEOUT_S <= 30
    assert issubclass(address.CheckedNetwork, httpcore2.AsyncNetworkBackend)
