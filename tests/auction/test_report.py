"""The report: a page whose figures anyone can work out, and regret that is what another bid would have gained."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affinity.kinds import ProductAttributes
from affinity.model import BoundModel, neutral_model
from auction.explanation import clearing_price
from auction.kernel import BID_MICROS_MAX
from auction.placement import Attention, Floors
from auction.receipt import Receipt, read_receipts
from auction.report import AuctionReport, expected_events, prices_by_level, regret_of, report_receipts
from auction.request import Page, RequestPlacement
from ledger.terms import ChargeOn
from tests.auction.pages import crowded_pages
from tests.auction.receipts import hold, receipt_of
from tests.auction.servers import Served
from tests.auction.worlds import NOW_MS, bid, campaign, placement, product, request, source

QUALITY = {"p1": 50_000, "p2": 80_000, "p3": 50_000, "p4": 60_000}
LEVELS = Attention(click=[1000, 600, 400], impression=[1000, 600, 400])


def bind(product_ids: Sequence[str], _: ProductAttributes) -> BoundModel:
    bound = neutral_model(product_ids)
    bound.base_quality_ppm = np.array([QUALITY.get(one, 10_000) for one in product_ids], np.int64)
    return bound


def mechanisms_page(folder: Path, **changes: Any) -> Served:
    """The page of docs/mechanism.md: four products bid 2.00, 1.00, 1.20 and 0.50 a click for three slots."""
    amounts = {"a": 2_000_000, "b": 1_000_000, "c": 1_200_000, "d": 500_000}
    advertisers = [f"adv_{letter}" for letter in amounts]
    served = Served(
        source(
            products=[product(f"p{number}", advertiser_ids=advertisers) for number in range(1, 5)],
            advertiser_names={name: name for name in advertisers},
            campaigns=[campaign(f"cmp_{letter}", f"adv_{letter}") for letter in amounts],
            bids=[
                bid(f"bid_{letter}", [f"p{number}"], amount, f"cmp_{letter}")
                for number, (letter, amount) in enumerate(amounts.items(), 1)
            ],
            placements=[placement("top", 3, attention_permille=LEVELS, **changes)],
        ),
        folder,
    )
    served.server.swap_model(bind)
    return served


def reported(served: Served, folder: Path, **times: int) -> AuctionReport:
    served.server.receipts.write()
    return report_receipts(read_receipts(folder), **times)


class TestKnownAnswers:
    def test_revenue_shares_and_regret_of_the_documents_page(self, tmp_path: Path) -> None:
        served = mechanisms_page(tmp_path)
        for _ in range(10):
            served.fill(request())
        report = reported(served, tmp_path)
        (top,) = report.placements
        assert (report.receipt_count, report.currency, top.name) == (10, "EUR", "top")
        assert (top.auctions, top.slots, top.fills, top.sponsored_fills) == (10, 30, 30, 30)
        assert (top.fill_rate, top.sponsored_share, top.floor_click_share) == (1.0, 1.0, 0.0)
        # 1.60, 0.75 and 0.60 a click, of 0.05, 0.048 and 0.02 clicks expected: 0.08 + 0.036 + 0.012 a page.
        assert top.expected_revenue_micros == pytest.approx(1_280_000, abs=2)
        # Of bids of 2.00, 1.00 and 1.20: 0.1 + 0.048 + 0.024.
        assert top.price_over_bid == pytest.approx(0.128 / 0.172, abs=1e-5)
        # A would rather have had the third slot at 0.60 (0.4 × 1.40) than the first at 1.60 (0.40), and B at 0.375.
        assert top.regret_micros == pytest.approx(10 * (0.05 * 160_000 + 0.08 * 100_000), abs=10)
        regrets = {line.name: line.regret_micros for line in report.advertisers}
        assert regrets == {
            "adv_a": pytest.approx(80_000, abs=5),
            "adv_b": pytest.approx(80_000, abs=5),
            "adv_c": 0,
            "adv_d": 0,
        }
        d = next(line for line in report.advertisers if line.name == "adv_d")
        assert (d.auctions, d.slots, d.fills, d.fill_rate, d.sponsored_share) == (10, 30, 0, 0.0, 0.0)
        assert (d.price_over_bid, d.floor_click_share, d.regret_share) == (None, None, None)

    def test_under_vcg_there_is_no_regret_and_under_first_price_all_of_it(self, tmp_path: Path) -> None:
        for pricing, regret_share in (("vcg", 0.0), ("first", (0.05 * 0.56 + 0.08 * 0.25 + 0.05 * 0.24) / 0.172)):
            folder = tmp_path / pricing
            served = mechanisms_page(folder, pricing=pricing)
            served.fill(request())
            (top,) = reported(served, folder).placements
            assert top.regret_share == pytest.approx(regret_share, abs=1e-5)
            assert (top.price_over_bid == 1.0) == (pricing == "first")

    def test_a_price_at_the_floor_is_counted_by_its_clicks(self, tmp_path: Path) -> None:
        served = mechanisms_page(tmp_path, floor_micros=Floors(click=700_000))
        served.fill(request())
        (top,) = reported(served, tmp_path).placements
        # The third slot is at the floor, with 0.02 of 0.118 clicks.
        assert top.floor_click_share == pytest.approx(0.02 / 0.118, abs=1e-5)

    def test_impressions_count_by_their_own_attention(self, tmp_path: Path) -> None:
        served = Served(
            source(
                bids=[bid("bid_1", ["p1"], 8_000_000, charge_on=ChargeOn.IMPRESSION)],
                placements=[
                    placement(
                        slot_count=1,
                        attention_permille=Attention(click=[1000], impression=[500]),
                        floor_micros=Floors(impression=4_000_000),
                    )
                ],
            ),
            tmp_path,
        )
        served.fill(request())
        (line,) = reported(served, tmp_path).advertisers
        assert (line.expected_revenue_micros, line.price_over_bid, line.floor_click_share) == (2_000, 0.5, 1.0)

    def test_organic_fills_are_fills_and_cost_nothing(self, tmp_path: Path) -> None:
        served = Served(
            source(bids=[bid("bid_1", ["p1"], 9_000_000)], placements=[placement("top", 2), placement("side", 1)]),
            tmp_path,
        )
        asked = [RequestPlacement(placement_id=name) for name in ("top", "side")]
        served.fill(request(Page(type="home"), mode="merchandised", placements=asked))
        report = reported(served, tmp_path)
        lines = {line.name: line for line in report.placements}
        assert {name: (line.fills, line.fill_rate) for name, line in lines.items()} == {
            "top": (2, 1.0),
            "side": (1, 1.0),
        }
        assert sum(line.sponsored_fills for line in lines.values()) == 1
        (a,) = report.advertisers
        assert (a.auctions, a.slots, a.fills, a.sponsored_share) == (1, 3, 1, 1.0)

    def test_only_auctions_of_the_time_asked_for_count(self, tmp_path: Path) -> None:
        served = mechanisms_page(tmp_path)
        for _ in range(4):
            served.fill(request())
            served.clock.now_ms += 1_000
        assert reported(served, tmp_path, from_ms=NOW_MS + 1_000, until_ms=NOW_MS + 3_000).receipt_count == 2
        assert reported(served, tmp_path, until_ms=NOW_MS).placements == []


def lone_winners(receipt: Receipt) -> list[int]:
    """Slots won by advertisers with one candidate on the page."""
    counts = Counter(offer.advertiser_id for offer in receipt.offers.values())
    slots = []
    for slot, row in enumerate(receipt.outcome.winner_row.tolist()):
        if row >= 0 and receipt.offer_row[row] >= 0:
            offer = receipt.offers[int(receipt.offer_row[row])]
            slots += [slot] if counts[offer.advertiser_id] == 1 else []
    return slots


def gain(receipt: Receipt, row: int, value: int) -> int:
    """What a candidate gains, in billionths of a micro, if an event is worth so much to it."""
    won = np.flatnonzero(receipt.outcome.winner_row == row)
    if not len(won):
        return 0
    slot = int(won[0])
    return expected_events(receipt, slot) * (value - clearing_price(receipt, row, slot, receipt.note.places[0]))


@given(crowded_pages)
@settings(max_examples=300, deadline=None)
def test_regret_under_vcg_is_0_for_every_advertiser_with_one_candidate(page: Any) -> None:
    receipt = receipt_of(page, "vcg")
    for slot in lone_winners(receipt):
        assert regret_of(receipt, receipt.note.places[0], slot) <= expected_events(receipt, slot)  # less than a micro


@given(st.sampled_from(["critical", "vcg", "first"]), crowded_pages)
@settings(max_examples=150, deadline=None)
def test_regret_is_what_the_best_other_bid_gains(pricing: str, page: Any) -> None:
    receipt = receipt_of(page, pricing)
    (place,) = receipt.note.places
    for slot in lone_winners(receipt):
        row = int(receipt.outcome.winner_row[slot])
        value = int(receipt.candidates.bid_micros[row])
        held = gain(receipt, row, value)
        gains = [0, held]
        for least in prices_by_level(receipt, slot, "critical").values():
            bids = receipt.candidates.bid_micros.copy()
            bids[row] = least
            changed = receipt.candidates._replace(bid_micros=bids)
            gains.append(gain(hold(msgspec.structs.replace(receipt, candidates=changed)), row, value))
        within = 1_000 * 1_000_000  # a micro for every event there could be
        assert abs(max(gains) - held - regret_of(receipt, place, slot)) <= within


@given(st.sampled_from(["critical", "vcg", "first"]), crowded_pages, st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_a_loser_gains_nothing_by_another_bid(pricing: str, page: Any, tenths: int) -> None:
    receipt = receipt_of(page, pricing)
    counts = Counter(offer.advertiser_id for offer in receipt.offers.values())
    winners = set(receipt.outcome.winner_row.tolist())
    for row, offer_row in enumerate(receipt.offer_row.tolist()):
        if offer_row < 0 or row in winners or counts[receipt.offers[offer_row].advertiser_id] > 1:
            continue
        bids = receipt.candidates.bid_micros.copy()
        value = int(bids[row])
        bids[row] = min(BID_MICROS_MAX, value * tenths // 10 + 1)
        changed = receipt.candidates._replace(bid_micros=bids)
        assert gain(hold(msgspec.structs.replace(receipt, candidates=changed)), row, value) <= 0


@given(crowded_pages)
@settings(max_examples=150, deadline=None)
def test_at_its_own_level_of_attention_a_winner_pays_its_price(page: Any) -> None:
    receipt = receipt_of(page)
    for slot, row in enumerate(receipt.outcome.winner_row.tolist()):
        if row >= 0 and receipt.offer_row[row] >= 0:
            held = int(receipt.page.attention_permille[receipt.candidates.charge_code[row], slot])
            assert prices_by_level(receipt, slot, "critical")[held] == receipt.outcome.critical_micros[slot]
            assert prices_by_level(receipt, slot, "vcg")[held] == receipt.outcome.vcg_micros[slot]


def test_regret_is_common_under_critical_prices() -> None:
    from tests.auction.pages import random_page

    regrets = []
    for seed in range(60):
        receipt = receipt_of(random_page(random.Random(seed)))
        regrets += [regret_of(receipt, receipt.note.places[0], slot) for slot in lone_winners(receipt)]
    assert sum(regret > 0 for regret in regrets) > len(regrets) / 10
