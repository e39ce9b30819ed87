"""The auction's allocation and prices: equal to the whiteboard's, and true to DESIGN.md §4's promises."""

import itertools
import random
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from auction.kernel import (
    ATTENTION_PERMILLE_MAX,
    BID_MICROS_MAX,
    LOST_BELOW_FLOOR,
    LOST_NOT_ELIGIBLE,
    LOST_TO_BETTER,
    LOST_TO_CAP,
    LOST_TO_OPPORTUNITY_COST,
    LOST_TO_SAME_PRODUCT,
    PAIR_VALUE_MAX,
    SHORTLIST_COUNT,
    SLOT_COUNT_MAX,
    VALUE_MICROS_MAX,
    WEIGHT_PPM_MAX,
    CandidateArrays,
    allocate_and_price_nb,
    fill_page_nb,
    say_why_lost_nb,
)
from tests.auction import naive
from tests.auction.pages import (
    PPM,
    Decision,
    crowded_pages,
    decide,
    decide_naively,
    new_outcome,
    pages,
    random_page,
    separable_page,
    to_arrays,
)

EVERYTHING = 1_000  # a shortlist that leaves nobody out
MICRO = Fraction(1)

seeds = st.integers(0, 2**32 - 1)
always = settings(max_examples=300)


def ad_of(page: naive.Page, name: str) -> naive.Ad:
    return next(ad for ad in [*page.ads, *page.pins.values()] if ad.name == name)


def slot_of(decision: Decision, name: str) -> int | None:
    return decision.fills.index(name) if name in decision.fills else None


def attention_of(page: naive.Page, decision: Decision, name: str) -> Fraction:
    slot = slot_of(decision, name)
    return Fraction(0) if slot is None else page.attention[ad_of(page, name).charge][slot]


def picks_before(decision: Decision, name: str) -> list[tuple[int, str | None]]:
    slot = slot_of(decision, name)
    assert slot is not None
    return sorted(
        (order, decision.fills[s]) for s, order in enumerate(decision.order) if 0 <= order < decision.order[slot]
    )


def without_later_ones(page: naive.Page, decision: Decision, name: str) -> naive.Page:
    """Take out the other candidates of the winner's advertiser that were not picked before it."""
    earlier = {other for _, other in picks_before(decision, name)}
    advertiser = ad_of(page, name).advertiser
    return naive.without_ads(
        page,
        {ad.name for ad in page.ads if ad.advertiser == advertiser and ad.name != name and ad.name not in earlier},
    )


@always
@given(pages(), st.sampled_from([SHORTLIST_COUNT, 1, 2]))
def test_the_kernel_decides_as_the_whiteboard_does(page: naive.Page, shortlist_count: int) -> None:
    assert decide(page, shortlist_count) == decide_naively(page)


@settings(max_examples=500)
@given(crowded_pages, st.sampled_from([SHORTLIST_COUNT, 1, 2, 3]))
def test_the_kernel_decides_full_pages_as_the_whiteboard_does(page: naive.Page, shortlist_count: int) -> None:
    assert decide(page, shortlist_count) == decide_naively(page)


@settings(max_examples=60)
@given(seeds)
def test_no_shortlist_changes_the_answer(seed: int) -> None:
    """With far more candidates than a shortlist holds, of few brands, in many placements, often equal."""
    page = random_page(random.Random(seed), ads_max=250, slots_max=9)
    assume(len(page.ads) > 30)
    answer = decide(page, EVERYTHING)
    for shortlist_count in (SHORTLIST_COUNT, 1, 5, 20):
        assert decide(page, shortlist_count) == answer


@settings(max_examples=60)
@given(seeds)
def test_a_brand_with_a_thousand_products_changes_nothing_for_the_others(seed: int) -> None:
    """Caps shut out all that stands on the shortlist; the winners are found among those it left out."""
    chance = random.Random(seed)
    page = random_page(chance, ads_max=30, slots_max=6)
    flood = [
        naive.Ad(f"f{n:04}", f"f{n:04}", "A", "A", "click", chance.randint(1, 9), Fraction(1), tie=1_000 + n)
        for n in range(1_000)
    ]
    attention = dict.fromkeys(("click", "impression"), next(iter(page.attention.values()))) | page.attention
    page = replace(
        page, attention=attention, caps=[*page.caps, naive.Cap(frozenset(range(page.slot_count)), 1, per_brand=True)]
    )
    best = min(flood, key=lambda ad: (-ad.bid, ad.tie))
    with_flood, with_best = replace(page, ads=page.ads + flood), replace(page, ads=[*page.ads, best])
    assert decide(with_flood) == decide(with_flood, 2_000)
    if all(ad.brand != "A" for ad in page.ads):
        assert decide(with_flood) == decide(with_best)


@always
@given(crowded_pages)
def test_nobody_pays_more_than_it_bid_or_less_than_its_floor(page: naive.Page) -> None:
    for name, price in decide(page).prices.items():
        ad = ad_of(page, name)
        assert naive.eager_floor(page, ad) <= price.vcg <= price.critical <= ad.bid


@always
@given(crowded_pages)
def test_the_page_keeps_every_rule(page: naive.Page) -> None:
    decision = decide(page)
    standing = {slot: ad_of(page, name) for slot, name in enumerate(decision.fills) if name is not None}
    assert {slot: standing[slot] for slot in page.pins} == page.pins
    sold = {slot: ad for slot, ad in standing.items() if slot not in page.pins}
    for slot, ad in sold.items():
        assert naive.may_stand(page, ad, slot)
        assert ad.advertiser is None or ad.bid >= naive.eager_floor(page, ad)
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
    assert attention_of(raised, decide(raised), ad.name) >= attention_of(page, decide(page), ad.name)


@always
@given(crowded_pages)
def test_the_critical_price_is_the_least_bid_that_keeps_the_attention(page: naive.Page) -> None:
    decision = decide(page)
    for name, price in decision.prices.items():
        alone = without_later_ones(page, decision, name)
        attention = attention_of(page, decision, name)
        at_price = naive.with_bid(alone, name, price.critical)
        assert attention_of(at_price, decide(at_price), name) >= attention
        if price.critical > naive.eager_floor(page, ad_of(page, name)):
            below = naive.with_bid(alone, name, price.critical - 1)
            assert attention_of(below, decide(below), name) < attention


@always
@given(crowded_pages, seeds)
def test_a_price_does_not_depend_on_the_own_bid(page: naive.Page, seed: int) -> None:
    decision = decide(page)
    assume(decision.prices)
    chance = random.Random(seed)
    name = chance.choice(sorted(decision.prices))
    price = decision.prices[name]
    bid = chance.choice([price.critical, ad_of(page, name).bid + 1, chance.randint(price.critical, 10**7)])
    other = naive.with_bid(page, name, bid)
    other_decision = decide(other)
    if slot_of(other_decision, name) == slot_of(decision, name) and picks_before(decision, name) == picks_before(
        other_decision, name
    ):
        assert other_decision.prices[name] == price


@always
@given(seeds)
def test_on_one_slot_both_prices_are_the_same(seed: int) -> None:
    for price in decide(random_page(random.Random(seed), slots_max=1)).prices.values():
        assert price.vcg == price.critical


@always
@given(crowded_pages, seeds)
def test_a_losing_candidate_does_not_change_who_stands_where(page: naive.Page, seed: int) -> None:
    decision = decide(page)
    losers = [ad.name for ad in page.ads if ad.name not in decision.fills]
    assume(losers)
    gone = naive.without_ads(page, {random.Random(seed).choice(losers)})
    assert decide(gone).fills == decision.fills


@always
@given(crowded_pages)
def test_a_losing_sibling_does_not_change_what_its_advertiser_pays(page: naive.Page) -> None:
    decision = decide(page)
    for name, price in decision.prices.items():
        advertiser = ad_of(page, name).advertiser
        losers = {ad.name for ad in page.ads if ad.advertiser == advertiser and ad.name not in decision.fills}
        assert decide(naive.without_ads(page, losers)).prices[name] == price


@always
@given(crowded_pages, st.integers(2, 50))
def test_all_money_times_c_is_all_prices_times_c_but_for_rounding(page: naive.Page, c: int) -> None:
    """A critical price is rounded once: off by less than c. A vcg price is rounded twice: by less than 2c."""

    def times_c(ad: naive.Ad) -> naive.Ad:
        return replace(ad, bid=ad.bid * c, value=ad.value * c, floor=ad.floor * c)

    dearer = replace(
        page,
        ads=[times_c(ad) for ad in page.ads],
        pins={slot: times_c(ad) for slot, ad in page.pins.items()},
        opportunity_cost={slot: cost * c for slot, cost in page.opportunity_cost.items()},
        score_floor=page.score_floor * c,
    )
    decision, dearer_decision = decide(page), decide(dearer)
    assert dearer_decision.fills == decision.fills
    for name, price in decision.prices.items():
        assert 0 <= c * price.critical - dearer_decision.prices[name].critical < c
        assert -c < c * price.vcg - dearer_decision.prices[name].vcg < 2 * c


@always
@given(crowded_pages, seeds)
def test_the_order_of_candidates_changes_nothing(page: naive.Page, seed: int) -> None:
    shuffled = random.Random(seed).sample(page.ads, len(page.ads))
    assert decide(replace(page, ads=shuffled)) == decide(page)


@always
@given(crowded_pages, seeds)
def test_the_same_question_has_the_same_bytes_for_an_answer(page: naive.Page, seed: int) -> None:
    """Whatever stands in the buffers: behind the last candidate, or left there by another page."""
    candidates, count, arrays, first = to_arrays(page)
    assume(not page.pins)  # their rows stand behind the others
    noise = np.random.default_rng(seed)
    longer = CandidateArrays(
        *[np.concatenate([array, noise.integers(0, 99, 7).astype(array.dtype)]) for array in candidates]
    )
    second = new_outcome(page.slot_count)
    for array in second:
        array[:] = noise.integers(-99, 99, array.shape)
    allocate_and_price_nb(candidates, count, arrays, SHORTLIST_COUNT, first)
    allocate_and_price_nb(longer, count, arrays, SHORTLIST_COUNT, second)
    assert [array.tobytes() for array in first] == [array.tobytes() for array in second]


def best_welfare(page: naive.Page) -> Fraction:
    """Return the most any feasible page is worth, by trying them all."""
    ads = naive.taking_part(page)
    best = Fraction(0)
    for count in range(1, page.slot_count + 1):
        for chosen in itertools.permutations(ads, count):
            for slots in itertools.combinations(range(page.slot_count), count):
                standing = dict(zip(slots, chosen, strict=True))
                if all(
                    not cap.is_full(ad, {s: a for s, a in standing.items() if s != slot})
                    for cap in page.caps
                    for slot, ad in standing.items()
                    if cap.binds(ad, slot)
                ):
                    best = max(best, sum((naive.pair_value(page, ad, s) for s, ad in standing.items()), Fraction(0)))
    return best


def welfare(page: naive.Page, decision: Decision) -> Fraction:
    return sum(
        (naive.pair_value(page, ad_of(page, name), s) for s, name in enumerate(decision.fills) if name), Fraction(0)
    )


@always
@given(seeds)
def test_on_a_separable_page_nothing_is_worth_more_than_the_greedy_page(seed: int) -> None:
    page = separable_page(random.Random(seed), with_floors=True)
    assert welfare(page, decide(page)) == best_welfare(page)


@always
@given(seeds)
def test_on_a_separable_page_an_advertiser_pays_the_harm_it_does(seed: int) -> None:
    """Without floors and h; each price is rounded up twice, so by less than two micros per event."""
    page = separable_page(random.Random(seed), with_floors=False)
    decision = decide(page)
    for advertiser in {ad.advertiser for ad in page.ads}:
        winners = [name for name in decision.prices if ad_of(page, name).advertiser == advertiser]
        own = {ad.name for ad in page.ads if ad.advertiser == advertiser}
        own_value = sum(
            (attention_of(page, decision, name) * naive.score(ad_of(page, name)) for name in winners), Fraction(0)
        )
        harm = best_welfare(naive.without_ads(page, own)) - (welfare(page, decision) - own_value)
        per_micro = {name: attention_of(page, decision, name) * ad_of(page, name).weight for name in winners}
        paid = sum((per_micro[name] * decision.prices[name].vcg for name in winners), Fraction(0))
        assert harm <= paid <= harm + 2 * MICRO * sum(per_micro.values())


@always
@given(seeds)
def test_on_a_separable_page_an_advertiser_gains_nothing_under_vcg_by_bidding_otherwise(seed: int) -> None:
    """However many candidates it has, and whichever of them it bids for; values are the bids, without floors and h."""
    chance = random.Random(seed)
    page = separable_page(chance, with_floors=False)
    assume(page.ads)
    advertiser = chance.choice(page.ads).advertiser
    own = {ad.name: ad for ad in page.ads if ad.advertiser == advertiser}

    def gain(decision: Decision) -> Fraction:
        return sum(
            (
                attention_of(page, decision, name) * ad.weight * (ad.bid - decision.prices[name].vcg)
                for name, ad in own.items()
                if name in decision.prices
            ),
            Fraction(0),
        )

    honest = decide(page)
    rounded = sum((attention_of(page, honest, name) * ad.weight for name, ad in own.items()), Fraction(0))
    for _ in range(4):
        others = [0, *[ad.bid for ad in page.ads], *[price.critical for price in honest.prices.values()]]
        otherwise = page
        for name in own:
            otherwise = naive.with_bid(otherwise, name, chance.choice(others) + chance.choice([0, 0, 1]))
        decision = decide(otherwise)
        assert gain(decision) <= gain(honest) + 2 * MICRO * rounded  # each price is rounded up twice


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
    decision = decide(page)

    def gain(decision: Decision) -> Fraction:
        attention = attention_of(page, decision, ad.name)
        return attention * (ad.bid - decision.prices[ad.name].vcg) if attention else Fraction(0)

    rivals = {price.critical for price in decision.prices.values()} | {other.bid for other in page.ads}
    for bid in [*chance.sample(sorted(rivals), min(len(rivals), 4)), 0, chance.randint(0, 2 * ad.bid + 2)]:
        otherwise = gain(decide(naive.with_bid(page, ad.name, bid)))
        assert otherwise - gain(decision) < MICRO  # a price is rounded up to a micro


@settings(max_examples=400)
@given(seeds)
def test_what_was_not_looked_at_could_not_have_changed_the_answer(seed: int) -> None:
    chance = random.Random(seed)
    page = random_page(chance, ads_max=30)
    seen = [ad for ad in page.ads if chance.random() < 0.6]
    unseen = [ad for ad in page.ads if ad not in seen]
    most = chance.choice([0, 10**9])  # now and then, hide only what is worth nothing much
    unseen = [ad for ad in unseen if naive.score(ad) <= most] or unseen[:1]
    seen = [ad for ad in page.ads if ad not in unseen]
    whole, _, _, _ = to_arrays(page)
    rows = [row for row, ad in enumerate(page.ads) if ad in unseen]
    scores = whole.weight_ppm * whole.bid_micros + whole.value_micros * PPM
    kinds = (
        whole.charge_code[rows].astype(np.int64),
        whole.eligible_slots[rows].astype(np.int64),
        np.array([1 | int(whole.group_bits[r]) | 2 * (whole.advertiser_code[r] >= 0) for r in rows], np.int64),
        scores[rows].astype(np.int64),
    )
    kept_rows = [row for row, ad in enumerate(page.ads) if ad in seen] + list(range(len(page.ads), len(whole.tie_key)))
    kept = CandidateArrays(*[np.ascontiguousarray(array[kept_rows]) for array in whole])
    _, _, arrays, outcome = to_arrays(replace(page, ads=page.ads))
    moved = {row: place for place, row in enumerate(kept_rows)}
    arrays = arrays._replace(pinned_row=np.array([moved.get(int(row), -1) for row in arrays.pinned_row], np.int64))
    if fill_page_nb(kept, len(kept_rows), arrays, *kinds, outcome) >= 0:
        names = [ad.name for ad in seen] + [ad.name for ad in page.pins.values()]
        answer = decide(page)
        assert [None if row < 0 else names[row] for row in outcome.winner_row] == answer.fills
        for slot, name in enumerate(answer.fills):
            price = answer.prices.get(name or "")
            assert outcome.critical_micros[slot] == (price.critical if price else 0)
            assert outcome.vcg_micros[slot] == (price.vcg if price else 0)


def test_every_bound_at_once_overflows_nothing() -> None:
    """The largest numbers the door lets in, on the largest page, agree with exact arithmetic."""
    every = list(range(SLOT_COUNT_MAX))
    page = naive.Page(
        attention={charge: [Fraction(1)] * SLOT_COUNT_MAX for charge in ("click", "impression")},
        ads=[
            naive.Ad(
                name=f"a{n:02}",
                product=f"a{n:02}",
                brand=f"b{n % 10}",
                advertiser=f"b{n % 10}",
                charge=("click", "impression")[n % 2],
                bid=BID_MICROS_MAX - n // 8,
                weight=Fraction(WEIGHT_PPM_MAX, PPM),
                value=Fraction(VALUE_MICROS_MAX),
                floor=BID_MICROS_MAX - 20,
                tie=2**64 - 1 - n,
                slots=None if n % 3 else frozenset(every[-2:]),
            )
            for n in range(24)
        ],
        caps=[naive.Cap(frozenset(every), 2, per_brand=True), naive.Cap(frozenset(every), SLOT_COUNT_MAX, "paid")],
        opportunity_cost={63: Fraction(PAIR_VALUE_MAX, 1000 * PPM)},
    )
    assert ATTENTION_PERMILLE_MAX * (WEIGHT_PPM_MAX * BID_MICROS_MAX + VALUE_MICROS_MAX * PPM) == PAIR_VALUE_MAX
    assert PAIR_VALUE_MAX + ATTENTION_PERMILLE_MAX + WEIGHT_PPM_MAX < 2**63
    candidates, count, arrays, outcome = to_arrays(page)
    assert candidates.eligible_slots.max() == 2**64 - 1
    allocate_and_price_nb(candidates, count, arrays, SHORTLIST_COUNT, outcome)
    picks = naive.allocate(page)
    assert {pick.slot: pick.ad.name for pick in picks} == {
        slot: page.ads[row].name for slot, row in enumerate(outcome.winner_row) if row >= 0
    }
    for step in (0, len(picks) // 2, len(picks) - 1):
        price = naive.price(page, picks, step)
        slot = picks[step].slot
        assert (outcome.critical_micros[slot], outcome.vcg_micros[slot]) == (price.critical, price.vcg)


def test_a_page_without_slots_or_without_candidates_is_decided_too() -> None:
    nothing = naive.Page(attention={"click": []}, ads=[])
    assert decide(nothing) == Decision([], [], {})
    empty = naive.Page(attention={"click": [Fraction(1)] * 3}, ads=[])
    assert decide(empty) == Decision([None] * 3, [-1] * 3, {})


@pytest.mark.parametrize("array", ["bid_micros", "eligible_slots", "product_code"])
def test_an_array_of_another_type_is_refused(array: str) -> None:
    candidates, count, arrays, outcome = to_arrays(random_page(random.Random(3)))
    wrong = candidates._replace(**{array: getattr(candidates, array).astype(np.float64)})
    with pytest.raises(TypeError, match="No matching definition"):
        allocate_and_price_nb(wrong, count, arrays, SHORTLIST_COUNT, outcome)


@dataclass(frozen=True)
class CapWithExemption(naive.Cap):
    """A cap that lets one ad in always."""

    exempt: str = ""

    def binds(self, ad: naive.Ad, slot: int) -> bool:
        return ad.name != self.exempt and super().binds(ad, slot)


def was_full_at_its_turn(page: naive.Page, cap: naive.Cap, ad: naive.Ad, slot: int) -> bool:
    """Say whether the slot was still free when the pair's turn came, but the cap full."""
    turn = (-naive.pair_value(page, ad, slot), slot, ad.tie)
    before = {pick.slot: pick.ad for pick in naive.allocate(page) if (-pick.value, pick.slot, pick.ad.tie) < turn}
    is_open = naive.may_stand(page, ad, slot) and slot not in before
    return is_open and cap.binds(ad, slot) and cap.is_full(ad, page.pins | before)


@always
@given(crowded_pages)
def test_who_lost_to_a_cap_would_have_had_a_slot_without_it_and_who_was_outbid_would_not(page: naive.Page) -> None:
    candidates, count, arrays, outcome = to_arrays(page)
    allocate_and_price_nb(candidates, count, arrays, SHORTLIST_COUNT, outcome)
    reasons, caps = np.full(count, -77, np.int64), np.full(count, -77, np.int64)
    say_why_lost_nb(candidates, count, arrays, outcome, reasons, caps)
    standing = [pick.ad for pick in naive.allocate(page)]
    placed = {ad.product for ad in [*standing, *page.pins.values()]}
    for row, ad in enumerate(page.ads):
        reason = int(reasons[row])
        exempted = replace(page, caps=[CapWithExemption(**vars(cap), exempt=ad.name) for cap in page.caps])
        wins_exempted = any(pick.ad == ad for pick in naive.allocate(exempted))
        free_slots = [slot for slot in range(page.slot_count) if slot not in page.pins]
        assert (caps[row] >= 0) == (reason == LOST_TO_CAP)
        if ad in standing:
            assert reason == 0
        elif ad.product in placed:
            assert reason == LOST_TO_SAME_PRODUCT
        elif ad not in naive.taking_part(page):
            assert reason == LOST_BELOW_FLOOR
        elif not any(naive.may_stand(replace(page, opportunity_cost={}), ad, slot) for slot in free_slots):
            assert reason == LOST_NOT_ELIGIBLE
        elif not any(naive.may_stand(page, ad, slot) for slot in free_slots):
            assert reason == LOST_TO_OPPORTUNITY_COST
        else:
            assert reason == (LOST_TO_CAP if wins_exempted else LOST_TO_BETTER)
        if reason == LOST_TO_CAP:
            assert any(was_full_at_its_turn(page, page.caps[caps[row]], ad, slot) for slot in free_slots)
    assert (reasons[len(page.ads) :] == 0).all()  # pins


def test_many_bids_on_one_product_hide_no_other_product() -> None:
    """The product is shown once, so its hundred rows stand for one candidate wherever candidates are counted."""
    hundred = [naive.Ad(f"a{n:03}", "p", "A", "A", "click", 500 - n, Fraction(1), tie=n) for n in range(100)]
    others = [naive.Ad(f"b{n}", f"q{n}", "A", "A", "click", 9 - n, Fraction(1), tie=200 + n) for n in range(3)]
    page = naive.Page(attention={"click": [Fraction(1), Fraction(1, 2), Fraction(1, 4)]}, ads=hundred + others)
    assert decide(page).fills == ["a000", "b0", "b1"]
    assert decide(page) == decide_naively(page)


def test_the_cap_named_is_the_one_that_was_full_when_the_turn_came() -> None:
    """X's turn on the first slot is before Q's equal one on the second, so the brand's cap was still open to it."""
    x = naive.Ad("x", "x", "A", "A", "click", 4, Fraction(1), tie=0, groups=frozenset({"new"}))
    q = naive.Ad("q", "q", "A", "A", "click", 4, Fraction(1), tie=1, slots=frozenset({1}))
    caps = [
        naive.Cap(frozenset({0, 1}), 1, per_brand=True),
        naive.Cap(frozenset({0}), 0, "new"),
        naive.Cap(frozenset({1}), 0, "new"),
    ]
    page = naive.Page(attention={"click": [Fraction(1), Fraction(1)]}, ads=[x, q], caps=caps)
    candidates, count, arrays, outcome = to_arrays(page)
    allocate_and_price_nb(candidates, count, arrays, SHORTLIST_COUNT, outcome)
    reasons, named = np.empty(count, np.int64), np.empty(count, np.int64)
    say_why_lost_nb(candidates, count, arrays, outcome, reasons, named)
    assert outcome.winner_row.tolist() == [-1, 1]
    assert (reasons.tolist(), named.tolist()) == ([LOST_TO_CAP, 0], [1, -1])
