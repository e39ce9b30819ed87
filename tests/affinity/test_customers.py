"""Customers computed from orders and navigation: each purchase once, each person once, each step between segments."""

from pathlib import Path

import pytest

from affinity.catalog import Product
from affinity.computed import (
    DAY_MS,
    CustomerScale,
    Purchases,
    clv_micros,
    clv_tier,
    lifecycle,
    measure_customers,
    promotion_lift,
    promotion_share,
    rfm_class,
)
from affinity.customers import (
    FROM_ANYWHERE,
    Computation,
    ComputedProfile,
    NavigationPurchases,
    PurchaseLine,
    SegmentEntry,
    compute_customers,
    entries_between,
    read_purchases,
)
from affinity.navigation_log import LogLine, NavigationLog
from affinity.record import read_facts

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
PHONE, LAPTOP, CUSTOMER, OTHER = b"p" * 16, b"l" * 16, b"c" * 16, b"o" * 16
FACTS = read_facts(
    [
        Product(product_id="p", brand="X", product_type="A", price_micros=10),
        Product(product_id="q", brand="Y", product_type="A", price_micros=20),
    ]
)


def line(pseudonym: bytes, days: float, product_id: str = "p", quantity: int = 1, price: int = 10, order_id: str = ""):
    return PurchaseLine(pseudonym, NOW_MS - round(days * DAY_MS), product_id, quantity, price, order_id)


def compute(lines: list[PurchaseLine], links=None, before=None, now_ms: int = NOW_MS) -> Computation:
    return compute_customers(lines, links or {}, before, FACTS, now_ms)


def test_a_web_order_told_twice_counts_once() -> None:
    lines = [
        line(PHONE, 10, order_id="o1"),
        line(PHONE, 10 - 0.5 / 24, price=10),  # half an hour later, by navigation
        line(PHONE, 10 - 2 / 24, price=10),  # two hours later: another
        line(PHONE, 10, "q"),  # another product: not that order's
    ]
    purchases = compute(lines).profiles[PHONE].purchases
    assert (purchases.order_count, purchases.amount_micros) == (2, 30)
    assert compute(lines[:2]).profiles[PHONE].purchases.order_count == 1


def test_an_order_of_the_customer_is_the_devices_purchase_too_as_long_as_they_are_linked() -> None:
    lines = [line(CUSTOMER, 10, order_id="o1"), line(PHONE, 10)]
    linked = compute(lines, {PHONE: CUSTOMER})
    assert set(linked.profiles) == {CUSTOMER}
    assert linked.profiles[CUSTOMER].purchases.order_count == 1
    parted = compute(lines)
    assert parted.profiles[PHONE].purchases.order_count == parted.profiles[CUSTOMER].purchases.order_count == 1


def test_devices_add_up_and_the_person_has_the_segments() -> None:
    lines = [line(PHONE, 200), line(LAPTOP, 10), line(OTHER, 5)]
    found = compute(lines, {PHONE: CUSTOMER, LAPTOP: CUSTOMER})
    assert found.profiles[CUSTOMER].segments["lifecycle"] == "active"
    assert found.profiles[OTHER].segments["lifecycle"] == "new"
    assert found.profiles[PHONE].segments == {}
    assert found.profiles[CUSTOMER].purchases == Purchases()
    assert found.profiles[PHONE].purchases.order_count == 1
    assert found.scale.order_count  # of two buyers, not of three


def test_what_is_given_back_is_neither_amount_nor_unit() -> None:
    lines = [
        line(PHONE, 20, "p", 2, order_id="o1"),
        line(PHONE, 18, "p", -1, order_id="o1"),
        line(PHONE, 18, "q", -1, order_id="gone"),  # of an order nobody knows
    ]
    purchases = compute(lines).profiles[PHONE].purchases
    assert (purchases.order_count, purchases.amount_micros, purchases.units) == (1, 10, 1)
    assert purchases.last_order_status == "partly_returned"
    assert purchases.last_at_ms == NOW_MS - 20 * DAY_MS
    whole = compute([*lines, line(PHONE, 17, "p", -1, order_id="o1")]).profiles[PHONE].purchases
    assert whole.last_order_status == "returned"
    later = compute([*lines, line(PHONE, 1, "q", order_id="o2")]).profiles[PHONE].purchases
    assert later.last_order_status == "kept"


def test_promotion_share_and_lift_are_of_units_with_a_known_price() -> None:
    lines = [line(PHONE, 9, price=8), line(PHONE, 8, price=10), line(OTHER, 7, price=10), line(OTHER, 6, price=10)]
    found = compute(lines)
    phone = found.profiles[PHONE].purchases
    assert promotion_share(phone) == 0.5
    assert found.scale.promotion_share == 0.25
    assert promotion_lift(phone, found.scale) == 2.0
    assert promotion_share(Purchases()) is promotion_lift(Purchases(), found.scale) is None


def test_orders_count_only_for_who_consented_and_the_customer_comes_first() -> None:
    navigation = NavigationPurchases([], {PHONE, CUSTOMER})
    rows = [
        (PHONE, CUSTOMER, "o1", 1, "p", 1, 10),
        (PHONE, OTHER, "o2", 2, "p", 1, 10),  # nothing says that OTHER consented
        (None, OTHER, "o3", 3, "p", 1, 10),
    ]
    lines, left_out = navigation.with_orders(rows, navigation.pseudonyms)
    assert [one.pseudonym for one in lines] == [CUSTOMER, PHONE]
    assert left_out == 1


def test_the_log_is_read_whole_and_an_event_sent_twice_once(tmp_path: Path) -> None:
    log = NavigationLog(tmp_path, 100)
    log.append([LogLine(PHONE, 5, "purchase", 7, "p", None, 10, 3), LogLine(LAPTOP, 6, "view_item", 8, "p")], NOW_MS)
    log.append([LogLine(PHONE, 5, "purchase", 7, "p", None, 10, 3), LogLine(OTHER, 6, "served", 0, "bid")], NOW_MS)
    found = read_purchases(log)
    assert found.lines == [PurchaseLine(PHONE, 5, "p", 3, 10)]
    assert found.pseudonyms == {PHONE, LAPTOP}  # a fill alone says nothing of consent


def test_the_first_computation_records_no_entry_and_later_ones_each_step() -> None:
    lines = [line(PHONE, 100), line(PHONE, 60)]
    first = compute(lines)
    assert first.entries == []
    before = {PHONE: first.profiles[PHONE].segments}
    assert before[PHONE]["lifecycle"] == "active"
    later_ms = NOW_MS + 31 * DAY_MS
    entries = compute(lines, before=before, now_ms=later_ms).entries
    assert SegmentEntry(PHONE, "lifecycle:lapsing", "lifecycle:active", later_ms) in entries
    assert SegmentEntry(PHONE, "lifecycle:lapsing", FROM_ANYWHERE, later_ms) in entries
    assert compute(lines, before=before).entries == []
    newcomer = compute([*lines, line(OTHER, 1)], before=before).entries
    assert SegmentEntry(OTHER, "lifecycle:new", "lifecycle:prospect", NOW_MS) in newcomer


def test_a_visitor_who_is_linked_later_stays_where_they_stood() -> None:
    lines = [line(PHONE, 100), line(PHONE, 60)]
    before = {PHONE: compute(lines).profiles[PHONE].segments}
    assert compute(lines, {PHONE: CUSTOMER}, before).entries == []


def test_crm_segments_are_entered_from_those_left() -> None:
    entries = entries_between(PHONE, ["a", "b"], ["b", "c"], 5)
    assert entries == [SegmentEntry(PHONE, "c", FROM_ANYWHERE, 5), SegmentEntry(PHONE, "c", "a", 5)]
    assert entries_between(PHONE, ["a"], ["a"], 5) == []


@pytest.mark.parametrize(
    ("first_days", "last_days", "stage"),
    [
        (30, 30, "new"),
        (31, 5, "active"),
        (200, 90, "active"),
        (200, 91, "lapsing"),
        (200, 180, "lapsing"),
        (300, 181, "lost"),
    ],
)
def test_the_stages_of_a_customer_by_days(first_days: int, last_days: int, stage: str) -> None:
    purchases = Purchases(
        order_count=2, first_at_ms=NOW_MS - first_days * DAY_MS, last_at_ms=NOW_MS - last_days * DAY_MS
    )
    assert lifecycle(purchases, NOW_MS) == stage
    assert lifecycle(Purchases(), NOW_MS) == "prospect"


def buyer(order_count: int, last_days: float, amount: int) -> Purchases:
    purchases = Purchases()
    for number in range(order_count):
        purchases.note(NOW_MS - round((last_days + 10 * (order_count - 1 - number)) * DAY_MS), amount)
    return purchases


def test_classes_are_fifths_of_the_buyers_and_one_order_is_no_frequency() -> None:
    buyers = [buyer(1, 300 - number, 100) for number in range(80)] + [
        buyer(5 + number, 20 - number, 1000) for number in range(20)
    ]
    scale = measure_customers([*buyers, Purchases()])
    classes = [rfm_class(one, scale) for one in buyers]
    assert classes[0] == "lost"
    assert classes[-1] == "champion"
    assert classes.count("champion") == 20
    assert not {"loyal", "champion", "cannot_lose"} & set(classes[:80])
    recencies = [sum(one.last_at_ms >= bound for bound in scale.last_at_ms) for one in buyers]
    assert [recencies.count(fifth) for fifth in range(5)] == [20] * 5
    amounts = measure_customers([Purchases(order_count=1, amount_micros=one) for one in range(100)]).amount_micros
    assert amounts == (19, 39, 59, 79)
    assert rfm_class(Purchases(), scale) is None


def test_clv_tiers_take_the_best_twentieth_and_age_with_the_orders() -> None:
    buyers = [buyer(1 + number // 10, 5, 100 + number) for number in range(100)]
    scale = measure_customers(buyers)
    tiers = [clv_tier(one, scale) for one in buyers]
    assert [tiers.count(tier) for tier in ("low", "medium", "high", "top")] == [50, 30, 15, 5]
    assert tiers[-1] == "top"
    assert clv_tier(Purchases(), scale) is None
    now = clv_micros(buyers[-1], scale, NOW_MS)
    assert clv_micros(buyers[-1], scale, NOW_MS + 180 * DAY_MS) == pytest.approx(now / 2, abs=1)
    assert now > clv_micros(buyers[0], scale, NOW_MS) > 0
    weekly = Purchases()
    for week in range(520):
        weekly.note(NOW_MS - week * 7 * DAY_MS, 100)
    # A steady customer is expected to go on: 52 weeks of 100, where halving knows ten years well enough.
    assert clv_micros(weekly, CustomerScale(order_value_micros=100), NOW_MS) == pytest.approx(5200, rel=0.03)


def test_a_computed_profile_keeps_what_was_ordered_last() -> None:
    lines = [
        line(PHONE, 9, order_id="o1"),
        line(PHONE, 3, order_id="o2"),
        line(PHONE, 5, "q", order_id="o3"),
        line(PHONE, 2, "q", -1, order_id="o3"),
        line(PHONE, 1, "q"),  # by navigation: the record knows
    ]
    found: ComputedProfile = compute(lines).profiles[PHONE]
    assert found.bought == {"q": NOW_MS - 5 * DAY_MS, "p": NOW_MS - 3 * DAY_MS}
    assert found.through_ms == NOW_MS
    many = compute([line(PHONE, day, f"p{day}", order_id=f"o{day}") for day in range(1, 101)]).profiles[PHONE]
    assert list(many.bought) == [f"p{day}" for day in range(64, 0, -1)]
