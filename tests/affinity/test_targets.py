"""Audiences as bits: what the compiled form says is what the tree says."""

import gc
import random
import weakref

import msgspec
import numpy as np

from affinity.audience import Audience, NamedAudience, predicates_of
from affinity.catalog import Product
from affinity.computed import DAY_MS, CustomerScale, Purchases
from affinity.matching import Happening
from affinity.model import neutral_model
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep
from affinity.profile import ProfileDraft
from affinity.record import VisitorRecord, read_facts
from affinity.sessions import SESSION_GAP_MS
from affinity.settings import Settings
from affinity.targets import compile_targets, has_bit
from affinity.view import anonymous_view, view_visitor
from tests.affinity.naive import audience_holds

NOW_MS = 1_700_000_000_000
SETTINGS = Settings()
FACTS = read_facts([Product(product_id="p", brand="X", product_type="A > B", price_micros=10, sale_price_micros=8)])
VIP = Audience(segment="vip")


def visitor() -> VisitorRecord:
    """Somebody who bought p ten days ago, on promotion, and is a VIP of 40."""
    record = VisitorRecord(b"v")
    record.profile = ProfileDraft(segments=["vip"], attributes={"age": 40, "city": "Lyon", "loyalty_tier": "gold"})
    record.entered = {("lifecycle:new", ""): NOW_MS - 5 * DAY_MS, ("vip", "guest"): NOW_MS - 9 * DAY_MS}
    happening = Happening(NOW_MS - 10 * DAY_MS, Action.PURCHASE, "p", "A > B", "X", 8)
    record.note(happening, FACTS["p"], SETTINGS)
    return record


def holds(audience: Audience, record: VisitorRecord | None, now_ms: int = NOW_MS) -> bool:
    bits, until_ms = compile_targets([audience], []).audience_bits(record, CustomerScale(), now_ms)
    assert until_ms >= now_ms
    return has_bit(bits, 0)


def test_every_predicate_reads_its_fact() -> None:
    for audience in (
        VIP,
        Audience(attribute="age", equals=40),
        Audience(attribute="age", at_least=40, at_most=40),
        Audience(attribute="city", one_of=["Lille", "Lyon"]),
        Audience(score="promophile", at_least=50),
        Audience(score="price_tier", at_least=50, at_most=50),
        Audience(rfm=["new", "promising", "champion", "potential_loyalist", "lost"]),
        Audience(lifecycle=["new"]),
        Audience(clv_tier=["low", "top"]),
        Audience(loyalty_tier=["silver", "gold"]),
        Audience(order_status=["kept"]),
        Audience(entered_segment="lifecycle:new", within_days=5),
        Audience(entered_segment="vip", from_segment="guest", within_days=9),
        Audience(list_=[NamedAudience(name="a", audience=Audience(segment="none"))], is_="other"),
        Audience(counter="order_count", at_least=1, at_most=1),
        Audience(counter="days_since_last_order", at_least=10, at_most=10),
        Audience(bought_product_within_days=10, product_ids=["q", "p"]),
        Audience(bought_category_within_days=10, category_id="A"),
        Audience(bought_brand_within_days=10, brand="X"),
        Audience(affinity_category="A > B", at_least=1),
        Audience(affinity_brand="X", at_least=1),
    ):
        assert holds(audience, visitor()), audience
        assert not holds(Audience(not_=audience), visitor()), audience
        if audience.lifecycle is None and audience.counter is None and audience.list_ is None:
            assert not holds(audience, None), audience


def test_what_was_bought_is_out_of_the_window_a_day_later() -> None:
    bought = Audience(bought_brand_within_days=10, brand="X")
    assert holds(bought, visitor(), NOW_MS)
    assert not holds(bought, visitor(), NOW_MS + 1)


def test_a_segment_was_entered_within_days_and_from_another_only_where_it_was() -> None:
    entered = Audience(entered_segment="lifecycle:new", within_days=5)
    assert holds(entered, visitor(), NOW_MS)
    assert not holds(entered, visitor(), NOW_MS + 1)
    assert not holds(
        Audience(entered_segment="lifecycle:new", from_segment="lifecycle:prospect", within_days=9), visitor()
    )
    assert not holds(Audience(entered_segment="vip", within_days=9), visitor())


def test_a_visitor_is_in_the_first_of_a_list_they_are_in_and_in_other_where_in_none() -> None:
    def named(*segment_ids: str) -> list[NamedAudience]:
        return [NamedAudience(name=one, audience=Audience(segment=one)) for one in segment_ids]

    record = VisitorRecord(b"v")
    audiences = [Audience(list_=named("a", "b", "c"), is_=name) for name in ("a", "b", "c", "other")]
    targets = compile_targets(audiences, [])
    for segments, is_in in ((["b", "c"], 1), (["c", "a"], 0), (["c"], 2), (["d"], 3), ([], 3)):
        record.profile = ProfileDraft(segments=segments)
        bits, _ = targets.audience_bits(record, CustomerScale(), NOW_MS)
        assert [has_bit(bits, row) for row in range(4)] == [row == is_in for row in range(4)]


def test_of_a_new_visitor_only_what_is_not_so_holds() -> None:
    assert holds(Audience(not_=VIP), None)
    assert holds(Audience(lifecycle=["prospect"]), None)
    assert holds(Audience(counter="order_count", at_most=0), None)
    assert not holds(Audience(counter="days_since_last_order", at_least=1), None)


def test_without_consent_a_visitor_is_in_no_audience_not_even_a_negative_one() -> None:
    targets = compile_targets([VIP, Audience(not_=VIP)], [])
    assert not anonymous_view(targets).audience_bits.any()


def random_tree(rng: random.Random, depth: int) -> Audience:
    kind = rng.randrange(6) if depth else 9
    if kind == 0:
        return Audience(not_=random_tree(rng, depth - 1))
    if kind in (1, 2):
        return Audience(all=[random_tree(rng, depth - 1) for _ in range(rng.randrange(1, 4))])
    if kind in (3, 4):
        return Audience(any=[random_tree(rng, depth - 1) for _ in range(rng.randrange(1, 4))])
    return Audience(segment=f"s{rng.randrange(8)}")


def test_the_compiled_trees_agree_with_walking_them() -> None:
    rng = random.Random(5)
    encode = msgspec.json.Encoder(order="sorted").encode
    audiences = [random_tree(rng, 4) for _ in range(300)]
    targets = compile_targets(audiences, [])
    for _ in range(40):
        record = VisitorRecord(b"v")
        record.profile = ProfileDraft(segments=[f"s{row}" for row in range(8) if rng.random() < 0.4])
        true = {encode(Audience(segment=segment_id)) for segment_id in record.profile.segments}
        bits, _ = targets.audience_bits(record, CustomerScale(), NOW_MS)
        for row, audience in enumerate(audiences):
            assert has_bit(bits, row) is audience_holds(audience, true, encode)
            assert list(predicates_of(audience))


def test_equal_targets_are_compiled_once() -> None:
    pattern = NavigationPattern(within="session", steps=[PatternStep(action=Action.VIEW_ITEM)])
    first = compile_targets([VIP], [pattern])
    assert compile_targets([Audience(segment="vip")], [pattern], first) is first
    assert compile_targets([Audience(segment="other")], [pattern], first) is not first


def test_a_view_is_kept_until_something_happens_or_time_changes_it() -> None:
    pattern = NavigationPattern(within="session", steps=[PatternStep(action=Action.PURCHASE)])
    targets, model, record = compile_targets([VIP], [pattern]), neutral_model(["p"]), visitor()
    began_ms = record.events[-1].at_ms

    def view(now_ms: int):
        return view_visitor(record, targets, model, now_ms, pseudonym=b"v", settings=SETTINGS, scale=CustomerScale())

    first = view(began_ms)
    assert has_bit(first.pattern_bits, 0)
    assert view(began_ms + 1) is first
    later = view(began_ms + SETTINGS.session_gap_s * 1000 + 1)
    assert later is not first
    assert not has_bit(later.pattern_bits, 0)
    record.note(Happening(began_ms + 5, Action.DISMISS, "p"), None, SETTINGS)
    dismissed = view(began_ms + 5)
    assert dismissed.dismissed_row.tolist() == [0]
    assert dismissed.segments == {"vip"}
    record.note_served("bid_1", began_ms + 6)
    assert view(began_ms + 6).seen_at_ms == {"bid_1": [began_ms + 6]}
    assert not np.shares_memory(first.audience_bits, later.audience_bits)


def test_a_view_is_of_one_session_since_who_begins_anew_is_ranked_for_anew() -> None:
    targets, model, record = compile_targets([VIP], []), neutral_model(["p"]), visitor()
    looked_ms = record.events[-1].at_ms + 1_000
    record.note(Happening(looked_ms, Action.VIEW_ITEM, "p"), None, SETTINGS)

    def view(now_ms: int):
        return view_visitor(record, targets, model, now_ms, pseudonym=b"v", settings=SETTINGS, scale=CustomerScale())

    first = view(looked_ms)
    assert view(looked_ms + SESSION_GAP_MS) is first
    later = view(looked_ms + SESSION_GAP_MS + 1)
    assert later is not first
    assert view(looked_ms + SESSION_GAP_MS + 2) is later


def test_summaries_of_purchases_add_up() -> None:
    one, other = Purchases(), Purchases()
    one.note(1_000, 5)
    other.note(500_000, 7)
    other.note(520_000, 1)  # the same order
    one.add(other)
    assert (one.order_count, one.first_at_ms, one.last_at_ms, one.amount_micros) == (2, 1_000, 520_000, 13)


def test_a_record_keeps_no_earlier_targets_in_memory() -> None:
    """They may hold on to a whole snapshot; a visitor who does not come back must not keep it."""
    pattern = NavigationPattern(within="session", steps=[PatternStep(action=Action.VIEW_ITEM)])
    targets, record = compile_targets([VIP], [pattern]), visitor()
    view_visitor(
        record, targets, neutral_model(["p"]), NOW_MS, pseudonym=b"v", settings=SETTINGS, scale=CustomerScale()
    )
    assert record.view is not None
    kept, index = weakref.ref(targets), weakref.ref(targets.pattern_index)
    del targets
    gc.collect()
    assert (kept(), index()) == (None, None)
