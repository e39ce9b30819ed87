"""Many auctions in one call are decided as each alone: same fills, same prices, same thresholds, bit for bit."""

import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.kernel import (
    NO_PIN,
    SHORTLIST_COUNT,
    CandidateArrays,
    Int64s,
    OutcomeArrays,
    PageArrays,
    allocate_and_price_nb,
    hold_auctions_nb,
)
from tests.auction import naive
from tests.auction.pages import decide_naively, pages, random_page, read_decision, to_arrays


def join(auctions: Sequence[tuple[CandidateArrays, int]]) -> tuple[CandidateArrays, Int64s]:
    """Return the auctions' candidates one after the other, and where each begins."""
    begin = np.cumsum([0, *[count for _, count in auctions]]).astype(np.int64)
    columns = zip(*[[array[:count] for array in arrays] for arrays, count in auctions], strict=True)
    return CandidateArrays(*[np.concatenate(column) for column in columns]), begin


def hold_together(page: PageArrays, auctions: Sequence[tuple[CandidateArrays, int]], pins: Int64s) -> Int64s:
    slot_count = page.pinned_row.size
    block = np.full((len(auctions), 4 + slot_count, slot_count), -77, np.int64)
    joined, begin = join(auctions)
    filled = hold_auctions_nb(joined, begin, page, pins, block)
    assert filled == (block[:, 3] >= 0).sum()
    return block


def hold_alone(page: PageArrays, candidates: CandidateArrays, count: int, pinned_row: Int64s) -> Int64s:
    slot_count = page.pinned_row.size
    block = np.full((4 + slot_count, slot_count), -77, np.int64)
    arrays = OutcomeArrays(block[0], block[1], block[2], block[4:], block[3])
    allocate_and_price_nb(candidates, count, page._replace(pinned_row=pinned_row), SHORTLIST_COUNT, arrays)
    return block


def simple_page(chance: random.Random) -> naive.Page:
    """Return a page that ranking can fill, or nearly so: one charge type, caps that may bind, ties, siblings."""
    slot_count, ad_count = chance.randint(1, 6), chance.randint(0, 14)
    every = frozenset(range(slot_count))
    is_coarse, has_twins = chance.random() < 0.5, chance.random() < 0.2
    ties = chance.sample(range(ad_count), ad_count)
    attention = [Fraction(chance.randint(1, 20), 20) for _ in every]
    if chance.random() < 0.8:
        attention.sort(reverse=True)
    if chance.random() < 0.2:
        attention[-1] = Fraction(0)
    brands = "ABC" if chance.random() < 0.3 else [f"b{number}" for number in range(40)]
    caps = []
    if chance.random() < 0.4:
        caps.append(naive.Cap(every, chance.randint(1, 2), per_brand=True))
    if chance.random() < 0.5:
        caps.append(naive.Cap(every, chance.randint(0, slot_count), "paid"))

    def an_ad(number: int) -> naive.Ad:
        brand = chance.choice(brands)
        is_organic = chance.random() < 0.05
        return naive.Ad(
            name=f"a{number}",
            product=chance.choice([f"a{number}", "p1"]) if has_twins else f"a{number}",
            brand=brand,
            advertiser=None if is_organic else chance.choice([brand, brand, brand, "Z"]),
            charge="click",
            bid=0 if is_organic else chance.choice([chance.randint(0, 9) if is_coarse else chance.randint(0, 10**6)]),
            weight=Fraction(500_000 * chance.randint(1, 2) if is_coarse else chance.randint(1, 4_000_000), 1_000_000),
            value=Fraction(chance.choice([1, 1, 2, chance.randint(1, 9)])) if is_organic or is_coarse else Fraction(0),
            floor=0 if is_organic else chance.choice([0, 0, chance.randint(0, 9 if is_coarse else 10**6)]),
            tie=ties[number],
            slots=None,
            groups=frozenset(),
        )

    return naive.Page(
        attention={"click": attention},
        ads=[an_ad(number) for number in range(ad_count)],
        caps=caps,
        pins={},
        opportunity_cost={},
        score_floor=Fraction(0),
    )


def without_some(chance: random.Random, candidates: CandidateArrays, count: int) -> tuple[CandidateArrays, int]:
    """Return the same candidates after some spent their budgets and others' bids were moved."""
    draws = np.random.default_rng(chance.randrange(2**32))
    closed = draws.random(count) < chance.choice([0.0, 0.3, 0.9])
    bids = np.where(draws.random(count) < 0.5, candidates.bid_micros[:count] // 2, candidates.bid_micros[:count])
    slots = np.where(closed, np.uint64(0), candidates.eligible_slots[:count])
    return candidates._replace(bid_micros=bids, eligible_slots=slots), count


def check(page: naive.Page, chance: random.Random) -> Int64s:
    """Hold a page, and the same after some spent their budgets, together and alone; return the outcomes."""
    candidates, count, arrays, outcome = to_arrays(page)
    auctions = [(candidates, count), *[without_some(chance, candidates, count) for _ in range(3)]]
    pins = np.tile(arrays.pinned_row, (len(auctions), 1))
    pins[2] = NO_PIN
    together = hold_together(arrays, auctions, pins)
    for (these, how_many), pinned_row, block in zip(auctions, pins, together, strict=True):
        assert np.array_equal(block, hold_alone(arrays, these, how_many, pinned_row))
    first = together[0]
    for name, rows in zip(outcome._fields, (first[0], first[1], first[2], first[4:], first[3]), strict=True):
        getattr(outcome, name)[...] = rows
    assert read_decision(page, outcome) == decide_naively(page)
    return together


@given(pages(), st.integers(0, 2**32 - 1))
def test_any_pages_are_decided_together_as_alone_and_on_the_whiteboard(page: naive.Page, seed: int) -> None:
    check(page, random.Random(seed))


@given(st.integers(0, 2**32 - 1))
def test_full_pages_are_decided_together_as_alone(seed: int) -> None:
    chance = random.Random(seed)
    check(random_page(chance), chance)


@given(st.integers(0, 2**32 - 1))
def test_pages_that_ranking_can_fill_are_decided_as_on_the_whiteboard(seed: int) -> None:
    chance = random.Random(seed)
    check(simple_page(chance), chance)


@pytest.mark.parametrize("slot_count", [3, 12])
def test_every_bound_at_once_overflows_nothing(slot_count: int) -> None:
    count = 20
    rows = np.arange(count)
    candidates = CandidateArrays(
        bid_micros=np.full(count, 10**9),
        weight_ppm=np.full(count, 4_000_000),
        value_micros=np.full(count, 10**9),
        floor_micros=np.full(count, 10**9),
        advertiser_code=rows.astype(np.int32),
        brand_code=rows.astype(np.int32),
        product_code=rows.astype(np.int32),
        charge_code=np.zeros(count, np.int8),
        tie_key=(rows[::-1].astype(np.uint64) << np.uint64(59)) + np.uint64(7),
        eligible_slots=np.full(count, 2**64 - 1, np.uint64),
        group_bits=np.zeros(count, np.uint64),
    )
    page = PageArrays(
        attention_permille=np.full((2, slot_count), 1000),
        opportunity_cost=np.zeros(slot_count, np.int64),
        pinned_row=np.full(slot_count, NO_PIN),
        cap_bits=np.zeros(0, np.uint64),
        cap_per_brand=np.zeros(0, np.int8),
        cap_slots=np.zeros(0, np.uint64),
        cap_max=np.zeros(0, np.int64),
    )
    if slot_count == 12:
        candidates = candidates._replace(bid_micros=candidates.bid_micros - 1, floor_micros=np.zeros(count, np.int64))
    together = hold_together(page, [(candidates, count)], page.pinned_row[None])
    assert np.array_equal(together[0], hold_alone(page, candidates, count, page.pinned_row))
    assert (together[0, 0] == np.arange(count - 1, count - 1 - slot_count, -1)).all()


def test_more_candidates_than_ranking_takes_are_still_decided_alike() -> None:
    chance = random.Random(5)
    page = simple_page(random.Random(2))
    page = naive.Page(
        **{
            **vars(page),
            "ads": [
                naive.Ad(
                    **{
                        **vars(ad),
                        "name": f"{ad.name}-{copy}",
                        "product": f"{ad.name}-{copy}",
                        "tie": copy * 50 + ad.tie,
                    }
                )
                for copy in range(1100 // max(1, len(page.ads)) + 1)
                for ad in page.ads
            ],
        }
    )
    candidates, count, arrays, _ = to_arrays(page)
    assert count > 1024
    auctions = [(candidates, count), without_some(chance, candidates, count)]
    pins = np.tile(arrays.pinned_row, (2, 1))
    for (these, how_many), block in zip(auctions, hold_together(arrays, auctions, pins), strict=True):
        assert np.array_equal(block, hold_alone(arrays, these, how_many, arrays.pinned_row))
