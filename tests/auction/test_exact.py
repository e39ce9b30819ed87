"""The page worth most: equal to the whiteboard's, and true to what holds of every allocation."""

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from auction.kernel import (
    BID_MICROS_MAX,
    EXACT_DONE,
    EXACT_NOT_EXPRESSIBLE,
    EXACT_STEPS_MAX,
    EXACT_TOO_LARGE,
    LOST_BELOW_FLOOR,
    LOST_NOT_ELIGIBLE,
    LOST_TO_OPPORTUNITY_COST,
    LOST_TO_SAME_PRODUCT,
    SHORTLIST_COUNT,
    SLOT_COUNT_MAX,
    VALUE_MICROS_MAX,
    WEIGHT_PPM_MAX,
    CandidateArrays,
    allocate_and_price_nb,
    allocate_exactly_nb,
    say_why_lost_nb,
)
from tests.auction import naive, naive_exact
from tests.auction.pages import (
    PPM,
    Decision,
    crowded_pages,
    decide,
    decide_exactly,
    decide_exactly_and_naively,
    new_outcome,
    random_page,
    separable_page,
    to_arrays,
)

seeds = st.integers(0, 2**32 - 1)
always = settings(max_examples=300)
small_pages = seeds.map(lambda seed: random_page(random.Random(seed), ads_max=8, slots_max=4))


def ad_of(page: naive.Page, name: str) -> naive.Ad:
    return next(ad for ad in [*page.ads, *page.pins.values()] if ad.name == name)


def attention_of(page: naive.Page, decision: Decision, name: str) -> Fraction:
    if name not in decision.fills:
        return Fraction(0)
    return page.attention[ad_of(page, name).charge][decision.fills.index(name)]


def sold(page: naive.Page, decision: Decision) -> naive_exact.Fills:
    return {
        slot: ad_of(page, name)
        for slot, name in enumerate(decision.fills)
        if name is not None and slot not in page.pins
    }


def decided(page: naive.Page) -> Decision:
    """Decide a page whose caps can be expressed; others are no example."""
    decision = decide_exactly(page)
    assume(decision is not None)
    assert decision is not None
    return decision


@settings(max_examples=400)
@given(small_pages)
def test_the_kernel_finds_the_page_and_prices_of_the_whiteboard(page: naive.Page) -> None:
    assert decided(page) == decide_exactly_and_naively(page)


@settings(max_examples=100)
@given(seeds)
def test_what_is_left_out_beforehand_could_not_have_mattered(seed: int) -> None:
    """With far more candidates of a kind than there are slots."""
    page = random_page(random.Random(seed), ads_max=70, slots_max=3)
    assume(len(page.ads) > 20)
    assert decided(page) == decide_exactly_and_naively(page)


@always
@given(crowded_pages)
def test_no_page_is_worth_less_than_the_greedy_one(page: naive.Page) -> None:
    exact, greedy = decided(page), decide(page)
    gain = naive_exact.worth(page, sold(page, exact)) - naive_exact.worth(page, sold(page, greedy))
    assert gain >= 0
    assert gain > 0 or exact.fills == greedy.fills, "of pages worth the same it is the greedy one"


@always
@given(seeds)
def test_on_a_separable_page_it_is_the_greedy_page_at_its_vcg_prices(seed: int) -> None:
    page = separable_page(random.Random(seed), with_floors=True)
    exact, greedy = decide_exactly(page), decide(page)
    assert exact is not None
    assert (exact.fills, exact.order) == (greedy.fills, greedy.order)
    assert {name: price.vcg for name, price in exact.prices.items()} == {
        name: price.vcg for name, price in greedy.prices.items()
    }
    advertisers = [ad.advertiser for ad in page.ads]
    for name, price in exact.prices.items():
        if advertisers.count(ad_of(page, name).advertiser) == 1:
            assert price.critical == greedy.prices[name].critical


@always
@given(crowded_pages)
def test_nobody_pays_more_than_it_bid_or_less_than_its_floor(page: naive.Page) -> None:
    for name, price in decided(page).prices.items():
        ad = ad_of(page, name)
        assert naive.eager_floor(page, ad) <= price.vcg <= price.critical <= ad.bid


@always
@given(crowded_pages)
def test_the_page_keeps_every_rule(page: naive.Page) -> None:
    decision = decided(page)
    standing = {slot: ad_of(page, name) for slot, name in enumerate(decision.fills) if name is not None}
    assert {slot: standing[slot] for slot in page.pins} == page.pins
    for slot, ad in sold(page, decision).items():
        assert naive.may_stand(page, ad, slot)
        assert ad in naive.taking_part(page)
        others = {other: standing[other] for other in standing if other != slot}
        assert all(ad.product != other.product for other in others.values())
        assert not any(cap.binds(ad, slot) and cap.is_full(ad, others) for cap in page.caps)


@always
@given(crowded_pages, seeds)
def test_raising_a_bid_never_loses_attention(page: naive.Page, seed: int) -> None:
    paid = [ad for ad in page.ads if ad.advertiser is not None]
    assume(paid)
    chance = random.Random(seed)
    ad = chance.choice(paid)
    raised = naive.with_bid(page, ad.name, ad.bid + chance.choice([1, 2, 5, 1_000_000]))
    assert attention_of(raised, decided(raised), ad.name) >= attention_of(page, decided(page), ad.name)


def without_unplaced_siblings(page: naive.Page, decision: Decision, name: str) -> naive.Page:
    advertiser = ad_of(page, name).advertiser
    return naive.without_ads(
        page, {ad.name for ad in page.ads if ad.advertiser == advertiser and ad.name not in decision.fills}
    )


@always
@given(crowded_pages)
@example(random_page(random.Random(930)))  # who is taken out there lets a sibling fall that was to be taken out next
def test_the_critical_price_is_the_least_bid_that_keeps_the_attention(page: naive.Page) -> None:
    decision = decided(page)
    for name, price in decision.prices.items():
        alone = without_unplaced_siblings(page, decision, name)
        attention = attention_of(page, decision, name)
        at_price = naive.with_bid(alone, name, price.critical)
        assert attention_of(at_price, decided(at_price), name) >= attention
        if price.critical > naive.eager_floor(page, ad_of(page, name)):
            below = naive.with_bid(alone, name, price.critical - 1)
            assert attention_of(below, decided(below), name) < attention


@always
@given(crowded_pages, seeds)
def test_a_price_does_not_depend_on_the_own_bid(page: naive.Page, seed: int) -> None:
    decision = decided(page)
    assume(decision.prices)
    chance = random.Random(seed)
    name = chance.choice(sorted(decision.prices))
    price = decision.prices[name]
    bid = chance.choice([price.critical, ad_of(page, name).bid + 1, chance.randint(price.critical, 10**7)])
    otherwise = decided(naive.with_bid(page, name, bid))
    if (otherwise.fills, otherwise.order) == (decision.fills, decision.order):
        assert otherwise.prices[name] == price


@always
@given(crowded_pages, seeds)
def test_a_losing_candidate_does_not_change_who_stands_where(page: naive.Page, seed: int) -> None:
    decision = decided(page)
    losers = [ad.name for ad in page.ads if ad.name not in decision.fills]
    assume(losers)
    gone = naive.without_ads(page, {random.Random(seed).choice(losers)})
    assert decided(gone).fills == decision.fills


@always
@given(crowded_pages)
def test_a_losing_sibling_does_not_change_what_its_advertiser_pays(page: naive.Page) -> None:
    decision = decided(page)
    for name, price in decision.prices.items():
        assert decided(without_unplaced_siblings(page, decision, name)).prices[name] == price


@always
@given(crowded_pages, st.integers(2, 50))
def test_all_money_times_c_is_all_prices_times_c_but_for_rounding(page: naive.Page, c: int) -> None:
    def times_c(ad: naive.Ad) -> naive.Ad:
        return replace(ad, bid=ad.bid * c, value=ad.value * c, floor=ad.floor * c)

    dearer = replace(
        page,
        ads=[times_c(ad) for ad in page.ads],
        pins={slot: times_c(ad) for slot, ad in page.pins.items()},
        opportunity_cost={slot: cost * c for slot, cost in page.opportunity_cost.items()},
        score_floor=page.score_floor * c,
    )
    decision, dearer_decision = decided(page), decided(dearer)
    assert dearer_decision.fills == decision.fills
    for name, price in decision.prices.items():
        assert 0 <= c * price.critical - dearer_decision.prices[name].critical < c
        assert -c < c * price.vcg - dearer_decision.prices[name].vcg < 2 * c


@always
@given(crowded_pages, seeds)
def test_the_order_of_candidates_changes_nothing(page: naive.Page, seed: int) -> None:
    shuffled = random.Random(seed).sample(page.ads, len(page.ads))
    assert decide_exactly(replace(page, ads=shuffled)) == decide_exactly(page)


@always
@given(crowded_pages, seeds)
def test_the_same_question_has_the_same_bytes_for_an_answer(page: naive.Page, seed: int) -> None:
    assume(not page.pins)  # their rows stand behind the others
    candidates, count, arrays, first = to_arrays(page)
    noise = np.random.default_rng(seed)
    longer = CandidateArrays(
        *[np.concatenate([array, noise.integers(0, 99, 7).astype(array.dtype)]) for array in candidates]
    )
    second = new_outcome(page.slot_count)
    answers = []
    for these, outcome in ((candidates, first), (longer, second)):
        allocate_and_price_nb(these, count, arrays, SHORTLIST_COUNT, outcome)
        made = allocate_exactly_nb(these, count, arrays, EXACT_STEPS_MAX, outcome)
        answers.append((made, [array.tobytes() for array in outcome]))
    assert answers[0] == answers[1]


@always
@given(crowded_pages, seeds)
def test_under_vcg_an_advertiser_with_one_candidate_gains_nothing_by_bidding_otherwise(
    page: naive.Page, seed: int
) -> None:
    chance = random.Random(seed)
    single = [
        ad
        for ad in page.ads
        if ad.advertiser is not None and sum(other.advertiser == ad.advertiser for other in page.ads) == 1
    ]
    assume(single)
    ad = chance.choice(single)
    decision = decided(page)

    def gain(decision: Decision) -> Fraction:
        attention = attention_of(page, decision, ad.name)
        return attention * (ad.bid - decision.prices[ad.name].vcg) if attention else Fraction(0)

    rivals = {price.critical for price in decision.prices.values()} | {other.bid for other in page.ads}
    for bid in [*chance.sample(sorted(rivals), min(len(rivals), 4)), 0, chance.randint(0, 2 * ad.bid + 2)]:
        otherwise = gain(decided(naive.with_bid(page, ad.name, bid)))
        assert otherwise - gain(decision) < 1  # a price is rounded up to a micro


@always
@given(seeds)
def test_an_advertiser_pays_the_harm_it_does(seed: int) -> None:
    """On a separable page without floors and h; each price is rounded up twice, so by less than two micros."""
    page = separable_page(random.Random(seed), with_floors=False)
    decision = decide_exactly(page)
    assert decision is not None
    fills = sold(page, decision)
    for advertiser in {ad.advertiser for ad in fills.values()}:
        winners = {slot: ad for slot, ad in fills.items() if ad.advertiser == advertiser}
        rest = naive.without_ads(page, {ad.name for ad in page.ads if ad.advertiser == advertiser})
        others = naive_exact.worth(page, fills) - naive_exact.worth(page, winners)
        harm = Fraction(naive_exact.worth(rest, naive_exact.allocate(rest)) - others, naive_exact.UNIT)
        events = {slot: page.attention[ad.charge][slot] * ad.weight for slot, ad in winners.items()}
        paid = sum((events[slot] * decision.prices[ad.name].vcg for slot, ad in winners.items()), Fraction(0))
        assert harm <= paid < harm + 2 * sum(events.values())


@always
@given(crowded_pages)
def test_who_has_no_slot_is_told_why(page: naive.Page) -> None:
    candidates, count, arrays, outcome = to_arrays(page)
    allocate_and_price_nb(candidates, count, arrays, SHORTLIST_COUNT, outcome)
    assume(allocate_exactly_nb(candidates, count, arrays, EXACT_STEPS_MAX, outcome) == EXACT_DONE)
    reasons, caps = np.full(count, -77, np.int64), np.full(count, -77, np.int64)
    say_why_lost_nb(candidates, count, arrays, outcome, reasons, caps)
    winners = set(outcome.winner_row.tolist())
    placed = {candidates.product_code[row] for row in winners if row >= 0}
    free_slots = [slot for slot in range(page.slot_count) if slot not in page.pins]
    for row, ad in enumerate(page.ads):
        reason = int(reasons[row])
        assert (reason == 0) == (row in winners)
        assert (reason == LOST_TO_SAME_PRODUCT) == (row not in winners and candidates.product_code[row] in placed)
        if reason == 0 or reason == LOST_TO_SAME_PRODUCT:
            continue
        assert (reason == LOST_BELOW_FLOOR) == (ad not in naive.taking_part(page))
        if reason != LOST_BELOW_FLOOR:
            may_stand = any(naive.may_stand(page, ad, slot) for slot in free_slots)
            assert may_stand == (reason not in (LOST_NOT_ELIGIBLE, LOST_TO_OPPORTUNITY_COST))


def one_placement(caps: list[naive.Cap], *, with_organic: bool = False) -> naive.Page:
    ads = [
        naive.Ad(
            f"a{n}",
            f"a{n}",
            "ABC"[n % 3],
            "ABC"[n % 3],
            ("click", "impression")[n % 2],
            20 - n,
            Fraction(1),
            tie=n,
            groups=frozenset({"new"} if n % 4 == 0 else ()),
        )
        for n in range(12)
    ]
    if with_organic:
        ads += [
            naive.Ad(f"o{n}", f"o{n}", "ABC"[n % 3], None, "click", 0, Fraction(1), Fraction(9 - n), tie=20 + n)
            for n in range(6)
        ]
    profiles = {"click": [Fraction(1), Fraction(1, 2), Fraction(1, 4)], "impression": [Fraction(9, 10)] * 3}
    return naive.Page(profiles, ads, caps)


EVERY = frozenset(range(3))
PER_BRAND = naive.Cap(EVERY, 1, per_brand=True)
PAID = naive.Cap(EVERY, 2, "paid")


def test_the_caps_of_one_placement_can_be_expressed() -> None:
    """Brands within the paid ones, and a rule's share of a brand within the brand."""
    share = naive.Cap(EVERY, 1, "new", per_brand=True)
    for caps in ([], [PER_BRAND], [PAID], [PER_BRAND, PAID], [naive.Cap(EVERY, 2, per_brand=True), PAID, share]):
        page = one_placement(caps)
        assert decide_exactly(page) == decide_exactly_and_naively(page)


def test_a_cap_that_crosses_another_leaves_the_greedy_page() -> None:
    """A brand with paid and organic entries, and a cap on what is paid: neither lies within the other."""
    page = one_placement([PER_BRAND, PAID], with_organic=True)
    candidates, count, arrays, outcome = to_arrays(page)
    allocate_and_price_nb(candidates, count, arrays, SHORTLIST_COUNT, outcome)
    before = [array.tobytes() for array in outcome]
    assert allocate_exactly_nb(candidates, count, arrays, EXACT_STEPS_MAX, outcome) == EXACT_NOT_EXPRESSIBLE
    assert [array.tobytes() for array in outcome] == before
    assert decide_exactly(one_placement([PER_BRAND], with_organic=True)) is not None
    loose = naive.Cap(EVERY, 3, "paid")
    assert decide_exactly(one_placement([PER_BRAND, loose], with_organic=True)) is not None, "it cannot bind"


def test_work_that_runs_out_leaves_the_greedy_page() -> None:
    page = one_placement([PER_BRAND])
    candidates, count, arrays, outcome = to_arrays(page)
    allocate_and_price_nb(candidates, count, arrays, SHORTLIST_COUNT, outcome)
    before = [array.tobytes() for array in outcome]
    made = EXACT_TOO_LARGE
    for steps in range(0, 20_000, 37):
        made = allocate_exactly_nb(candidates, count, arrays, steps, outcome)
        if made == EXACT_DONE:
            break
        assert made == EXACT_TOO_LARGE
        assert [array.tobytes() for array in outcome] == before
    assert made == EXACT_DONE


def at_every_bound(slot_count: int) -> naive.Page:
    return naive.Page(
        attention={charge: [Fraction(1)] * slot_count for charge in ("click", "impression")},
        ads=[
            naive.Ad(
                f"a{n:02}",
                f"a{n:02}",
                f"b{n // 2}",
                f"b{n // 2}",
                ("click", "impression")[n % 2],
                BID_MICROS_MAX - n // 4,
                Fraction(WEIGHT_PPM_MAX, PPM),
                Fraction(VALUE_MICROS_MAX),
                BID_MICROS_MAX - 30,
                tie=2**64 - 1 - n,
            )
            for n in range(slot_count + 6)
        ],
        caps=[naive.Cap(frozenset(range(slot_count)), 1, per_brand=True)],
    )


def test_every_bound_at_once_overflows_nothing() -> None:
    """Sixty-four slots of the greatest worth sum up to far more than int64 holds."""
    small = at_every_bound(4)
    assert decide_exactly(small) == decide_exactly_and_naively(small)
    large = at_every_bound(SLOT_COUNT_MAX)
    exact, greedy = decide_exactly(large), decide(large)
    assert exact is not None
    assert exact.fills == greedy.fills
    assert {name: (price.critical, price.vcg) for name, price in exact.prices.items()} == {
        name: (price.critical, price.vcg) for name, price in greedy.prices.items()
    }


def test_a_page_without_slots_or_without_candidates_is_decided_too() -> None:
    assert decide_exactly(naive.Page(attention={"click": []}, ads=[])) == Decision([], [], {})
    empty = naive.Page(attention={"click": [Fraction(1)] * 3}, ads=[])
    assert decide_exactly(empty) == Decision([None] * 3, [-1] * 3, {})


def test_where_slots_are_not_open_to_all_another_page_is_worth_more() -> None:
    """Greedy gives X the first slot, which is the only one Y may have."""
    x = naive.Ad("x", "x", "X", "X", "click", 10, Fraction(1), tie=0)
    y = naive.Ad("y", "y", "Y", "Y", "click", 9, Fraction(1), tie=1, slots=frozenset({0}))
    page = naive.Page(attention={"click": [Fraction(1), Fraction(9, 10)]}, ads=[x, y])
    exact = decide_exactly(page)
    assert decide(page).fills == ["x", None]
    assert exact is not None
    assert exact.fills == ["y", "x"]
    assert exact.prices["y"].critical == 2  # x would give up 1 by standing second; at 1 the greedy order prefers x
    assert exact.prices["x"].critical == 1  # nobody else wants the second slot; a pair worth nothing is never taken
