"""A receipt in words: everything for the retailer; for an advertiser its own candidates, and nothing of others'.

What an advertiser is told of a lost auction is the least bid that would have won, which is a price and so says
something about the others' bids, as any second price does; it is found with the advertiser's other candidates taken
out, exactly as its price would have been.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from auction.kernel import (
    BID_MICROS_MAX,
    CLICK,
    GROUP_PAID,
    LOST_BELOW_FLOOR,
    LOST_NOT_ELIGIBLE,
    LOST_TO_BETTER,
    LOST_TO_CAP,
    LOST_TO_OPPORTUNITY_COST,
    LOST_TO_SAME_PRODUCT,
    UNATTAINABLE,
    fill_page_nb,
    say_why_lost_nb,
)
from auction.loss import WORDS, LossReason
from auction.market import new_outcome
from auction.receipt import PlaceNote, Receipt
from auction.rules import RULE_MARK
from ledger.terms import ChargeOn

LEAST_BID_COUNT_MAX = 100  # own losing candidates whose least winning bid is worked out


class RetailerCandidate(Struct, frozen=True, kw_only=True):
    """One candidate as the retailer sees it. Ids and basis are null for an organic one, parts for one at the gate."""

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
    """One of its own candidates, as an advertiser sees it."""

    product_id: str
    campaign_id: str
    bid_id: str
    rank: int | None = None
    slot_position: int | None = None
    clearing_price_micros: int | None = None
    least_winning_bid_micros: int | None = None
    loss_reason: int
    loss_words: str


class RetailerPlacement(Struct, frozen=True, kw_only=True):
    """One placement of the page; `lost_count` counts those left out at the gate, of which the first are listed."""

    placement_id: str
    slot_count: int
    pricing: str
    rule_ids: list[str]
    no_fill_reason: str | None
    candidates: list[RetailerCandidate]


class AdvertiserPlacement(Struct, frozen=True, kw_only=True):
    """One placement of the page."""

    placement_id: str
    slot_count: int
    pricing: str
    candidates: list[AdvertiserCandidate]


class AuctionReceipt(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/auctions/{auction_id}`.

    Attributes:
        seen_by: for whom it was written.
        candidate_count, lost_count: how many took part, how many were left out at the gate; only for the retailer.
    """

    auction_id: str
    held_at_ms: int
    seen_by: Literal["retailer", "advertiser"]
    snapshot_version: int
    experiment_id: str | None
    variant: str | None
    partial: bool
    mode: str
    page_type: str
    currency: str
    candidate_count: int | None = None
    lost_count: int | None = None
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
        )
        for number, place in enumerate(receipt.note.places)
    ]
    return _receipt(receipt, "retailer", placements, receipt.note.candidate_count, receipt.note.lost_count)


def explain_to_advertiser(receipt: Receipt, advertiser_id: str) -> AuctionReceipt | None:
    """Return what the receipt says of an advertiser's own candidates; None where it had none in the auction."""
    slots, ranks, losses = _slots(receipt), _ranks(receipt), _losses(receipt)
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
                least = least_winning_bid(receipt, row)
            candidates.append(
                AdvertiserCandidate(
                    product_id=name.product_id,
                    campaign_id=name.campaign_id,
                    bid_id=name.bid_id,
                    rank=ranks[row],
                    slot_position=None if slot is None else slot - place.first_slot + 1,
                    clearing_price_micros=None if slot is None else _clearing_price(receipt, row, slot, place),
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
                )
            )
    return _receipt(receipt, "advertiser", placements, None, None) if placements else None


def least_winning_bid(receipt: Receipt, row: int) -> int | None:
    """Return the least bid with which a candidate that lost would have had a slot; None where no bid would."""
    again = new_outcome(len(receipt.page.pinned_row))
    candidates = receipt.candidates._replace(bid_micros=receipt.candidates.bid_micros.copy())
    candidates.bid_micros[row] = BID_MICROS_MAX
    nothing = np.zeros(0, np.int64)
    fill_page_nb(candidates, receipt.note.candidate_count, receipt.page, nothing, nothing, nothing, nothing, again)
    slots = np.flatnonzero(again.winner_row == row)
    if not len(slots):
        return None
    least = int(again.threshold_micros[slots[0]].min())
    return least if least <= BID_MICROS_MAX else None


def _receipt(
    receipt: Receipt,
    seen_by: Literal["retailer", "advertiser"],
    placements: list[RetailerPlacement] | list[AdvertiserPlacement],
    candidate_count: int | None,
    lost_count: int | None,
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
        mode=note.mode,
        page_type=note.page_type,
        currency=note.currency,
        candidate_count=candidate_count,
        lost_count=lost_count,
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
    charge = ChargeOn.CLICK if candidates.charge_code[row] == CLICK else ChargeOn.IMPRESSION
    return RetailerCandidate(
        product_id=receipt.products.get(int(candidates.product_code[row])),
        is_sponsored=bool(candidates.advertiser_code[row] >= 0),  # a booked slot has an advertiser and no offer
        advertiser_id=None if name is None else name.advertiser_id,
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
    score = candidates.weight_ppm * candidates.bid_micros + candidates.value_micros * 1_000_000
    ranks = np.zeros(len(score), np.int64)
    for number in range(len(receipt.note.places)):
        rows = np.flatnonzero(receipt.place == number)
        best_first = rows[np.lexsort((candidates.tie_key[rows], -score[rows]))]
        ranks[best_first] = np.arange(1, len(rows) + 1)
    found: list[int] = ranks.tolist()
    return found


def _clearing_price(receipt: Receipt, row: int, slot: int, place: PlaceNote) -> int:
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
