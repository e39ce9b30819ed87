"""Which offers may take part: from the request's candidates or the page's context, through the gate.

Marks what the request and the visitor rule out, then lets compiled code look at the offers, most valuable first.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from operator import attrgetter
from typing import NamedTuple, cast

import numpy as np
from msgspec import Struct

from affinity.view import VisitorView
from auction.kernel import (
    BID_MICROS_MAX,
    CLICK,
    FACT_CLICK_VALUE,
    FACT_CONSENT,
    FACT_CONTEXT,
    FACT_HOUR,
    FACT_MERCHANDISED,
    FACT_PAGE,
    FACT_QUESTION,
    FACT_RANK_VALUE,
    GROUP_EVERYONE,
    GROUP_PAID,
    IMPRESSION,
    LEFT_IN_LISTS,
    LEFT_IN_PRODUCTS,
    PPM,
    TERM_BASE_COUNT,
    TERM_BOOST_MAX,
    TERM_COUNT,
    TERM_FLOOR_CLICK,
    TERM_FLOOR_IMPRESSION,
    TERM_MEAN_QUALITY,
    TERM_PLACE,
    TERM_PLACEMENT,
    TERM_RELEVANCE_FLOOR,
    TERM_SCORE_FLOOR,
    TERM_SQUASHING,
    VALUE_MICROS_MAX,
    AskerArrays,
    PlaceArrays,
    add_organic_nb,
    find_candidates_nb,
)
from auction.loss import LossReason
from auction.market import Context, Market
from auction.placement import Placement
from auction.request import RequestCandidate, SlotRequest
from auction.rules import NO_INT64S, RulePlan, UInt64s
from auction.settings import Settings
from auction.snapshot import CONTEXT_DIMENSIONS, PAGE_BIT, Int32s, Int64s
from auction.spend import SpendView

SCORE_MAX = 4 * PPM * BID_MICROS_MAX  # what is not known to be worth less
WANTED_ALL = 1 << 40  # more candidates than there can be

_product_id_of = attrgetter("product_id")
_relevance_of = attrgetter("relevance")
_organic_rank_of = attrgetter("organic_rank")


class Place(Struct):
    """One placement of the request: its slots on the page, its rules, and how far its offers were looked at.

    Attributes:
        placement: as configured.
        number: place among the request's placements, from 0.
        first_slot, slot_count: its slots on the page.
        plan: what the retailer's rules do to it.
        has_candidates: the request says which products may stand here.
        arrays: what the gate reads; its lists and cursor move.
        organic: products for organic candidates.
        is_searched: offers are looked at for it.
        is_unfinished: it was left off in the midst of its offers.
        unseen_organic_score: what the best organic candidate not looked at may be worth, 0 when all were.
    """

    placement: Placement
    number: int
    first_slot: int
    slot_count: int
    plan: RulePlan
    has_candidates: bool
    arrays: PlaceArrays
    organic: PlaceArrays | None = None
    is_searched: bool = False
    is_unfinished: bool = False
    unseen_organic_score: int = 0

    @property
    def unseen_score(self) -> int:
        """Return what the best offer not looked at may be worth, 0 when all were."""
        if not self.is_searched:
            return 0
        if self.is_unfinished:
            return SCORE_MAX
        cursor = self.arrays.cursor
        return max(int(cursor[LEFT_IN_LISTS]), int(cursor[LEFT_IN_PRODUCTS]))

    @property
    def slot_bits(self) -> int:
        """Return the placement's slots as bits."""
        return ((1 << self.slot_count) - 1) << self.first_slot


@contextmanager
def asking(
    request: SlotRequest,
    context: Context,
    market: Market,
    visitor: VisitorView,
    spend: SpendView,
    now_ms: int,
    settings: Settings,
) -> Iterator[AskerArrays]:
    """Mark what this request and visitor rule out, for as long as the block runs."""
    scratch, snapshot = market.scratch, market.snapshot
    product_row = snapshot.product_row
    excluded = [product_row[name] for name in request.exclude_product_ids if name in product_row]
    if context.product_row >= 0:
        excluded.append(context.product_row)
    dismissed = visitor.dismissed_row
    capped = _capped_bids(visitor, market, now_ms)
    keyword_rows = list(context.keyword_rows)
    reason = scratch.product_reason
    if len(dismissed):
        reason[dismissed] = LossReason.DISMISSED
    if excluded:
        reason[excluded] = LossReason.EXCLUDED_BY_REQUEST
    if capped:
        scratch.is_capped[capped] = 1
    if keyword_rows:
        scratch.is_keyword_hit[keyword_rows] = 1
    _set_fact(scratch.fact, request, market, visitor, spend, now_ms, settings)
    if visitor.has_consent:
        _copy_bits(visitor.audience_bits, scratch.audience_bits)
        _copy_bits(visitor.pattern_bits, scratch.pattern_bits)
    try:
        yield AskerArrays(
            spend.campaign_reason,
            spend.pacing_ppm,
            scratch.own_quality_ppm,
            reason,
            market.passing(request.page.filters) if request.page.filters else _NO_BYTES,
            scratch.is_capped,
            scratch.is_keyword_hit,
            scratch.audience_bits,
            scratch.pattern_bits,
            scratch.last_asked,
            scratch.fact,
        )
    finally:
        if len(dismissed):
            reason[dismissed] = 0
        if excluded:
            reason[excluded] = 0
        if capped:
            scratch.is_capped[capped] = 0
        if keyword_rows:
            scratch.is_keyword_hit[keyword_rows] = 0


def lay_place(
    placement: Placement,
    number: int,
    first_slot: int,
    slot_count: int,
    plan: RulePlan,
    candidates: Sequence[RequestCandidate | str] | None,
    context: Context,
    visitor: VisitorView,
    market: Market,
    tie_seed: int,
    *,
    is_merchandised: bool,
) -> Place:
    """Return one placement of the request, ready to be looked at."""
    term = np.empty(TERM_COUNT, np.int64)
    term[TERM_PLACEMENT] = market.snapshot.placement_row[placement.placement_id]
    term[TERM_PLACE] = number
    term[TERM_FLOOR_CLICK] = placement.floor_micros.click
    term[TERM_FLOOR_IMPRESSION] = -(-placement.floor_micros.impression // 1_000)
    term[TERM_SCORE_FLOOR] = placement.score_floor_micros
    term[TERM_RELEVANCE_FLOOR] = placement.relevance_floor_ppm
    term[TERM_SQUASHING] = placement.squashing_ppm
    term[TERM_MEAN_QUALITY] = market.mean_quality_ppm
    term[TERM_BOOST_MAX] = plan.boost_ppm_max
    term[TERM_BASE_COUNT] = context.base_count
    if candidates is not None:
        listed = _read_candidates(candidates, placement, market, is_merchandised=is_merchandised)
    else:
        listed = _own_products(visitor, context, market)
    arrays = PlaceArrays(
        plan.is_excluded,
        plan.boost_ppm,
        plan.floor_click,
        plan.floor_impression,
        plan.group,
        term,
        np.array([((1 << slot_count) - 1) << first_slot], np.uint64),
        np.array([tie_seed], np.uint64),
        context.list_begin,
        context.list_end,
        context.list_begin.copy(),
        *listed,
        np.array([0, 0, candidates is None, 0], np.int64),
    )
    return Place(placement, number, first_slot, slot_count, plan, candidates is not None, arrays)


def find_candidates(place: Place, asker: AskerArrays, market: Market, wanted: int, row_count_max: int) -> bool:
    """Look at up to `row_count_max` more offers for a placement; say whether to go on at once.

    Stops as soon as `wanted` more candidates are found in the context's lists; those of products with a quality of
    the visitor's own are looked at as far down as the lists. `place.unseen_score` says what is still possible.
    """
    found = market.scratch.make_room(row_count_max + 1)
    place.is_unfinished = find_candidates_nb(
        market.arrays, asker, place.arrays, place.has_candidates, wanted, row_count_max, found
    )
    return place.is_unfinished


def find_organic(
    place: Place, context: Context, own_rows: Int32s, asker: AskerArrays, market: Market, wanted: int
) -> None:
    """Add the best of the context's products as organic candidates, and say what the best one left out may be worth."""
    scratch = market.scratch
    if place.organic is None:
        rows, rank = place.arrays.product_row, place.arrays.organic_rank
        if not place.has_candidates:
            own = market.in_context(context, own_rows)
            if len(own):
                first = place.arrays._replace(product_row=own, organic_rank=NO_INT64S, cursor=np.zeros(4, np.int64))
                add_organic_nb(market.arrays, asker, first, len(own), False, scratch.make_room(len(own)))
            rows, rank = market.organic_order(context), NO_INT64S
        place.organic = place.arrays._replace(product_row=rows, organic_rank=rank, cursor=np.zeros(4, np.int64))
    if place.has_candidates:
        wanted = len(place.organic.product_row)
    rest = add_organic_nb(
        market.arrays, asker, place.organic, wanted, not place.has_candidates, scratch.make_room(wanted)
    )
    place.unseen_organic_score = 0
    if rest:
        next_row = place.organic.product_row[place.organic.cursor[0]]
        quality = int(market.arrays.base_quality_ppm[next_row])
        merit = max(1, int(asker.fact[FACT_CLICK_VALUE]) * quality // PPM)
        merit = min(merit * place.plan.boost_ppm_max // PPM + 1, VALUE_MICROS_MAX)
        place.unseen_organic_score = merit * PPM


def unseen_kinds(places: Sequence[Place], market: Market) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """Return the kinds of candidate not looked at: charge types, slots, groups, and scores none of them exceeds."""
    kinds: list[tuple[int, int, int, int]] = []
    for place in places:
        slots = place.slot_bits
        if slots >= 1 << 63:
            slots -= 1 << 64  # the bit pattern, in a signed number
        unseen_score = place.unseen_score
        if unseen_score:
            kinds.append((CLICK, slots, GROUP_EVERYONE | GROUP_PAID, unseen_score))
            if market.has_impression_bids:
                kinds.append((IMPRESSION, slots, GROUP_EVERYONE | GROUP_PAID, unseen_score))
        if place.unseen_organic_score:
            kinds.append((CLICK, slots, GROUP_EVERYONE, place.unseen_organic_score))
    if not kinds:
        return NO_INT64S, NO_INT64S, NO_INT64S, NO_INT64S
    table = np.array(kinds, np.int64).T.copy()
    return table[0], table[1], table[2], table[3]


_NO_BYTES = np.zeros(0, np.uint8)
_NO_INT32S = np.zeros(0, np.int32)


def _set_fact(
    fact: Int64s,
    request: SlotRequest,
    market: Market,
    visitor: VisitorView,
    spend: SpendView,
    now_ms: int,
    settings: Settings,
) -> None:
    is_merchandised = request.mode == "merchandised"
    fact[FACT_PAGE] = PAGE_BIT[request.page.type]
    fact[FACT_HOUR] = spend.hour_of_day(now_ms)
    fact[FACT_CONSENT] = visitor.has_consent
    fact[FACT_MERCHANDISED] = is_merchandised
    fact[FACT_CLICK_VALUE] = settings.organic_click_value_micros
    fact[FACT_RANK_VALUE] = settings.organic_rank_value_micros
    fact[FACT_QUESTION] = market.scratch.next_question()
    context, rows = request.context, market.snapshot.context_row
    for number, dimension in enumerate(CONTEXT_DIMENSIONS):
        value = context.get(dimension)
        fact[FACT_CONTEXT + number] = rows.get((dimension, value), -1) if isinstance(value, str) else -1


def _capped_bids(visitor: VisitorView, market: Market, now_ms: int) -> list[int]:
    caps = market.snapshot.names.frequency_caps
    if not caps:
        return []
    capped: list[int] = []
    for bid_id, times in visitor.seen_at_ms.items():
        cap = caps.get(bid_id)
        if cap is not None:
            row, count, window_s = cap
            if len(times) >= count and times[-count] > now_ms - window_s * 1000:
                capped.append(row)
    return capped


def _copy_bits(bits: UInt64s, into: UInt64s) -> None:
    count = min(len(bits), len(into))
    into[:count] = bits[:count]
    into[count:] = 0


class _Listed(NamedTuple):
    """Products whose offers are looked at one by one, as PlaceArrays has them."""

    product_row: Int32s
    product_score: Int64s
    relevance_ppm: Int64s = NO_INT64S
    organic_rank: Int64s = NO_INT64S


def _own_products(visitor: VisitorView, context: Context, market: Market) -> _Listed:
    """Return the products with a quality of the visitor's own, those that can be worth most first."""
    rows = visitor.product_row
    if not len(rows):
        return _NOTHING_LISTED
    score = market.best_scores(rows, visitor.quality_ppm)
    if len(context.list_begin) == context.base_count:  # no restricted offer belongs here
        score[~market.are_in_context(context, rows)] = 0
    best_first = np.argsort(-score, kind="stable")
    return _Listed(rows[best_first], score[best_first])


def _read_candidates(
    candidates: Sequence[RequestCandidate | str], placement: Placement, market: Market, *, is_merchandised: bool
) -> _Listed:
    """Return the page's candidates, those that can be worth most first; of equal ones the first counts."""
    if not candidates:
        return _NOTHING_LISTED
    told: Sequence[RequestCandidate] = ()
    names: Iterable[str]
    kinds = set(map(type, candidates))
    if kinds == {str}:
        names = cast(Sequence[str], candidates)
    else:
        told = cast(Sequence[RequestCandidate], candidates)
        if len(kinds) > 1:
            told = [
                one if isinstance(one, RequestCandidate) else RequestCandidate(product_id=one) for one in candidates
            ]
        names = map(_product_id_of, told)
    row_of = market.snapshot.product_row.get
    rows = np.fromiter(map(row_of, names, repeat(-1)), np.int32, len(candidates))
    places = np.flatnonzero(rows >= 0)
    rows = rows[places]
    own = market.scratch.own_quality_ppm[rows]
    quality_ppm = np.where(own > 0, own, market.arrays.base_quality_ppm[rows])
    score = market.best_scores(rows, quality_ppm)
    best_first = np.argsort(-score, kind="stable")
    relevance, rank = NO_INT64S, NO_INT64S
    if placement.relevance_floor_ppm > 0 and told:
        shares = np.array(list(map(_relevance_of, told)), np.float64)[places]
        relevance = np.where(np.isnan(shares), -1, np.rint(np.nan_to_num(shares) * PPM)).astype(np.int64)[best_first]
    if is_merchandised and told:
        rank = np.array([one or 0 for one in map(_organic_rank_of, told)], np.int64)[places][best_first]
    return _Listed(rows[best_first], score[best_first], relevance, rank)


_NOTHING_LISTED = _Listed(_NO_INT32S, NO_INT64S)
