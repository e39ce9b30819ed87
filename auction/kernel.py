"""Compiled code of the auction: arrays and numbers in, arrays out, all money in integers.

Holds every kernel of the package, because numba's cache sees changes in this file only. No objects, no I/O, no clock.

Each section has its constants, records and tuples first, then helpers, then what is called from outside (names that end
in `_nb`): those are compiled by their signatures when this file is imported, so what they call must stand above them.

    Deciding a page: what goes in and what comes out
    Greedy allocation, and the prices of its page
    The page worth most
    Why lost
    The gate: which offers take part
    What a snapshot's offers are made by
    The page's candidates, read from the request's own bytes
    From offers to a decided page
    What fills just given may cost
    Many auctions in one call

Letters in shapes, everywhere in this file: C candidates, S slots of the page (all placements together, at most 64),
K charge types (rows of the attention table), F caps; Q candidates in the pool, D blocks of slots, N nodes of the tree
of caps (node 0 is the root); O offers, P products, G campaigns, B bids, L lists, V products looked at one by one;
N auctions, W kinds of visitor, A advertisers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.experimental import structref
from numba.extending import intrinsic
from numpy.typing import NDArray

Int = int | np.int64  # the same thing in compiled code
Int8s = NDArray[np.int8]
Int16s = NDArray[np.int16]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]
UInt64s = NDArray[np.uint64]
Records = NDArray[np.void]


class LateKernel:
    """A kernel compiled by its signature when it is first called or warmed, and not when this file is imported.

    For what most servers never need: their start does not wait for it.
    """

    def __init__(self, kernel: Any, signature: Any) -> None:
        self._kernel = kernel
        self._signature = signature
        self._is_warm = False

    def warm(self) -> None:
        """Compile it, or read it from numba's cache."""
        if not self._is_warm:
            self._kernel.compile(self._signature)
            self._kernel.disable_compile()
            self._is_warm = True

    def __call__(self, *arguments: Any) -> Any:
        """Call it."""
        self.warm()
        return self._kernel(*arguments)


def _compiled_late(signature: Any) -> Callable[[Callable[..., Any]], LateKernel]:
    return lambda function: LateKernel(njit(cache=True)(function), signature)


def _tuple_of(kind: type[Any], *fields: Any) -> Any:
    """Return numba's type of a named tuple."""
    return types.NamedTuple(fields, kind)  # type: ignore[no-untyped-call]


def _records(dtype: np.dtype[np.void]) -> types.Array:
    """Return numba's type of an array of records."""
    return types.Array(numba.from_dtype(dtype), 1, "C")


# ---------------------------------------------------------------------------------------------------------------------
# Deciding a page: what goes in and what comes out
# ---------------------------------------------------------------------------------------------------------------------

PPM = 1_000_000
SLOT_COUNT_MAX = 64  # slots are bits of a uint64
BID_MICROS_MAX = 10**9
WEIGHT_PPM_MAX = 4_000_000
VALUE_MICROS_MAX = 10**9
ATTENTION_PERMILLE_MAX = 1_000
SCORE_MAX = WEIGHT_PPM_MAX * BID_MICROS_MAX + VALUE_MICROS_MAX * PPM  # 5·10^15
PAIR_VALUE_MAX = ATTENTION_PERMILLE_MAX * SCORE_MAX  # 5·10^18, inside int64

NO_CANDIDATE = -1  # in winner_row: nobody won the slot
NO_ADVERTISER = -1  # in advertiser_code: an organic candidate
NO_PIN = -1  # in pinned_row: the slot is sold
UNATTAINABLE = 2**62  # in threshold_micros: no bid wins this slot

# What `say_why_lost_nb` says; 0 for a winner.
LOST_NOT_ELIGIBLE, LOST_BELOW_FLOOR, LOST_TO_BETTER, LOST_TO_SAME_PRODUCT, LOST_TO_CAP, LOST_TO_OPPORTUNITY_COST = (
    range(1, 7)
)

GROUP_EVERYONE = 1  # bit of group_bits that the kernel sets for everybody
GROUP_PAID = 2  # bit of group_bits that the kernel sets for candidates with an advertiser
GROUP_FIRST_FREE = 4  # the caller's own groups (rule quotas) start at this bit
CAP_OF_VISITOR = 1 << 61  # bit of cap_bits no candidate has: marks the cap of what is left of a visitor's limit

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
            On the page worth most: get at least that attention, with all that its advertiser has on the page.
        pick_order: (S,) when the slot was filled, from 0; -1 for pinned and empty slots.
    """

    winner_row: Int64s
    critical_micros: Int64s
    vcg_micros: Int64s
    threshold_micros: Int64s
    pick_order: Int64s


_CandidateArrays = _tuple_of(
    CandidateArrays, *[types.int64[::1]] * 4, *[types.int32[::1]] * 3, types.int8[::1], *[types.uint64[::1]] * 3
)
_PageArrays = _tuple_of(
    PageArrays,
    types.int64[:, ::1],
    types.int64[::1],
    types.int64[::1],
    types.uint64[::1],
    types.int8[::1],
    types.uint64[::1],
    types.int64[::1],
)
_OutcomeArrays = _tuple_of(OutcomeArrays, *[types.int64[::1]] * 3, types.int64[:, ::1], types.int64[::1])


# ---------------------------------------------------------------------------------------------------------------------
# Greedy allocation, and the prices of its page (DESIGN.md §4, docs/mechanism.md)
#
# Helpers take their types from the kernels that call them. In here sets of slots and groups are int64 bit patterns,
# since numba turns int64 mixed with uint64 into float64; and the innermost helpers take plain arrays, since a tuple of
# arrays costs a count of references for each of them at every call.
# ---------------------------------------------------------------------------------------------------------------------

_SORT_COUNT_MAX = 16
_NOBODY = -2  # an advertiser code nobody has
_SIGN_BIT = np.uint64(1 << 63)

# Rows of a pool (_POOL_ROWS, Q): copies of the candidates a run looks at, best first within each charge type; whether
# another one has the same product; and whether it stands on the page now.
_POOL_ROWS = 10
_ROW, _SCORE, _TIE, _SLOTS, _GROUPS, _BRAND, _PRODUCT, _ADVERTISER, _HAS_TWIN, _IS_TAKEN = range(_POOL_ROWS)

# Columns of `absent` (kinds, 5): candidates that are not in the pool: their charge type, the slots they may take, the
# groups they are in, and the score and tie that none of them is better than.
_KIND_CHARGE, _KIND_SLOTS, _KIND_GROUPS, _KIND_SCORE, _KIND_TIE = range(5)

# Columns of `closed` (closures, 7): who is shut out of which slots since when, that is, since the pair of value, slot
# and tie. Slot -1: since before the run.
_WHOM, _CODE, _WHOSE_GROUPS, _WHERE, _SINCE_VALUE, _SINCE_SLOT, _SINCE_TIE = range(7)
_ALL_IN_GROUPS, _ONE_BRAND, _ONE_PRODUCT = range(3)

# Rows of `fill` (4, S): what stands in a slot that is taken.
_FILL_AT, _FILL_VALUE, _FILL_BRAND, _FILL_GROUPS = range(4)

# Rows of `step` (3, S): the main run's picks, and how many closures there were before each.
_STEP_AT, _STEP_SLOT, _STEP_CLOSURES = range(3)


class _Field(NamedTuple):
    """Who competes for what; the same for every run of a page.

    Attributes:
        pool: (_POOL_ROWS, Q) the candidates.
        first: (K+1,) where each charge type begins in the pool.
        absent: (kinds, 5) the candidates that are not in it.
        order: (K, S) slots by attention down.
        blocks: (D,) sets of slots that nothing but attention tells apart, as bits.
        least_score: (K, D) least score of a paid candidate there.
    """

    pool: Int64s
    first: Int64s
    absent: Int64s
    order: Int64s
    blocks: Int64s
    least_score: Int64s


class _Run(NamedTuple):
    """What a run writes as it goes.

    Attributes:
        closed: (closures, 7) who is shut out of what.
        fill: (4, S) what stands where.
        next_at: (K, D) best place in the pool open for each block; moved on.
        top: (K, D) place in `order` before which no slot of the block is free; moved on.
        step: (3, S) record of the main run, so that it can be resumed before each of its steps.
        next_before: (S, K, D) record of the main run: `next_at` before each step.
    """

    closed: Int64s
    fill: Int64s
    next_at: Int64s
    top: Int64s
    step: Int64s
    next_before: Int64s


@njit(cache=True)
def _groups_of(group_bits: np.uint64, advertiser_code: Int) -> Int:
    return np.int64(group_bits) | (GROUP_EVERYONE if advertiser_code < 0 else GROUP_EVERYONE | GROUP_PAID)


@njit(cache=True)
def _score_of(weight_ppm: Int, bid_micros: Int, value_micros: Int) -> Int:
    """Return w·b + H, in micros per million impressions."""
    return weight_ppm * bid_micros + value_micros * PPM


@njit(cache=True)
def _sold_slots(pinned_row: Int64s) -> tuple[Int, Int]:
    """Return the slots that are sold, as bits and as a count."""
    slots, count = np.int64(0), 0
    for slot in range(pinned_row.size):
        if pinned_row[slot] < 0:
            slots |= np.int64(1) << slot
            count += 1
    return slots, count


@njit(cache=True)
def _is_pinned(pinned_row: Int64s, product_code: Int32s, row: Int) -> bool:
    for slot in range(pinned_row.size):
        if pinned_row[slot] >= 0 and product_code[pinned_row[slot]] == product_code[row]:
            return True
    return False


@njit(cache=True)
def _sort_best_first(order: Int64s, spare: Int64s, begin: Int, end: Int, keys: Int64s) -> None:
    """Sort places begin..end-1 of `order` by the columns of `keys` (n, 3): score down, tie up, row up (merge sort)."""
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
                comes_first = keys[x, 0] > keys[y, 0]
                if keys[x, 0] == keys[y, 0]:
                    comes_first = keys[x, 1] < keys[y, 1] or (keys[x, 1] == keys[y, 1] and keys[x, 2] < keys[y, 2])
                if comes_first:
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
def _find_twins(pool: Int64s) -> None:
    """Mark the candidates whose product another one has too."""
    table_size = 16
    while table_size < 2 * pool.shape[1]:
        table_size *= 2
    table = np.full(table_size, -1, np.int32)  # hash → the first candidate with a product
    for at in range(pool.shape[1]):
        place = (pool[_PRODUCT, at] * 0x9E3779B1 >> 8) & (table_size - 1)
        while table[place] >= 0 and pool[_PRODUCT, table[place]] != pool[_PRODUCT, at]:
            place = (place + 1) & (table_size - 1)
        if table[place] >= 0:
            pool[_HAS_TWIN, table[place]] = 1
            pool[_HAS_TWIN, at] = 1
        else:
            table[place] = at


@njit(cache=True)
def _make_pool(candidates: CandidateArrays, kept: Int64s, count: Int, charge_count: Int) -> tuple[Int64s, Int64s]:
    """Return the pool of the rows kept[:count], and (K+1,) where each charge type begins in it and ends."""
    first = np.zeros(charge_count + 1, np.int64)
    for at in range(count):
        first[candidates.charge_code[kept[at]] + 1] += 1
    for charge in range(charge_count):
        first[charge + 1] += first[charge]
    keys = np.empty((count, 3), np.int64)
    order = np.empty(count, np.int64)
    place = first.copy()
    for at in range(count):
        row = kept[at]
        keys[at, 0] = _score_of(candidates.weight_ppm[row], candidates.bid_micros[row], candidates.value_micros[row])
        keys[at, 1] = np.int64(candidates.tie_key[row] ^ _SIGN_BIT)
        keys[at, 2] = row
        charge = candidates.charge_code[row]
        order[place[charge]] = at
        place[charge] += 1
    spare = np.empty(count, np.int64)
    for charge in range(charge_count):
        _sort_best_first(order, spare, first[charge], first[charge + 1], keys)
    pool = np.empty((_POOL_ROWS, count), np.int64)
    for at in range(count):
        row = keys[order[at], 2]
        pool[_ROW, at] = row
        pool[_SCORE, at] = keys[order[at], 0]
        pool[_TIE, at] = keys[order[at], 1]
        pool[_SLOTS, at] = np.int64(candidates.eligible_slots[row])
        pool[_GROUPS, at] = _groups_of(candidates.group_bits[row], candidates.advertiser_code[row])
        pool[_BRAND, at] = candidates.brand_code[row]
        pool[_PRODUCT, at] = candidates.product_code[row]
        pool[_ADVERTISER, at] = candidates.advertiser_code[row]
        pool[_HAS_TWIN, at] = 0
        pool[_IS_TAKEN, at] = 0
    _find_twins(pool)
    return pool, first


@njit(cache=True)
def _sink(score: Int64s, row: Int64s, tie_key: UInt64s, base: Int, size: Int, at: Int) -> None:
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
    candidates: CandidateArrays, rows: Int64s | None, row_count: Int, wanted: Int, page: PageArrays
) -> tuple[Int64s, Int, Int64s]:
    """Return the rows of the `wanted` best candidates of each kind, how many, and the others as `absent`.

    A sort is one set of eligible slots and one set of groups; a kind is a sort and a charge type. Looks at
    rows[:row_count], or at all of 0..row_count-1 if rows is None (then compiled without that look-up). How many is -1
    when there are too many sorts.
    """
    bid_micros, weight_ppm, value_micros = candidates.bid_micros, candidates.weight_ppm, candidates.value_micros
    floor_micros, advertiser_code, tie_key = candidates.floor_micros, candidates.advertiser_code, candidates.tie_key
    eligible_slots, group_bits, charge_code = candidates.eligible_slots, candidates.group_bits, candidates.charge_code
    charge_count = page.attention_permille.shape[0]
    sold_slots, sold_count = _sold_slots(page.pinned_row)
    has_pins = sold_count < page.pinned_row.size
    kind_count_max = _SORT_COUNT_MAX * charge_count
    heap_score = np.empty(kind_count_max * wanted, np.int64)
    heap_row = np.empty(kind_count_max * wanted, np.int64)
    size = np.zeros(kind_count_max, np.int64)
    least = np.full(kind_count_max, -1, np.int64)  # score of a kind's worst once it is full
    is_left_out = np.zeros(kind_count_max, np.bool_)
    sort_slots = np.empty(_SORT_COUNT_MAX, np.int64)
    sort_groups = np.empty(_SORT_COUNT_MAX, np.int64)
    sort_count, sort = 0, 0
    slots_now: Int = np.int64(0)  # of `sort`
    groups_now: Int = np.int64(0)
    for at in range(row_count):
        row = np.int64(at) if rows is None else rows[at]
        slots = np.int64(eligible_slots[row]) & sold_slots
        bid = bid_micros[row]
        if slots == 0 or (bid < floor_micros[row] and advertiser_code[row] >= 0):
            continue
        groups = _groups_of(group_bits[row], advertiser_code[row])
        if slots != slots_now or groups != groups_now:
            sort = 0
            while sort < sort_count and (sort_slots[sort] != slots or sort_groups[sort] != groups):
                sort += 1
            if sort == sort_count:
                if sort_count == _SORT_COUNT_MAX:
                    return heap_row, np.int64(-1), np.empty((0, 5), np.int64)
                sort_slots[sort] = slots
                sort_groups[sort] = groups
                sort_count += 1
            slots_now, groups_now = slots, groups
        kind = sort * charge_count + charge_code[row]
        score = _score_of(weight_ppm[row], bid, value_micros[row])
        if score < least[kind]:
            is_left_out[kind] = True
            continue
        if score == 0 or (has_pins and _is_pinned(page.pinned_row, candidates.product_code, row)):
            continue
        base = kind * wanted
        if size[kind] < wanted:
            heap_score[base + size[kind]] = score
            heap_row[base + size[kind]] = row
            size[kind] += 1
            if size[kind] < wanted:
                continue
            for parent in range(wanted // 2 - 1, -1, -1):
                _sink(heap_score, heap_row, tie_key, base, wanted, parent)
        else:
            is_left_out[kind] = True
            if score == least[kind] and tie_key[row] >= tie_key[heap_row[base]]:
                continue
            heap_score[base] = score
            heap_row[base] = row
            _sink(heap_score, heap_row, tie_key, base, wanted, 0)
        least[kind] = heap_score[base]

    absent = np.empty((sort_count * charge_count, 5), np.int64)
    kept_count, absent_count = np.int64(0), np.int64(0)
    for kind in range(sort_count * charge_count):
        base = np.int64(kind * wanted)
        if is_left_out[kind]:
            absent[absent_count, _KIND_CHARGE] = kind % charge_count
            absent[absent_count, _KIND_SLOTS] = sort_slots[kind // charge_count]
            absent[absent_count, _KIND_GROUPS] = sort_groups[kind // charge_count]
            absent[absent_count, _KIND_SCORE] = heap_score[base]
            absent[absent_count, _KIND_TIE] = np.int64(tie_key[heap_row[base]] ^ _SIGN_BIT)
            absent_count += 1
        for at in range(base, base + size[kind]):  # close the gaps between the heaps
            heap_row[kept_count] = heap_row[at]
            kept_count += 1
    return heap_row, kept_count, absent[:absent_count]


@njit(cache=True)
def _shortlist_size(slot_count: Int) -> Int:
    return 16 + 4 * slot_count


@njit(cache=True)
def _drop_dominated(candidates: CandidateArrays, candidate_count: Int, page: PageArrays) -> tuple[Int64s, Int]:
    """Return the rows that any run of this page could ever pick, and perhaps a few more, and how many.

    Call candidates alike when they have the same charge type, slots, groups, brand and advertiser. If as many alike
    ones with other products are better than a candidate as there are slots to sell, it is never picked: when its turn
    comes at least one of them is not yet on the page, and whatever cap, opportunity cost or advertiser taken out
    leaves the candidate in leaves that one in too. Of alike ones with the same product only the best counts.
    """
    bid_micros, weight_ppm, value_micros = candidates.bid_micros, candidates.weight_ppm, candidates.value_micros
    floor_micros, advertiser_code, tie_key = candidates.floor_micros, candidates.advertiser_code, candidates.tie_key
    eligible_slots, group_bits, charge_code = candidates.eligible_slots, candidates.group_bits, candidates.charge_code
    brand_code, product_code = candidates.brand_code, candidates.product_code
    sold_slots, sold_count = _sold_slots(page.pinned_row)
    has_pins = sold_count < page.pinned_row.size
    table_bits = 4
    while (1 << table_bits) < 2 * candidate_count:
        table_bits += 1
    table = np.full(1 << table_bits, -1, np.int32)  # hash → set of alike ones
    likeness = np.empty((candidate_count, 5), np.int64)  # (set,) what its candidates have in common
    worst = np.empty(candidate_count, np.int32)  # (set,) its worst node
    size = np.empty(candidate_count, np.int32)  # (set,)
    better = np.empty(candidate_count, np.int32)  # (node,) next better node of its set, -1 for the best
    node_row = np.empty(candidate_count, np.int64)
    node_score = np.empty(candidate_count, np.int64)
    set_count, node_count = 0, np.int64(0)
    for row in range(candidate_count):
        slots, bid = np.int64(eligible_slots[row]) & sold_slots, bid_micros[row]
        if slots == 0 or (bid < floor_micros[row] and advertiser_code[row] >= 0):
            continue
        score = _score_of(weight_ppm[row], bid, value_micros[row])
        if score == 0 or (has_pins and _is_pinned(page.pinned_row, product_code, row)):
            continue
        charge, groups, tie = np.int64(charge_code[row]), np.int64(group_bits[row]), tie_key[row]
        brand, advertiser = np.int64(brand_code[row]), np.int64(advertiser_code[row])
        mixed = np.uint64(brand) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(slots)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) ^ np.uint64(advertiser)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x94D049BB133111EB) ^ np.uint64(groups + charge)
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
        place = np.int64(mixed >> np.uint64(64 - table_bits))
        while True:
            alike = table[place]
            if alike < 0 or (
                likeness[alike, 0] == brand
                and likeness[alike, 1] == advertiser
                and likeness[alike, 2] == slots
                and likeness[alike, 3] == groups
                and likeness[alike, 4] == charge
            ):
                break
            place = (place + 1) & ((1 << table_bits) - 1)
        if alike < 0:
            alike = np.int32(set_count)
            table[place] = alike
            likeness[alike, 0] = brand
            likeness[alike, 1] = advertiser
            likeness[alike, 2] = slots
            likeness[alike, 3] = groups
            likeness[alike, 4] = charge
            worst[alike] = -1
            size[alike] = 0
            set_count += 1

        node = worst[alike]
        if size[alike] == sold_count and (
            score < node_score[node] or (score == node_score[node] and tie >= tie_key[node_row[node]])
        ):
            continue
        before, below = -1, -1  # the node looked at last; the best one that is worse than this candidate
        same, before_same = -1, -1  # the node with its product, and the one before that
        has_better_same = False
        while node >= 0:
            is_worse = node_score[node] < score or (node_score[node] == score and tie_key[node_row[node]] > tie)
            if is_worse:
                below = node
            if product_code[node_row[node]] == product_code[row]:
                same, before_same = node, before
                has_better_same = not is_worse
            before = node
            node = better[node]
        if has_better_same:
            continue
        if same < 0 and size[alike] == sold_count:
            same = worst[alike]
        if same >= 0:  # it gives up its place
            if before_same >= 0:
                better[before_same] = better[same]
            else:
                worst[alike] = better[same]
            if below == same:
                below = before_same
            node = same
        else:
            node = node_count
            node_count += 1
            size[alike] += 1
        node_row[node] = row
        node_score[node] = score
        if below >= 0:
            better[node] = better[below]
            better[below] = node
        else:
            better[node] = worst[alike]
            worst[alike] = node
    return node_row, node_count


@njit(cache=True)
def _split(blocks: Int64s, count: Int, slots: Int) -> Int:
    """Part every block into what is in `slots` and what is not, and return how many blocks there are then."""
    for block in range(count):
        inside = blocks[block] & slots
        if inside != 0 and inside != blocks[block]:
            blocks[count] = blocks[block] & ~slots
            blocks[block] = inside
            count += 1
    return count


@njit(cache=True)
def _find_blocks(pool: Int64s, page: PageArrays) -> tuple[Int64s, Int]:
    """Return the sold slots in blocks, and how many blocks: nothing but attention tells the slots of one apart."""
    sold, sold_count = _sold_slots(page.pinned_row)
    blocks = np.empty(max(1, sold_count), np.int64)
    blocks[0] = sold
    count: Int = np.int64(1 if sold_count else 0)
    for cap in range(page.cap_slots.size):
        count = _split(blocks, count, np.int64(page.cap_slots[cap]))
    charge_count, slot_count = page.attention_permille.shape
    for charge in range(charge_count):
        unseen = np.int64(0)
        for slot in range(slot_count):
            if page.attention_permille[charge, slot] == 0:
                unseen |= np.int64(1) << slot
        count = _split(blocks, count, unseen)
    for slot in range(slot_count):
        if page.opportunity_cost[slot] > 0:
            count = _split(blocks, count, np.int64(1) << slot)
    last = np.int64(-1)
    for at in range(pool.shape[1]):
        if pool[_SLOTS, at] != last:
            if count == sold_count:
                break
            last = pool[_SLOTS, at]
            count = _split(blocks, count, last)
    return blocks, count


@njit(cache=True)
def _order_slots(attention: Int64s) -> Int64s:
    """Return (K, S): for each charge type the slots by attention down, then position."""
    charge_count, slot_count = attention.shape
    order = np.empty((charge_count, slot_count), np.int64)
    for charge in range(charge_count):
        for slot in range(slot_count):
            place = slot
            while place > 0 and attention[charge, order[charge, place - 1]] < attention[charge, slot]:
                order[charge, place] = order[charge, place - 1]
                place -= 1
            order[charge, place] = slot
    return order


@njit(cache=True)
def _shuts_out(closed: Int64s, closure: Int, pool: Int64s, at: Int) -> bool:
    whom = closed[closure, _WHOM]
    if whom == _ONE_PRODUCT:
        return bool(closed[closure, _CODE] == pool[_PRODUCT, at])
    if closed[closure, _WHOSE_GROUPS] & pool[_GROUPS, at] == 0:
        return False
    return bool(whom == _ALL_IN_GROUPS or closed[closure, _CODE] == pool[_BRAND, at])


@njit(cache=True)
def _is_shut_out(closed: Int64s, begin: Int, end: Int, pool: Int64s, at: Int, slots: Int) -> bool:
    """Say whether one of the closures begin..end-1 keeps the candidate out of the block of slots."""
    for closure in range(begin, end):
        if closed[closure, _WHERE] & slots and _shuts_out(closed, closure, pool, at):
            return True
    return False


@njit(cache=True)
def _seek(
    pool: Int64s, at: Int, end: Int, slots: Int, least_score: Int, closed: Int64s, closure_count: Int, without: Int
) -> Int:
    """Return the first place from `at` on whose candidate may take a slot of the block, or `end`."""
    while at < end:
        advertiser = pool[_ADVERTISER, at]
        if (
            pool[_SLOTS, at] & slots
            and pool[_IS_TAKEN, at] == 0
            and advertiser != without
            and (pool[_SCORE, at] >= least_score or advertiser < 0)
            and not _is_shut_out(closed, 0, closure_count, pool, at, slots)
        ):
            return at
        at += 1
    return end


@njit(cache=True)
def _close(
    closed: Int64s, closure: Int, whom: Int, code: Int, groups: Int, where: Int, value: Int, slot: Int, tie: Int
) -> Int:
    """Write a closure, and return how many there are now."""
    closed[closure, _WHOM] = whom
    closed[closure, _CODE] = code
    closed[closure, _WHOSE_GROUPS] = groups
    closed[closure, _WHERE] = where
    closed[closure, _SINCE_VALUE] = value
    closed[closure, _SINCE_SLOT] = slot
    closed[closure, _SINCE_TIE] = tie
    return closure + 1


@njit(cache=True)
def _count_fills(fill: Int64s, taken: Int, groups: Int, where: Int, is_per_brand: bool, brand: Int) -> Int:
    """Return how many of the taken slots count towards a cap, or towards this brand's share of it."""
    count = np.int64(0)
    for slot in range(fill.shape[1]):
        if (
            (where & taken) >> slot & 1
            and groups & fill[_FILL_GROUPS, slot]
            and (not is_per_brand or fill[_FILL_BRAND, slot] == brand)
        ):
            count += 1
    return count


@njit(cache=True)
def _place_pins(candidates: CandidateArrays, page: PageArrays, fill: Int64s, closed: Int64s) -> Int:
    """Stand the pins in their slots, and return how many closures there are then (with those of caps of 0)."""
    taken = ~_sold_slots(page.pinned_row)[0]
    slot_count = page.pinned_row.size
    for slot in range(slot_count):
        row = page.pinned_row[slot]
        fill[_FILL_GROUPS, slot] = 0
        if row >= 0:
            fill[_FILL_BRAND, slot] = candidates.brand_code[row]
            fill[_FILL_GROUPS, slot] = _groups_of(candidates.group_bits[row], candidates.advertiser_code[row])
    count: Int = np.int64(0)
    for cap in range(page.cap_max.size):
        groups, where, most = np.int64(page.cap_bits[cap]), np.int64(page.cap_slots[cap]), page.cap_max[cap]
        if page.cap_per_brand[cap] == 0 or most <= 0:
            if _count_fills(fill, taken, groups, where, False, 0) >= most:
                count = _close(closed, count, _ALL_IN_GROUPS, 0, groups, where, 0, -1, 0)
            continue
        for slot in range(slot_count):
            brand = fill[_FILL_BRAND, slot]
            if page.pinned_row[slot] >= 0 and _count_fills(fill, taken, groups, where, True, brand) >= most:
                count = _close(closed, count, _ONE_BRAND, brand, groups, where, 0, -1, 0)
    return count


@njit(cache=True)
def _first_doubt(
    absent: Int64s,
    page: PageArrays,
    closed: Int64s,
    closure_count: Int,
    free: Int,
    value: Int,
    slot: Int,
    tie: Int,
) -> Int:
    """Return the first absent kind that might come before this pair (value 0: before the end of the run), or -1."""
    for kind in range(absent.shape[0]):
        score = absent[kind, _KIND_SCORE]
        if ATTENTION_PERMILLE_MAX * score < value:
            continue
        charge, groups = absent[kind, _KIND_CHARGE], absent[kind, _KIND_GROUPS]
        where = free & absent[kind, _KIND_SLOTS]
        for closure in range(closure_count):
            if closed[closure, _WHOM] == _ALL_IN_GROUPS and closed[closure, _WHOSE_GROUPS] & groups:
                where &= ~closed[closure, _WHERE]
        for u in range(page.pinned_row.size):
            if (where >> u) & 1:
                most = page.attention_permille[charge, u] * score
                if most == 0 or (groups & GROUP_PAID and most < page.opportunity_cost[u]):
                    continue
                if most > value or (most == value and (u < slot or (u == slot and absent[kind, _KIND_TIE] < tie))):
                    return np.int64(kind)
    return np.int64(-1)


@njit(cache=True)
def _comes_first(pool: Int64s, at: Int, other: Int) -> bool:
    """Say whether the first of two candidates worth the same in a slot takes it."""
    return bool(
        pool[_TIE, at] < pool[_TIE, other]
        or (pool[_TIE, at] == pool[_TIE, other] and pool[_ROW, at] < pool[_ROW, other])
    )


@njit(cache=True)
def _finish(
    page: PageArrays, field: _Field, run: _Run, closure_count: Int, free: Int, without: Int, is_main: bool
) -> tuple[Int, Int, Int, Int]:
    """Take pairs until no slot is free or no pair is left.

    Args:
        page: the page.
        field: who competes for what; the pool's _IS_TAKEN is written.
        run: from where it is resumed; written on.
        closure_count: how many closures there are already.
        free: slots to fill.
        without: advertiser that takes no part.
        is_main: write the records.

    Returns:
        Which absent kind might have come before one of the picks, or -1; how many picks there were; the slots still
        free; how many closures there are.
    """
    pool, first, absent, order = field.pool, field.first, field.absent, field.order
    blocks, least_score = field.blocks, field.least_score
    closed, fill, next_at, top = run.closed, run.fill, run.next_at, run.top
    step, next_before = run.step, run.next_before
    charge_count, block_count = next_at.shape
    pick_count = np.int64(0)
    while free != 0:
        if is_main:
            step[_STEP_CLOSURES, pick_count] = closure_count
        at, at_slot, value = np.int64(-1), np.int64(0), np.int64(0)
        for charge in range(charge_count):
            for block in range(block_count):
                other = next_at[charge, block]
                if is_main:
                    next_before[pick_count, charge, block] = other
                slots = blocks[block] & free
                if other == first[charge + 1] or slots == 0:
                    continue
                place = top[charge, block]
                while (slots >> order[charge, place]) & 1 == 0:
                    place += 1
                top[charge, block] = place
                slot = order[charge, place]
                other_value = page.attention_permille[charge, slot] * pool[_SCORE, other]
                if other_value > value or (
                    other_value == value
                    and at >= 0
                    and (slot < at_slot or (slot == at_slot and _comes_first(pool, other, at)))
                ):
                    at, at_slot, value = other, slot, other_value
        tie = pool[_TIE, at] if at >= 0 else np.int64(0)
        if absent.size:
            doubt = _first_doubt(absent, page, closed, closure_count, free, value, at_slot, tie)
            if doubt >= 0:
                return doubt, pick_count, free, closure_count
        if at < 0:
            break

        free &= ~(np.int64(1) << at_slot)
        brand, groups = pool[_BRAND, at], pool[_GROUPS, at]
        pool[_IS_TAKEN, at] = 1
        fill[_FILL_AT, at_slot] = at
        fill[_FILL_VALUE, at_slot] = value
        fill[_FILL_BRAND, at_slot] = brand
        fill[_FILL_GROUPS, at_slot] = groups
        if is_main:
            step[_STEP_AT, pick_count] = at
            step[_STEP_SLOT, pick_count] = at_slot
        pick_count += 1
        if free == 0:
            break  # whom it shuts out can beat it nowhere without beating the filled slots too

        before = closure_count
        if pool[_HAS_TWIN, at]:
            closure_count = _close(closed, closure_count, _ONE_PRODUCT, pool[_PRODUCT, at], -1, -1, value, at_slot, tie)
        for cap in range(page.cap_max.size):
            counted, where = np.int64(page.cap_bits[cap]), np.int64(page.cap_slots[cap])
            if (where >> at_slot) & 1 and counted & groups:
                is_per_brand = page.cap_per_brand[cap] != 0
                if _count_fills(fill, ~free, counted, where, is_per_brand, brand) == page.cap_max[cap]:
                    whom = _ONE_BRAND if is_per_brand else _ALL_IN_GROUPS
                    closure_count = _close(closed, closure_count, whom, brand, counted, where, value, at_slot, tie)
        for charge in range(charge_count):
            for block in range(block_count):
                other, slots = next_at[charge, block], blocks[block]
                if (
                    other < first[charge + 1]
                    and slots & free
                    and (other == at or _is_shut_out(closed, before, closure_count, pool, other, slots))
                ):
                    next_at[charge, block] = _seek(
                        pool,
                        other + 1,
                        first[charge + 1],
                        slots,
                        least_score[charge, block],
                        closed,
                        closure_count,
                        without,
                    )
    return np.int64(-1), pick_count, free, closure_count


@njit(cache=True)
def _read_staircase(
    attention: Int64s, order: Int64s, at_slot: Int, threshold: Int64s, stair: Int64s
) -> tuple[Int, Int]:
    """Return the critical and the vcg price of a winner.

    Args:
        attention: (S,) of its charge type.
        order: (S,) slots by attention down.
        at_slot: where it stands.
        threshold: (S,) least bid for at least each slot's attention.
        stair: (S,) the same without the later candidates of its advertiser, where that is another page.
    """
    critical, least, step = np.int64(0), np.int64(UNATTAINABLE), np.int64(UNATTAINABLE)
    total = np.int64(0)
    for place in range(order.size):  # down the levels of attention
        slot = order[place]
        least = min(least, threshold[slot])
        step = min(step, stair[slot])
        level = attention[slot]
        next_level = attention[order[place + 1]] if place + 1 < order.size else np.int64(0)
        if level <= attention[at_slot] and next_level < level:
            if level == attention[at_slot]:
                critical = min(least, step)
            total += (level - next_level) * min(step, critical)
    return critical, (total + attention[at_slot] - 1) // attention[at_slot]


@njit(cache=True)
def _price(
    candidates: CandidateArrays,
    page: PageArrays,
    field: _Field,
    run: _Run,
    closure_count: Int,
    free: Int,
    at: Int,
    at_slot: Int,
    outcome: OutcomeArrays,
) -> None:
    """Write a winner's thresholds and both its prices, from the run that was finished without it."""
    pool, closed, fill = field.pool, run.closed, run.fill
    slot_count = page.pinned_row.size
    row = pool[_ROW, at]
    charge = candidates.charge_code[row]
    attention = page.attention_permille[charge]
    threshold = outcome.threshold_micros[at_slot]
    eligible = pool[_SLOTS, at] & _sold_slots(page.pinned_row)[0]
    for slot in range(slot_count):  # first the value that is needed there
        if attention[slot] == 0:
            eligible &= ~(np.int64(1) << slot)
        needed = max(np.int64(1), page.opportunity_cost[slot])
        if (eligible & ~free) >> slot & 1:
            wins_tie = _comes_first(pool, at, fill[_FILL_AT, slot])
            needed = max(needed, fill[_FILL_VALUE, slot] + (0 if wins_tie else 1))
        threshold[slot] = needed
    for closure in range(closure_count):
        if not (closed[closure, _WHERE] & eligible and _shuts_out(closed, closure, pool, at)):
            continue
        since = closed[closure, _SINCE_SLOT]
        if since < 0:
            eligible &= ~closed[closure, _WHERE]
            continue
        for slot in range(slot_count):
            if (closed[closure, _WHERE] >> slot) & 1:
                wins_tie = slot < since or (slot == since and pool[_TIE, at] < closed[closure, _SINCE_TIE])
                threshold[slot] = max(threshold[slot], closed[closure, _SINCE_VALUE] + (0 if wins_tie else 1))

    weight, value = candidates.weight_ppm[row], candidates.value_micros[row] * PPM
    floor = max(np.int64(0), candidates.floor_micros[row])
    for slot in range(slot_count):  # then the least bid that reaches it
        if (eligible >> slot) & 1:
            rest = (threshold[slot] + attention[slot] - 1) // attention[slot] - value
            threshold[slot] = max(floor, (rest + weight - 1) // weight if rest > 0 else np.int64(0))
        else:
            threshold[slot] = UNATTAINABLE

    outcome.critical_micros[at_slot], outcome.vcg_micros[at_slot] = _read_staircase(
        attention, field.order[charge], at_slot, threshold, threshold
    )


@njit(cache=True)
def _begin_outcome(page: PageArrays, outcome: OutcomeArrays) -> None:
    """Write the outcome of a page on which nothing but the pins stands."""
    slot_count = page.pinned_row.size
    for slot in range(slot_count):
        outcome.winner_row[slot] = page.pinned_row[slot]
        outcome.critical_micros[slot] = 0
        outcome.vcg_micros[slot] = 0
        outcome.pick_order[slot] = -1
        for other in range(slot_count):
            outcome.threshold_micros[slot, other] = UNATTAINABLE


@njit(cache=True)
def _make_field(candidates: CandidateArrays, page: PageArrays, kept: Int64s, kept_count: Int, absent: Int64s) -> _Field:
    charge_count, slot_count = page.attention_permille.shape
    pool, first = _make_pool(candidates, kept, kept_count, charge_count)
    blocks, block_count = _find_blocks(pool, page)
    blocks = blocks[:block_count]
    least_score = np.zeros((charge_count, block_count), np.int64)
    for slot in range(slot_count):
        if page.opportunity_cost[slot] > 0:  # then the slot is a block of its own
            for block in range(block_count):
                if blocks[block] == np.int64(1) << slot:
                    for charge in range(charge_count):
                        attention = max(np.int64(1), page.attention_permille[charge, slot])
                        least_score[charge, block] = (page.opportunity_cost[slot] + attention - 1) // attention
    return _Field(pool, first, absent, _order_slots(page.attention_permille), blocks, least_score)


@njit(cache=True)
def _new_run(page: PageArrays, block_count: Int) -> _Run:
    charge_count, slot_count = page.attention_permille.shape
    return _Run(
        np.empty((slot_count + (2 * slot_count + 1) * page.cap_max.size, 7), np.int64),
        np.empty((4, slot_count), np.int64),
        np.empty((charge_count, block_count), np.int64),
        np.empty((charge_count, block_count), np.int64),
        np.empty((3, slot_count), np.int64),
        np.empty((slot_count, charge_count, block_count), np.int64),
    )


@njit(cache=True)
def _decide(
    candidates: CandidateArrays,
    page: PageArrays,
    kept: Int64s,
    kept_count: Int,
    absent: Int64s,
    outcome: OutcomeArrays,
) -> Int:
    """Fill and price the page from the rows kept; return -1, or an absent kind that might have changed the answer."""
    field = _make_field(candidates, page, kept, kept_count, absent)
    run = _new_run(page, field.blocks.size)
    pool, first, blocks, step, fill = field.pool, field.first, field.blocks, run.step, run.fill
    charge_count, slot_count = page.attention_permille.shape
    _begin_outcome(page, outcome)
    free = _sold_slots(page.pinned_row)[0]
    closure_count = _place_pins(candidates, page, fill, run.closed)
    advertiser, at, at_slot = np.int64(_NOBODY), np.int64(-1), np.int64(-1)
    # The main run, then the last winner first: what a resumed run writes over belongs to steps nobody needs any more.
    last: Int = np.int64(slot_count)
    while last >= 0:
        is_main = last == slot_count
        if not is_main:
            at, at_slot = step[_STEP_AT, last], step[_STEP_SLOT, last]
            free |= np.int64(1) << at_slot
            pool[_IS_TAKEN, at] = 0
            outcome.winner_row[at_slot] = pool[_ROW, at]
            outcome.pick_order[at_slot] = last
            advertiser = pool[_ADVERTISER, at]
            closure_count = step[_STEP_CLOSURES, last]
        if is_main or advertiser >= 0:
            for charge in range(charge_count):
                for block in range(blocks.size):
                    end, slots = first[charge + 1], blocks[block]
                    place = first[charge] if is_main else run.next_before[last, charge, block]
                    if page.attention_permille[charge, _lowest(slots)] == 0:
                        place = end
                    elif place < end and (is_main or pool[_ADVERTISER, place] == advertiser):
                        place = _seek(
                            pool,
                            place,
                            end,
                            slots,
                            field.least_score[charge, block],
                            run.closed,
                            closure_count,
                            advertiser,
                        )
                    run.next_at[charge, block] = place
                    run.top[charge, block] = 0
            doubt, pick_count, unfilled, closure_count = _finish(
                page, field, run, closure_count, free, advertiser, is_main
            )
            if doubt >= 0:
                return doubt
            if is_main:
                free, last = unfilled, pick_count
            else:
                _price(candidates, page, field, run, closure_count, unfilled, at, at_slot, outcome)
                for slot in range(slot_count):
                    if (free & ~unfilled) >> slot & 1:
                        pool[_IS_TAKEN, fill[_FILL_AT, slot]] = 0
        last -= 1
    return np.int64(-1)


@njit(cache=True)
def _lowest(slots: Int) -> Int:
    """Return the first slot of a set that has one."""
    slot: Int = np.int64(0)
    while (slots >> slot) & 1 == 0:
        slot += 1
    return slot


@njit(cache=True)
def _allocate_and_price(
    candidates: CandidateArrays,
    candidate_count: Int,
    page: PageArrays,
    unseen: Int64s,
    shortlist_count: Int,
    outcome: OutcomeArrays,
) -> Int:
    """Do as `allocate_and_price_nb`, or return -1 where an unseen kind might change the answer.

    `unseen` has the columns of `absent`.
    """
    wanted = shortlist_count if shortlist_count > 0 else _shortlist_size(page.pinned_row.size)
    rows = np.empty(0, np.int64)
    row_count: Int = np.int64(0)
    for attempt in range(3):  # the best of each kind; the best of each kind of what is not dominated; all of that
        if attempt == 0:
            kept, kept_count, left_out = _shortlist(candidates, None, candidate_count, wanted, page)
        elif attempt == 1:
            rows, row_count = _drop_dominated(candidates, candidate_count, page)
            kept, kept_count, left_out = _shortlist(candidates, rows, row_count, wanted, page)
        else:
            kept, kept_count, left_out = rows, row_count, np.empty((0, 5), np.int64)
        if kept_count < 0:
            continue
        left_out_count = left_out.shape[0]
        absent = np.empty((left_out_count + unseen.shape[0], 5), np.int64)
        for kind in range(absent.shape[0]):  # not by slices: their error messages take 5 s to compile
            for column in range(5):
                if kind < left_out_count:
                    absent[kind, column] = left_out[kind, column]
                else:
                    absent[kind, column] = unseen[kind - left_out_count, column]
        doubt = _decide(candidates, page, kept, kept_count, absent, outcome)
        if doubt >= left_out_count:
            return np.int64(-1)
        if doubt < 0:
            break
    fill_count = np.int64(0)
    for slot in range(page.pinned_row.size):
        fill_count += outcome.pick_order[slot] >= 0
    return fill_count


@_compiled_late(types.int64(_CandidateArrays, types.int64, _PageArrays, types.int64, _OutcomeArrays))
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
    nothing = np.empty((0, 5), np.int64)
    return int(_allocate_and_price(candidates, candidate_count, page, nothing, shortlist_count, outcome))


# ---------------------------------------------------------------------------------------------------------------------
# The page worth most (docs/mechanism.md, "The page worth most"): a flow of units from a root through the caps to
# candidates, through them to slots, and from there back to the root, at the greatest gain
#
# Two things keep this in int64: only differences of worth are ever added up, along a path; and a path that loses more
# than a pair can be worth is no path at all, since nothing that follows could make up for it.
# Source: successive shortest paths, Ahuja, Magnanti and Orlin, Network Flows (1993), ch. 9.
# ---------------------------------------------------------------------------------------------------------------------

# What `allocate_exactly_nb` returns.
EXACT_DONE, EXACT_NOT_EXPRESSIBLE, EXACT_TOO_LARGE = range(3)
EXACT_STEPS_MAX = 2**62  # never too large

_UNREACHED = -(2**63 - 1)  # gain where there is no path

# Rows of `tree` (2, N): the node a cap stands under, and how many units may pass it.
_PARENT, _ROOM = range(2)

# Rows of `node_way` (4, N): the best gain from a unit at the node to the search's goal, and the move that begins it.
_GAIN, _MOVE, _MOVE_TO, _MOVE_SLOT = range(4)
_UP, _DOWN, _ENTER, _EMPTY = range(4)

# Rows of `slot_way` (3, S): the best gain from a unit more in the slot; from its candidate put out, and where that goes
# then (-1: off the page).
_SLOT_GAIN, _OUT_GAIN, _OUT_TO = range(3)


class _Network(NamedTuple):
    """What units flow through.

    Attributes:
        open_slots: (Q,) where each candidate may stand, as bits.
        net: (Q, S) worth of a pair, its opportunity cost taken off; -1 where it may not be.
        gross: (Q, S) worth of a pair; 0 where it may not be.
        tie_rank: (Q,) place by tie.
        leaf: (Q,) innermost cap over each candidate.
        tree: (2, N) the caps.
    """

    open_slots: Int64s
    net: Int64s
    gross: Int64s
    tie_rank: Int64s
    leaf: Int64s
    tree: Int64s


class _Flow(NamedTuple):
    """One page in the network.

    Attributes:
        slot_row: (S,) candidate in each slot, -1 where there is none.
        row_slot: (Q,) the same the other way round.
        used: (N,) how many units pass each cap.
        is_out: (Q,) 1: takes no part.
        frozen: slots whose candidates stay, as bits; pinned ones among them.
    """

    slot_row: Int64s
    row_slot: Int64s
    used: Int64s
    is_out: Int64s
    frozen: Int


class _Ways(NamedTuple):
    """What the last search found: the best way to its goal from everywhere.

    Attributes:
        goal: (2,) node and slot it led to; one of them is -1.
        node_way: (4, N) from the caps.
        slot_way: (3, S) from the slots.
        steps_left: (1,) looks at a pair that may still be taken.
    """

    goal: Int64s
    node_way: Int64s
    slot_way: Int64s
    steps_left: Int64s


class _Entrant(NamedTuple):
    """A candidate that is priced: what it gets on the page without it, by its bid.

    Attributes:
        at: its place in the pool.
        weight: its events per million impressions.
        value: its H.
        floor: its floor, at least 0.
        attention: (S,) of its charge type.
        opportunity_cost: (S,) of the page.
    """

    at: Int
    weight: Int
    value: Int
    floor: Int
    attention: Int64s
    opportunity_cost: Int64s


@njit(cache=True)
def _is_in(slots: Int, slot: Int) -> bool:
    return bool((slots >> slot) & 1)


@njit(cache=True)
def _empty_flow(network: _Network, frozen: Int) -> _Flow:
    count, slot_count = network.net.shape
    return _Flow(
        np.full(slot_count, -1, np.int64),
        np.full(count, -1, np.int64),
        np.zeros(network.tree.shape[1], np.int64),
        np.zeros(count, np.int64),
        frozen,
    )


@njit(cache=True)
def _copy_flow(flow: _Flow) -> _Flow:
    return _Flow(flow.slot_row.copy(), flow.row_slot.copy(), flow.used.copy(), flow.is_out.copy(), flow.frozen)


@njit(cache=True)
def _first_way(net: Int64s, slot_way: Int64s, at: Int, own: Int, gain: Int) -> Int:
    """Return the first slot but its own in which a candidate gains as much."""
    slot: Int = np.int64(0)
    while (
        net[at, slot] < 0
        or slot == own
        or slot_way[_SLOT_GAIN, slot] == _UNREACHED
        or net[at, slot] + slot_way[_SLOT_GAIN, slot] != gain
    ):
        slot += 1
    return slot


@njit(cache=True)
def _search(network: _Network, flow: _Flow, ways: _Ways, goal_node: Int, goal_slot: Int) -> bool:
    """Find the best way from everywhere to the goal, a node or a slot (the other -1); False where the steps ran out."""
    net, leaf, tree = network.net, network.leaf, network.tree
    slot_row, row_slot, used, is_out, frozen = flow.slot_row, flow.row_slot, flow.used, flow.is_out, flow.frozen
    node_way, slot_way, steps_left = ways.node_way, ways.slot_way, ways.steps_left
    count, slot_count = net.shape
    node_count = tree.shape[1]
    ways.goal[0] = goal_node
    ways.goal[1] = goal_slot
    for node in range(node_count):
        node_way[_GAIN, node] = _UNREACHED
    for slot in range(slot_count):
        slot_way[_SLOT_GAIN, slot] = _UNREACHED
        slot_way[_OUT_GAIN, slot] = _UNREACHED
    if goal_node >= 0:
        node_way[_GAIN, goal_node] = 0
    else:
        slot_way[_SLOT_GAIN, goal_slot] = 0
    ends_at_root = goal_node == 0
    is_changed = True
    while is_changed:
        is_changed = False
        steps_left[0] -= count * slot_count + slot_count + node_count
        if steps_left[0] < 0:
            return False
        for slot in range(slot_count):
            if _is_in(frozen, slot) or slot == goal_slot:
                continue
            standing = slot_row[slot]
            gain = node_way[_GAIN, 0]
            if standing >= 0:
                gain = slot_way[_OUT_GAIN, slot]
                if gain != _UNREACHED:
                    lost = net[standing, slot]
                    gain = gain - lost if gain >= lost - PAIR_VALUE_MAX else np.int64(_UNREACHED)
            if gain > slot_way[_SLOT_GAIN, slot]:
                slot_way[_SLOT_GAIN, slot] = gain
                is_changed = True
        for at in range(count):
            own = row_slot[at]
            if is_out[at] or (own >= 0 and (_is_in(frozen, own) or own == goal_slot)):
                continue
            best = np.int64(_UNREACHED)
            for slot in range(slot_count):  # without branches, so that several slots are looked at in one instruction
                is_way = (net[at, slot] >= 0) & (slot != own) & (slot_way[_SLOT_GAIN, slot] != _UNREACHED)
                best = max(best, net[at, slot] + slot_way[_SLOT_GAIN, slot] if is_way else np.int64(_UNREACHED))
            node = leaf[at]
            if own >= 0:
                if max(best, node_way[_GAIN, node]) > slot_way[_OUT_GAIN, own]:
                    is_off = node_way[_GAIN, node] > best
                    slot_way[_OUT_TO, own] = -1 if is_off else _first_way(net, slot_way, at, own, best)
                    slot_way[_OUT_GAIN, own] = max(best, node_way[_GAIN, node])
                    is_changed = True
            elif best > node_way[_GAIN, node] and not (ends_at_root and node == 0):
                node_way[_GAIN, node] = best
                node_way[_MOVE, node] = _ENTER
                node_way[_MOVE_TO, node] = at
                node_way[_MOVE_SLOT, node] = _first_way(net, slot_way, at, own, best)
                is_changed = True
        if not ends_at_root:
            for slot in range(slot_count):
                if slot_row[slot] >= 0 and not _is_in(frozen, slot) and slot_way[_SLOT_GAIN, slot] > node_way[_GAIN, 0]:
                    node_way[_GAIN, 0] = slot_way[_SLOT_GAIN, slot]
                    node_way[_MOVE, 0] = _EMPTY
                    node_way[_MOVE_SLOT, 0] = slot
                    is_changed = True
        for node in range(node_count - 1, 0, -1):
            above = tree[_PARENT, node]
            if (
                used[node] < tree[_ROOM, node]
                and node_way[_GAIN, node] > node_way[_GAIN, above]
                and not (ends_at_root and above == 0)
            ):
                node_way[_GAIN, above] = node_way[_GAIN, node]
                node_way[_MOVE, above] = _DOWN
                node_way[_MOVE_TO, above] = node
                is_changed = True
        for node in range(1, node_count):
            above = tree[_PARENT, node]
            if used[node] > 0 and node_way[_GAIN, above] > node_way[_GAIN, node]:
                node_way[_GAIN, node] = node_way[_GAIN, above]
                node_way[_MOVE, node] = _UP
                is_changed = True
    return True


@njit(cache=True)
def _follow(network: _Network, flow: _Flow, ways: _Ways, node: Int, slot: Int, coming: Int) -> None:
    """Move a unit the way that was found to the goal.

    Args:
        network: as it was searched.
        flow: as it was searched; changed.
        ways: what was found.
        node: where the unit is, or -1: then
        slot: is where it comes to,
        coming: as this candidate (-1: as nobody).
    """
    slot_row, row_slot, used = flow.slot_row, flow.row_slot, flow.used
    node_way, goal_node, goal_slot = ways.node_way, ways.goal[0], ways.goal[1]
    while True:
        if node >= 0:
            if node == goal_node:
                return
            move = node_way[_MOVE, node]
            if move == _UP:
                used[node] -= 1
                node = network.tree[_PARENT, node]
            elif move == _DOWN:
                node = node_way[_MOVE_TO, node]
                used[node] += 1
            else:
                coming = node_way[_MOVE_TO, node] if move == _ENTER else np.int64(-1)
                slot = node_way[_MOVE_SLOT, node]
                node = np.int64(-1)
        else:
            before = slot_row[slot]
            slot_row[slot] = coming
            if coming >= 0:
                row_slot[coming] = slot
            if slot == goal_slot:
                return
            if before < 0:
                node = np.int64(0)
            else:
                where = ways.slot_way[_OUT_TO, slot]
                if where >= 0:
                    coming, slot = before, where
                else:
                    row_slot[before] = -1
                    node = network.leaf[before]


@njit(cache=True)
def _fill_best(network: _Network, flow: _Flow, ways: _Ways) -> bool:
    """Bring one more unit to a slot, by the way of greatest gain, until none gains; False where the steps ran out."""
    net, leaf, tree = network.net, network.leaf, network.tree
    row_slot, used, is_out = flow.row_slot, flow.used, flow.is_out
    root: Int = np.int64(0)
    nowhere: Int = np.int64(-1)
    while True:
        if not _search(network, flow, ways, root, nowhere):
            return False
        best, node, slot, coming = np.int64(0), nowhere, nowhere, nowhere
        for at in range(net.shape[0]):
            if row_slot[at] < 0 and leaf[at] == 0 and not is_out[at]:
                for u in range(net.shape[1]):
                    if net[at, u] >= 0 and ways.slot_way[_SLOT_GAIN, u] != _UNREACHED:
                        gain = net[at, u] + ways.slot_way[_SLOT_GAIN, u]
                        if gain > best:
                            best, slot, coming = gain, np.int64(u), np.int64(at)
        for cap in range(1, tree.shape[1]):
            if tree[_PARENT, cap] == 0 and used[cap] < tree[_ROOM, cap] and ways.node_way[_GAIN, cap] > best:
                best, node = ways.node_way[_GAIN, cap], np.int64(cap)
        if best == 0:
            return True
        if node >= 0:
            used[node] += 1
        _follow(network, flow, ways, node, slot, coming)


@njit(cache=True)
def _take_out(network: _Network, flow: _Flow, ways: _Ways, at: Int) -> bool:
    """Turn the best page into the best one without a candidate; False where the steps ran out.

    It need not stand on the page: who was taken out before it may have been what held its place.
    """
    slot = flow.row_slot[at]
    if slot < 0:
        flow.is_out[at] = 1
        return True
    nowhere: Int = np.int64(-1)
    if not _search(network, flow, ways, nowhere, slot):
        return False
    flow.is_out[at] = 1
    flow.row_slot[at] = -1
    _follow(network, flow, ways, network.leaf[at], nowhere, nowhere)
    return True


@njit(cache=True)
def _settle_ties(network: _Network, flow: _Flow, ways: _Ways) -> bool:
    """Turn a best page into the one of them that the greedy order takes first; False where the steps ran out.

    Pairs are gone through in that order, and one is fixed if a page worth as much holds it and those fixed before. Only
    pairs without slack can be: those which the duals of the best page (the gains to the root) leave no loss.
    """
    net, leaf, row_slot = network.net, network.leaf, flow.row_slot
    node_way, slot_way = ways.node_way, ways.slot_way
    count, slot_count = net.shape
    root: Int = np.int64(0)
    nowhere: Int = np.int64(-1)
    if not _search(network, flow, ways, root, nowhere):
        return False
    tight = np.empty(count * slot_count, np.int64)
    tight_count = 0
    for at in range(count):
        own = row_slot[at]
        for slot in range(slot_count):
            if (
                flow.is_out[at]
                or net[at, slot] < 0
                or _is_in(flow.frozen, slot)
                or slot_way[_SLOT_GAIN, slot] == _UNREACHED
            ):
                continue
            best = slot_way[_OUT_GAIN, own] if own >= 0 else node_way[_GAIN, leaf[at]]
            if slot == own or net[at, slot] + slot_way[_SLOT_GAIN, slot] == best:
                tight[tight_count] = at * slot_count + slot
                tight_count += 1
    keys = np.empty((tight_count, 3), np.int64)
    order, spare = np.empty(tight_count, np.int64), np.empty(tight_count, np.int64)
    for number in range(tight_count):
        at, slot = tight[number] // slot_count, tight[number] % slot_count
        keys[number, 0] = network.gross[at, slot]
        keys[number, 1] = slot
        keys[number, 2] = network.tie_rank[at]
        order[number] = number
    _sort_best_first(order, spare, 0, tight_count, keys)
    for place in range(tight_count):
        at, slot = tight[order[place]] // slot_count, tight[order[place]] % slot_count
        own = row_slot[at]
        if _is_in(flow.frozen, slot) or (own >= 0 and _is_in(flow.frozen, own)):
            continue
        if own != slot:
            goal_node = leaf[at] if own < 0 else nowhere
            if not _search(network, flow, ways, goal_node, own):
                return False
            lost = net[at, slot] - (net[at, own] if own >= 0 else 0)
            if slot_way[_SLOT_GAIN, slot] == _UNREACHED or slot_way[_SLOT_GAIN, slot] != -lost:
                continue
            _follow(network, flow, ways, nowhere, slot, at)
        flow = _Flow(flow.slot_row, row_slot, flow.used, flow.is_out, flow.frozen | (np.int64(1) << slot))
    return True


@njit(cache=True)
def _is_bound_to_lose(pool: Int64s, at: Int, witness: Int64s, witness_count: Int64s, wanted: Int) -> bool:
    """Say whether so many better ones of its kind are of different brands, advertisers and products; else note it."""
    if witness_count[0] >= wanted:
        return True
    for other in range(witness_count[0]):
        if (
            witness[other, 0] == pool[_BRAND, at]
            or witness[other, 1] == pool[_PRODUCT, at]
            or (witness[other, 2] == pool[_ADVERTISER, at] and pool[_ADVERTISER, at] >= 0)
        ):
            return False
    witness[witness_count[0], 0] = pool[_BRAND, at]
    witness[witness_count[0], 1] = pool[_PRODUCT, at]
    witness[witness_count[0], 2] = pool[_ADVERTISER, at]
    witness_count[0] += 1
    return False


@njit(cache=True)
def _drop_hopeless(
    pool: Int64s, first: Int64s, open_slots: Int64s, sold_count: Int, absent: Int64s, seen_slots: Int64s
) -> tuple[Int64s, Int]:
    """Return the places in the pool that some best page, priced or not, could need, and how many.

    Call two of one kind when they have the same charge type, slots and groups. Every other fill shuts out at most the
    brand of one better one of the kind and the product of another, and pricing takes out one advertiser; so of
    2·slots + 1 better ones that share neither brand nor product nor advertiser, one is there to stand in for this one.

    Args:
        pool: best first within each charge type.
        first: where those begin.
        open_slots: (Q,) where each may stand.
        sold_count: slots to fill.
        absent: what is not in the pool, as in `_shortlist`; how many is -1 where some of that could be needed too.
        seen_slots: (K,) slots with attention for each charge type.
    """
    count = pool.shape[1]
    wanted = 2 * sold_count + 1
    kept = np.empty(count, np.int64)
    kept_count: Int = np.int64(0)
    witness = np.empty((_SORT_COUNT_MAX, wanted, 3), np.int64)
    witness_count = np.zeros((_SORT_COUNT_MAX, 1), np.int64)
    kind_slots = np.empty(_SORT_COUNT_MAX, np.int64)
    kind_groups = np.empty(_SORT_COUNT_MAX, np.int64)
    sure_count = 0  # kinds of `absent` that are bound to lose
    for charge in range(first.size - 1):
        kind_count = 0
        for at in range(first[charge], first[charge + 1]):
            if open_slots[at] == 0:
                continue
            kind = 0
            while kind < kind_count and (kind_slots[kind] != open_slots[at] or kind_groups[kind] != pool[_GROUPS, at]):
                kind += 1
            if kind == kind_count and kind_count < _SORT_COUNT_MAX:
                kind_slots[kind] = open_slots[at]
                kind_groups[kind] = pool[_GROUPS, at]
                witness_count[kind, 0] = 0
                kind_count += 1
            if kind == kind_count or not _is_bound_to_lose(pool, at, witness[kind], witness_count[kind], wanted):
                kept[kept_count] = at
                kept_count += 1
        for number in range(absent.shape[0]):
            if absent[number, _KIND_CHARGE] == charge:
                for kind in range(kind_count):
                    if (
                        kind_slots[kind] == absent[number, _KIND_SLOTS] & seen_slots[charge]
                        and kind_groups[kind] == absent[number, _KIND_GROUPS]
                        and witness_count[kind, 0] >= wanted
                    ):
                        sure_count += 1
    if sure_count < absent.shape[0]:
        return kept, np.int64(-1)
    return kept, kept_count


@njit(cache=True)
def _close_caps(candidates: CandidateArrays, page: PageArrays, pool: Int64s, open_slots: Int64s) -> Int64s:
    """Take out of `open_slots` what the pins left no room for; return (F, Q) how many each cap still lets in."""
    count = pool.shape[1]
    room = np.empty((page.cap_max.size, count), np.int64)
    for cap in range(page.cap_max.size):
        groups, where = np.int64(page.cap_bits[cap]), np.int64(page.cap_slots[cap])
        for at in range(count):
            left = page.cap_max[cap]
            for slot in range(page.pinned_row.size):
                row = page.pinned_row[slot]
                if (
                    row >= 0
                    and _is_in(where, slot)
                    and groups & _groups_of(candidates.group_bits[row], candidates.advertiser_code[row])
                    and (page.cap_per_brand[cap] == 0 or candidates.brand_code[row] == pool[_BRAND, at])
                ):
                    left -= 1
            room[cap, at] = left
            if left <= 0 and groups & pool[_GROUPS, at]:
                open_slots[at] &= ~where
    return room


@njit(cache=True)
def _grow_tree(page: PageArrays, pool: Int64s, open_slots: Int64s, room: Int64s, leaf: Int64s) -> tuple[Int64s, bool]:
    """Return the caps as a tree, written into `leaf` too, and whether they are one.

    They are if each counts its candidates wherever these may stand, and of any two that share a candidate one lies
    within the other. A cap that cannot bind is none; that a product stands once is one.
    """
    count = pool.shape[1]
    cap_count = page.cap_max.size
    sold = _sold_slots(page.pinned_row)[0]
    first_of_brand = np.empty(count, np.int64)
    first_of_product = np.empty(count, np.int64)
    for at in range(count):
        first_of_brand[at] = at
        first_of_product[at] = at
        for before in range(at - 1, -1, -1):
            if pool[_BRAND, before] == pool[_BRAND, at]:
                first_of_brand[at] = first_of_brand[before]
                break
        for before in range(at - 1, -1, -1):
            if pool[_PRODUCT, before] == pool[_PRODUCT, at]:
                first_of_product[at] = first_of_product[before]
                break
    belongs = np.full((cap_count + 1, count), -1, np.int64)  # the first candidate of the set it is in
    size = np.zeros((cap_count + 1, count), np.int64)  # by that first candidate
    for at in range(count):
        belongs[cap_count, at] = first_of_product[at]
        size[cap_count, first_of_product[at]] += 1
        for cap in range(cap_count):
            if np.int64(page.cap_bits[cap]) & pool[_GROUPS, at] and np.int64(page.cap_slots[cap]) & open_slots[at]:
                number = first_of_brand[at] if page.cap_per_brand[cap] else np.int64(0)
                belongs[cap, at] = number
                size[cap, number] += 1
    tree = np.zeros((2, 1 + (cap_count + 1) * count), np.int64)
    node_count: Int = np.int64(1)
    for at in range(count):
        leaf[at] = 0
    sizes = np.zeros(count + 1, np.bool_)
    for cap in range(cap_count + 1):
        for number in range(count):
            sizes[size[cap, number]] = True
    for wanted in range(count, 1, -1):  # the largest first
        if not sizes[wanted]:
            continue
        for cap in range(cap_count + 1):
            where = np.int64(page.cap_slots[cap]) & sold if cap < cap_count else sold
            most = np.int64(0)
            for slot in range(page.pinned_row.size):
                most += _is_in(where, slot)
            for number in range(count):
                if size[cap, number] != wanted:
                    continue
                above = np.int64(-1)
                left: Int = np.int64(1)
                for at in range(count):
                    if belongs[cap, at] != number:
                        continue
                    if cap < cap_count:
                        left = room[cap, at]
                        if wanted <= left or most <= left:
                            break
                        if open_slots[at] & ~where:
                            return tree, False
                    if above < 0:
                        above = leaf[at]
                    elif leaf[at] != above:
                        return tree, False
                    leaf[at] = node_count
                if above >= 0:
                    tree[_PARENT, node_count] = above
                    tree[_ROOM, node_count] = left
                    node_count += 1
    grown = np.empty((2, node_count), np.int64)
    for node in range(node_count):
        for part in range(2):
            grown[part, node] = tree[part, node]
    return grown, True


@njit(cache=True)
def _is_worth_more(net: Int64s, one: Int64s, other: Int64s) -> bool:
    """Say whether the first page, given by the candidate in each slot, is worth more; in two parts, for int64."""
    high, low = np.int64(0), np.int64(0)
    for slot in range(one.size):
        if one[slot] >= 0:
            high += net[one[slot], slot] >> 32
            low += net[one[slot], slot] & 0xFFFFFFFF
        if other[slot] >= 0:
            high -= net[other[slot], slot] >> 32
            low -= net[other[slot], slot] & 0xFFFFFFFF
    return bool(high + (low >> 32) > 0 or (high + (low >> 32) == 0 and low & 0xFFFFFFFF > 0))


@njit(cache=True)
def _reaches(attention: Int64s, offset: Int64s, wins: Int, score: Int, level: Int, is_enough_to_tie: bool) -> bool:
    """Say whether with this score some slot of at least this attention is worth more than any other or none."""
    high, low = np.int64(_UNREACHED), np.int64(0)
    for slot in range(attention.size):
        if _is_in(wins, slot):
            gain = offset[slot] + attention[slot] * score
            if attention[slot] >= level:
                high = max(high, gain)
            else:
                low = max(low, gain)
    return bool(high >= low if is_enough_to_tie else high > low)


@njit(cache=True)
def _attention_at(
    network: _Network, without: _Flow, ways: _Ways, entrant: _Entrant, offset: Int64s, wins: Int, score: Int
) -> Int:
    """Return what attention a candidate gets with this score, or -1 where the steps ran out; changes no page.

    Args:
        network: as it is at its own bid.
        without: the best page without it.
        ways: written on.
        entrant: the candidate.
        offset: (S,) what the others lose where it stands in a slot, as in `_find_steps`.
        wins: slots it can have, as bits.
        score: w·b + H.
    """
    net, gross, at, attention = network.net, network.gross, entrant.at, entrant.attention
    nowhere: Int = np.int64(-1)
    own_net, own_gross = np.empty(attention.size, np.int64), np.empty(attention.size, np.int64)
    best, where = np.int64(0), nowhere
    for slot in range(attention.size):
        own_net[slot] = net[at, slot]
        own_gross[slot] = gross[at, slot]
        net[at, slot] = -1
        if not _is_in(network.open_slots[at], slot):
            continue
        gross[at, slot] = attention[slot] * score
        if gross[at, slot] > 0 and gross[at, slot] >= entrant.opportunity_cost[slot]:
            net[at, slot] = gross[at, slot] - entrant.opportunity_cost[slot]
            if _is_in(wins, slot) and offset[slot] + gross[at, slot] > best:
                best, where = offset[slot] + gross[at, slot], np.int64(slot)
    flow = _copy_flow(without)
    is_done = True
    if where >= 0:
        is_done = _search(network, flow, ways, network.leaf[at], nowhere)
        if is_done:
            _follow(network, flow, ways, nowhere, where, at)
    flow.is_out[at] = 0
    is_done = is_done and _settle_ties(network, flow, ways)
    for slot in range(attention.size):
        net[at, slot] = own_net[slot]
        gross[at, slot] = own_gross[slot]
    if not is_done:
        return nowhere
    slot = flow.row_slot[at]
    return attention[slot] if slot >= 0 else np.int64(0)


@njit(cache=True)
def _find_steps(network: _Network, flow: _Flow, ways: _Ways, entrant: _Entrant, least_bid: Int64s) -> bool:
    """Write the least bid with which a candidate gets at least each slot's attention; False where the steps ran out.

    Begins with the best page with it, and ends with the best one without; what is given up for it in each slot is one
    search on that.

    Args:
        network: as it is at its own bid.
        flow: the best page with it; then the best one without it.
        ways: written on.
        entrant: the candidate.
        least_bid: (S,) out; UNATTAINABLE where no bid does.
    """
    at, attention = entrant.at, entrant.attention
    slot_count = attention.size
    nowhere: Int = np.int64(-1)
    if not _take_out(network, flow, ways, at):
        return False
    if not _search(network, flow, ways, network.leaf[at], nowhere):
        return False
    offset = np.zeros(slot_count, np.int64)
    wins = np.int64(0)  # slots it can have
    for slot in range(slot_count):
        given_up, cost = ways.slot_way[_SLOT_GAIN, slot], entrant.opportunity_cost[slot]
        if _is_in(network.open_slots[at], slot) and given_up != _UNREACHED and given_up >= cost - PAIR_VALUE_MAX:
            offset[slot] = given_up - cost
            wins |= np.int64(1) << slot
    tied_bid: Int = np.int64(-1)
    tied_attention: Int = np.int64(0)
    for slot in range(slot_count):
        least_bid[slot] = UNATTAINABLE
        level = attention[slot]
        if not _is_in(wins, slot):
            continue
        low: Int = entrant.floor
        high: Int = np.int64(BID_MICROS_MAX)
        if low > high or not _reaches(attention, offset, wins, entrant.weight * high + entrant.value, level, True):
            continue
        while low < high:
            middle = (low + high) // 2
            if _reaches(attention, offset, wins, entrant.weight * middle + entrant.value, level, True):
                high = middle
            else:
                low = middle + 1
        score = entrant.weight * low + entrant.value
        if not _reaches(attention, offset, wins, score, level, False):
            if tied_bid != low:  # the greedy order says which of the pages worth the same it is
                tied_bid = low
                tied_attention = _attention_at(network, flow, ways, entrant, offset, wins, score)
                if tied_attention < 0:
                    return False
            if tied_attention < level:
                low += 1
        least_bid[slot] = low
    return True


@njit(cache=True)
def _price_exactly(
    candidates: CandidateArrays,
    page: PageArrays,
    pool: Int64s,
    network: _Network,
    best: _Flow,
    ways: _Ways,
    picked: Int64s,
    outcome: OutcomeArrays,
) -> bool:
    """Write thresholds and both prices of every paid fill of the best page; False where the steps ran out.

    Args:
        candidates: as there.
        page: as there.
        pool: the candidates in the network.
        network: what units flow through.
        best: the best page.
        ways: written on.
        picked: (fills,) the slots filled, in the greedy order.
        outcome: out, of these slots.
    """
    order = _order_slots(page.attention_permille)
    least_bid = np.empty((2, page.pinned_row.size), np.int64)
    for number in range(picked.size):
        at_slot = picked[number]
        at = best.slot_row[at_slot]
        advertiser = pool[_ADVERTISER, at]
        if advertiser < 0:
            continue
        row = pool[_ROW, at]
        charge = candidates.charge_code[row]
        entrant = _Entrant(
            at,
            candidates.weight_ppm[row],
            candidates.value_micros[row] * PPM,
            max(np.int64(0), candidates.floor_micros[row]),
            page.attention_permille[charge],
            page.opportunity_cost,
        )
        later = np.int64(0)  # siblings that come after it in the greedy order
        for other in range(number + 1, picked.size):
            later += pool[_ADVERTISER, best.slot_row[picked[other]]] == advertiser
        for side in range(2 if later else 1):  # with all its siblings on the page; without the later ones
            flow = _copy_flow(best)
            for other in range(pool.shape[1]):
                flow.is_out[other] = pool[_ADVERTISER, other] == advertiser and flow.row_slot[other] < 0
            if side == 1:
                for other in range(number + 1, picked.size):
                    sibling = best.slot_row[picked[other]]
                    if pool[_ADVERTISER, sibling] == advertiser and not _take_out(network, flow, ways, sibling):
                        return False
            if not _find_steps(network, flow, ways, entrant, least_bid[side]):
                return False
        threshold = outcome.threshold_micros[at_slot]
        for slot in range(threshold.size):
            threshold[slot] = least_bid[0, slot]
        outcome.critical_micros[at_slot], outcome.vcg_micros[at_slot] = _read_staircase(
            entrant.attention, order[charge], at_slot, threshold, least_bid[1 if later else 0]
        )
    return True


@njit(cache=True)
def _take_columns(pool: Int64s, kept: Int64s, count: Int) -> Int64s:
    taken = np.empty((pool.shape[0], count), np.int64)
    for column in range(count):
        for row in range(pool.shape[0]):
            taken[row, column] = pool[row, kept[column]]
    return taken


@njit(cache=True)
def _gather(
    candidates: CandidateArrays, candidate_count: Int, page: PageArrays, steps_left: Int64s
) -> tuple[Int64s, Int64s, bool]:
    """Return the pool of all that a best page could need, where each may stand, and whether the steps sufficed."""
    charge_count, slot_count = page.attention_permille.shape
    sold, sold_count = _sold_slots(page.pinned_row)
    pool, opened = np.empty((_POOL_ROWS, 0), np.int64), np.empty(0, np.int64)
    steps_left[0] -= candidate_count
    if steps_left[0] < 0:
        return pool, opened, False
    seen_slots = np.zeros(charge_count, np.int64)
    for charge in range(charge_count):
        for slot in range(slot_count):
            if page.attention_permille[charge, slot] > 0:
                seen_slots[charge] |= np.int64(1) << slot
    # First among the best of each kind; where those are not enough, among all that is not dominated.
    rows, row_count, absent = _shortlist(candidates, None, candidate_count, _shortlist_size(slot_count), page)
    kept = np.empty(0, np.int64)
    count: Int = np.int64(-1)
    for attempt in range(2):
        if attempt == 1:
            steps_left[0] -= 100 * candidate_count
            if steps_left[0] < 0:
                return pool, opened, False
            rows, row_count = _drop_dominated(candidates, candidate_count, page)
            absent = np.empty((0, 5), np.int64)
        elif row_count < 0:
            continue
        pool, first = _make_pool(candidates, rows, row_count, charge_count)
        opened = np.empty(row_count, np.int64)
        for at in range(row_count):
            opened[at] = pool[_SLOTS, at] & sold & seen_slots[candidates.charge_code[pool[_ROW, at]]]
        _close_caps(candidates, page, pool, opened)
        kept, count = _drop_hopeless(pool, first, opened, sold_count, absent, seen_slots)
        if count >= 0:
            break
    steps_left[0] -= count * count
    open_slots = np.empty(count, np.int64)
    for at in range(count):
        open_slots[at] = opened[kept[at]]
    return _take_columns(pool, kept, count), open_slots, bool(steps_left[0] >= 0)


@njit(cache=True)
def _rank_by_tie(pool: Int64s) -> Int64s:
    """Return (Q,): each candidate's place by tie, then row."""
    count = pool.shape[1]
    keys = np.empty((count, 3), np.int64)
    by_tie, tie_rank = np.empty(count, np.int64), np.empty(count, np.int64)
    for at in range(count):
        keys[at, 0] = 0
        keys[at, 1] = pool[_TIE, at]
        keys[at, 2] = pool[_ROW, at]
        by_tie[at] = at
    _sort_best_first(by_tie, tie_rank, 0, count, keys)
    for place in range(count):
        tie_rank[by_tie[place]] = place
    return tie_rank


@njit(cache=True)
def _find_worth(
    candidates: CandidateArrays, page: PageArrays, pool: Int64s, open_slots: Int64s
) -> tuple[Int64s, Int64s]:
    """Return net and gross worth of every pair (Q, S): -1 and 0 where it may not be."""
    count, slot_count = pool.shape[1], page.pinned_row.size
    net = np.full((count, slot_count), -1, np.int64)
    gross = np.zeros((count, slot_count), np.int64)
    for at in range(count):
        charge = candidates.charge_code[pool[_ROW, at]]
        for slot in range(slot_count):
            if _is_in(open_slots[at], slot):
                worth = page.attention_permille[charge, slot] * pool[_SCORE, at]
                cost = page.opportunity_cost[slot] if pool[_ADVERTISER, at] >= 0 else np.int64(0)
                gross[at, slot] = worth
                if worth > 0 and worth >= cost:
                    net[at, slot] = worth - cost
    return net, gross


@njit(cache=True)
def _load_page(pool: Int64s, network: _Network, winner_row: Int64s, flow: _Flow) -> bool:
    """Write a page given by rows into an empty flow; False where one of them is not in the pool."""
    for slot in range(winner_row.size):
        if winner_row[slot] < 0 or _is_in(flow.frozen, slot):
            continue
        for at in range(pool.shape[1]):
            if pool[_ROW, at] == winner_row[slot]:
                flow.slot_row[slot] = at
                flow.row_slot[at] = slot
                node = network.leaf[at]
                while node > 0:
                    flow.used[node] += 1
                    node = network.tree[_PARENT, node]
        if flow.slot_row[slot] < 0:
            return False
    return True


@njit(cache=True)
def _order_fills(gross: Int64s, slot_row: Int64s) -> Int64s:
    """Return the slots filled, in the greedy order."""
    keys = np.zeros((slot_row.size, 3), np.int64)
    picked, spare = np.empty(slot_row.size, np.int64), np.empty(slot_row.size, np.int64)
    fill_count: Int = np.int64(0)
    for slot in range(slot_row.size):
        if slot_row[slot] >= 0:
            keys[slot, 0] = gross[slot_row[slot], slot]
            keys[slot, 1] = slot
            picked[fill_count] = slot
            fill_count += 1
    _sort_best_first(picked, spare, 0, fill_count, keys)
    return picked[:fill_count]


@_compiled_late(types.int64(_CandidateArrays, types.int64, _PageArrays, types.int64, _OutcomeArrays))
def allocate_exactly_nb(
    candidates: CandidateArrays,
    candidate_count: int,
    page: PageArrays,
    steps_max: int,
    outcome: OutcomeArrays,
) -> int:
    """Turn a greedily filled page into the one worth most, if its caps can be expressed and there is time.

    Worth is the sum of a·(w·b + H) over the slots sold, less the slot's opportunity cost where a paid candidate stands.
    Of pages worth the same it is the one that takes the first pair in the greedy order, then the second, and so on; so
    where the greedy page is worth most, it is the greedy page. A winner's critical price is the least bid of its own
    with which it would get as much attention, its advertiser's unplaced candidates taken out, or those that come later
    in the greedy order too, whichever is less; its vcg price is the staircase of such bids without the later ones, no
    step above the critical price.

    The caller guarantees the bounds named in the arrays' docstrings; nothing is checked here.

    Args:
        candidates: as CandidateArrays says.
        candidate_count: C.
        page: as PageArrays says.
        steps_max: pairs to look at before giving up; EXACT_STEPS_MAX for all there are.
        outcome: in: what `allocate_and_price_nb` made of the page. Out: the page worth most, where EXACT_DONE.

    Returns:
        EXACT_DONE, EXACT_NOT_EXPRESSIBLE or EXACT_TOO_LARGE.
    """
    slot_count = page.pinned_row.size
    steps_left = np.array([np.int64(steps_max)])
    pool, open_slots, is_done = _gather(candidates, candidate_count, page, steps_left)
    if not is_done:
        return EXACT_TOO_LARGE
    room = _close_caps(candidates, page, pool, open_slots)
    leaf = np.zeros(open_slots.size, np.int64)
    tree, is_tree = _grow_tree(page, pool, open_slots, room, leaf)
    if not is_tree:
        return EXACT_NOT_EXPRESSIBLE
    net, gross = _find_worth(candidates, page, pool, open_slots)
    network = _Network(open_slots, net, gross, _rank_by_tie(pool), leaf, tree)
    ways = _Ways(
        np.empty(2, np.int64),
        np.empty((4, tree.shape[1]), np.int64),
        np.empty((3, slot_count), np.int64),
        steps_left,
    )

    pinned = ~_sold_slots(page.pinned_row)[0]
    best, greedy = _empty_flow(network, pinned), _empty_flow(network, pinned)
    if not _fill_best(network, best, ways):
        return EXACT_TOO_LARGE
    if _load_page(pool, network, outcome.winner_row, greedy) and not _is_worth_more(
        net, best.slot_row, greedy.slot_row
    ):
        best = greedy
    elif not _settle_ties(network, best, ways):
        return EXACT_TOO_LARGE

    picked = _order_fills(gross, best.slot_row)
    made = OutcomeArrays(
        np.empty(slot_count, np.int64),
        np.empty(slot_count, np.int64),
        np.empty(slot_count, np.int64),
        np.empty((slot_count, slot_count), np.int64),
        np.empty(slot_count, np.int64),
    )
    _begin_outcome(page, made)
    for number in range(picked.size):
        made.winner_row[picked[number]] = pool[_ROW, best.slot_row[picked[number]]]
        made.pick_order[picked[number]] = number
    if not _price_exactly(candidates, page, pool, network, best, ways, picked, made):
        return EXACT_TOO_LARGE
    for slot in range(slot_count):
        outcome.winner_row[slot] = made.winner_row[slot]
        outcome.critical_micros[slot] = made.critical_micros[slot]
        outcome.vcg_micros[slot] = made.vcg_micros[slot]
        outcome.pick_order[slot] = made.pick_order[slot]
        for other in range(slot_count):
            outcome.threshold_micros[slot, other] = made.threshold_micros[slot, other]
    return EXACT_DONE


# ---------------------------------------------------------------------------------------------------------------------
# Why lost (docs/mechanism.md, "Why lost"); not on the slot path
# ---------------------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _stood_first(
    candidates: CandidateArrays,
    page: PageArrays,
    outcome: OutcomeArrays,
    standing_value: Int64s,
    taken_slot: Int,
    row: Int,
    slot: Int,
    value: Int,
) -> bool:
    """Say whether what stands in `taken_slot` was placed before the turn of this pair."""
    winner = outcome.winner_row[taken_slot]
    if page.pinned_row[taken_slot] >= 0 or standing_value[taken_slot] != value:
        return bool(page.pinned_row[taken_slot] >= 0 or standing_value[taken_slot] > value)
    if taken_slot != slot:
        return bool(taken_slot < slot)
    tie, other = candidates.tie_key[winner], candidates.tie_key[row]
    return bool(tie < other or (tie == other and winner < row))


@njit(
    types.void(_CandidateArrays, types.int64, _PageArrays, _OutcomeArrays, types.int64[::1], types.int64[::1]),
    cache=True,
)
def say_why_lost_nb(
    candidates: CandidateArrays,
    candidate_count: int,
    page: PageArrays,
    outcome: OutcomeArrays,
    reason: Int64s,
    cap: Int64s,
) -> None:
    """Say of every candidate why it has no slot; not on the slot path, but whenever somebody asks.

    A candidate lost to a cap (or to the product's other entry) if there is a slot it would have had by its value alone,
    that is, one that stayed empty or went to a pair visited later than its own; otherwise it was outbid.

    Args:
        candidates: as decided.
        candidate_count: C.
        page: as decided.
        outcome: what `allocate_and_price_nb` made of them.
        reason: (C,) out: LOST_*, or 0 for a winner or a pin.
        cap: (C,) out: the first cap that was full when its turn came for LOST_TO_CAP, else -1.
    """
    slot_count = page.pinned_row.size
    sold = _sold_slots(page.pinned_row)[0]
    standing_brand = np.zeros(slot_count, np.int64)
    standing_groups = np.zeros(slot_count, np.int64)
    standing_value = np.zeros(slot_count, np.int64)
    for slot in range(slot_count):
        row = outcome.winner_row[slot]
        if row >= 0:
            standing_brand[slot] = candidates.brand_code[row]
            standing_groups[slot] = _groups_of(candidates.group_bits[row], candidates.advertiser_code[row])
            standing_value[slot] = page.attention_permille[candidates.charge_code[row], slot] * _score_of(
                candidates.weight_ppm[row], candidates.bid_micros[row], candidates.value_micros[row]
            )
    for row in range(candidate_count):
        reason[row] = LOST_TO_BETTER
        cap[row] = -1
        for slot in range(slot_count):
            winner = outcome.winner_row[slot]
            if winner == row:
                reason[row] = 0
            elif winner >= 0 and candidates.product_code[winner] == candidates.product_code[row] and reason[row]:
                reason[row] = LOST_TO_SAME_PRODUCT
        if reason[row] != LOST_TO_BETTER:
            continue
        is_paid = candidates.advertiser_code[row] >= 0
        if is_paid and candidates.bid_micros[row] < candidates.floor_micros[row]:
            reason[row] = LOST_BELOW_FLOOR
            continue
        score = _score_of(candidates.weight_ppm[row], candidates.bid_micros[row], candidates.value_micros[row])
        groups = _groups_of(candidates.group_bits[row], candidates.advertiser_code[row])
        reason[row] = LOST_NOT_ELIGIBLE
        for slot in range(slot_count):
            value = page.attention_permille[candidates.charge_code[row], slot] * score
            if (np.int64(candidates.eligible_slots[row]) & sold) >> slot & 1 == 0 or value == 0:
                continue
            if is_paid and value < page.opportunity_cost[slot]:
                if reason[row] == LOST_NOT_ELIGIBLE:
                    reason[row] = LOST_TO_OPPORTUNITY_COST
                continue
            winner = outcome.winner_row[slot]
            if winner >= 0 and _stood_first(candidates, page, outcome, standing_value, slot, row, slot, value):
                reason[row] = LOST_TO_BETTER
                continue
            for number in range(page.cap_max.size):
                where, counted = np.int64(page.cap_slots[number]), np.int64(page.cap_bits[number])
                if where >> slot & 1 == 0 or counted & groups == 0:
                    continue
                count = 0
                for other in range(slot_count):
                    if (
                        where >> other & 1
                        and counted & standing_groups[other]
                        and (page.cap_per_brand[number] == 0 or standing_brand[other] == candidates.brand_code[row])
                        and _stood_first(candidates, page, outcome, standing_value, other, row, slot, value)
                    ):
                        count += 1
                if count >= page.cap_max[number]:
                    reason[row] = LOST_TO_CAP
                    cap[row] = number
                    break
            if reason[row] == LOST_TO_CAP:
                break
            reason[row] = LOST_TO_BETTER  # only on the page worth most: what stands elsewhere is worth more without it


# ---------------------------------------------------------------------------------------------------------------------
# The gate (DESIGN.md §3): which offers take part, and with what bid, weight, value and floor
#
# What belongs to one offer or product is one record, not columns: the gate reads most of it and then jumps elsewhere,
# so that one place in memory is what makes it fast; and each array handed to compiled code costs a part of a
# microsecond.
# ---------------------------------------------------------------------------------------------------------------------

OFFER = np.dtype(  # one promoted product of one bid
    [
        ("bid_micros", "i8"),  # most for one billed event: a click, or one impression
        ("product_row", "i4"),
        ("bid_row", "i4"),
        ("campaign_row", "i4"),
        ("advertiser_row", "i4"),
        ("brand_row", "i4"),
        ("audience_row", "i4"),  # -1: everybody
        ("pattern_row", "i4"),  # -1: whatever they did
        ("condition_row", "i4"),  # -1: in every context
        ("negative_row", "i4"),  # -1: no negative keywords
        ("multiplier_row", "i4"),  # -1: 1 in every placement
        ("page_mask", "u2"),  # bits of the page types it is for
        ("never_reason", "i2"),  # loss reason that holds as long as the snapshot, 0 for none
        ("charge", "u1"),  # CLICK or IMPRESSION
        ("is_restricted", "u1"),  # only where its bid's categories or keywords say
        ("has_frequency_cap", "u1"),
        ("reserved", "u1"),
        ("offer_row", "i4"),  # its own place among the offers
        ("next_restricted", "i4"),  # the product's next restricted one in `offer_by_product`, or its end there
    ],
    align=True,
)

BID = np.dtype(  # one bid, as it is kept from one snapshot to the next (`bid_table.py`)
    [
        ("bid_micros", "i8"),  # for one billed event
        ("products", "i4"),  # this and the next nine: codes, NONE_ROW for none
        ("target", "i4"),
        ("campaign", "i4"),
        ("audience", "i4"),
        ("pattern", "i4"),
        ("condition", "i4"),
        ("negative", "i4"),
        ("multiplier", "i4"),
        ("categories", "i4"),
        ("keywords", "i4"),
        ("page_mask", "u2"),
        ("charge", "u1"),
        ("is_live", "u1"),
        ("is_paused", "u1"),
        ("has_frequency_cap", "u1"),
    ],
    align=True,
)
PRODUCT = np.dtype(
    [
        ("base_quality_ppm", "i8"),  # 1 to 1,000,000
        ("relevance_ppm", "i8"),  # of the catalogue
        ("offers_begin", "i8"),  # its offers in `offer_by_product`
        ("offers_end", "i8"),
        ("brand_code", "i4"),  # one of its own for a product without brand
        ("is_available", "i4"),  # 1 where a slot may show it
        ("category_row", "i4"),  # -1 for none
        ("reserved", "i4"),
    ],
    align=True,
)
MARK = np.dtype(  # scratch, of one request
    [
        ("own_quality_ppm", "i8"),  # the visitor's own quality, 0 where it has none
        ("last_asked", "i8"),  # number of the last question in which the product was a candidate
        ("reason", "i8"),  # 0, or the reason the product may not stand on this page
        ("source_rank", "i8"),  # its place in the placement's organic source, 0 where it is not in it
    ],
    align=True,
)
EFFECT = np.dtype(  # what the retailer's rules do to a product in one placement
    [
        ("group", "u8"),  # its bits, from GROUP_FIRST_FREE up, for caps
        ("boost_ppm", "i4"),  # factor on weight and merchandising value
        ("floor_click", "i4"),  # least bid per click, in micros
        ("floor_impression", "i4"),  # least bid per impression
        ("is_excluded", "i4"),  # 1 where it may not stand
        ("value_micros", "i4"),  # what rules say an impression of it is worth to the merchant
    ],
    align=True,
)
LISTED = np.dtype(  # a product whose offers are looked at for itself
    [
        ("score", "i8"),  # most any of its offers not looked at can be worth; the gate writes it
        ("product_row", "i4"),
        ("relevance_ppm", "i4"),  # -1: the catalogue's
        ("organic_rank", "i4"),  # 0: none
        ("heap", "i4"),  # the gate's: places in the list, heaped by score
        ("offer_at", "i4"),  # how many of its offers were looked at
        ("is_open_here", "i4"),  # whether its unrestricted offers belong to the context; -1: not known yet
    ],
    align=True,
)
ENTRY = np.dtype(  # beside each candidate
    [
        ("quality_ppm", "i8"),  # predicted clicks per million impressions
        ("offer_row", "i4"),  # -1 for an organic one
        ("place", "i4"),  # which placement of the page it is a candidate for
    ],
    align=True,
)
LOST = np.dtype([("offer_row", "i4"), ("reason", "i2"), ("place", "i2")], align=True)

CLICK, IMPRESSION = 0, 1
NO_ROW = 2**31 - 1
CONTEXT_DIMENSION_COUNT = 4

# LossReason's numbers (loss.py); compiled code must not depend on another file.
_BELOW_FLOOR, _NOT_IN_CONTEXT, _PAGE_NOT_TARGETED, _CONTEXT_MISSED = 100, 508, 509, 510
_NEGATIVE_KEYWORD, _EXCLUDED_BY_RULE, _FILTERED_OUT, _BELOW_RELEVANCE = 511, 513, 514, 516
_BID_PAUSED, _OUT_OF_STOCK, _NOT_ENTITLED = 501, 507, 521
_NO_CONSENT, _AUDIENCE_MISSED, _PATTERN_MISSED, _FREQUENCY_CAPPED = 517, 518, 519, 520
_BELOW_SCORE_FLOOR, _MULTIPLIER_ZERO, _PACED_OUT = 522, 527, 529


class MarketArrays(NamedTuple):
    """What does not change between two snapshots or models.

    Attributes:
        offer: (O,) OFFER.
        offer_by_product: (O,) the same, those of one product side by side: a page's candidates are looked at one
            by one, and every place in memory that is far from the last costs as much as all the rest.
        best_left: (O, 2) most micros for a click, and most score for an impression, of an offer and those of its
            product behind it in `offer_by_product`; see `find_best_left_nb`.
        product: (P,) PRODUCT.
        posting_row: offers of every list of every kind, each list ascending.
        best_score_from: (O+1,) most any offer from this one on can be worth, see `highest_score` in market.py.
        wish_start, wish: lists of whole numbers that offers name by row. A condition: the hours it allows as bits, the
            least and most temperature, then per dimension how many values and which. Negative keywords: their rows.
            Multipliers: placement and factor in parts per million, in turns.
    """

    offer: Records
    offer_by_product: Records
    best_left: Int64s
    product: Records
    posting_row: Int32s
    best_score_from: Int64s
    wish_start: Int64s
    wish: Int64s


class AskerArrays(NamedTuple):
    """What is true of one request, whatever the placement.

    Attributes:
        campaign_reason: (G,) 0, or the reason none of its offers may be served now.
        pacing_ppm: (G,) factor on bids, at most 1,000,000.
        mark: (P,) MARK.
        passes_filters: (P,) 1 where the visitor's filters let it through; empty: no filters.
        is_capped: (B,) 1 where the visitor was shown the bid as often as it allows.
        is_keyword_hit: 1 for each keyword the search matches.
        bits: what holds of the visitor: words of audiences, then words of patterns.
        fact: the FACT_* below.
    """

    campaign_reason: Int16s
    pacing_ppm: Int64s
    mark: Records
    passes_filters: UInt8s
    is_capped: UInt8s
    is_keyword_hit: UInt8s
    bits: UInt64s
    fact: Int64s


# Page as bit, hour, consent, merchandised page, organic value of a click and of the first rank, number of this
# question, first word of patterns in `bits`, temperature in thousandths of a degree (UNKNOWN_TEMPERATURE is met only by
# a condition that asks for none), then the context's value in each dimension (-1: unknown).
FACT_PAGE, FACT_HOUR, FACT_CONSENT, FACT_MERCHANDISED, FACT_CLICK_VALUE, FACT_RANK_VALUE = range(6)
FACT_QUESTION, FACT_PATTERN_WORD, FACT_TEMPERATURE, FACT_CONTEXT = range(6, 10)
UNKNOWN_TEMPERATURE = -(1 << 62)
FACT_COUNT = FACT_CONTEXT + CONTEXT_DIMENSION_COUNT


class PlaceArrays(NamedTuple):
    """What is true of one placement of the page.

    Attributes:
        effect: (P,) EFFECT; empty: no rule does anything.
        term: the TERM_* below; from TERM_AT_PRODUCT on they move.
        lists: (3, L) lists of this context in `posting_row`: LIST_BEGIN, LIST_END, and LIST_AT, how far each was read.
            First those whose common offers are in, then those each of whose offers is in.
        listed: (V,) LISTED: the page's candidates, of equal ones the first counts; where it names none, the products
            with a quality of the visitor's own.
    """

    effect: Records
    term: Int64s
    lists: Int64s
    listed: Records


LIST_BEGIN, LIST_END, LIST_AT = range(3)
TERM_PLACEMENT, TERM_PLACE, TERM_FLOOR_CLICK, TERM_FLOOR_IMPRESSION, TERM_SCORE_FLOOR = range(5)
TERM_RELEVANCE_FLOOR, TERM_SQUASHING, TERM_MEAN_QUALITY, TERM_BOOST_MAX = range(5, 9)
TERM_BASE_COUNT, TERM_SLOTS, TERM_TIE_SEED = range(9, 12)  # slots and seed: bit patterns of uint64
TERM_HEAP_SIZE = 12  # listed products not looked at yet; NOT_HEAPED before they are heaped
TERM_AT_PRODUCT = 13  # where to go on in the list, for organic ones
TERM_LEFT_IN_LISTS, TERM_LEFT_IN_PRODUCTS = 14, 15  # what offers not looked at may be worth
TERM_IS_SEARCHED = 16  # 1: offers are looked at for it
TERM_IS_UNFINISHED = 17  # 1: it was left off in the midst of its offers, or nothing was looked at yet
TERM_LEFT_ORGANIC = 18  # what the best organic candidate not looked at may be worth
TERM_VALUE_MAX = 19  # most any product is worth by rules, in micros per impression
TERM_CATEGORY_BEGIN, TERM_CATEGORY_END = 20, 21  # categories whose products' unrestricted offers belong here
TERM_HAS_WORDS = 22  # 1: these products must have words besides
TERM_COUNT = 23
NOT_HEAPED = -1

# What `decide_page_nb` says.
SETTLED, WANTING, INTERRUPTED = 1, 0, -1


class FoundArrays(NamedTuple):
    """Where the gate writes: long enough for everything one call may look at.

    Attributes:
        candidate: the candidates that take part.
        entry: (C,) ENTRY.
        lost: LOST: offers looked at that do not take part.
        counts: (2,) how many candidates, how many lost.
    """

    candidate: CandidateArrays
    entry: Records
    lost: Records
    counts: Int64s


_MarketArrays = _tuple_of(
    MarketArrays,
    _records(OFFER),
    _records(OFFER),
    types.int64[:, ::1],
    _records(PRODUCT),
    types.int32[::1],
    *[types.int64[::1]] * 3,
)
_AskerArrays = _tuple_of(
    AskerArrays,
    types.int16[::1],
    types.int64[::1],
    _records(MARK),
    *[types.uint8[::1]] * 3,
    types.uint64[::1],
    types.int64[::1],
)
_PlaceArrays = _tuple_of(PlaceArrays, _records(EFFECT), types.int64[::1], types.int64[:, ::1], _records(LISTED))
_FoundArrays = _tuple_of(FoundArrays, _CandidateArrays, _records(ENTRY), _records(LOST), types.int64[::1])

# Helpers take plain arrays, not tuples of them: a tuple costs a count of references for each array at every call.


def _fetch_a_record(_typing: object, records: Any, _row: Any) -> Any:
    """Have a record brought near before it is needed; changes nothing, and its place need not even be ours."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        first = builder.bitcast(array.data, byte)
        place = builder.gep(first, [builder.mul(arguments[1], array.itemsize)])
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(fetch, [place, number(0), number(3), number(1)])  # to read, to be kept, as data
        return context.get_dummy_value()

    return types.void(records, types.int64), write


_fetch: Any = intrinsic(_fetch_a_record)


@njit(cache=True)
def _mix(seed: np.uint64, number: Int) -> np.uint64:
    """Return the number's place in a shuffle drawn with the seed; distinct numbers get distinct places.

    Source: SplitMix64, Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
    """
    z = seed + np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def _paced_bid(bid_micros: Int, floor_micros: Int, pacing_ppm: Int, tie_seed: np.uint64, campaign_row: Int) -> Int:
    """Return the bid as pacing lowers it, or 0 where it does not take part this time.

    Lowered further than its floor it could not be sold: it bids the floor instead, in that part of the auctions.
    """
    bid = np.int64(bid_micros) * pacing_ppm // PPM
    if bid >= floor_micros:
        return np.int64(bid)
    draw = _mix(tie_seed, campaign_row + (1 << 49))
    return np.int64(floor_micros) if draw % np.uint64(floor_micros) < np.uint64(bid) else np.int64(0)


@njit(cache=True)
def _has_bit(bits: UInt64s, first_word: Int, row: Int) -> bool:
    word = first_word + (row >> 6)
    return bool((bits[word] >> np.uint64(row & 63)) & np.uint64(1) == np.uint64(1))


@njit(cache=True)
def _holds(wish: Int64s, at: Int, fact: Int64s) -> bool:
    """Say whether the request's context meets a condition: one of its values in every dimension that names some."""
    is_met = (wish[at] >> fact[FACT_HOUR]) & 1 == 1
    is_met &= wish[at + 1] <= fact[FACT_TEMPERATURE] <= wish[at + 2]
    at += 3
    for dimension in range(CONTEXT_DIMENSION_COUNT):
        end = at + 1 + wish[at]
        is_among = end == at + 1
        for value_at in range(at + 1, end):
            is_among |= wish[value_at] == fact[FACT_CONTEXT + dimension]
        is_met &= is_among
        at = end
    return bool(is_met)


@njit(cache=True)
def _is_any_hit(wish: Int64s, begin: Int, end: Int, is_hit: UInt8s) -> bool:
    for at in range(begin, end):
        if is_hit[wish[at]] == 1:
            return True
    return False


@njit(cache=True)
def _is_in_context(posting_row: Int32s, lists: Int64s, base_count: Int, is_restricted: bool, row: Int) -> bool:
    """Say whether an offer belongs to the context: is in every base list if it is open, else in one of the others."""
    is_open = not is_restricted and base_count > 0
    for number in range(0 if is_open else base_count, base_count if is_open else lists.shape[1]):
        begin, end = lists[LIST_BEGIN, number], lists[LIST_END, number]
        while begin < end:
            middle = (begin + end) >> 1
            if posting_row[middle] < row:
                begin = middle + 1
            else:
                end = middle
        is_listed = begin < lists[LIST_END, number] and posting_row[begin] == row
        if is_listed != is_open:
            return bool(is_listed)
    return bool(is_open)


@njit(cache=True)
def _next_common(posting_row: Int32s, lists: Int64s, base_count: Int) -> Int:
    """Return the next offer that is in all base lists, moving on to it in each; NO_ROW when there is none."""
    row = np.int64(-1)
    agreed = 0
    number = 0
    while agreed < base_count:
        at, end = lists[LIST_AT, number], lists[LIST_END, number]
        step = 1
        while at + step < end and posting_row[at + step] < row:  # gallop, then halve
            at += step
            step *= 2
        high = min(at + step, end)
        while at < high:
            middle = (at + high) >> 1
            if posting_row[middle] < row:
                at = middle + 1
            else:
                high = middle
        lists[LIST_AT, number] = at
        if at >= end:
            return np.int64(NO_ROW)
        agreed = agreed + 1 if posting_row[at] == row else 1
        row = np.int64(posting_row[at])
        number = number + 1 if number + 1 < base_count else 0
    return row if base_count > 0 else np.int64(NO_ROW)


@njit(cache=True)
def _squash(quality_ppm: Int, term: Int64s) -> Int:
    """Return q^γ · q̄^(1−γ), rounded to parts per million, at least 1."""
    if term[TERM_SQUASHING] == PPM:
        return np.int64(quality_ppm)
    gamma = term[TERM_SQUASHING] / PPM
    mean = np.float64(term[TERM_MEAN_QUALITY])
    return max(np.int64(1), np.int64(np.rint(np.float64(quality_ppm) ** gamma * mean ** (1.0 - gamma))))


@njit(cache=True)
def _boosted(number: Int, boost_ppm: Int, most: Int) -> Int:
    return min(max(np.int64(number) * boost_ppm // PPM, np.int64(1)), np.int64(most))


@njit(cache=True)
def _merit(quality_ppm: Int, organic_rank: Int, fact: Int64s, boost_ppm: Int, rule_value_micros: Int) -> Int:
    """Return h: what an impression of the product is worth to the merchant without any bid, in micros.

    What rules add is not boosted; on a page that only sells it is all there is.
    """
    if fact[FACT_MERCHANDISED] == 0:
        return np.int64(rule_value_micros)
    if organic_rank > 0:
        merit = fact[FACT_RANK_VALUE] * 20 // (19 + organic_rank)
    else:
        merit = fact[FACT_CLICK_VALUE] * quality_ppm // PPM
    return min(_boosted(merit, boost_ppm, VALUE_MICROS_MAX) + rule_value_micros, np.int64(VALUE_MICROS_MAX))


@njit(cache=True)
def _quality(product: Records, mark: Records, row: Int) -> Int:
    own = mark[row].own_quality_ppm
    return np.int64(min(own, PPM)) if own > 0 else np.int64(product[row].base_quality_ppm)


@njit(cache=True)
def _most_unseen(score: Int, term: Int64s) -> Int:
    """Return what an offer can be worth at most whose highest score is this, after squashing and all that rules do."""
    if score == 0:
        return np.int64(0)
    if term[TERM_SQUASHING] != PPM:
        # q^γ·q̄^(1−γ)·b = (q·b)^γ · (q̄·b)^(1−γ), and no b is over the bound of all bids; a weight is rounded by ≤ 1/2.
        gamma = term[TERM_SQUASHING] / PPM
        mean = np.float64(term[TERM_MEAN_QUALITY])
        squashed = np.float64(score) ** gamma * (mean * BID_MICROS_MAX) ** (1.0 - gamma)
        score = max(score, np.int64(squashed * 1.000001) + np.int64(BID_MICROS_MAX))
    if term[TERM_BOOST_MAX] > PPM:
        boosted = np.float64(score) * (term[TERM_BOOST_MAX] / PPM) * 1.000001
        score = np.int64(min(boosted, 4.0e15)) + np.int64(BID_MICROS_MAX)
    return np.int64(min(score, np.int64(WEIGHT_PPM_MAX) * BID_MICROS_MAX) + term[TERM_VALUE_MAX] * PPM)


@njit(cache=True)
def _sift_down(listed: Records, size: Int, at: Int) -> None:
    """Restore the heap of listed products, the one worth most on top and of equal ones the first, below `at`."""
    if size == 0:
        return
    moved = listed[at].heap
    score = listed[moved].score
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        best = listed[child].heap
        if child + 1 < size:
            other = listed[child + 1].heap
            if listed[other].score > listed[best].score or (listed[other].score == listed[best].score and other < best):
                child, best = child + 1, other
        if listed[best].score < score or (listed[best].score == score and best > moved):
            break
        listed[at].heap = best
        at = child
    listed[at].heap = moved


@njit(cache=True)
def _most_left(best_left: Int64s, place: Int, quality_ppm: Int) -> Int:
    return np.int64(max(best_left[place, 0] * quality_ppm, best_left[place, 1]))


@njit(cache=True)
def _heap_listed(market: MarketArrays, mark: Records, listed: Records) -> Int:
    """Write what each product's offers can be worth at most, and heap those worth anything; return how many are."""
    product = market.product
    size = 0
    for at in range(listed.size):
        row = np.int64(listed[at].product_row)
        begin = product[row].offers_begin
        score: Int = np.int64(0)
        if begin < product[row].offers_end:
            score = _most_left(market.best_left, begin, _quality(product, mark, row))
        listed[at].score = score
        if score > 0:
            _fetch(market.offer_by_product, begin)
            listed[at].offer_at = 0
            listed[at].is_open_here = -1
            listed[size].heap = at
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sift_down(listed, size, at)
    return np.int64(size)


@njit(cache=True)
def _go_on(market: MarketArrays, mark: Records, term: Int64s, listed: Records, is_done: bool) -> None:
    """Go on to the next offer of the product on top of the heap, or let it go; restore the heap."""
    at = listed[0].heap
    row = np.int64(listed[at].product_row)
    begin, end = market.product[row].offers_begin, market.product[row].offers_end
    next_place = begin + listed[at].offer_at + 1
    if listed[at].is_open_here == 0:
        next_place = np.int64(market.offer_by_product[next_place - 1].next_restricted)
    if is_done or next_place >= end:
        term[TERM_HEAP_SIZE] -= 1
        listed[0].heap = listed[term[TERM_HEAP_SIZE]].heap
    else:
        listed[at].offer_at = next_place - begin
        listed[at].score = _most_left(market.best_left, next_place, _quality(market.product, mark, row))
    _sift_down(listed, term[TERM_HEAP_SIZE], 0)


@njit(cache=True)
def _call_ahead(market: MarketArrays, mark: Records, lists: Int64s, number: Int) -> None:
    """Have what the next offers of a list need brought near, before their turn comes."""
    at, end = lists[LIST_AT, number], lists[LIST_END, number]
    if at + 12 < end:
        _fetch(market.offer, market.posting_row[at + 12])
    if at + 6 < end:
        product_row = np.int64(market.offer[market.posting_row[at + 6]].product_row)
        _fetch(market.product, product_row)
        _fetch(mark, product_row)


@njit(cache=True)
def _find_candidates(
    market: MarketArrays,
    asker: AskerArrays,
    place: PlaceArrays,
    has_page_candidates: bool,
    wanted: Int,
    row_count_max: Int,
    found: FoundArrays,
) -> bool:
    """Look at offers, and write those that take part as candidates and the others with the first reason they do not.

    From the context's lists offers come most valuable first. Offers of products with a quality of the visitor's own
    are left out there; they are looked at after the lists, product by product, as far down as the lists were. The
    terms then say what the best offer not looked at may be worth in each, 0 when all were looked at. Call it again to
    go on where it stopped. Where the page names candidates, only the offers of these products are looked at, in the
    same way.

    The reasons are looked for in this order: context; campaign, bid and stock; page type; product (request, dismissed);
    rules; filters; relevance; conditions; negative keywords; consent, audience, pattern; frequency; multiplier; floors.

    Args:
        market: as its docstring says.
        asker: as its docstring says.
        place: as its docstring says; lists, listed products and terms move.
        has_page_candidates: the listed products are those the page would show.
        wanted: further candidates, from the lists or the page's products, after which to stop there.
        row_count_max: offers after which to stop.
        found: where to write; must have room for `row_count_max` more of each kind.

    Returns:
        Whether it stopped because of `row_count_max`, so that it should be called again at once.
    """
    fact, term, counts, candidate = asker.fact, place.term, found.counts, found.candidate
    posting_row, lists, listed, mark = market.posting_row, place.lists, place.listed, asker.mark
    list_count, base_count = lists.shape[1], term[TERM_BASE_COUNT]
    has_effect = place.effect.size > 0
    has_filters = asker.passes_filters.size > 0
    asked = fact[FACT_QUESTION] + term[TERM_PLACE]
    goal = counts[0] + wanted
    relevance_ppm, organic_rank = np.int64(-1), np.int64(0)
    if term[TERM_HEAP_SIZE] == NOT_HEAPED:
        term[TERM_HEAP_SIZE] = _heap_listed(market, mark, listed)
    reads_lists = not has_page_candidates and term[TERM_LEFT_IN_LISTS] > 0
    base_row: Int = np.int64(NO_ROW)
    if reads_lists:
        base_row = _next_common(posting_row, lists, base_count)
    looked_at = 0
    offer_place = np.int64(0)
    while True:
        is_in_context = True
        if reads_lists:
            row: Int = base_row
            for number in range(base_count, list_count):
                if lists[LIST_AT, number] < lists[LIST_END, number]:
                    row = min(row, np.int64(posting_row[lists[LIST_AT, number]]))
            if row == NO_ROW or counts[0] >= goal or looked_at >= row_count_max:
                term[TERM_LEFT_IN_LISTS] = 0 if row == NO_ROW else _most_unseen(market.best_score_from[row], term)
                if row != NO_ROW and counts[0] < goal:
                    return True
                reads_lists = False
                continue
            for number in range(base_count, list_count):
                if lists[LIST_AT, number] < lists[LIST_END, number] and posting_row[lists[LIST_AT, number]] == row:
                    lists[LIST_AT, number] += 1
                    _call_ahead(market, mark, lists, np.int64(number))
            if row == base_row:
                lists[LIST_AT, 0] += 1
                base_row = _next_common(posting_row, lists, base_count)
                if base_count == 1:
                    _call_ahead(market, mark, lists, np.int64(0))
                elif base_row != NO_ROW:
                    _fetch(market.offer, base_row)
            looked_at += 1
            if mark[market.offer[row].product_row].own_quality_ppm > 0:
                continue
        else:
            most: Int = np.int64(0)
            if term[TERM_HEAP_SIZE] > 0:
                most = _most_unseen(listed[listed[0].heap].score, term)
            is_enough = counts[0] >= goal if has_page_candidates else most <= term[TERM_LEFT_IN_LISTS]
            if most == 0 or is_enough:
                term[TERM_LEFT_IN_PRODUCTS] = most
                return False
            if looked_at >= row_count_max:
                return True
            listed_at = listed[0].heap
            product_row = np.int64(listed[listed_at].product_row)
            offer_place = market.product[product_row].offers_begin + listed[listed_at].offer_at
            if listed[listed_at].offer_at == 0 and mark[product_row].last_asked == asked:  # it is listed twice
                _go_on(market, mark, term, listed, True)
                continue
            mark[product_row].last_asked = asked
            row = np.int64(market.offer_by_product[offer_place].offer_row)
            relevance_ppm = np.int64(listed[listed_at].relevance_ppm)
            organic_rank = np.int64(listed[listed_at].organic_rank)
            looked_at += 1
            is_restricted = market.offer_by_product[offer_place].is_restricted == 1
            is_done = False
            if has_page_candidates:
                is_in_context = not is_restricted or _is_in_context(posting_row, lists, base_count, True, row)
            elif is_restricted:
                is_in_context = _is_in_context(posting_row, lists, base_count, True, row)
            else:
                if listed[listed_at].is_open_here < 0:  # what holds of one of its open offers holds of all
                    if term[TERM_HAS_WORDS] == 1:
                        listed[listed_at].is_open_here = _is_in_context(posting_row, lists, base_count, False, row)
                    else:
                        category = market.product[product_row].category_row
                        is_below = term[TERM_CATEGORY_BEGIN] <= category < term[TERM_CATEGORY_END]
                        listed[listed_at].is_open_here = is_below
                is_in_context = listed[listed_at].is_open_here == 1
                is_done = not is_in_context and list_count == base_count  # no restricted one belongs here either
            _go_on(market, mark, term, listed, is_done)
            if not is_in_context and not has_page_candidates:
                continue

        offer = market.offer[row] if reads_lists else market.offer_by_product[offer_place]
        product_row = np.int64(offer.product_row)
        relevance = relevance_ppm if relevance_ppm >= 0 else market.product[product_row].relevance_ppm
        reason = np.int64(0)
        if not is_in_context:
            reason = np.int64(_NOT_IN_CONTEXT)
        elif asker.campaign_reason[offer.campaign_row] != 0:
            reason = np.int64(asker.campaign_reason[offer.campaign_row])
        elif offer.never_reason != 0:
            reason = np.int64(offer.never_reason)
        elif np.int64(offer.page_mask) & fact[FACT_PAGE] == 0:
            reason = np.int64(_PAGE_NOT_TARGETED)
        elif mark[product_row].reason != 0:
            reason = mark[product_row].reason
        elif has_effect and place.effect[product_row].is_excluded == 1:
            reason = np.int64(_EXCLUDED_BY_RULE)
        elif has_filters and asker.passes_filters[product_row] == 0:
            reason = np.int64(_FILTERED_OUT)
        elif relevance < term[TERM_RELEVANCE_FLOOR]:
            reason = np.int64(_BELOW_RELEVANCE)
        elif offer.condition_row >= 0 and not _holds(market.wish, market.wish_start[offer.condition_row], fact):
            reason = np.int64(_CONTEXT_MISSED)
        elif offer.negative_row >= 0 and _is_any_hit(
            market.wish,
            market.wish_start[offer.negative_row],
            market.wish_start[offer.negative_row + 1],
            asker.is_keyword_hit,
        ):
            reason = np.int64(_NEGATIVE_KEYWORD)
        elif (offer.audience_row >= 0 or offer.pattern_row >= 0) and fact[FACT_CONSENT] == 0:
            reason = np.int64(_NO_CONSENT)
        elif offer.audience_row >= 0 and not _has_bit(asker.bits, 0, offer.audience_row):
            reason = np.int64(_AUDIENCE_MISSED)
        elif offer.pattern_row >= 0 and not _has_bit(asker.bits, fact[FACT_PATTERN_WORD], offer.pattern_row):
            reason = np.int64(_PATTERN_MISSED)
        elif offer.has_frequency_cap == 1 and asker.is_capped[offer.bid_row] == 1:
            reason = np.int64(_FREQUENCY_CAPPED)

        bid: Int = np.int64(0)
        floor: Int = np.int64(0)
        weight: Int = np.int64(0)
        value: Int = np.int64(0)
        quality: Int = np.int64(0)
        group = np.uint64(0)
        if reason == 0:
            boost, rule_value = np.int64(PPM), np.int64(0)
            rule_floor = np.int64(1)  # nothing is sold for nothing
            if has_effect:
                effect = place.effect[product_row]
                group, boost, rule_value = effect.group, np.int64(effect.boost_ppm), np.int64(effect.value_micros)
                rule_floor = np.int64(effect.floor_click if offer.charge == CLICK else effect.floor_impression)
            floor = term[TERM_FLOOR_CLICK] if offer.charge == CLICK else term[TERM_FLOOR_IMPRESSION]
            floor = max(floor, rule_floor, np.int64(1))
            bid = np.int64(offer.bid_micros)
            if offer.multiplier_row >= 0:
                for at in range(
                    market.wish_start[offer.multiplier_row], market.wish_start[offer.multiplier_row + 1], 2
                ):
                    if market.wish[at] == term[TERM_PLACEMENT]:
                        bid = min(bid * market.wish[at + 1] // PPM, np.int64(BID_MICROS_MAX))
            if bid == 0:
                reason = np.int64(_MULTIPLIER_ZERO)
            quality = _quality(market.product, mark, product_row)
            weight = _squash(quality, term) if offer.charge == CLICK else np.int64(PPM)
            weight = _boosted(weight, boost, WEIGHT_PPM_MAX)
            rank = organic_rank if has_page_candidates else mark[product_row].source_rank
            value = _merit(quality, rank, fact, boost, rule_value)
            if reason == 0 and bid < floor:
                reason = np.int64(_BELOW_FLOOR)
            floor = max(floor, ((term[TERM_SCORE_FLOOR] - value) * PPM + weight - 1) // weight)
            if reason == 0 and bid < floor:
                reason = np.int64(_BELOW_SCORE_FLOOR)
            if reason == 0:
                pacing_ppm = asker.pacing_ppm[offer.campaign_row]
                bid = _paced_bid(bid, floor, pacing_ppm, np.uint64(term[TERM_TIE_SEED]), offer.campaign_row)
                if bid == 0:
                    reason = np.int64(_PACED_OUT)

        if reason != 0:
            at = counts[1]
            found.lost[at].offer_row = row
            found.lost[at].reason = reason
            found.lost[at].place = term[TERM_PLACE]
            counts[1] = at + 1
            continue
        at = counts[0]
        candidate.bid_micros[at] = bid
        candidate.weight_ppm[at] = weight
        candidate.value_micros[at] = value
        candidate.floor_micros[at] = floor
        candidate.advertiser_code[at] = offer.advertiser_row
        candidate.brand_code[at] = offer.brand_row
        candidate.product_code[at] = product_row
        candidate.charge_code[at] = offer.charge
        candidate.tie_key[at] = _mix(np.uint64(term[TERM_TIE_SEED]), row + (term[TERM_PLACE] << 40))
        candidate.eligible_slots[at] = np.uint64(term[TERM_SLOTS])
        candidate.group_bits[at] = group
        found.entry[at].quality_ppm = quality
        found.entry[at].offer_row = row
        found.entry[at].place = term[TERM_PLACE]
        counts[0] = at + 1


@njit(
    types.void(
        _records(MARK),
        types.Array(types.int32, 1, "C", readonly=True),
        types.Array(types.int64, 1, "C", readonly=True),
    ),
    cache=True,
)
def mark_quality_nb(mark: Records, rows: Int32s, quality_ppm: Int64s) -> None:
    """Write the visitor's own quality of the products in these rows, or 0 where none is given.

    Args:
        mark: (P,) MARK.
        rows: (V,) products.
        quality_ppm: (V,) or empty.
    """
    for at in range(rows.size):
        mark[rows[at]].own_quality_ppm = quality_ppm[at] if quality_ppm.size > 0 else np.int64(0)


@njit(
    types.boolean(_MarketArrays, _AskerArrays, _PlaceArrays, types.boolean, types.int64, types.int64, _FoundArrays),
    cache=True,
)
def find_candidates_nb(
    market: MarketArrays,
    asker: AskerArrays,
    place: PlaceArrays,
    has_page_candidates: bool,
    wanted: int,
    row_count_max: int,
    found: FoundArrays,
) -> bool:
    """Do as `_find_candidates`."""
    return _find_candidates(market, asker, place, has_page_candidates, wanted, row_count_max, found)


@njit(
    types.int64(_MarketArrays, _AskerArrays, _PlaceArrays, types.int64, types.boolean, _FoundArrays),
    cache=True,
)
def add_organic_nb(
    market: MarketArrays,
    asker: AskerArrays,
    place: PlaceArrays,
    wanted: int,
    skips_own: bool,
    found: FoundArrays,
) -> int:
    """Write up to `wanted` of the listed products as organic candidates; return how many are still to be looked at.

    Args:
        market: as its docstring says.
        asker: as its docstring says.
        place: as its docstring says; goes on at TERM_AT_PRODUCT.
        wanted: candidates after which to stop.
        skips_own: leave out products with a quality of the visitor's own, which were written before.
        found: where to write; must have room for `wanted` more.
    """
    asked = -(asker.fact[FACT_QUESTION] + place.term[TERM_PLACE])
    goal = found.counts[0] + wanted
    candidate, mark, term, listed = found.candidate, asker.mark, place.term, place.listed
    has_effect = place.effect.size > 0
    listed_at = term[TERM_AT_PRODUCT]
    while listed_at < listed.size and found.counts[0] < goal:
        row = np.int64(listed[listed_at].product_row)
        rank = np.int64(listed[listed_at].organic_rank)
        listed_at += 1
        if (
            market.product[row].is_available == 0
            or mark[row].reason != 0
            or mark[row].last_asked == asked
            or (skips_own and mark[row].own_quality_ppm > 0)
            or (has_effect and place.effect[row].is_excluded == 1)
            or (asker.passes_filters.size > 0 and asker.passes_filters[row] == 0)
        ):
            continue
        mark[row].last_asked = asked
        at = found.counts[0]
        quality = _quality(market.product, mark, row)
        boost, rule_value, group = np.int64(PPM), np.int64(0), np.uint64(0)
        if has_effect:
            effect = place.effect[row]
            boost, rule_value, group = np.int64(effect.boost_ppm), np.int64(effect.value_micros), effect.group
        candidate.bid_micros[at] = 0
        candidate.weight_ppm[at] = quality
        candidate.value_micros[at] = _merit(quality, rank, asker.fact, boost, rule_value)
        candidate.floor_micros[at] = 0
        candidate.advertiser_code[at] = NO_ADVERTISER
        candidate.brand_code[at] = market.product[row].brand_code
        candidate.product_code[at] = row
        candidate.charge_code[at] = CLICK
        candidate.tie_key[at] = _mix(np.uint64(term[TERM_TIE_SEED]), row + (1 << 48) + (term[TERM_PLACE] << 40))
        candidate.eligible_slots[at] = np.uint64(term[TERM_SLOTS])
        candidate.group_bits[at] = group
        found.entry[at].quality_ppm = quality
        found.entry[at].offer_row = -1
        found.entry[at].place = term[TERM_PLACE]
        found.counts[0] = at + 1
    term[TERM_AT_PRODUCT] = listed_at
    return int(listed.size - listed_at)


# ---------------------------------------------------------------------------------------------------------------------
# What a snapshot's offers are made by; not on the slot path
# ---------------------------------------------------------------------------------------------------------------------


@njit(
    types.void(
        _records(BID),
        types.int64[::1],
        types.int32[::1],
        types.int32[:, ::1],
        types.int32[::1],
        types.int32[::1],
        types.uint8[::1],
        types.int64[::1],
        types.int32[::1],
        _records(OFFER),
    ),
    cache=True,
)
def write_offers_nb(
    bid: Records,
    product_start: Int64s,
    product_row: Int32s,
    rows: Int32s,
    campaign_advertiser: Int32s,
    product_brand: Int32s,
    product_is_available: UInt8s,
    entitled_start: Int64s,
    entitled: Int32s,
    offer: Records,
) -> None:
    """Write one offer for each bid and product, in their order; `offer_row` is left to whoever sorts them.

    Args:
        bid: (B,) BID.
        product_start: (B+1,) where each bid's products begin in `product_row`.
        product_row: the products, -1 for one nobody knows, which gets no offer.
        rows: (B, 6) of each bid: campaign, audience, pattern, condition, negative keywords, multipliers.
        campaign_advertiser: advertiser of each campaign.
        product_brand: (P,) brand of each product.
        product_is_available: (P,) 1 where a slot may show it.
        entitled_start: (P+1,) where each product's advertisers begin in `entitled`.
        entitled: advertisers that may bid on a product.
        offer: out; as many as there are known products in `product_row`.
    """
    at = 0
    for row in range(bid.size):
        one = bid[row]
        advertiser = campaign_advertiser[rows[row, 0]]
        is_restricted = one.categories >= 0 or one.keywords >= 0
        for place in range(product_start[row], product_start[row + 1]):
            product = product_row[place]
            if product < 0:
                continue
            is_entitled = False
            for number in range(entitled_start[product], entitled_start[product + 1]):
                is_entitled |= entitled[number] == advertiser
            reason = 0
            if not is_entitled:
                reason = _NOT_ENTITLED
            elif one.is_paused == 1:
                reason = _BID_PAUSED
            elif product_is_available[product] == 0:
                reason = _OUT_OF_STOCK
            written = offer[at]
            written.bid_micros = one.bid_micros
            written.product_row = product
            written.bid_row = row
            written.campaign_row = rows[row, 0]
            written.advertiser_row = advertiser
            written.brand_row = product_brand[product]
            written.audience_row = rows[row, 1]
            written.pattern_row = rows[row, 2]
            written.condition_row = rows[row, 3]
            written.negative_row = rows[row, 4]
            written.multiplier_row = rows[row, 5]
            written.page_mask = one.page_mask
            written.never_reason = reason
            written.charge = one.charge
            written.is_restricted = is_restricted
            written.has_frequency_cap = one.has_frequency_cap
            at += 1


@njit(types.void(_records(OFFER), types.int64[::1], types.int64[:, ::1]), cache=True)
def find_best_left_nb(offer_by_product: Records, multiplier_max_ppm: Int64s, best_left: Int64s) -> None:
    """Write the most an offer, or one of its product behind it, can bid; and where the next restricted one stands.

    Args:
        offer_by_product: (O,) OFFER, those of one product side by side; `next_restricted` is written.
        multiplier_max_ppm: greatest factor of each row of placement multipliers.
        best_left: (O, 2) out: micros for a click; micros for an impression, times a million.
    """
    upcoming = np.int64(offer_by_product.size)
    for at in range(offer_by_product.size - 1, -1, -1):
        offer = offer_by_product[at]
        if at + 1 == offer_by_product.size or offer_by_product[at + 1].product_row != offer.product_row:
            upcoming = np.int64(at + 1)
        offer.next_restricted = upcoming
        if offer.is_restricted == 1:
            upcoming = np.int64(at)
        bid = np.int64(offer.bid_micros)
        if offer.multiplier_row >= 0:
            bid = min(bid * multiplier_max_ppm[offer.multiplier_row] // PPM, np.int64(BID_MICROS_MAX))
        if offer.never_reason != 0:
            bid = np.int64(0)
        best_left[at, 0] = bid if offer.charge == CLICK else np.int64(0)
        best_left[at, 1] = np.int64(0) if offer.charge == CLICK else bid * PPM
        if at + 1 < offer_by_product.size and offer_by_product[at + 1].product_row == offer.product_row:
            best_left[at, 0] = max(best_left[at, 0], best_left[at + 1, 0])
            best_left[at, 1] = max(best_left[at, 1], best_left[at + 1, 1])


# ---------------------------------------------------------------------------------------------------------------------
# The page's candidates, read from the request's own bytes: two hundred objects and look-ups cost more than the auction
#
# Eight letters at a time are one number. The compiler makes one load of `_word`, wherever it begins; whatever it reads
# must go on for WORD_PADDING bytes.
# ---------------------------------------------------------------------------------------------------------------------

WORD_PADDING = 16  # bytes behind the last one that counts
_ID_BYTES_MAX = 64
_RANK_MAX = 1_000_000
_KEY_PRODUCT, _KEY_RANK, _KEY_RELEVANCE = 1, 2, 4
_EACH_ONE = np.uint64(0x0101010101010101)
_EACH_TOP = np.uint64(0x8080808080808080)
_EACH_SPACE = np.uint64(0x2020202020202020)
_EACH_ZERO = np.uint64(0x3030303030303030)  # the digit: a letter like any other
_STIR = np.uint64(0x9E3779B97F4A7C15)


def _as_word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


# The names of the fields with their quotation marks: the first eight letters, and the last eight.
_PRODUCT_HEAD, _PRODUCT_TAIL = _as_word(b'"product_id"'[:8]), _as_word(b'"product_id"'[-8:])
_RANK_HEAD, _RANK_TAIL = _as_word(b'"organic_rank"'[:8]), _as_word(b'"organic_rank"'[-8:])
_RELEVANCE_HEAD, _RELEVANCE_TAIL = _as_word(b'"relevance"'[:8]), _as_word(b'"relevance"'[-8:])


@njit(cache=True)
def _word(letters: UInt8s, at: Int) -> np.uint64:
    """Return eight letters as one number, the first one lowest."""
    u = np.uint64(at)
    return (
        np.uint64(letters[u])
        | np.uint64(letters[u + np.uint64(1)]) << np.uint64(8)
        | np.uint64(letters[u + np.uint64(2)]) << np.uint64(16)
        | np.uint64(letters[u + np.uint64(3)]) << np.uint64(24)
        | np.uint64(letters[u + np.uint64(4)]) << np.uint64(32)
        | np.uint64(letters[u + np.uint64(5)]) << np.uint64(40)
        | np.uint64(letters[u + np.uint64(6)]) << np.uint64(48)
        | np.uint64(letters[u + np.uint64(7)]) << np.uint64(56)
    )


@njit(cache=True)
def _first(count: Int) -> np.uint64:
    """Return the bits of the first `count` letters of a word, from 0 to 8."""
    return ~np.uint64(0) if count >= 8 else (np.uint64(1) << np.uint64(8 * count)) - np.uint64(1)


@njit(cache=True)
def _where(word: np.uint64, letter: Int) -> np.uint64:
    """Return the top bits of the letters that are this one; of those above the first, perhaps others too.

    Source: Mycroft's test for a zero byte; Warren, "Hacker's Delight", 6-1.
    """
    other = word ^ (_EACH_ONE * np.uint64(letter))
    return (other - _EACH_ONE) & ~other & _EACH_TOP


@njit(cache=True)
def _is_plain(word: np.uint64) -> bool:
    """Say whether all eight letters are printable ASCII other than the backslash."""
    odd = (word | ((word - _EACH_SPACE) & ~word)) & _EACH_TOP
    return bool((odd | _where(word, 92) | _where(word, 127)) == 0)


@njit(cache=True)
def _stir(hashed: np.uint64, word: np.uint64) -> np.uint64:
    """Return the hash with another word in it; it only says where to look, the letters decide."""
    mixed = (hashed ^ word) * _STIR
    return mixed ^ (mixed >> np.uint64(32))


@njit(types.void(types.int64[::1], types.uint8[::1], types.int32[::1]), cache=True)
def file_ids_nb(id_start: Int64s, id_letters: UInt8s, table: Int32s) -> None:
    """File ids in a hash table by row: open addressing, a power of two places, -1 where free.

    Args:
        id_start: (n+1,) where each id begins in `id_letters`.
        id_letters: the ids one after the other, and WORD_PADDING bytes more.
        table: out; at least twice as many places as ids.
    """
    table[:] = -1
    mask = np.uint64(table.size - 1)
    for row in range(id_start.size - 1):
        hashed = _STIR
        size = id_start[row + 1] - id_start[row]
        for done in range(0, size + 1, 8):
            hashed = _stir(hashed, _word(id_letters, id_start[row] + done) & _first(size - done))
        place = (hashed >> np.uint64(1)) & mask
        while table[np.int64(place)] >= 0:
            place = (place + np.uint64(1)) & mask
        table[np.int64(place)] = row


@njit(cache=True)
def _find_rows(raw: UInt8s, count: Int, id_start: Int64s, id_letters: UInt8s, table: Int32s, listed: Records) -> Int:
    """Replace where ids stand by the rows they name; return how many are known, moved to the front.

    One pass over all for each place in memory, so that the processor waits for many of them at once.
    """
    mask = np.int64(table.size - 1)
    for at in range(count):
        listed[at].product_row = table[listed[at].score & mask]
    known = np.int64(0)
    for at in range(count):
        place, row = listed[at].score & mask, np.int64(listed[at].product_row)
        begin, size = np.int64(listed[at].heap >> 7), np.int64(listed[at].heap & 127)
        while row >= 0:
            first = id_start[row]
            if id_start[row + 1] - first == size:
                differ = np.uint64(0)
                for done in range(0, size, 8):
                    both = _word(raw, begin + done) ^ _word(id_letters, first + done)
                    differ |= both & _first(size - done)
                if differ == 0:
                    break
            place = (place + 1) & mask
            row = np.int64(table[place])
        if row >= 0:
            listed[known].product_row = row
            listed[known].relevance_ppm = listed[at].relevance_ppm
            listed[known].organic_rank = listed[at].organic_rank
            known += 1
    return known


@njit(cache=True)
def _skip_space(raw: UInt8s, at: Int) -> Int:
    while raw[at] <= 32 and (raw[at] == 32 or raw[at] == 10 or raw[at] == 13 or raw[at] == 9):
        at += 1
    return at


@njit(
    types.int64(
        types.Array(types.uint8, 1, "C", readonly=True),
        types.int64,
        types.int64[::1],
        types.uint8[::1],
        types.int32[::1],
        types.int64,
        _records(LISTED),
        types.int64[::1],
    ),
    cache=True,
)
def read_candidates_nb(
    raw: UInt8s,
    begins_at: int,
    id_start: Int64s,
    id_letters: UInt8s,
    table: Int32s,
    count_max: int,
    listed: Records,
    ends_at: Int64s,
) -> Int:
    """Write the products of a JSON array of candidates that are known; return how many, or -1 where it is unusual.

    Usual is what a site sends: product ids, or objects of `product_id`, `organic_rank` and `relevance`, in plain ASCII,
    whole ranks and decimal shares. Whatever else there is, right or wrong, is for the general decoder to read.

    Args:
        raw: bytes with the array in them, then WORD_PADDING zeros (at which anything unfinished ends as unusual); no
            more than 2^24.
        begins_at: where its `[` stands.
        id_start: as in `file_ids_nb`.
        id_letters: as in `file_ids_nb`.
        table: as `file_ids_nb` wrote it.
        count_max: most candidates there may be.
        listed: out; room for `count_max`, or for as many as these bytes can hold.
        ends_at: (1,) out: the place behind its `]`.
    """
    unusual: Int = np.int64(-1)
    if raw[begins_at] != 91:  # [
        return unusual
    at: Int = _skip_space(raw, begins_at + 1)
    count = np.int64(0)
    if raw[at] == 93:  # ]
        ends_at[0] = at + 1
        return count
    while True:
        is_object = raw[at] == 123  # {
        if is_object:
            at = _skip_space(raw, at + 1)
        keys = 0
        id_hash = np.uint64(0)
        id_place: Int = np.int64(0)
        rank: Int = np.int64(0)
        relevance: Int = np.int64(-1)
        while True:
            key = _KEY_PRODUCT
            if is_object:
                head = _word(raw, at)
                if head == _PRODUCT_HEAD and _word(raw, at + 4) == _PRODUCT_TAIL:
                    at += 12
                elif head == _RANK_HEAD and _word(raw, at + 6) == _RANK_TAIL:
                    key = _KEY_RANK
                    at += 14
                elif head == _RELEVANCE_HEAD and _word(raw, at + 3) == _RELEVANCE_TAIL:
                    key = _KEY_RELEVANCE
                    at += 11
                else:
                    return unusual
                if keys & key:
                    return unusual
                at = _skip_space(raw, at)
                if raw[at] != 58:  # :
                    return unusual
                at = _skip_space(raw, at + 1)
            keys |= key
            if key == _KEY_PRODUCT:
                if raw[at] != 34:
                    return unusual
                begin = at + 1
                size: Int = np.int64(0)
                id_hash = _STIR
                while True:
                    word = _word(raw, begin + size)
                    ends = _where(word, 34)
                    letters: Int = np.int64(8)
                    if ends != 0:  # one bit of each letter below the first end, and of that one
                        letters = (
                            np.int64((((ends - np.uint64(1)) & ~ends & _EACH_ONE) * _EACH_ONE) >> np.uint64(56)) - 1
                        )
                    kept = _first(letters)
                    word &= kept
                    if not _is_plain(word | (_EACH_ZERO & ~kept)):
                        return unusual
                    id_hash = _stir(id_hash, word)
                    size += letters
                    if size > _ID_BYTES_MAX:
                        return unusual
                    if letters < 8:
                        break
                id_place = (begin << 7) | size
                at = begin + size + 1
            elif key == _KEY_RANK:
                first_digit = at
                while 48 <= raw[at] <= 57 and at - first_digit < 8:
                    rank = rank * 10 + np.int64(raw[at] - 48)
                    at += 1
                if at == first_digit or raw[first_digit] == 48 or rank < 1 or rank > _RANK_MAX:
                    return unusual
            else:
                if raw[at] != 48 and raw[at] != 49:  # 0 or 1
                    return unusual
                relevance = np.int64(raw[at] - 48) * PPM
                at += 1
                if raw[at] == 46:  # .
                    at += 1
                    first_digit = at
                    unit = np.int64(PPM // 10)
                    while 48 <= raw[at] <= 57:
                        digit = np.int64(raw[at] - 48)
                        relevance += digit * unit
                        if at - first_digit == 6 and digit >= 5:
                            relevance += 1
                        unit //= 10
                        at += 1
                    if at == first_digit:
                        return unusual
                if relevance > PPM:
                    return unusual
            if not is_object:
                break
            at = _skip_space(raw, at)
            if raw[at] == 125:  # }
                at += 1
                break
            if raw[at] != 44:  # ,
                return unusual
            at = _skip_space(raw, at + 1)
        if keys & _KEY_PRODUCT == 0 or count >= count_max:
            return unusual
        listed[count].score = np.int64(id_hash >> np.uint64(1))
        listed[count].heap = id_place
        listed[count].relevance_ppm = relevance
        listed[count].organic_rank = rank
        count += 1
        at = _skip_space(raw, at)
        if raw[at] == 93:  # ]
            ends_at[0] = at + 1
            return _find_rows(raw, count, id_start, id_letters, table, listed)
        if raw[at] != 44:
            return unusual
        at = _skip_space(raw, at + 1)


# ---------------------------------------------------------------------------------------------------------------------
# From offers to a decided page
# ---------------------------------------------------------------------------------------------------------------------


@njit(
    types.int64(
        _CandidateArrays,
        types.int64,
        _PageArrays,
        types.int64[::1],
        types.int64[::1],
        types.int64[::1],
        types.int64[::1],
        _OutcomeArrays,
    ),
    cache=True,
)
def fill_page_nb(
    candidates: CandidateArrays,
    candidate_count: int,
    page: PageArrays,
    unseen_charge: Int64s,
    unseen_slots: Int64s,
    unseen_bits: Int64s,
    unseen_score: Int64s,
    outcome: OutcomeArrays,
) -> int:
    """Do as `allocate_and_price_nb`, or return -1 where candidates not looked at yet might change anything.

    Args:
        candidates: as there.
        candidate_count: as there.
        page: as there.
        unseen_charge: charge type of each kind of candidate that was not looked at.
        unseen_slots: slots a kind may take, as bits.
        unseen_bits: groups every one of the kind is in.
        unseen_score: a score none of the kind exceeds.
        outcome: as there.
    """
    unseen = np.empty((unseen_score.size, 5), np.int64)
    for kind in range(unseen_score.size):
        unseen[kind, _KIND_CHARGE] = unseen_charge[kind]
        unseen[kind, _KIND_SLOTS] = unseen_slots[kind]
        unseen[kind, _KIND_GROUPS] = unseen_bits[kind]
        unseen[kind, _KIND_SCORE] = unseen_score[kind]
        unseen[kind, _KIND_TIE] = np.int64(_SIGN_BIT)  # any tie key, the least included
    return int(_allocate_and_price(candidates, candidate_count, page, unseen, np.int64(SHORTLIST_COUNT), outcome))


@njit(cache=True)
def _unseen_kinds(terms: Int64s, has_impression_bids: bool) -> Int64s:
    """Return the kinds of candidate not looked at, with the columns of `absent`."""
    kinds = np.empty((3 * terms.shape[0], 5), np.int64)
    count = 0
    for place in range(terms.shape[0]):
        term = terms[place]
        score: Int = np.int64(0)
        if term[TERM_IS_SEARCHED] == 1:
            score = max(term[TERM_LEFT_IN_LISTS], term[TERM_LEFT_IN_PRODUCTS])
            if term[TERM_IS_UNFINISHED] == 1:
                score = np.int64(SCORE_MAX)
        for kind in range(3):  # offers for clicks, offers for impressions, organic candidates
            most = term[TERM_LEFT_ORGANIC] if kind == 2 else score
            if most == 0 or (kind == 1 and not has_impression_bids):
                continue
            kinds[count, _KIND_CHARGE] = IMPRESSION if kind == 1 else CLICK
            kinds[count, _KIND_SLOTS] = term[TERM_SLOTS]
            kinds[count, _KIND_GROUPS] = GROUP_EVERYONE if kind == 2 else GROUP_EVERYONE | GROUP_PAID
            kinds[count, _KIND_SCORE] = most
            kinds[count, _KIND_TIE] = np.int64(_SIGN_BIT)  # any tie key, the least included
            count += 1
    return kinds[:count]


FACT_ROWS = ("product_row", "offer_row", "quality_ppm", "charge", "bid_micros")  # of `facts` in `decide_page_nb`


class _BookType(types.StructRef):
    """Numba's type of a `Book`."""


class Book(structref.StructRefProxy):
    """Arrays that stay the same from one auction to the next, handed to compiled code as one thing.

    Handing over an array costs a quarter of a microsecond, and there would be thirty. Made by `bind_book_nb`.
    """

    market: MarketArrays
    asker: AskerArrays
    found: FoundArrays


class _PageBookType(types.StructRef):
    """Numba's type of a `PageBook`."""


class PageBook(structref.StructRefProxy):
    """The same for the arrays of a page. Made by `bind_page_nb`."""

    page: PageArrays


for _kind in (_BookType, _PageBookType):
    structref.register(_kind)  # type: ignore[no-untyped-call]
structref.define_proxy(Book, _BookType, ["market", "asker", "found"])  # type: ignore[no-untyped-call]
structref.define_proxy(PageBook, _PageBookType, ["page"])  # type: ignore[no-untyped-call]
_Book = _BookType(  # type: ignore[no-untyped-call]
    [("market", _MarketArrays), ("asker", _AskerArrays), ("found", _FoundArrays)]
)
_PageBook = _PageBookType([("page", _PageArrays)])  # type: ignore[no-untyped-call]


@njit(_Book(_MarketArrays, _AskerArrays, _FoundArrays), cache=True)
def bind_book_nb(market: MarketArrays, asker: AskerArrays, found: FoundArrays) -> Book:
    """Return a book of these arrays; what is written to one of them is seen in the other."""
    return Book(market, asker, found)  # type: ignore[no-untyped-call]


@njit(_PageBook(_PageArrays), cache=True)
def bind_page_nb(page: PageArrays) -> PageBook:
    """Return a book of a page's arrays."""
    return PageBook(page)  # type: ignore[no-untyped-call]


@njit(
    types.int64(
        _Book,
        _PageBook,
        types.int64[::1],
        _PlaceArrays,
        types.uint8[::1],
        types.boolean,
        types.int64,
        types.int64,
        types.boolean,
        types.int64[:, ::1],
        types.int64[:, ::1],
        types.int64[:, ::1],
    ),
    cache=True,
)
def decide_page_nb(
    book: Book,
    page_book: PageBook,
    pinned_row: Int64s,
    place: PlaceArrays,
    passes_filters: UInt8s,
    has_page_candidates: bool,
    wanted: int,
    row_count_max: int,
    has_impression_bids: bool,
    terms: Int64s,
    block: Int64s,
    facts: Int64s,
) -> int:
    """Look at more offers for one placement, then fill and price the page.

    Args:
        book: market, asker and found as in `_find_candidates`, filters aside.
        page_book: the page as in `allocate_and_price_nb`, pins aside.
        pinned_row: the page's pins.
        place: as in `_find_candidates`; its term is a row of `terms`.
        passes_filters: the asker's.
        has_page_candidates: as in `_find_candidates`.
        wanted: as there; 0 looks at no more offers.
        row_count_max: as there.
        has_impression_bids: whether any offer is for impressions.
        terms: (places, TERM_COUNT) of all placements of the page: what else was not looked at.
        block: (4 + S, S) out: the outcome as in `allocate_and_price_nb`: winners, both prices, order, thresholds.
        facts: (FACT_ROWS, S) out: of each slot's winner; undefined where nobody won.

    Returns:
        SETTLED; WANTING where candidates not looked at yet might change anything (then the outcome says nothing);
        INTERRUPTED where `row_count_max` ended it before the page was filled.
    """
    term, found, was_asked, page = place.term, book.found, book.asker, page_book.page
    if wanted > 0 and term[TERM_IS_SEARCHED] == 1:
        if term[TERM_IS_UNFINISHED] == 1 or term[TERM_LEFT_IN_LISTS] > 0 or term[TERM_LEFT_IN_PRODUCTS] > 0:
            asker = AskerArrays(
                was_asked.campaign_reason,
                was_asked.pacing_ppm,
                was_asked.mark,
                passes_filters,
                was_asked.is_capped,
                was_asked.is_keyword_hit,
                was_asked.bits,
                was_asked.fact,
            )
            if _find_candidates(book.market, asker, place, has_page_candidates, wanted, row_count_max, found):
                term[TERM_IS_UNFINISHED] = 1
                return INTERRUPTED
            term[TERM_IS_UNFINISHED] = 0
    page = PageArrays(
        page.attention_permille,
        page.opportunity_cost,
        pinned_row,
        page.cap_bits,
        page.cap_per_brand,
        page.cap_slots,
        page.cap_max,
    )
    outcome = OutcomeArrays(block[0], block[1], block[2], block[4:], block[3])
    unseen = _unseen_kinds(terms, has_impression_bids)
    candidate = found.candidate
    if _allocate_and_price(candidate, found.counts[0], page, unseen, np.int64(SHORTLIST_COUNT), outcome) < 0:
        return WANTING
    for slot in range(page.pinned_row.size):
        winner = outcome.winner_row[slot]
        if winner >= 0:
            facts[0, slot] = candidate.product_code[winner]
            facts[1, slot] = found.entry[winner].offer_row
            facts[2, slot] = found.entry[winner].quality_ppm
            facts[3, slot] = candidate.charge_code[winner]
            facts[4, slot] = candidate.bid_micros[winner]
    return SETTLED


# ---------------------------------------------------------------------------------------------------------------------
# What fills just given may cost (spend.py)
# ---------------------------------------------------------------------------------------------------------------------


class PendingArrays(NamedTuple):
    """What is expected to be charged, and how far from the end budgets and funds are; A advertisers.

    Attributes:
        advertiser_row: (G,) whose campaign it is.
        pending: (G,) micros expected of fills given and not yet settled.
        recent: (2, ages, G) the same by whether a charge is certain, and by age.
        price: (G,) highest price of a fill on its way.
        of_advertiser: (A,) `pending` of all its campaigns.
        campaign_slack, advertiser_slack: (G,), (A,) micros that may be added before they must be judged anew.
    """

    advertiser_row: Int32s
    pending: NDArray[np.float64]
    recent: NDArray[np.float64]
    price: NDArray[np.float64]
    of_advertiser: NDArray[np.float64]
    campaign_slack: NDArray[np.float64]
    advertiser_slack: NDArray[np.float64]


class _PendingBookType(types.StructRef):
    """Numba's type of a `PendingBook`."""


class PendingBook(structref.StructRefProxy):
    """Those arrays, handed over as one thing. Made by `bind_pending_nb`."""

    arrays: PendingArrays


_PendingArrays = _tuple_of(
    PendingArrays, types.int32[::1], types.float64[::1], types.float64[:, :, ::1], *[types.float64[::1]] * 4
)
structref.register(_PendingBookType)  # type: ignore[no-untyped-call]
structref.define_proxy(PendingBook, _PendingBookType, ["arrays"])  # type: ignore[no-untyped-call]
_PendingBook = _PendingBookType([("arrays", _PendingArrays)])  # type: ignore[no-untyped-call]


@njit(_PendingBook(_PendingArrays), cache=True)
def bind_pending_nb(arrays: PendingArrays) -> PendingBook:
    """Return a book of these arrays; what is written to one of them is seen in the other."""
    return PendingBook(arrays)  # type: ignore[no-untyped-call]


@njit(types.int64(_PendingBook, types.float64[:, ::1], types.int64, types.float64), cache=True)
def add_pending_nb(book: PendingBook, fills: NDArray[np.float64], age: int, z: float) -> int:
    """Count fills just given.

    Args:
        book: as bound; all but `advertiser_row` are written.
        fills: (S, 3) of each its campaign's row, what it will cost on average, and what at most; both in micros.
        age: row of `recent` for what is new.
        z: how many standard deviations of what is expected there must be room for.

    Returns:
        The fills whose campaign or advertiser must be judged anew, as bits.
    """
    a, in_doubt = book.arrays, np.int64(0)
    for at in range(fills.shape[0]):
        row, expected, most = np.int64(fills[at, 0]), fills[at, 1], fills[at, 2]
        advertiser, price = a.advertiser_row[row], a.price[row]
        # The room kept free grows by no more than this, since sqrt(a + b) is at most sqrt(a) + sqrt(b).
        own = expected + z * np.sqrt(expected * max(price, most))
        shared = own
        if most > price:
            a.price[row] = most
            risen = z * (np.sqrt(most) - np.sqrt(price))
            own += risen * np.sqrt(max(0.0, a.pending[row]))
            shared += risen * np.sqrt(max(0.0, a.of_advertiser[advertiser]))
        a.pending[row] += expected
        a.recent[1 if expected < most else 0, age, row] += expected
        a.of_advertiser[advertiser] += expected
        a.campaign_slack[row] -= own
        a.advertiser_slack[advertiser] -= shared
        if a.campaign_slack[row] <= 0.0 or a.advertiser_slack[advertiser] <= 0.0:
            in_doubt |= np.int64(1) << at
    return int(in_doubt)


# ---------------------------------------------------------------------------------------------------------------------
# Many auctions in one call (sim/core.py)
#
# A market's closed loop stands here too, although it is the simulation's, since a kernel of another file would go on
# running the old code when this one changes. Most pages of a market are *simple*: one charge type, no pins, every
# candidate may take every slot, and no brand or product comes up twice among those that matter. The slots, by attention
# down, then go to the candidates, by score down, and the run without a winner to the next ones; so ranking a few is
# all there is to do. Any other page is filled as a single one is.
#
# What runs for every auction takes plain arrays, is put into its caller's code and divides without asking for zeros
# (no divisor here can be one): by that alone it takes two thirds of the time.
# ---------------------------------------------------------------------------------------------------------------------

_SIMPLE_SLOT_COUNT_MAX = 12
_SIMPLE_CANDIDATE_COUNT_MAX = 1024
_PLACE_BITS = 10  # a score is less than 2^53, so that it and a place among the candidates are one whole number
_RANKED_BEYOND_SLOTS = 5  # ranked beyond as many as there are slots: who steps in for a winner, and siblings of winners

# Rows of `ranked` (4, R): the best candidates of a simple page.
_RANKED_ROW, _RANKED_SCORE, _RANKED_TIE, _RANKED_ADVERTISER = range(4)

# Rows of an outcome in one block (4 + S, S), as receipts have it.
BLOCK_WINNER, BLOCK_CRITICAL, BLOCK_VCG, BLOCK_ORDER, BLOCK_THRESHOLD = range(5)


@njit(cache=True)
def _read_simple(page: PageArrays) -> tuple[bool, Int, bool]:
    """Say whether a page can be simple, how many fills its caps allow then, and whether a cap counts brands."""
    slot_count = page.pinned_row.size
    every = (np.int64(1) << slot_count) - 1
    most, counts_brands = np.int64(slot_count), False
    is_simple = slot_count <= _SIMPLE_SLOT_COUNT_MAX
    for slot in range(slot_count):
        is_simple &= page.opportunity_cost[slot] == 0
    for cap in range(page.cap_max.size):
        slots = np.int64(page.cap_slots[cap]) & every
        count: Int = np.int64(0)
        for slot in range(slot_count):
            count += (slots >> slot) & 1
        if page.cap_max[cap] >= count:
            continue  # closes nothing that is not full
        if page.cap_per_brand[cap] != 0:
            counts_brands = True
            is_simple &= page.cap_max[cap] >= 1
        else:
            is_simple &= slots == every and np.int64(page.cap_bits[cap]) & (GROUP_EVERYONE | GROUP_PAID) != 0
            most = min(most, page.cap_max[cap])
    return is_simple, most, counts_brands


@njit(cache=True, error_model="numpy")
def _key_simple(
    bid_micros: Int64s,
    weight_ppm: Int64s,
    value_micros: Int64s,
    floor_micros: Int64s,
    advertiser_code: Int32s,
    eligible_slots: UInt64s,
    charge_code: Int8s,
    begin: Int,
    end: Int,
    every: Int,
    takes_organic: bool,
    key: Int64s,
) -> bool:
    """Write score and place of each of the candidates begin..end-1 as one number; say whether the page is simple.

    The greater number has the higher score, or an equal one and the earlier place; it is 0 for who takes no part.
    """
    first_charge = charge_code[begin] if begin < end else np.int8(0)
    oddities = np.int64(0)
    for at in range(end - begin):
        row = np.uint64(begin + at)  # unsigned, so that no index is taken for one from the end
        slots, is_paid = np.int64(eligible_slots[row]) & every, advertiser_code[row] >= 0
        takes_part = (slots != 0) & ((bid_micros[row] >= floor_micros[row]) | (not is_paid))
        score = _score_of(weight_ppm[row], bid_micros[row], value_micros[row]) if takes_part else np.int64(0)
        key[at] = (score << _PLACE_BITS) | (_SIMPLE_CANDIDATE_COUNT_MAX - 1 - at) if score > 0 else np.int64(0)
        is_odd = (slots != every) | (charge_code[row] != first_charge) | ((not is_paid) & (not takes_organic))
        oddities |= np.int64(is_odd & (score > 0))
    return bool(oddities == 0)


@njit(cache=True, error_model="numpy")
def _rank_simple(
    key: Int64s, count: Int, begin: Int, wanted: Int, tie_key: UInt64s, advertiser_code: Int32s, ranked: Int64s
) -> Int:
    """Rank the best candidates, score down, then tie and row up; return how many, -1 where `ranked` has no room.

    As many as `wanted`, one more for each that has an advertiser ranked before, and all that are worth as much as the
    last: enough for every winner, whose advertiser's later ones make room for others.
    """
    ranked_count = np.int64(0)
    while True:
        best: Int = np.int64(0)
        for at in range(count):
            best = max(best, key[at])
        if best == 0:
            return ranked_count
        score = best >> _PLACE_BITS
        if ranked_count >= wanted and score < ranked[_RANKED_SCORE, ranked_count - 1]:
            return ranked_count
        if ranked_count == ranked.shape[1]:
            return np.int64(-1)
        place = _SIMPLE_CANDIDATE_COUNT_MAX - 1 - (best & (_SIMPLE_CANDIDATE_COUNT_MAX - 1))
        key[place] = 0
        row = begin + place
        tie, advertiser = np.int64(tie_key[row] ^ _SIGN_BIT), np.int64(advertiser_code[row])
        for other in range(ranked_count):
            if ranked[_RANKED_ADVERTISER, other] == advertiser:
                wanted += 1
                break
        spot = ranked_count
        while spot > 0 and ranked[_RANKED_SCORE, spot - 1] == score and ranked[_RANKED_TIE, spot - 1] > tie:
            for fact in range(4):
                ranked[fact, spot] = ranked[fact, spot - 1]
            spot -= 1
        ranked[_RANKED_ROW, spot] = row
        ranked[_RANKED_SCORE, spot] = score
        ranked[_RANKED_TIE, spot] = tie
        ranked[_RANKED_ADVERTISER, spot] = advertiser
        ranked_count += 1


@njit(cache=True, error_model="numpy")
def _price_simple(
    attention: Int64s,
    order: Int64s,
    charge: Int,
    open_count: Int,
    most: Int,
    ranked: Int64s,
    ranked_count: Int,
    step: Int,
    weight_ppm: Int,
    value_micros: Int,
    floor_micros: Int,
    outcome: Int64s,
) -> Int:
    """Write the thresholds and both prices of the winner picked at this step; return the last place that mattered.

    As `_price` and `_read_staircase` have it, where the others come in by rank.

    Args:
        attention: (K, S) the page's.
        order: (K, S) slots by attention down.
        charge: the winner's charge type.
        open_count: slots with any attention.
        most: fills the caps allow.
        ranked: as `_rank_simple` left it.
        ranked_count: how many are ranked.
        step: which pick, and so which place in `order` and in `ranked`.
        weight_ppm, value_micros, floor_micros: the winner's.
        outcome: (4 + S, S) the page's.
    """
    slot, row = order[charge, step], ranked[_RANKED_ROW, step]
    tie, advertiser = ranked[_RANKED_TIE, step], ranked[_RANKED_ADVERTISER, step]
    own_level, own_value = attention[charge, slot], value_micros * PPM
    fill_count = min(open_count, most)
    other: Int = np.int64(0)
    far: Int = step
    since_value, since_slot = np.int64(0), np.int64(-1)
    critical: Int = np.int64(0)
    least: Int = np.int64(UNATTAINABLE)
    total: Int = np.int64(0)
    for place in range(open_count):  # down the levels of attention
        u = order[charge, place]
        level = attention[charge, u]
        needed: Int = np.int64(1)
        if place < fill_count:
            other = place if place < step else max(other, step) + 1
            while place >= step and other < ranked_count and ranked[_RANKED_ADVERTISER, other] == advertiser:
                other += 1
            if other < ranked_count:
                far = max(far, other)
                since_value, since_slot = level * ranked[_RANKED_SCORE, other], u
                wins_tie = tie < ranked[_RANKED_TIE, other] or (
                    tie == ranked[_RANKED_TIE, other] and row < ranked[_RANKED_ROW, other]
                )
                needed = since_value + (0 if wins_tie else 1)
            else:
                far, since_slot = ranked_count, np.int64(-1)
        elif since_slot >= 0:  # the cap was full when the last of the others came in
            needed = since_value + (0 if u < since_slot else 1)
        # The least b with level·(w·b + H) ≥ needed, in one division: ⌈(⌈n/l⌉ − H)/w⌉ = ⌈(n − l·H)/(l·w)⌉.
        rest, step_size = max(needed, np.int64(1)) - level * own_value, level * weight_ppm
        bid = np.int64(np.uint64(rest + step_size - 1) // np.uint64(step_size)) if rest > 0 else np.int64(0)
        threshold = max(floor_micros, bid)
        outcome[BLOCK_THRESHOLD + slot, u] = threshold
        least = min(least, threshold)
        is_last = place + 1 == order.shape[1]
        next_level = np.int64(0) if is_last else attention[charge, order[charge, place + 1]]
        if level <= own_level and next_level < level:
            if level == own_level:
                critical = least
            total += (level - next_level) * min(least, critical)
    outcome[BLOCK_CRITICAL, slot] = critical
    outcome[BLOCK_VCG, slot] = np.int64(np.uint64(total + own_level - 1) // np.uint64(own_level))
    return far


@njit(cache=True, inline="always")
def _fill_simple(
    bid_micros: Int64s,
    weight_ppm: Int64s,
    value_micros: Int64s,
    floor_micros: Int64s,
    advertiser_code: Int32s,
    brand_code: Int32s,
    product_code: Int32s,
    charge_code: Int8s,
    tie_key: UInt64s,
    eligible_slots: UInt64s,
    begin: Int,
    end: Int,
    attention: Int64s,
    order: Int64s,
    most: Int,
    counts_brands: bool,
    key: Int64s,
    ranked: Int64s,
    outcome: Int64s,
) -> Int:
    """Fill and price a page from the candidates begin..end-1 by ranking them; return the fills, -1 if that will not do.

    What is written then is worthless. Winners are counted from `begin`.
    """
    slot_count = order.shape[1]
    if end - begin > _SIMPLE_CANDIDATE_COUNT_MAX:
        return np.int64(-1)
    # Organic candidates count towards no cap of paid ones: where one may bind, the page is not simple with them.
    if not _key_simple(
        bid_micros,
        weight_ppm,
        value_micros,
        floor_micros,
        advertiser_code,
        eligible_slots,
        charge_code,
        begin,
        end,
        (np.int64(1) << slot_count) - 1,
        most == slot_count,
        key,
    ):
        return np.int64(-1)
    charge = charge_code[begin] if begin < end else np.int8(0)
    open_count = np.int64(0)
    while open_count < slot_count and attention[charge, order[charge, open_count]] > 0:
        open_count += 1
    ranked_count = _rank_simple(key, end - begin, begin, min(open_count, most) + 1, tie_key, advertiser_code, ranked)
    if ranked_count < 0:
        return np.int64(-1)
    for slot in range(slot_count):
        outcome[BLOCK_WINNER, slot] = NO_CANDIDATE
        outcome[BLOCK_CRITICAL, slot] = 0
        outcome[BLOCK_VCG, slot] = 0
        outcome[BLOCK_ORDER, slot] = -1
        for other in range(slot_count):
            outcome[BLOCK_THRESHOLD + slot, other] = UNATTAINABLE
    fill_count = min(open_count, most, ranked_count)
    far = fill_count - 1
    for step in range(fill_count):
        row, slot = ranked[_RANKED_ROW, step], order[charge, step]
        outcome[BLOCK_WINNER, slot] = row - begin
        outcome[BLOCK_ORDER, slot] = step
        if ranked[_RANKED_ADVERTISER, step] >= 0:
            last = _price_simple(
                attention,
                order,
                np.int64(charge),
                open_count,
                most,
                ranked,
                ranked_count,
                np.int64(step),
                weight_ppm[row],
                value_micros[row],
                max(np.int64(0), floor_micros[row]),
                outcome,
            )
            far = max(far, last)
    for at in range(min(far + 1, ranked_count)):
        row = ranked[_RANKED_ROW, at]
        for before in range(at):
            other_row = ranked[_RANKED_ROW, before]
            if product_code[row] == product_code[other_row] or (
                counts_brands and brand_code[row] == brand_code[other_row]
            ):
                return np.int64(-1)
    return fill_count


@njit(cache=True)
def _fill_any(
    candidates: CandidateArrays, begin: Int, end: Int, page: PageArrays, pinned_row: Int64s, outcome: Int64s
) -> Int:
    """Do as `allocate_and_price_nb` with the candidates begin..end-1, from which rows are counted."""
    these = CandidateArrays(
        candidates.bid_micros[begin:end],
        candidates.weight_ppm[begin:end],
        candidates.value_micros[begin:end],
        candidates.floor_micros[begin:end],
        candidates.advertiser_code[begin:end],
        candidates.brand_code[begin:end],
        candidates.product_code[begin:end],
        candidates.charge_code[begin:end],
        candidates.tie_key[begin:end],
        candidates.eligible_slots[begin:end],
        candidates.group_bits[begin:end],
    )
    with_pins = PageArrays(
        page.attention_permille,
        page.opportunity_cost,
        pinned_row,
        page.cap_bits,
        page.cap_per_brand,
        page.cap_slots,
        page.cap_max,
    )
    arrays = OutcomeArrays(
        outcome[BLOCK_WINNER],
        outcome[BLOCK_CRITICAL],
        outcome[BLOCK_VCG],
        outcome[BLOCK_THRESHOLD:],
        outcome[BLOCK_ORDER],
    )
    nothing = np.empty((0, 5), np.int64)
    return _allocate_and_price(these, end - begin, with_pins, nothing, np.int64(SHORTLIST_COUNT), arrays)


@_compiled_late(
    types.int64(_CandidateArrays, types.int64[::1], _PageArrays, types.int64[:, ::1], types.int64[:, :, ::1])
)
def hold_auctions_nb(
    candidates: CandidateArrays, begin: Int64s, page: PageArrays, pinned_row: Int64s, block: Int64s
) -> int:
    """Hold many auctions of one page, each as `allocate_and_price_nb` would; return how many slots were filled.

    Nothing is checked; exact ties within an auction need distinct tie keys.

    Args:
        candidates: of all the auctions, one after the other.
        begin: (N+1,) where each auction's candidates begin.
        page: the page, pins aside.
        pinned_row: (N, S) each auction's pins, as rows counted from its first candidate.
        block: (N, 4 + S, S) out: each auction's outcome: winners, both prices, order, thresholds; rows counted so too.
    """
    is_simple, most, counts_brands = _read_simple(page)
    attention, order = page.attention_permille, _order_slots(page.attention_permille)
    slot_count = page.pinned_row.size
    key = np.empty(_SIMPLE_CANDIDATE_COUNT_MAX, np.int64)
    ranked = np.empty((4, slot_count + _RANKED_BEYOND_SLOTS), np.int64)
    bid_micros, weight_ppm, value_micros = candidates.bid_micros, candidates.weight_ppm, candidates.value_micros
    floor_micros, advertiser_code, brand_code = (
        candidates.floor_micros,
        candidates.advertiser_code,
        candidates.brand_code,
    )
    product_code, charge_code = candidates.product_code, candidates.charge_code
    tie_key, eligible_slots = candidates.tie_key, candidates.eligible_slots
    fill_count = np.int64(0)
    for auction in range(begin.size - 1):
        first, end = begin[auction], begin[auction + 1]
        outcome = block[auction]
        has_pins = False
        for slot in range(slot_count):
            has_pins |= pinned_row[auction, slot] >= 0
        filled: Int = np.int64(-1)
        if is_simple and not has_pins:
            filled = _fill_simple(
                bid_micros,
                weight_ppm,
                value_micros,
                floor_micros,
                advertiser_code,
                brand_code,
                product_code,
                charge_code,
                tie_key,
                eligible_slots,
                first,
                end,
                attention,
                order,
                most,
                counts_brands,
                key,
                ranked,
                outcome,
            )
        if filled < 0:
            filled = _fill_any(candidates, first, end, page, pinned_row[auction], outcome)
        fill_count += filled
    return int(fill_count)


class LoopArrays(NamedTuple):
    """What a closed loop reads and moves beside its candidates: one placement, C offers, W kinds of visitor.

    Attributes:
        offer: (OFFER_FACT_COUNT, C) the OFFER_* below.
        of_kind: (2, W·C) IS_OFFERED: 1 where the gate lets this kind of visitor have the offer; CLICK_PPM: true clicks
            per million looks.
        campaign: (CAMPAIGN_FACT_COUNT, G) the CAMPAIGN_* below; all but pacing are moved.
        funds_micros: (A,) what each advertiser can still pay; moved.
        shown: (visitors, C) how often each visitor was shown an offer; moved.
        seen_permille: (S,) how often a slot is looked at.
    """

    offer: Int64s
    of_kind: Int64s
    campaign: Int64s
    funds_micros: Int64s
    shown: Int32s
    seen_permille: Int64s


# Bid in this placement, before pacing, 0: none; the campaign; what exact ties are drawn with, as the gate has it: its
# row in the snapshot + (place << 40); most times one visitor is shown it until `shown` is cleared, 0: no limit; orders
# per million clicks; what a click is worth to the advertiser; what an order brings in.
OFFER_BID, OFFER_CAMPAIGN, OFFER_TIE, OFFER_FREQUENCY_MAX, OFFER_ORDER_PPM, OFFER_WORTH, OFFER_SALE = range(7)
OFFER_FACT_COUNT = 7
IS_OFFERED, CLICK_PPM = range(2)
# Factor on bids; what is left of the daily and of the total budget, NO_LIMIT_MICROS: no limit; then what is counted.
CAMPAIGN_PACING, CAMPAIGN_LEFT_DAY, CAMPAIGN_LEFT_TOTAL = range(3)
CAMPAIGN_IMPRESSIONS, CAMPAIGN_CLICKS, CAMPAIGN_ORDERS, CAMPAIGN_SPENT, CAMPAIGN_GIVEN_BACK = range(3, 8)
CAMPAIGN_WORTH, CAMPAIGN_SALES, CAMPAIGN_CHARGES, CAMPAIGN_CHARGES_AT_FLOOR = range(8, 12)
CAMPAIGN_FACT_COUNT = 12
NO_LIMIT_MICROS = 2**62
PRICE_CRITICAL, PRICE_VCG, PRICE_FIRST = range(3)
DRAWS_PER_SLOT = 3  # is it looked at, would it be clicked, would that lead to an order

# Rows of `trace` (2, S): what became of each slot.
TRACE_ANSWER, TRACE_BILLED = range(2)
ANSWER_CLICKED, ANSWER_ORDERED = 1, 2  # bits

_LoopArrays = _tuple_of(
    LoopArrays,
    *[types.int64[:, ::1]] * 3,
    types.int64[::1],
    types.int32[:, ::1],
    types.int64[::1],
)


@njit(cache=True)
def _below(draw: np.uint64, limit: Int) -> Int:
    """Return a whole number from 0 to `limit` - 1; the limit stays below 2^32."""
    return np.int64(((draw >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32))


@njit(cache=True, error_model="numpy")
def _open_offers(
    bid_micros: Int64s,
    floor_micros: Int64s,
    advertiser_code: Int32s,
    tie_key: UInt64s,
    eligible_slots: UInt64s,
    offers: Int64s,
    of_kind: Int64s,
    campaigns: Int64s,
    funds_micros: Int64s,
    shown: Int32s,
    begin: Int,
    visitor: Int,
    every: np.uint64,
    tie_seed: np.uint64,
) -> None:
    """Write which offers take part for this visitor now, and at what bids, as the gate would."""
    for number in range(offers.shape[1]):
        row, offer = np.uint64(begin + number), np.uint64(number)  # unsigned, see `_key_simple`
        campaign = offers[OFFER_CAMPAIGN, offer]
        full, floor, most = offers[OFFER_BID, offer], floor_micros[row], offers[OFFER_FREQUENCY_MAX, offer]
        eligible_slots[row] = np.uint64(0)
        if (
            of_kind[IS_OFFERED, row] == 0
            or campaigns[CAMPAIGN_LEFT_DAY, campaign] <= 0
            or campaigns[CAMPAIGN_LEFT_TOTAL, campaign] <= 0
            or funds_micros[advertiser_code[row]] <= 0
            or full < floor
            or (most > 0 and shown[visitor, offer] >= most)
        ):
            continue
        bid = _paced_bid(full, floor, campaigns[CAMPAIGN_PACING, campaign], tie_seed, campaign)
        if bid == 0:
            continue
        bid_micros[row] = bid
        tie_key[row] = _mix(tie_seed, offers[OFFER_TIE, offer])
        eligible_slots[row] = every


@njit(cache=True, error_model="numpy")
def _charge(
    campaigns: Int64s, funds_micros: Int64s, campaign: Int, advertiser: Int, price_micros: Int, floor_micros: Int
) -> Int:
    """Charge a price, or what is left of the tightest budget, as the ledger does; return what was charged."""
    left_day, left_total = campaigns[CAMPAIGN_LEFT_DAY, campaign], campaigns[CAMPAIGN_LEFT_TOTAL, campaign]
    amount = max(np.int64(0), min(price_micros, left_day, left_total, funds_micros[advertiser]))
    if left_day != NO_LIMIT_MICROS:
        campaigns[CAMPAIGN_LEFT_DAY, campaign] = left_day - amount
    if left_total != NO_LIMIT_MICROS:
        campaigns[CAMPAIGN_LEFT_TOTAL, campaign] = left_total - amount
    funds_micros[advertiser] -= amount
    campaigns[CAMPAIGN_SPENT, campaign] += amount
    campaigns[CAMPAIGN_GIVEN_BACK, campaign] += price_micros - amount
    if amount > 0:
        campaigns[CAMPAIGN_CHARGES, campaign] += 1
        campaigns[CAMPAIGN_CHARGES_AT_FLOOR, campaign] += price_micros <= floor_micros
    return np.int64(amount)


@njit(cache=True, error_model="numpy")
def _answer(
    bid_micros: Int64s,
    floor_micros: Int64s,
    advertiser_code: Int32s,
    charge_code: Int8s,
    offers: Int64s,
    of_kind: Int64s,
    campaigns: Int64s,
    funds_micros: Int64s,
    shown: Int32s,
    seen_permille: Int64s,
    begin: Int,
    visitor: Int,
    pricing: Int,
    first_draw: Int,
    chance: np.uint64,
    outcome: Int64s,
    trace: Int64s,
) -> None:
    """Show the page's fills to the visitor, and charge what is to be paid for them."""
    for slot in range(seen_permille.size):
        trace[TRACE_ANSWER, slot] = 0
        trace[TRACE_BILLED, slot] = 0
        offer = outcome[BLOCK_WINNER, slot]
        if offer < 0:
            continue
        row, campaign = begin + offer, offers[OFFER_CAMPAIGN, offer]
        advertiser, floor = np.int64(advertiser_code[row]), floor_micros[row]
        price = outcome[BLOCK_CRITICAL, slot]
        if pricing == PRICE_VCG:
            price = outcome[BLOCK_VCG, slot]
        elif pricing == PRICE_FIRST:
            price = bid_micros[row]
        campaigns[CAMPAIGN_IMPRESSIONS, campaign] += 1
        if offers[OFFER_FREQUENCY_MAX, offer] > 0:
            shown[visitor, offer] += 1
        pays_per_click = charge_code[row] == CLICK
        if not pays_per_click:
            trace[TRACE_BILLED, slot] = _charge(campaigns, funds_micros, campaign, advertiser, price, floor)
        draw = first_draw + DRAWS_PER_SLOT * slot
        is_seen = _below(_mix(chance, draw), 1000) < seen_permille[slot]
        if not is_seen or _below(_mix(chance, draw + 1), PPM) >= of_kind[CLICK_PPM, row]:
            continue
        trace[TRACE_ANSWER, slot] = ANSWER_CLICKED
        campaigns[CAMPAIGN_CLICKS, campaign] += 1
        campaigns[CAMPAIGN_WORTH, campaign] += offers[OFFER_WORTH, offer]
        if pays_per_click:
            trace[TRACE_BILLED, slot] = _charge(campaigns, funds_micros, campaign, advertiser, price, floor)
        if _below(_mix(chance, draw + 2), PPM) < offers[OFFER_ORDER_PPM, offer]:
            trace[TRACE_ANSWER, slot] |= ANSWER_ORDERED
            campaigns[CAMPAIGN_ORDERS, campaign] += 1
            campaigns[CAMPAIGN_SALES, campaign] += offers[OFFER_SALE, offer]


@_compiled_late(
    types.int64(
        _CandidateArrays,
        _LoopArrays,
        _PageArrays,
        types.int32[::1],
        types.int32[::1],
        types.int64,
        types.int64,
        types.uint64,
        types.uint64,
        types.int64[:, :, ::1],
        types.int64[:, :, ::1],
    )
)
def play_auctions_nb(
    candidates: CandidateArrays,
    loop: LoopArrays,
    page: PageArrays,
    kind: Int32s,
    visitor: Int32s,
    first_auction: int,
    pricing: int,
    tie_seed_key: np.uint64,
    chance_key: np.uint64,
    block: Int64s,
    trace: Int64s,
) -> int:
    """Hold auctions one after another in a closed loop: budgets gate, fills are clicked and charged, then the next one.

    Offers take part by the gate's own terms: funds and budgets left, frequency, floor, pacing; the page is filled and
    priced as any other; a charge is the price or what is left of the tightest budget. Clicks come at once, so that
    nothing is pending. All chance is counted out from two keys and the auction's number, so that a run in parts is the
    run in one.

    Args:
        candidates: (W·C,) of each kind of visitor; `bid_micros`, `tie_key` and `eligible_slots` are written.
        loop: as its docstring says; moved.
        page: the placement's; without pins.
        kind: (N,) which kind of visitor each auction is for.
        visitor: (N,) which visitor, for frequency caps.
        first_auction: number of the first auction.
        pricing: PRICE_*: what is charged.
        tie_seed_key: auction n has this key's draw n + 1 for its tie seed.
        chance_key: auction n's slots take its draws from 3·S·n + 1 on.
        block: (N, 4 + S, S) out: outcomes, winners counted in offers; or (1, 4 + S, S), then the last one's.
        trace: (N, 2, S) out: what became of each slot; or (1, 2, S).

    Returns:
        How many slots were filled.
    """
    is_simple, most, counts_brands = _read_simple(page)
    attention, order = page.attention_permille, _order_slots(page.attention_permille)
    slot_count, offer_count = page.pinned_row.size, loop.offer.shape[1]
    every = np.uint64((np.int64(1) << slot_count) - 1)
    key = np.empty(_SIMPLE_CANDIDATE_COUNT_MAX, np.int64)
    ranked = np.empty((4, slot_count + _RANKED_BEYOND_SLOTS), np.int64)
    bid_micros, weight_ppm, value_micros = candidates.bid_micros, candidates.weight_ppm, candidates.value_micros
    floor_micros, advertiser_code, brand_code = (
        candidates.floor_micros,
        candidates.advertiser_code,
        candidates.brand_code,
    )
    product_code, charge_code = candidates.product_code, candidates.charge_code
    tie_key, eligible_slots = candidates.tie_key, candidates.eligible_slots
    offers, of_kind, campaigns = loop.offer, loop.of_kind, loop.campaign
    funds_micros, shown, seen_permille = loop.funds_micros, loop.shown, loop.seen_permille
    keeps_all, fill_count = block.shape[0] == kind.size, np.int64(0)
    for auction in range(kind.size):
        number, begin = first_auction + auction, np.int64(kind[auction]) * offer_count
        end, tie_seed, person = begin + offer_count, _mix(tie_seed_key, number + 1), np.int64(visitor[auction])
        outcome, answers = block[auction if keeps_all else 0], trace[auction if keeps_all else 0]
        _open_offers(
            bid_micros,
            floor_micros,
            advertiser_code,
            tie_key,
            eligible_slots,
            offers,
            of_kind,
            campaigns,
            funds_micros,
            shown,
            begin,
            person,
            every,
            tie_seed,
        )
        filled: Int = np.int64(-1)
        if is_simple:
            filled = _fill_simple(
                bid_micros,
                weight_ppm,
                value_micros,
                floor_micros,
                advertiser_code,
                brand_code,
                product_code,
                charge_code,
                tie_key,
                eligible_slots,
                begin,
                end,
                attention,
                order,
                most,
                counts_brands,
                key,
                ranked,
                outcome,
            )
        if filled < 0:
            filled = _fill_any(candidates, begin, end, page, page.pinned_row, outcome)
        fill_count += filled
        _answer(
            bid_micros,
            floor_micros,
            advertiser_code,
            charge_code,
            offers,
            of_kind,
            campaigns,
            funds_micros,
            shown,
            seen_permille,
            begin,
            person,
            pricing,
            number * DRAWS_PER_SLOT * slot_count + 1,
            chance_key,
            outcome,
            answers,
        )
    return int(fill_count)
