"""Rows go in and come out the same, can be followed by change, and belong to one retailer and one advertiser."""

from typing import Any

import msgspec
import pytest

from affinity.store import ensure_advertisers, next_change_seq, upsert_products
from auction import store
from auction.builder import SnapshotMaker, SnapshotSource, build_snapshot
from auction.placement import PageCaps
from auction.retailer_rule import Effect
from bidder_api.database import Database
from tests.auction.worlds import NOW_MS, bid, campaign, placement, product, rule

OURS, OTHERS = "ret_1", "ret_2"


def test_campaigns_and_bids_come_back_as_they_went_in(database: Database) -> None:
    one = campaign("cmp_a", "adv_a", name="Été", daily_budget_micros=5)
    offered = bid("bid_1", ["p1"], category_ids=["Shoes > Trail"], placement_multipliers={"top": 1.5})

    def work(connection: Any) -> None:
        store.insert_campaign(connection, OURS, one)
        store.insert_bids(connection, OURS, [offered])

    database.transact(work)
    assert database.read(lambda c: store.get_campaign(c, OURS, "cmp_a")) == one
    assert database.read(lambda c: store.get_bid(c, OURS, "bid_1", "adv_a")) == offered
    assert database.read(lambda c: store.get_bid(c, OURS, "bid_1", "adv_b")) is None
    assert database.read(lambda c: store.get_bid(c, OTHERS, "bid_1")) is None


def test_lists_go_on_after_a_key_and_leave_archived_ones_out(database: Database) -> None:
    def work(connection: Any) -> None:
        for number in range(5):
            status = "archived" if number == 1 else "paused" if number == 2 else "active"
            store.insert_bid(connection, OURS, bid(f"bid_{number}", ["p1"], status=status))

    database.transact(work)

    def ids(**changes: Any) -> list[str]:
        return [one.bid_id for one in database.read(lambda c: store.list_bids(c, OURS, **changes))]

    assert ids() == ["bid_0", "bid_2", "bid_3", "bid_4"]
    assert ids(after="bid_0", limit=2) == ["bid_2", "bid_3"]
    assert ids(status="paused") == ["bid_2"]
    assert ids(include_archived=True, limit=2) == ["bid_0", "bid_1"]
    assert ids(advertiser_id="adv_b") == []
    assert ids(campaign_id="cmp_a", limit=1) == ["bid_0"]


def test_an_update_says_whether_it_found_the_version_it_expected(database: Database) -> None:
    database.transact(lambda c: store.insert_campaign(c, OURS, campaign(change_seq=3)))
    changed = campaign(change_seq=4, name="new")
    assert database.transact(lambda c: store.update_campaign(c, OURS, changed, 2)) is False
    assert database.transact(lambda c: store.update_campaign(c, OURS, changed, 3)) is True
    assert database.transact(lambda c: store.update_campaign(c, OTHERS, changed)) is False
    found = database.read(lambda c: store.get_campaign(c, OURS, "cmp_a"))
    assert found is not None
    assert found.name == "new"


def test_placements_and_caps_are_put_whole(database: Database) -> None:
    assert database.transact(lambda c: store.put_placement(c, OURS, placement("top", 2))) is True
    assert database.transact(lambda c: store.put_placement(c, OURS, placement("top", 4))) is False
    assert database.read(lambda c: store.get_placement(c, OURS, "top")) == placement("top", 4)
    assert database.transact(lambda c: store.put_page_caps(c, OURS, "home", PageCaps(brand_max=2), 1)) is True
    assert database.read(lambda c: store.list_page_caps(c, OURS)) == {"home": PageCaps(brand_max=2)}


@pytest.mark.parametrize("change", ["bid", "stock", "rule", "pause", "archive", "nothing"])
def test_reading_what_changed_comes_to_the_same_as_reading_anew(sqlite_database: Database, change: str) -> None:
    def first(connection: Any) -> None:
        seq = next_change_seq(connection, OURS)
        ensure_advertisers(connection, OURS, ["adv_a"], NOW_MS)
        upsert_products(connection, OURS, [product("p1"), product("p2")], seq)
        store.insert_campaign(connection, OURS, campaign(change_seq=seq))
        store.insert_bid(connection, OURS, bid("bid_1", ["p1"], change_seq=seq))
        store.insert_rule(connection, OURS, rule("rul_1", Effect(exclude=True), change_seq=seq))
        store.put_placement(connection, OURS, placement(change_seq=seq))

    def then(connection: Any) -> None:
        if change == "nothing":
            return
        seq = next_change_seq(connection, OURS)
        if change == "bid":
            store.insert_bid(connection, OURS, bid("bid_2", ["p2"], change_seq=seq))
        elif change == "stock":
            upsert_products(connection, OURS, [product("p1", stock=0)], seq)
        elif change == "rule":
            store.update_rule(connection, OURS, rule("rul_1", Effect(exclude=True), stage="draft", change_seq=seq))
        elif change == "pause":
            store.update_campaign(connection, OURS, campaign(status="paused", change_seq=seq))
        else:
            store.update_bid(connection, OURS, bid("bid_1", ["p1"], status="archived", change_seq=seq))

    def read(since: int = -1) -> SnapshotSource:
        return sqlite_database.read(
            lambda connection: store.read_source(connection, OURS, currency="EUR", time_zone="UTC", since=since)
        )

    maker = SnapshotMaker()
    sqlite_database.transact(first)
    maker.apply(read())
    maker.make()
    sqlite_database.transact(then)
    changed = read(maker.version)
    assert len([*changed.products, *changed.campaigns, *changed.bids, *changed.rules]) == (change != "nothing")
    maker.apply(changed)
    one, other = maker.make(), build_snapshot(read())
    assert one.names == other.names
    for name in msgspec.structs.asdict(one.columns):
        assert (getattr(one.columns, name) == getattr(other.columns, name)).all(), name


def test_the_migrated_tables_are_the_ones_named_here(database: Database) -> None:
    import sqlalchemy as sa

    inspector = sa.inspect(database.engine)
    for name, table in store.metadata.tables.items():
        assert {column["name"] for column in inspector.get_columns(name)} == set(table.columns.keys())
        assert {index["name"] for index in inspector.get_indexes(name)} == {index.name for index in table.indexes}
