"""A visitor is erased: then no file of the data folder holds their id or what stands for it, and the books verify."""

import base64
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bidder_api.settings import Settings, master_secret
from bidder_api.tasks import pseudonymizer_of
from tests.server import RunningServer, ok
from tests.valkey import ValkeyServer

PERSON = ("phone-5c1f0a77", "laptop-93be4d10", "customer-2f6e8b31")
OTHER = "other-77aa0c52"


@pytest.fixture(params=["memory", "shared"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningServer]:
    """A server, once with visitors in memory, and once with a Valkey or Redis server over the same data folder."""
    if request.param == "memory":
        with RunningServer(tmp_path / "data") as running:
            yield running
        return
    with ValkeyServer(request.getfixturevalue("valkey_binary"), appendonly="yes", save="3600 1") as valkey:
        valkey_folder = tmp_path / "data" / "valkey"
        valkey_folder.parent.mkdir()
        valkey_folder.symlink_to(valkey.folder)
        with RunningServer(tmp_path / "data", variables={"ENDCAP_VISITOR_STORE": valkey.url}) as running:
            valkey.client.bgsave()
            yield running


def pseudonyms(server: RunningServer, *visitor_ids: str) -> list[bytes]:
    hide = pseudonymizer_of(master_secret(Settings(data_dir=server.data_dir)))
    return [hide.of(visitor_id) for visitor_id in visitor_ids]


def traces(server: RunningServer, *visitor_ids: str) -> list[bytes]:
    """Return every way ids and pseudonyms may be written."""
    hidden = pseudonyms(server, *visitor_ids)
    written = [spelt for one in hidden for spelt in (one, base64.b64encode(one).rstrip(b"="), one.hex().encode())]
    return [*(one.encode() for one in visitor_ids), *written]


def holders(server: RunningServer, marks: list[bytes]) -> set[str]:
    """Return the files of the data folder in which one of the marks is, byte for byte."""
    found = set()
    for path in [*server.data_dir.rglob("*"), *(server.data_dir / "valkey").rglob("*")]:
        if path.is_file() and any(mark in path.read_bytes() for mark in marks):
            found.add(path.relative_to(server.data_dir).parts[0])
    return found


def event(visitor_id: str, seconds_ago: float, **more: Any) -> dict[str, Any]:
    at = datetime.fromtimestamp(time.time() - seconds_ago, UTC).isoformat()
    return {"visitor_id": visitor_id, "action": "view_item", "product_id": "trail-1", "occurred_at": at} | more


def open_shop(server: RunningServer) -> tuple[Any, Any]:
    """Set up a product, a placement and a bid that everybody sees four times an hour; return site and browser."""
    merchant = server.client(server.create_key("merchant"))
    brand = server.client(server.create_key("advertiser", "strider"))
    finance = server.client(server.create_key("finance"))
    product = {
        "title": "Trail shoe",
        "link": "https://shop.example/trail-1",
        "price_micros": 89_990_000,
        "brand": "Trail",
        "product_type": "Shoes",
        "advertiser_ids": ["strider"],
    }
    ok(merchant.put("/v1/products/trail-1", json=product), 201)
    ok(merchant.put("/v1/placements/top", json={"page_types": ["category"], "slot_count": 1, "floor_micros": 1}), 201)
    ok(
        finance.post(
            "/v1/ledger/top-ups", json={"advertiser_id": "strider", "amount_micros": 10**9, "reference": "bank"}
        )
    )
    campaign = ok(brand.post("/v1/campaigns", json={"name": "Trail", "daily_budget_micros": 10**8}), 201)
    bid = {
        "campaign_id": campaign["campaign_id"],
        "product_ids": ["trail-1"],
        "charge_on": "click",
        "bid_micros": 300_000,
        "frequency_cap": {"count": 40, "window_s": 3600},
    }
    ok(brand.post("/v1/bids", json=bid), 201)
    return server.client(server.create_key("retailer")), server.client()


def page(visitor_id: str) -> dict[str, Any]:
    return {
        "visitor_id": visitor_id,
        "consent": {"personalised": True},
        "page": {"type": "category", "category_id": "Shoes"},
        "placements": [{"placement_id": "top"}],
        "tmax_ms": 500,
    }


def fill(site: Any, visitor_id: str) -> Any:
    """Ask for the category page until it has its paid fill."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        answer = site.post("/v1/fills", json=page(visitor_id))
        fills = answer.json()["placements"][0]["fills"] if answer.status_code == 200 else []
        if fills and fills[0]["is_sponsored"]:
            return fills[0]
        time.sleep(0.05)
    raise AssertionError("no paid fill")


def report(browser: Any, visitor_id: str, token: str) -> list[str]:
    events = [
        {"event_id": f"{kind}-{token[-12:]}", "type": kind, "beacon_token": token} for kind in ("impression", "click")
    ]
    return [one["result"] for one in ok(browser.post("/v1/events", json={"events": events}))["results"]]


def live(server: RunningServer, site: Any, browser: Any, visitor_ids: tuple[str, ...], customer_id: str) -> list[str]:
    """Leave every kind of trace there is; return tokens of fills not reported yet."""
    tokens = []
    for visitor_id in visitor_ids:
        events = [event(visitor_id, ago, event_id=f"e{ago}", query="trail") for ago in range(60)]
        ok(site.post("/v1/navigation", json={"events": events}), 202)
        ok(site.put(f"/v1/profiles/{visitor_id}", json={"segments": ["vip"], "attributes": {"age": 40}}))
        assert report(browser, visitor_id, fill(site, visitor_id)["beacon_token"]) == ["accepted", "accepted"]
        order = {
            "order_id": f"o-{len(tokens)}-{time.time_ns()}",
            "visitor_id": visitor_id,
            "customer_id": customer_id,
            "occurred_at": datetime.now(UTC).isoformat(),
            "lines": [{"product_id": "trail-1", "quantity": 1, "unit_price_micros": 89_990_000}],
        }
        ok(site.post("/v1/orders", json={"orders": [order]}))
        if visitor_id != customer_id:
            ok(site.post(f"/v1/visitors/{visitor_id}/link", json={"customer_id": customer_id}))
        tokens.append(fill(site, visitor_id)["beacon_token"])
    history = server.data_dir.parent / "history.jsonl"
    lines = [event(visitor_id, 10**6 + ago) for visitor_id in visitor_ids for ago in range(50)]
    history.write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines))
    server.run("navigation", "import", str(history))
    return tokens


def test_an_erased_person_is_in_no_file_and_the_books_still_verify(server: RunningServer) -> None:
    site, browser = open_shop(server)
    tokens = live(server, site, browser, PERSON, PERSON[-1])
    live(server, site, browser, (OTHER,), OTHER)
    marks = traces(server, *PERSON)
    deadline = time.monotonic() + 10
    while "bid_id" not in str(held := ok(site.get(f"/v1/visitors/{PERSON[0]}"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(held["navigation"]) >= 3 * 110
    assert (len(held["links"]), len(held["orders"]), len(held["touches"])) == (3, 3, 3)
    assert {"navigation", "endcap.db-wal"} <= holders(server, marks)  # what is looked for can be found
    assert ("valkey" in holders(server, marks)) == (server.data_dir / "valkey").exists()
    assert not holders(server, [one.encode() for one in (*PERSON, OTHER)])  # raw ids never reach the disk

    assert site.delete(f"/v1/visitors/{PERSON[0]}").status_code == 204
    assert holders(server, marks) == set()
    assert site.get(f"/v1/visitors/{PERSON[1]}").status_code == 404
    others = holders(server, traces(server, OTHER))
    assert {"navigation", "endcap.db"} <= others

    # Clicks on what they were shown before still count, and are nobody's.
    for visitor_id, token in zip(PERSON, tokens, strict=True):
        assert report(browser, visitor_id, token) == ["accepted", "accepted"]
    time.sleep(1.5)  # what waits in memory is on the disk now
    assert holders(server, marks) == set()

    # Killed and started again, the server knows the other and nothing of them.
    server.kill()
    server.start()
    server.wait_ready()
    assert site.get(f"/v1/visitors/{PERSON[0]}").status_code == 404
    assert ok(site.get(f"/v1/visitors/{OTHER}"))["state"]["event_count"] > 60

    # The other refuses consent on a page, is unknown to the next one, and stays so when the server is killed.
    request = page(OTHER) | {"consent": {"personalised": False}}
    ok(site.post("/v1/fills", json=request))
    assert site.get(f"/v1/profiles/{OTHER}").status_code == 404
    ends = time.monotonic() + 5
    while "navigation" in holders(server, traces(server, OTHER)):
        assert time.monotonic() < ends
        time.sleep(0.1)
    server.kill()
    server.start()
    server.wait_ready()
    assert site.get(f"/v1/visitors/{OTHER}").status_code == 404

    assert server.stop() == 0
    assert holders(server, marks) == set()
    server.run("ledger", "verify")
    assert holders(server, marks) == set()
