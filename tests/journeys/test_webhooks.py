"""Notices of a real server to a real receiver, over a kill: what was acknowledged is told of, and signed."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from tests.receiver import Received, Receiver
from tests.server import RunningServer, ok

WITHIN_S = 60.0  # a lease of a killed server runs out after 20


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "data", database_url, {"ENDCAP_WEBHOOK_LOOPBACK": "on"}) as running:
        yield running


def wait_for(what: Callable[[], bool]) -> None:
    ends = time.monotonic() + WITHIN_S
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_what_was_acknowledged_before_a_kill_is_told_of_after_it(server: RunningServer) -> None:
    brand = server.client(server.create_key("advertiser", "strider"))
    finance = server.client(server.create_key("finance"))
    with Receiver() as receiver:
        port = receiver.port
    made = ok(brand.post("/v1/webhooks", json={"url": receiver.url}), 201)
    everybody = ok(finance.post("/v1/webhooks", json={"url": receiver.url, "event_types": ["funds.low"]}), 201)

    def top_up(reference: str) -> None:
        body = {"advertiser_id": "strider", "amount_micros": 60_000_007, "reference": reference}
        ok(finance.post("/v1/ledger/top-ups", json=body), 201)

    def deliveries(status: str) -> list[dict[str, object]]:
        path = f"/v1/webhooks/{made['webhook_id']}/deliveries"
        items: list[dict[str, object]] = ok(brand.get(path, params={"status": status}))["items"]
        return items

    # Nobody is there to receive the first one; it waits. The server is killed at the acknowledgement of the second.
    top_up("wire 1")
    wait_for(lambda: any(one["last_error"] == "connection_failed" for one in deliveries("pending")))
    top_up("wire 2")
    server.kill()
    with Receiver(port=port) as receiver:
        server.start()
        server.wait_ready()
        wait_for(lambda: len({one.headers["webhook-id"] for one in receiver.received}) == 2)
        wait_for(lambda: len(deliveries("delivered")) == 2)
        assert deliveries("pending") == []
        ok(brand.put("/v1/ledger/low-funds/strider", json={"threshold_micros": 10**9}))
        wait_for(lambda: len({one.headers["webhook-id"] for one in receiver.received}) == 3)
        wait_for(lambda: len(deliveries("delivered")) == 3)

        # Once more, by the command.
        listed = server.run("webhooks", "list")
        assert made["webhook_id"] in listed
        assert "whsec" not in listed
        (newest, *_) = re.findall(r"dlv_\w+", server.run("webhooks", "deliveries", made["webhook_id"]))
        before = len(receiver.received)
        assert newest in server.run("webhooks", "redeliver", newest)
        wait_for(lambda: len(receiver.received) > before)

    by_secret = {made["secret"]: 0, everybody["secret"]: 0}
    for received in receiver.received:
        by_secret[verified(received, list(by_secret))] += 1
    bodies = {one.headers["webhook-id"]: json.loads(one.body) for one in receiver.received}
    assert sorted(one["type"] for one in bodies.values()) == ["funds.low", "payment.received", "payment.received"]
    assert {one["data"].get("reference") for one in bodies.values()} == {"wire 1", "wire 2", None}
    assert by_secret[everybody["secret"]] == 1
    assert by_secret[made["secret"]] >= 4
    assert made["secret"] not in server.log()
    metrics = server.client().get("/metrics").text
    assert 'endcap_webhook_attempts_total{result="delivered"}' in metrics


def verified(received: Received, secrets: list[str]) -> str:
    """Return the secret that a delivery verifies with."""
    for secret in secrets:
        try:
            Webhook(secret).verify(received.body, received.headers)
        except Exception:  # the other one's
            continue
        return secret
    raise AssertionError("signed with no secret of ours")
