"""Finance closes a month and invoices it over HTTP; an advertiser sees its own documents and nobody else's."""

from typing import Any

from tests.bidder_api.test_hearing import report
from tests.bidder_api.test_serving import fill, shop
from tests.bidder_api.world import World

__all__ = ["shop"]  # the fixture

DAY_MS = 86_400_000
PARTY = {"name": "Acme SARL", "address": {"country": "FR"}, "vat_id": "FR1"}


def finance(world: World, method: str, path: str, body: Any = None, role: str = "finance") -> Any:
    return world.call(method, "/v1/ledger" + path, body, role=role)


def test_a_month_is_closed_invoiced_paid_and_given_back(shop: World) -> None:
    (shown,) = fill(shop)["placements"][0]["fills"]
    amount_micros = report(shop, shown["beacon_token"], "click", "e1")["amount_micros"]
    assert amount_micros > 0
    assert finance(shop, "GET", "/seller").status_code == 404
    for path in ("/seller", "/billing-profiles/acme"):
        set_up = finance(shop, "PUT", path, {"party": PARTY, "vat_percent": "20"})
        assert set_up.status_code == 200, set_up.text
    assert finance(shop, "GET", "/billing-profiles/acme", role="advertiser").json()["party"] == PARTY
    early = finance(shop, "POST", "/periods/2026-11/close", {"stage": "soft"})
    assert (early.status_code, early.json()["code"]) == (409, "period_open")
    shop.clock.now_ms += 20 * DAY_MS
    for stage in ("soft", "sealed"):
        closed = finance(shop, "POST", "/periods/2026-11/close", {"stage": stage})
        assert (closed.status_code, closed.json()["stage"]) == (200, stage)
    assert [one["stage"] for one in finance(shop, "GET", "/periods").json()["items"]] == ["sealed"]
    first, again = (finance(shop, "GET", "/periods/2026-11/report").content for _ in range(2))
    assert first == again
    made = finance(shop, "POST", "/invoices", {"advertiser_id": "acme", "period": "2026-11"})
    assert made.status_code == 201, made.text
    invoice = made.json()
    assert invoice["document"]["totals"]["due"] == f"{invoice['due_micros'] / 1e6:.2f}"
    assert finance(shop, "GET", f"/invoices/{invoice['number']}", role="advertiser").json() == invoice
    assert [one["number"] for one in finance(shop, "GET", "/invoices", role="advertiser").json()["items"]] == [
        invoice["number"]
    ]
    stranger = shop.call("GET", f"/v1/ledger/invoices/{invoice['number']}", tenants=("brio",))
    assert (stranger.status_code, stranger.json()["code"]) == (404, "unknown_document")
    assert finance(shop, "GET", f"/credit-notes/{invoice['number']}").status_code == 404
    payment = {"advertiser_id": "acme", "amount_micros": invoice["due_micros"], "reference": "bank 7"}
    assert finance(shop, "POST", "/payments", payment).status_code == 201
    assert finance(shop, "POST", "/payments", payment).status_code == 200
    assert finance(shop, "GET", "/payments", role="advertiser").json()["items"][0]["payment_id"] == "bank 7"
    over = finance(shop, "POST", "/write-offs", payment | {"reference": "lost"})
    assert (over.status_code, over.json()["code"]) == (409, "not_owed")
    note = finance(shop, "POST", "/credit-notes", {"invoice_number": invoice["number"], "reason": "Robots"})
    assert (note.status_code, note.json()["net_micros"]) == (201, invoice["net_micros"])
    trial = finance(shop, "GET", "/trial-balance").json()
    assert trial["difference_micros"] == 0


def test_what_finance_does_nobody_else_may(shop: World) -> None:
    for path, body in (
        ("/periods/2026-11/close", {"stage": "soft"}),
        ("/invoices", {"advertiser_id": "acme", "period": "2026-11"}),
        ("/credit-notes", {"invoice_number": "INV-2026-000001", "reason": "x"}),
        ("/payments", {"advertiser_id": "acme", "amount_micros": 1, "reference": "x"}),
    ):
        for role in ("advertiser", "auditor", "merchant", "retailer"):
            assert finance(shop, "POST", path, body, role=role).status_code == 403
    assert finance(shop, "POST", "/periods/2026-13/close", {"stage": "soft"}).json()["code"] == "period_invalid"
