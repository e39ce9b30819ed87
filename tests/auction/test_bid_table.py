"""A snapshot made from what changed is the one made from everything."""

import random
from typing import Any

import msgspec
import numpy as np
import pytest

from affinity.audience import Audience
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep
from affinity.product_target import Target
from auction import bid_table
from auction.bid_table import BidTable
from auction.builder import SnapshotMaker, SnapshotSource, build_snapshot
from auction.campaign import Bid, BidContext, FrequencyCap, Keyword
from auction.retailer_rule import Effect, RetailerRule
from auction.snapshot import Snapshot
from ledger.terms import ChargeOn
from tests.auction.worlds import bid, campaign, placement, product, rule, some_quality, source

NEW_TO_BRAND = Audience(not_=Audience(bought_brand_within_days=90))
WORDS = ["trail", "road", "shoe", "Été", "???"]


def some_bid(chance: random.Random, name: str) -> Bid:
    """A bid that asks for anything a bid can."""

    def keywords() -> list[Keyword]:
        texts = [" ".join(chance.sample(WORDS, chance.randint(1, 3))) for _ in range(chance.randint(1, 3))]
        return [Keyword(text=text, match=chance.choice(["exact", "phrase", "broad"])) for text in texts]

    asked: dict[str, Any] = {
        "audience": lambda: chance.choice([NEW_TO_BRAND, Audience(segment=f"s{chance.randrange(4)}")]),
        "navigation_pattern": lambda: NavigationPattern(
            within="session", steps=[PatternStep(action=Action.VIEW_ITEM, at_least=chance.randint(1, 3))]
        ),
        "category_ids": lambda: chance.sample(["Shoes", "Shoes > Running", "Bags", "Nowhere > Else"], 2),
        "keywords": keywords,
        "negative_keywords": keywords,
        "placement_multipliers": lambda: {chance.choice(["top", "side", "gone"]): chance.choice([0.5, 2.0])},
        "frequency_cap": lambda: FrequencyCap(count=chance.randint(1, 3), window_s=3600),
        "context": lambda: BidContext(devices=chance.sample(["mobile", "desktop"], 1), hours=[chance.randrange(24)]),
        "pages": lambda: chance.sample(["home", "category", "search"], 2),
        "status": lambda: chance.choice(["paused", "archived", "active"]),
        "charge_on": lambda: ChargeOn.IMPRESSION,
    }
    wishes = {field: make() for field, make in asked.items() if chance.random() < 0.3}
    products = chance.sample([f"p{number}" for number in range(9)], chance.randint(1, 3))
    return bid(name, products, 1_000 * chance.randint(1, 500), f"cmp_{chance.randrange(3)}", **wishes)


def some_change(chance: random.Random, version: int) -> SnapshotSource:
    """A few bids, products, campaigns and rules that are new or changed."""
    names = [f"bid_{chance.randrange(40):03d}" for _ in range(chance.randint(0, 12))]
    live = chance.choice(["live", "draft"])
    return source(
        version=version,
        products=[
            product(
                f"p{chance.randrange(8)}",
                brand=chance.choice(["Acme", "Other", ""]),
                product_type=chance.choice(["Shoes > Running", "Bags"]),
                stock=chance.choice([0, 5]),
            )
            for _ in range(chance.randint(0, 2))
        ],
        campaigns=[
            campaign(f"cmp_{chance.randrange(3)}", status=chance.choice(["active", "active", "paused", "archived"]))
            for _ in range(chance.randint(0, 2))
        ],
        bids=[some_bid(chance, name) for name in names],
        placements=[placement("top"), placement("side")],
        rules=[rule("rul_1", Effect(exclude=True), stage=live)] if chance.random() < 0.3 else [],
    )


def now_of(changes: list[SnapshotSource]) -> SnapshotSource:
    """Return everything that holds after all of the changes."""
    products = {one.product_id: one for change in changes for one in change.products}
    campaigns = {one.campaign_id: one for change in changes for one in change.campaigns}
    bids = {one.bid_id: one for change in changes for one in change.bids}
    rules: dict[str, RetailerRule] = {one.rule_id: one for change in changes for one in change.rules}
    return msgspec.structs.replace(
        changes[-1],
        products=list(products.values()),
        campaigns=[one for one in campaigns.values() if one.status != "archived"],
        bids=[one for one in bids.values() if one.status != "archived"],
        rules=[one for one in rules.values() if one.stage == "live"],
    )


def assert_equal(one: Snapshot, other: Snapshot) -> None:
    assert one.names == other.names
    for name in one.columns.__struct_fields__:
        ours, theirs = getattr(one.columns, name), getattr(other.columns, name)
        assert ours.shape == theirs.shape, name
        assert (ours == theirs).all(), name


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("spare", [0, 10_000])
def test_what_was_there_before_leaves_no_trace(seed: int, spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bid_table, "SPARE_CODE_COUNT", spare)
    chance = random.Random(seed)
    maker, changes = SnapshotMaker(), []
    for version in range(8):
        changes.append(some_change(chance, version))
        maker.apply(changes[-1])
        assert maker.version == version
        assert_equal(maker.make(some_quality), build_snapshot(now_of(changes), some_quality))


def test_the_order_bids_come_in_changes_nothing() -> None:
    chance = random.Random(0)
    bids = [some_bid(chance, f"bid_{number:03d}") for number in range(60)]
    made = source(products=[product(f"p{number}") for number in range(9)], bids=bids, campaigns=[campaign("cmp_1")])
    shuffled = msgspec.structs.replace(made, bids=chance.sample(bids, len(bids)))
    assert_equal(build_snapshot(made), build_snapshot(shuffled))


def test_codes_nobody_uses_are_given_out_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bid_table, "SPARE_CODE_COUNT", 10)
    table = BidTable()
    for number in range(200):
        table.apply([bid("bid_1", ["p1"], audience=Audience(segment=f"s{number}"))])
        table.apply([bid("bid_2", ["p1"], product_target=Target(field="brand", equals=f"b{number}"))])
        compiled = table.compile_bids(
            {"p1": 0}, np.zeros(1, np.int32), ["Acme"], {}, {"cmp_a": 0}, {}, lambda target: np.array([True])
        )
        assert compiled.targets.audiences == [Audience(segment=f"s{number}")]
    assert len(table._audiences.keys) < 20
    assert len(table._product_targets.keys) < 20
