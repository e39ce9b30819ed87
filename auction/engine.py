"""One decision over all slots of one page: who gets them, and at what price.

`hold_auction` holds the order of events; what it calls computes and returns.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from msgspec import Raw, Struct

from affinity.view import VisitorView
from auction.booking import BookedSlot
from auction.eligibility import (
    WANTED_ALL,
    Place,
    asking,
    find_candidates,
    find_organic,
    lay_place,
    unseen_kinds,
)
from auction.errors import PlacementNotOnPage, PlacementRepeated, PlacementUnknown, TooManySlots
from auction.kernel import (
    CLICK,
    GROUP_EVERYONE,
    GROUP_PAID,
    IMPRESSION,
    NO_ADVERTISER,
    NO_PIN,
    SLOT_COUNT_MAX,
    AskerArrays,
    FoundArrays,
    OutcomeArrays,
    PageArrays,
    fill_page_nb,
)
from auction.loss import LossReason
from auction.market import Context, Market, outcome_in
from auction.placement import Placement
from auction.quality import clear_own_quality, set_own_quality
from auction.request import Candidates, RequestPlacement, SlotRequest
from auction.rules import NO_RULES, RULE_MARK
from auction.settings import Settings
from auction.snapshot import Int64s
from auction.spend import SpendView
from ledger.terms import ChargeOn

PAGE_COUNT_MAX = 1_024


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
    return Deadline(now_ms, 1, lambda: 0)


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
        arrays: winners, both prices and thresholds.
        candidate_count, lost_count: how much of the market's `found` arrays belongs to this auction; read before
            the next one writes to them.
        laid: the placements as laid out.
        block: the memory of `arrays`.
        page_bytes: the page's arrays as receipts have them, pins aside.
    """

    places: list[PlaceOutcome]
    is_partial: bool
    tie_seed: int
    page: PageArrays
    arrays: OutcomeArrays
    candidate_count: int
    lost_count: int
    laid: list[Place]
    block: Int64s
    page_bytes: list[bytes]


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

    Raises:
        AuctionRefused: see `lay_out`.
    """
    context = market.context_of(request.page)
    with market.scratch.taken():
        market.scratch.found.counts[:] = 0
        own_rows = set_own_quality(visitor, market)
        facts = market.facts_of(request.context, deadline.arrived_ms)
        try:
            places = lay_out(request, context, facts, market, visitor, deadline.arrived_ms, tie_seed)
            page, page_bytes = _page_arrays(request, places, market)
            slot_count = len(page.pinned_row)
            block = np.empty((4 + slot_count, slot_count), np.int64)
            arrays = outcome_in(block)
            with asking(request, context, facts, market, visitor, spend, deadline.arrived_ms, settings) as asker:
                bookings: dict[int, BookedSlot] = {}
                if market.bookings and no_paid_reason is None:
                    page, bookings = _place_bookings(places, asker, market, page, deadline.arrived_ms)
                pins = _place_pins(places, asker, market, page)
                is_partial = _decide(
                    request, context, places, page, visitor, asker, market, deadline, settings, no_paid_reason, arrays
                )
        finally:
            clear_own_quality(own_rows, market)
    outcomes = _read_outcome(places, arrays, pins, bookings, market, is_partial, no_paid_reason)
    candidate_count, lost_count = market.scratch.found.counts.tolist()
    return Outcome(outcomes, is_partial, tie_seed, page, arrays, candidate_count, lost_count, places, block, page_bytes)


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
                _candidates_of(asked),
                context,
                visitor,
                market,
                tie_seed,
            )
        )
        first_slot += slot_count
    return places


def _candidates_of(asked: RequestPlacement) -> Candidates | None:
    candidates = cast(Candidates | None, asked.candidates)
    if isinstance(candidates, Raw) and bytes(candidates) in (b"", b"null"):
        return None
    return candidates


def _decide(
    request: SlotRequest,
    context: Context,
    places: Sequence[Place],
    page: PageArrays,
    visitor: VisitorView,
    asker: AskerArrays,
    market: Market,
    deadline: Deadline,
    settings: Settings,
    no_paid_reason: str | None,
    arrays: OutcomeArrays,
) -> bool:
    """Look at candidates and fill the page until no other candidate could change it; say whether time ran out."""
    is_merchandised = request.mode == "merchandised"
    chunk, per_slot = settings.scan_rows_between_clock_looks, settings.candidates_per_slot
    found = market.scratch.found
    if is_merchandised:
        for place in places:
            find_organic(place, context, visitor.product_row, asker, market, per_slot * place.slot_count)
    is_late = deadline.is_past
    for place in places:
        place.is_searched = no_paid_reason is None
        place.is_unfinished = True  # nothing was looked at yet
    while True:
        # On a merchandised page the lists are not in the order of the offers' value there: look at all of them.
        for place in places:
            more = WANTED_ALL if is_merchandised else per_slot * place.slot_count
            while place.unseen_score and not is_late and find_candidates(place, asker, market, more, chunk):
                is_late = deadline.is_past
        found = market.scratch.found
        if fill_page_nb(found.candidate, found.counts[0], page, *unseen_kinds(places, market), arrays) >= 0:
            return False
        if is_late or deadline.is_past:
            for place in places:
                place.is_searched = False
                place.unseen_organic_score = 0
            fill_page_nb(found.candidate, found.counts[0], page, *unseen_kinds(places, market), arrays)
            return True
        per_slot *= 4
        for place in places:
            if place.unseen_organic_score:
                find_organic(place, context, visitor.product_row, asker, market, per_slot * place.slot_count)


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
    facts, mark = market.arrays.product[product_row], asker.mark[product_row]
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


def _page_arrays(request: SlotRequest, places: Sequence[Place], market: Market) -> tuple[PageArrays, list[bytes]]:
    """Return the page's slots with their attention, and every cap over them; equal pages share all but the pins."""
    key = (
        request.page.type,
        *[(one.placement.placement_id, one.slot_count, one.plan.caps) for one in places],
    )
    known = market.pages.get(key)
    if known is None:
        if len(market.pages) >= PAGE_COUNT_MAX:
            market.pages.pop(next(iter(market.pages)))
        page = _make_page(request.page.type, places, market)
        known = market.pages[key] = page, [array.tobytes() for array in page]
    if any(place.plan.pins for place in places):
        page, page_bytes = known
        return page._replace(pinned_row=page.pinned_row.copy()), page_bytes
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
    arrays: OutcomeArrays,
    pins: dict[int, int],
    bookings: dict[int, BookedSlot],
    market: Market,
    is_partial: bool,
    no_paid_reason: str | None,
) -> list[PlaceOutcome]:
    found = market.scratch.found
    winners: list[int] = arrays.winner_row.tolist()
    outcomes: list[PlaceOutcome] = []
    for place in places:
        decisions: list[Decision] = []
        for slot in range(place.first_slot, place.first_slot + place.slot_count):
            winner = winners[slot]
            if winner < 0:
                continue
            quality_ppm, offer_row, _ = found.entry[winner].item()
            is_paid = offer_row >= 0
            charge = None
            if is_paid:
                charge = ChargeOn.CLICK if found.candidate.charge_code[winner] == CLICK else ChargeOn.IMPRESSION
            decisions.append(
                Decision(
                    slot - place.first_slot + 1,
                    int(found.candidate.product_code[winner]),
                    offer_row,
                    _price(place.placement.pricing, slot, winner, arrays, market) if is_paid else 0,
                    quality_ppm,
                    charge,
                    slot in pins,
                    winner,
                    bookings.get(slot),
                )
            )
        reserved = _count_reserved(place, decisions, found) if place.plan.own_brand_min else 0
        reason = None if decisions else _no_fill_reason(place, market, is_partial, no_paid_reason)
        if reason == "outbid" and reserved == place.slot_count:
            reason = "reserved_for_own_brand"
        outcomes.append(PlaceOutcome(place.placement.placement_id, reason, decisions, reserved))
    return outcomes


def _price(pricing: str, slot: int, winner: int, arrays: OutcomeArrays, market: Market) -> int:
    if pricing == "vcg":
        return int(arrays.vcg_micros[slot])
    if pricing == "first":
        return int(market.scratch.found.candidate.bid_micros[winner])
    return int(arrays.critical_micros[slot])


def _count_reserved(place: Place, decisions: Sequence[Decision], found: FoundArrays) -> int:
    """Count the slots only own-brand products might have taken, and none did."""
    rows = [decision.candidate_row for decision in decisions]
    others = found.candidate.group_bits[rows] & np.uint64(place.plan.other_brands)
    own_brand_count = int((others == 0).sum())
    missing = min(place.plan.own_brand_min, place.slot_count) - own_brand_count
    return max(0, min(missing, place.slot_count - len(decisions)))


def _no_fill_reason(place: Place, market: Market, is_partial: bool, no_paid_reason: str | None) -> str:
    """Return the most common reason of the placement's offers to take no part, as a word."""
    if no_paid_reason is not None:
        return no_paid_reason
    if is_partial:
        return "timeout"
    found = market.scratch.found
    lost = found.lost[: found.counts[1]]
    reasons = lost["reason"][lost["place"] == place.number]
    if not len(reasons):
        entry = found.entry[: found.counts[0]]
        return "outbid" if ((entry["place"] == place.number) & (entry["offer_row"] >= 0)).any() else "no_bids"
    numbers, counts = np.unique(reasons, return_counts=True)
    return LossReason(int(numbers[np.argmax(counts)])).name.lower()
