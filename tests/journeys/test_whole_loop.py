"""The whole loop, over HTTP, against a real server: a brand bids, a shopper looks and clicks, finance finds the charge.

Read from top to bottom: it is what the product is for.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.server import RunningServer, ok

SHOES = "Shoes > Running"
PRICE_MICROS = 270_331  # odd: round prices hide rounding faults
FLOOR_MICROS = 90_017
DAILY_BUDGET_MICROS = 400_003  # the first click, most of the second, and nothing more
LIVE_WITHIN_S = 5.0


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "data", database_url) as running:
        yield running


def test_from_a_brands_bid_to_a_balanced_ledger_entry(server: RunningServer) -> None:
    merchant = server.client(server.create_key("merchant"))
    brand = server.client(server.create_key("advertiser", "strider"))
    site = server.client(server.create_key("retailer"))
    finance = server.client(server.create_key("finance"))
    browser = server.client()

    # The merchant has two running shoes, one of which the brand may advertise, and a place to show them.
    for product_id, advertiser_ids in (("trail-1", ["strider"]), ("road-1", [])):
        product = {
            "title": f"Shoe {product_id}",
            "link": f"https://shop.example/{product_id}",
            "price_micros": 89_990_000,
            "brand": product_id.partition("-")[0].title(),
            "product_type": SHOES,
            "advertiser_ids": advertiser_ids,
        }
        ok(merchant.put(f"/v1/products/{product_id}", json=product), 201)
    placement = {"page_types": ["category"], "slot_count": 2, "floor_micros": FLOOR_MICROS}
    ok(merchant.put("/v1/placements/category-top", json=placement), 201)

    # The brand has money, a campaign, and a bid for visitors who viewed the category twice this session without buying.
    top_up = {"advertiser_id": "strider", "amount_micros": 50_000_000, "reference": "bank-2026-1"}
    ok(finance.post("/v1/ledger/top-ups", json=top_up))
    campaign = ok(brand.post("/v1/campaigns", json={"name": "Trail", "daily_budget_micros": DAILY_BUDGET_MICROS}), 201)
    bid = {
        "campaign_id": campaign["campaign_id"],
        "product_ids": ["trail-1"],
        "charge_on": "click",
        "bid_micros": PRICE_MICROS,
        "navigation_pattern": {
            "within": "session",
            "steps": [{"action": "view_item", "category_id": SHOES, "at_least": 2}],
            "without": [{"action": "purchase", "category_id": SHOES}],
        },
    }
    ok(brand.post("/v1/bids", json=bid), 201)

    # Ana views the category twice. Ben views it twice and buys. Cleo views it once.
    navigate(site, "ana", "view_item", "view_item")
    navigate(site, "ben", "view_item", "view_item", "purchase")
    navigate(site, "cleo", "view_item")

    # The page asks for fills: Ana gets the product, the others do not.
    fill = eventually(lambda: paid_fill(site, "ana"))
    assert (fill["product_id"], fill["advertiser_id"], fill["charge_on"]) == ("trail-1", "strider", "click")
    assert FLOOR_MICROS <= fill["clearing_price_micros"] <= PRICE_MICROS
    assert fill["disclosure"]["label"]
    assert paid_fill(site, "ben") is None
    assert paid_fill(site, "cleo") is None
    assert paid_fill(site, None) is None

    # Ana sees it and clicks; her browser reports both, without a key, and learns no price.
    token, price = fill["beacon_token"], fill["clearing_price_micros"]
    seen = report(browser, ("e-1", "impression", token), ("e-2", "click", token))
    assert [(one["result"], one["amount_micros"]) for one in seen] == [("accepted", None), ("accepted", None)]

    # Finance finds one charge, at the price in the token, in postings that balance.
    assert charged(finance) == price
    trial = ok(finance.get("/v1/ledger/trial-balance"))
    assert total_of(trial) == 0
    reconciled = ok(finance.get("/v1/reconciliation", params=day_range()))["items"]
    assert [line["amount_micros"] for line in reconciled if line["amount_micros"]] == [price]

    # The same click again changes nothing: sent again, or under another id.
    again = report(browser, ("e-2", "click", token), ("e-3", "click", token))
    assert [one["result"] for one in again] == ["duplicate", "duplicate"]
    assert charged(finance) == price

    # A forged token is a result, not an error, and is not billed.
    forged = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    assert report(browser, ("e-4", "click", forged))[0]["result"] == "rejected"

    # Killed without warning and started again, the server has lost nothing: not the charge, not the keys, not what
    # Ana did.
    server.kill()
    server.start()
    assert server.wait_ready() < 30
    assert charged(finance) == price
    assert report(browser, ("e-2", "click", token))[0]["result"] == "duplicate"
    fill = eventually(lambda: paid_fill(site, "ana"))

    # Clicks go on until the day's budget is gone: the one that crosses the line is billed for what is left.
    number = 10
    while fill is not None and number < 40:
        result = report(site, (f"e-{number}", "click", fill["beacon_token"]))[0]
        assert result["result"] == "accepted"
        number += 1
        fill = paid_fill(site, "ana")
    assert charged(finance) == DAILY_BUDGET_MICROS
    assert result["code"] == "partial"
    assert total_of(ok(finance.get("/v1/ledger/trial-balance"))) == 0

    # The product stops showing, and the books can be checked from outside.
    assert paid_fill(site, "ana") is None
    server.run("ledger", "verify")
    assert server.stop() == 0


def navigate(site: Any, visitor_id: str, *actions: str) -> None:
    """Send what a visitor does, a second apart and just now."""
    now = time.time()
    events = [
        {
            "event_id": f"{visitor_id}-{number}",
            "visitor_id": visitor_id,
            "action": action,
            "product_id": "road-1",
            "category_id": SHOES,
            "occurred_at": datetime.fromtimestamp(now - len(actions) + number, UTC).isoformat(),
        }
        for number, action in enumerate(actions)
    ]
    ok(site.post("/v1/navigation", json={"events": events}), 202)


def paid_fill(site: Any, visitor_id: str | None) -> Any:
    """Ask for the category page and return its paid fill, None where there is none."""
    request = {
        "visitor_id": visitor_id,
        "consent": {"personalised": visitor_id is not None},
        "page": {"type": "category", "category_id": SHOES},
        "placements": [{"placement_id": "category-top"}],
        "tmax_ms": 500,
    }
    answer = site.post("/v1/fills", json=request)
    if answer.status_code == 404:  # the placement was set a moment ago
        return None
    fills = [fill for placement in ok(answer)["placements"] for fill in placement["fills"]]
    return next((fill for fill in fills if fill["is_sponsored"]), None)


def report(client: Any, *events: tuple[str, str, str]) -> list[Any]:
    """Report events and return their results; each is durable by then."""
    body = {"events": [{"event_id": name, "type": kind, "beacon_token": token} for name, kind, token in events]}
    results: list[Any] = ok(client.post("/v1/events", json=body))["results"]
    return results


def charged(finance: Any) -> int:
    """Return what the brand was charged, from its wallet's side."""
    balances = ok(finance.get("/v1/ledger/balances", params={"advertiser_id": "strider"}))["items"]
    wallet = next(one["posted_micros"] for one in balances if one["account"] == "wallet:strider")
    return 50_000_000 - abs(wallet)


def total_of(trial_balance: Any) -> int:
    """Return debits less credits over all accounts."""
    return int(trial_balance["difference_micros"])


def day_range() -> dict[str, str]:
    """Return the query of a span of time with now in it."""
    now = time.time()
    return {
        "from": datetime.fromtimestamp(now - 86_400, UTC).isoformat(),
        "to": datetime.fromtimestamp(now + 86_400, UTC).isoformat(),
    }


def eventually(ask: Callable[[], Any], within_s: float = LIVE_WITHIN_S) -> Any:
    """Ask until there is an answer; what changed is live within a second on a machine that is not busy."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        answer = ask()
        if answer is not None:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"nothing within {within_s} s")
