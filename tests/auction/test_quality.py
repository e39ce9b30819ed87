"""Clicks correct what auctions rank and price with: whole, replayable, and so that predictions come true."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from affinity.attention import estimate_attention
from affinity.kinds import ProductAttributes
from affinity.model import BoundModel
from affinity.view import anonymous_view
from affinity.watch import calibration_of
from auction.builder import build_snapshot
from auction.engine import hold_auction, no_deadline
from auction.explanation import explain_to_retailer
from auction.market import Market
from auction.placement import Attention
from auction.quality import (
    PPM,
    WORST_LOSS_PPM,
    OwnQuality,
    PlacementQuality,
    corrected,
    explores,
    exploring_share_ppm,
)
from auction.receipt import read_receipts, replay_receipt
from auction.request import RequestPlacement
from ledger.terms import ChargeOn, ChargeTerms, Micros
from sim.chance import Stream, key_of
from sim.click import PositionBased
from tests.auction.servers import Served
from tests.auction.worlds import NOW_MS, SETTINGS, bid, placement, product, request, source

ATTENTION = [1000, 600, 400]
TRUE_ATTENTION = [1000, 450, 200]
PRODUCTS = [f"p{number:02d}" for number in range(40)]


def shop(**changes: Any) -> Any:
    """Forty products with a bid each; two placements of three slots."""
    chance = Stream(key_of(5, "bids"))
    places = [
        placement(name, 3, attention_permille=Attention(click=ATTENTION, impression=ATTENTION), **changes)
        for name in ("side", "top")
    ]
    return source(
        products=[product(name) for name in PRODUCTS],
        bids=[bid(f"bid_{name}", [name], 500_000 + chance.below(1_000_000)) for name in PRODUCTS],
        placements=places,
    )


def asking(*placement_ids: str, candidates: Any = None) -> Any:
    return request(placements=[RequestPlacement(placement_id=name, candidates=candidates) for name in placement_ids])


class Shoppers:
    """Shoppers who look at slots and click on products as often as they are known to."""

    def __init__(self, served: Served, seen_permille: list[int], seed: int = 1) -> None:
        draw = Stream(key_of(seed, "rates"))
        self.rate_ppm = {name: 10_000 + draw.below(120_000) for name in PRODUCTS}
        self._served, self._model = served, PositionBased(seen_permille)
        self._stream = Stream(key_of(seed, "clicks"))

    def open_page(self, placement_id: str = "top") -> Any:
        """Show ten of the products, so that most stand now here, now there; and answer."""
        some = [name for name in PRODUCTS if self._stream.below(4) == 0]
        response = self._served.fill(asking(placement_id, candidates=some))
        for fill in response.placements[0].fills:
            terms = self._served.keys.redeem_beacon(fill.beacon_token, self._served.clock.now_ms).terms
            self._served.server.count_event(terms, is_click=False)
            answer = self._model.answer(self._stream, fill.slot_position, self.rate_ppm[fill.product_id])
            if answer.is_clicked:
                self._served.server.count_event(terms, is_click=True)
        return response

    def open_pages(self, count: int, every: int, placement_id: str = "top") -> None:
        for number in range(count):
            self.open_page(placement_id)
            if number % every == every - 1:
                self._served.clock.now_ms += 10_000
                self._served.server.learn_now()


def terms(product_id: str, slot_position: int = 1, quality_ppm: int = 10_000, auction: int = 0) -> ChargeTerms:
    return ChargeTerms(
        f"auc_{auction:026d}", "top", slot_position, product_id, True, "adv_a", "cmp_a", "bid_1", ChargeOn.CLICK,
        Micros(1), quality_ppm, bytes(16), None, NOW_MS,
    )  # fmt: skip


class TestLearning:
    def test_a_product_clicked_more_than_predicted_goes_up_and_costs_less_a_click(self) -> None:
        served = Served(source(bids=[bid("b1", ["p1"], 900_000), bid("b2", ["p2"], 1_000_000, "cmp_b")]))
        asked = request(placements=[RequestPlacement(placement_id="top", slot_count=1)])
        assert served.fill(asked).placements[0].fills[0].product_id == "p2"
        for number in range(2_000):
            for name, every in (("p1", 25), ("p2", 100)):
                served.server.count_event(terms(name), is_click=False)
                if number % every == 0:
                    served.server.count_event(terms(name), is_click=True)
        assert served.fill(asked).placements[0].fills[0].product_id == "p2", "nothing changes until it is taken over"
        served.server.learn_now()
        (fill,) = served.fill(asked).placements[0].fills
        promised = served.keys.redeem_beacon(fill.beacon_token, served.clock.now_ms).terms
        assert fill.product_id == "p1"
        assert promised.quality_ppm == pytest.approx(40_000, rel=0.1)
        market = served.server.market
        other_ppm = int(market.quality_of("top", 0).base_quality_ppm[market.snapshot.product_row["p2"]])
        assert other_ppm == pytest.approx(10_000, rel=0.4)
        assert fill.clearing_price_micros == pytest.approx(1_000_000 * other_ppm / promised.quality_ppm, abs=2)

    def test_only_the_placement_that_was_clicked_on_is_corrected(self) -> None:
        served = Served(shop())
        for _ in range(500):
            served.server.count_event(terms("p00"), is_click=False)
        served.server.learn_now()
        market = served.server.market
        row = market.snapshot.product_row["p00"]
        assert market.quality_of("top", 0).base_quality_ppm[row] < 9_000
        side = market.quality_of("side", 0)
        assert len(set(side.base_quality_ppm.tolist())) == 1, "which has the shop's level, and no product its own"
        assert side.base_quality_ppm[0] > market.quality_of("top", 0).base_quality_ppm[row]

    def test_placements_nothing_is_known_of_begin_at_the_shops_level_and_share_it(self) -> None:
        made = shop()
        more = [msgspec.structs.replace(made.placements[0], placement_id=name) for name in ("new", "other")]
        served = Served(msgspec.structs.replace(made, placements=[*made.placements, *more]))
        for number in range(3_000):
            served.server.count_event(terms(PRODUCTS[number % 40]), is_click=False)
            if number % 20 == 0:
                served.server.count_event(terms(PRODUCTS[number % 40]), is_click=True)
        served.server.learn_now()
        market = served.server.market
        assert market.quality_of("new", 0) is market.quality_of("other", 0)
        assert market.quality_of("new", 0).mean_quality_ppm == pytest.approx(50_000, rel=0.1)
        assert set(served.server.market.corrections.of) == {"new", "other", "side", "top"}  # type: ignore[union-attr]

    def test_a_visitors_own_quality_is_corrected_too_placement_by_placement(self) -> None:
        served = Served(shop())
        for _ in range(500):
            served.server.count_event(terms("p07"), is_click=False)
        served.server.learn_now()
        market = served.server.market
        row = market.snapshot.product_row["p07"]
        targets = served.server.served.targets  # type: ignore[union-attr]
        visitor = msgspec.structs.replace(
            anonymous_view(targets),
            product_row=np.array([row], np.int32),
            quality_ppm=np.array([200_000], np.int64),
        )
        asked = asking("side", "top")
        outcome = hold_auction(asked, "auc", market, visitor, served.server.spend, no_deadline(NOW_MS), 1, SETTINGS)
        found = market.scratch.found
        quality = {
            int(entry["place"]): int(entry["quality_ppm"])
            for entry, code in zip(
                found.entry[: outcome.candidate_count],
                found.candidate.product_code[: outcome.candidate_count],
                strict=True,
            )
            if code == row
        }
        factors = [int(market.quality_of(name, 1).factor_ppm[row]) for name in ("side", "top")]
        assert factors[0] > factors[1]
        assert quality == {place: 200_000 * factor // PPM for place, factor in enumerate(factors)}
        assert not market.scratch.mark["own_quality_ppm"].any(), "and nothing of it is left behind"

    def test_what_was_learnt_survives_another_snapshot_and_another_model(self) -> None:
        served = Served(shop())
        for number in range(2_000):
            served.server.count_event(terms("p03"), is_click=False)
            if number % 20 == 0:
                served.server.count_event(terms("p03"), is_click=True)
        served.server.learn_now()
        row = served.server.market.snapshot.product_row["p03"]
        before = int(served.server.market.quality_of("top", 0).base_quality_ppm[row])
        assert before == pytest.approx(50_000, rel=0.1)
        served.server.swap(build_snapshot(shop()))
        assert int(served.server.market.quality_of("top", 0).base_quality_ppm[row]) == before

        def twice(product_ids: Any, _: ProductAttributes) -> BoundModel:
            return BoundModel(product_ids, np.full(len(product_ids), 20_000, np.int64))

        served.server.swap_model(twice)
        served.server.count_event(terms("p05"), is_click=False)
        served.server.learn_now()
        after = int(served.server.market.quality_of("top", 0).base_quality_ppm[row])
        assert after == pytest.approx(before, rel=0.1), "the same clicks, beside other predictions"

    def test_the_search_still_stops_at_the_right_place(self) -> None:
        """Bounds rise with the corrections: the answer is that of looking at everything."""
        chance = Stream(key_of(9, "bids"))
        names = [f"p{number:03d}" for number in range(400)]
        offered = {name: 500_000 + chance.below(1_000_000) for name in names}
        many = source(
            products=[product(name) for name in names],
            bids=[
                bid(f"bid_{name}", [name], micros, f"cmp_{'abc'[row % 3]}")
                for row, (name, micros) in enumerate(offered.items())
            ],
            placements=[placement(slot_count=2)],
        )
        served = Served(many)
        cheapest = sorted(names, key=offered.__getitem__)[:2]
        for name in names:
            for number in range(60):
                served.server.count_event(terms(name), is_click=False)
                if number == 0 or (number < 20 and name in cheapest):
                    served.server.count_event(terms(name), is_click=True)
        served.server.learn_now()
        market = served.server.market
        quality = market.quality_of("top", 0).base_quality_ppm
        best = sorted(names, key=lambda name: -offered[name] * int(quality[market.snapshot.product_row[name]]))[:2]
        assert set(best) == set(cheapest)
        fills = served.fill(request()).placements[0].fills
        assert [fill.product_id for fill in fills] == best

    @pytest.mark.parametrize("snapshot_first", [True, False])
    def test_a_snapshot_made_ready_beside_corrections_gets_them_too(self, snapshot_first: bool) -> None:
        served = Served(shop())
        for _ in range(500):
            served.server.count_event(terms("p02"), is_click=False)
        clicks = served.server.read_clicks(NOW_MS)
        assert clicks is not None
        learnt, ready = served.server.learn(clicks), served.server.prepare(build_snapshot(shop()))
        if snapshot_first:
            served.server.take(ready)
            served.server.take_learnt(learnt)
        else:
            served.server.take_learnt(learnt)
            served.server.take(ready)
        assert served.server.is_outdated
        assert served.server.market.quality_of("top", 0) is served.server.market.quality
        served.server.learn_now()
        assert not served.server.is_outdated
        row = served.server.market.snapshot.product_row["p02"]
        assert served.server.market.quality_of("top", 0).base_quality_ppm[row] < 9_000

    def test_every_page_reads_what_was_learnt_last(self) -> None:
        served = Served(shop())
        for number in range(12):
            served.server.count_event(terms("p04"), is_click=number % 3 == 0)
            served.server.learn_now()
            market = served.server.market
            base = market.quality_of("top", 0).base_quality_ppm
            for fill in served.fill(asking("top")).placements[0].fills:
                promised = served.keys.redeem_beacon(fill.beacon_token, served.clock.now_ms).terms
                assert promised.quality_ppm == base[market.snapshot.product_row[fill.product_id]]
            assert market.scratch.book_count <= 2, "what is no longer read is let go of"

    def test_on_simulated_clicks_predictions_come_true_and_attention_is_found(self) -> None:
        served = Served(shop())
        shoppers = Shoppers(served, TRUE_ATTENTION)
        shoppers.open_pages(12_000, every=400)
        (watched,) = served.server.counters.watched()
        seen = calibration_of(watched)
        assert seen.clicks > 1_000
        assert seen.is_sound, seen
        (clicks,) = served.server.counters.read(served.clock.now_ms).placements
        first, second, third = estimate_attention(clicks, ATTENTION)
        assert first.estimate_permille == 1000
        for slot, true in ((second, 450), (third, 200)):
            assert slot.low_permille is not None
            assert slot.high_permille is not None
            assert slot.low_permille * 0.95 <= true <= slot.high_permille * 1.05, slot


class TestExploring:
    def test_off_means_every_auction_reads_what_is_expected(self, tmp_path: Path) -> None:
        served = Served(shop(), tmp_path)
        Shoppers(served, ATTENTION).open_pages(300, every=50)
        assert served.server.receipts is not None
        served.server.receipts.write()
        places = [place for receipt in read_receipts(tmp_path) for place in receipt.note.places]
        assert {(place.is_drawn, place.propensity_ppm) for place in places} == {(False, PPM)}

    def test_the_share_that_explores_is_what_its_cost_allows_and_each_receipt_says_how_likely_it_was(
        self, tmp_path: Path
    ) -> None:
        share_ppm = exploring_share_ppm(100_000)
        assert share_ppm == 100_000 * PPM // WORST_LOSS_PPM == 133_333
        served = Served(shop(exploration_cost_ppm=100_000), tmp_path)
        Shoppers(served, ATTENTION).open_pages(3_000, every=100)
        assert served.server.receipts is not None
        served.server.receipts.write()
        receipts = [one for one in read_receipts(tmp_path) if one.note.quality_version > 0]
        drawn = [place.is_drawn for one in receipts for place in one.note.places]
        assert 0.11 <= sum(drawn) / len(drawn) <= 0.16
        for one in receipts:
            (place,) = one.note.places
            assert place.propensity_ppm == (share_ppm if place.is_drawn else PPM - share_ppm)
            assert place.is_drawn == explores(one.note.tie_seed, share_ppm)
            again = replay_receipt(one)
            assert np.array_equal(again.winner_row, one.outcome.winner_row)
            assert np.array_equal(again.critical_micros, one.outcome.critical_micros)
            assert np.array_equal(again.threshold_micros, one.outcome.threshold_micros)
        seen = explain_to_retailer(receipts[0])
        assert (seen.quality_version, seen.placements[0].propensity_ppm) == (  # type: ignore[union-attr]
            receipts[0].note.quality_version,
            receipts[0].note.places[0].propensity_ppm,
        )

    def test_what_is_drawn_hangs_on_no_bid(self) -> None:
        factors = []
        for factor in (1, 3):
            made = shop(exploration_cost_ppm=50_000)
            dearer = [msgspec.structs.replace(one, bid_micros=one.bid_micros * factor) for one in made.bids]
            served = Served(msgspec.structs.replace(made, bids=dearer))
            for _ in range(50):
                served.server.count_event(terms("p01"), is_click=False)
            served.server.learn_now()
            factors.append(served.server.market.quality_of("top", 0xFFFF_FFFF).factor_ppm.tolist())
        assert factors[0] == factors[1]
        assert len(set(factors[0])) > 20, "every product is drawn, also those without a showing"

    def test_prices_are_thresholds_of_the_drawn_quality(self) -> None:
        """Whoever bids the price keeps its slot, whoever bids a micro less does not; the seed is the same."""
        made = shop(exploration_cost_ppm=100_000)
        served = Served(made)
        served.server.count_event(terms("p01"), is_click=False)
        served.server.learn_now()
        seed = 0xFFFF_FFFF  # explores
        corrections = served.server.market.corrections

        def winner_of_slot_1(bids: Any) -> tuple[str, int]:
            snapshot = build_snapshot(msgspec.structs.replace(made, bids=bids))
            market = Market(snapshot, BoundModel(snapshot.product_id, np.full(40, 10_000, np.int64)), corrections)
            assert market.quality_of("top", seed).is_drawn
            view = anonymous_view(served.server.served.targets)  # type: ignore[union-attr]
            served.server.spend.bind(snapshot)
            served.server.spend.refresh(NOW_MS)
            spend = served.server.spend
            decisions = (
                hold_auction(request(), "auc", market, view, spend, no_deadline(NOW_MS), seed, SETTINGS)
                .places[0]
                .decisions
            )
            return snapshot.product_id[decisions[0].product_row], decisions[0].price_micros

        bids = [
            msgspec.structs.replace(one, campaign_id=f"cmp_{'abc'[row % 3]}", advertiser_id=f"adv_{'abc'[row % 3]}")
            for row, one in enumerate(made.bids)
        ]
        winner, price = winner_of_slot_1(bids)

        def with_bid(micros: int) -> Any:
            own = next(one for one in bids if one.product_ids == [winner])
            return [
                msgspec.structs.replace(one, bid_micros=micros) if one is own else one
                for one in bids
                if one is own or one.advertiser_id != own.advertiser_id
            ]

        assert winner_of_slot_1(with_bid(price)) == (winner, price)
        assert winner_of_slot_1(with_bid(price - 1))[0] != winner

    def test_a_page_that_explores_gives_up_no_more_than_it_may(self) -> None:
        served = Served(shop(exploration_cost_ppm=100_000))
        shoppers = Shoppers(served, ATTENTION)
        shoppers.open_pages(500, every=50)
        market = served.server.market
        expected = market.quality_of("top", 0).base_quality_ppm
        bids = dict(zip(PRODUCTS, _offered(), strict=True))

        def worth(tie_seed: int) -> int:
            view = anonymous_view(served.server.served.targets)  # type: ignore[union-attr]
            outcome = hold_auction(
                request(), "auc", market, view, served.server.spend, no_deadline(NOW_MS), tie_seed, SETTINGS
            )
            return sum(
                ATTENTION[one.slot_position - 1] * bids[PRODUCTS[one.product_row]] * int(expected[one.product_row])
                for one in outcome.places[0].decisions
            )

        losses = []
        for _ in range(40):
            shoppers.open_page()
            served.server.learn_now()
            market = served.server.market
            expected = market.quality_of("top", 0).base_quality_ppm
            losses.append(1 - worth(0xFFFF_FFFF) / worth(0))
        assert 0 < max(losses) <= WORST_LOSS_PPM / PPM
        share = exploring_share_ppm(100_000) / PPM
        assert share * np.mean(losses) <= 0.1


def _offered() -> list[int]:
    chance = Stream(key_of(5, "bids"))
    return [500_000 + chance.below(1_000_000) for _ in PRODUCTS]


def test_marks_are_set_once_for_each_placements_qualities_and_taken_away() -> None:
    served = Served(shop())
    own = OwnQuality(served.server.market.scratch.mark)
    mark = served.server.market.scratch.mark
    plain = served.server.market.quality
    halved = msgspec.structs.replace(plain, factor_ppm=np.full(40, 500_000, np.int64))
    assert isinstance(halved, PlacementQuality)
    visitor = msgspec.structs.replace(
        anonymous_view(served.server.served.targets),  # type: ignore[union-attr]
        product_row=np.array([1, 3], np.int32),
        quality_ppm=np.array([100_000, 1], np.int64),
    )
    own.begin(visitor)
    seen = []
    for quality in (plain, halved, plain):
        own.turn_to(quality)
        seen.append(mark["own_quality_ppm"][[1, 3]].tolist())
    own.end()
    assert seen == [[100_000, 1], [50_000, 1], [100_000, 1]]
    assert not mark["own_quality_ppm"].any()
    assert corrected(np.array([1, 900_000]), np.array([10_000, 2_000_000])).tolist() == [1, PPM]
