"""The catalogue, profiles, links, saved audiences and the change sequence, on both databases."""

from datetime import UTC, datetime

import msgspec
import pytest

from affinity import store
from affinity.audience import Audience, SavedAudience
from affinity.catalog import Product, ProductChange
from affinity.computed import CustomerScale, Purchases
from affinity.customers import ComputedProfile, SegmentEntry
from affinity.errors import AttributeTypeDiffers
from affinity.pattern import NavigationPattern, PatternStep, SavedPattern
from affinity.profile import ProfileDraft
from affinity.signals import NO_SIGNALS, Signals
from bidder_api.database import Database

R = "shop"
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def put(database: Database, *products: Product) -> int:
    def work(connection: store.Connection) -> int:
        seq = store.next_change_seq(connection, R)
        names = {one for product in products for one in product.advertiser_ids}
        store.ensure_advertisers(connection, R, names, 1)
        store.upsert_products(connection, R, products, seq)
        return seq

    return database.transact(work)


def test_the_change_sequence_counts_each_retailer_apart(database: Database) -> None:
    assert database.read(lambda c: store.current_change_seq(c, R)) == 0
    assert [database.transact(lambda c: store.next_change_seq(c, R)) for _ in range(3)] == [1, 2, 3]
    assert database.transact(lambda c: store.next_change_seq(c, "other")) == 1
    assert database.read(lambda c: store.current_change_seq(c, R)) == 3


def test_a_product_comes_back_as_it_was_set(database: Database) -> None:
    product = Product(
        product_id="p'1\u2028é",
        title="Ünïcode 🦊",
        price_micros=10**12,
        product_type="A > B",
        advertiser_ids=["a1", "a2"],
        attributes={"size": "42", "weight": 1.5, "count": 3, "is_vegan": True},
    )
    put(database, product)
    assert database.read(lambda c: store.get_product(c, R, product.product_id)) == product
    assert database.read(lambda c: store.get_product(c, "other", product.product_id)) is None
    some = [product.product_id, "gone", product.product_id]
    assert database.read(lambda c: store.get_products(c, R, some)) == {product.product_id: product}
    assert database.read(lambda c: store.get_products(c, "other", some)) == {}
    assert database.read(lambda c: store.known_categories(c, R)) == {"A", "A > B"}
    assert database.read(lambda c: store.known_categories(c, R, ["A", "C"])) == {"A"}


def test_every_entitled_advertiser_may_bid_and_nobody_else(database: Database) -> None:
    put(database, Product(product_id="p1", advertiser_ids=["brand", "seller"]), Product(product_id="p2"))
    entitled = lambda who: database.read(lambda c: store.entitled_products(c, R, who, ["p1", "p2", "p3"]))  # noqa: E731
    assert entitled("brand") == {"p1"} == entitled("seller")
    assert entitled("stranger") == set()
    put(database, Product(product_id="p1", advertiser_ids=["seller"]))
    assert entitled("brand") == set()
    assert database.read(lambda c: store.list_advertisers(c, R)) == [("brand", "brand"), ("seller", "seller")]
    known = [
        database.read(lambda c, one=one: store.has_advertiser(c, *one))
        for one in ((R, "brand"), (R, "b"), ("x", "brand"))
    ]
    assert known == [True, False, False]
    found = database.read(lambda c: store.list_entitled_products(c, R, "seller"))
    assert [product.product_id for product in found] == ["p1"]


def test_partial_changes_apply_in_order_and_unknown_products_are_named(database: Database) -> None:
    put(database, Product(product_id="p1", price_micros=5, sale_price_micros=4, stock=9), Product(product_id="p2"))
    since = database.read(lambda c: store.current_change_seq(c, R))
    changes = [
        ProductChange(product_id="p1", price_micros=7, sale_price_micros=None),
        ProductChange(product_id="gone", stock=1),
        ProductChange(product_id="p1", stock=0),
    ]
    unknown = database.transact(lambda c: store.apply_product_changes(c, R, changes, store.next_change_seq(c, R)))
    assert unknown == ["gone"]
    changed = database.read(lambda c: store.read_products_changed(c, R, since))
    assert changed == [Product(product_id="p1", price_micros=7, stock=0)]
    assert len(database.read(lambda c: store.read_products_changed(c, R))) == 2


def test_products_are_listed_page_by_page(database: Database) -> None:
    put(database, *[Product(product_id=f"p{row:03}") for row in range(7)])
    first = database.read(lambda c: store.list_products(c, R, None, 4))
    rest = database.read(lambda c: store.list_products(c, R, first[-1].product_id, 4))
    assert [product.product_id for product in [*first, *rest]] == [f"p{row:03}" for row in range(7)]


def test_an_attribute_keeps_the_type_of_its_first_feed(database: Database) -> None:
    put(database, Product(product_id="p1", attributes={"size": 42, "weight": 1.5}))
    put(database, Product(product_id="p2", attributes={"weight": 2}))
    with pytest.raises(AttributeTypeDiffers) as refused:
        put(database, Product(product_id="p3", attributes={"size": "XL"}))
    assert refused.value.pointer == "/attributes/size"
    assert database.read(lambda c: store.get_product(c, R, "p3")) is None
    assert database.read(lambda c: store.read_attribute_types(c, R, "product")) == {"size": "int", "weight": "float"}


def test_profiles_are_read_back_since_a_change(database: Database) -> None:
    first = ProfileDraft(segments=["vip"], attributes={"age": 40})
    seq = database.transact(lambda c: store.put_profile(c, R, b"a" * 16, first, 1))
    second = ProfileDraft(segments=["new"])
    database.transact(lambda c: store.put_profile(c, R, b"b" * 16, second, 2))
    assert database.read(lambda c: store.get_profile(c, R, b"a" * 16)) == first
    assert [row.profile for row in database.read(lambda c: store.read_profiles(c, R, seq))] == [second]
    assert len(database.read(lambda c: store.read_profiles(c, R))) == 2
    assert database.read(lambda c: store.known_segments(c, R, ["vip", "none"])) == {"vip"}


def test_erasing_takes_profiles_and_links_of_the_whole_person(database: Database) -> None:
    phone, laptop, customer = b"p" * 16, b"l" * 16, b"c" * 16
    database.transact(lambda c: store.put_link(c, R, phone, customer, 1))
    database.transact(lambda c: store.put_link(c, R, laptop, customer, 1))
    database.transact(lambda c: store.put_profile(c, R, customer, ProfileDraft(), 1))
    person = database.read(lambda c: store.read_person(c, R, laptop))
    assert person == {phone, laptop, customer}
    assert database.transact(lambda c: store.delete_visitor(c, R, person)) == 3
    assert database.read(lambda c: store.read_segment_entries(c, R)) == []
    assert database.read(lambda c: store.read_links(c, R)) == {}
    assert database.read(lambda c: store.get_profile(c, R, customer)) is None
    assert database.read(lambda c: store.read_person(c, R, phone)) == {phone}


def test_entering_a_segment_is_kept_with_what_was_left_for_it(database: Database) -> None:
    def put_profile(now_ms: int, *segment_ids: str) -> None:
        profile = ProfileDraft(segments=list(segment_ids))
        database.transact(lambda c: store.put_profile(c, R, b"a" * 16, profile, now_ms))

    put_profile(1, "guest")
    put_profile(2, "vip")
    seq = database.read(lambda c: store.current_change_seq(c, R, store.VISITORS))
    put_profile(3, "vip")
    assert database.read(lambda c: store.read_segment_entries(c, R, seq)) == []
    put_profile(4, "guest", "new")
    put_profile(5, "vip", "new")
    entries = database.read(lambda c: store.read_segment_entries(c, R))
    assert {(one.segment_id, one.from_segment_id): one.entered_at_ms for one in entries} == {
        ("guest", ""): 4, ("guest", "vip"): 4, ("new", ""): 4, ("new", "vip"): 4, ("vip", ""): 5, ("vip", "guest"): 5,
    }  # fmt: skip


def test_a_base_that_is_imported_enters_nothing_but_the_next_time_does(database: Database) -> None:
    def put_profiles(now_ms: int, *segment_ids: str) -> None:
        profile = ProfileDraft(segments=list(segment_ids))
        database.transact(lambda c: store.put_profiles(c, R, {b"a" * 16: profile, b"b" * 16: profile}, now_ms))

    put_profiles(1, "guest")
    assert database.read(lambda c: store.read_segment_entries(c, R)) == []
    put_profiles(2, "guest", "vip")
    entries = database.read(lambda c: store.read_segment_entries(c, R))
    assert {one.pseudonym for one in entries} == {b"a" * 16, b"b" * 16}
    assert {(one.segment_id, one.from_segment_id) for one in entries} == {("vip", "")}


def test_what_is_computed_is_read_back_since_a_change_and_erased_with_the_visitor(database: Database) -> None:
    phone, other = b"p" * 16, b"o" * 16
    seen = database.transact(lambda c: store.begin_computation(c, R))
    first = ComputedProfile(through_ms=5, purchases=Purchases(order_count=2), segments={"lifecycle": "new"})
    entries = [SegmentEntry(phone, "lifecycle:new", "", 5)]
    assert database.read(lambda c: store.read_customer_segments(c, R)) is None
    assert database.transact(lambda c: store.put_computed_profiles(c, R, {phone: first, other: first}, entries, seen))
    database.transact(lambda c: store.finish_computation(c, R, CustomerScale(promotion_share=0.5), 5))
    seq = database.read(lambda c: store.current_change_seq(c, R, store.VISITORS))
    changes = database.read(lambda c: store.read_visitor_changes(c, R, -1))
    assert (dict(changes.computed), changes.entries) == ({phone: first, other: first}, entries)
    assert changes.scale == CustomerScale(promotion_share=0.5)
    assert database.read(lambda c: store.read_visitor_changes(c, R, seq)).computed == []
    database.transact(lambda c: store.delete_visitor(c, R, {phone}))
    changes = database.read(lambda c: store.read_visitor_changes(c, R, -1))
    assert (dict(changes.computed), changes.entries) == ({other: first}, [])
    later = ComputedProfile(through_ms=6, purchases=Purchases())
    assert not database.transact(lambda c: store.put_computed_profiles(c, R, {phone: later}, [], seen))
    assert database.read(lambda c: store.read_customer_segments(c, R)) == {other: {"lifecycle": "new"}}
    database.transact(lambda c: store.finish_computation(c, R, CustomerScale(), 6))
    assert database.read(lambda c: store.read_computed_profiles(c, R)) == []  # nobody bought anything any more


def test_a_link_is_undone_once(database: Database) -> None:
    database.transact(lambda c: store.put_link(c, R, b"v" * 16, b"c" * 16, 1))
    assert database.transact(lambda c: store.delete_link(c, R, b"v" * 16))
    assert not database.transact(lambda c: store.delete_link(c, R, b"v" * 16))


def test_saved_audiences_and_patterns_belong_to_their_advertiser(database: Database) -> None:
    audience = SavedAudience(
        audience_id="aud_1",
        advertiser_id="a1",
        name="VIPs",
        audience=Audience(not_=Audience(segment="vip")),
        status="active",
        created_at=NOW,
        updated_at=NOW,
        change_seq=1,
    )
    pattern = SavedPattern(
        pattern_id="pat_1",
        advertiser_id="a1",
        name="Twice",
        navigation_pattern=NavigationPattern(within="session", steps=[PatternStep(action="view_item", at_least=2)]),  # type: ignore[arg-type]
        status="active",
        created_at=NOW,
        updated_at=NOW,
        change_seq=1,
    )
    database.transact(lambda c: store.insert_audience(c, R, audience))
    database.transact(lambda c: store.insert_pattern(c, R, pattern))
    assert database.read(lambda c: store.get_audience(c, R, "aud_1")) == audience
    assert database.read(lambda c: store.get_audience(c, R, "aud_1", "a2")) is None
    kept = database.read(lambda c: store.get_pattern(c, R, "pat_1", "a1"))
    assert msgspec.to_builtins(kept) == msgspec.to_builtins(pattern)
    assert database.transact(lambda c: store.archive_audience(c, R, "aud_1", 2))
    assert not database.transact(lambda c: store.archive_audience(c, R, "aud_1", 3))
    assert database.transact(lambda c: store.archive_pattern(c, R, "pat_1", 2))
    assert database.read(lambda c: store.list_audiences(c, R)) == []
    archived = database.read(lambda c: store.list_audiences(c, R, "a1", include_archived=True))
    assert [one.status for one in archived] == ["archived"]
    assert database.read(lambda c: store.list_patterns(c, R, "a2", include_archived=True)) == []


def test_availability_is_kept_where_it_changes_and_what_is_over_is_forgotten(database: Database) -> None:
    def note(now_ms: int, **is_available: bool) -> None:
        database.transact(lambda c: store.note_availability(c, R, is_available, now_ms))

    def kept(retailer_id: str = R) -> list[tuple[str, int, bool]]:
        return database.read(lambda c: list(store.read_availability(c, retailer_id)))

    note(10, p1=True, p2=False)
    note(20, p1=True, p2=False)
    note(30, p1=False)
    note(40, p1=True, p2=True)
    assert kept() == [("p1", 10, True), ("p1", 30, False), ("p1", 40, True), ("p2", 10, False), ("p2", 40, True)]
    assert kept("other") == []
    note(40, p1=False)  # twice in a millisecond: the last stands
    assert ("p1", 40, False) in kept()
    assert database.transact(lambda c: store.forget_availability(c, R, 35)) == 1
    assert kept() == [("p1", 30, False), ("p1", 40, False), ("p2", 10, False), ("p2", 40, True)]


def test_signals_are_replaced_whole_and_read_when_they_changed(database: Database) -> None:
    signals = Signals(computed_at_ms=1, from_ms=2, until_ms=3, best_sellers=["p1"], category_trends={"A": "rising"})
    assert database.read(lambda c: store.read_signals(c, R)) is None
    database.transact(lambda c: store.put_signals(c, R, signals, 5))
    assert database.read(lambda c: store.read_signals(c, R)) == signals
    assert database.read(lambda c: store.read_signals(c, R, 4)) == signals
    assert database.read(lambda c: store.read_signals(c, R, 5)) is None
    assert database.read(lambda c: store.read_signals(c, "other")) is None
    database.transact(lambda c: store.put_signals(c, R, NO_SIGNALS, 6))
    assert database.read(lambda c: store.read_signals(c, R, 5)) == NO_SIGNALS
