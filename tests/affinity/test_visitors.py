"""Visitors: bounded, replayed from the log, linked and unlinked exactly, erased wholly."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from affinity.audience import Audience
from affinity.catalog import Product
from affinity.computed import CustomerScale, Purchases
from affinity.customers import ComputedProfile, SegmentEntry
from affinity.errors import EventInFuture, EventTooOld, LinkRefused
from affinity.model import neutral_model
from affinity.navigation import Action, Consent, NavigationBatch, NavigationEvent
from affinity.navigation_log import NavigationLog
from affinity.pattern import NavigationPattern, PatternStep
from affinity.profile import ProfileDraft
from affinity.pseudonym import NO_VISITOR, Pseudonymizer
from affinity.record import VisitorRecord, read_facts
from affinity.settings import Settings
from affinity.targets import Targets, compile_targets, has_bit
from affinity.visitors import VisitorStore

NOW_MS = 1_700_000_000_000
KEY = b"k" * 32
CONSENT = Consent(personalised=True)
PRODUCTS = [
    Product(product_id=f"p{row}", brand=f"B{row % 2}", product_type="A > B", price_micros=5) for row in range(9)
]
TWICE = NavigationPattern(within="session", steps=[PatternStep(action=Action.VIEW_ITEM, category_id="A", at_least=2)])
VIP = Audience(segment="vip")
TARGETS = compile_targets([Audience(segment="vip")], [TWICE])
MODEL = neutral_model([product.product_id for product in PRODUCTS])


def store(folder: Path | None = None, **settings: int) -> VisitorStore:
    log = None if folder is None else NavigationLog(folder, 500)
    return VisitorStore(Settings(**settings), Pseudonymizer(KEY), log, read_facts(PRODUCTS))


def event(visitor_id: str, seconds: float = 0, action: Action = Action.VIEW_ITEM, **more: object) -> NavigationEvent:
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC) + timedelta(seconds=seconds)
    return NavigationEvent(
        visitor_id=visitor_id,
        action=action,
        occurred_at=at,
        **{"product_id": "p1", **more},  # type: ignore[arg-type]
    )


def post(visitors: VisitorStore, *events: NavigationEvent, consent: Consent = CONSENT) -> tuple[int, int]:
    recorded = visitors.post(NavigationBatch(events=list(events), consent=consent), NOW_MS)
    return recorded.recorded, recorded.duplicates


def state(record: VisitorRecord | None) -> object:
    """Return what must be equal between two records of the same past."""
    assert record is not None
    purchases = record.purchases
    return (
        list(record.events),
        record.session_began_ms,
        {name: round(weight / record.category_total, 9) for name, weight in sorted(record.category_weight.items())},
        sorted(record.brand_weight),
        record.bought_product,
        record.bought_category,
        (purchases.order_count, purchases.first_at_ms, purchases.last_at_ms, purchases.amount_micros),
        sorted(record.dismissed),
        record.served_at_ms,
    )


def test_an_events_effect_is_in_the_next_view() -> None:
    visitors = store()
    assert post(visitors, event("v"), event("v", 1)) == (2, 0)
    view = visitors.view("v", CONSENT, TARGETS, MODEL, NOW_MS + 1000)
    assert has_bit(view.pattern_bits, 0)
    assert view.pseudonym == visitors.pseudonym("v")
    other = visitors.view("w", CONSENT, TARGETS, MODEL, NOW_MS + 1000)
    assert not has_bit(other.pattern_bits, 0)


def test_an_event_takes_category_and_brand_from_the_catalogue() -> None:
    visitors = store()
    post(visitors, event("v"), event("v", 1, product_id="unknown", category_id="C"))
    record = visitors.record(visitors.pseudonym("v"))
    assert record is not None
    assert [(one.category_id, one.brand) for one in record.events] == [("A > B", "B1"), ("C", None)]


def test_without_consent_nothing_is_kept_and_the_view_is_anonymous(tmp_path: Path) -> None:
    visitors = store(tmp_path)
    assert post(visitors, event("v"), consent=Consent()) == (0, 0)
    assert len(visitors) == 0
    assert list(tmp_path.iterdir()) == []
    post(visitors, event("v"), event("v", 1))
    view = visitors.view("v", Consent(), TARGETS, MODEL, NOW_MS)
    assert view.pseudonym == NO_VISITOR
    assert not view.has_consent
    assert not view.pattern_bits.any()


def test_an_event_sent_twice_counts_once() -> None:
    visitors = store()
    same = event("v", event_id="e1")
    assert post(visitors, same, same) == (1, 1)
    assert post(visitors, same) == (0, 1)
    assert post(visitors, event("w", event_id="e1")) == (1, 0)


def test_the_window_of_event_ids_is_bounded() -> None:
    visitors = store(event_id_window=20)
    for number in range(100):
        post(visitors, event("v", event_id=f"e{number}"))
    assert sum(len(half) for half in visitors._events_seen) <= 20
    assert post(visitors, event("v", event_id="e99")) == (0, 1)


@pytest.mark.parametrize(("seconds", "refusal"), [(301, EventInFuture), (-86_401, EventTooOld)])
def test_an_event_of_another_day_refuses_the_batch_whole(
    tmp_path: Path, seconds: int, refusal: type[Exception]
) -> None:
    visitors = store(tmp_path)
    with pytest.raises(refusal) as refused:
        post(visitors, event("v"), event("v", seconds))
    assert refused.value.pointer == "/events/1/occurred_at"  # type: ignore[attr-defined]
    assert len(visitors) == 0
    assert list(tmp_path.iterdir()) == []
    assert post(visitors, event("v", 300), event("v", -86_400)) == (2, 0)


def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(1)
    visitors = store(tmp_path)
    for number in range(60):
        post(
            visitors,
            event(
                f"v{number % 4}",
                rng.randrange(-5_000, 200),
                rng.choice([Action.VIEW_ITEM, Action.PURCHASE, Action.DISMISS]),
                product_id=f"p{rng.randrange(9)}",
                event_id=f"e{number}",
            ),
        )
    visitors.note_served(visitors.pseudonym("v1"), "bid_1", NOW_MS)
    visitors.flush(NOW_MS)
    again = store(tmp_path)  # the first one is not closed: it was killed
    assert again.load(NOW_MS) == 61
    for name in ("v0", "v1", "v2", "v3"):
        pseudonym = visitors.pseudonym(name)
        assert state(again.record(pseudonym)) == state(visitors.record(pseudonym))
    assert post(again, event("v0", event_id="e0")) == (0, 1)
    assert post(again, event("v0", event_id="e60")) == (1, 0)
    assert store(tmp_path).load(NOW_MS) == 62


def test_no_raw_id_reaches_the_disk(tmp_path: Path) -> None:
    visitors = store(tmp_path)
    post(visitors, event("visitor-secret-7", event_id="event-secret-7"))
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"view_item" in raw
    assert b"secret" not in raw


def test_a_running_server_picks_up_what_is_imported(tmp_path: Path) -> None:
    visitors = store(tmp_path)
    post(visitors, event("v"))
    other = store()
    lines = [other.line_of(event("w", -number * 100_000), NOW_MS - number * 100_000_000) for number in range(10)]
    assert visitors.follow(100, NOW_MS) == 0
    assert visitors.log is not None
    visitors.log.write_import(lines, NOW_MS, "x")
    assert visitors.follow(4, NOW_MS) == 4
    assert visitors.follow(100, NOW_MS) == 6
    record = visitors.record(visitors.pseudonym("w"))
    assert record is not None
    assert [one.at_ms for one in record.events] == sorted(line.at_ms for line in lines)


def test_the_least_recently_seen_visitor_goes_first() -> None:
    visitors = store(visitor_count_max=3)
    for name in ("a", "b", "c", "a", "d"):
        post(visitors, event(name))
    assert len(visitors) == 3
    assert visitors.record(visitors.pseudonym("b")) is None
    assert visitors.record(visitors.pseudonym("a")) is not None


def test_one_visitors_state_is_bounded_however_much_they_do() -> None:
    visitors = store(visitor_event_count_max=20)
    for number in range(3_000):
        post(
            visitors,
            event("v", number / 100, Action.PURCHASE, product_id=f"x{number}", category_id=f"C{number}"),
            event("v", number / 100, Action.DISMISS, product_id=f"x{number}"),
        )
        visitors.note_served(visitors.pseudonym("v"), f"bid_{number}", NOW_MS + number)
    record = visitors.record(visitors.pseudonym("v"))
    assert record is not None
    assert len(record.events) == 20
    assert max(map(len, (record.category_weight, record.bought_product, record.dismissed, record.served_at_ms))) <= 256


def test_what_was_shown_rendered_and_clicked_is_there_again_after_a_kill(tmp_path: Path) -> None:
    visitors = store(tmp_path)
    who = visitors.pseudonym("v")
    post(visitors, event("v"))
    for slot in (1, 2, 3):
        visitors.note_served(who, "bid_1" if slot == 1 else "", NOW_MS, "top", slot)
    visitors.note_rendered(who, NOW_MS, "top", 1)
    visitors.note_rendered(who, NOW_MS, "top", 2)
    visitors.note_clicked(who, "top", NOW_MS + 5)
    visitors.flush(NOW_MS)  # the process ends here, without another word
    again = store(tmp_path)
    again.load(NOW_MS)
    for one in (visitors, again):
        record = one.record(who)
        assert record is not None
        assert (record.shown["top"].at_ms, record.shown["top"].clicked_at_ms) == ([NOW_MS] * 3, NOW_MS + 5)
        assert record.unrendered == {(NOW_MS, "top", 3): ""}
        one.view("v", CONSENT, TARGETS, MODEL, NOW_MS + 1_800_001)
        assert record.shown["top"].at_ms == [NOW_MS] * 2
        assert record.served_at_ms == {"bid_1": [NOW_MS]}


def test_what_was_given_back_stays_so_while_others_are_looked_at() -> None:
    visitors = store(visitor_ready_count_max=1)
    who = visitors.pseudonym("v")
    visitors.note_served(who, "bid_1", NOW_MS, "top", 1)
    for _ in range(3):
        post(visitors, event("w"))
        visitors.record(visitors.pseudonym("w"))
        view = visitors.view("v", CONSENT, TARGETS, MODEL, NOW_MS + 1_800_001)
        assert view.seen_at_ms == {"bid_1": []}
    assert visitors.given_back_count == 1


def test_fills_of_one_visitor_are_bounded_and_the_newest_stay() -> None:
    record = VisitorRecord(b"v")
    for number in range(2_000):
        record.note_served(f"bid_{number % 90}", number, f"place_{number % 70}", 1)
        record.note_served("often", number, "top", 1)
    assert len(record.served_at_ms["often"]) == 1_000
    assert sum(map(len, record.served_at_ms.values())) <= 4_000
    assert record.shown["top"].at_ms == list(range(1_800, 2_000))
    assert len(record.shown) <= 64
    assert len(record.unrendered) <= 256
    assert record.give_back(1_990) > 0
    assert record.shown["top"].at_ms[-10:] == list(range(1_990, 2_000))


# --- one customer, several devices -------------------------------------------------------------------------------


def test_linked_devices_are_known_together_and_parted_again_exactly() -> None:
    visitors = store()
    phone, laptop, customer = (visitors.pseudonym(name) for name in ("phone", "laptop", "c-1"))
    post(visitors, event("phone", 0), event("laptop", 1, Action.PURCHASE, product_id="p2"))
    alone = state(visitors.record(phone))
    visitors.link(phone, customer)
    visitors.link(laptop, customer)
    post(visitors, event("phone", 2))
    together = visitors.record(laptop)
    assert together is visitors.record(phone) is visitors.record(customer)
    assert together is not None
    assert len(together.events) == 3
    assert has_bit(visitors.view("laptop", CONSENT, TARGETS, MODEL, NOW_MS + 2000).pattern_bits, 0)
    assert visitors.view("laptop", CONSENT, TARGETS, MODEL, NOW_MS).person_pseudonym == customer
    assert visitors.unlink(phone)
    post(visitors, event("laptop", 3, product_id="p3"))
    only_phone = store()
    post(only_phone, event("phone", 0), event("phone", 2))
    assert state(visitors.record(phone)) == state(only_phone.record(phone)) != alone
    parted = visitors.record(customer)
    assert parted is not None
    assert [one.product_id for one in parted.events] == ["p2", "p3"]
    assert not visitors.unlink(phone)


def test_devices_of_a_customer_share_profile_and_counters() -> None:
    visitors = store(audience_size_min=1)
    phone, laptop, customer = (visitors.pseudonym(name) for name in ("phone", "laptop", "c-1"))
    visitors.put_profile(customer, ProfileDraft(segments=["vip"]))
    visitors.link(phone, customer)
    visitors.link(laptop, customer)
    assert has_bit(visitors.view("phone", CONSENT, TARGETS, MODEL, NOW_MS).audience_bits, 0)
    visitors.note_served(phone, "bid_1", NOW_MS)
    assert visitors.view("laptop", CONSENT, TARGETS, MODEL, NOW_MS).seen_at_ms == {"bid_1": [NOW_MS]}
    visitors.put_profile(laptop, ProfileDraft(segments=["other"]))
    assert visitors.view("phone", CONSENT, TARGETS, MODEL, NOW_MS).segments == {"other"}
    visitors.unlink(phone)
    assert visitors.view("phone", CONSENT, TARGETS, MODEL, NOW_MS).segments == frozenset()


@pytest.mark.parametrize(
    ("links", "code"),
    [
        ([("v", "v")], "link_to_itself"),
        ([("v", "c"), ("v", "d")], "link_exists"),
        ([("v", "c"), ("c", "d")], "link_chained"),
        ([("v", "c"), ("w", "v")], "link_chained"),
    ],
)
def test_links_do_not_chain(links: list[tuple[str, str]], code: str) -> None:
    visitors = store()
    *earlier, (last, last_customer) = links
    for visitor_id, customer_id in earlier:
        visitors.link(visitors.pseudonym(visitor_id), visitors.pseudonym(customer_id))
    with pytest.raises(LinkRefused) as refused:
        visitors.link(visitors.pseudonym(last), visitors.pseudonym(last_customer))
    assert refused.value.code == code


def test_forgetting_takes_every_device() -> None:
    visitors = store()
    phone, customer = visitors.pseudonym("phone"), visitors.pseudonym("c-1")
    post(visitors, event("phone"))
    visitors.put_profile(customer, ProfileDraft(segments=["vip"]))
    visitors.link(phone, customer)
    visitors.forget(visitors.devices(phone))
    assert visitors.record(phone) is None
    assert visitors.profile(phone) is None
    assert visitors.devices(phone) == [phone]
    assert len(visitors) == 0


def test_an_import_under_way_does_not_bring_a_forgotten_visitor_back(tmp_path: Path) -> None:
    visitors = store(tmp_path)
    lines = [visitors.line_of(event("v", number), NOW_MS + number) for number in range(10)]
    assert visitors.log is not None
    visitors.log.write_import(lines, NOW_MS, "x")
    visitors.follow(5, NOW_MS)
    visitors.forget([visitors.pseudonym("v")])
    visitors.follow(100, NOW_MS)
    assert visitors.record(visitors.pseudonym("v")) is None


# --- what a caller sends along; counting -------------------------------------------------------------------------


def test_navigation_sent_along_counts_for_one_auction_only() -> None:
    visitors = store()
    post(visitors, event("v"))
    sent = [event("v"), event("v", 1)]
    view = visitors.view("v", CONSENT, TARGETS, MODEL, NOW_MS + 1000, sent)
    assert has_bit(view.pattern_bits, 0)
    assert not has_bit(visitors.view("v", CONSENT, TARGETS, MODEL, NOW_MS + 1000).pattern_bits, 0)
    nobody = visitors.view(None, CONSENT, TARGETS, MODEL, NOW_MS + 1000, sent)
    assert has_bit(nobody.pattern_bits, 0)
    assert len(visitors) == 1


def computed(through_s: float, *, order_count: int = 3, product_id: str = "p2") -> ComputedProfile:
    at_ms = NOW_MS + round(through_s * 1000)
    purchases = Purchases(order_count=order_count, first_at_ms=1, last_at_ms=at_ms - 1, amount_micros=30)
    return ComputedProfile(through_ms=at_ms, purchases=purchases, bought={product_id: at_ms - 1})


def test_a_record_rests_on_what_was_computed_and_adds_what_was_bought_since(tmp_path: Path) -> None:
    visitors = store(tmp_path)
    pseudonym = visitors.pseudonym("v")
    post(visitors, event("v", -500, Action.PURCHASE, price_micros=5), event("v", -200, Action.PURCHASE, price_micros=7))
    visitors.put_computed([(pseudonym, computed(-400))])

    def check(visitors: VisitorStore, order_count: int, amount_micros: int) -> None:
        record = visitors.record(pseudonym)
        assert record is not None
        assert (record.purchases.order_count, record.purchases.amount_micros) == (order_count, amount_micros)
        assert record.bought_product["p2"]
        assert record.bought_brand["B0"] == NOW_MS - 400_001

    check(visitors, 3 + 1, 30 + 7)  # the earlier purchase is in what was computed
    visitors.put_computed([(pseudonym, computed(-400))])  # told again
    check(visitors, 3 + 1, 30 + 7)
    post(visitors, event("v", -450, Action.PURCHASE, price_micros=9))  # late: the next computation finds it
    check(visitors, 3 + 1, 30 + 7)
    post(visitors, event("v", 200, Action.PURCHASE, price_micros=9))
    check(visitors, 3 + 2, 30 + 7 + 9)

    after_a_kill = store(tmp_path)
    after_a_kill.put_computed([(pseudonym, computed(-400))])
    after_a_kill.load(NOW_MS)
    check(after_a_kill, 3 + 2, 30 + 7 + 9)
    forgetful = store(tmp_path, visitor_count_max=1)
    forgetful.put_computed([(pseudonym, computed(-400))])
    forgetful.load(NOW_MS)
    post(forgetful, event("w"))
    assert len(forgetful) == 1
    check(forgetful, 3, 30)


def test_a_packed_record_rests_on_what_was_computed_and_adds_what_was_bought_since(tmp_path: Path) -> None:
    def begin() -> VisitorStore:
        return VisitorStore(
            Settings(visitor_ready_count_max=1, visitor_event_count_max=2),
            Pseudonymizer(KEY),
            NavigationLog(tmp_path / "navigation", 10**6),
            read_facts(PRODUCTS),
            tmp_path / "visitors.records",
        )

    def order_count(visitors: VisitorStore) -> int:
        assert visitors.record(visitors.pseudonym("w"))  # so that the other one is packed
        assert visitors.records.get_ready(pseudonym) is None
        record = visitors.record(pseudonym)
        assert record is not None
        assert record.bought_product["p2"]
        return record.purchases.order_count

    visitors = begin()
    pseudonym = visitors.pseudonym("v")
    post(visitors, event("w"), event("v", -500, Action.PURCHASE))
    assert visitors.record(pseudonym)
    assert visitors.record(visitors.pseudonym("w"))  # packed, with nothing that waits
    visitors.put_computed([(pseudonym, computed(-400))])
    for _ in range(2):
        assert order_count(visitors) == 3
    assert visitors.record(visitors.pseudonym("w"))
    post(visitors, event("v", -480, Action.PURCHASE), event("v", -200, Action.PURCHASE))
    assert order_count(visitors) == 3 + 1  # the late one is for the next computation
    for seconds in (-190, -180, -170):  # so many that the purchase is no longer among the events kept
        post(visitors, event("v", seconds))
        assert order_count(visitors) == 3 + 1
    assert visitors.keep(NOW_MS)
    again = begin()
    again.put_computed([(pseudonym, computed(-400))])
    assert again.load(NOW_MS) == 0
    assert order_count(again) == 3 + 1
    again.put_computed([(pseudonym, computed(-100, order_count=9))])
    assert order_count(again) == 9
    post(again, event("v", -20))
    list(again.drop_before(NOW_MS - 50_000))  # the purchases go, and not for as long as the record stands ready alone
    for _ in range(2):
        assert again.record(again.pseudonym("w"))
        record = again.record(pseudonym)
        assert record is not None
        assert record.purchases.order_count == 0


def test_what_was_computed_of_devices_adds_up_and_is_parted_again() -> None:
    visitors = store()
    phone, customer = visitors.pseudonym("phone"), visitors.pseudonym("c")
    visitors.put_computed([(phone, computed(-30)), (customer, computed(-30, order_count=1))])
    visitors.put_entries([SegmentEntry(phone, "vip", "", 5), SegmentEntry(customer, "vip", "", 7)])
    visitors.link(phone, customer)
    both = visitors.record(phone)
    assert both is not None
    assert (both.purchases.order_count, both.entered) == (4, {("vip", ""): 7})
    visitors.put_computed([(phone, computed(-20, order_count=5))])
    again = visitors.record(phone)
    assert again is not None
    assert again.purchases.order_count == 6
    visitors.unlink(phone)
    alone = visitors.record(phone)
    assert alone is not None
    assert (alone.purchases.order_count, alone.entered) == (5, {("vip", ""): 5})
    visitors.forget([phone])
    assert visitors.record(phone) is None


def test_who_was_computed_is_targeted_without_ever_being_seen() -> None:
    visitors = store(audience_size_min=1)
    pseudonym = visitors.pseudonym("v")
    visitors.put_entries([SegmentEntry(pseudonym, "lifecycle:lapsing", "lifecycle:active", NOW_MS)])
    visitors.put_computed([(pseudonym, computed(-30))])
    visitors.put_scale(CustomerScale(clv=(0.0, 0.0, 0.0)))
    lapsing = Audience(entered_segment="lifecycle:lapsing", from_segment="lifecycle:active", within_days=3)
    for audience in (lapsing, Audience(clv_tier=["top"]), Audience(counter="order_count", at_least=3)):
        targets = compile_targets([audience], [])
        view = visitors.view("v", CONSENT, targets, MODEL, NOW_MS)
        assert has_bit(view.audience_bits, 0), audience
        assert visitors.count_matching(audience, None, NOW_MS) == 1
    assert not visitors.view("v", Consent(), targets, MODEL, NOW_MS).audience_bits.any()
    assert visitors.scale.clv == (0.0, 0.0, 0.0)
    visitors.measure()
    assert visitors.scale.clv == (0.0, 0.0, 0.0)  # what was computed stands


def crowd(visitors: VisitorStore, count: int, *segment_ids: str, first: int = 0) -> None:
    for number in range(first, first + count):
        visitors.put_profile(visitors.pseudonym(f"v{number}"), ProfileDraft(segments=list(segment_ids)))


def test_fewer_than_fifty_visitors_are_not_counted_out() -> None:
    visitors = store()
    crowd(visitors, 50, "vip")
    crowd(visitors, 10, first=50)
    assert visitors.count_matching(VIP, None, NOW_MS) == 50
    assert visitors.count_matching(Audience(not_=VIP), None, NOW_MS) is None
    for number in range(59):
        post(visitors, event(f"v{number}"), event(f"v{number}", 1))
    assert visitors.count_matching(None, TWICE, NOW_MS + 1000) == 50  # 59, rounded down
    assert visitors.count_matching(VIP, TWICE, NOW_MS + 1000) == 50
    crowd(visitors, 1, "none")
    assert visitors.count_matching(VIP, None, NOW_MS) is None


def test_no_two_counts_tell_of_one_visitor() -> None:
    visitors = store()
    crowd(visitors, 200, "vip")
    crowd(visitors, 1, "vip", "one", first=200)
    one = Audience(segment="one")
    whole = visitors.count_matching(VIP, None, NOW_MS)
    assert whole == 200
    for without_one in (
        Audience(all=[VIP, Audience(not_=one)]),
        Audience(all=[VIP, Audience(not_=Audience(all=[VIP, one]))]),
        Audience(not_=Audience(any=[Audience(not_=VIP), one])),
    ):
        assert visitors.count_matching(without_one, None, NOW_MS) == whole
    assert visitors.count_matching(Audience(any=[VIP, one]), None, NOW_MS) == whole
    crowd(visitors, 9, "vip", first=201)  # 210: on the edge, where one more or less would show
    assert visitors.count_matching(VIP, None, NOW_MS) == 210
    assert visitors.count_matching(Audience(all=[VIP, Audience(not_=one)]), None, NOW_MS) == 210


def is_targeted(visitors: VisitorStore, targets: Targets, visitor_id: str = "v0") -> bool:
    return has_bit(visitors.view(visitor_id, CONSENT, targets, MODEL, NOW_MS).audience_bits, 0)


def count_all(visitors: VisitorStore, targets: Targets) -> int:
    count = 0
    while some := visitors.count_audiences(targets, 0.0, NOW_MS):  # one after the other
        count += some
    return count


def test_under_fifty_visitors_an_audience_is_not_targeted() -> None:
    visitors = store()
    targets = compile_targets([VIP], [])
    crowd(visitors, 49, "vip")
    crowd(visitors, 30, first=100)
    assert not is_targeted(visitors, targets)  # nobody counted yet
    assert count_all(visitors, targets) == 79
    assert not is_targeted(visitors, targets)
    crowd(visitors, 1, "vip", first=49)
    again = compile_targets([Audience(segment="vip"), Audience(segment="none")], [])
    assert count_all(visitors, again) == 80
    assert is_targeted(visitors, again)
    assert not is_targeted(visitors, again, "v100")
    both = compile_targets([VIP, Audience(not_=VIP)], [])
    assert is_targeted(visitors, both)  # it was counted before; the other was not
    assert not has_bit(visitors.view("v100", CONSENT, both, MODEL, NOW_MS).audience_bits, 1)
    crowd(visitors, 60, "other", first=200)
    assert count_all(visitors, compile_targets([Audience(segment="other"), VIP], [])) > 80
    assert count_all(visitors, compile_targets([Audience(not_=Audience(segment="none"))], [])) == 50  # that is enough
    crowd(visitors, 40)
    count_all(visitors, both)
    assert not is_targeted(visitors, both, "v45")
    assert has_bit(visitors.view("v100", CONSENT, both, MODEL, NOW_MS).audience_bits, 1)  # 30, 40 and 60


def test_an_audience_that_comes_in_the_middle_of_a_round_waits_for_no_round_and_counts_nobody_twice() -> None:
    visitors = store()
    crowd(visitors, 30, "late", first=200)
    crowd(visitors, 30, "early")
    crowd(visitors, 60, "vip", first=300)
    other = Audience(segment="none")

    def look_at(targets: Targets, person_count: int) -> None:
        for _ in range(person_count):
            visitors.count_audiences(targets, 0.0, NOW_MS)

    look_at(compile_targets([other], []), 35)
    targets = compile_targets([VIP, other, Audience(segment="early")], [])
    look_at(targets, 25 + 50)  # on from there
    assert is_targeted(visitors, targets, "v300")
    for rounds in range(3):
        look_at(compile_targets([VIP, other, Audience(segment=f"new{rounds}"), Audience(segment="early")], []), 120)
    last = compile_targets([Audience(segment="early")], [])
    count_all(visitors, last)
    assert not is_targeted(visitors, last, "v0")  # thirty, seen in several rounds


def test_devices_of_one_customer_are_one_visitor_when_an_audience_is_counted() -> None:
    visitors = store()
    targets = compile_targets([VIP], [])
    for number in range(60):
        visitors.link(visitors.pseudonym(f"v{number}"), visitors.pseudonym("c"))
        post(visitors, event(f"v{number}"))
    visitors.put_profile(visitors.pseudonym("c"), ProfileDraft(segments=["vip"]))
    assert count_all(visitors, targets) == 1
    assert not is_targeted(visitors, targets)


def test_a_count_is_scaled_up_from_a_sample() -> None:
    visitors = store(audience_sample_size=500)
    for number in range(2_000):
        visitors.put_profile(visitors.pseudonym(f"v{number}"), ProfileDraft(segments=["vip"] if number % 2 else []))
    count = visitors.count_matching(Audience(segment="vip"), None, NOW_MS)
    assert count is not None
    assert 850 < count < 1150


def test_ten_thousand_events_of_one_visitor_in_a_second_are_one_bounded_record(tmp_path: Path) -> None:
    visitors = store(tmp_path, event_id_window=1_000)
    sizes = []
    for first in range(0, 10_000, 100):
        batch = [
            event("v", number / 10_000, action, product_id=f"x{number}", query="q" * 300, category_id=f"C{number}")
            for number, action in ((first + place, list(Action)[place % 9]) for place in range(100))
        ]
        assert post(visitors, *batch) == (100, 0)
        packed = visitors.records.packed(visitors.pseudonym("v"))
        assert packed is not None
        sizes.append(len(packed[1]))
    assert max(sizes) <= Settings().visitor_record_bytes_max
    assert len(visitors) == 1
    record = visitors.record(visitors.pseudonym("v"))
    assert record is not None
    assert record.events[-1].at_ms == NOW_MS + 999
    assert record.purchases.order_count == 1
