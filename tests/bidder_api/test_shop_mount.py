"""What the shop says of a tile, from the receipt of a running server."""

import re
from datetime import UTC, datetime

import pytest

from affinity.audience import Audience
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep
from affinity.product_target import Target
from bidder_api.demonstration.client import ApiClient
from bidder_api.shop.mount import audience_words, pattern_words
from tests.demo_process import DemoProcess


@pytest.mark.parametrize(
    ("audience", "words"),
    [
        (Audience(segment="baby"), "baby"),
        (Audience(rfm=["champion", "loyal"]), "champion or loyal"),
        (Audience(score="promophile", at_least=70), "promophile ≥ 70"),
        (Audience(not_=Audience(bought_brand_within_days=90, brand="Brand 2")), "not bought Brand 2 within 90 days"),
        (Audience(all=[Audience(segment="a"), Audience(segment="b")]), "a and b"),
        (Audience(any=[Audience(segment="a"), Audience(segment="b")]), "a or b"),
        (Audience(attribute="kids", equals=2), '{"attribute":"kids","equals":2}'),
    ],
)
def test_audiences_can_be_said(audience: Audience, words: str) -> None:
    assert audience_words(audience) == words


def test_patterns_can_be_said() -> None:
    pattern = NavigationPattern(
        within="session",
        steps=[PatternStep(action=Action.VIEW_ITEM, category_id="Pets > Cats", at_least=2)],
        without=[PatternStep(action=Action.PURCHASE, category_id="Pets > Cats")],
    )
    assert pattern_words(pattern) == "view_item Pets > Cats ≥ 2×, no purchase, this session"
    summer = Target(field="season", one_of=["spring", "summer"])
    pattern = NavigationPattern(
        within=60,
        steps=[PatternStep(action=Action.VIEW_ITEM, brand="Acme", product_target=summer)],
        without=[PatternStep(action=Action.PURCHASE, product_target=Target(field="is_new", equals=True))],
    )
    assert pattern_words(pattern) == (
        "view_item Acme where season is one of spring, summer ≥ 1×, no purchase where is_new is true, within 60 s"
    )


def page(demo: DemoProcess, path: str) -> str:
    with ApiClient(demo.port, None) as browser:
        status, raw = browser.raw("GET", path)
    assert status == 200
    return raw.decode()


def test_a_paid_tile_says_what_was_bid_and_paid_and_never_more_than_bid(demo: DemoProcess) -> None:
    text = page(demo, "/?tab=bids")
    pairs = re.findall(r"<dt>Bid</dt><dd>\$([\d.]+) per \w+</dd><dt>Price paid</dt><dd>\$([\d.]+) per", text)
    assert pairs
    assert all(float(paid) <= float(bid) for bid, paid in pairs)


def test_a_pinned_tile_says_so_and_names_the_rule(demo: DemoProcess) -> None:
    text = page(demo, "/?tab=pinned")
    assert text.count("The merchant pinned it to this slot.") == 12
    assert "End cap, home, slot 1" in text


def test_a_rule_is_named_where_it_touched_a_tile_and_only_in_its_generation(demo: DemoProcess) -> None:
    assert "Push the house brand" in page(demo, "/?tab=rules")
    assert "Push the house brand" not in page(demo, "/?tab=affinity")


def test_a_visitor_s_own_affinity_is_shown_where_it_played_a_part(demo: DemoProcess) -> None:
    assert re.search(r"<dt>Your affinity</dt><dd>\d+%</dd>", page(demo, "/?tab=affinity"))
    assert not re.search(r"<dt>Your affinity</dt><dd>\d+%</dd>", page(demo, "/?tab=pinned"))


def test_a_product_page_shows_what_the_visitor_looked_at_before_and_says_so(demo: DemoProcess) -> None:
    home = page(demo, "/?tab=affinity")
    first, second = re.findall(r'data-product="([^"]+)"', home)[:2]
    [visitor_id] = set(re.findall(r'data-visitor="([^"]+)"', home))
    with ApiClient(demo.port, demo.keys["retailer"]) as site:
        now = datetime.now(UTC).isoformat()
        seen = [
            {"visitor_id": visitor_id, "action": "view_item", "product_id": one, "occurred_at": now}
            for one in (first, second)
        ]
        site.call("POST", "/v1/navigation", {"events": seen})
    shelf = page(demo, f"/p/{first}?tab=affinity").split('id="shelf-product-viewed-affinity"')[1].split("</section>")[0]
    assert re.findall(r'data-product="([^"]+)"', shelf)[0] == second
    assert f'data-product="{first}"' not in shelf, "the page is about it"
    assert "You looked at it lately." in shelf
    assert 'id="shelf-product-viewed-pinned"' not in page(demo, f"/p/{first}?tab=pinned"), "nobody is known there"
