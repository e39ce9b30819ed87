"""Receipts: bit for bit again, all of it for the retailer, an advertiser's own for it, and bounded on disk."""

import os
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from auction.builder import build_snapshot
from auction.errors import AuctionGone, AuctionUnknown
from auction.kernel import OutcomeArrays
from auction.loss import WORDS, LossReason
from auction.placement import Attention
from auction.receipt import ReceiptLog, read_receipts, read_segment, replay_receipt, time_of
from auction.request import Page, RequestPlacement
from auction.segment import HEAD, first_ms, list_segments, segments_between
from auction.settings import Settings
from ledger.terms import new_id
from tests.auction.servers import Served
from tests.auction.worlds import NOW_MS, bid, large_source, placement, product, request, source

THREE = [
    bid("bid_1", ["p1"], 3_000_000, "cmp_a"),
    bid("bid_2", ["p2"], 2_000_000, "cmp_b"),
    bid("bid_3", ["p3"], 1_000_000, "cmp_c"),
]


def test_every_auction_can_be_decided_again_bit_for_bit(tmp_path: Path) -> None:
    served = Served(large_source(3_000, product_count=300, advertiser_count=30), tmp_path)
    chance = random.Random(1)
    names = served.server.market.snapshot.names
    shown: dict[str, list[str]] = {}
    for number in range(120):
        page = chance.choice(
            [
                Page(type="home"),
                Page(type="category", category_id=chance.choice(names.category)),
                Page(type="search", query=chance.choice(names.words)),
            ]
        )
        mode: Any = chance.choice(["sponsored", "merchandised"])
        answer = served.fill(request(page, mode=mode))
        shown[answer.auction_id] = [fill.product_id for fill in answer.placements[0].fills]
        if number == 60:  # a receipt outlives its snapshot
            served.server.receipts.write()
            other = large_source(2_000, product_count=300, advertiser_count=30)
            served.server.swap(build_snapshot(msgspec.structs.replace(other, products=other.products[1:])))
    served.server.receipts.write()
    receipts = list(read_receipts(tmp_path))
    assert len(receipts) == 120
    for receipt in receipts:
        found = served.server.receipts.find(receipt.note.auction_id)
        assert (found.note, found.offers.keys()) == (
            receipt.note,
            set(receipt.offer_row[receipt.offer_row >= 0].tolist()) | set(receipt.lost_row.tolist()),
        )
        again = replay_receipt(receipt)
        for name in OutcomeArrays._fields:
            assert np.array_equal(getattr(again, name), getattr(receipt.outcome, name)), name
        winners = receipt.outcome.winner_row[receipt.outcome.winner_row >= 0]
        assert [receipt.products[int(receipt.candidates.product_code[row])] for row in winners] == shown[
            receipt.note.auction_id
        ]


class TestWhoSeesWhat:
    @pytest.fixture
    def served(self, tmp_path: Path) -> Served:
        bids = [*THREE, bid("bid_4", ["p4"], status="paused"), bid("bid_5", ["p1"], 10, "cmp_c")]
        return Served(source(bids=bids, placements=[placement(slot_count=1)]), tmp_path)

    def test_the_retailer_sees_every_candidate_with_its_parts(self, served: Served) -> None:
        auction_id = served.fill(request()).auction_id
        (place,) = served.server.receipt(auction_id, None).placements
        seen = {one.bid_id: one for one in place.candidates}
        assert set(seen) == {"bid_1", "bid_2", "bid_3", "bid_4", "bid_5"}
        won = seen["bid_1"]
        assert (won.slot_position, won.rank, won.loss_reason) == (1, 1, 0)
        assert won.critical_micros == pytest.approx(2_000_000, abs=1)
        assert (seen["bid_2"].loss_reason, seen["bid_2"].rank) == (LossReason.OUTBID, 2)
        assert seen["bid_4"].loss_reason == LossReason.BID_PAUSED
        assert seen["bid_5"].loss_reason == LossReason.PRODUCT_PLACED
        assert all(one.loss_words for one in place.candidates)

    def test_an_advertiser_sees_its_own_and_nobody_elses_bid_or_price(self, served: Served) -> None:
        auction_id = served.fill(request()).auction_id
        receipt = served.server.receipt(auction_id, "adv_b")
        (place,) = receipt.placements
        (own,) = place.candidates
        assert (own.bid_id, own.rank, own.loss_reason) == ("bid_2", 2, LossReason.OUTBID)
        assert own.least_winning_bid_micros == 3_050_000
        text = msgspec.json.encode(receipt)
        for other in (b"bid_1", b"bid_3", b"adv_a", b"adv_c", b"cmp_a", b"p1"):
            assert other not in text

    def test_the_bid_quoted_would_have_won_and_two_steps_less_would_not(self, served: Served) -> None:
        auction_id = served.fill(request()).auction_id
        (place,) = served.server.receipt(auction_id, "adv_c").placements
        least = {one.bid_id: one.least_winning_bid_micros for one in place.candidates}["bid_3"]
        assert least is not None
        for amount, wins in ((least, True), (least - 100_000, False)):
            bids = [*THREE[:2], bid("bid_3", ["p3"], amount, "cmp_c")]
            again = Served(source(bids=bids, placements=[placement(slot_count=1)]))
            fills = again.fill(request()).placements[0].fills
            assert (fills[0].bid_id == "bid_3") == wins

    def test_an_advertiser_without_a_candidate_is_told_nothing(self, tmp_path: Path) -> None:
        served = Served(source(bids=THREE[:2]), tmp_path)
        auction_id = served.fill(request()).auction_id
        with pytest.raises(AuctionUnknown):
            served.server.receipt(auction_id, "adv_c")

    def test_the_winner_sees_its_price(self, served: Served) -> None:
        response = served.fill(request())
        (place,) = served.server.receipt(response.auction_id, "adv_a").placements
        won = next(one for one in place.candidates if one.slot_position == 1)
        assert won.clearing_price_micros == response.placements[0].fills[0].clearing_price_micros

    def test_a_receipt_holds_no_visitor(self, served: Served, tmp_path: Path) -> None:
        from affinity.navigation import Consent

        served.fill(request(visitor_id="visitor-0815", consent=Consent(personalised=True)))
        served.server.receipts.write()
        written = b"".join(path.read_bytes() for path in list_segments(tmp_path))
        assert written
        assert b"visitor-0815" not in written
        assert served.visitors.pseudonym("visitor-0815") not in written


class TestCaps:
    def test_why_a_brand_or_the_sponsored_maximum_kept_a_candidate_out(self, tmp_path: Path) -> None:
        products = [product(f"p{n}", brand="Acme") for n in (1, 2)] + [product("p3"), product("p4")]
        bids = [bid(f"bid_{n}", [f"p{n}"], (9 - n) * 1_000_000, f"cmp_{'aabc'[n - 1]}") for n in (1, 2, 3, 4)]
        place = placement(slot_count=3, brand_max=1, sponsored_max=2)
        served = Served(source(products=products, bids=bids, placements=[place]), tmp_path)
        auction_id = served.fill(request()).auction_id
        (seen,) = served.server.receipt(auction_id, None).placements
        reasons = {one.bid_id: one.loss_reason for one in seen.candidates}
        assert reasons["bid_1"] == reasons["bid_3"] == LossReason.WON
        assert reasons["bid_2"] == LossReason.BRAND_CAP
        assert reasons["bid_4"] == LossReason.SPONSORED_CAP


class TestKeeping:
    def test_unknown_and_malformed_ids_are_unknown(self, tmp_path: Path) -> None:
        served = Served(source(bids=THREE), tmp_path)
        served.fill(request())
        for auction_id in ("auc_1", "", "auc_" + "u" * 26, new_id("auc", NOW_MS, bytes(range(10)))):
            with pytest.raises(AuctionUnknown):
                served.server.receipt(auction_id, None)

    def test_disk_is_bounded_and_what_was_dropped_is_gone(self, tmp_path: Path) -> None:
        settings = Settings(receipt_bytes_max=60_000, receipt_segment_bytes=10_000)
        served = Served(source(bids=THREE), tmp_path, settings)
        first = served.fill(request()).auction_id
        assert served.server.receipt(first, None).auction_id == first
        last = first
        for _ in range(300):
            served.clock.now_ms += 10
            last = served.fill(request()).auction_id
            served.server.receipts.write()
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 60_000 + 10_000
        assert served.server.receipt(last, None).auction_id == last
        with pytest.raises(AuctionGone):
            served.server.receipt(first, None)

    def test_auctions_with_a_paid_fill_are_kept_first(self, tmp_path: Path) -> None:
        settings = Settings(receipt_bytes_max=60_000, receipt_segment_bytes=5_000)
        served = Served(source(bids=THREE), tmp_path, settings)
        paid: list[str] = []
        unpaid: list[str] = []
        for _ in range(40):
            served.clock.now_ms += 10
            served.server.paid_pause_reason = None
            paid.append(served.fill(request()).auction_id)
            for _ in range(8):
                served.clock.now_ms += 10
                served.server.paid_pause_reason = "events_unwritable"
                unpaid.append(served.fill(request()).auction_id)
            served.server.receipts.write()
        assert sum(path.stat().st_size for path in tmp_path.glob("*.receipts")) <= 60_000
        for auction_id in paid:
            assert served.server.receipt(auction_id, None).auction_id == auction_id
        with pytest.raises(AuctionGone):
            served.server.receipt(unpaid[0], None)
        assert served.server.receipt(unpaid[-1], None).auction_id == unpaid[-1]

        served.server.paid_pause_reason = None  # and where there is no room even for those, the oldest go
        for _ in range(80):
            served.clock.now_ms += 10
            paid.append(served.fill(request()).auction_id)
            served.server.receipts.write()
        assert sum(path.stat().st_size for path in tmp_path.glob("*.receipts")) <= 60_000
        with pytest.raises(AuctionGone):
            served.server.receipt(paid[0], None)
        assert served.server.receipt(paid[-1], None).auction_id == paid[-1]
        never_held = new_id("auc", served.clock.now_ms, bytes(range(10)))
        with pytest.raises(AuctionUnknown):
            served.server.receipt(never_held, None)

    def test_what_was_dropped_stays_gone_after_a_start(self, tmp_path: Path) -> None:
        settings = Settings(receipt_bytes_max=20_000, receipt_segment_bytes=5_000)
        served = Served(source(bids=THREE), tmp_path, settings)
        first = served.fill(request()).auction_id
        for _ in range(60):
            served.clock.now_ms += 10
            last = served.fill(request()).auction_id
            served.server.receipts.write()
        again = Served(source(bids=THREE), tmp_path, settings)
        with pytest.raises(AuctionGone):
            again.server.receipt(first, None)
        assert again.server.receipt(last, None).auction_id == last
        kept = list_segments(tmp_path)
        again.clock.now_ms = first_ms(kept[-1])
        again.fill(request())
        again.server.receipts.write()
        assert len(list_segments(tmp_path)) == len(kept) + 1, "a segment another run began is not written to"
        assert again.server.receipt(last, None).auction_id == last

    def test_while_the_queue_is_half_full_only_paid_auctions_are_taken(self, tmp_path: Path) -> None:
        served = Served(source(bids=THREE), tmp_path, Settings(receipt_queue_max=4))
        for is_paid in (False, False, False, True, True, True):
            served.server.paid_pause_reason = None if is_paid else "events_unwritable"
            served.fill(request())
        assert (served.server.receipts.waiting_count, served.server.receipts.dropped_count) == (4, 2)
        served.server.receipts.write()
        assert [path.stem.endswith("unpaid") for path in list_segments(tmp_path)] == [True, False]
        assert [len(list(read_segment(path))) for path in list_segments(tmp_path)] == [2, 2]

    def test_a_receipt_is_found_by_reading_it_and_not_its_segment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served = Served(source(bids=THREE), tmp_path)
        auctions = [served.fill(request()).auction_id for _ in range(50)]
        log = served.server.receipts
        assert log.find(auctions[0]) is not None
        sizes: list[int] = []
        read = os.pread

        def counted(descriptor: int, size: int, place: int) -> bytes:
            sizes.append(size)
            return read(descriptor, size, place)

        monkeypatch.setattr(os, "pread", counted)
        assert log.find(auctions[30]) is not None
        assert len(sizes) == 1, "what was looked through once is not looked through again"
        auctions.append(served.fill(request()).auction_id)
        assert log.find(auctions[-1]) is not None
        assert len(sizes) == 3, "only what is new"

    def test_another_processes_receipts_are_found_while_it_writes(self, tmp_path: Path) -> None:
        served = Served(source(bids=THREE), tmp_path)
        reader = ReceiptLog(tmp_path, Settings(), "1")
        for _ in range(3):
            auction_id = served.fill(request()).auction_id
            assert reader.find(auction_id) is None
            served.server.receipts.write()
            found = reader.find(auction_id)
            assert found is not None
            assert {offer.bid_id for offer in found.offers.values()} == {"bid_1", "bid_2", "bid_3"}

    def test_every_kept_receipt_is_found_across_segments(self, tmp_path: Path) -> None:
        served = Served(source(bids=THREE), tmp_path, Settings(receipt_segment_bytes=3_000))
        auctions = []
        for _ in range(40):
            served.clock.now_ms += 7
            auctions.append(served.fill(request()).auction_id)
            served.server.receipts.write()
        assert len(list_segments(tmp_path)) > 3
        for auction_id in auctions:
            assert served.server.receipt(auction_id, None).auction_id == auction_id

    def test_segments_of_some_time_hold_every_receipt_of_it_and_few_others(self, tmp_path: Path) -> None:
        served = Served(source(bids=THREE), tmp_path, Settings(receipt_segment_bytes=3_000))
        for number in range(60):
            served.server.paid_pause_reason = "events_unwritable" if number % 3 == 0 else None
            served.fill(request())
            served.server.receipts.write()
            served.clock.now_ms += 30_000
        everything = list(read_receipts(tmp_path))
        for since, until in ((10, 20), (0, 5), (50, 90), (30, 31)):
            from_ms, until_ms = NOW_MS + since * 30_000, NOW_MS + until * 30_000
            meant = {one.note.auction_id for one in everything if from_ms <= one.note.held_at_ms < until_ms}
            paths = segments_between(tmp_path, from_ms, until_ms)
            assert meant <= {one.note.auction_id for path in paths for one in read_segment(path)}
            assert len(paths) < len(list_segments(tmp_path))
        assert segments_between(tmp_path, None, None) == list_segments(tmp_path)

    def test_a_torn_record_ends_a_segment_and_harms_nothing_before_it(self, tmp_path: Path) -> None:
        served = Served(source(bids=THREE), tmp_path)
        ids = [served.fill(request()).auction_id for _ in range(3)]
        served.server.receipts.write()
        (segment,) = list_segments(tmp_path)
        whole = segment.read_bytes()
        segment.write_bytes(whole[:-5])
        told: list[str] = []
        assert len(list(read_receipts(tmp_path, told.append))) == 2
        assert told[0].startswith(f"{segment.name} is torn at byte ")
        for size in range(len(whole)):  # wherever it is torn, nothing is made up and nothing fails
            segment.write_bytes(whole[:size])
            assert len(list(read_segment(segment))) <= 2
            log = ReceiptLog(tmp_path, Settings())
            assert log.find(ids[2]) is None
            assert (log.find(ids[0]) is None) == (size < whole.index(ids[1].encode()) - 5)

    def test_a_segment_of_another_version_is_told_and_not_read(self, tmp_path: Path) -> None:
        served = Served(source(bids=THREE), tmp_path)
        auction_id = served.fill(request()).auction_id
        served.server.receipts.write()
        (segment,) = list_segments(tmp_path)
        segment.write_bytes(segment.read_bytes().replace(HEAD, b"endcap receipts 9\n"))
        told: list[str] = []
        assert list(read_receipts(tmp_path, told.append)) == []
        assert told == [f"{segment.name} was written by another version, or is no segment of receipts: it is not read."]
        with pytest.raises(AuctionUnknown):
            served.server.receipt(auction_id, None)

    def test_a_damaged_record_ends_a_segment_and_is_told(self, tmp_path: Path) -> None:
        served = Served(source(bids=THREE), tmp_path)
        ids = [served.fill(request()).auction_id for _ in range(3)]
        served.server.receipts.write()
        (segment,) = list_segments(tmp_path)
        content = bytearray(segment.read_bytes())
        content[content.rindex(ids[1].encode()) - 1] = 0xC1  # a byte MessagePack never has
        segment.write_bytes(content)
        told: list[str] = []
        assert len(list(read_receipts(tmp_path, told.append))) == 1
        assert told == [f"{segment.name} is damaged: record 3 cannot be read, nor what follows it."]
        with pytest.raises(AuctionUnknown):
            served.server.receipt(ids[1], None)
        assert served.server.receipt(ids[2], None).auction_id == ids[2]

    def test_a_full_queue_drops_and_counts(self, tmp_path: Path) -> None:
        served = Served(source(bids=THREE), tmp_path, Settings(receipt_queue_max=2))
        for _ in range(5):
            served.fill(request())
        assert served.server.receipts.dropped_count == 3

    def test_a_disk_that_refuses_drops_and_counts(self, tmp_path: Path) -> None:
        served = Served(source(bids=THREE), tmp_path)
        served.fill(request())
        served.server.receipts.write()
        for path in tmp_path.iterdir():
            path.unlink()
        tmp_path.rmdir()
        served.fill(request())
        served.server.receipts.write()
        assert (served.server.receipts.dropped_count, served.server.receipts.written_count) == (1, 1)
        assert served.server.metrics.receipt_counts() == (1, 1)

    def test_auctions_without_a_paid_fill_are_kept_by_setting(self, tmp_path: Path) -> None:
        served = Served(source(), tmp_path, Settings(unbilled_receipt_ppm=0))
        served.fill(request())
        assert served.server.receipts.waiting_count == 0

    def test_an_auctions_id_tells_its_time(self) -> None:
        assert time_of(new_id("auc", NOW_MS, bytes(10))) == NOW_MS
        assert time_of("bid_" + "0" * 26) is None


def test_a_page_filled_for_the_most_worth_is_decided_again_as_it_was(tmp_path: Path) -> None:
    """The second auction has no time for it: its receipt says so, and is replayed greedily."""
    large = large_source(3_000, product_count=300, advertiser_count=30)
    exact = [msgspec.structs.replace(one, allocation="exact", pricing="vcg") for one in large.placements]
    served = Served(msgspec.structs.replace(large, placements=exact), tmp_path)
    names = served.server.market.snapshot.names
    used = []
    for number, category in enumerate(names.category[:40]):
        hurry = {"tmax_ms": 1} if number % 4 == 3 else {}
        answer = served.fill(request(Page(type="category", category_id=category), **hurry))
        assert answer.placements[0].fills or hurry
        used.append(served.server.receipt(answer.auction_id, None).allocation)
    assert set(used) == {"greedy", "exact"}
    for receipt in read_receipts(tmp_path):
        again = replay_receipt(receipt)
        for name in OutcomeArrays._fields:
            assert np.array_equal(getattr(again, name), getattr(receipt.outcome, name)), name


def test_a_receipt_holds_both_prices_whichever_was_billed(tmp_path: Path) -> None:
    for pricing in ("critical", "vcg", "first"):
        attention = Attention(click=[1000, 500], impression=[1000, 500])
        slots = placement(slot_count=2, attention_permille=attention, pricing=pricing)
        served = Served(source(placements=[slots], bids=THREE), tmp_path / pricing)
        answer = served.fill(request())
        receipt = served.server.receipt(answer.auction_id, None)
        won = next(one for one in receipt.placements[0].candidates if one.slot_position == 1)
        assert won.vcg_micros < won.critical_micros < won.bid_micros
        billed = {"critical": won.critical_micros, "vcg": won.vcg_micros, "first": won.bid_micros}[pricing]
        assert answer.placements[0].fills[0].clearing_price_micros == billed


def test_a_receipt_of_two_placements_keeps_them_apart(tmp_path: Path) -> None:
    places = [placement("top", 1), placement("side", 1)]
    served = Served(source(placements=places, bids=THREE), tmp_path)
    asked = request(Page(type="home"), placements=[RequestPlacement(placement_id=name) for name in ("top", "side")])
    receipt = served.server.receipt(served.fill(asked).auction_id, None)
    assert [place.placement_id for place in receipt.placements] == ["top", "side"]
    assert [len(place.candidates) for place in receipt.placements] == [3, 3]


def test_every_reason_has_words() -> None:
    assert set(WORDS) == set(LossReason)
