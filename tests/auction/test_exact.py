"""The page worth most: equal to the whiteboard's; and where the greedy page stays.

What holds of every allocation is in `test_allocation.py`.
"""

import random
from fractions import Fraction

import numpy as np
from hypothesis import assume, given, settings

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
    SLOT_COUNT_MAX,
    VALUE_MICROS_MAX,
    WEIGHT_PPM_MAX,
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
    fill_exactly,
    fill_greedily,
    random_page,
    seeds,
    separable_page,
    sold,
    to_arrays,
)

always = settings(max_examples=300)
small_pages = seeds.map(lambda seed: random_page(random.Random(seed), ads_max=8, slots_max=4))


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
def test_on_a_separable_page_it_is_the_greedy_page_at_the_same_prices(seed: int) -> None:
    page = separable_page(random.Random(seed), with_floors=True)
    exact, greedy = decide_exactly(page), decide(page)
    assert exact is not None
    assert (exact.fills, exact.order) == (greedy.fills, greedy.order)
    assert {name: (price.critical, price.vcg) for name, price in exact.prices.items()} == {
        name: (price.critical, price.vcg) for name, price in greedy.prices.items()
    }


@always
@given(crowded_pages)
def test_who_has_no_slot_is_told_why(page: naive.Page) -> None:
    candidates, count, arrays, outcome = to_arrays(page)
    assume(fill_exactly(candidates, count, arrays, outcome) == EXACT_DONE)
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
    fill_greedily(candidates, count, arrays, outcome)
    before = [array.tobytes() for array in outcome]
    assert allocate_exactly_nb(candidates, count, arrays, EXACT_STEPS_MAX, outcome) == EXACT_NOT_EXPRESSIBLE
    assert [array.tobytes() for array in outcome] == before
    assert decide_exactly(one_placement([PER_BRAND], with_organic=True)) is not None
    loose = naive.Cap(EVERY, 3, "paid")
    assert decide_exactly(one_placement([PER_BRAND, loose], with_organic=True)) is not None, "it cannot bind"


def test_work_that_runs_out_leaves_the_greedy_page() -> None:
    page = one_placement([PER_BRAND])
    candidates, count, arrays, outcome = to_arrays(page)
    fill_greedily(candidates, count, arrays, outcome)
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
