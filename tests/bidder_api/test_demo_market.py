"""The demo's invented market: a few hundred bids that are what they claim, the same every time."""

from pathlib import Path

import msgspec
import pytest

import bidder_api
from affinity.audience import Audience
from affinity.catalog import Product
from affinity.feed import BadLine, read_feed
from affinity.profile import ProfileLine
from bidder_api.demonstration import market
from bidder_api.shop.shelves import SHELVES
from ledger.terms import ChargeOn
from tests.bidder_api.test_demo_data import lines_of

DATA = Path(bidder_api.__file__).parent / "demo_data"


@pytest.fixture(scope="module")
def products() -> list[Product]:
    read = list(read_feed(DATA / "catalogue.tsv.gz"))
    assert not [line for line in read if isinstance(line, BadLine)]
    return [line for line in read if isinstance(line, Product)]


@pytest.fixture(scope="module")
def brands(products: list[Product]) -> list[market.Brand]:
    return market.brands(products)


def end_caps() -> list[tuple[str, str]]:
    lines = (DATA / "end_caps.tsv").read_text().splitlines()[1:]
    return [(line.split("\t")[0], line.split("\t")[1]) for line in lines]


def test_forty_brands_bid_a_few_hundred_times_in_every_way_there_is(brands: list[market.Brand]) -> None:
    drafts = [offer.draft for brand in brands for offer in brand.offers]
    assert len(brands) == 40
    assert 250 <= len(drafts) <= 500
    assert {draft.charge_on for draft in drafts} == {ChargeOn.CLICK, ChargeOn.IMPRESSION}
    assert any(draft.audience for draft in drafts)
    assert any(draft.navigation_pattern for draft in drafts)
    assert any(draft.frequency_cap for draft in drafts)


def test_brands_bid_only_on_products_they_may_advertise(brands: list[market.Brand], products: list[Product]) -> None:
    entitled = {product.product_id: product.advertiser_ids for product in products}
    for brand in brands:
        assert brand.campaign.advertiser_id == brand.advertiser_id
        for offer in brand.offers:
            for product_id in offer.draft.product_ids:
                assert brand.advertiser_id in entitled[product_id]


def test_every_draft_is_one_the_api_would_take(brands: list[market.Brand], products: list[Product]) -> None:
    drafts: list[msgspec.Struct] = [brand.campaign for brand in brands]
    drafts += [offer.draft for brand in brands for offer in brand.offers]
    drafts += market.placements().values()
    drafts += market.merchant_rules(products, end_caps())
    for draft in drafts:
        assert msgspec.json.decode(msgspec.json.encode(draft), type=type(draft)) == draft


def test_a_bid_per_thousand_divides_into_whole_micros(brands: list[market.Brand]) -> None:
    for brand in brands:
        for offer in brand.offers:
            assert offer.draft.charge_on is ChargeOn.CLICK or offer.draft.bid_micros % 1_000 == 0


def test_segments_bid_on_are_those_of_profiles(brands: list[market.Brand]) -> None:
    decoder = msgspec.json.Decoder(ProfileLine)
    known = {segment for line in lines_of("profiles.jsonl.gz") for segment in decoder.decode(line).segments}

    def segments_in(audience: Audience | None) -> set[str]:
        if audience is None:
            return set()
        parts = [*(audience.all or ()), *(audience.any or ()), audience.not_]
        return set().union({audience.segment} if audience.segment else set(), *map(segments_in, parts))

    asked = set().union(*(segments_in(offer.draft.audience) for brand in brands for offer in brand.offers))
    assert asked
    assert asked <= known


def test_places_are_sold_in_the_fourth_generation_alone() -> None:
    placements = market.placements()
    sold = {placement_id for placement_id, placement in placements.items() if placement.sponsored_max}
    assert sold == {plan.name for plan in SHELVES if plan.sponsored_max}
    assert len(sold) == 4


def test_no_two_pins_want_the_same_slot_and_no_product_is_pinned_twice_on_a_page(products: list[Product]) -> None:
    pins = [rule for rule in market.merchant_rules(products, end_caps()) if rule.effect.pin is not None]
    assert len(pins) > 80
    for what in ("slot_position", "product_id"):
        places = [
            (tuple(rule.scope.placements or ()), tuple(rule.scope.categories or ()), getattr(rule.effect.pin, what))
            for rule in pins
        ]
        assert len(set(places)) == len(places)


def test_the_market_is_the_same_every_time(brands: list[market.Brand], products: list[Product]) -> None:
    assert msgspec.json.encode(market.brands(list(reversed(products)))) == msgspec.json.encode(brands)
