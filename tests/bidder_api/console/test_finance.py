"""Finance's pages: the books as the API has them, drilled down from a balance to a transaction's postings."""

import re

import pytest

from tests.bidder_api.console.visitor import Visitor, click, fund, make_campaign
from tests.bidder_api.world import World

PATHS = ["", "/transactions", "/transactions/txn_1", "/statements?advertiser_id=acme&period=2026-11", "/invoices"]


@pytest.fixture
def booked(world: World) -> World:
    world.wait_started()
    fund(world, 90_000_007)
    click(world, make_campaign(world), 1_234_567)
    return world


def test_debits_less_credits_are_nothing_and_every_balance_is_the_apis(booked: World) -> None:
    visitor = Visitor(booked).sign_in_as("finance")
    assert visitor.get("/console").headers["location"] == "/console/finance"
    page = visitor.get("/console/finance").text
    assert '<data id="difference" value="0">0.000000 EUR</data>' in page
    assert "the books balance" in page
    lines = booked.call("GET", "/v1/ledger/trial-balance", role="finance").json()["accounts"]
    assert {line["account"] for line in lines} >= {"wallet:acme", "revenue:media", "cash"}
    for line in lines:
        row = page.partition(f">{line['account']}</a>")[2].partition("</tr>")[0]
        shown = [int(micros) for micros in re.findall(r'<data value="(\d+)">', row)]
        assert shown == [line[side] for side in ("debit_micros", "credit_micros") if line[side]]


def test_a_balance_leads_to_its_transactions_and_these_to_their_postings(booked: World) -> None:
    visitor = Visitor(booked).sign_in_as("auditor")
    page = visitor.get("/console/finance").text
    link = re.search(r'href="(/console/finance/transactions\?account=revenue[^"]+)"', page)
    assert link
    listed = visitor.get(link[1]).text
    (one,) = re.findall(r'href="(/console/finance/transactions/txn_\d+)"', listed)
    shown = visitor.get(one).text
    assert re.findall(r'<data value="(\d+)">', shown) == ["1234567", "1234567"]
    assert visitor.get("/console/finance/transactions/txn_999").status_code == 404
    assert "Nothing is posted there." in visitor.get("/console/finance/transactions?account=wallet:nobody").text


def test_the_journal_is_turned_page_by_page(booked: World) -> None:
    for number in range(60):
        fund(booked, 1_000 + number)
    visitor = Visitor(booked).sign_in_as("finance")
    seen, path = [], "/console/finance/transactions?period=2026-11"
    while path:
        page = visitor.get(path).text
        seen += re.findall(r'href="/console/finance/transactions/(txn_\d+)"', page)
        following = re.search(r'id="following" href="([^"]+)"', page)
        path = following[1].replace("&amp;", "&") if following else ""
    whole = booked.call("GET", "/v1/ledger/transactions?page_size=200", role="finance").json()["items"]
    assert len(whole) == 62
    assert seen == [one["transaction_id"] for one in whole]


def test_a_statement_shows_an_advertisers_month(booked: World) -> None:
    visitor = Visitor(booked).sign_in_as("finance")
    assert "<form" in visitor.get("/console/finance/statements").text
    page = visitor.get("/console/finance/statements?advertiser_id=acme&period=2026-11").text
    assert f'<data value="{1_234_567 - 90_000_007}">' in page
    assert '<td>2026-11-18</td><td class="number"><data value="1234567">' in page
    refused = visitor.get("/console/finance/statements?advertiser_id=acme&period=nonsense")
    assert refused.status_code == 400
    assert "Nothing was changed" in refused.text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("role", ["advertiser", "agency", "merchant", "crm", "retailer"])
def test_the_books_are_for_finance(shared: World, role: str, path: str) -> None:
    tenants = {"advertiser": ["acme"], "agency": ["acme", "brio"]}.get(role, [])
    answer = Visitor(shared).sign_in_as(role, *tenants).get("/console/finance" + path)
    own = role == "advertiser" and path.startswith(("/statements", "/invoices"))  # as the API lets it
    assert (answer.status_code == 200) == own, answer.text


@pytest.fixture(scope="module")
def shared(shared_world: World) -> World:
    shared_world.wait_started()
    fund(shared_world, 90_000_007)
    return shared_world
