"""Visitors shared through a Valkey or Redis server: what the serving process answers while the server is away."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from affinity.errors import VisitorStoreRefused
from affinity.settings import Settings as AffinitySettings
from affinity.shared_store import open_client
from bidder_api.database import Database
from bidder_api.settings import SettingsRefused, list_settings, read_settings
from tests.bidder_api.test_serving import PLACEMENT, fill, shop
from tests.bidder_api.test_visitor_data import NO, YES, call, navigate, order
from tests.bidder_api.world import World, world_over
from tests.valkey import ValkeyServer

__all__ = ["shop"]  # the fixture

TMAX_MS = 300


@pytest.fixture
def world(sqlite_database: Database, valkey: ValkeyServer) -> Iterator[World]:
    with world_over(sqlite_database, AffinitySettings(audience_size_min=1), visitor_store=valkey.url) as made:
        yield made


def metric(world: World, name: str) -> float:
    lines = world.client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


def wait_until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def timed_fill(world: World, **more: Any) -> tuple[Any, float]:
    began = time.monotonic()
    answer = fill(world, tmax_ms=TMAX_MS, **more)
    return answer, (time.monotonic() - began) * 1000


def leave(valkey: ValkeyServer, how: str) -> None:
    (valkey.kill if how == "killed" else valkey.pause)()


def come_back(valkey: ValkeyServer, how: str) -> None:
    (valkey.start if how == "killed" else valkey.resume)()


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_pages_are_filled_in_time_and_events_taken_while_the_server_is_away(
    shop: World, valkey: ValkeyServer, how: str
) -> None:
    shop.wait_started()
    navigate(shop, "ana")
    assert shop.client.get("/readyz").json() == {"status": "ready"}
    whole, _ = timed_fill(shop)
    assert not whole["partial"]
    leave(valkey, how)
    for _ in range(5):
        answer, took_ms = timed_fill(shop)
        assert answer["partial"]
        assert answer["placements"][0]["fills"][0]["is_sponsored"]  # as for somebody nothing is known of
        assert took_ms < TMAX_MS
    assert metric(shop, "endcap_fills_without_visitor_total") == 5
    assert shop.client.get("/readyz").json() == {"status": "ready", "degraded": ["visitor_store"]}
    navigate(shop, "ana", action="add_to_cart")  # 202: the log has it
    for method, path, body in (
        ("POST", "/v1/navigation", {"events": [], "consent": NO}),
        ("GET", "/v1/visitors/ana", None),
        ("DELETE", "/v1/visitors/ana", None),
    ):
        if body is not None:
            body["events"] = [{"visitor_id": "ana", "action": "view_item", "occurred_at": "2026-11-18T11:06:30Z"}]
        refused = shop.call(method, path, body, role="retailer")
        assert refused.status_code == 503, refused.text
        assert refused.json()["retryable"]
        assert int(refused.headers["Retry-After"]) > 0
    come_back(valkey, how)
    wait_until(lambda: shop.client.get("/readyz").json() == {"status": "ready"})
    wait_until(lambda: metric(shop, "endcap_visitor_store_up") == 1)
    whole, _ = timed_fill(shop)
    assert not whole["partial"]
    assert call(shop, "GET", "/v1/visitors/ana")["state"]["event_count"] == 2
    assert call(shop, "DELETE", "/v1/visitors/ana", status=204) is None
    assert call(shop, "GET", "/v1/visitors/ana", status=404)


def test_a_placement_limited_per_visitor_sells_nothing_to_somebody_who_cannot_be_read(
    shop: World, valkey: ValkeyServer
) -> None:
    limited = PLACEMENT | {"sponsored_per_visitor": {"day": 1}}
    assert shop.call("PUT", "/v1/placements/top", limited, role="merchant").status_code == 200
    shop.publish()
    shop.wait_started()
    assert fill(shop, visitor_id="new")["placements"][0]["fills"][0]["is_sponsored"]
    valkey.kill()
    answer, _ = timed_fill(shop, visitor_id="new")
    assert not any(one["is_sponsored"] for one in answer["placements"][0]["fills"])


def test_a_page_without_consent_or_visitor_waits_for_nobody(shop: World, valkey: ValkeyServer) -> None:
    shop.wait_started()
    valkey.pause()
    for asked in ({"consent": None}, {"visitor_id": None, "consent": YES}):
        answer, took_ms = timed_fill(shop, **asked)
        assert (answer["partial"], took_ms < TMAX_MS / 3) == (False, True)
    valkey.resume()


def test_a_page_that_refuses_consent_while_the_server_is_away_is_heard_after(shop: World, valkey: ValkeyServer) -> None:
    shop.wait_started()
    navigate(shop, "ana")
    valkey.pause()
    timed_fill(shop, consent=NO)
    valkey.resume()
    wait_until(lambda: shop.call("GET", "/v1/profiles/ana", role="crm").status_code == 404)


def test_an_order_that_comes_while_the_server_is_away_is_in_the_profile_after(
    shop: World, valkey: ValkeyServer
) -> None:
    shop.wait_started()
    navigate(shop, "ana")
    shop.serving.visitors.drop_copy(shop.serving.visitors.pseudonym("ana"))  # only the server knows the buyer
    valkey.pause()
    timed_fill(shop)
    assert order(shop, "o1", visitor_id="ana", channel="store") == "accepted"
    valkey.resume()
    wait_until(lambda: shop.client.get("/readyz").json() == {"status": "ready"})
    wait_until(lambda: call(shop, "GET", "/v1/profiles/ana")["computed"]["order_count"] == 1)


def test_a_start_without_the_server_serves_and_catches_up(sqlite_database: Database, valkey: ValkeyServer) -> None:
    valkey.kill()
    with world_over(sqlite_database, AffinitySettings(audience_size_min=1), visitor_store=valkey.url) as world:
        world.wait_started()
        world.publish()
        assert world.client.get("/readyz").json() == {"status": "ready", "degraded": ["visitor_store"]}
        navigate(world, "ana")
        valkey.start()
        wait_until(lambda: world.client.get("/readyz").json() == {"status": "ready"})
        assert call(world, "GET", "/v1/visitors/ana")["state"]["event_count"] == 1


def test_without_the_library_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkey.asyncio", None)
    with pytest.raises(VisitorStoreRefused, match=r"pip install 'endcap\[cluster\]'"):
        open_client("valkey://localhost:6379/0")


@pytest.mark.parametrize("url", ["valkey://h:1/0", "valkeys://u:p@h", "redis://h:6379/2", "rediss://:p@h:1/0"])
def test_where_visitors_are_shared_is_a_url(url: str) -> None:
    settings = read_settings({"ENDCAP_VISITOR_STORE": url})
    assert settings.server.shares_visitors
    open_client(url)
    shown = next(line.value for line in list_settings(settings) if line.variable == "ENDCAP_VISITOR_STORE")
    assert ":p@" not in shown
    assert "h" in shown


@pytest.mark.parametrize("url", ["", "memory", "valkey://", "http://h:1", "valkey://h h"])
def test_what_is_no_url_of_a_store_is_refused(url: str) -> None:
    with pytest.raises(SettingsRefused, match="ENDCAP_VISITOR_STORE"):
        read_settings({"ENDCAP_VISITOR_STORE": url})


def test_memory_shares_with_nobody() -> None:
    assert not read_settings({}).server.shares_visitors
    assert not read_settings({"ENDCAP_VISITOR_STORE": "memory://"}).server.shares_visitors
