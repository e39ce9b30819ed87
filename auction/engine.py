"""One decision over all slots of one page: who gets them, and at what price.

`hold_auction` holds the order of events; what it calls computes and returns.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np
from msgspec import Struct

from affinity.targets import compile_targets
from affinity.view import VisitorView, anonymous_view
from auction.allocation import make_exact, outcome_in
from auction.booking import BookedSlot
from auction.eligibility import (
    WANTED_ALL,
    Place,
    asking,
    find_candidates,
    find_organic,
    lay_place,
    turn_to,
)
from auction.errors import AllocationMixed, PlacementNotOnPage, PlacementRepeated, PlacementUnknown, TooManySlots
from auction.kernel import (
    CAP_OF_VISITOR,
    CLICK,
    FACT_ROWS,
    GROUP_EVERYONE,
    GROUP_PAID,
    IMPRESSION,
    INTERRUPTED,
    NO_ADVERTISER,
    NO_PIN,
    SETTLED,
    SLOT_COUNT_MAX,
    TERM_COUNT,
    TERM_IS_SEARCHED,
    TERM_LEFT_ORGANIC,
    AskerArrays,
    FoundArrays,
    OutcomeArrays,
    PageArrays,
    PageBook,
    bind_page_nb,
    decide_page_nb,
)
from auction.loss import LossReason
from auction.market import Context, Market
from auction.placement import Allocation, Placement
from auction.request import Candidates, Page, PageType, RequestPlacement, SlotRequest
from auction.rules import NO_RULES, RULE_MARK
from auction.settings import Settings
from auction.snapshot import Int64s
from auction.spend import SpendView
from ledger.terms import ChargeOn

PAGE_COUNT_MAX = 1_024
REHEARSAL_COUNT_MAX = 16  # placements a new snapshot is tried on
REHEARSAL_TRIES = 5
LOOK_ROWS_MIN, LOOK_ROWS_MAX = 512, 8_192  # offers between two looks at the clock
NO_TARGETS = compile_targets([], [])
_CHARGES = {CLICK: ChargeOn.CLICK, IMPRESSION: ChargeOn.IMPRESSION}
NO_LIMITS: Mapping[str, int] = MappingProxyType({})


class Deadline(Struct, frozen=True):
    """When the answer must be there.

    Attributes:
        arrived_ms: when the request reached the process, UTC milliseconds since 1970; the auction's "now".
        ends_ns: on the monotonic clock, when deciding must end.
        clock_ns: that clock.
    """

    arrived_ms: int
    ends_ns: int
    clock_ns: Callable[[], int] = time.perf_counter_ns

    @property
    def is_past(self) -> bool:
        """Say whether deciding must end now."""
        return self.clock_ns() >= self.ends_ns


def no_deadline(now_ms: int) -> Deadline:
    """Return a deadline that never comes, for replays and simulations."""
    return Deadline(now_ms, 1 << 62, lambda: 0)


class Decision(Struct, frozen=True):
    """A slot given to a product.

    Attributes:
        slot_position: in its placement, from 1.
        product_row: of the snapshot.
        offer_row: the winning offer; -1 for an organic or pinned product.
        price_micros: for one event of kind `charge_on`; 0 for an organic one.
        quality_ppm: predicted clicks per million impressions.
        charge_on: None for an organic one.
        is_pinned: a rule put it there.
        booked: the booking that put it there; sponsored then, and not sold.
        candidate_row: of the outcome's candidates.
    """

    slot_position: int
    product_row: int
    offer_row: int
    price_micros: int
    quality_ppm: int
    charge_on: ChargeOn | None
    is_pinned: bool
    candidate_row: int
    booked: BookedSlot | None = None


class PlaceOutcome(Struct, frozen=True):
    """What was decided for one placement; `no_fill_reason` says why nothing was.

    Attributes:
        reserved_slot_count: slots left empty because they are for own-brand products, of which there were too few.
    """

    placement_id: str
    no_fill_reason: str | None
    decisions: list[Decision]
    reserved_slot_count: int = 0


class Outcome(Struct, frozen=True):
    """What was decided for a page, and everything needed to decide it again.

    Attributes:
        places: per placement of the request.
        is_partial: time ran out before everything that could matter was looked at.
        tie_seed: what exact ties were drawn with.
        page: slots and caps as the kernel saw them.
        candidate_count, lost_count: how much of the market's `found` arrays belongs to this auction; read before
            the next one writes to them.
        laid: the placements as laid out.
        block: winners, both prices, order and thresholds, as receipts have them.
        page_bytes: the page's arrays as receipts have them, pins aside.
        allocation: how the page was filled, which is `greedy` too where `exact` was asked for and could not be had.
    """

    places: list[PlaceOutcome]
    is_partial: bool
    tie_seed: int
    page: PageArrays
    candidate_count: int
    lost_count: int
    laid: list[Place]
    block: Int64s
    page_bytes: list[bytes]
    allocation: Allocation

    @property
    def arrays(self) -> OutcomeArrays:
        """Return winners, both prices and thresholds."""
        return outcome_in(self.block)


class Answer(NamedTuple):
    """Where a page's decision is written, beside what it is decided from; see `decide_page_nb`."""

    page: PageBook
    pinned_row: Int64s
    terms: Int64s
    block: Int64s
    facts: Int64s


def hold_auction(
    request: SlotRequest,
    auction_id: str,
    market: Market,
    visitor: VisitorView,
    spend: SpendView,
    deadline: Deadline,
    tie_seed: int,
    settings: Settings,
    *,
    no_paid_reason: str | None = None,
    sponsored_left: Mapping[str, int] = NO_LIMITS,
) -> Outcome:
    """Fill the request's slots with the best eligible bids and products, and price each paid fill.

    Decides only: nothing is written, no clock is read but the deadline, and equal inputs give equal answers. Past the
    deadline it answers with what it has: the organic products and pins in any case.

    Args:
        request: what the page asks.
        auction_id: name of the auction, for messages only.
        market: snapshot and model.
        visitor: what may be known of the visitor; its rows are those of the market's model, its bits those of the
            snapshot's targets.
        spend: who may still be served, bound to the market's snapshot.
        deadline: when the answer must be there.
        tie_seed: draws exact ties; 64 bits.
        settings: sizes and organic values.
        no_paid_reason: leave out everything paid, for this reason; None: do not.
        sponsored_left: placement id to how many sponsored products it may still show the visitor, where that is
            limited.

    Raises:
        AuctionRefused: see `lay_out`.
    """
    context = market.context_of(request.page)
    market.scratch.take()
    market.scratch.own.begin(visitor)
    try:
        facts = market.facts_of(request.context, deadline.arrived_ms)
        places = lay_out(request, context, facts, market, visitor, deadline.arrived_ms, tie_seed)
        if sponsored_left:
            for place in places:
                place.sponsored_left = sponsored_left.get(place.placement.placement_id)
        terms = _gather_terms(places)
        page, page_book, page_bytes = _page_arrays(request, places, market)
        slot_count = len(page.pinned_row)
        block = np.empty((4 + slot_count, slot_count), np.int64)
        won = np.empty((len(FACT_ROWS), slot_count), np.int64)
        with asking(request, context, facts, market, visitor, spend, deadline.arrived_ms, settings) as asker:
            bookings: dict[int, BookedSlot] = {}
            if market.bookings and no_paid_reason is None:
                page, bookings = _place_bookings(places, asker, market, page, deadline.arrived_ms)
            pins = _place_pins(places, asker, market, page)
            is_partial = _decide(
                request,
                context,
                places,
                visitor,
                spend,
                asker,
                market,
                deadline,
                settings,
                no_paid_reason,
                Answer(page_book, page.pinned_row, terms, block, won),
            )
            allocation: Allocation = "greedy"
            if places[0].placement.allocation == "exact" and not is_partial:
                allocation = _make_exact(page, market, deadline, settings, outcome_in(block), won)
    finally:
        market.scratch.own.end()
        market.scratch.source_rank.end()
        market.scratch.give_back()
    outcomes = _read_outcome(places, block, won, pins, bookings, market, is_partial, no_paid_reason)
    candidate_count, lost_count = market.scratch.found.counts.tolist()
    return Outcome(
        outcomes, is_partial, tie_seed, page, candidate_count, lost_count, places, block, page_bytes, allocation
    )


def rehearse(market: Market, settings: Settings, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
    """Hold an auction for nobody on every placement: the first page that is asked for finds everything warm.

    Where it is not known from a market of about as many offers, measures too how long an offer takes to look at, and
    sets how many fit between two looks at the clock.
    """
    offer_count = len(market.arrays.offer)
    is_known = offer_count <= 2 * market.measured_offer_count <= 4 * offer_count
    looked_at = took_ns = 0
    spend = SpendView(settings, market.snapshot)
    spend.campaign_reason[:] = 0  # everybody takes part
    for placement in market.snapshot.placements[:REHEARSAL_COUNT_MAX]:
        request = SlotRequest(
            page=Page(type=cast(PageType, placement.page_types[0])),
            placements=[RequestPlacement(placement_id=placement.placement_id)],
        )
        nobody, now_ms = anonymous_view(NO_TARGETS), market.snapshot.names.read_at_ms
        tries_ns: list[int] = []
        # To measure takes several: the first ones fetch what the others find, and any may be interrupted.
        for _ in range(1 if is_known else REHEARSAL_TRIES):
            began_ns = clock_ns()
            outcome = hold_auction(request, "rehearsal", market, nobody, spend, no_deadline(now_ms), 0, settings)
            tries_ns.append(clock_ns() - began_ns)
        took_ns += min(tries_ns)
        looked_at += outcome.candidate_count + outcome.lost_count
    if looked_at and not is_known:
        rows = settings.clock_look_interval_us * 1_000 * looked_at // max(took_ns, 1)
        market.rows_between_looks = min(max(rows, LOOK_ROWS_MIN), LOOK_ROWS_MAX)
        market.measured_offer_count = offer_count


def lay_out(
    request: SlotRequest,
    context: Context,
    facts: Mapping[str, Any],
    market: Market,
    visitor: VisitorView,
    now_ms: int,
    tie_seed: int,
) -> list[Place]:
    """Return the request's placements with their slots and rules, checked in this order.

    `facts` are the request's context, completed.

    Raises:
        PlacementUnknown: no placement has the id.
        PlacementRepeated: the request names it twice.
        PlacementNotOnPage: it does not stand on pages of that type.
        AllocationMixed: it is filled by another allocation than the first.
        TooManySlots: more slots are asked for than it has, or than one page may have.
    """
    snapshot, page = market.snapshot, request.page
    places: list[Place] = []
    seen: set[str] = set()
    first_slot = 0
    situation = market.rules.ask(facts, visitor.segments, now_ms)
    for number, asked in enumerate(request.placements):
        row = snapshot.placement_row.get(asked.placement_id)
        pointer = f"/placements/{number}/placement_id"
        if row is None:
            raise PlacementUnknown(f"placement_id must name a placement, was {asked.placement_id!r}", pointer)
        if asked.placement_id in seen:
            raise PlacementRepeated(f"a placement may be named once, {asked.placement_id!r} was again", pointer)
        seen.add(asked.placement_id)
        placement: Placement = snapshot.placements[row]
        if page.type not in placement.page_types:
            allowed = ", ".join(placement.page_types)
            raise PlacementNotOnPage(
                f"placement {asked.placement_id!r} stands on pages of type {allowed}, page.type was {page.type}",
                pointer,
            )
        if number and placement.allocation != places[0].placement.allocation:
            raise AllocationMixed(
                f"all placements of a page must have the allocation of the first, {places[0].placement.allocation}, "
                f"{asked.placement_id!r} has {placement.allocation}",
                pointer,
            )
        slot_count = placement.slot_count if asked.slot_count is None else asked.slot_count
        if slot_count > placement.slot_count or first_slot + slot_count > SLOT_COUNT_MAX:
            most = min(placement.slot_count, SLOT_COUNT_MAX - first_slot)
            raise TooManySlots(
                f"slot_count must be at most {most} here, was {slot_count}", pointer[:-12] + "slot_count"
            )
        plan = (
            market.rules.plan_for(page.type, asked.placement_id, context.category_id, situation)
            if request.rules == "on"
            else NO_RULES
        )
        places.append(
            lay_place(
                placement,
                number,
                first_slot,
                slot_count,
                plan,
                cast(Candidates | None, asked.candidates),
                context,
                visitor,
                market,
                tie_seed,
            )
        )
        first_slot += slot_count
    return places


def _decide(
    request: SlotRequest,
    context: Context,
    places: Sequence[Place],
    visitor: VisitorView,
    spend: SpendView,
    asker: AskerArrays,
    market: Market,
    deadline: Deadline,
    settings: Settings,
    no_paid_reason: str | None,
    answer: Answer,
) -> bool:
    """Look at candidates and fill the page until no other candidate could change it; say whether time ran out."""
    is_merchandised = request.mode == "merchandised"
    # Which candidates the greedy page cannot need is known; the page worth most is only known when all were seen.
    looks_at_all = places[0].placement.allocation == "exact"
    chunk, per_slot = market.rows_between_looks, settings.candidates_per_slot
    if is_merchandised:
        for place in places:
            wanted = WANTED_ALL if looks_at_all else per_slot * place.slot_count
            find_organic(place, context, visitor, asker, market, wanted)
    terms = answer.terms
    terms[:, TERM_IS_SEARCHED] = no_paid_reason is None
    is_late = deadline.is_past
    while True:
        # On a merchandised page the lists are not in the order of the offers' value there: look at all of them.
        for place in places[:-1]:
            more = WANTED_ALL if is_merchandised or looks_at_all else per_slot * place.slot_count
            while place.is_unseen and not is_late and find_candidates(place, asker, market, more, chunk):
                is_late = deadline.is_past
        place = places[-1]
        more = WANTED_ALL if is_merchandised or looks_at_all else per_slot * place.slot_count
        state = INTERRUPTED
        while state == INTERRUPTED and not is_late:
            state = _decide_page(place, more, chunk, spend, asker, market, answer)
            is_late = state == INTERRUPTED and deadline.is_past
        if state == SETTLED:
            return False
        if is_late or deadline.is_past:
            terms[:, TERM_IS_SEARCHED] = 0
            terms[:, TERM_LEFT_ORGANIC] = 0
            _decide_page(place, 0, 0, spend, asker, market, answer)
            return True
        per_slot *= 4
        for place in places:
            if place.arrays.term[TERM_LEFT_ORGANIC]:
                find_organic(place, context, visitor, asker, market, per_slot * place.slot_count)


def _decide_page(
    place: Place, wanted: int, chunk: int, spend: SpendView, asker: AskerArrays, market: Market, answer: Answer
) -> int:
    """Look at more offers for one placement and fill the page; see `decide_page_nb`."""
    market.scratch.make_room(chunk + 1)
    turn_to(place, market)
    return decide_page_nb(
        market.scratch.book(place.quality, spend.campaign_reason, spend.pacing_ppm),
        answer.page,
        answer.pinned_row,
        place.arrays,
        asker.passes_filters,
        place.has_candidates,
        wanted,
        chunk,
        market.has_impression_bids,
        answer.terms,
        answer.block,
        answer.facts,
    )


def _gather_terms(places: Sequence[Place]) -> Int64s:
    """Return the placements' terms as one array, of which each placement's becomes a row."""
    if len(places) == 1:
        return places[0].arrays.term.reshape(1, TERM_COUNT)
    terms = np.array([place.arrays.term for place in places])
    for place, term in zip(places, terms, strict=True):
        place.arrays = place.arrays._replace(term=term)
    return terms


def _make_exact(
    page: PageArrays, market: Market, deadline: Deadline, settings: Settings, arrays: OutcomeArrays, facts: Int64s
) -> Allocation:
    """Turn the greedy page into the one worth most, as far as that can be done before the deadline; say if it was."""
    left_ns = deadline.ends_ns - deadline.clock_ns()
    steps = min(settings.exact_steps_max, left_ns * settings.exact_steps_per_us // 1_000)
    found = market.scratch.found
    allocation = make_exact(found.candidate, int(found.counts[0]), page, arrays, steps)
    slots = np.flatnonzero(arrays.winner_row >= 0)
    rows = arrays.winner_row[slots]
    candidate, entry = found.candidate, found.entry[rows]
    facts[:, slots] = (  # the rows of FACT_ROWS
        candidate.product_code[rows],
        entry["offer_row"],
        entry["quality_ppm"],
        candidate.charge_code[rows],
        candidate.bid_micros[rows],
    )
    return allocation


def _place_bookings(
    places: Sequence[Place], asker: AskerArrays, market: Market, page: PageArrays, now_ms: int
) -> tuple[PageArrays, dict[int, BookedSlot]]:
    """Put booked products in their slots, whatever the rules say; return the page and the booking of each such slot.

    Where the product is out of stock, or the visitor or the page leaves it out, the slot is sold like any other.
    """
    booked: dict[int, BookedSlot] = {}
    page = page._replace(pinned_row=page.pinned_row.copy())
    for place in places:
        for booking in market.bookings.get(place.placement.placement_id, ()):
            slot, product = place.first_slot + booking.slot_position - 1, booking.product_row
            if (
                booking.starts_ms <= now_ms < booking.ends_ms
                and booking.slot_position <= place.slot_count
                and page.pinned_row[slot] == NO_PIN
                and _may_stand(product, asker, market)
            ):
                page.pinned_row[slot] = _stand(product, booking.advertiser_row, place, asker, market)
                booked[slot] = booking
    return page, booked


def _place_pins(places: Sequence[Place], asker: AskerArrays, market: Market, page: PageArrays) -> dict[int, int]:
    """Put pinned products in the slots still free; return the rule of each pinned slot."""
    pins: dict[int, int] = {}
    for place in places:
        for pin in place.plan.pins:
            slot, product = place.first_slot + pin.slot_position - 1, pin.product_row
            if (
                pin.slot_position <= place.slot_count
                and page.pinned_row[slot] == NO_PIN
                and not place.plan.excludes(product)
                and _may_stand(product, asker, market)
            ):
                page.pinned_row[slot] = _stand(product, NO_ADVERTISER, place, asker, market)
                pins[slot] = pin.rule_row
    return pins


def _may_stand(product_row: int, asker: AskerArrays, market: Market) -> bool:
    """Say whether a product can be put in a slot by hand: in stock, left out by nobody, not on the page yet."""
    found = market.scratch.found
    return bool(
        market.arrays.product[product_row]["is_available"]
        and not asker.mark[product_row]["reason"]
        and not (len(asker.passes_filters) and not asker.passes_filters[product_row])
        and product_row not in found.candidate.product_code[: found.counts[0]]
    )


def _stand(product_row: int, advertiser_row: int, place: Place, asker: AskerArrays, market: Market) -> int:
    """Return the row of a new candidate that takes no part: it stands where it is put."""
    market.scratch.own.turn_to(place.quality)
    facts, mark = place.quality.arrays.product[product_row], asker.mark[product_row]
    found = market.scratch.make_room(1)
    at = int(found.counts[0])
    quality_ppm = int(mark["own_quality_ppm"]) or int(facts["base_quality_ppm"])
    found.candidate.bid_micros[at] = 0
    found.candidate.weight_ppm[at] = quality_ppm
    found.candidate.value_micros[at] = 1
    found.candidate.floor_micros[at] = 0
    found.candidate.advertiser_code[at] = advertiser_row
    found.candidate.brand_code[at] = facts["brand_code"]
    found.candidate.product_code[at] = product_row
    found.candidate.charge_code[at] = CLICK
    found.candidate.tie_key[at] = 0
    found.candidate.eligible_slots[at] = 0
    found.candidate.group_bits[at] = place.plan.group_of(product_row)
    found.entry[at] = (quality_ppm, -1, place.number)
    found.counts[0] = at + 1
    return at


def _page_arrays(
    request: SlotRequest, places: Sequence[Place], market: Market
) -> tuple[PageArrays, PageBook, list[bytes]]:
    """Return the page's slots with their attention, and every cap over them; equal pages share all but the pins."""
    key = (
        request.page.type,
        *[(one.placement.placement_id, one.slot_count, one.plan.caps, one.sponsored_left) for one in places],
    )
    known = market.pages.get(key)
    if known is None:
        if len(market.pages) >= PAGE_COUNT_MAX:
            market.pages.pop(next(iter(market.pages)))
        page = _make_page(request.page.type, places, market)
        known = market.pages[key] = page, bind_page_nb(page), [array.tobytes() for array in page]
    if any(place.plan.pins for place in places):
        page, book, page_bytes = known
        return page._replace(pinned_row=page.pinned_row.copy()), book, page_bytes
    return known


def _make_page(page_type: str, places: Sequence[Place], market: Market) -> PageArrays:
    slot_count = sum(place.slot_count for place in places)
    attention = np.empty((2, slot_count), np.int64)
    everywhere = (1 << slot_count) - 1
    caps: list[tuple[int, int, int, int | None]] = []  # groups, per brand, slots, most
    for place in places:
        begin, end, slots = place.first_slot, place.first_slot + place.slot_count, place.slot_bits
        attention[CLICK, begin:end] = place.placement.attention_permille.click[: place.slot_count]
        attention[IMPRESSION, begin:end] = place.placement.attention_permille.impression[: place.slot_count]
        caps.append((GROUP_EVERYONE, 1, slots, place.placement.brand_max))
        caps.append((GROUP_PAID, 0, slots, place.placement.sponsored_max))
        caps.append((GROUP_PAID | CAP_OF_VISITOR, 0, slots, place.sponsored_left))
        for cap in place.plan.caps:
            bits = cap.groups | RULE_MARK
            caps += [(bits, cap.per_brand, some << begin, most) for some, most in cap.over(place.slot_count)]
    page_caps = market.snapshot.names.page_caps.get(page_type)
    if page_caps is not None:
        caps.append((GROUP_EVERYONE, 1, everywhere, page_caps.brand_max))
        caps.append((GROUP_PAID, 0, everywhere, page_caps.sponsored_max))
    held = [(groups, per_brand, slots, most) for groups, per_brand, slots, most in caps if most is not None]
    return PageArrays(
        attention_permille=attention,
        opportunity_cost=np.zeros(slot_count, np.int64),
        pinned_row=np.full(slot_count, NO_PIN, np.int64),
        cap_bits=np.array([cap[0] for cap in held], np.uint64),
        cap_per_brand=np.array([cap[1] for cap in held], np.int8),
        cap_slots=np.array([cap[2] for cap in held], np.uint64),
        cap_max=np.array([cap[3] for cap in held], np.int64),
    )


def _read_outcome(
    places: list[Place],
    block: Int64s,
    facts: Int64s,
    pins: dict[int, int],
    bookings: dict[int, BookedSlot],
    market: Market,
    is_partial: bool,
    no_paid_reason: str | None,
) -> list[PlaceOutcome]:
    winners, critical, vcg, _order = block[:4].tolist()
    products, offers, qualities, charges, bids = facts.tolist()
    outcomes: list[PlaceOutcome] = []
    for place in places:
        decisions: list[Decision] = []
        prices = {"critical": critical, "vcg": vcg, "first": bids}[place.placement.pricing]
        for slot in range(place.first_slot, place.first_slot + place.slot_count):
            if winners[slot] < 0:
                continue
            is_paid = offers[slot] >= 0
            decisions.append(
                Decision(
                    slot - place.first_slot + 1,
                    products[slot],
                    offers[slot],
                    prices[slot] if is_paid else 0,
                    qualities[slot],
                    _CHARGES[charges[slot]] if is_paid else None,
                    slot in pins,
                    winners[slot],
                    bookings.get(slot),
                )
            )
        reserved = _count_reserved(place, decisions, market.scratch.found) if place.plan.own_brand_min else 0
        reason = None if decisions else _no_fill_reason(place, market, is_partial, no_paid_reason)
        if reason == "outbid" and reserved == place.slot_count:
            reason = "reserved_for_own_brand"
        outcomes.append(PlaceOutcome(place.placement.placement_id, reason, decisions, reserved))
    return outcomes


def _count_reserved(place: Place, decisions: Sequence[Decision], found: FoundArrays) -> int:
    """Count the slots only own-brand products might have taken, and none did."""
    rows = [decision.candidate_row for decision in decisions]
    others = found.candidate.group_bits[rows] & np.uint64(place.plan.other_brands)
    own_brand_count = int((others == 0).sum())
    missing = min(place.plan.own_brand_min, place.slot_count) - own_brand_count
    return max(0, min(missing, place.slot_count - len(decisions)))


def _no_fill_reason(place: Place, market: Market, is_partial: bool, no_paid_reason: str | None) -> str:
    """Return the most common reason of the placement's offers to take no part, as a word.

    Before that comes that its organic source had nothing that may stand there: it would have filled a slot.
    """
    if place.is_without_organic(market.scratch.found):
        return "organic_source_empty"
    if no_paid_reason is not None:
        return no_paid_reason
    if is_partial:
        return "timeout"
    if place.sponsored_left == 0:
        return LossReason.VISITOR_LIMIT.name.lower()
    found = market.scratch.found
    lost = found.lost[: found.counts[1]]
    reasons = lost["reason"][lost["place"] == place.number]
    if not len(reasons):
        entry = found.entry[: found.counts[0]]
        return "outbid" if ((entry["place"] == place.number) & (entry["offer_row"] >= 0)).any() else "no_bids"
    numbers, counts = np.unique(reasons, return_counts=True)
    return LossReason(int(numbers[np.argmax(counts)])).name.lower()
