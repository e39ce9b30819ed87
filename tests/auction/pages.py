"""Random pages for the auction's tests, and the way from a page of the naive twin to the kernel's arrays."""

import random
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from auction.kernel import (
    EXACT_DONE,
    EXACT_STEPS_MAX,
    GROUP_EVERYONE,
    GROUP_FIRST_FREE,
    GROUP_PAID,
    NO_ADVERTISER,
    NO_CANDIDATE,
    NO_PIN,
    SHORTLIST_COUNT,
    UNATTAINABLE,
    CandidateArrays,
    OutcomeArrays,
    PageArrays,
    allocate_and_price_nb,
    allocate_exactly_nb,
)
from tests.auction import naive, naive_exact

PPM = 1_000_000


@dataclass(frozen=True)
class Decision:
    """What the kernel decided, in the naive twin's words."""

    fills: list[str | None]
    order: list[int]
    prices: dict[str, naive.Price]


def codes(words: list[str]) -> dict[str, int]:
    return {word: code for code, word in enumerate(dict.fromkeys(words))}


def to_arrays(page: naive.Page) -> tuple[CandidateArrays, int, PageArrays, OutcomeArrays]:
    """Return the kernel's arguments; pinned ads become rows of their own, behind the others."""
    slot_count = page.slot_count
    pins = list(page.pins.items())
    ads = page.ads + [ad for _, ad in pins]
    brands, products = codes([ad.brand for ad in ads]), codes([ad.product for ad in ads])
    advertisers = codes([ad.advertiser for ad in ads if ad.advertiser is not None])
    charges = codes(list(page.attention))
    groups = codes([group for ad in ads for group in sorted(ad.groups)] + [cap.group or "" for cap in page.caps])

    def bits_of(group: str | None) -> int:
        if group is None:
            return GROUP_EVERYONE
        return GROUP_PAID if group == "paid" else GROUP_FIRST_FREE << groups[group]

    def slot_bits(slots: frozenset[int] | None) -> int:
        return sum(1 << slot for slot in (range(slot_count) if slots is None else slots))

    candidates = CandidateArrays(
        bid_micros=np.array([ad.bid for ad in ads], np.int64),
        weight_ppm=np.array([int(ad.weight * PPM) for ad in ads], np.int64),
        value_micros=np.array([int(ad.value) for ad in ads], np.int64),
        floor_micros=np.array([naive.eager_floor(page, ad) for ad in ads], np.int64),
        advertiser_code=np.array(
            [NO_ADVERTISER if ad.advertiser is None else advertisers[ad.advertiser] for ad in ads], np.int32
        ),
        brand_code=np.array([brands[ad.brand] for ad in ads], np.int32),
        product_code=np.array([products[ad.product] for ad in ads], np.int32),
        charge_code=np.array([charges[ad.charge] for ad in ads], np.int8),
        tie_key=np.array([ad.tie for ad in ads], np.uint64),
        eligible_slots=np.array([slot_bits(ad.slots) for ad in page.ads] + [0] * len(pins), np.uint64),
        group_bits=np.array([sum(bits_of(group) for group in ad.groups) for ad in ads], np.uint64),
    )
    pinned_row = np.full(slot_count, NO_PIN, np.int64)
    for place, (slot, _) in enumerate(pins):
        pinned_row[slot] = len(page.ads) + place
    arrays = PageArrays(
        attention_permille=np.array(
            [[int(a * 1000) for a in profile] for profile in page.attention.values()], np.int64
        ),
        opportunity_cost=np.array(
            [int(page.opportunity_cost.get(slot, Fraction(0)) * 1000 * PPM) for slot in range(slot_count)], np.int64
        ),
        pinned_row=pinned_row,
        cap_bits=np.array([bits_of(cap.group) for cap in page.caps], np.uint64),
        cap_per_brand=np.array([cap.per_brand for cap in page.caps], np.int8),
        cap_slots=np.array([slot_bits(cap.slots) for cap in page.caps], np.uint64),
        cap_max=np.array([cap.maximum for cap in page.caps], np.int64),
    )
    return candidates, len(ads), arrays, new_outcome(slot_count)


def new_outcome(slot_count: int) -> OutcomeArrays:
    """Return outcome arrays full of a number nobody would write."""
    return OutcomeArrays(
        *[np.full(slot_count, -77, np.int64) for _ in range(3)],
        np.full((slot_count, slot_count), -77, np.int64),
        np.full(slot_count, -77, np.int64),
    )


def fill_greedily(candidates: CandidateArrays, count: int, arrays: PageArrays, outcome: OutcomeArrays) -> int:
    """Fill the page greedily; return how many slots were filled."""
    return int(allocate_and_price_nb(candidates, count, arrays, SHORTLIST_COUNT, outcome))


def fill_exactly(candidates: CandidateArrays, count: int, arrays: PageArrays, outcome: OutcomeArrays) -> int:
    """Fill the page for the most worth, from the greedy one; return what the kernel says of it."""
    fill_greedily(candidates, count, arrays, outcome)
    return int(allocate_exactly_nb(candidates, count, arrays, EXACT_STEPS_MAX, outcome))


def decide(page: naive.Page, shortlist_count: int = SHORTLIST_COUNT) -> Decision:
    """Decide the page with the kernel."""
    candidates, count, arrays, outcome = to_arrays(page)
    filled = allocate_and_price_nb(candidates, count, arrays, shortlist_count, outcome)
    assert filled == sum(order >= 0 for order in outcome.pick_order)
    return read_decision(page, outcome)


def decide_exactly(page: naive.Page) -> Decision | None:
    """Decide the page with the kernel for the most worth; None where its caps cannot be expressed."""
    candidates, count, arrays, outcome = to_arrays(page)
    made = fill_exactly(candidates, count, arrays, outcome)
    decision = read_decision(page, outcome)
    if made != EXACT_DONE:
        assert decision == decide(page), "what cannot be made better stays as it was"
        return None
    return decision


def read_decision(page: naive.Page, outcome: OutcomeArrays) -> Decision:
    ads = page.ads + list(page.pins.values())
    names = [None if row == NO_CANDIDATE else ads[row].name for row in outcome.winner_row]
    prices = {}
    for slot, row in enumerate(outcome.winner_row.tolist()):
        if row != NO_CANDIDATE and slot not in page.pins and ads[row].advertiser is not None:
            row_of_thresholds = outcome.threshold_micros[slot].tolist()
            prices[ads[row].name] = naive.Price(
                int(outcome.critical_micros[slot]),
                int(outcome.vcg_micros[slot]),
                {u: least for u, least in enumerate(row_of_thresholds) if least != UNATTAINABLE},
            )
        else:
            assert outcome.critical_micros[slot] == outcome.vcg_micros[slot] == 0
            assert (outcome.threshold_micros[slot] == UNATTAINABLE).all()
    return Decision(names, outcome.pick_order.tolist(), prices)


def decide_naively(page: naive.Page) -> Decision:
    """Decide the page with the naive twin."""
    picks = naive.allocate(page)
    standing = page.pins | {pick.slot: pick.ad for pick in picks}
    order = {pick.slot: step for step, pick in enumerate(picks)}
    return Decision(
        [standing[slot].name if slot in standing else None for slot in range(page.slot_count)],
        [order.get(slot, -1) for slot in range(page.slot_count)],
        naive.prices(page),
    )


def decide_exactly_and_naively(page: naive.Page) -> Decision:
    """Decide the page for the most worth with the naive twin."""
    fills = naive_exact.allocate(page)
    standing = page.pins | fills
    order = {slot: step for step, slot in enumerate(naive_exact.in_greedy_order(page, fills))}
    return Decision(
        [standing[slot].name if slot in standing else None for slot in range(page.slot_count)],
        [order.get(slot, -1) for slot in range(page.slot_count)],
        naive_exact.prices(page, fills),
    )


def ad_of(page: naive.Page, name: str) -> naive.Ad:
    return next(ad for ad in [*page.ads, *page.pins.values()] if ad.name == name)


def slot_of(decision: Decision, name: str) -> int | None:
    return decision.fills.index(name) if name in decision.fills else None


def attention_of(page: naive.Page, decision: Decision, name: str) -> Fraction:
    slot = slot_of(decision, name)
    return Fraction(0) if slot is None else page.attention[ad_of(page, name).charge][slot]


def sold(page: naive.Page, decision: Decision) -> dict[int, naive.Ad]:
    """Return what stands in the slots that are not pinned."""
    return {
        slot: ad_of(page, name)
        for slot, name in enumerate(decision.fills)
        if name is not None and slot not in page.pins
    }


# Small numbers make ties, which is where exactness shows; a few large ones make every digit matter.
seeds = st.integers(0, 2**32 - 1)
bids = st.one_of(st.integers(0, 12), st.integers(0, 5_000_000))
weights = st.one_of(
    st.sampled_from([Fraction(1), Fraction(1, 2), Fraction(2)]), st.integers(1, 4 * PPM).map(lambda w: Fraction(w, PPM))
)
values = st.one_of(st.just(Fraction(0)), st.integers(0, 6).map(Fraction), st.integers(0, 2_000_000).map(Fraction))
attention_levels = st.one_of(st.sampled_from([1000, 500, 250]), st.integers(1, 1000)).map(lambda a: Fraction(a, 1000))


@st.composite
def pages(draw: st.DrawFn) -> naive.Page:
    """Draw a page that shrinks well: some slots in two placements, caps of each and of the page, candidates."""
    slot_count = draw(st.integers(1, 6))
    every = frozenset(range(slot_count))
    some_slots = st.frozensets(st.integers(0, slot_count - 1))
    ad_count = draw(st.integers(0, 10))
    ties = draw(st.permutations(range(ad_count + slot_count)))
    charges = ("click", "impression")

    def draw_ad(number: int, name: str) -> naive.Ad:
        is_organic = draw(st.integers(0, 3)) == 3
        brand = draw(st.sampled_from("ABCD"))
        value = draw(values)
        return naive.Ad(
            name=name,
            product=draw(st.sampled_from([name, name, "p1", "p2"])),
            brand=brand,
            advertiser=None if is_organic else draw(st.sampled_from([brand, brand, "Z"])),
            charge=draw(st.sampled_from(charges)),
            bid=0 if is_organic else draw(bids),
            weight=draw(weights),
            value=max(value, Fraction(1)) if is_organic else value,
            floor=0 if is_organic else draw(st.one_of(st.just(0), bids)),
            tie=ties[number],
            slots=draw(st.one_of(st.none(), some_slots)),
            groups=draw(st.sampled_from([frozenset[str](), frozenset({"new"})])),
        )

    caps = []
    first_half = frozenset(range(slot_count // 2))
    for slots in (every, first_half, every - first_half):
        if draw(st.booleans()):
            caps.append(naive.Cap(slots, draw(st.integers(0, 3)), per_brand=True))
        if draw(st.booleans()):
            group = draw(st.sampled_from(["paid", "new", None]))
            caps.append(naive.Cap(slots, draw(st.integers(0, 3)), group, per_brand=draw(st.booleans())))
    pinned = draw(st.one_of(st.just(frozenset[int]()), some_slots))
    costly = draw(st.one_of(st.just(frozenset[int]()), some_slots))
    profile = st.lists(attention_levels, min_size=slot_count, max_size=slot_count)
    return naive.Page(
        attention={charge: draw(profile) for charge in charges},
        ads=[draw_ad(number, f"a{number}") for number in range(ad_count)],
        caps=caps,
        pins={slot: draw_ad(ad_count + slot, f"pin{slot}") for slot in sorted(pinned)},
        opportunity_cost={slot: Fraction(draw(bids), 2) for slot in sorted(costly)},
        score_floor=draw(values),
    )


def random_page(chance: random.Random, ads_max: int = 12, slots_max: int = 6) -> naive.Page:
    """Return a page as full as they come: most slots sold, ties and shared products likely, caps that bind."""
    slot_count = chance.randint(1, slots_max)
    every = frozenset(range(slot_count))
    ad_count = chance.randint(0, ads_max)
    ties = chance.sample(range(ad_count + slot_count), ad_count + slot_count)
    charges = chance.choice([("click",), ("click", "impression"), ("impression", "click")])
    coarse = chance.random() < 0.5  # small numbers, so that ties are common

    def some_slots() -> frozenset[int]:
        return frozenset(slot for slot in every if chance.random() < 0.6)

    def a_bid() -> int:
        return chance.randint(0, 9) if coarse else chance.randint(0, 3_000_000)

    def an_ad(number: int, name: str) -> naive.Ad:
        is_organic = chance.random() < 0.2
        brand = chance.choice("ABCDE")
        value = Fraction(chance.choice([0, 0, chance.randint(0, 5) if coarse else chance.randint(0, 500_000)]))
        return naive.Ad(
            name=name,
            product=chance.choice([name, name, name, "p1", "p2"]),
            brand=brand,
            advertiser=None if is_organic else chance.choice([brand, brand, brand, "Y", "Z"]),
            charge=chance.choice(charges),
            bid=0 if is_organic else a_bid(),
            weight=Fraction(chance.choice([PPM, PPM // 2]) if coarse else chance.randint(1, 2 * PPM), PPM),
            value=max(value, Fraction(1)) if is_organic else value,
            floor=chance.choice([0, 0, a_bid()]),
            tie=ties[number],
            slots=chance.choice([None, None, some_slots()]),
            groups=chance.choice([frozenset[str](), frozenset[str](), frozenset({"new"})]),
        )

    caps = []
    for slots in (every, frozenset(range(slot_count // 2)), some_slots()):
        if chance.random() < 0.4:
            caps.append(naive.Cap(slots, chance.randint(1, 2), per_brand=True))
        if chance.random() < 0.3:
            group = chance.choice(["paid", "new", None])
            caps.append(naive.Cap(slots, chance.randint(0, slot_count), group, per_brand=chance.random() < 0.3))
    return naive.Page(
        attention={
            charge: sorted((Fraction(chance.randint(1, 20), 20) for _ in every), reverse=chance.random() < 0.8)
            for charge in charges
        },
        ads=[an_ad(number, f"a{number}") for number in range(ad_count)],
        caps=caps,
        pins={
            slot: an_ad(ad_count + slot, f"pin{slot}")
            for slot in every
            if chance.random() < chance.choice([0.0, 0.0, 0.3])
        },
        opportunity_cost={slot: Fraction(a_bid(), 2) for slot in every if chance.random() < chance.choice([0, 0, 0.4])},
        score_floor=Fraction(chance.choice([0, 0, a_bid()])) / 3,
    )


crowded_pages = seeds.map(lambda seed: random_page(random.Random(seed)))


def separable_page(chance: random.Random, *, with_floors: bool) -> naive.Page:
    """Return a page of one profile, without slot eligibility, all paid, with caps of the whole page."""
    slot_count = chance.randint(1, 3)
    every = frozenset(range(slot_count))
    ad_count = chance.randint(0, 6)
    ties = chance.sample(range(ad_count), ad_count)
    caps = [naive.Cap(every, chance.randint(1, 2), per_brand=True)] if chance.random() < 0.7 else []
    if chance.random() < 0.4:
        caps.append(naive.Cap(every, chance.randint(1, 3), "paid"))
    return naive.Page(
        attention={"click": sorted((Fraction(chance.randint(1, 20), 20) for _ in every), reverse=True)},
        ads=[
            naive.Ad(
                name=f"a{number}",
                product=f"a{number}",
                brand=(brand := chance.choice("ABCD")),
                advertiser=brand,
                charge="click",
                bid=chance.choice([chance.randint(0, 9), chance.randint(0, 3_000_000)]),
                weight=Fraction(chance.choice([PPM, chance.randint(1, 2 * PPM)]), PPM),
                value=Fraction(chance.randint(0, 9)) if with_floors else Fraction(0),
                floor=chance.randint(0, 5) if with_floors else 0,
                tie=ties[number],
            )
            for number in range(ad_count)
        ],
        caps=caps,
    )
