"""Two serving processes over one PostgreSQL database and one Valkey or Redis server: a visitor is one to both."""

import base64
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bidder_api.tasks import pseudonymizer_of
from tests.journeys.test_erasure import event, fill, open_shop, page, report
from tests.server import RunningServer, ok
from tests.valkey import ValkeyServer

pytestmark = pytest.mark.postgres

WITHIN_S = 5.0


@pytest.fixture
def servers(
    tmp_path: Path, postgres_url: str, valkey_binary: str
) -> Iterator[tuple[RunningServer, RunningServer, ValkeyServer]]:
    with ValkeyServer(valkey_binary, appendonly="yes", appendfsync="always") as valkey:
        variables = {"ENDCAP_VISITOR_STORE": valkey.url}
        with RunningServer(tmp_path / "one", postgres_url, variables) as one:
            same = {"ENDCAP_BEACON_KEYS": one.environment["ENDCAP_BEACON_KEYS"]}
            with ExitStack() as stack:
                two = RunningServer(tmp_path / "two", postgres_url, variables | same)
                stack.push(two)
                yield one, two, valkey


def state(client: Any, visitor_id: str) -> Any:
    answer = client.get(f"/v1/visitors/{visitor_id}")
    return ok(answer)["state"] if answer.status_code != 404 else None


def send(client: Any, *events: dict[str, Any], consent: Any = None) -> Any:
    said = {} if consent is None else {"consent": consent}
    return ok(client.post("/v1/navigation", json={"events": list(events), **said}), 202)


def wait_for(what: str, holds: Any) -> float:
    """Wait until something holds; return the seconds it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < WITHIN_S, what
        time.sleep(0.02)
    return time.monotonic() - began


def test_two_processes_share_their_visitors(servers: tuple[RunningServer, RunningServer, ValkeyServer]) -> None:
    one, two, valkey = servers
    site, _ = open_shop(one)
    two.start()  # only now: it reads at the start what money there is
    two.wait_ready()
    other = two.client(str(site.headers["Authorization"]).split()[1])

    # What one was told, the other knows with its next page, and what is sent again to the other counts once.
    looked = event("phone", 5, event_id="e1")
    assert send(site, looked) == {"recorded": 1, "duplicates": 0}
    assert state(other, "phone")["event_count"] == 1
    assert send(other, looked) == {"recorded": 0, "duplicates": 1}
    send(other, event("phone", 3, action="add_to_cart"), event("laptop", 2))
    assert state(site, "phone")["event_count"] == 2

    # A bid's frequency cap counts what either showed; the page the one served renders at the other.
    fill(site, "phone")
    given = fill(other, "phone")
    assert report(two.client(), "phone", given["beacon_token"]) == ["accepted", "accepted"]
    wait_for("both fills count", lambda: list(state(site, "phone")["served_bids"].values()) == [2])
    assert state(other, "phone")["served_bids"] == state(site, "phone")["served_bids"]

    # A link made at one joins the devices at the other; so does an order.
    ok(other.post("/v1/visitors/phone/link", json={"customer_id": "kim"}))
    ok(site.post("/v1/visitors/laptop/link", json={"customer_id": "kim"}))
    wait_for("the other learns of the link", lambda: state(other, "laptop")["event_count"] == 3)
    order = {
        "order_id": "o1", "customer_id": "kim", "occurred_at": event("", 9)["occurred_at"], "channel": "store",
        "lines": [{"product_id": "trail-1", "quantity": 1, "unit_price_micros": 89_990_000}],
    }  # fmt: skip
    ok(other.post("/v1/orders", json={"orders": [order]}))
    wait_for("the order is in the profile", lambda: "trail-1" in state(site, "phone")["bought_products"])
    assert ok(site.get("/v1/profiles/laptop"))["computed"]["order_count"] == 1

    # The export has what the other process logged, too.
    held = ok(site.get("/v1/visitors/phone"))
    assert [one["action"] for one in held["navigation"]].count("add_to_cart") == 1
    assert len(held["links"]) == 3

    # Consent withdrawn on a page of the one is unknown to the other within five seconds, and stays so.
    send(site, event("guest", 4))
    send(other, event("guest", 4))
    ok(other.post("/v1/fills", json=page("guest") | {"consent": {"personalised": False}}))
    took_s = wait_for("the withdrawal", lambda: state(site, "guest") is None)
    assert took_s < WITHIN_S

    # One process is killed: the other goes on, and whoever comes back needs nothing replayed.
    one.kill()
    send(other, event("laptop", 1, action="add_to_wishlist"))
    one.start()
    one.wait_ready()
    mine, theirs = state(site, "laptop"), state(other, "laptop")
    assert mine | {"seen_at": None} == theirs | {"seen_at": None}
    assert state(site, "laptop")["event_count"] == 5

    # Erased at one, the person is in no file of either process nor of the server, and in none of their keys.
    hide = pseudonymizer_of(bytes.fromhex("5e" * 32))
    marks = [hide.of(visitor_id) for visitor_id in ("phone", "laptop", "kim")]
    spelt = [form for mark in marks for form in (mark, mark.hex().encode(), _base64(mark))]

    def holders() -> set[str]:
        places = [*one.data_dir.rglob("*"), *two.data_dir.rglob("*"), *valkey.files()]
        found = {str(place) for place in places if place.is_file() and any(m in place.read_bytes() for m in spelt)}
        return found | ({"keys"} if any(mark in b"\n".join(valkey.contents()) for mark in spelt) else set())

    assert {"keys"} < holders()
    assert site.delete("/v1/visitors/laptop").status_code == 204
    assert holders() == set()
    assert state(other, "phone") is state(site, "kim") is None

    # One that is stopped meanwhile erases when it starts again, before it is ready.
    send(site, event("late", 5))
    send(other, event("late", 5))
    assert two.stop() == 0
    marks = [hide.of("late")]
    spelt = [_base64(marks[0])]
    ends = time.monotonic() + 60
    while site.delete("/v1/visitors/late").status_code != 204:  # 503 until the other counts as away
        assert time.monotonic() < ends
    assert {Path(name).parts[-3] for name in holders()} == {"two"}
    two.start()
    two.wait_ready()
    assert holders() == set()
    assert state(other, "late") is None
    one.run("ledger", "verify")


def _base64(mark: bytes) -> bytes:
    return base64.b64encode(mark).rstrip(b"=")
