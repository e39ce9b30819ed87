"""The page worth most, and its prices, as the formulas say: every set of slots is tried, in exact numbers.

Candidates are gone through one by one, and of all ways to have filled the same slots with the same room left in the
caps only the best is kept. Shares the words of `naive` (what may stand where, when a cap is full), nothing with the
kernel.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from tests.auction import naive
from tests.auction.naive import Ad, Page

UNIT = 10**9  # worth is a whole number of billionths of a micro, since attention has 3 decimals and weights have 6

Key = tuple[object, ...]  # what a fill uses up: a cap, a brand's share of one, a product
Fills = dict[int, Ad]


@dataclass(frozen=True)
class State:
    """Slots filled so far, and what is used up of what candidates to come use too."""

    slots: frozenset[int]
    used: frozenset[tuple[Key, int]]


def net_worth(page: Page, ad: Ad, slot: int) -> int:
    """Return what the pair adds to the page's worth: its value less, for a paid one, the slot's opportunity cost."""
    cost = Fraction(page.opportunity_cost.get(slot, 0)) if ad.advertiser is not None else Fraction(0)
    worth = (naive.pair_value(page, ad, slot) - cost) * UNIT
    assert worth.denominator == 1
    return int(worth)


def uses(page: Page, ad: Ad, slot: int) -> list[Key]:
    """Return what the pair uses up one of."""
    caps: list[Key] = [
        (number, ad.brand if cap.per_brand else None) for number, cap in enumerate(page.caps) if cap.binds(ad, slot)
    ]
    return [("product", ad.product), *caps]


def room(page: Page, key: Key) -> int:
    """Return how many pairs may use it, pins taken off."""
    pinned = sum(key in uses(page, pin, slot) for slot, pin in page.pins.items())
    if key[0] == "product":
        return 1 - pinned
    number = key[0]
    assert isinstance(number, int)
    return page.caps[number].maximum - pinned


def preference(page: Page, ads: Iterable[Ad]) -> dict[tuple[str, int], int]:
    """Return a bit for each pair, the higher the earlier it comes in the greedy order.

    The sum over a page's pairs is the greater of two exactly if the page takes the first pair they differ in.
    """
    pairs = sorted(
        (-naive.pair_value(page, ad, slot), slot, ad.tie, ad.name)
        for ad in ads
        for slot in range(page.slot_count)
        if slot not in page.pins and naive.may_stand(page, ad, slot)
    )
    return {(name, slot): 1 << (len(pairs) - 1 - rank) for rank, (_, slot, _, name) in enumerate(pairs)}


def best_states(page: Page, ads: list[Ad], last: Ad | None = None) -> dict[State, tuple[int, int, Fills]]:
    """Return worth, preference and fills of the best page for each state in the end.

    Args:
        last: a candidate to come after the others: what it uses is kept in the states.
    """
    free = [slot for slot in range(page.slot_count) if slot not in page.pins]
    bits = preference(page, ads)
    together = last.brand if last is not None else ""
    rest = sorted(ads, key=lambda ad: (ad.brand == together, ad.brand, ad.product))
    wanted = [{key for slot in free for key in uses(page, ad, slot)} for ad in [*rest, *([last] if last else [])]]
    states: dict[State, tuple[int, int, Fills]] = {State(frozenset(), frozenset()): (0, 0, {})}
    for number, ad in enumerate(rest):
        still_wanted = set().union(*wanted[number + 1 :])
        pairs = [
            (slot, uses(page, ad, slot), net_worth(page, ad, slot), bits[ad.name, slot])
            for slot in free
            if (ad.name, slot) in bits
        ]
        rooms = {key: room(page, key) for _, keys, _, _ in pairs for key in keys}
        found: dict[State, tuple[int, int, Fills]] = {}

        def keep(
            state: State,
            worth: int,
            preferred: int,
            fills: Fills,
            still_wanted: set[Key] = still_wanted,
            found: dict[State, tuple[int, int, Fills]] = found,
        ) -> None:
            state = State(state.slots, frozenset(item for item in state.used if item[0] in still_wanted))
            if state not in found or (worth, preferred) > found[state][:2]:
                found[state] = (worth, preferred, fills)

        for state, (worth, preferred, fills) in states.items():
            keep(state, worth, preferred, fills)
            used = dict(state.used)
            for slot, keys, adds, bit in pairs:
                if slot in state.slots or any(used.get(key, 0) >= rooms[key] for key in keys):
                    continue
                more = used | {key: used.get(key, 0) + 1 for key in keys}
                keep(
                    State(state.slots | {slot}, frozenset(more.items())),
                    worth + adds,
                    preferred | bit,
                    fills | {slot: ad},
                )
        states = found
    return states


def allocate(page: Page, ads: list[Ad] | None = None) -> Fills:
    """Return the page worth most; of several, the one that takes the first pairs in the greedy order."""
    states = best_states(page, naive.taking_part(page) if ads is None else ads)
    return max(states.values(), key=lambda found: found[:2])[2]


def worth(page: Page, fills: Fills) -> int:
    return sum(net_worth(page, ad, slot) for slot, ad in fills.items())


def in_greedy_order(page: Page, fills: Fills) -> list[int]:
    """Return the slots filled, the most valuable pair first."""
    return sorted(fills, key=lambda slot: (-naive.pair_value(page, fills[slot], slot), slot, fills[slot].tie))


def worth_of_the_others(page: Page, ads: list[Ad], ad: Ad) -> dict[int | None, int]:
    """Return the most the others make of the page without the ad (None), and with it in each slot it may have."""
    states = best_states(page, [other for other in ads if other.name != ad.name], ad)
    best: dict[int | None, int] = {None: max(found[0] for found in states.values())}
    for slot in range(page.slot_count):
        if slot in page.pins or page.attention[ad.charge][slot] == 0:
            continue
        if ad.slots is not None and slot not in ad.slots:
            continue
        keys = uses(page, ad, slot)
        open_to_it = [
            found[0]
            for state, found in states.items()
            if slot not in state.slots and all(dict(state.used).get(key, 0) < room(page, key) for key in keys)
        ]
        if open_to_it:
            best[slot] = max(open_to_it)
    return best


def least_bids(page: Page, ads: list[Ad], ad: Ad) -> dict[int, int]:
    """Return for each slot the ad may have the least bid with which it gets at least as much attention as there."""
    others = worth_of_the_others(page, ads, ad)
    attention = page.attention[ad.charge]
    floor, most = naive.eager_floor(page, ad), 10**9

    lines = {}  # worth of the page with the ad in a slot: at a bid of 0, and more for each micro
    for slot, worth in others.items():
        if slot is not None:
            at_nothing, at_one = (net_worth(page, replace(ad, bid=bid), slot) for bid in (0, 1))
            lines[slot] = (worth + at_nothing, at_one - at_nothing)

    def lead(bid: int, level: Fraction) -> int:
        """Return how much more the best page is worth in which the ad gets that attention than the best other one."""
        enough = [begin + more * bid for slot, (begin, more) in lines.items() if attention[slot] >= level]
        less = [begin + more * bid for slot, (begin, more) in lines.items() if attention[slot] < level]
        return max(enough) - max([*less, others[None]])

    def gets(bid: int, level: Fraction) -> bool:
        at_bid = naive.with_bid(replace(page, ads=ads), ad.name, bid)
        fills = allocate(at_bid, at_bid.ads)
        return any(other.name == ad.name and attention[slot] >= level for slot, other in fills.items())

    found = {}
    for slot in lines:
        if lead(most, attention[slot]) < 0:
            continue
        low, high = max(0, floor), most
        while low < high:
            middle = (low + high) // 2
            if lead(middle, attention[slot]) >= 0:
                high = middle
            else:
                low = middle + 1
        is_tie = lead(low, attention[slot]) == 0
        found[slot] = low + 1 if is_tie and not gets(low, attention[slot]) else low
    return found


def price(page: Page, fills: Fills, slot: int) -> naive.Price:
    """Return both prices of the paid winner of a slot."""
    ad = fills[slot]
    order = in_greedy_order(page, fills)
    placed = {other.name for other in fills.values()}
    later = {fills[s].name for s in order[order.index(slot) + 1 :] if fills[s].advertiser == ad.advertiser}
    ads = [other for other in naive.taking_part(page) if other.advertiser != ad.advertiser or other.name in placed]
    attention = page.attention[ad.charge]

    def to_reach(level: Fraction, least: dict[int, int]) -> float:
        return min((bid for u, bid in least.items() if attention[u] >= level), default=math.inf)

    thresholds = least_bids(page, ads, ad)
    stair = least_bids(page, [other for other in ads if other.name not in later], ad) if later else thresholds
    critical = min(to_reach(attention[slot], thresholds), to_reach(attention[slot], stair))
    assert isinstance(critical, int)
    lower = harm = Fraction(0)
    for level in sorted({level for level in attention if 0 < level <= attention[slot]}):
        harm += (level - lower) * int(min(critical, to_reach(level, stair)))
        lower = level
    return naive.Price(critical, math.ceil(harm / attention[slot]), thresholds)


def prices(page: Page, fills: Fills) -> dict[str, naive.Price]:
    """Return the prices of every paid winner."""
    return {ad.name: price(page, fills, slot) for slot, ad in fills.items() if ad.advertiser is not None}
