"""What holds of every allocation, the greedy one and the one worth most: DESIGN.md §4's promises."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from auction.kernel import CandidateArrays, OutcomeArrays, PageArrays
from tests.auction import naive
from tests.auction.pages import (
    Decision,
    ad_of,
    attention_of,
    crowded_pages,
    decide,
    decide_exactly,
    fill_exactly,
    fill_greedily,
    new_outcome,
    random_page,
    seeds,
    separable_page,
    slot_of,
    sold,
    to_arrays,
)

MICRO = Fraction(1)

always = settings(max_examples=300)


def picks_before(decision: Decision, name: str) -> list[tuple[int, str | None]]:
    slot = slot_of(decision, name)
    assert slot is not None
    return sorted(
        (order, decision.fills[s]) for s, order in enumerate(decision.order) if 0 <= order < decision.order[slot]
    )


def without_siblings(page: naive.Page, name: str, but: set[str | None]) -> naive.Page:
    """Take out the other candidates of the winner's advertiser, `but` for these."""
    advertiser = ad_of(page, name).advertiser
    return naive.without_ads(
        page, {ad.name for ad in page.ads if ad.advertiser == advertiser and ad.name != name and ad.name not in but}
    )


def without_later_ones(page: naive.Page, decision: Decision, name: str) -> naive.Page:
    return without_siblings(page, name, {other for _, other in picks_before(decision, name)})


def without_unplaced_ones(page: naive.Page, decision: Decision, name: str) -> naive.Page:
    return without_siblings(page, name, set(decision.fills))


@dataclass(frozen=True)
class Allocation:
    """One of the two, and what differs between them.

    Attributes:
        fill: the kernels, arrays in and out; what they say of it.
        decide: the same for a page of the naive twin; None where it cannot be decided so, which is no example.
        alone: the pages without the siblings a winner does not pay against; the least price over them counts.
        is_unchanged: whether a winner's slot, and all else its price may depend on, is as before.
    """

    fill: Callable[[CandidateArrays, int, PageArrays, OutcomeArrays], int]
    decide: Callable[[naive.Page], Decision | None]
    alone: tuple[Callable[[naive.Page, Decision, str], naive.Page], ...]
    is_unchanged: Callable[[Decision, Decision, str], bool]

    def decided(self, page: naive.Page) -> Decision:
        decision = self.decide(page)
        assume(decision is not None)
        assert decision is not None
        return decision


GREEDY = Allocation(
    fill=fill_greedily,
    decide=decide,
    alone=(without_later_ones,),
    is_unchanged=lambda decision, other, name: (
        slot_of(other, name) == slot_of(decision, name) and picks_before(other, name) == picks_before(decision, name)
    ),
)
EXACT = Allocation(
    fill=fill_exactly,
    decide=decide_exactly,
    alone=(without_later_ones, without_unplaced_ones),
    is_unchanged=lambda decision, other, _: (other.fills, other.order) == (decision.fills, decision.order),
)
of_every_allocation = pytest.mark.parametrize(
    "allocation", [pytest.param(GREEDY, id="greedy"), pytest.param(EXACT, id="exact")]
)


@of_every_allocation
@always
@given(page=crowded_pages)
def test_nobody_pays_more_than_it_bid_or_less_than_its_floor(allocation: Allocation, page: naive.Page) -> None:
    for name, price in allocation.decided(page).prices.items():
        ad = ad_of(page, name)
        assert naive.eager_floor(page, ad) <= price.vcg <= price.critical <= ad.bid


@of_every_allocation
@always
@given(page=crowded_pages)
def test_the_page_keeps_every_rule(allocation: Allocation, page: naive.Page) -> None:
    decision = allocation.decided(page)
    standing = {slot: ad_of(page, name) for slot, name in enumerate(decision.fills) if name is not None}
    assert {slot: standing[slot] for slot in page.pins} == page.pins
    for slot, ad in sold(page, decision).items():
        assert naive.may_stand(page, ad, slot)
        assert ad in naive.taking_part(page)
        others = {other: standing[other] for other in standing if other != slot}
        assert all(ad.product != other.product for other in others.values())
        assert not any(cap.binds(ad, slot) and cap.is_full(ad, others) for cap in page.caps)


@of_every_allocation
@always
@given(page=crowded_pages, seed=seeds)
def test_raising_a_bid_never_loses_attention(allocation: Allocation, page: naive.Page, seed: int) -> None:
    paid = [ad for ad in page.ads if ad.advertiser is not None]
    assume(paid)
    chance = random.Random(seed)
    ad = chance.choice(paid)
    raised = naive.with_bid(page, ad.name, ad.bid + chance.choice([1, 2, 5, 1_000_000]))
    before, after = allocation.decided(page), allocation.decided(raised)
    assert attention_of(raised, after, ad.name) >= attention_of(page, before, ad.name)


@of_every_allocation
@always
@given(page=crowded_pages)
@example(page=random_page(random.Random(930)))  # a sibling taken out lets another fall that is to be taken out next
def test_the_critical_price_is_the_least_bid_that_keeps_the_attention(allocation: Allocation, page: naive.Page) -> None:
    decision = allocation.decided(page)
    for name, price in decision.prices.items():
        attention = attention_of(page, decision, name)
        alone = [taken_out(page, decision, name) for taken_out in allocation.alone]

        def keeps_it(page: naive.Page, bid: int, name: str = name, attention: Fraction = attention) -> bool:
            at_bid = naive.with_bid(page, name, bid)
            return attention_of(at_bid, allocation.decided(at_bid), name) >= attention

        assert any(keeps_it(page, price.critical) for page in alone)
        if price.critical > naive.eager_floor(page, ad_of(page, name)):
            assert not any(keeps_it(page, price.critical - 1) for page in alone)


@of_every_allocation
@always
@given(page=crowded_pages, seed=seeds)
def test_a_price_does_not_depend_on_the_own_bid(allocation: Allocation, page: naive.Page, seed: int) -> None:
    decision = allocation.decided(page)
    assume(decision.prices)
    chance = random.Random(seed)
    name = chance.choice(sorted(decision.prices))
    price = decision.prices[name]
    bid = chance.choice([price.critical, ad_of(page, name).bid + 1, chance.randint(price.critical, 10**7)])
    otherwise = allocation.decided(naive.with_bid(page, name, bid))
    if slot_of(otherwise, name) is not None and allocation.is_unchanged(decision, otherwise, name):
        assert otherwise.prices[name] == price


@of_every_allocation
@always
@given(seed=seeds)
def test_on_one_slot_both_prices_are_the_same(allocation: Allocation, seed: int) -> None:
    for price in allocation.decided(random_page(random.Random(seed), slots_max=1)).prices.values():
        assert price.vcg == price.critical


@of_every_allocation
@always
@given(page=crowded_pages, seed=seeds)
def test_a_losing_candidate_does_not_change_who_stands_where(
    allocation: Allocation, page: naive.Page, seed: int
) -> None:
    decision = allocation.decided(page)
    losers = [ad.name for ad in page.ads if ad.name not in decision.fills]
    assume(losers)
    gone = naive.without_ads(page, {random.Random(seed).choice(losers)})
    assert allocation.decided(gone).fills == decision.fills


@of_every_allocation
@always
@given(page=crowded_pages)
def test_a_losing_sibling_does_not_change_what_its_advertiser_pays(allocation: Allocation, page: naive.Page) -> None:
    decision = allocation.decided(page)
    for name, price in decision.prices.items():
        assert allocation.decided(without_unplaced_ones(page, decision, name)).prices[name] == price


@of_every_allocation
@always
@given(page=crowded_pages, c=st.integers(2, 50))
def test_all_money_times_c_is_all_prices_times_c_but_for_rounding(
    allocation: Allocation, page: naive.Page, c: int
) -> None:
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
    decision, dearer_decision = allocation.decided(page), allocation.decided(dearer)
    assert dearer_decision.fills == decision.fills
    for name, price in decision.prices.items():
        assert 0 <= c * price.critical - dearer_decision.prices[name].critical < c
        assert -c < c * price.vcg - dearer_decision.prices[name].vcg < 2 * c


@of_every_allocation
@always
@given(page=crowded_pages, seed=seeds)
def test_the_order_of_candidates_changes_nothing(allocation: Allocation, page: naive.Page, seed: int) -> None:
    shuffled = random.Random(seed).sample(page.ads, len(page.ads))
    assert allocation.decide(replace(page, ads=shuffled)) == allocation.decide(page)


@of_every_allocation
@always
@given(page=crowded_pages, seed=seeds)
def test_the_same_question_has_the_same_bytes_for_an_answer(
    allocation: Allocation, page: naive.Page, seed: int
) -> None:
    """Whatever stands in the buffers: behind the last candidate, or left there by another page."""
    assume(not page.pins)  # their rows stand behind the others
    candidates, count, arrays, first = to_arrays(page)
    noise = np.random.default_rng(seed)
    longer = CandidateArrays(
        *[np.concatenate([array, noise.integers(0, 99, 7).astype(array.dtype)]) for array in candidates]
    )
    second = new_outcome(page.slot_count)
    for array in second:
        array[:] = noise.integers(-99, 99, array.shape)
    assert allocation.fill(candidates, count, arrays, first) == allocation.fill(longer, count, arrays, second)
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


def decided_always(allocation: Allocation, page: naive.Page) -> Decision:
    """Decide a separable page: its caps can be expressed."""
    decision = allocation.decide(page)
    assert decision is not None
    return decision


@of_every_allocation
@always
@given(seed=seeds)
def test_on_a_separable_page_nothing_is_worth_more(allocation: Allocation, seed: int) -> None:
    page = separable_page(random.Random(seed), with_floors=True)
    assert welfare(page, decided_always(allocation, page)) == best_welfare(page)


@of_every_allocation
@always
@given(seed=seeds)
def test_on_a_separable_page_an_advertiser_pays_the_harm_it_does(allocation: Allocation, seed: int) -> None:
    """Without floors and h; each price is rounded up twice, so by less than two micros per event."""
    page = separable_page(random.Random(seed), with_floors=False)
    decision = decided_always(allocation, page)
    for advertiser in {ad.advertiser for ad in page.ads}:
        winners = [name for name in decision.prices if ad_of(page, name).advertiser == advertiser]
        own = {ad.name for ad in page.ads if ad.advertiser == advertiser}
        own_value = sum(
            (attention_of(page, decision, name) * naive.score(ad_of(page, name)) for name in winners), Fraction(0)
        )
        harm = best_welfare(naive.without_ads(page, own)) - (welfare(page, decision) - own_value)
        per_micro = {name: attention_of(page, decision, name) * ad_of(page, name).weight for name in winners}
        paid = sum((per_micro[name] * decision.prices[name].vcg for name in winners), Fraction(0))
        if winners:
            assert harm <= paid < harm + 2 * MICRO * sum(per_micro.values())
        else:
            assert harm == 0


@of_every_allocation
@always
@given(seed=seeds)
def test_on_a_separable_page_an_advertiser_gains_nothing_under_vcg_by_bidding_otherwise(
    allocation: Allocation, seed: int
) -> None:
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

    honest = decided_always(allocation, page)
    rounded = sum((attention_of(page, honest, name) * ad.weight for name, ad in own.items()), Fraction(0))
    for _ in range(4):
        others = [0, *[ad.bid for ad in page.ads], *[price.critical for price in honest.prices.values()]]
        otherwise = page
        for name in own:
            otherwise = naive.with_bid(otherwise, name, chance.choice(others) + chance.choice([0, 0, 1]))
        decision = decided_always(allocation, otherwise)
        assert gain(decision) <= gain(honest) + 2 * MICRO * rounded  # each price is rounded up twice


@of_every_allocation
@always
@given(page=crowded_pages, seed=seeds)
def test_under_vcg_an_advertiser_with_one_candidate_gains_nothing_by_bidding_otherwise(
    allocation: Allocation, page: naive.Page, seed: int
) -> None:
    chance = random.Random(seed)
    single = [
        ad
        for ad in page.ads
        if ad.advertiser is not None and sum(other.advertiser == ad.advertiser for other in page.ads) == 1
    ]
    assume(single)
    ad = chance.choice(single)
    decision = allocation.decided(page)

    def gain(decision: Decision) -> Fraction:
        attention = attention_of(page, decision, ad.name)
        return attention * (ad.bid - decision.prices[ad.name].vcg) if attention else Fraction(0)

    rivals = {price.critical for price in decision.prices.values()} | {other.bid for other in page.ads}
    for bid in [*chance.sample(sorted(rivals), min(len(rivals), 4)), 0, chance.randint(0, 2 * ad.bid + 2)]:
        otherwise = gain(allocation.decided(naive.with_bid(page, ad.name, bid)))
        assert otherwise - gain(decision) < MICRO  # a price is rounded up to a micro


@of_every_allocation
def test_a_page_without_slots_or_without_candidates_is_decided_too(allocation: Allocation) -> None:
    assert allocation.decide(naive.Page(attention={"click": []}, ads=[])) == Decision([], [], {})
    empty = naive.Page(attention={"click": [Fraction(1)] * 3}, ads=[])
    assert allocation.decide(empty) == Decision([None] * 3, [-1] * 3, {})
