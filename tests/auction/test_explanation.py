"""What an advertiser is told: its own, in steps, the same whenever it asks; and nothing of anybody else's."""

import random
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auction.builder import build_snapshot
from auction.explanation import AuctionReceipt, explain_to_advertiser, explain_to_retailer, least_winning_bid, quote
from auction.kernel import BID_MICROS_MAX
from auction.loss import LossReason
from auction.receipt import Receipt
from auction.request import RequestPlacement
from auction.settings import Settings
from tests.auction import naive
from tests.auction.pages import PPM, random_page
from tests.auction.receipts import hold, receipt_of
from tests.auction.servers import Served
from tests.auction.worlds import bid, large_source, placement, request, source


def telling_page(seed: int) -> naive.Page:
    """A crowded page on which every number and id could only be one candidate's."""
    chance = random.Random(seed)
    page = random_page(chance, ads_max=14)
    amounts = chance.sample(range(1_000_003, 9_999_999), len(page.ads))
    ads = [
        replace(
            ad,
            name=f"{number:02d}x",
            product=f"{ad.product}y",
            bid=amounts[number] | 1 if ad.advertiser is not None else 0,  # odd: on no step of the grid
            floor=0,
            weight=Fraction(chance.randrange(10_007, 2 * PPM), PPM),
        )
        for number, ad in enumerate(page.ads)
    ]
    return replace(page, ads=ads, score_floor=Fraction(0))


def numbers_in(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        for one in value.values():
            yield from numbers_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from numbers_in(one)
    elif isinstance(value, int):
        yield value


def advertisers_of(receipt: Receipt) -> set[str]:
    return {offer.advertiser_id for offer in receipt.offers.values()}


@given(st.integers(0, 2**32 - 1), st.sampled_from(["critical", "vcg", "first"]))
@settings(max_examples=300, deadline=None)
def test_an_advertiser_is_shown_no_id_bid_or_price_of_anybody_else(seed: int, pricing: str) -> None:
    receipt = receipt_of(telling_page(seed), pricing)
    everything = explain_to_retailer(receipt).placements[0].candidates
    for advertiser_id in advertisers_of(receipt):
        seen = explain_to_advertiser(receipt, advertiser_id)
        assert seen is not None
        text = msgspec.json.encode(seen).decode()
        own_products = {one.product_id for one in everything if one.advertiser_id == advertiser_id}
        others = [one for one in everything if one.advertiser_id != advertiser_id]
        for other in others:
            for name in (other.advertiser_id, other.campaign_id, other.bid_id):
                assert name is None or f'"{name}"' not in text
            assert other.product_id in own_products or f'"{other.product_id}"' not in text
        secret = {
            amount
            for other in others
            if other.is_sponsored
            for amount in (other.bid_micros, other.critical_micros, other.vcg_micros)
            if amount is not None and amount > 1_000
        }
        assert not secret & set(numbers_in(msgspec.to_builtins(seen)))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_a_quote_would_have_won_and_is_little_more_than_the_least_bid_that_would(seed: int) -> None:
    receipt = receipt_of(telling_page(seed))
    for row in range(receipt.note.candidate_count):
        if receipt.offer_row[row] < 0 or row in receipt.outcome.winner_row:
            continue
        least = least_winning_bid(receipt, row)
        quoted = quote(least)
        if least is None or quoted is None:
            assert least is quoted is None
            continue
        assert least < quoted <= max(least + 1, least * 41 // 40 + 1) or quoted == BID_MICROS_MAX
        bids, slots = receipt.candidates.bid_micros.copy(), receipt.candidates.eligible_slots.copy()
        bids[row] = quoted
        is_sibling = receipt.candidates.advertiser_code == receipt.candidates.advertiser_code[row]
        is_sibling[row] = False
        slots[is_sibling] = 0  # nobody has to beat itself
        changed = receipt.candidates._replace(bid_micros=bids, eligible_slots=slots)
        assert row in hold(msgspec.structs.replace(receipt, candidates=changed)).outcome.winner_row


class TestSteps:
    @pytest.mark.parametrize(
        ("least", "quoted"),
        [
            (0, 1), (99, 100), (100, 102), (101, 102), (199, 200), (200, 205), (1_000, 1_020), (999_999, 1_000_000),
            (1_000_000, 1_020_000), (1_999_999, 2_000_000), (2_000_000, 2_050_000), (BID_MICROS_MAX, BID_MICROS_MAX),
            (None, None),
        ],
    )  # fmt: skip
    def test_a_quote_is_the_next_step_above_the_least_bid(self, least: int | None, quoted: int | None) -> None:
        assert quote(least) == quoted

    def test_within_a_step_a_rivals_bid_changes_nothing_that_is_told(self) -> None:
        def told(rival_micros: int, own_micros: int = 1_000_000) -> AuctionReceipt:
            bids = [
                bid("bid_1", ["p1"], rival_micros, "cmp_a"),
                bid("bid_2", ["p2"], own_micros, "cmp_b"),
                bid("bid_3", ["p3"], 900_000, "cmp_c"),
            ]
            return shown(source(bids=bids, placements=[placement(slot_count=1)]), "adv_b")

        told_first = told(3_000_001)
        assert told_first.placements[0].candidates[0].least_winning_bid_micros == 3_050_000
        for rival_micros in range(3_000_001, 3_049_999, 4_999):
            assert told(rival_micros) == told_first
        assert told(3_050_001) != told_first
        # Nor does a rank tell more than steps: a loser comes after all whose value is within a step of its own.
        assert told(3_000_001, 2_999_999).placements[0].candidates[0].rank == 2
        ranks = {told(3_000_001, own).placements[0].candidates[0].rank for own in range(880_001, 899_999, 4_001)}
        assert ranks == {3}, "which of the two is worth more within the step is not told"

    def test_a_winners_rank_is_where_it_stands_and_its_price_is_exact(self) -> None:
        bids = [bid(f"bid_{n}", [f"p{n}"], 1_000_000 - n, f"cmp_{'abc'[n - 1]}") for n in (1, 2, 3)]
        made_from = source(bids=bids, placements=[placement(slot_count=2)])
        first, second, third = [shown(made_from, f"adv_{letter}").placements[0].candidates[0] for letter in "abc"]
        assert [one.rank for one in (first, second, third)] == [1, 2, 3]
        assert [one.slot_position for one in (first, second, third)] == [1, 2, None]
        assert second.clearing_price_micros == pytest.approx(999_997, abs=1)
        assert (first.least_winning_bid_micros, third.least_winning_bid_micros) == (None, 1_000_000)


def shown(made_from: Any, advertiser_id: str) -> AuctionReceipt:
    """What an advertiser is told of one auction, by a server of its own."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        served = Served(made_from, Path(folder))
        told: AuctionReceipt = served.server.receipt(served.fill(request()).auction_id, advertiser_id)
        return told


def test_asking_again_after_another_bid_tells_the_same(tmp_path: Path) -> None:
    bids = [bid("bid_1", ["p1"], 3_000_000, "cmp_a"), bid("bid_2", ["p2"], 1_000_000, "cmp_b")]
    served = Served(source(bids=bids, placements=[placement(slot_count=1)]), tmp_path)
    auction_id = served.fill(request()).auction_id
    before = served.server.receipt(auction_id, "adv_b")
    for number, own_micros in enumerate((2_900_000, 3_000_001, 9_000_000)):
        changed = [bids[0], bid("bid_2", ["p2"], own_micros, "cmp_b")]
        served.server.swap(
            build_snapshot(source(bids=changed, placements=[placement(slot_count=1)], version=8 + number))
        )
        served.fill(request())
        assert served.server.receipt(auction_id, "adv_b") == before


def test_an_own_candidate_shows_the_bid_that_entered(tmp_path: Path) -> None:
    bids = [
        bid("bid_1", ["p1"], 2_000_000, placement_multipliers={"top": 0.5}),
        bid("bid_2", ["p2"], 1_500_000, "cmp_b"),
    ]
    served = Served(source(bids=bids, placements=[placement(slot_count=1)]), tmp_path)
    (own,) = served.server.receipt(served.fill(request()).auction_id, "adv_a").placements[0].candidates
    assert (own.bid_micros, own.loss_reason) == (1_000_000, LossReason.OUTBID)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Served:
    made_from = large_source(5_000, product_count=500, advertiser_count=40, slot_count=2)
    return Served(made_from, tmp_path_factory.mktemp("receipts"), Settings(candidates_per_slot=2))


class TestWhatWasNotLookedAt:
    def test_the_retailer_is_told_how_many_and_what_they_could_be_worth_at_most(self, crowd: Served) -> None:
        receipt = crowd.server.receipt(crowd.fill(request(home())).auction_id, None)
        (place,) = receipt.placements
        left = place.not_looked_at
        assert left is not None
        assert (left.loss_reason, left.product_count) == (LossReason.BOUNDED_OUT, 0)
        in_context = crowd.server.market.context_of(home()).lists
        assert left.offer_count_max + receipt.visited_count == int((in_context[1] - in_context[0]).sum())
        least_winner = min(
            one.bid_micros * one.weight_ppm / PPM for one in place.candidates if one.slot_position is not None
        )
        assert 0 < left.value_micros_max <= least_winner + 1

    def test_an_advertiser_is_told_that_bids_may_be_missing_and_why(self, crowd: Served) -> None:
        answer = crowd.fill(request(home()))
        winner = answer.placements[0].fills[0].advertiser_id
        (place,) = crowd.server.receipt(answer.auction_id, winner).placements
        assert place.left_out_words == (
            "a bid that is not listed is not for this page, or its highest possible value could no longer win"
        )

    def test_nothing_is_left_out_of_a_small_page(self, tmp_path: Path) -> None:
        served = Served(source(bids=[bid("bid_1", ["p1"])]), tmp_path)
        auction_id = served.fill(request()).auction_id
        assert served.server.receipt(auction_id, None).placements[0].not_looked_at is None
        assert served.server.receipt(auction_id, "adv_a").placements[0].left_out_words is None

    def test_a_page_of_named_candidates_leaves_products_out(self, crowd: Served) -> None:
        ids = crowd.server.market.snapshot.product_id[:200]
        asked = request(home(), placements=[RequestPlacement(placement_id="top", candidates=ids)])
        (place,) = crowd.server.receipt(crowd.fill(asked).auction_id, None).placements
        assert place.not_looked_at.offer_count_max == 0
        assert 0 < place.not_looked_at.product_count < 200

    def test_time_that_ran_out_is_not_called_a_bound(self, tmp_path: Path) -> None:
        served = Served(source(bids=[bid("bid_1", ["p1"])]), tmp_path)
        ticks = iter(range(0, 10**12, 10**8))
        served.server.clock_ns = lambda: next(ticks)
        answer = served.fill(request(tmax_ms=1))
        assert answer.partial
        (place,) = served.server.receipt(answer.auction_id, None).placements
        left = place.not_looked_at
        assert left.loss_reason == LossReason.OUT_OF_TIME
        assert (left.offer_count_max, left.product_count, left.value_micros_max) == (1, None, None)

    def test_where_nothing_paid_was_asked_for_nothing_was_left_out(self, tmp_path: Path) -> None:
        served = Served(source(bids=[bid("bid_1", ["p1"])]), tmp_path)
        served.server.paid_pause_reason = "events_unwritable"
        (place,) = served.server.receipt(served.fill(request()).auction_id, None).placements
        assert (place.not_looked_at, place.no_fill_reason) == (None, "events_unwritable")


def home() -> Any:
    from auction.request import Page

    return Page(type="home")


def test_an_auction_nobody_took_part_in_has_a_receipt_too(tmp_path: Path) -> None:
    served = Served(source(), tmp_path)
    receipt = served.server.receipt(served.fill(request()).auction_id, None)
    assert (receipt.candidate_count, receipt.visited_count, receipt.placements[0].candidates) == (0, 0, [])


def test_the_retailer_sees_what_the_auction_can_be_run_again_from(tmp_path: Path) -> None:
    served = Served(source(bids=[bid("bid_1", ["p1"]), bid("bid_2", ["p2"], status="paused")]), tmp_path)
    receipt = served.server.receipt(served.fill(request()).auction_id, None)
    assert (receipt.model, receipt.snapshot_version, receipt.visited_count) == ("neutral", 7, 2)
    assert isinstance(receipt.tie_seed, int)
    seen = served.server.receipt(receipt.auction_id, "adv_a")
    assert (seen.model, seen.tie_seed, seen.visited_count, seen.candidate_count) == (None, None, None, None)


def test_ranks_of_receipts_are_those_of_the_retailer_where_steps_do_not_matter() -> None:
    for seed in range(40):
        receipt = receipt_of(telling_page(seed))
        everything = explain_to_retailer(receipt).placements[0].candidates
        rank_of = {one.bid_id: one.rank for one in everything if one.bid_id is not None}
        for advertiser_id in advertisers_of(receipt):
            seen = explain_to_advertiser(receipt, advertiser_id)
            assert seen is not None
            for own in seen.placements[0].candidates:
                assert own.rank is not None
                assert abs(own.rank - rank_of[own.bid_id]) <= 3, "only neighbours within a step may trade places"
                if own.slot_position is None:
                    assert own.rank >= rank_of[own.bid_id]
