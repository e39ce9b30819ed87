"""The demo shop, with an engine we wrote: what it asks for, and what it shows of the answer."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from affinity.audience import RFM_CLASSES
from affinity.catalog import Product
from affinity.profile import ProfileLine
from auction.request import Disclosure, Fill, PlacementFills, SlotRequest, SlotResponse
from bidder_api.shop.catalogue import ShopCatalogue, slug
from bidder_api.shop.endpoint import Shop, routes
from bidder_api.shop.page import Explanation, Reasons
from bidder_api.shop.pictures import DRAWINGS, draw, picture_of
from bidder_api.shop.shelves import GENERATIONS, SHELVES
from bidder_api.shop.visitors import Known, TellingVisitor, Visitors
from bidder_api.shop.words import Formats, choose_language, words_for
from ledger.terms import ChargeOn

MILK = Product(
    product_id="m1",
    title="White milk · 1 gal",
    price_micros=2_790_000,
    sale_price_micros=2_000_000,
    brand="House brand",
    product_type="Dairy & eggs > Milk > White milk",
    attributes={"lines_sold": 7858, "promotion_share": 0.24, "end_cap_weeks": 53},
)
CHIPS = Product(
    product_id="c1",
    title="<Potato> chips · 11 oz",
    price_micros=3_490_000,
    brand="Brand 544",
    product_type="Snacks & sweets > Chips & pretzels > Potato chips",
)

KNOWN = {"household-1": Known("champion", 91.0), "household-2": Known("at_risk", 12.0)}


class FakeEngine:
    """Fills each placement with milk, then chips that Brand 544 paid for, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[SlotRequest] = []
        self.empty: set[str] = set()
        self.organic_source: Any = None

    def fill(self, request: SlotRequest, arrived_ms: int) -> SlotResponse:
        self.asked.append(request)
        fills = [
            Fill(1, "m1", False, None, None, None, None, None, None, "token-m1", None),
            Fill(
                2, "c1", True, "brand-544", "cmp_1", "bid_1", ChargeOn.CLICK, 123_456, "USD", "token-c1",
                Disclosure("Sponsored", "Brand 544", "Brand 544", []),
            ),
        ]  # fmt: skip
        placements = [
            PlacementFills(one.placement_id, None, [] if one.placement_id in self.empty else fills)
            for one in request.placements
        ]
        return SlotResponse("auc_1", 7, None, None, False, placements)

    def explain(self, request: SlotRequest, response: SlotResponse) -> Explanation:
        return Explanation(
            candidate_count=1234,
            reasons={
                "m1": Reasons(
                    quality_ppm=20_000,
                    affinity=0.42,
                    rules=["Push the house brand"],
                    organic_source=self.organic_source,
                ),
                "c1": Reasons(quality_ppm=31_200, bid_micros=300_000, audience="rfm: champion"),
            },
        )


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def client(engine: FakeEngine) -> TestClient:
    telling = [
        TellingVisitor("household-1", ["Baby > Baby food", "Pets > Cats"]),
        TellingVisitor("household-2", ["Pets > Dogs", "Frozen > Pizza"]),
    ]
    profile = ProfileLine(visitor_id="household-1", attributes={"age": "25-34", "kids_count": "1"})
    shop = Shop(
        fill=engine.fill,
        explain=engine.explain,
        catalogue=ShopCatalogue([MILK, CHIPS]),
        visitors=Visitors(telling, {"household-1": profile}, KNOWN.__getitem__),
        site_keys={"http://testserver": "site-key"},
        currency="USD",
    )
    return TestClient(Starlette(routes=list(routes(shop))))


class Tags(HTMLParser):
    """Keeps every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_a_paid_tile_is_labelled_with_whom_it_is_for_and_an_organic_one_is_not(client: TestClient) -> None:
    text = client.get("/").text
    milk, chips = text.split('data-product="m1"')[1].split('data-product="c1"')[:2]
    assert "Sponsored" not in milk
    assert "<b>Sponsored</b> on behalf of" in chips
    assert "Brand 544" in chips


def test_each_generation_asks_for_its_own_placements_and_only_the_first_keeps_the_visitor_to_itself(
    client: TestClient, engine: FakeEngine
) -> None:
    asked = {}
    for generation in GENERATIONS:
        client.get(f"/?tab={generation}")
        request = engine.asked[-1]
        asked[generation] = (
            [placement.placement_id for placement in request.placements],
            request.visitor_id,
            request.consent.personalised,
        )
    assert asked == {
        "pinned": (["home-end-cap-pinned", "home-more-pinned"], None, False),
        "affinity": (["home-end-cap-affinity", "home-more-affinity"], "household-1", True),
        "rules": (["home-end-cap-rules", "home-more-rules"], "household-1", True),
        "bids": (["home-end-cap", "home-more"], "household-1", True),
    }


def test_the_chosen_generation_is_kept_on_the_next_page(client: TestClient, engine: FakeEngine) -> None:
    client.get("/?tab=affinity")
    client.get("/c/dairy-eggs/milk")
    assert engine.asked[-1].placements[0].placement_id == "category-shelf-affinity"
    assert engine.asked[-1].page.category_id == "Dairy & eggs > Milk"


def test_switching_the_visitor_changes_who_is_asked_for(client: TestClient, engine: FakeEngine) -> None:
    answer = client.post("/shop/visitor", data={"visitor": "household-2", "back": "/c/dairy-eggs"})
    assert answer.status_code == 200
    assert answer.url.path == "/c/dairy-eggs"
    assert engine.asked[-1].visitor_id == "household-2"
    assert "at risk of leaving" in answer.text


def test_the_stranger_gave_no_consent(client: TestClient, engine: FakeEngine) -> None:
    text = client.post("/shop/visitor", data={"visitor": "stranger", "back": "/"}).text
    assert engine.asked[-1].visitor_id is None
    assert not engine.asked[-1].consent.personalised
    assert 'data-visitor=""' in text


@pytest.mark.parametrize(
    "back", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere", "/p/a\r\nX: y", ""]
)
def test_switching_never_leads_elsewhere(client: TestClient, back: str) -> None:
    answer = client.post("/shop/visitor", data={"visitor": "household-2", "back": back}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"


def test_an_unknown_visitor_in_a_cookie_is_the_first_household(client: TestClient, engine: FakeEngine) -> None:
    client.cookies.set("visitor", "household-999999")
    client.get("/")
    assert engine.asked[-1].visitor_id == "household-1"


def test_a_form_that_is_too_large_is_refused(client: TestClient) -> None:
    assert client.post("/shop/visitor", content=b"visitor=" + b"x" * 10_000).status_code == 413


@pytest.mark.parametrize("path", ["/", "/c/dairy-eggs", "/p/m1", "/p/unknown", "/c/unknown"])
def test_nothing_on_a_page_is_inline_or_from_elsewhere(client: TestClient, path: str) -> None:
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag, attributes in Tags(answer.text).tags:
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        assert tag != "script" or attributes["src"]
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "/").startswith(("/", "#"))


def test_what_the_catalogue_says_cannot_become_markup(client: TestClient) -> None:
    text = client.get("/p/c1").text
    assert "<Potato>" not in text
    assert "&lt;Potato&gt; chips" in text


def test_a_product_page_leaves_its_product_out_of_the_shelf(client: TestClient, engine: FakeEngine) -> None:
    text = client.get("/p/m1").text
    assert engine.asked[-1].exclude_product_ids == ["m1"]
    assert engine.asked[-1].page.product_id == "m1"
    assert "$2.00" in text
    assert "$2.79" in text
    assert "7,858" in text


def test_a_product_page_shows_what_was_looked_at_where_there_is_anything(
    client: TestClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "You looked at" in client.get("/p/m1").text
    asked = [placement.placement_id for placement in engine.asked[-1].placements]
    assert asked == ["product-more", "product-viewed"]
    monkeypatch.setattr(engine, "empty", {"product-more", "product-viewed"})
    text = client.get("/p/m1").text
    assert "You looked at" not in text
    assert "Goes well with it" in text


def test_an_organic_tile_says_where_it_is_from(client: TestClient, engine: FakeEngine) -> None:
    usual = "The best of what the shop would show here anyway."
    for source, words in (
        ("affinity", usual),
        (None, usual),
        ("caller", usual),
        ("recently_viewed", "You looked at it lately."),
        ("cart", "It is in your basket."),
        ("complements", "It is often bought together with what you chose."),
        ("best_sellers", "It is a best-seller here."),
    ):
        engine.organic_source = source
        milk = client.get("/p/m1").text.split('data-product="m1"')[1]
        assert milk.split("</details>")[0].count(words) == 1


@pytest.mark.parametrize(
    "path", ["/p/unknown", "/c/unknown", "/c/dairy-eggs/unknown", "/shop/picture/x.svg", "/shop/static/x"]
)
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_pages_are_french_for_who_prefers_it(client: TestClient) -> None:
    answer = client.get("/", headers={"Accept-Language": "fr-FR,fr;q=0.9,en;q=0.5"})
    assert '<html lang="fr">' in answer.text
    assert "Sponsorisé" in answer.text
    assert "Qui suis-je" in answer.text
    assert answer.headers["content-language"] == "fr"


def test_why_here_tells_affinity_rule_bid_and_price(client: TestClient) -> None:
    text = client.get("/").text
    for fact in ("42%", "Push the house brand", "$0.300 per click", "$0.123456 per click", "rfm: champion", "3.12%"):
        assert fact in text
    assert "1,234 products looked at" in text


def test_every_page_says_where_the_data_is_from_and_that_bids_and_clicks_are_simulated(client: TestClient) -> None:
    for language, provenance, simulated in (("en", "simulated from real", "are simulated"), ("fr", "CC0", "simulés")):
        text = client.get("/p/m1", headers={"Accept-Language": language}).text
        assert "The Complete Journey" in text
        assert provenance in text
        assert simulated in text


def test_a_tile_carries_what_the_page_reports(client: TestClient) -> None:
    tiles = [attributes for _, attributes in Tags(client.get("/c/dairy-eggs").text).tags if "data-beacon" in attributes]
    assert [(tile["data-beacon"], tile["data-product"]) for tile in tiles] == [("token-m1", "m1"), ("token-c1", "c1")]


def test_every_word_is_there_in_both_languages() -> None:
    english, french = words_for("en"), words_for("fr")
    assert english.keys() == french.keys()
    assert all(english.values())
    assert all(french.values())
    assert {"rfm_" + name for name in RFM_CLASSES} <= english.keys()


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("fr", "fr"),
        ("en-GB,fr;q=0.3", "en"),
        ("de;q=1, fr;q=0.1", "fr"),
        ("", "en"),
        ("fr;q=nan", "en"),
        ("fr;q=0", "en"),
    ],
)
def test_the_preferred_language_decides(header: str, language: str) -> None:
    assert choose_language(header) == language


@pytest.mark.parametrize(
    ("language", "micros", "text"),
    [("en", 123_456, "$0.123456"), ("en", 420_000, "$0.420"), ("fr", 420_000, "0,420 $US")],
)
def test_small_prices_are_shown_to_the_micro(language: str, micros: int, text: str) -> None:
    assert Formats(language, "USD").small_price(micros).replace("\xa0", " ") == text


def test_every_shelf_has_a_placement_of_its_own_in_each_generation() -> None:
    placement_ids = {plan.placement_id(generation) for plan in SHELVES for generation in GENERATIONS}
    assert len(placement_ids) == len(SHELVES) * len(GENERATIONS)


def test_every_drawing_is_well_formed_and_none_is_missing() -> None:
    from xml.etree import ElementTree

    named = {*DRAWINGS.by_name.values(), *DRAWINGS.by_category.values(), *(name for name, _ in DRAWINGS.aisle.values())}
    assert named | set(DRAWINGS.own_hue) <= set(DRAWINGS.drawing)
    for name in DRAWINGS.drawing:
        svg = draw(f"{name}-12.svg")
        assert svg is not None
        ElementTree.fromstring(svg)
    assert draw(picture_of("m1", "White milk", "Dairy & eggs > Milk")) is not None
    assert [draw(name) for name in ("box-13.svg", "box-360.svg", "box-.svg", "nothing-12.svg", "box-٣.svg")] == [
        None
    ] * 5


def test_addresses_of_categories_lead_back_to_them() -> None:
    catalogue = ShopCatalogue([MILK, CHIPS])
    assert [aisle.name for aisle in catalogue.aisles] == ["Dairy & eggs", "Snacks & sweets"]
    for url, category in catalogue.category_of_url.items():
        assert re.fullmatch(r"/c/[a-z0-9/-]+", url)
        assert catalogue.path_to(category.category_id)[-1] is category
    assert slug("Été à l’ail") == "ete-a-lail"
