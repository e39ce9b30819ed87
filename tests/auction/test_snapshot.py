"""A snapshot is one file, whole or refused, and says the same wherever it is read."""

import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest

from affinity.audience import Audience
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep
from auction.bid_table import needs_brand
from auction.builder import build_snapshot
from auction.errors import SnapshotRefused
from auction.kernel import OFFER
from auction.request import Page
from auction.snapshot import Columns, Snapshot
from tests.auction.worlds import World, bid, large_source, product, request, some_quality, source

PATTERN = NavigationPattern(within="session", steps=[PatternStep(action=Action.SEARCH)])


def test_what_is_read_back_is_what_was_saved(tmp_path: Path) -> None:
    made = build_snapshot(large_source(300, product_count=80, advertiser_count=10), some_quality)
    made.save(tmp_path / "one")
    read = Snapshot.load(tmp_path / "one")
    assert read.names == made.names
    for name in Columns.__struct_fields__:
        first, second = getattr(made.columns, name), getattr(read.columns, name)
        assert first.dtype == second.dtype, name
        assert np.array_equal(first, second), name
    assert [read.bid_id[row] for row in range(len(read.bid_id))] == [
        made.bid_id[row] for row in range(len(made.bid_id))
    ]


def test_an_empty_shop_has_a_snapshot_too(tmp_path: Path) -> None:
    build_snapshot(source(products=[], campaigns=[], advertiser_names={})).save(tmp_path / "none")
    empty = Snapshot.load(tmp_path / "none")
    assert (empty.offer_count, empty.product_id) == (0, [])


def test_auctions_on_a_mapped_snapshot_decide_alike(tmp_path: Path) -> None:
    world = World(large_source(500, product_count=100, advertiser_count=10))
    world.snapshot.save(tmp_path / "one")
    mapped = World(large_source(1, product_count=100, advertiser_count=10))
    mapped.snapshot = Snapshot.load(tmp_path / "one")
    from auction.market import Market
    from auction.spend import SpendView
    from tests.auction.worlds import NOW_MS, SETTINGS

    mapped.market = Market(mapped.snapshot, mapped.model)
    mapped.spend = SpendView(SETTINGS, mapped.snapshot)
    for advertiser_id in mapped.snapshot.advertiser_id:
        mapped.spend.apply_funds(advertiser_id, 10**12)
    mapped.spend.refresh(NOW_MS)
    asked = request(Page(type="home"))
    assert mapped.hold(asked).places == world.hold(asked).places


@pytest.mark.parametrize("damage", ["cut", "header", "version", "other"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "one"
    build_snapshot(source(bids=[bid("bid_1", ["p1"])])).save(path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-100]
    elif damage == "header":
        content[60] ^= 1
    elif damage == "version":
        content[8] ^= 64
    else:
        content = bytearray(b"something else")
    path.write_bytes(content)
    with pytest.raises(SnapshotRefused):
        Snapshot.load(path)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """A reader that loads all the time while versions are put in place one after the other never sees half of one."""
    path = tmp_path / "one"
    snapshot = build_snapshot(source())
    snapshot.save(path)
    seen: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                Snapshot.load(path)
            except Exception as failure:
                seen.append(failure)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        snapshot.save(path)
    done.set()
    reader.join()
    assert seen == []
    assert [one.name for one in tmp_path.iterdir()] == ["one"]


def test_equal_wishes_are_kept_once() -> None:
    bids = [
        bid(f"bid_{number}", ["p1"], audience=Audience(segment="vip"), navigation_pattern=PATTERN)
        for number in range(5)
    ]
    spec = build_snapshot(source(bids=bids)).targets_spec
    assert (len(spec.audiences), len(spec.patterns)) == (1, 1)


def test_buyers_of_the_brand_means_the_brand_of_each_product() -> None:
    products = [product("p1", brand="Acme"), product("p2", brand="Other"), product("p3", brand="Acme")]
    new_to_brand = Audience(all=[Audience(segment="vip"), Audience(not_=Audience(bought_brand_within_days=90))])
    assert needs_brand(new_to_brand)
    snapshot = build_snapshot(source(products=products, bids=[bid("bid_1", ["p1", "p2", "p3"], audience=new_to_brand)]))
    offers = snapshot.columns.offer
    by_product = {snapshot.product_id[offer["product_row"]]: offer["audience_row"] for offer in offers}
    assert by_product["p1"] == by_product["p3"] != by_product["p2"]
    resolved = snapshot.targets_spec.audiences[by_product["p2"]]
    assert resolved.all is not None
    assert resolved.all[1].not_ == Audience(bought_brand_within_days=90, brand="Other")
    assert not any(needs_brand(audience) for audience in snapshot.targets_spec.audiences)


def test_offers_are_numbered_by_the_value_they_may_have() -> None:
    snapshot = build_snapshot(large_source(500, product_count=100, advertiser_count=10), some_quality)
    world = World(large_source(500, product_count=100, advertiser_count=10))
    assert snapshot.columns.offer.dtype == OFFER
    from auction.market import highest_score

    score = highest_score(
        snapshot.columns.offer, snapshot.columns.multiplier_max_ppm, some_quality(snapshot.product_id)
    )
    assert np.all(np.diff(score) <= 0)
    assert world.market.arrays.best_score_from[-1] == 0


def test_bids_of_unknown_campaigns_and_products_are_left_out() -> None:
    bids = [bid("bid_1", ["gone", "p1"]), bid("bid_2", ["p1"], campaign_id="cmp_gone")]
    assert build_snapshot(source(bids=bids)).offer_count == 1


def test_an_impression_bid_is_the_price_of_one() -> None:
    from ledger.terms import ChargeOn

    snapshot = build_snapshot(source(bids=[bid("bid_1", ["p1"], 2_000_000, charge_on=ChargeOn.IMPRESSION)]))
    assert snapshot.columns.offer["bid_micros"].tolist() == [2_000]


def test_the_json_of_a_source_is_no_part_of_its_meaning() -> None:
    made = source(bids=[bid("bid_1", ["p1"], audience=Audience(segment="vip"))])
    again = msgspec.json.decode(msgspec.json.encode(made), type=type(made))
    assert build_snapshot(again).names == build_snapshot(made).names
