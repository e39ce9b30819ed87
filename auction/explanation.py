"""A receipt in words: everything for the retailer; for an advertiser its own candidates, and nothing of others'.

What an advertiser is told of a lost auction is a bid that would have won, which is a price and so says something about
the others' bids, as any second price does. It is found with the advertiser's other candidates taken out, exactly as its
price would have been, and quoted in steps, as ranks are: within a step another's bid makes no difference to what is
told. docs/mechanism.md says what that leaves to be learnt.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from auction.allocation import fill_again, new_outcome
from auction.kernel import (
    BID_MICROS_MAX,
    CAP_OF_VISITOR,
    CLICK,
    GROUP_PAID,
    LOST_BELOW_FLOOR,
    LOST_NOT_ELIGIBLE,
    LOST_TO_BETTER,
    LOST_TO_CAP,
    LOST_TO_OPPORTUNITY_COST,
    LOST_TO_SAME_PRODUCT,
    PPM,
    UNATTAINABLE,
    say_why_lost_nb,
)
from auction.loss import WORDS, LossReason
from auction.placement import Allocation, OrganicSource
from auction.receipt import Note, PlaceNote, Receipt
from auction.rules import RULE_MARK
from ledger.terms import ChargeOn

LEAST_BID_COUNT_MAX = 100  # own losing candidates whose least winning bid is worked out

# Up to each of these amounts a quote is a multiple of the step beside it: 1 up to 100, 2 up to 200, 5 up to 500, 10 up
# to 1,000 and so on. So a step is 1 to 2.5 % of the amount, and every bound is on its own grid and on the next one.
_STEP = np.array([first * 10**power for power in range(15) for first in (1, 2, 5)], np.int64)
_STEP_UP_TO = 100 * _STEP


class RetailerCandidate(Struct, frozen=True, kw_only=True):
    """One candidate as the retailer sees it.

    Ids and basis are null for an organic one, those of bid and campaign and the basis for a booked one, parts for one
    at the gate.
    """

    product_id: str | None
    is_sponsored: bool
    advertiser_id: str | None
    campaign_id: str | None
    bid_id: str | None
    charge_on: ChargeOn | None = None
    bid_micros: int | None = None
    quality_ppm: int | None = None
    weight_ppm: int | None = None
    value_micros: int | None = None
    floor_micros: int | None = None
    rank: int | None = None
    slot_position: int | None = None
    critical_micros: int | None = None
    vcg_micros: int | None = None
    threshold_micros: list[int | None] | None = None
    loss_reason: int
    loss_words: str


class AdvertiserCandidate(Struct, frozen=True, kw_only=True):
    """One of its own candidates, as an advertiser sees it.

    Attributes:
        bid_micros: what entered the auction for one event: the bid after its own placement multiplier and pacing.
        rank: by value in the placement, from 1; whoever is within a step of a loser counts as before it.
        least_winning_bid_micros: a bid, likewise, that would have won: the least one, rounded up to the next step.
    """

    product_id: str
    campaign_id: str
    bid_id: str
    bid_micros: int | None = None
    rank: int | None = None
    slot_position: int | None = None
    clearing_price_micros: int | None = None
    least_winning_bid_micros: int | None = None
    loss_reason: int
    loss_words: str


class NotLookedAt(Struct, frozen=True, kw_only=True):
    """The offers of a page's context that were not looked at, and why.

    Attributes:
        offer_count_max: at most so many, of the lists of the page's context.
        product_count: products whose offers were not looked at, of those the page named or the visitor leans to; null
            where time ran out before they were counted.
        value_micros_max: what an impression of any of them could be worth at most; null where time ran out.
    """

    offer_count_max: int
    product_count: int | None
    value_micros_max: int | None
    loss_reason: int
    loss_words: str


class RetailerPlacement(Struct, frozen=True, kw_only=True):
    """One placement of the page.

    Attributes:
        candidates: those that were looked at; of those left out at the gate the first.
        not_looked_at: null where every offer was looked at, or none was asked for.
        is_drawn: it was ranked and priced with qualities drawn to explore.
        propensity_ppm: how many of a million auctions were held with the same qualities, expected or drawn.
        organic_source: where its organic products came from; null on a page that only sells.
    """

    placement_id: str
    slot_count: int
    pricing: str
    rule_ids: list[str]
    no_fill_reason: str | None
    candidates: list[RetailerCandidate]
    not_looked_at: NotLookedAt | None
    is_drawn: bool = False
    propensity_ppm: int = PPM
    organic_source: OrganicSource | None = None


class AdvertiserPlacement(Struct, frozen=True, kw_only=True):
    """One placement of the page.

    Attributes:
        candidates: the advertiser's own that were looked at.
        left_out_words: null where every offer was looked at; else why bids of the advertiser may be missing.
    """

    placement_id: str
    slot_count: int
    pricing: str
    candidates: list[AdvertiserCandidate]
    left_out_words: str | None


class AuctionReceipt(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/auctions/{auction_id}`.

    Attributes:
        seen_by: for whom it was written.
        allocation: how the page was filled: `greedy` also where `exact` was asked for but could not be had.
        model: name of the model whose qualities it was ranked with; as all below, only for the retailer.
        quality_version: of what clicks had corrected in them; 0: nothing.
        tie_seed: what exact ties were drawn with.
        candidate_count, lost_count: how many took part, how many were left out at the gate.
        visited_count: how many offers were looked at, the organic products aside.
    """

    auction_id: str
    held_at_ms: int
    seen_by: Literal["retailer", "advertiser"]
    snapshot_version: int
    experiment_id: str | None
    variant: str | None
    partial: bool
    allocation: Allocation
    mode: str
    page_type: str
    currency: str
    model: str | None = None
    quality_version: int | None = None
    tie_seed: int | None = None
    candidate_count: int | None = None
    lost_count: int | None = None
    visited_count: int | None = None
    placements: list[RetailerPlacement] | list[AdvertiserPlacement]


def explain_to_retailer(receipt: Receipt) -> AuctionReceipt:
    """Return everything the receipt holds, in words."""
    slots, ranks, losses = _slots(receipt), _ranks(receipt), _losses(receipt)
    placements = [
        RetailerPlacement(
            placement_id=place.placement_id,
            slot_count=place.slot_count,
            pricing=place.pricing,
            rule_ids=place.rule_ids,
            no_fill_reason=place.no_fill_reason,
            candidates=[
                _for_retailer(receipt, row, place, slots, ranks, losses) for row in _rows_of(receipt.place, number)
            ]
            + [_lost_for_retailer(receipt, row) for row in _rows_of(receipt.lost_place, number)],
            not_looked_at=_not_looked_at(receipt.note, place),
            is_drawn=place.is_drawn,
            propensity_ppm=place.propensity_ppm,
            organic_source=place.organic_source,
        )
        for number, place in enumerate(receipt.note.places)
    ]
    note = receipt.note
    return msgspec.structs.replace(
        _receipt(receipt, "retailer", placements),
        model=note.model,
        quality_version=note.quality_version,
        tie_seed=note.tie_seed,
        candidate_count=note.candidate_count,
        lost_count=note.lost_count,
        visited_count=receipt.visited_count,
    )


def explain_to_advertiser(receipt: Receipt, advertiser_id: str) -> AuctionReceipt | None:
    """Return what the receipt says of an advertiser's own candidates; None where it had none in the auction."""
    slots, losses = _slots(receipt), _losses(receipt)
    placements: list[AdvertiserPlacement] = []
    asked = 0
    for number, place in enumerate(receipt.note.places):
        candidates: list[AdvertiserCandidate] = []
        for row in _rows_of(receipt.place, number):
            name = receipt.offers.get(int(receipt.offer_row[row]))
            if name is None or name.advertiser_id != advertiser_id:
                continue
            slot = slots.get(row)
            reason = losses[row]
            least = None
            if slot is None and reason is LossReason.OUTBID and asked < LEAST_BID_COUNT_MAX:
                asked += 1
                least = quote(least_winning_bid(receipt, row))
            candidates.append(
                AdvertiserCandidate(
                    product_id=name.product_id,
                    campaign_id=name.campaign_id,
                    bid_id=name.bid_id,
                    bid_micros=int(receipt.candidates.bid_micros[row]),
                    rank=rank_in_steps(receipt, row),
                    slot_position=None if slot is None else slot - place.first_slot + 1,
                    clearing_price_micros=None if slot is None else clearing_price(receipt, row, slot, place),
                    least_winning_bid_micros=least,
                    loss_reason=int(reason),
                    loss_words=WORDS[reason],
                )
            )
        for row in _rows_of(receipt.lost_place, number):
            name = receipt.offers.get(int(receipt.lost_row[row]))
            if name is not None and name.advertiser_id == advertiser_id:
                reason = LossReason(int(receipt.lost_reason[row]))
                candidates.append(
                    AdvertiserCandidate(
                        product_id=name.product_id,
                        campaign_id=name.campaign_id,
                        bid_id=name.bid_id,
                        loss_reason=int(reason),
                        loss_words=WORDS[reason],
                    )
                )
        if candidates:
            placements.append(
                AdvertiserPlacement(
                    placement_id=place.placement_id,
                    slot_count=place.slot_count,
                    pricing=place.pricing,
                    candidates=candidates,
                    left_out_words=_left_out_words(receipt, place),
                )
            )
    return _receipt(receipt, "advertiser", placements) if placements else None


def least_winning_bid(receipt: Receipt, row: int) -> int | None:
    """Return the least bid with which a candidate that lost would have had a slot; None where no bid would."""
    again = new_outcome(len(receipt.page.pinned_row))
    candidates = receipt.candidates._replace(bid_micros=receipt.candidates.bid_micros.copy())
    candidates.bid_micros[row] = BID_MICROS_MAX
    fill_again(receipt.note.allocation, candidates, receipt.note.candidate_count, receipt.page, again)
    slots = np.flatnonzero(again.winner_row == row)
    if not len(slots):
        return None
    least = int(again.threshold_micros[slots[0]].min())
    return least if least <= BID_MICROS_MAX else None


def quote(least_micros: int | None) -> int | None:
    """Return the first amount on the grid above the least bid that would have won; None where none would.

    It would have won too, is 2.5 % more at most (or one micro), and is never the least bid itself, which with equal
    weights may be another's bid.

    >>> quote(1_000_000), quote(1_019_999), quote(1_020_000)
    (1020000, 1020000, 1040000)
    """
    if least_micros is None:
        return None
    return min(int(_round_up(np.array([least_micros + 1], np.int64))[0]), BID_MICROS_MAX)


def rank_in_steps(receipt: Receipt, row: int) -> int:
    """Return a candidate's place by value in its placement, from 1, as far as its advertiser may know it.

    Others are compared by the step their value falls in, as a bid of this candidate's. Within a step a loser comes
    after all of them, and a winner where it stands on the page; the advertiser's own candidates are compared exactly.
    """
    candidates, order = receipt.candidates, _orders(receipt)
    value = candidates.weight_ppm * candidates.bid_micros + candidates.value_micros * PPM
    rows = np.flatnonzero(receipt.place == receipt.place[row])
    rows = rows[rows != row]
    is_own = candidates.advertiser_code[rows] == candidates.advertiser_code[row]
    own = rows[is_own]
    comes_first = (value[own] > value[row]) | (
        (value[own] == value[row]) & (candidates.tie_key[own] < candidates.tie_key[row])
    )
    others = rows[~is_own]
    as_bid = -(-(value[others] - candidates.value_micros[row] * PPM) // candidates.weight_ppm[row])
    step = _round_up(np.maximum(as_bid, 0))
    own_step = _round_up(candidates.bid_micros[row : row + 1])[0]
    is_before = (step > own_step) | ((step == own_step) & ((order[row] < 0) | _is_earlier(order[others], order[row])))
    return 1 + int(comes_first.sum()) + int(is_before.sum())


def _is_earlier(order: NDArray[np.int64], than: np.int64) -> NDArray[np.bool_]:
    return (order >= 0) & (order < than)


def _orders(receipt: Receipt) -> NDArray[np.int64]:
    """Return when each candidate got its slot, -1 for those that have none."""
    order = np.full(receipt.note.candidate_count, -1, np.int64)
    has_winner = receipt.outcome.winner_row >= 0
    order[receipt.outcome.winner_row[has_winner]] = receipt.outcome.pick_order[has_winner]
    return order


def _round_up(amounts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the least amounts on the grid that are not less."""
    step = _STEP[np.minimum(np.searchsorted(_STEP_UP_TO, amounts), len(_STEP) - 1)]
    rounded: NDArray[np.int64] = -(-amounts // step) * step
    return rounded


def _left_out_words(receipt: Receipt, place: PlaceNote) -> str | None:
    """Say why bids of an advertiser may be missing; None where all that belong to the page are there."""
    left_out = _not_looked_at(receipt.note, place)
    reasons = [] if left_out is None else [left_out.loss_words]
    if receipt.note.lost_count > len(receipt.lost_row):
        reasons.append("it took no part and the receipt had no room for it")
    return f"a bid that is not listed is not for this page, or {', or '.join(reasons)}" if reasons else None


def _not_looked_at(note: Note, place: PlaceNote) -> NotLookedAt | None:
    """Return what was left out of a placement's offers; None where nothing was, or none were asked for."""
    reach = place.reach
    offer_count = reach.offer_count_max
    if reach.product_count == offer_count == 0 or not (reach.has_begun or note.is_partial):
        return None
    reason = LossReason.OUT_OF_TIME if note.is_partial else LossReason.BOUNDED_OUT
    return NotLookedAt(
        offer_count_max=offer_count,
        product_count=reach.product_count if reach.has_begun else None,
        value_micros_max=None if note.is_partial else reach.value_micros_max,
        loss_reason=int(reason),
        loss_words=WORDS[reason],
    )


def _receipt(
    receipt: Receipt,
    seen_by: Literal["retailer", "advertiser"],
    placements: list[RetailerPlacement] | list[AdvertiserPlacement],
) -> AuctionReceipt:
    note = receipt.note
    return AuctionReceipt(
        auction_id=note.auction_id,
        held_at_ms=note.held_at_ms,
        seen_by=seen_by,
        snapshot_version=note.snapshot_version,
        experiment_id=note.experiment_id,
        variant=note.variant,
        partial=note.is_partial,
        allocation=note.allocation,
        mode=note.mode,
        page_type=note.page_type,
        currency=note.currency,
        placements=placements,
    )


def _for_retailer(
    receipt: Receipt,
    row: int,
    place: PlaceNote,
    slots: dict[int, int],
    ranks: Sequence[int],
    losses: Sequence[LossReason],
) -> RetailerCandidate:
    candidates, slot = receipt.candidates, slots.get(row)
    name = receipt.offers.get(int(receipt.offer_row[row]))
    reason = losses[row]
    is_priced = name is not None and slot is not None
    advertiser_id = receipt.advertisers.get(int(candidates.advertiser_code[row]))
    charge = ChargeOn.CLICK if candidates.charge_code[row] == CLICK else ChargeOn.IMPRESSION
    return RetailerCandidate(
        product_id=receipt.products.get(int(candidates.product_code[row])),
        is_sponsored=advertiser_id is not None,  # a booked slot has an advertiser and no offer
        advertiser_id=advertiser_id,
        campaign_id=None if name is None else name.campaign_id,
        bid_id=None if name is None else name.bid_id,
        charge_on=None if name is None else charge,
        bid_micros=None if name is None else int(candidates.bid_micros[row]),
        quality_ppm=int(receipt.quality_ppm[row]),
        weight_ppm=int(candidates.weight_ppm[row]),
        value_micros=int(candidates.value_micros[row]),
        floor_micros=None if name is None else int(candidates.floor_micros[row]),
        rank=ranks[row],
        slot_position=None if slot is None else slot - place.first_slot + 1,
        critical_micros=int(receipt.outcome.critical_micros[slot]) if is_priced else None,
        vcg_micros=int(receipt.outcome.vcg_micros[slot]) if is_priced else None,
        threshold_micros=[
            None if least >= UNATTAINABLE else least for least in receipt.outcome.threshold_micros[slot].tolist()
        ]
        if is_priced
        else None,
        loss_reason=int(reason),
        loss_words=WORDS[reason],
    )


def _lost_for_retailer(receipt: Receipt, row: int) -> RetailerCandidate:
    name = receipt.offers[int(receipt.lost_row[row])]
    reason = LossReason(int(receipt.lost_reason[row]))
    return RetailerCandidate(
        product_id=name.product_id,
        is_sponsored=True,
        advertiser_id=name.advertiser_id,
        campaign_id=name.campaign_id,
        bid_id=name.bid_id,
        loss_reason=int(reason),
        loss_words=WORDS[reason],
    )


def _rows_of(place: NDArray[np.int32] | NDArray[np.int16], number: int) -> list[int]:
    rows: list[int] = np.flatnonzero(place == number).tolist()
    return rows


def _slots(receipt: Receipt) -> dict[int, int]:
    """Return the slot of each candidate that has one."""
    winners: list[int] = receipt.outcome.winner_row.tolist()
    return {row: slot for slot, row in enumerate(winners) if row >= 0}


def _ranks(receipt: Receipt) -> list[int]:
    """Return each candidate's place by score in its placement, from 1."""
    candidates = receipt.candidates
    score = candidates.weight_ppm * candidates.bid_micros + candidates.value_micros * PPM
    ranks = np.zeros(len(score), np.int64)
    for number in range(len(receipt.note.places)):
        rows = np.flatnonzero(receipt.place == number)
        best_first = rows[np.lexsort((candidates.tie_key[rows], -score[rows]))]
        ranks[best_first] = np.arange(1, len(rows) + 1)
    found: list[int] = ranks.tolist()
    return found


def clearing_price(receipt: Receipt, row: int, slot: int, place: PlaceNote) -> int:
    """Return what the fill of a slot is billed per event."""
    if place.pricing == "vcg":
        return int(receipt.outcome.vcg_micros[slot])
    if place.pricing == "first":
        return int(receipt.candidates.bid_micros[row])
    return int(receipt.outcome.critical_micros[slot])


def _losses(receipt: Receipt) -> list[LossReason]:
    """Return why each candidate that took part has no slot; WON for those that have one."""
    count = receipt.note.candidate_count
    reason, cap = np.zeros(count, np.int64), np.zeros(count, np.int64)
    say_why_lost_nb(receipt.candidates, count, receipt.page, receipt.outcome, reason, cap)
    return [
        _cap_reason(receipt, full) if why == LOST_TO_CAP else _REASONS[why]
        for why, full in zip(reason.tolist(), cap.tolist(), strict=True)
    ]


def _cap_reason(receipt: Receipt, cap: int) -> LossReason:
    if int(receipt.page.cap_bits[cap]) & CAP_OF_VISITOR:
        return LossReason.VISITOR_LIMIT
    if receipt.page.cap_per_brand[cap]:
        return LossReason.BRAND_CAP
    is_of_paid = int(receipt.page.cap_bits[cap]) & ~RULE_MARK == GROUP_PAID
    return LossReason.SPONSORED_CAP if is_of_paid else LossReason.RULE_CAP


_REASONS = {
    0: LossReason.WON,
    LOST_NOT_ELIGIBLE: LossReason.PRODUCT_PLACED,
    LOST_BELOW_FLOOR: LossReason.BELOW_FLOOR,
    LOST_TO_BETTER: LossReason.OUTBID,
    LOST_TO_SAME_PRODUCT: LossReason.PRODUCT_PLACED,
    LOST_TO_OPPORTUNITY_COST: LossReason.OUTBID,
}
