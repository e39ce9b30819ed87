"""The greedy page and its prices: equal to the whiteboard's, whatever was left out beforehand; and why others lost.

What holds of every allocation is in `test_allocation.py`.
"""

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
    crowded_pages,
    decide,
    decide_naively,
    fill_greedily,
    pages,
    random_page,
    seeds,
    to_arrays,
)

EVERYTHING = 1_000  # a shortlist that leaves nobody out

always = settings(max_examples=300)


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
    fill_greedily(candidates, count, arrays, outcome)
    picks = naive.allocate(page)
    assert {pick.slot: pick.ad.name for pick in picks} == {
        slot: page.ads[row].name for slot, row in enumerate(outcome.winner_row) if row >= 0
    }
    for step in (0, len(picks) // 2, len(picks) - 1):
        price = naive.price(page, picks, step)
        slot = picks[step].slot
        assert (outcome.critical_micros[slot], outcome.vcg_micros[slot]) == (price.critical, price.vcg)


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
    fill_greedily(candidates, count, arrays, outcome)
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
    fill_greedily(candidates, count, arrays, outcome)
    reasons, named = np.empty(count, np.int64), np.empty(count, np.int64)
    say_why_lost_nb(candidates, count, arrays, outcome, reasons, named)
    assert outcome.winner_row.tolist() == [-1, 1]
    assert (reasons.tolist(), named.tolist()) == ([LOST_TO_CAP, 0], [1, -1])
