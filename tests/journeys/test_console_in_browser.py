"""The console in a real browser, as a brand uses it: with a mouse, with the keyboard alone, without scripts."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bidder_api.demonstration.client import ApiClient
from tests.demo_process import DemoProcess
from tests.journeys.browser import Visit
from tests.journeys.browser import browser as browser  # a fixture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

AXE = (Path(__file__).parents[1] / "vendor" / "axe-core" / "axe.min.js").read_text()
REFUSED = "Failed to load resource: the server responded with a status of 422"
MISSING = "Failed to load resource: the server responded with a status of 404"


class Campaign:
    """The demo brand's campaign, as the API has it."""

    def __init__(self, demo: DemoProcess) -> None:
        self._demo = demo
        self.campaign_id = str(self._call("GET", "/v1/campaigns")["items"][0]["campaign_id"])
        self.before = self.read()

    def _call(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        with ApiClient(self._demo.port, self._demo.keys["advertiser"]) as client:
            return client.call(method, path, body, headers)

    def read(self) -> Any:
        return self._call("GET", f"/v1/campaigns/{self.campaign_id}")

    def put_back(self) -> None:
        changed = {name: self.before[name] for name in ("daily_budget_micros", "status")}
        self._call("PATCH", f"/v1/campaigns/{self.campaign_id}", changed, **{"If-Match": "*"})


@pytest.fixture
def campaign(demo: DemoProcess) -> Iterator[Campaign]:
    found = Campaign(demo)
    yield found
    found.put_back()


@pytest.fixture
def visit(browser: "Browser", demo: DemoProcess) -> Iterator[Visit]:
    opened = Visit(browser, demo)
    yield opened
    opened.close()


def sign_in(visit: Visit, role: str = "advertiser") -> "Page":
    page = visit.open("/console")
    page.locator("#key").fill(visit.demo.keys[role])
    page.locator("#sign-in-with-key").click()
    page.wait_for_load_state("networkidle")
    return page


def faults(page: "Page") -> list[str]:
    """Return what axe-core finds serious or worse."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def test_a_brand_sees_its_campaigns_edits_a_budget_and_pauses(visit: Visit, campaign: Campaign) -> None:
    visit.expected = [REFUSED]
    page = sign_in(visit)
    assert page.url == f"{visit.demo.url}/console/campaigns"
    assert page.locator("h1").inner_text().startswith("Campaigns of ")
    page.wait_for_selector("canvas[data-drawn='spend sales']")
    page.locator("#metric-b").select_option("ctr")
    page.wait_for_selector("canvas[data-drawn='spend ctr']")
    visit.picture("console-campaigns")
    page.evaluate("window.isSamePage = true")
    row = page.locator(f"[id='{campaign.campaign_id}']")
    field, save = row.locator("input[name=daily_budget]"), row.locator("form.budget button")

    field.fill("0")
    save.click()
    row.locator(".refusal").wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    assert field.input_value() == "0"
    described = field.get_attribute("aria-describedby")
    assert "more than nothing" in page.locator(f"[id='{described}']").inner_text()
    assert campaign.read()["daily_budget_micros"] == campaign.before["daily_budget_micros"]
    visit.picture("console-refused-at-the-field")

    field.fill("40.25")
    field.press("Enter")
    page.locator("#said", has_text="40.25").wait_for(state="attached")
    assert row.locator(".refusal").count() == 0
    assert campaign.read()["daily_budget_micros"] == 40_250_000

    row.get_by_role("button", name="Pause").click()
    row.get_by_text("paused", exact=True).wait_for()
    assert campaign.read()["status"] == "paused"
    assert page.evaluate("document.activeElement.id") == f"status-{campaign.campaign_id}"
    row.get_by_role("button", name="Resume").click()
    row.get_by_role("button", name="Pause").wait_for()
    assert campaign.read()["status"] == "active"
    assert page.evaluate("window.isSamePage")


def test_what_is_shown_as_spent_is_what_the_api_says_was_charged(visit: Visit) -> None:
    page = sign_in(visit)
    text = page.locator("#commands").text_content() or ""
    target = next(line for line in text.splitlines() if "by=" in line).rpartition(visit.demo.url)[2].rstrip("'")
    with ApiClient(visit.demo.port, visit.demo.keys["advertiser"]) as client:
        charged = sum(line["charged_micros"] for line in client.call("GET", target)["items"])
    assert charged > 0
    assert page.locator("[data-tile=spend] data").get_attribute("value") == str(charged)


def test_language_and_appearance_are_chosen_and_kept_until_after_signing_out(visit: Visit) -> None:
    page = sign_in(visit)
    with page.expect_navigation():
        page.locator("#language").select_option("fr")
    assert page.locator("h1").inner_text().startswith("Campagnes de ")
    assert page.locator("html").get_attribute("lang") == "fr"
    with page.expect_navigation():
        page.locator("#theme").select_option("dark")
    assert page.locator("html").get_attribute("data-bs-theme") == "dark"
    page.wait_for_selector("canvas[data-drawn]")
    visit.picture("console-french-dark")
    with page.expect_navigation():
        page.locator("#sign-out").click()
    assert "Vous êtes déconnecté." in page.locator("main").inner_text()
    assert page.locator("html").get_attribute("data-bs-theme") == "dark"
    visit.open("/console/campaigns")
    assert "/console/sign-in" in page.url


def test_another_brands_page_is_not_there(visit: Visit, demo: DemoProcess) -> None:
    visit.expected = [MISSING]
    with ApiClient(demo.port, demo.keys["finance"]) as finance:
        brands = [line["advertiser_id"] for line in finance.call("GET", "/v1/ledger/credit-lines")["items"]]
    page = sign_in(visit)
    own = page.locator("input[name=advertiser_id]").first.get_attribute("value")
    foreign = next(brand for brand in brands if brand != own)
    visit.open(f"/console/campaigns?advertiser_id={foreign}")
    assert page.locator("h1").inner_text() == "There is no such page, or it is not yours to see."


def test_finance_drills_from_a_balance_to_a_transaction(visit: Visit) -> None:
    page = sign_in(visit, "finance")
    assert page.locator("#difference").get_attribute("value") == "0"
    visit.picture("console-finance")
    page.get_by_role("link", name="revenue:media").click()
    page.locator("main h2 a").first.click()
    amounts = [data.get_attribute("value") for data in page.locator("main td data").all()]
    assert len(amounts) == 2
    assert len(set(amounts)) == 1


def test_the_keyboard_alone_will_do_and_focus_is_seen(visit: Visit, campaign: Campaign) -> None:
    page = sign_in(visit)
    page.keyboard.press("Tab")
    assert page.locator(".skip").evaluate("element => element === document.activeElement")
    assert page.locator(".skip").evaluate("element => element.getBoundingClientRect().top >= 0")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "period"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    for _ in range(60):
        if page.evaluate("document.activeElement.name") == "daily_budget":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("41")
    page.keyboard.press("Enter")
    page.locator("#said", has_text="41.00").wait_for(state="attached")
    assert campaign.read()["daily_budget_micros"] == 41_000_000


def test_it_works_without_scripts(browser: "Browser", demo: DemoProcess, campaign: Campaign) -> None:
    plain = Visit(browser, demo, java_script_enabled=False)
    page = sign_in(plain)
    row = page.locator(f"[id='{campaign.campaign_id}']")
    row.locator("input[name=daily_budget]").fill("42")
    row.locator("form.budget button").click()
    page.wait_for_url("**/console/campaigns?*")
    assert row.locator("input[name=daily_budget]").input_value() == "42.00"
    assert campaign.read()["daily_budget_micros"] == 42_000_000
    plain.close()


def test_a_narrow_dark_screen_scrolls_one_way_only(browser: "Browser", demo: DemoProcess) -> None:
    narrow = Visit(
        browser, demo, viewport={"width": 390, "height": 844}, color_scheme="dark", locale="fr-FR", has_touch=True
    )
    page = sign_in(narrow)
    assert page.locator("html").get_attribute("data-bs-theme") == "dark"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    narrow.picture("console-narrow-dark")
    narrow.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en-GB", "fr-FR"])
def test_axe_finds_nothing_serious(
    browser: "Browser", demo: DemoProcess, campaign: Campaign, locale: str, scheme: str
) -> None:
    looker = Visit(browser, demo, locale=locale, color_scheme=scheme)
    looker.expected = [REFUSED, MISSING]
    page = looker.open("/console/sign-in")
    assert faults(page) == []
    page = sign_in(looker)
    for details in page.locator("details").all():
        details.evaluate("element => element.open = true")
    assert faults(page) == []
    row = page.locator(f"[id='{campaign.campaign_id}']")
    row.locator("input[name=daily_budget]").fill("?")
    row.locator("form.budget button").click()
    row.locator(".refusal").wait_for()
    assert faults(page) == []
    for path in ("/console/campaigns?period=custom", "/console/campaigns?q=zzzz", "/console/campaigns?advertiser_id=x"):
        assert faults(looker.open(path)) == [], path
    looker.close()
    chooser = Visit(browser, demo, locale=locale, color_scheme=scheme)
    assert faults(sign_in(chooser, "admin")) == []
    assert chooser.page.locator("main a").count() > 3
    chooser.close()
    finance = Visit(browser, demo, locale=locale, color_scheme=scheme)
    assert faults(sign_in(finance, "finance")) == []
    for path in ("/transactions", "/statements?advertiser_id=brand-2&period=2026-11", "/invoices"):
        assert faults(finance.open("/console/finance" + path)) == [], path
    finance.page.goto(f"{demo.url}/console/finance/transactions")
    finance.page.locator("main h2 a").first.click()
    assert faults(finance.page) == []
    finance.close()
    other = Visit(browser, demo, locale=locale, color_scheme=scheme)
    assert faults(sign_in(other, "merchant")) == []
    other.close()
