"""Auctions whose outcome theory knows, held by the engine itself: a check that nothing bends the prices.

Bidders of one slot draw their values from 0 to 1 evenly and bid them. Theory (Myerson 1981; Krishna, "Auction
theory", section 2.5): of two bidders the mean revenue is 1/3 without a floor and 5/12 with the best one, at 1/2.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from affinity.catalog import Product
from affinity.model import BoundModel
from affinity.targets import compile_targets
from affinity.view import anonymous_view
from auction.builder import SnapshotSource, build_snapshot
from auction.campaign import Bid, Campaign
from auction.engine import hold_auction, no_deadline
from auction.kernel import (
    BLOCK_CRITICAL,
    BLOCK_WINNER,
    NO_PIN,
    CandidateArrays,
    PageArrays,
    hold_auctions_nb,
)
from auction.market import Market
from auction.placement import Attention, Floors, Placement
from auction.request import Page, RequestPlacement, SlotRequest
from auction.settings import Settings
from auction.spend import SpendView
from ledger.terms import ChargeOn
from sim.agent import EPOCH
from sim.chance import PPM, Int64s, key_of, whole_numbers

NOW_MS = 1_800_000_000_000
PLACEMENT_ID = "only"


class TextbookResult(Struct, frozen=True):
    """Revenue of many auctions, in units of the highest value.

    Attributes:
        standard_error: of the mean revenue.
        sold: share of auctions with a winner.
        efficient: share of sold ones that the highest value won.
    """

    mean_revenue: float
    standard_error: float
    sold: float
    efficient: float


def hold_textbook_auctions(auction_count: int, bidder_count: int, floor_ppm: int, seed: int) -> TextbookResult:
    """Hold one-slot auctions of bidders with even values from 0 to 1 (a million micros), all alike but for those.

    Each auction is a category of its own in one snapshot, so that every one has its own bids.
    """
    values = whole_numbers(key_of(seed, "values"), auction_count * bidder_count, 1, PPM)
    snapshot = build_snapshot(_source(values.reshape(auction_count, bidder_count).tolist(), floor_ppm))
    model = BoundModel(snapshot.product_id, np.full(len(snapshot.product_id), PPM, np.int64))
    market, settings = Market(snapshot, model), Settings()
    spend = SpendView(settings, snapshot)
    for bidder in range(bidder_count):
        spend.apply_funds(f"adv-{bidder}", 10**12)
    spend.refresh(NOW_MS)
    visitor = anonymous_view(compile_targets([], []))
    prices = []
    sold = efficient = 0
    for auction in range(auction_count):
        request = SlotRequest(
            page=Page(type="category", category_id=f"c{auction:06d}"),
            placements=[RequestPlacement(placement_id=PLACEMENT_ID)],
        )
        seed_of_ties = key_of(seed, "tie", auction)
        outcome = hold_auction(
            request, f"auc-{auction}", market, visitor, spend, no_deadline(NOW_MS), seed_of_ties, settings
        )
        decisions = outcome.places[0].decisions
        prices.append(decisions[0].price_micros if decisions else 0)
        if decisions:
            of_auction = values[auction * bidder_count : (auction + 1) * bidder_count]
            bidder = int(snapshot.product_id[decisions[0].product_row].rpartition("-")[2])
            sold += 1
            efficient += int(of_auction[bidder]) == int(of_auction.max())
    revenue = np.array(prices, dtype=np.float64) / PPM
    error = float(revenue.std(ddof=1)) / auction_count**0.5
    return TextbookResult(float(revenue.mean()), error, sold / auction_count, efficient / max(1, sold))


def hold_at_once(values_micros: Int64s, attention_permille: Sequence[int], floor_micros: int) -> Int64s:
    """Hold auctions of bidders who bid their values, all in one compiled call; return every outcome.

    Args:
        values_micros: (N, bidders) of a click.
        attention_permille: (S,) of the slots.
        floor_micros: least price of a click.

    Returns:
        (N, 4 + S, S) winners, both prices, order and thresholds of each auction, as receipts have them.
    """
    (auction_count, bidder_count), slot_count = values_micros.shape, len(attention_permille)
    row_count = auction_count * bidder_count
    bidder = np.tile(np.arange(bidder_count, dtype=np.int32), auction_count)
    candidates = CandidateArrays(
        bid_micros=np.ascontiguousarray(values_micros).ravel(),
        weight_ppm=np.full(row_count, PPM, np.int64),
        value_micros=np.zeros(row_count, np.int64),
        floor_micros=np.full(row_count, floor_micros, np.int64),
        advertiser_code=bidder,
        brand_code=bidder,
        product_code=bidder,
        charge_code=np.zeros(row_count, np.int8),
        tie_key=np.arange(row_count, dtype=np.uint64),
        eligible_slots=np.full(row_count, (1 << slot_count) - 1, np.uint64),
        group_bits=np.zeros(row_count, np.uint64),
    )
    page = PageArrays(
        attention_permille=np.array([attention_permille], np.int64),
        opportunity_cost=np.zeros(slot_count, np.int64),
        pinned_row=np.full(slot_count, NO_PIN, np.int64),
        cap_bits=np.zeros(0, np.uint64),
        cap_per_brand=np.zeros(0, np.int8),
        cap_slots=np.zeros(0, np.uint64),
        cap_max=np.zeros(0, np.int64),
    )
    block = np.empty((auction_count, 4 + slot_count, slot_count), np.int64)
    begin = np.arange(auction_count + 1, dtype=np.int64) * bidder_count
    hold_auctions_nb(candidates, begin, page, np.full((auction_count, slot_count), NO_PIN, np.int64), block)
    return block


def hold_uniform_at_once(auction_count: int, bidder_count: int, floor_ppm: int, seed: int) -> TextbookResult:
    """Do as `hold_textbook_auctions`, from the same values, in one compiled call."""
    values = whole_numbers(key_of(seed, "values"), auction_count * bidder_count, 1, PPM)
    values = values.reshape(auction_count, bidder_count)
    block = hold_at_once(values, [1000], floor_ppm)
    winner, price = block[:, BLOCK_WINNER, 0], block[:, BLOCK_CRITICAL, 0]
    revenue = price / PPM
    sold = winner >= 0
    has_highest = values[np.arange(auction_count), winner] == values.max(axis=1)
    return TextbookResult(
        float(revenue.mean()),
        float(revenue.std(ddof=1)) / auction_count**0.5,
        float(sold.mean()),
        int((has_highest & sold).sum()) / max(1, int(sold.sum())),
    )


def _source(values: list[list[int]], floor_micros: int) -> SnapshotSource:
    bidders = range(len(values[0]))
    products = [
        Product(
            product_id=f"p{auction:06d}-{bidder}",
            product_type=f"c{auction:06d}",
            brand=f"Brand {bidder}",
            advertiser_ids=[f"adv-{bidder}"],
        )
        for auction in range(len(values))
        for bidder in bidders
    ]
    return SnapshotSource(
        version=1,
        currency="EUR",
        time_zone="UTC",
        read_at_ms=NOW_MS,
        products=products,
        advertiser_names={f"adv-{bidder}": f"Brand {bidder}" for bidder in bidders},
        placements=[
            Placement(
                placement_id=PLACEMENT_ID,
                page_types=["category"],
                slot_count=1,
                attention_permille=Attention(click=[1000], impression=[1000]),
                pricing="critical",
                allocation="greedy",
                floor_micros=Floors(click=floor_micros),
                score_floor_micros=0,
                relevance_floor_ppm=0,
                squashing_ppm=PPM,
                brand_max=None,
                sponsored_max=None,
                change_seq=1,
            )
        ],
        campaigns=[_campaign(bidder) for bidder in bidders],
        bids=[
            _bid(auction, bidder, value)
            for auction, of_auction in enumerate(values)
            for bidder, value in enumerate(of_auction)
        ],
    )


def _campaign(bidder: int) -> Campaign:
    return Campaign(
        campaign_id=f"cmp-{bidder}",
        advertiser_id=f"adv-{bidder}",
        name=f"Bidder {bidder}",
        daily_budget_micros=None,
        total_budget_micros=None,
        flight_starts_at=None,
        flight_ends_at=None,
        pacing="asap",
        status="active",
        created_at=EPOCH,
        updated_at=EPOCH,
        change_seq=1,
    )


def _bid(auction: int, bidder: int, value_micros: int) -> Bid:
    return Bid(
        bid_id=f"bid-{auction:06d}-{bidder}",
        campaign_id=f"cmp-{bidder}",
        advertiser_id=f"adv-{bidder}",
        product_ids=[f"p{auction:06d}-{bidder}"],
        bid_micros=value_micros,
        charge_on=ChargeOn.CLICK,
        audience=None,
        navigation_pattern=None,
        pages=None,
        category_ids=None,
        keywords=None,
        negative_keywords=None,
        placement_multipliers={},
        frequency_cap=None,
        context=None,
        status="active",
        created_at=EPOCH,
        updated_at=EPOCH,
        change_seq=1,
    )
