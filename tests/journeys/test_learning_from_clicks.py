"""What shoppers click on rises, on a real server: within seconds, and still after it was stopped and started."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.server import RunningServer, ok

PAGE = {"page": {"type": "home"}, "placements": [{"placement_id": "shelf"}], "tmax_ms": 500}
LIVE_WITHIN_S = 10.0


def test_what_is_clicked_rises_and_stays_risen_after_a_restart(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data", variables={"ENDCAP_QUALITY_INTERVAL_S": "1", "ENDCAP_METRICS": "open"})
    with server:
        merchant, finance = (server.client(server.create_key(role)) for role in ("merchant", "finance"))
        site = server.client(server.create_key("retailer"))
        for name in ("plain", "loved"):
            product = {"title": name, "price_micros": 9_000_000, "brand": name, "advertiser_ids": [name]}
            ok(merchant.put(f"/v1/products/{name}", json=product), 201)
            top_up = {"advertiser_id": name, "amount_micros": 10**9, "reference": name}
            ok(finance.post("/v1/ledger/top-ups", json=top_up))
        placement = {"page_types": ["home"], "slot_count": 2, "attention_permille": [1000, 500]}
        ok(merchant.put("/v1/placements/shelf", json=placement), 201)
        for name, bid_micros in (("plain", 300_007), ("loved", 200_003)):
            brand = server.client(server.create_key("advertiser", name))
            campaign = ok(brand.post("/v1/campaigns", json={"name": name}), 201)["campaign_id"]
            bid = {"campaign_id": campaign, "product_ids": [name], "bid_micros": bid_micros}
            ok(brand.post("/v1/bids", json=bid), 201)

        # Whoever bids more stands first. Shoppers look at both, and click on the other one.
        eventually(lambda: shown(site)[0] == ["plain", "loved"])
        for number in range(160):  # of impressions one in sixteen is heard, by chance
            fills = ok(site.post("/v1/fills", json=PAGE))["placements"][0]["fills"]
            events = [
                {
                    "event_id": f"{kind}-{number}-{fill['product_id']}",
                    "type": kind,
                    "beacon_token": fill["beacon_token"],
                }
                for fill in fills
                for kind in ("impression", "click")
                if kind == "impression" or fill["product_id"] == "loved"
            ]
            ok(site.post("/v1/events", json={"events": events}))
        eventually(lambda: shown(site)[0] == ["loved", "plain"])
        _, auction_id = shown(site)
        eventually(lambda: site.get(f"/v1/auctions/{auction_id}").status_code == 200)
        receipt = ok(site.get(f"/v1/auctions/{auction_id}"))
        assert receipt["quality_version"] > 0
        assert receipt["placements"][0]["propensity_ppm"] == 1_000_000
        assert 'endcap_quality_clicks{placement="shelf"} 160.0' in site.get("/metrics").text
        assert server.stop() == 0

        # The report reads what the server kept; and it begins where it stopped.
        (said,) = json.loads(server.run("affinity", "report", "--format", "json"))["placements"]
        assert (said["placement_id"], said["calibration"]["clicks"]) == ("shelf", 160.0)
        server.start()
        server.wait_ready()
        assert shown(site)[0] == ["loved", "plain"]


def shown(site: Any) -> tuple[list[str], str]:
    """Return the products of a page, in the order of its slots, and the auction's id."""
    answer = site.post("/v1/fills", json=PAGE)
    if answer.status_code == 404:  # the placement was set a moment ago
        return [], ""
    body = ok(answer)
    return [fill["product_id"] for fill in body["placements"][0]["fills"]], body["auction_id"]


def eventually(holds: Callable[[], bool], within_s: float = LIVE_WITHIN_S) -> None:
    """Wait until it holds."""
    ends = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < ends, f"not within {within_s} s"
        time.sleep(0.05)
