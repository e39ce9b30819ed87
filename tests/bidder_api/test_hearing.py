"""What serving hears on the way to the ledger: clicks, orders and delays, each once; and what it keeps."""

import io
import json
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow.parquet
import pytest
from openpyxl import load_workbook

from affinity.clicks import ClickCounters, read_memory
from affinity.settings import Settings as AffinitySettings
from auction.serving import SlotServer
from auction.spend import PacingMemory
from bidder_api.hearing import HEARD_LETTERS, HEARD_OF, HEARD_PLACE
from bidder_api.serving import PACING_FILE, keep_pacing, recall_clicks, recall_pacing
from bidder_api.tasks import CLICKS_FILE
from ledger.settings import Settings as LedgerSettings
from ledger.table_file import MEDIA_TYPES
from tests.bidder_api.test_serving import PLACEMENT, fill, shop
from tests.bidder_api.world import World

__all__ = ["shop"]  # the fixture


def report(world: World, token: str, kind: str, event_id: str) -> Any:
    events = {"events": [{"event_id": event_id, "type": kind, "beacon_token": token}]}
    return world.call("POST", "/v1/events", events, role="retailer").json()["results"][0]


def campaign_of(world: World) -> Any:
    return world.call("GET", "/v1/campaigns").json()["items"][0]


def test_a_click_through_the_events_ends_a_visitors_pause(shop: World) -> None:
    limit = {"cool_down_after_unclicked": {"count": 1, "seconds": 600}}
    answer = shop.call("PUT", "/v1/placements/top", PLACEMENT | {"sponsored_per_visitor": limit}, role="merchant")
    assert answer.json()["sponsored_per_visitor"] == {"session": None, "day": None, **limit}
    shop.publish()
    (shown,) = fill(shop)["placements"][0]["fills"]
    shop.clock.now_ms += 1_000
    assert fill(shop)["placements"][0]["no_fill_reason"] == "visitor_limit"
    assert report(shop, shown["beacon_token"], "click", "e1")["result"] == "accepted"
    assert len(fill(shop)["placements"][0]["fills"]) == 1


def test_delays_of_charges_are_heard_once(shop: World) -> None:
    (shown,) = fill(shop)["placements"][0]["fills"]
    shop.clock.now_ms += 60_000
    for kind, event_id in (("impression", "e0"), ("click", "e1"), ("click", "e1"), ("click", "e2")):
        report(shop, shown["beacon_token"], kind, event_id)
    assert [sum(counts) for counts in shop.serving.slot_server.spend.memory().delay_counts] == [0, 1]


def counted(world: World) -> tuple[float, float]:
    """Showings and clicks the server has counted."""
    placements = world.portal.call(world.serving.slot_server.counters.read, world.clock()).placements
    return sum(one.shown.sum() for one in placements), sum(one.clicked.sum() for one in placements)


def test_clicks_are_counted_once_and_a_sample_of_impressions_stands_for_all(shop: World) -> None:
    tokens = [fill(shop)["placements"][0]["fills"][0]["beacon_token"] for _ in range(300)]
    for kind in ("impression", "impression", "view"):
        events = [{"event_id": f"{kind}{n}", "type": kind, "beacon_token": token} for n, token in enumerate(tokens)]
        answer = shop.call("POST", "/v1/events", {"events": events}, role="retailer").json()
        assert {one["result"] for one in answer["results"]} == {"accepted"} or kind == "impression"
    sampled = sum(token[HEARD_PLACE] in HEARD_LETTERS for token in tokens)
    assert 3 <= sampled <= 45, "about one in sixteen, by chance"
    report(shop, tokens[0], "click", "c0")
    report(shop, tokens[0], "click", "c0")
    assert counted(shop) == (sampled * HEARD_OF, 1)


def test_where_limits_need_every_impression_each_stands_for_itself(shop: World) -> None:
    limit = {"day": 200}
    shop.call("PUT", "/v1/placements/top", PLACEMENT | {"sponsored_per_visitor": limit}, role="merchant")
    shop.publish()
    for number in range(5):
        report(shop, fill(shop)["placements"][0]["fills"][0]["beacon_token"], "impression", f"e{number}")
    assert counted(shop) == (5, 0)


def test_what_is_organic_or_beyond_the_budget_teaches_too_but_robots_do_not(shop: World) -> None:
    body = {"mode": "merchandised", "rules": "on", "exclude_product_ids": []}
    campaign = campaign_of(shop)
    (paid,) = fill(shop)["placements"][0]["fills"]
    shop.call(
        "PATCH",
        f"/v1/campaigns/{campaign['campaign_id']}",
        {"status": "paused"},
        headers={"If-Match": f'"{campaign["change_seq"]}"'},
    )
    shop.publish()
    (organic,) = fill(shop, **body)["placements"][0]["fills"]
    assert not organic["is_sponsored"]
    assert report(shop, organic["beacon_token"], "click", "e1")["code"] == "organic"
    assert counted(shop)[1] == 1
    robot = {
        "event_id": "e2", "type": "click", "beacon_token": paid["beacon_token"],
        "client": {"user_agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"},
    }  # fmt: skip
    answer = shop.call("POST", "/v1/events", {"events": [robot]}, role="retailer").json()["results"][0]
    assert answer["result"] == "unbilled"
    assert counted(shop)[1] == 1


def test_what_clicks_taught_is_in_force_and_kept_in_a_file(shop: World) -> None:
    server: SlotServer = shop.serving.slot_server
    path = shop.serving.settings.server.data_dir / CLICKS_FILE
    (shown,) = fill(shop)["placements"][0]["fills"]
    report(shop, shown["beacon_token"], "click", "e1")
    shop.portal.call(shop.serving.learn)
    market = server.market
    row = market.snapshot.product_row["p1"]
    assert market.quality_of("top", 0).base_quality_ppm[row] > market.quality.base_quality_ppm[row]
    shop.portal.call(shop.serving.keep_learnt)
    kept = read_memory(path)
    assert kept is not None
    again = ClickCounters(AffinitySettings())
    again.recall(kept)
    assert again.read(shop.clock()).placements[0].clicked.sum() == 1
    for broken in (b"", b"\x93", path.read_bytes()[:-9]):
        path.write_bytes(broken)
        recall_clicks(server, path)
    path.unlink()
    recall_clicks(server, path)
    assert counted(shop)[1] == 1, "a file that cannot be read changes nothing"


def test_an_order_of_what_was_clicked_is_credited_to_a_campaign_with_a_target(shop: World) -> None:
    campaign = campaign_of(shop)
    assert campaign["objective"] == {"type": "max_bid"}
    changed = shop.call(
        "PATCH",
        f"/v1/campaigns/{campaign['campaign_id']}",
        {"objective": {"type": "target_roas", "roas": 2.5}},
        headers={"If-Match": f'"{campaign["change_seq"]}"'},
    )
    assert changed.status_code == 200, changed.text
    assert changed.json()["objective"] == {"type": "target_roas", "roas": 2.5}
    shop.publish()
    heard: list[tuple[str, int]] = []
    view = shop.serving.slot_server.spend
    view.apply_value = lambda campaign_id, sales: heard.append((campaign_id, sales))  # type: ignore[method-assign]
    (shown,) = fill(shop)["placements"][0]["fills"]
    report(shop, shown["beacon_token"], "click", "e1")
    line = {"product_id": "p1", "quantity": 2, "unit_price_micros": 10_000_000}
    order = {"order_id": "o1", "visitor_id": "ana", "occurred_at": "2026-11-18T11:08:00Z", "lines": [line]}
    other = order | {"order_id": "o2", "visitor_id": "bob"}
    for _ in range(2):
        assert shop.call("POST", "/v1/orders", {"orders": [order, other]}, role="retailer").status_code == 200
    assert heard == [(campaign["campaign_id"], 20_000_000)]
    back = order | {"lines": [line | {"quantity": -1}]}
    shop.call("POST", "/v1/orders", {"orders": [back]}, role="retailer")
    assert heard[1:] == [(campaign["campaign_id"], -10_000_000)]


@pytest.mark.parametrize(
    ("objective", "pointer"),
    [
        ({"type": "target_roas"}, "/objective/roas"),
        ({"type": "target_roas", "roas": 0}, "/objective/roas"),
        ({"type": "target_roas", "roas": 1001}, "/objective/roas"),
        ({"type": "max_bid", "roas": 2}, "/objective/roas"),
        ({"type": "cheapest"}, "/objective/type"),
    ],
)
def test_an_objective_nobody_knows_is_refused(shop: World, objective: dict[str, Any], pointer: str) -> None:
    answer = shop.call("POST", "/v1/campaigns", {"name": "c", "objective": objective})
    assert (answer.status_code, answer.json()["pointer"]) == (400, pointer)


@pytest.mark.parametrize(
    ("limit", "pointer"),
    [
        ({}, "/sponsored_per_visitor"),
        ({"day": 0}, "/sponsored_per_visitor/day"),
        ({"day": 201}, "/sponsored_per_visitor/day"),
        ({"week": 1}, "/sponsored_per_visitor/week"),
        ({"cool_down_after_unclicked": 5}, "/sponsored_per_visitor/cool_down_after_unclicked"),
        (
            {"cool_down_after_unclicked": {"count": 5, "seconds": 1}},
            "/sponsored_per_visitor/cool_down_after_unclicked/seconds",
        ),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(shop: World, limit: dict[str, Any], pointer: str) -> None:
    body = PLACEMENT | {"sponsored_per_visitor": limit}
    answer = shop.call("PUT", "/v1/placements/top", body, role="merchant")
    assert (answer.status_code, answer.json()["pointer"]) == (400 if limit else 422, pointer)


def test_what_pacing_learnt_is_kept_in_a_file_and_a_broken_one_is_no_harm(shop: World) -> None:
    server: SlotServer = shop.serving.slot_server
    path = shop.serving.settings.server.data_dir / PACING_FILE
    server.spend.note_delay(True, 1_000)
    keep_pacing(server, path)
    assert msgspec.json.decode(path.read_bytes(), type=PacingMemory) == server.spend.memory()
    path.write_bytes(b"{")
    recall_pacing(server, path)
    path.unlink()
    recall_pacing(server, path)


def test_a_fill_is_given_back_when_the_ledger_takes_its_impression_no_more() -> None:
    assert AffinitySettings().render_wait_s * 1000 == LedgerSettings().impression_life_ms


def test_its_sales_are_told_to_whoever_may_know_them(shop: World) -> None:
    (shown,) = fill(shop)["placements"][0]["fills"]
    report(shop, shown["beacon_token"], "click", "e1")
    lines = [{"product_id": "p1", "quantity": 2, "unit_price_micros": 10_000_000}]
    order = {"order_id": "o1", "visitor_id": "ana", "occurred_at": "2026-11-18T11:08:00Z", "lines": lines}
    shop.call("POST", "/v1/orders", {"orders": [order]}, role="retailer")
    asked = "/v1/sales?from=2026-11-18T00:00:00Z&to=2026-11-19T00:00:00Z"
    for role, more in (("advertiser", ""), ("finance", ""), ("auditor", "&advertiser_id=acme")):
        answer = shop.call("GET", asked + more, role=role)
        assert answer.status_code == 200, answer.text
        (line,) = answer.json()["items"]
        assert (line["advertiser_id"], line["orders"], line["same_sku_sales_micros"]) == ("acme", 1, 20_000_000)
        assert line["charged_micros"] > 0
    assert shop.call("GET", asked, tenants=("brio",)).json()["items"] == []
    assert shop.call("GET", asked + "&advertiser_id=brio").json()["code"] == "unknown_advertiser"
    assert shop.call("GET", asked + "&model=mine", role="finance").status_code == 400
    assert shop.call("GET", asked, role="site").status_code == 403


def test_a_report_is_told_as_json_and_as_a_table(shop: World) -> None:
    (shown,) = fill(shop)["placements"][0]["fills"]
    report(shop, shown["beacon_token"], "click", "e1")
    asked = "/v1/reports/campaigns?from=2026-11-18T00:00:00Z&to=2026-11-19T00:00:00Z&by=day"
    answer = shop.call("GET", asked)
    assert answer.status_code == 200, answer.text
    (line,) = answer.json()["items"]
    assert (line["time"], line["clicks"]) == ("2026-11-18", 1)
    table = shop.call("GET", asked, headers={"Accept": "text/csv"})
    assert table.headers["content-type"].startswith("text/csv")
    head, row = table.text.splitlines()
    assert dict(zip(head.split(","), row.split(","), strict=True))["charged_micros"] == str(line["charged_micros"])
    parquet = shop.call("GET", asked, headers={"Accept": "application/vnd.apache.parquet"})
    assert parquet.headers["content-type"] == "application/vnd.apache.parquet"
    (read,) = pyarrow.parquet.read_table(io.BytesIO(parquet.content)).to_pylist()
    flat = line | {"invalid_by_reason": json.dumps(line["invalid_by_reason"])}
    assert read == flat
    workbook = shop.call("GET", asked, headers={"Accept": MEDIA_TYPES["xlsx"]})
    heads, cells = load_workbook(io.BytesIO(workbook.content))["campaigns"].iter_rows(values_only=True)
    shown = dict(zip(heads, cells, strict=True))
    assert {name: shown[name] for name in flat} == flat
    assert Decimal(str(shown["charged"])) * 10**6 == line["charged_micros"]
    assert shop.call("GET", asked.replace("campaigns", "weather")).json()["code"] == "unknown_report"
    assert shop.call("GET", asked, tenants=("brio",)).json()["items"] == []
