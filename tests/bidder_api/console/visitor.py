"""Somebody in front of the console, without a browser: keeps cookies, reads forms and sends them."""

import re
import secrets
from html import unescape
from typing import Any

from starlette.testclient import TestClient

from bidder_api.settings import beacon_keys
from ledger.beacon import BeaconKeys
from ledger.money import Micros
from ledger.terms import ChargeOn, ChargeTerms, new_id
from tests.bidder_api.world import World

HERE = "http://endcap.test"


class Visitor:
    """One browser's worth of cookies, over a world's application."""

    def __init__(self, world: World, **headers: str) -> None:
        self.world = world
        self.client = TestClient(
            world.client.app, base_url=HERE, headers={"Accept-Language": "en", **headers}, follow_redirects=False
        )
        self.client.portal = world.client.portal  # the application runs on one event loop
        self.page = ""

    def get(self, path: str, **headers: str | bytes) -> Any:
        answer = self.client.get(path, headers=headers)
        self.page = answer.text
        return answer

    def token(self) -> str:
        """Return the token of the page's forms."""
        found = re.search(r'name="form_token" value="([^"]+)"', self.page)
        assert found, self.page
        return found[1]

    def send(
        self, path: str, form: dict[str, str], *, origin: str | None = HERE, token: str | None = "", **more: str
    ) -> Any:
        """Send a form; the page's own token goes with it unless another, or None, is given."""
        if token == "":
            token = self.token()
        fields = form if token is None else {"form_token": token, **form}
        headers = more if origin is None else {"Origin": origin, **more}
        answer = self.client.post(path, data=fields, headers=headers)
        if "text/html" in answer.headers.get("content-type", ""):
            self.page = answer.text
        return answer

    def sign_in(self, key: str) -> Any:
        """Sign in with a key."""
        self.get("/console/sign-in")
        return self.send("/console/sign-in", {"key": key})

    def sign_in_as(self, role: str, *advertiser_ids: str) -> "Visitor":
        """Sign in with a new key of a role, and say who one is."""
        answer = self.sign_in(self.world.key(role, *advertiser_ids))
        assert answer.status_code == 303, answer.text
        return self

    def campaigns(self, query: str = "") -> str:
        """Look at the campaigns."""
        answer = self.get("/console/campaigns" + (f"?{query}" if query else ""))
        assert answer.status_code == 200, answer.text
        return str(answer.text)

    def figure(self, metric: str) -> str:
        """Return a tile's exact figure on the page."""
        found = re.search(rf'data-tile="{metric}".*?<data class="tile-value" value="([^"]*)">', self.page, re.DOTALL)
        assert found
        return found[1]

    def row(self, campaign_id: str) -> str:
        """Return a campaign's row on the page."""
        found = re.search(rf'<tr id="{campaign_id}".*?</tr>', self.page, re.DOTALL)
        assert found, self.page
        return found[0]

    def etag(self, campaign_id: str) -> str:
        """Return the ETag a campaign's forms carry."""
        found = re.search(r'name="etag" value="([^"]+)"', self.row(campaign_id))
        assert found
        return unescape(found[1])


def make_campaign(world: World, name: str = "Shoes", **more: Any) -> str:
    """Make a campaign of acme's and return its id."""
    tenants = more.pop("tenants", ["acme"])
    body = {"name": name, "daily_budget_micros": 25_500_000, **more}
    answer = world.call("POST", "/v1/campaigns", body, tenants=tenants)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["campaign_id"])


def fund(world: World, micros: int, advertiser_id: str = "acme") -> None:
    """Put money into a wallet."""
    body = {"advertiser_id": advertiser_id, "amount_micros": micros, "reference": f"{advertiser_id} {micros}"}
    assert world.call("POST", "/v1/ledger/top-ups", body, role="finance").status_code == 201


def click(world: World, campaign_id: str, price_micros: int, advertiser_id: str = "acme", count: int = 1) -> None:
    """Bill clicks on fills of a campaign's, now."""
    settings = world.serving.settings.server
    keys = BeaconKeys.parse(beacon_keys(settings))
    events = []
    for _ in range(count):
        terms = ChargeTerms(
            auction_id=new_id("auc", world.clock(), secrets.token_bytes(10)), placement_id="top", slot_position=1,
            product_id="p1", is_sponsored=True, advertiser_id=advertiser_id, campaign_id=campaign_id, bid_id="bid-1",
            charge_on=ChargeOn.CLICK, price_micros=Micros(price_micros), quality_ppm=31_415,
            visitor_pseudonym=secrets.token_bytes(16), variant=None, issued_at_ms=world.clock(),
        )  # fmt: skip
        token = keys.seal_beacon(terms)
        for kind in ("impression", "click"):
            events.append({"event_id": secrets.token_hex(12), "type": kind, "beacon_token": token})
    answer = world.call("POST", "/v1/events", {"events": events}, role="retailer")
    assert all(result["result"] == "accepted" for result in answer.json()["results"]), answer.text
