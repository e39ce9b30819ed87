"""Which offers may take part: from the request's candidates or the page's context, through the gate.

Marks what the request and the visitor rule out, then lets compiled code look at the offers, most valuable first.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.view import NO_ROWS, VisitorView
from auction.candidates import FIRST_NUMBER
from auction.kernel import (
    FACT_CLICK_VALUE,
    FACT_COUNT,
    FACT_RANK_VALUE,
    LISTED,
    NOT_HEAPED,
    PPM,
    TERM_AT_PRODUCT,
    TERM_COUNT,
    TERM_IS_SEARCHED,
    TERM_IS_UNFINISHED,
    TERM_LEFT_IN_LISTS,
    TERM_LEFT_IN_PRODUCTS,
    TERM_LEFT_ORGANIC,
    UNKNOWN_TEMPERATURE,
    VALUE_MICROS_MAX,
    AskerArrays,
    FoundArrays,
    PlaceArrays,
    Records,
    add_organic_nb,
    find_candidates_nb,
)
from auction.loss import LossReason
from auction.market import NO_FILTERS, Context, Market
from auction.organic import rows_of_source
from auction.placement import OrganicSource, Placement
from auction.quality import PlacementQuality
from auction.request import Candidates, RequestCandidate, SlotRequest
from auction.rules import RulePlan
from auction.settings import Settings
from auction.snapshot import CONTEXT_DIMENSIONS, PAGE_BIT, Int32s, Int64s
from auction.spend import SpendView

WANTED_ALL = 1 << 40  # more candidates than there can be
# Whole numbers are quicker written packed than by numpy, one Python object at a time.
_FACTS, _TERMS = struct.Struct(f"={FACT_COUNT}q"), struct.Struct(f"={TERM_COUNT}q")


class Place(Struct):
    """One placement of the request: its slots on the page, its rules, and how far its offers were looked at.

    Attributes:
        placement: as configured.
        number: place among the request's placements, from 0.
        first_slot, slot_count: its slots on the page.
        plan: what the retailer's rules do to it.
        quality: predicted clicks here.
        has_candidates: the request says which products may stand here.
        arrays: what the gate reads; its lists and cursor move.
        organic: products for organic candidates.
        sponsored_left: how many sponsored products the visitor may still be shown here, None without a limit.
        source_row: products of its organic source, best first; none before organic products are looked for.
    """

    placement: Placement
    number: int
    first_slot: int
    slot_count: int
    plan: RulePlan
    quality: PlacementQuality
    has_candidates: bool
    arrays: PlaceArrays
    organic: PlaceArrays | None = None
    sponsored_left: int | None = None
    source_row: Int32s = NO_ROWS

    @property
    def organic_source(self) -> OrganicSource:
        """Return where its organic products come from; candidates of the request go before what is configured."""
        return "caller" if self.has_candidates else self.placement.organic_source

    def is_without_organic(self, found: FoundArrays) -> bool:
        """Say whether a merchandised page has no organic candidate here, because its source has none that may stand."""
        if self.organic is None or self.has_candidates or self.organic_source == "affinity":
            return False
        entry = found.entry[: found.counts[0]]
        return not ((entry["place"] == self.number) & (entry["offer_row"] < 0)).any()

    @property
    def is_unseen(self) -> bool:
        """Say whether there are offers still to look at."""
        term = self.arrays.term
        return bool(
            term[TERM_IS_SEARCHED]
            and (term[TERM_IS_UNFINISHED] or term[TERM_LEFT_IN_LISTS] or term[TERM_LEFT_IN_PRODUCTS])
        )

    @property
    def slot_bits(self) -> int:
        """Return the placement's slots as bits."""
        return ((1 << self.slot_count) - 1) << self.first_slot


class asking:  # noqa: N801  # reads as the verb it is: `with asking(…) as asker`
    """Marks what a request and its visitor rule out, for as long as the block runs."""

    __slots__ = ("_asker", "_capped", "_keywords", "_ruled_out", "_scratch")

    def __init__(
        self,
        request: SlotRequest,
        context: Context,
        facts: Mapping[str, Any],
        market: Market,
        visitor: VisitorView,
        spend: SpendView,
        now_ms: int,
        settings: Settings,
    ) -> None:
        scratch = self._scratch = market.scratch
        row_of = market.snapshot.product_row
        self._ruled_out: list[tuple[LossReason, Sequence[int] | NDArray[np.int32]]] = []
        if len(visitor.dismissed_row):
            self._ruled_out.append((LossReason.DISMISSED, visitor.dismissed_row))
        excluded = [row_of[name] for name in request.exclude_product_ids if name in row_of]
        if context.product_row >= 0:
            excluded.append(context.product_row)
        if excluded:
            self._ruled_out.append((LossReason.EXCLUDED_BY_REQUEST, excluded))
        self._capped = _capped_bids(visitor, market, now_ms)
        self._keywords = list(context.keyword_rows)
        _set_fact(scratch.fact, request, facts, market, visitor, spend, now_ms, settings)
        if visitor.has_consent:
            audiences = scratch.audience_word_count
            scratch.bits[:audiences] = visitor.audience_bits[:audiences]
            scratch.bits[audiences:-1] = visitor.pattern_bits[: scratch.pattern_word_count]
        filters = market.passing(request.page.filters) if request.page.filters else NO_FILTERS
        self._asker = scratch.asker(spend.campaign_reason, spend.pacing_ppm, filters)

    def __enter__(self) -> AskerArrays:
        for reason, rows in self._ruled_out:
            self._scratch.mark["reason"][rows] = reason
        if self._capped:
            self._scratch.is_capped[self._capped] = 1
        if self._keywords:
            self._scratch.is_keyword_hit[self._keywords] = 1
        return self._asker

    def __exit__(self, *_: object) -> None:
        for _reason, rows in self._ruled_out:
            self._scratch.mark["reason"][rows] = 0
        if self._capped:
            self._scratch.is_capped[self._capped] = 0
        if self._keywords:
            self._scratch.is_keyword_hit[self._keywords] = 0


def lay_place(
    placement: Placement,
    number: int,
    first_slot: int,
    slot_count: int,
    plan: RulePlan,
    candidates: Candidates | None,
    context: Context,
    visitor: VisitorView,
    market: Market,
    tie_seed: int,
) -> Place:
    """Return one placement of the request, ready to be looked at; its term is not yet a row of the page's."""
    quality = market.quality_of(placement.placement_id, tie_seed)
    term = np.frombuffer(
        bytearray(
            _TERMS.pack(
                market.snapshot.placement_row[placement.placement_id],
                number,
                placement.floor_micros.click,
                -(-placement.floor_micros.impression // 1_000),
                placement.score_floor_micros,
                placement.relevance_floor_ppm,
                placement.squashing_ppm,
                quality.mean_quality_ppm,
                plan.boost_ppm_max,
                context.base_count,
                _as_signed(((1 << slot_count) - 1) << first_slot),
                _as_signed(tie_seed),
                NOT_HEAPED,
                0,  # at product
                candidates is None,  # something may be left in the lists
                0,  # left in products
                0,  # is searched
                1,  # is unfinished
                0,  # left of organic ones
                plan.value_micros_max,
                *context.category_rows,
                len(context.word_rows) > 0,
            )
        ),
        np.int64,
    )
    listed = _list_own(visitor) if candidates is None else _list_candidates(candidates, market)
    lists = context.lists.copy() if candidates is None else context.lists  # they move only where they are read
    arrays = PlaceArrays(plan.effect, term, lists, listed)
    return Place(placement, number, first_slot, slot_count, plan, quality, candidates is not None, arrays)


def find_candidates(place: Place, asker: AskerArrays, market: Market, wanted: int, row_count_max: int) -> bool:
    """Look at up to `row_count_max` more offers for a placement; say whether to go on at once.

    Stops as soon as `wanted` more candidates are found in the context's lists; those of products with a quality of
    the visitor's own are looked at as far down as the lists. The place's term says what is still possible.
    """
    found = market.scratch.make_room(row_count_max + 1)
    turn_to(place, market)
    is_unfinished = find_candidates_nb(
        place.quality.arrays, asker, place.arrays, place.has_candidates, wanted, row_count_max, found
    )
    place.arrays.term[TERM_IS_UNFINISHED] = is_unfinished
    return is_unfinished


def turn_to(place: Place, market: Market) -> None:
    """Have the market's marks say what is true in a placement: qualities of the visitor's own, ranks of its source."""
    market.scratch.own.turn_to(place.quality)
    market.scratch.source_rank.turn_to(place.source_row)


def find_organic(
    place: Place, context: Context, visitor: VisitorView, asker: AskerArrays, market: Market, wanted: int
) -> None:
    """Add the best of the placement's source as organic candidates, and say what the best one left out may be worth."""
    scratch, quality = market.scratch, place.quality
    source = place.organic_source
    if place.organic is None and not place.has_candidates:
        place.source_row = rows_of_source(source, context, visitor, market)
    turn_to(place, market)
    if place.organic is None:
        listed = place.arrays.listed if place.has_candidates else _ranked(place.source_row)
        if source == "affinity":
            own = market.in_context(context, visitor.product_row)
            if len(own):
                add_organic_nb(
                    quality.arrays, asker, _listing(place, _listed(own)), len(own), False, scratch.make_room(len(own))
                )
            listed = _listed(market.organic_order(context, quality))
        place.organic = _listing(place, listed)
    left = len(place.organic.listed) - int(place.organic.term[TERM_AT_PRODUCT])
    wanted = left if place.has_candidates else min(wanted, left)
    rest = add_organic_nb(quality.arrays, asker, place.organic, wanted, source == "affinity", scratch.make_room(wanted))
    place.arrays.term[TERM_LEFT_ORGANIC] = 0
    if rest:
        following = place.organic.listed[place.organic.term[TERM_AT_PRODUCT]]
        if following["organic_rank"]:
            merit = max(1, int(asker.fact[FACT_RANK_VALUE]) * 20 // (19 + int(following["organic_rank"])))
        else:
            quality_ppm = int(quality.base_quality_ppm[following["product_row"]])
            merit = max(1, int(asker.fact[FACT_CLICK_VALUE]) * quality_ppm // PPM)
        merit = min(merit * place.plan.boost_ppm_max // PPM + 1 + place.plan.value_micros_max, VALUE_MICROS_MAX)
        place.arrays.term[TERM_LEFT_ORGANIC] = merit * PPM


_NOTHING_LISTED = np.zeros(0, LISTED)


def _set_fact(
    fact: Int64s,
    request: SlotRequest,
    context: Mapping[str, Any],
    market: Market,
    visitor: VisitorView,
    spend: SpendView,
    now_ms: int,
    settings: Settings,
) -> None:
    row_of = market.snapshot.context_row.get
    _FACTS.pack_into(
        fact.data,
        0,
        PAGE_BIT[request.page.type],
        spend.hour_of_day(now_ms),
        visitor.has_consent,
        request.mode == "merchandised",
        settings.organic_click_value_micros,
        settings.organic_rank_value_micros,
        market.scratch.next_question(),
        market.scratch.audience_word_count,
        _temperature_of(context.get("temperature_c")),
        *[
            row_of((dimension, value), -1) if isinstance(value := context.get(dimension), str) else -1
            for dimension in CONTEXT_DIMENSIONS
        ],
    )


def _temperature_of(told: object) -> int:
    """Return a temperature of the context in thousandths of a degree, UNKNOWN_TEMPERATURE for what is none."""
    is_number = isinstance(told, int | float) and not isinstance(told, bool) and -1000 <= told <= 1000
    return round(told * 1000) if is_number else UNKNOWN_TEMPERATURE  # type: ignore[operator]


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


def _list_own(visitor: VisitorView) -> Records:
    """Return the products with a quality of the visitor's own."""
    return _listed(visitor.product_row) if len(visitor.product_row) else _NOTHING_LISTED


def _list_candidates(candidates: Candidates, market: Market) -> Records:
    """Return the page's candidates in its order, without those nobody knows."""
    if isinstance(candidates, int):
        return market.scratch.listed[candidates - FIRST_NUMBER]
    told = [RequestCandidate(product_id=one) if isinstance(one, str) else one for one in candidates]
    row_of = market.snapshot.product_row.get
    listed = _listed(np.array([row_of(one.product_id, -1) for one in told], np.int32))
    shares = np.array([one.relevance for one in told], np.float64)
    listed["relevance_ppm"] = np.where(np.isnan(shares), -1, np.rint(np.nan_to_num(shares) * PPM))
    listed["organic_rank"] = [one.organic_rank or 0 for one in told]
    return listed[listed["product_row"] >= 0]


def _listed(rows: NDArray[np.int32]) -> Records:
    listed = np.empty(len(rows), LISTED)
    listed["product_row"] = rows
    listed["relevance_ppm"] = -1
    listed["organic_rank"] = 0
    return listed


def _ranked(rows: Int32s) -> Records:
    """Return products listed with their places as organic ranks, from 1."""
    listed = _listed(rows)
    listed["organic_rank"] = np.arange(1, len(rows) + 1)
    return listed


def _listing(place: Place, listed: Records) -> PlaceArrays:
    """Return the placement's arrays with other products listed, from the first of them on."""
    term = place.arrays.term.copy()
    term[TERM_AT_PRODUCT] = 0
    return place.arrays._replace(term=term, listed=listed)


def _as_signed(bits: int) -> int:
    """Return the signed number with the bit pattern of an unsigned one."""
    return bits - (1 << 64) if bits >= 1 << 63 else bits
