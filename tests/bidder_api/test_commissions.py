"""Finance agrees on commission over HTTP, the server posts it by itself, and each advertiser sees its own only."""

from typing import Any

import pytest

from tests.bidder_api.test_hearing import report
from tests.bidder_api.test_serving import fill, shop
from tests.bidder_api.world import World

__all__ = ["shop"]  # the fixture

DAY_MS = 86_400_000
TERMS = {"advertiser_id": "acme", "rate_bps": 833, "starts_at": "2026-11-01T00:00:00Z"}
AGREEMENTS, COMMISSIONS = "/v1/ledger/commission-agreements", "/v1/ledger/commissions"


def sell(world: World, quantity: int, order_id: str = "o1") -> None:
    lines = [{"product_id": "p1", "quantity": quantity, "unit_price_micros": 10_000_003}]
    moment = "2026-11-18T11:08:00Z" if quantity > 0 else "2026-12-04T10:00:00Z"
    order = {"order_id": order_id, "visitor_id": "ana", "occurred_at": moment, "lines": lines}
    answer = world.call("POST", "/v1/orders", {"orders": [order]}, role="retailer")
    assert answer.json()["results"][0]["result"] == "accepted", answer.text


@pytest.fixture
def sold(shop: World) -> World:
    """An order of three pieces after a click, with 8.33 % agreed on."""
    made = shop.call("POST", AGREEMENTS, TERMS, role="finance")
    assert made.status_code == 201, made.text
    assert made.json()["commission_agreement_id"] == "cag_1"
    assert shop.call("POST", AGREEMENTS, TERMS, role="finance").status_code == 200
    (shown,) = fill(shop)["placements"][0]["fills"]
    report(shop, shown["beacon_token"], "click", "e1")
    sell(shop, 3)
    return shop


def test_what_is_due_is_posted_and_goes_back_with_goods(sold: World) -> None:
    nothing = {"charged_lines": 0, "charged_micros": 0, "returned_lines": 0, "returned_micros": 0}
    early = sold.call("POST", COMMISSIONS, role="finance")
    assert early.status_code == 200, early.text
    assert early.json() == {"type": "commissions-posted", **nothing}
    sold.clock.now_ms += 16 * DAY_MS
    charged = 2_499_001  # 30.000009 at 8.33 %: 2.49900075
    first, again = (sold.call("POST", COMMISSIONS, role="finance").json() for _ in range(2))
    assert (first["charged_lines"], first["charged_micros"]) == (1, charged)
    assert again == early.json()
    sell(sold, -1)
    back = sold.call("POST", COMMISSIONS, role="finance").json()
    assert (back["returned_lines"], back["returned_micros"]) == (1, charged - 1_666_001)
    one, two = sold.call("GET", COMMISSIONS, role="advertiser").json()["items"]
    assert (one["step"], one["sales_micros"], one["amount_micros"], one["period"]) == (
        0,
        30_000_009,
        charged,
        "2026-12",
    )
    assert (two["step"], two["quantity"], two["amount_micros"]) == (1, 2, 1_666_001 - charged)
    page = sold.call("GET", COMMISSIONS + "?page_size=1", role="auditor").json()
    following = sold.call("GET", f"{COMMISSIONS}?page_size=1&page_token={page['next_page_token']}", role="auditor")
    assert [*page["items"], *following.json()["items"]] == [one, two]
    assert sold.call("GET", "/v1/ledger/trial-balance", role="finance").json()["difference_micros"] == 0
    (statement,) = sold.call("GET", "/v1/ledger/statements?advertiser_id=acme&period=2026-12").json()["commissions"]
    assert (statement["charged_micros"], statement["returned_micros"]) == (charged, charged - 1_666_001)


def test_the_server_posts_it_by_itself(sold: World) -> None:
    def posted() -> list[Any]:
        return sold.call("GET", COMMISSIONS, role="finance").json()["items"]

    sold.portal.call(sold.serving.post_commissions)
    assert posted() == []
    sold.clock.now_ms += 16 * DAY_MS
    for _ in range(2):
        sold.portal.call(sold.serving.post_commissions)
        assert [one["order_id"] for one in posted()] == ["o1"]


def test_an_advertiser_sees_its_own_only(sold: World) -> None:
    sold.clock.now_ms += 16 * DAY_MS
    sold.call("POST", COMMISSIONS, role="finance")
    for path in (AGREEMENTS, COMMISSIONS):
        assert len(sold.call("GET", path).json()["items"]) == 1
        assert sold.call("GET", path, tenants=("brio",)).json()["items"] == []
        foreign = sold.call("GET", path + "?advertiser_id=acme", tenants=("brio",))
        assert (foreign.status_code, foreign.json()["code"]) == (404, "unknown_advertiser")
    for path, body in ((AGREEMENTS, TERMS), (AGREEMENTS + "/cag_1/end", {"ends_at": "2027-01-01T00:00:00Z"})):
        assert sold.call("POST", path, body, role="advertiser").status_code == 403
    assert sold.call("POST", COMMISSIONS, role="advertiser").status_code == 403


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"rate_bps": 0}, 400, None),
        ({"rate_bps": 10_001}, 400, None),
        ({"rate_bps": 8.33}, 400, None),
        ({"min_micros": 2, "max_micros": 1}, 400, "min_above_max"),
        ({"ends_at": "2026-10-01T00:00:00Z"}, 400, "ends_before_start"),
        ({"starts_at": "0001-01-01T00:00:00+14:00"}, 400, "moment_out_of_range"),
        ({"ends_at": "9999-12-31T23:59:59-14:00"}, 400, "moment_out_of_range"),
        ({"rate_bps": 900}, 409, "agreement_overlaps"),
    ],
)
def test_what_cannot_be_agreed_is_refused(sold: World, changes: dict[str, Any], status: int, code: str | None) -> None:
    answer = sold.call("POST", AGREEMENTS, TERMS | changes, role="finance")
    assert answer.status_code in (status, 422) if code is None else status == answer.status_code, answer.text
    if code is not None:
        assert answer.json()["code"] == code


def test_an_agreement_ends_and_another_begins(sold: World) -> None:
    ended = sold.call("POST", AGREEMENTS + "/cag_1/end", {"ends_at": "2026-12-01T00:00:00Z"}, role="finance")
    assert (ended.status_code, ended.json()["ends_at"]) == (200, "2026-12-01T00:00:00Z")
    unknown = sold.call("POST", AGREEMENTS + "/cag_9/end", {"ends_at": "2026-12-01T00:00:00Z"}, role="finance")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_agreement")
    after = TERMS | {"rate_bps": 900, "starts_at": "2026-12-01T00:00:00Z"}
    assert sold.call("POST", AGREEMENTS, after, role="finance").status_code == 201
    assert [one["rate_bps"] for one in sold.call("GET", AGREEMENTS).json()["items"]] == [833, 900]
