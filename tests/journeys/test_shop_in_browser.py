"""The demo shop in a real browser: switch who one is, change generations, look, click, and see it billed once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from bidder_api.demonstration.client import ApiClient
from tests.demo_process import DemoProcess
from tests.journeys.browser import Visit
from tests.journeys.browser import browser as browser  # a fixture

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture
def visit(browser: "Browser", demo: DemoProcess) -> Iterator[Visit]:
    opened = Visit(browser, demo)
    yield opened
    opened.close()


def test_the_home_page_opens_with_labelled_paid_tiles(visit: Visit) -> None:
    page = visit.open("/?tab=bids")
    tiles = page.locator(".tile")
    assert tiles.count() >= 12
    paid = page.locator(".tile[data-sponsored=yes]")
    assert paid.count() >= 1
    for tile in paid.all():
        assert "Sponsored" in tile.locator(".label").inner_text()
        assert "Brand" in tile.locator(".label").inner_text()
    visit.picture("home-bids")


def test_tabs_show_the_same_page_with_more_inputs_switched_on(visit: Visit) -> None:
    shown = {}
    for tab in ("pinned", "affinity", "rules", "bids"):
        page = visit.open("/")
        page.locator(f".tabs a[href*='tab={tab}']").click()
        page.wait_for_load_state("networkidle")
        shown[tab] = [tile.get_attribute("data-product") for tile in page.locator(".tile").all()]
        assert (page.locator(".tile[data-sponsored=yes]").count() > 0) == (tab == "bids")
        visit.picture(f"home-{tab}")
    assert len({tuple(products) for products in shown.values()}) == 4


def test_what_is_pinned_by_hand_stood_on_real_end_caps_and_is_the_same_for_everybody(visit: Visit) -> None:
    page = visit.open("/?tab=pinned")
    end_cap = page.locator(".shelf").first.locator(".tile")
    shown = [tile.get_attribute("data-product") for tile in end_cap.all()]
    with page.expect_navigation():
        page.locator("#visitor").select_option("stranger")
    assert [tile.get_attribute("data-product") for tile in end_cap.all()] == shown
    page.locator(".tile .why summary").first.click()
    assert "pinned" in page.locator(".tile .why").first.inner_text()


def test_another_visitor_sees_another_shelf(visit: Visit) -> None:
    page = visit.open("/?tab=affinity")
    options = [option.get_attribute("value") for option in page.locator("#visitor option").all()]
    assert len(options) >= 13
    shelves = {}
    for visitor in (options[0], options[1], "stranger"):
        if page.locator("#visitor").input_value() != visitor:
            with page.expect_navigation():
                page.locator("#visitor").select_option(visitor)
        shelves[visitor] = [tile.get_attribute("data-product") for tile in page.locator(".tile").all()]
    assert len({tuple(products) for products in shelves.values()}) == 3


def test_a_tile_scrolled_into_view_is_an_impression_and_after_a_second_a_view(visit: Visit) -> None:
    page = visit.open("/c/snacks-sweets?tab=bids")
    page.wait_for_load_state("networkidle")
    last = page.locator(".tile").last
    token = last.get_attribute("data-beacon")
    page.wait_for_timeout(1_500)
    assert token not in {event["beacon_token"] for event, _ in visit.results}
    with page.expect_response("**/v1/events"):
        last.scroll_into_view_if_needed()
    page.wait_for_timeout(1_600)
    page.wait_for_load_state("networkidle")
    of_last = {event["type"]: result for event, result in visit.results if event["beacon_token"] == token}
    assert set(of_last) == {"impression", "view"}
    # What nobody pays for is recorded too, and said to be unbilled.
    assert all(result and result["result"] in ("accepted", "unbilled") for result in of_last.values()), of_last
    visit.picture("category-scrolled")


def test_a_click_on_a_paid_tile_is_billed_once(visit: Visit, demo: DemoProcess) -> None:
    with ApiClient(demo.port, demo.keys["finance"]) as finance:
        for tab_path in ("/?tab=bids", "/c/snacks-sweets", "/c/drinks", "/c/frozen"):
            page = visit.open(tab_path)
            paid = page.locator(".tile[data-sponsored=yes]:has-text('per click')")
            if paid.count():
                break
        page.wait_for_load_state("networkidle")
        tile = paid.first
        tile.scroll_into_view_if_needed()
        page.wait_for_timeout(1_300)
        token, product = tile.get_attribute("data-beacon"), tile.get_attribute("data-product")
        page.wait_for_load_state("networkidle")
        before = billed_micros(finance)
        with page.expect_request("**/v1/events"):
            tile.locator(".open").click()
        page.wait_for_url(f"**/p/{product}")
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(300)
        once = billed_micros(finance)
        assert once > before
        with ApiClient(demo.port, None) as browser_again:
            again = {
                "event_id": "again",
                "type": "click",
                "beacon_token": token,
                "occurred_at": "2026-01-01T00:00:00Z",
            }
            answer = browser_again.call("POST", "/v1/events", {"events": [again]})
        assert answer["results"][0]["result"] in ("duplicate", "conflict", "rejected")
        assert answer["results"][0]["amount_micros"] is None
        assert billed_micros(finance) == once
    visit.picture("product")


def billed_micros(finance: ApiClient) -> int:
    """Return the revenue of media in the books."""
    balances = finance.call("GET", "/v1/ledger/balances")["items"]
    return -sum(balance["posted_micros"] for balance in balances if balance["account"] == "revenue:media")


def test_what_one_looks_at_moves_the_shelf(visit: Visit) -> None:
    page = visit.open("/?tab=affinity")
    before = [tile.get_attribute("data-product") for tile in page.locator(".tile").all()]
    product = page.locator(".tile").nth(7).get_attribute("data-product")
    for _ in range(3):
        with page.expect_response("**/v1/navigation") as answered:
            visit.open(f"/p/{product}")
        assert answered.value.status == 202
    with page.expect_response("**/v1/navigation") as answered:
        page.locator(".add.wide").click()
    assert answered.value.status == 202
    visit.open("/")
    after = [tile.get_attribute("data-product") for tile in page.locator(".tile").all()]
    assert after != before


def test_the_keyboard_alone_reaches_a_tile_and_opens_its_reasons(visit: Visit) -> None:
    page = visit.open("/?tab=bids")
    page.keyboard.press("Tab")
    assert page.locator(".skip").evaluate("element => element === document.activeElement")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.classList.contains('open')")
    summary = page.locator(".tile .why summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator(".tile .why").first.get_attribute("open") is not None
    visit.picture("why-here")


def test_pages_are_french_narrow_and_dark_where_that_is_asked_for(browser: "Browser", demo: DemoProcess) -> None:
    narrow = Visit(
        browser, demo, locale="fr-FR", viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True
    )
    page = narrow.open("/c/fruit-vegetables?tab=bids")
    assert page.locator("html").get_attribute("lang") == "fr"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    narrow.picture("french-narrow-dark")
    narrow.close()


def test_the_shop_works_without_scripts(browser: "Browser", demo: DemoProcess) -> None:
    plain = Visit(browser, demo, java_script_enabled=False)
    page = plain.open("/?tab=bids")
    page.locator("#visitor").select_option("stranger")
    page.locator(".who button").click()
    assert "no consent" in page.locator(".known").inner_text()
    page.locator(".tile .open").first.click()
    assert page.locator("article.product").count() == 1
    plain.close()
