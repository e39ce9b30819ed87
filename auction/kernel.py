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

SHORTLIST_COUNT = 48  # measured best for 8 slots, from 200 to 50,000 candidates


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
        shortlist_count: how many of the best candidates of one kind to try first: SHORTLIST_COUNT. Speed only; any
            number from 1 up gives the same answer.
        outcome: as OutcomeArrays says; written in full.
    """
    raise NotImplementedError
