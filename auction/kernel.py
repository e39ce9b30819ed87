"""Compiled code of the auction: arrays and numbers in, arrays out, all money in integers.

Holds every kernel of the package, because numba's cache sees changes in this file only. No objects, no I/O, no clock.

Letters in shapes, everywhere in this file: C candidates, S slots of the page (all placements together, at most 64),
K charge types (rows of the attention table), F caps.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

Int8s = NDArray[np.int8]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

# ---------------------------------------------------------------------------------------------------------------------
# Allocation and pricing (DESIGN.md §4, docs/mechanism.md)
# ---------------------------------------------------------------------------------------------------------------------

SLOT_COUNT_MAX = 64  # slots are bits of a uint64
BID_MICROS_MAX = 10**9
WEIGHT_PPM_MAX = 4_000_000
VALUE_MICROS_MAX = 10**9
ATTENTION_PERMILLE_MAX = 1_000
SCORE_MAX = WEIGHT_PPM_MAX * BID_MICROS_MAX + VALUE_MICROS_MAX * 1_000_000  # 5·10^15
PAIR_VALUE_MAX = ATTENTION_PERMILLE_MAX * SCORE_MAX  # 5·10^18, inside int64

NO_CANDIDATE = -1  # in winner_row: nobody won the slot
NO_ADVERTISER = -1  # in advertiser_code: an organic candidate
NO_PIN = -1  # in pinned_row: the slot is sold
UNATTAINABLE = 2**62  # in threshold_micros: no bid wins this slot

GROUP_EVERYONE = 1  # bit of group_bits that the kernel sets for everybody
GROUP_PAID = 2  # bit of group_bits that the kernel sets for candidates with an advertiser
GROUP_FIRST_FREE = 4  # the caller's own groups (rule quotas) start at this bit
NO_MAXIMUM = SLOT_COUNT_MAX  # a cap_max that never binds

SHORTLIST_COUNT = 0  # the kernel's own choice, by the number of slots


class CandidateArrays(NamedTuple):
    """One row per candidate; arrays may be longer than `candidate_count` (buffers), the rest is not read.

    A product may have several rows (two sellers' bids, its organic entry): at most one of them gets a slot.

    Attributes:
        bid_micros: (C,) price offered for one billed event, 0 to BID_MICROS_MAX; 0 for an organic candidate.
        weight_ppm: (C,) events of that kind per million impressions times multiplier, 1 to WEIGHT_PPM_MAX.
        value_micros: (C,) h, the merchant's own value of one impression, 0 to VALUE_MICROS_MAX; organic: at least 1.
        floor_micros: (C,) least bid to take part, score floor included (see `eager_floor` in solve.py); not read for
            an organic candidate.
        advertiser_code: (C,) who pays, from 0; NO_ADVERTISER for an organic candidate. Nobody competes with its own.
        brand_code: (C,) what the caps per brand count.
        product_code: (C,) no product appears twice on the page.
        charge_code: (C,) row of the attention table, 0 to K-1.
        tie_key: (C,) lower wins an exact tie on one slot; distinct, or the answer depends on the order of rows.
        eligible_slots: (C,) bit u set: may take slot u. 0: takes no part (a pinned product's row, a gated one).
        group_bits: (C,) caller's groups from GROUP_FIRST_FREE up, for caps; 0 if none.
    """

    bid_micros: Int64s
    weight_ppm: Int64s
    value_micros: Int64s
    floor_micros: Int64s
    advertiser_code: Int32s
    brand_code: Int32s
    product_code: Int32s
    charge_code: Int8s
    tie_key: UInt64s
    eligible_slots: UInt64s
    group_bits: UInt64s


class PageArrays(NamedTuple):
    """The page: slots of all its placements one after the other, and the caps over them.

    A cap says: of the slots in `cap_slots`, at most `cap_max` go to candidates in any of the groups `cap_bits`, counted
    for each brand apart if `cap_per_brand`. So `brand_max` of a placement is (GROUP_EVERYONE, 1, its slots, brand_max),
    its `sponsored_max` is (GROUP_PAID, 0, its slots, sponsored_max), a cap of the page has all slots, "at least 2 of
    4 own brand" is at most 2 of the complement's group, and "no brand twice in a row" is one cap of 1 per pair of
    neighbouring slots.

    Attributes:
        attention_permille: (K, S) attention of each slot for each charge type, 0 to 1,000; need not fall.
        opportunity_cost: (S,) rho, least a·(w·b + H) of a paid candidate here, 0 to PAIR_VALUE_MAX: attention per
            mille x ppm x micros, so 1,000,000 x attention x h of the organic product it pushes out; else 0.
        pinned_row: (S,) candidate row already standing in the slot (counts towards caps, is not priced), or NO_PIN.
        cap_bits: (F,) groups it counts, GROUP_* or the caller's.
        cap_per_brand: (F,) 1: for each brand apart, 0: all together.
        cap_slots: (F,) slots it counts, as bits.
        cap_max: (F,) most fills, from 0.
    """

    attention_permille: Int64s
    opportunity_cost: Int64s
    pinned_row: Int64s
    cap_bits: UInt64s
    cap_per_brand: Int8s
    cap_slots: UInt64s
    cap_max: Int64s


class OutcomeArrays(NamedTuple):
    """Written in full for the page's S slots (arrays have exactly S slots).

    Attributes:
        winner_row: (S,) candidate row, NO_CANDIDATE where nothing won; pins stand here too.
        critical_micros: (S,) least bid that keeps the slot's attention; 0 for organic, pinned and empty slots.
        vcg_micros: (S,) harm done to others per billed event; 0 likewise.
        threshold_micros: (S, S) row s: least bid with which the winner of slot s would beat all comers to slot u
            (floor included), UNATTAINABLE where none does; a row of UNATTAINABLE for organic, pinned and empty slots.
        pick_order: (S,) when the slot was filled, from 0; -1 for pinned and empty slots.
    """

    winner_row: Int64s
    critical_micros: Int64s
    vcg_micros: Int64s
    threshold_micros: Int64s
    pick_order: Int64s


_CandidateArrays = types.NamedTuple(  # type: ignore[no-untyped-call]
    (types.int64[::1],) * 4 + (types.int32[::1],) * 3 + (types.int8[::1],) + (types.uint64[::1],) * 3, CandidateArrays
)
_PageArrays = types.NamedTuple(  # type: ignore[no-untyped-call]
    (
        types.int64[:, ::1],
        types.int64[::1],
        types.int64[::1],
        types.uint64[::1],
        types.int8[::1],
        types.uint64[::1],
        types.int64[::1],
    ),
    PageArrays,
)
_OutcomeArrays = types.NamedTuple(  # type: ignore[no-untyped-call]
    (types.int64[::1], types.int64[::1], types.int64[::1], types.int64[:, ::1], types.int64[::1]), OutcomeArrays
)


# Helpers take their types from `allocate_and_price_nb`, which is compiled with its signature when this file is
# imported; they must stand above it. Slot sets and group sets are int64 bit patterns in here, since numba turns
# int64 mixed with uint64 into float64.

_LANE_COUNT_MAX = 16
_NOBODY = -2  # an advertiser_code nobody has
_OF_ALL, _OF_BRAND, _OF_PRODUCT = 0, 1, 2  # whom a closure shuts out: everybody in its groups, one brand, one product


class _Pool(NamedTuple):
    """Copies of the candidates a run looks at, best first within each charge type.

    Attributes:
        first: (K+1,) where each charge type begins; the last one is the pool's size.
    """

    row: Int64s
    score: Int64s
    tie_key: UInt64s
    slots: Int64s
    bits: Int64s
    brand: Int32s
    product: Int32s
    advertiser: Int32s
    first: Int64s


class _LeftOut(NamedTuple):
    """Kinds of candidate of which the pool holds only the best, and the worst of each kind that it holds.

    A kind is one charge type, one set of eligible slots and one set of groups.
    """

    charge: Int64s
    slots: Int64s
    bits: Int64s
    score: Int64s
    tie_key: UInt64s


class _Run(NamedTuple):
    """State of a run. The first entries of every list are those of the steps it was resumed after.

    Attributes:
        next_at: (K, S) best place in the pool still open for the slot.
        fill_at, fill_value, fill_brand, fill_bits: (S,) what stands in a taken slot.
        closed_*: closures in order: who is shut out of which slots, and the pair that did it; slot -1 for a pin.
        step_at, step_slot, step_value: (S,) picks of the main run.
        closures_before: (S,) closures when the step began.
        next_before: (S, K, S) `next_at` when the step began.
    """

    next_at: Int64s
    fill_at: Int64s
    fill_value: Int64s
    fill_brand: Int32s
    fill_bits: Int64s
    closed_what: Int64s
    closed_code: Int64s
    closed_bits: Int64s
    closed_slots: Int64s
    closed_value: Int64s
    closed_slot: Int64s
    closed_tie_key: UInt64s
    step_at: Int64s
    step_slot: Int64s
    step_value: Int64s
    closures_before: Int64s
    next_before: Int64s


@njit(cache=True)
def _group_bits(candidates: CandidateArrays, row: int) -> int:
    bits = np.int64(candidates.group_bits[row]) | GROUP_EVERYONE
    if candidates.advertiser_code[row] >= 0:
        bits |= GROUP_PAID
    return bits


@njit(cache=True)
def _open_slots(page: PageArrays) -> int:
    """Return the slots that are sold, as bits."""
    slots = np.int64(0)
    for slot in range(page.pinned_row.size):
        if page.pinned_row[slot] < 0:
            slots |= np.int64(1) << slot
    return slots


@njit(cache=True)
def _score(candidates: CandidateArrays, row: int, open_slots: int, page: PageArrays, pin_count: int) -> int:
    """Return w·b + H, or 0 if the candidate takes no part."""
    if np.int64(candidates.eligible_slots[row]) & open_slots == 0:
        return 0
    bid = candidates.bid_micros[row]
    if bid < candidates.floor_micros[row] and candidates.advertiser_code[row] >= 0:
        return 0
    if pin_count:
        for slot in range(page.pinned_row.size):
            pinned = page.pinned_row[slot]
            if pinned >= 0 and candidates.product_code[pinned] == candidates.product_code[row]:
                return 0
    return candidates.weight_ppm[row] * bid + candidates.value_micros[row] * 1_000_000


@njit(cache=True)
def _sort_best_first(
    order: Int64s, begin: int, end: int, score: Int64s, tie_key: UInt64s, row: Int64s, spare: Int64s
) -> None:
    """Sort places begin..end-1 of `order` by score down, tie key up, row up (merge sort)."""
    width = 1
    while width < end - begin:
        for left in range(begin, end - width, 2 * width):
            middle = left + width
            right = min(middle + width, end)
            for at in range(left, middle):
                spare[at] = order[at]
            a, b, out = left, middle, left
            while a < middle and b < right:
                x, y = spare[a], order[b]
                if score[x] > score[y] or (
                    score[x] == score[y] and (tie_key[x] < tie_key[y] or (tie_key[x] == tie_key[y] and row[x] < row[y]))
                ):
                    order[out] = x
                    a += 1
                else:
                    order[out] = y
                    b += 1
                out += 1
            while a < middle:
                order[out] = spare[a]
                a += 1
                out += 1
        width *= 2


@njit(cache=True)
def _gather(candidates: CandidateArrays, kept_row: Int64s, kept_score: Int64s, count: int, charge_count: int) -> _Pool:
    """Return the pool of the first `count` kept rows."""
    first = np.zeros(charge_count + 1, np.int64)
    for at in range(count):
        first[candidates.charge_code[kept_row[at]] + 1] += 1
    for charge in range(charge_count):
        first[charge + 1] += first[charge]
    kept_tie_key = np.empty(count, np.uint64)
    order = np.empty(count, np.int64)
    place = first.copy()
    for at in range(count):
        row = kept_row[at]
        kept_tie_key[at] = candidates.tie_key[row]
        charge = candidates.charge_code[row]
        order[place[charge]] = at
        place[charge] += 1
    spare = np.empty(count, np.int64)
    for charge in range(charge_count):
        _sort_best_first(order, first[charge], first[charge + 1], kept_score, kept_tie_key, kept_row, spare)
    pool = _Pool(
        spare,
        np.empty(count, np.int64),
        np.empty(count, np.uint64),
        np.empty(count, np.int64),
        np.empty(count, np.int64),
        np.empty(count, np.int32),
        np.empty(count, np.int32),
        np.empty(count, np.int32),
        first,
    )
    for at in range(count):
        row = kept_row[order[at]]
        pool.row[at] = row
        pool.score[at] = kept_score[order[at]]
        pool.tie_key[at] = kept_tie_key[order[at]]
        pool.slots[at] = np.int64(candidates.eligible_slots[row])
        pool.bits[at] = _group_bits(candidates, row)
        pool.brand[at] = candidates.brand_code[row]
        pool.product[at] = candidates.product_code[row]
        pool.advertiser[at] = candidates.advertiser_code[row]
    return pool


@njit(cache=True)
def _sink(score: Int64s, row: Int64s, tie_key: UInt64s, base: int, size: int, at: int) -> None:
    """Restore the heap at base..base+size-1, worst on top, below `at`."""
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        x = base + child
        if child + 1 < size:
            y = x + 1
            if score[y] < score[x] or (score[y] == score[x] and tie_key[row[y]] > tie_key[row[x]]):
                child, x = child + 1, y
        top = base + at
        if score[top] < score[x] or (score[top] == score[x] and tie_key[row[top]] >= tie_key[row[x]]):
            return
        score[top], score[x] = score[x], score[top]
        row[top], row[x] = row[x], row[top]
        at = child


@njit(cache=True)
def _shortlist(
    candidates: CandidateArrays, count: int, rows: Int64s, is_subset: bool, wanted: int, page: PageArrays
) -> tuple[bool, _Pool, _LeftOut]:
    """Return the `wanted` best candidates of each kind, out of `rows` if it is a subset.

    The first value is False if there are too many kinds: then the pool is of no use.
    """
    heap_score = np.empty(_LANE_COUNT_MAX * wanted, np.int64)
    heap_row = np.empty(_LANE_COUNT_MAX * wanted, np.int64)
    kind_charge = np.empty(_LANE_COUNT_MAX, np.int64)
    kind_slots = np.empty(_LANE_COUNT_MAX, np.int64)
    kind_bits = np.empty(_LANE_COUNT_MAX, np.int64)
    kind_size = np.zeros(_LANE_COUNT_MAX, np.int64)
    kind_least = np.zeros(_LANE_COUNT_MAX, np.int64)  # score of the worst kept once the kind is full
    kind_left_out = np.zeros(_LANE_COUNT_MAX, np.bool_)
    kind_count = 0
    kind = 0
    is_usable = True
    open_slots = _open_slots(page)
    pin_count = 0
    for slot in range(page.pinned_row.size):
        pin_count += page.pinned_row[slot] >= 0
    for at in range(count):
        row = rows[at] if is_subset else at
        score = _score(candidates, row, open_slots, page, pin_count)
        if score == 0:
            continue
        charge = np.int64(candidates.charge_code[row])
        slots = np.int64(candidates.eligible_slots[row])
        bits = _group_bits(candidates, row)
        if kind >= kind_count or kind_slots[kind] != slots or kind_charge[kind] != charge or kind_bits[kind] != bits:
            kind = 0
            while kind < kind_count and (
                kind_slots[kind] != slots or kind_charge[kind] != charge or kind_bits[kind] != bits
            ):
                kind += 1
            if kind == kind_count:
                if kind_count == _LANE_COUNT_MAX:
                    is_usable = False
                    break
                kind_slots[kind] = slots
                kind_charge[kind] = charge
                kind_bits[kind] = bits
                kind_count += 1
        base = kind * wanted
        if kind_size[kind] < wanted:
            heap_score[base + kind_size[kind]] = score
            heap_row[base + kind_size[kind]] = row
            kind_size[kind] += 1
            if kind_size[kind] == wanted:
                for parent in range(wanted // 2 - 1, -1, -1):
                    _sink(heap_score, heap_row, candidates.tie_key, base, wanted, parent)
                kind_least[kind] = heap_score[base]
            continue
        kind_left_out[kind] = True
        if score < kind_least[kind] or (
            score == kind_least[kind] and candidates.tie_key[row] >= candidates.tie_key[heap_row[base]]
        ):
            continue
        heap_score[base] = score
        heap_row[base] = row
        _sink(heap_score, heap_row, candidates.tie_key, base, wanted, 0)
        kind_least[kind] = heap_score[base]

    left_out_count = 0
    for kind in range(kind_count):
        left_out_count += kind_left_out[kind]
    left_out = _LeftOut(
        np.empty(left_out_count, np.int64),
        np.empty(left_out_count, np.int64),
        np.empty(left_out_count, np.int64),
        np.empty(left_out_count, np.int64),
        np.empty(left_out_count, np.uint64),
    )
    kept_count = 0
    written = 0
    for kind in range(kind_count):
        base = kind * wanted
        if kind_left_out[kind]:
            left_out.charge[written] = kind_charge[kind]
            left_out.slots[written] = kind_slots[kind]
            left_out.bits[written] = kind_bits[kind]
            left_out.score[written] = heap_score[base]
            left_out.tie_key[written] = candidates.tie_key[heap_row[base]]
            written += 1
        for at in range(base, base + kind_size[kind]):  # close the gaps between the heaps
            heap_score[kept_count] = heap_score[at]
            heap_row[kept_count] = heap_row[at]
            kept_count += 1
    return is_usable, _gather(candidates, heap_row, heap_score, kept_count, page.attention_permille.shape[0]), left_out


@njit(cache=True)
def _drop_dominated(candidates: CandidateArrays, candidate_count: int, page: PageArrays) -> Int64s:
    """Return the rows that any run of this page could ever pick, and perhaps a few more.

    Call candidates alike when they have the same charge type, slots, groups, brand and advertiser. If as many alike
    ones with other products are better than a candidate as there are slots to sell, it is never picked: when its turn
    comes at least one of them is not yet on the page, and whatever cap, opportunity cost or advertiser taken out
    leaves the candidate in leaves that one in too. Of alike ones with the same product only the best counts.
    """
    open_slots = _open_slots(page)
    pin_count = 0
    sold_count = 0
    for slot in range(page.pinned_row.size):
        if page.pinned_row[slot] >= 0:
            pin_count += 1
        else:
            sold_count += 1
    table_bits = 4
    while (1 << table_bits) < 2 * candidate_count:
        table_bits += 1
    table = np.full(1 << table_bits, -1, np.int32)  # hash → group of alike ones
    worst = np.empty(candidate_count, np.int32)  # (group,) its worst node; -1 ends the list
    size = np.empty(candidate_count, np.int32)
    better = np.empty(candidate_count, np.int32)  # (node,) next better node of the group
    node_row = np.empty(candidate_count, np.int64)
    node_score = np.empty(candidate_count, np.int64)
    group_count = 0
    node_count = 0
    for row in range(candidate_count):
        score = _score(candidates, row, open_slots, page, pin_count)
        if score == 0:
            continue
        charge = candidates.charge_code[row]
        slots = candidates.eligible_slots[row]
        bits = candidates.group_bits[row]
        brand = candidates.brand_code[row]
        advertiser = candidates.advertiser_code[row]
        product = candidates.product_code[row]
        tie_key = candidates.tie_key[row]
        mixed = np.uint64(brand) * np.uint64(0x9E3779B97F4A7C15) ^ slots
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) ^ np.uint64(advertiser)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x94D049BB133111EB) ^ bits ^ np.uint64(charge)
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
        at = np.int64(mixed >> np.uint64(64 - table_bits))
        while True:
            group = table[at]
            if group < 0:
                group = group_count
                table[at] = group
                worst[group] = -1
                size[group] = 0
                group_count += 1
                break
            other = node_row[worst[group]]
            if (
                candidates.brand_code[other] == brand
                and candidates.advertiser_code[other] == advertiser
                and candidates.eligible_slots[other] == slots
                and candidates.group_bits[other] == bits
                and candidates.charge_code[other] == charge
            ):
                break
            at = (at + 1) & ((1 << table_bits) - 1)

        node = worst[group]
        if size[group] == sold_count and (
            score < node_score[node] or (score == node_score[node] and tie_key >= candidates.tie_key[node_row[node]])
        ):
            continue
        before, place = -1, -1  # the node with the same product and the one before it; where this one goes
        same, before_same = -1, -1
        while node >= 0:
            is_worse = node_score[node] < score or (
                node_score[node] == score and candidates.tie_key[node_row[node]] > tie_key
            )
            if is_worse:
                place = node
            if candidates.product_code[node_row[node]] == product:
                same, before_same = node, before
                if not is_worse:
                    break
            before = node
            node = better[node]
        if node >= 0:
            continue  # the same product is there already, and better
        if same < 0 and size[group] == sold_count:
            same = worst[group]
        if same >= 0:  # its place is reused
            if before_same >= 0:
                better[before_same] = better[same]
            else:
                worst[group] = better[same]
            if place == same:
                place = before_same
            node = same
        else:
            node = node_count
            node_count += 1
            size[group] += 1
        node_row[node] = row
        node_score[node] = score
        if place >= 0:
            better[node] = better[place]
            better[place] = node
        else:
            better[node] = worst[group]
            worst[group] = node
    return node_row[:node_count].copy()


@njit(cache=True)
def _is_shut_out(pool: _Pool, run: _Run, at: int, slot: int, begin: int, end: int) -> bool:
    """Say whether one of the closures begin..end-1 keeps the candidate out of the slot."""
    for closure in range(begin, end):
        if (run.closed_slots[closure] >> slot) & 1 and _shuts_out(pool, run, at, closure):
            return True
    return False


@njit(cache=True)
def _shuts_out(pool: _Pool, run: _Run, at: int, closure: int) -> bool:
    what = run.closed_what[closure]
    if what == _OF_PRODUCT:
        return run.closed_code[closure] == pool.product[at]
    if run.closed_bits[closure] & pool.bits[at] == 0:
        return False
    return what == _OF_ALL or run.closed_code[closure] == pool.brand[at]


@njit(cache=True)
def _seek(pool: _Pool, page: PageArrays, run: _Run, charge: int, slot: int, closure_count: int, without: int) -> None:
    """Move `next_at` on to the best candidate that may take the slot."""
    end = pool.first[charge + 1]
    attention = page.attention_permille[charge, slot]
    if attention == 0:
        run.next_at[charge, slot] = end
        return
    least = page.opportunity_cost[slot]
    at = run.next_at[charge, slot]
    while at < end:
        advertiser = pool.advertiser[at]
        if (
            (pool.slots[at] >> slot) & 1
            and advertiser != without
            and (advertiser < 0 or attention * pool.score[at] >= least)
            and not _is_shut_out(pool, run, at, slot, 0, closure_count)
        ):
            break
        at += 1
    run.next_at[charge, slot] = at


@njit(cache=True)
def _close(
    run: _Run,
    closure: int,
    what: int,
    code: int,
    bits: int,
    slots: int,
    value: int,
    slot: int,
    tie_key: int,
) -> int:
    """Write a closure, and return how many there are now."""
    run.closed_what[closure] = what
    run.closed_code[closure] = code
    run.closed_bits[closure] = bits
    run.closed_slots[closure] = slots
    run.closed_value[closure] = value
    run.closed_slot[closure] = slot
    run.closed_tie_key[closure] = tie_key
    return closure + 1


@njit(cache=True)
def _count_fills(page: PageArrays, run: _Run, taken: int, cap: int, brand: int) -> int:
    """Return how many of the taken slots count towards the cap (for this brand, if it counts each brand apart)."""
    bits = np.int64(page.cap_bits[cap])
    counted = np.int64(page.cap_slots[cap]) & taken
    count = 0
    for slot in range(page.pinned_row.size):
        if (counted >> slot) & 1 and bits & run.fill_bits[slot]:
            if page.cap_per_brand[cap] == 0 or run.fill_brand[slot] == brand:
                count += 1
    return count


@njit(cache=True)
def _place_pins(candidates: CandidateArrays, page: PageArrays, run: _Run) -> int:
    """Stand the pins in their slots, and return how many closures that makes (with those of caps of 0)."""
    nobody = np.uint64(0)
    taken = np.int64(0)
    for slot in range(page.pinned_row.size):
        row = page.pinned_row[slot]
        if row >= 0:
            taken |= np.int64(1) << slot
            run.fill_brand[slot] = candidates.brand_code[row]
            run.fill_bits[slot] = _group_bits(candidates, row)
    count = 0
    for cap in range(page.cap_max.size):
        bits = np.int64(page.cap_bits[cap])
        slots = np.int64(page.cap_slots[cap])
        if page.cap_per_brand[cap] == 0 or page.cap_max[cap] <= 0:
            if _count_fills(page, run, taken, cap, 0) >= page.cap_max[cap]:
                count = _close(run, count, _OF_ALL, 0, bits, slots, PAIR_VALUE_MAX, -1, nobody)
            continue
        for slot in range(page.pinned_row.size):
            if (taken >> slot) & 1 and _count_fills(page, run, taken, cap, run.fill_brand[slot]) >= page.cap_max[cap]:
                count = _close(run, count, _OF_BRAND, run.fill_brand[slot], bits, slots, PAIR_VALUE_MAX, -1, nobody)
    return count


@njit(cache=True)
def _is_uncertain(
    page: PageArrays, left_out: _LeftOut, run: _Run, free: int, closure_count: int, value: int, slot: int, tie_key: int
) -> bool:
    """Say whether a candidate left out of the pool might come before this pair (value 0: before the end of the run)."""
    for kind in range(left_out.score.size):
        if ATTENTION_PERMILLE_MAX * left_out.score[kind] < value:
            continue
        charge = left_out.charge[kind]
        is_paid = left_out.bits[kind] & GROUP_PAID
        slots = free & left_out.slots[kind]
        for closure in range(closure_count):
            if run.closed_what[closure] == _OF_ALL and run.closed_bits[closure] & left_out.bits[kind]:
                slots &= ~run.closed_slots[closure]
        for u in range(page.pinned_row.size):
            if (slots >> u) & 1:
                most = page.attention_permille[charge, u] * left_out.score[kind]
                if most == 0 or (is_paid and most < page.opportunity_cost[u]):
                    continue
                if most > value:
                    return True
                if most == value and (u < slot or (u == slot and left_out.tie_key[kind] < tie_key)):
                    return True
    return False


@njit(cache=True)
def _finish(
    pool: _Pool,
    page: PageArrays,
    left_out: _LeftOut,
    run: _Run,
    free: int,
    closure_count: int,
    without: int,
    is_main: bool,
) -> tuple[bool, int, int, int]:
    """Take pairs until no slot is free or no pair is left.

    `next_at` must point at the best candidate for each free slot.

    Returns:
        Whether the pool sufficed for certain, the slots still free, how many closures there are, how many picks.
    """
    charge_count, slot_count = page.attention_permille.shape
    step = 0
    while free != 0:
        if is_main:
            run.closures_before[step] = closure_count
            for charge in range(charge_count):
                for slot in range(slot_count):
                    run.next_before[step, charge, slot] = run.next_at[charge, slot]
        best_at, best_slot, best_value, best_tie_key = -1, 0, np.int64(0), np.uint64(0)
        for slot in range(slot_count):
            if (free >> slot) & 1:
                for charge in range(charge_count):
                    at = run.next_at[charge, slot]
                    if at < pool.first[charge + 1]:
                        value = page.attention_permille[charge, slot] * pool.score[at]
                        if value > best_value or (
                            value == best_value
                            and slot == best_slot
                            and (
                                pool.tie_key[at] < best_tie_key
                                or (pool.tie_key[at] == best_tie_key and pool.row[at] < pool.row[best_at])
                            )
                        ):
                            best_at, best_slot, best_value, best_tie_key = at, slot, value, pool.tie_key[at]
        if _is_uncertain(page, left_out, run, free, closure_count, best_value, best_slot, best_tie_key):
            return False, free, closure_count, step
        if best_at < 0:
            break

        free &= ~(np.int64(1) << best_slot)
        run.fill_at[best_slot] = best_at
        run.fill_value[best_slot] = best_value
        run.fill_brand[best_slot] = pool.brand[best_at]
        run.fill_bits[best_slot] = pool.bits[best_at]
        if is_main:
            run.step_at[step] = best_at
            run.step_slot[step] = best_slot
            run.step_value[step] = best_value
        step += 1
        if free == 0:
            break  # what it closes can keep nobody out any more

        before = closure_count
        closure_count = _close(
            run, closure_count, _OF_PRODUCT, pool.product[best_at], -1, -1, best_value, best_slot, best_tie_key
        )
        for cap in range(page.cap_max.size):
            bits = np.int64(page.cap_bits[cap])
            slots = np.int64(page.cap_slots[cap])
            if (slots >> best_slot) & 1 and bits & pool.bits[best_at]:
                if _count_fills(page, run, ~free, cap, pool.brand[best_at]) == page.cap_max[cap]:
                    what = _OF_BRAND if page.cap_per_brand[cap] else _OF_ALL
                    closure_count = _close(
                        run,
                        closure_count,
                        what,
                        pool.brand[best_at],
                        bits,
                        slots,
                        best_value,
                        best_slot,
                        best_tie_key,
                    )
        for slot in range(slot_count):
            if (free >> slot) & 1:
                for charge in range(charge_count):
                    at = run.next_at[charge, slot]
                    if at < pool.first[charge + 1] and _is_shut_out(pool, run, at, slot, before, closure_count):
                        _seek(pool, page, run, charge, slot, closure_count, without)
    return True, free, closure_count, step


@njit(cache=True)
def _least_bid(needed: int, attention: int, weight_ppm: int, value_micros: int) -> int:
    """Return the least b with attention·(weight·b + H) ≥ needed."""
    rest = (needed + attention - 1) // attention - value_micros * 1_000_000
    if rest <= 0:
        return np.int64(0)
    return (rest + weight_ppm - 1) // weight_ppm


@njit(cache=True)
def _new_run(page: PageArrays) -> _Run:
    charge_count, slot_count = page.attention_permille.shape
    closure_count = slot_count + 2 * slot_count * page.cap_max.size
    return _Run(
        np.empty((charge_count, slot_count), np.int64),
        np.empty(slot_count, np.int64),
        np.empty(slot_count, np.int64),
        np.empty(slot_count, np.int32),
        np.empty(slot_count, np.int64),
        np.empty(closure_count, np.int64),
        np.empty(closure_count, np.int64),
        np.empty(closure_count, np.int64),
        np.empty(closure_count, np.int64),
        np.empty(closure_count, np.int64),
        np.empty(closure_count, np.int64),
        np.empty(closure_count, np.uint64),
        np.empty(slot_count, np.int64),
        np.empty(slot_count, np.int64),
        np.empty(slot_count, np.int64),
        np.empty(slot_count, np.int64),
        np.empty((slot_count, charge_count, slot_count), np.int64),
    )


@njit(cache=True)
def _price(
    candidates: CandidateArrays,
    page: PageArrays,
    pool: _Pool,
    run: _Run,
    winner_at: int,
    winner_slot: int,
    free: int,
    closure_count: int,
    outcome: OutcomeArrays,
) -> None:
    """Write the winner's thresholds and both prices, from the run that was finished without it."""
    slot_count = page.pinned_row.size
    row = pool.row[winner_at]
    tie_key = pool.tie_key[winner_at]
    attention = page.attention_permille[candidates.charge_code[row]]
    for slot in range(slot_count):
        if page.pinned_row[slot] >= 0 or (pool.slots[winner_at] >> slot) & 1 == 0 or attention[slot] == 0:
            continue
        needed = max(np.int64(1), page.opportunity_cost[slot])
        if (free >> slot) & 1 == 0:
            rival = run.fill_at[slot]
            wins_tie = tie_key < pool.tie_key[rival] or (tie_key == pool.tie_key[rival] and row < pool.row[rival])
            needed = max(needed, run.fill_value[slot] + (0 if wins_tie else 1))
        is_attainable = True
        for closure in range(closure_count):
            if (run.closed_slots[closure] >> slot) & 1 and _shuts_out(pool, run, winner_at, closure):
                closing_slot = run.closed_slot[closure]
                if closing_slot < 0:
                    is_attainable = False
                    break
                wins_tie = slot < closing_slot or (slot == closing_slot and tie_key < run.closed_tie_key[closure])
                needed = max(needed, run.closed_value[closure] + (0 if wins_tie else 1))
        if is_attainable:
            outcome.threshold_micros[winner_slot, slot] = max(
                candidates.floor_micros[row],
                _least_bid(needed, attention[slot], candidates.weight_ppm[row], candidates.value_micros[row]),
            )

    total = np.int64(0)
    level = attention[winner_slot]
    while level > 0:  # down the levels of attention
        least = np.int64(UNATTAINABLE)
        next_level = np.int64(0)
        for slot in range(slot_count):
            if attention[slot] >= level:
                least = min(least, outcome.threshold_micros[winner_slot, slot])
            else:
                next_level = max(next_level, attention[slot])
        if level == attention[winner_slot]:
            outcome.critical_micros[winner_slot] = least
        total += (level - next_level) * least
        level = next_level
    outcome.vcg_micros[winner_slot] = (total + attention[winner_slot] - 1) // attention[winner_slot]


@njit(cache=True)
def _decide(
    candidates: CandidateArrays,
    page: PageArrays,
    pool: _Pool,
    left_out: _LeftOut,
    run: _Run,
    outcome: OutcomeArrays,
) -> bool:
    """Fill and price the page from this pool, and say whether the pool sufficed for certain; if not, do it again."""
    charge_count, slot_count = page.attention_permille.shape
    for slot in range(slot_count):
        outcome.winner_row[slot] = page.pinned_row[slot]
        outcome.critical_micros[slot] = 0
        outcome.vcg_micros[slot] = 0
        outcome.pick_order[slot] = -1
        for other in range(slot_count):
            outcome.threshold_micros[slot, other] = UNATTAINABLE

    open_slots = _open_slots(page)
    closure_count = _place_pins(candidates, page, run)
    for charge in range(charge_count):
        for slot in range(slot_count):
            run.next_at[charge, slot] = pool.first[charge]
            if (open_slots >> slot) & 1:
                _seek(pool, page, run, charge, slot, closure_count, _NOBODY)
    is_certain, free, closure_count, step_count = _finish(
        pool, page, left_out, run, open_slots, closure_count, _NOBODY, True
    )
    if not is_certain:
        return False

    # The last winner first: what a resumed run writes over belongs to steps no later resumption needs.
    for step in range(step_count - 1, -1, -1):
        free |= np.int64(1) << run.step_slot[step]
        winner_at = run.step_at[step]
        winner_slot = run.step_slot[step]
        outcome.winner_row[winner_slot] = pool.row[winner_at]
        outcome.pick_order[winner_slot] = step
        advertiser = pool.advertiser[winner_at]
        if advertiser < 0:
            continue
        closure_count = run.closures_before[step]
        for charge in range(charge_count):
            for slot in range(slot_count):
                at = run.next_before[step, charge, slot]
                run.next_at[charge, slot] = at
                if (free >> slot) & 1 and at < pool.first[charge + 1] and pool.advertiser[at] == advertiser:
                    _seek(pool, page, run, charge, slot, closure_count, advertiser)
        is_certain, unfilled, closure_count, _ = _finish(
            pool, page, left_out, run, free, closure_count, advertiser, False
        )
        if not is_certain:
            return False
        _price(candidates, page, pool, run, winner_at, winner_slot, unfilled, closure_count, outcome)
    return True


@njit(cache=True)
def _take_all(candidates: CandidateArrays, rows: Int64s, page: PageArrays) -> tuple[_Pool, _LeftOut]:
    """Return a pool of all the rows, and that nothing was left out."""
    score = np.empty(rows.size, np.int64)
    for at in range(rows.size):
        row = rows[at]
        score[at] = candidates.weight_ppm[row] * candidates.bid_micros[row] + candidates.value_micros[row] * 1_000_000
    nothing = np.empty(0, np.int64)
    pool = _gather(candidates, rows, score, rows.size, page.attention_permille.shape[0])
    return pool, _LeftOut(nothing, nothing, nothing, nothing, np.empty(0, np.uint64))


@njit(types.int64(_CandidateArrays, types.int64, _PageArrays, types.int64, _OutcomeArrays), cache=True)
def allocate_and_price_nb(
    candidates: CandidateArrays,
    candidate_count: int,
    page: PageArrays,
    shortlist_count: int,
    outcome: OutcomeArrays,
) -> int:
    """Fill the page's slots greedily and price every paid fill; return how many slots were filled (pins not counted).

    (candidate, slot) pairs are visited in descending value a·(w·b + H), H = 1,000,000·h; ties go to the earlier slot,
    then to the lower tie key. A pair is taken if the slot is free, the product not yet on the page, the candidate
    eligible, every cap open, and for a paid one the value at least the slot's opportunity cost. A pair worth 0 is
    never taken. Prices are those of DESIGN.md §4, in exact integers.

    The caller guarantees the bounds named in the arrays' docstrings; nothing is checked here.

    Args:
        candidates: as CandidateArrays says.
        candidate_count: C.
        page: as PageArrays says.
        shortlist_count: how many of the best candidates of one kind to try first; SHORTLIST_COUNT outside of tests.
            Speed only: every number gives the same answer.
        outcome: as OutcomeArrays says; written in full.
    """
    wanted = shortlist_count if shortlist_count > 0 else 16 + 4 * page.pinned_row.size
    run = _new_run(page)
    rows = np.empty(0, np.int64)
    is_usable, pool, left_out = _shortlist(candidates, candidate_count, rows, False, wanted, page)
    if not (is_usable and _decide(candidates, page, pool, left_out, run, outcome)):
        rows = _drop_dominated(candidates, candidate_count, page)
        is_usable, pool, left_out = _shortlist(candidates, rows.size, rows, True, wanted, page)
        if not (is_usable and _decide(candidates, page, pool, left_out, run, outcome)):
            pool, left_out = _take_all(candidates, rows, page)
            _decide(candidates, page, pool, left_out, run, outcome)
    fill_count = 0
    for slot in range(page.pinned_row.size):
        fill_count += outcome.pick_order[slot] >= 0
    return fill_count
