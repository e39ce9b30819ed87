"""Recorded auctions come back bit for bit; under a change, what replay says is what the engine would have done."""

import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import sim.replay
from affinity.product_target import Target
from auction.builder import SnapshotSource
from auction.explanation import explain_to_retailer
from auction.kernel import GROUP_FIRST_FREE, OutcomeArrays
from auction.loss import LossReason
from auction.receipt import Receipt, read_receipts, replay_receipt
from auction.request import Page, RequestPlacement
from auction.retailer_rule import Effect, Pin, Scope
from auction.segment import HEAD, list_segments
from ledger.terms import ChargeOn
from sim.errors import ReplayRefused
from sim.replay import Changes, ReplayResult, apply_changes, billed_micros, read_changes, replay, replay_receipts
from sim.result import RunResult
from sim.run import run_timed
from tests.auction.servers import Served
from tests.auction.worlds import bid, placement, product, request, rule, source
from tests.sim.test_market import TINY, tiny

STEADY = [
    {"policy": "truthful", "count": 4, "products_each": 10},
    {"policy": "shaded", "share_ppm": 600_000, "count": 2, "products_each": 10, "charge_on": "impression"},
]


def record(folder: Path, **changes: object) -> RunResult:
    return run_timed(tiny(bidders=STEADY, **changes), None, folder)[0]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("receipts")
    record(folder)
    return folder


def difference(result: ReplayResult, name: str) -> float:
    found = next(one for one in result.differences if one.name == name)
    assert found.difference is not None
    return found.difference


def test_every_auction_comes_back_bit_for_bit(recorded: Path) -> None:
    found = replay(recorded, Changes())
    assert found.same_count == found.receipt_count > 100
    assert found.different == []
    assert found.unknown == []


class TestEveryKindOfPage:
    """What a server was asked, of every kind there is; and every price it gave, again."""

    @pytest.fixture(scope="class")
    @staticmethod
    def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
        folder = tmp_path_factory.mktemp("kinds")
        served = Served(every_kind(), folder)
        chance = random.Random(7)
        prices: dict[str, list[int]] = {}
        asked = [["top"], ["top", "side"], ["side", "list", "top"], ["list"]]
        for number in range(240):
            page = Page(type="home") if number % 2 else Page(type="category", category_id="Shoes > Running")
            answer = served.fill(
                request(
                    page,
                    mode="merchandised" if number % 3 == 0 else "sponsored",
                    placements=[RequestPlacement(placement_id=one) for one in asked[number % len(asked)]],
                    exclude_product_ids=chance.sample([f"p{one}" for one in range(2, 31)], 4),
                )
            )
            prices[answer.auction_id] = [
                fill.clearing_price_micros or 0 for place in answer.placements for fill in place.fills
            ]
        served.server.receipts.write()
        return folder, prices

    def test_every_price_is_reproduced(self, held: tuple[Path, dict[str, list[int]]]) -> None:
        folder, prices = held
        found = replay(folder, Changes())
        assert (found.same_count, found.receipt_count, found.different) == (240, 240, [])
        for receipt in read_receipts(folder):
            again = replay_receipt(receipt)
            billed = [
                billed_micros(place, None, slot, again, receipt.candidates.bid_micros)
                if receipt.offer_row[again.winner_row[slot]] >= 0
                else 0
                for place in receipt.note.places
                for slot in range(place.first_slot, place.first_slot + place.slot_count)
                if again.winner_row[slot] >= 0
            ]
            assert billed == prices[receipt.note.auction_id]

    def test_every_kind_is_there(self, held: tuple[Path, dict[str, list[int]]]) -> None:
        kinds: Counter[str] = Counter()
        for receipt in read_receipts(held[0]):
            page, winners = receipt.page, receipt.outcome.winner_row
            won = winners[winners >= 0]
            paid = won[receipt.offer_row[won] >= 0]
            reasons = {one.loss_reason for place in explain_to_retailer(receipt).placements for one in place.candidates}
            kinds[receipt.note.mode] += 1
            kinds["organic beside paid"] += 0 < len(paid) < len(won)
            kinds["pinned"] += bool((page.pinned_row >= 0).any())
            kinds["several placements"] += len(receipt.note.places) > 1
            kinds["both charges won"] += set(receipt.candidates.charge_code[paid].tolist()) == {0, 1}
            kinds["brand cap"] += LossReason.BRAND_CAP in reasons
            kinds["sponsored cap"] += LossReason.SPONSORED_CAP in reasons
            kinds["a rule's cap"] += bool((page.cap_bits >= GROUP_FIRST_FREE).any())
            for place in receipt.note.places:
                kinds[place.pricing] += 1
            is_click = (receipt.candidates.charge_code == 0) & (receipt.offer_row >= 0)
            kinds["squashed"] += bool((receipt.candidates.weight_ppm != receipt.quality_ppm)[is_click].any())
        expected = {
            "sponsored", "merchandised", "organic beside paid", "pinned", "several placements", "both charges won",
            "brand cap", "sponsored cap", "a rule's cap", "critical", "vcg", "first", "squashed",
        }  # fmt: skip
        assert {kind for kind, count in kinds.items() if count >= 5} == expected, kinds


def every_kind() -> SnapshotSource:
    """A shop with a placement of each pricing, squashing, caps, a pin and rules, and bids of both kinds."""
    chance = random.Random(5)
    products = [
        product(
            f"p{number}",
            brand=f"brand{number % 6}",
            is_own_brand=number % 7 == 0,
            relevance=chance.choice([0.5, 0.9, 1.0]),
        )
        for number in range(1, 31)
    ]
    bids = []
    for number in range(2, 31):
        is_impression = number % 4 == 0
        amount = chance.randrange(200_000, 2_000_000)
        bids.append(
            bid(
                f"bid_{number}",
                [f"p{number}"],
                amount // 20_000 * 1_000 * 200 if is_impression else amount,
                f"cmp_{'abc'[number % 3]}",
                charge_on=ChargeOn.IMPRESSION if is_impression else ChargeOn.CLICK,
            )
        )
    own_brand = Target(field="is_own_brand", equals=True)
    return source(
        products=products,
        bids=bids,
        placements=[
            placement("top", 3, pricing="vcg", brand_max=1, squashing_ppm=600_000),
            placement("side", 2, pricing="critical", sponsored_max=1),
            placement("list", 4, pricing="first", score_floor_micros=500),
        ],
        rules=[
            rule("rul_pin", Effect(pin=Pin(product_id="p1", slot_position=2)), scope=Scope(placements=["list"])),
            rule("rul_boost", Effect(boost=1.5), Target(field="brand", equals="brand2")),
            rule("rul_cap", Effect(brand_max=1), own_brand),
        ],
    )


def test_an_auction_that_does_not_come_back_is_named(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_one_micro(receipt: Receipt) -> OutcomeArrays:
        again = replay_receipt(receipt)
        return again._replace(critical_micros=again.critical_micros + 1)

    monkeypatch.setattr(sim.replay, "replay_receipt", off_by_one_micro)
    found = replay(recorded, Changes())
    assert found.same_count == 0
    assert found.different[0].startswith("auc_")


def test_nothing_changed_changes_nothing(recorded: Path) -> None:
    for changes in (Changes(bid_factor_ppm=1_000_000), Changes(pricing="critical"), Changes(rules_off=True)):
        found = replay(recorded, changes)
        assert found.changed_count == 0
        assert all(one.difference == 0 for one in found.differences)


def test_under_vcg_the_same_win_and_nobody_pays_more(recorded: Path) -> None:
    found = replay(recorded, Changes(pricing="vcg"))
    assert difference(found, "fill_rate") == 0
    assert difference(found, "mean_price") < 0
    for receipt in read_receipts(recorded):
        assert (receipt.outcome.vcg_micros <= receipt.outcome.critical_micros).all()


def test_a_higher_floor_is_paid_by_everybody_who_stays(recorded: Path) -> None:
    changes = read_changes(floors=["top=90000"])
    for receipt in read_receipts(recorded):
        changed = apply_changes(receipt, changes, {("top", 0): 20_000, ("hero", 0): 20_000})
        outcome = replay_receipt(changed)
        for place in receipt.note.places:
            for slot in range(place.first_slot, place.first_slot + place.slot_count):
                winner = outcome.winner_row[slot]
                is_click = (
                    winner >= 0 and receipt.offer_row[winner] >= 0 and receipt.candidates.charge_code[winner] == 0
                )
                if is_click and place.placement_id == "top":
                    assert outcome.critical_micros[slot] >= 90_000


def test_what_replay_says_of_a_floor_is_what_the_engine_does_under_it(recorded: Path, tmp_path: Path) -> None:
    """The true effect on the same visitors, from running the whole market again."""
    says = replay(recorded, read_changes(floors=["90000"]))
    placements = [{**placement, "floor_micros": 90_000} for placement in TINY["placements"]]
    record(tmp_path, placements=placements)
    truth = replay(tmp_path, read_changes(bid_factor=1.0))
    for one in truth.differences:
        predicted = next(other for other in says.differences if other.name == one.name)
        assert one.before is not None
        assert predicted.after is not None
        assert predicted.after == pytest.approx(one.before, rel=0.15, abs=0.03), one.name


def test_an_advertiser_that_stays_away_wins_nothing(recorded: Path) -> None:
    found = replay(recorded, read_changes(without=["adv-0001"]))
    gone = next(one for one in found.advertisers if one.name == "adv-0001")
    assert gone.fills_before > 0
    assert gone.fills_after == gone.revenue_after_micros == 0


def test_caps_are_kept(recorded: Path) -> None:
    found = replay(recorded, read_changes(sponsored_max=1))
    held = Counter(place.placement_id for receipt in read_receipts(recorded) for place in receipt.note.places)
    for one in found.placements:
        assert 0 < one.fills_after <= held[one.name]
        assert one.fills_after < one.fills_before
    assert difference(found, "fill_rate") < 0
    assert replay(recorded, read_changes(sponsored_max=0)).advertisers[0].fills_after == 0


def test_what_cannot_be_known_is_said_first(recorded: Path) -> None:
    lowered = replay(recorded, read_changes(floors=["top=1000"]))
    assert any("do not come back" in sentence for sentence in lowered.unknown)
    assert any("Bids are held as they were" in sentence for sentence in lowered.unknown)
    raised = replay(recorded, read_changes(floors=["top=50000"]))
    assert not any("do not come back" in sentence for sentence in raised.unknown)


def test_a_torn_segment_is_said_with_its_place_and_read_up_to_it(recorded: Path, tmp_path: Path) -> None:
    whole = list_segments(recorded)[0]
    torn = tmp_path / whole.name
    torn.write_bytes(whole.read_bytes()[:-100])
    found = replay(tmp_path, Changes())
    assert found.receipt_count == replay(recorded, Changes()).receipt_count - 1
    assert found.unknown[0].startswith(f"{whole.name} is torn at byte ")


def test_a_segment_of_another_version_is_said_and_the_others_are_run(recorded: Path, tmp_path: Path) -> None:
    for path in list_segments(recorded):
        shutil.copy(path, tmp_path)
    other = tmp_path / f"{0:015d}-0.receipts"
    other.write_bytes(b"endcap receipts 9\n" + list_segments(recorded)[0].read_bytes()[len(HEAD) :])
    found = replay(tmp_path, Changes())
    assert found.receipt_count == replay(recorded, Changes()).receipt_count
    assert found.unknown[0].startswith(f"{other.name} was written by another version")
    for path in list_segments(tmp_path):
        path.write_bytes(b"endcap receipts 9\n")
    with pytest.raises(ReplayRefused, match=r"can be read.*was written by another version"):
        replay(tmp_path, Changes())


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"floors": ["top=-5"]}, "--floor must be"),
        ({"floors": ["top:click=5"]}, "after the colon"),
        ({"floors": ["top:impression=1500"]}, "multiple of 1000"),
        ({"floors": ["nan"]}, "--floor must be"),
        ({"floors": ["aside=50000"]}, "no receipt is of placement 'aside'; there are: hero, top"),
        ({"rules": "draft"}, "--rules must be on or off"),
        ({"pricing": "gsp"}, "--pricing must be one of critical, vcg, first"),
        ({"bid_factor": float("nan")}, "--bid-factor must be above 0"),
        ({"brand_max": -1}, "--brand-max must be 0 to 50"),
        ({"without": ["adv-9999"]}, "took part in no recorded auction"),
    ],
)
def test_a_change_that_cannot_be_is_refused(recorded: Path, asked: dict[str, object], sentence: str) -> None:
    with pytest.raises(ReplayRefused, match=sentence):
        replay(recorded, read_changes(**asked))  # type: ignore[arg-type]


def test_the_command_writes_its_files_or_nothing(recorded: Path, tmp_path: Path) -> None:
    console = Console(file=(tmp_path / "said").open("w"), width=100)
    assert replay_receipts(tmp_path / "nowhere", Changes(), tmp_path / "out", console) == 2
    assert not (tmp_path / "out").exists()
    garbage = tmp_path / "garbage"
    garbage.mkdir()
    (garbage / f"{0:015d}-0.receipts").write_bytes(np.arange(100, dtype=np.uint8).tobytes())
    assert replay_receipts(garbage, Changes(), tmp_path / "out", console) == 2
    assert not (tmp_path / "out").exists()
    assert replay_receipts(recorded, read_changes(pricing="vcg"), tmp_path / "out", console) == 0
    first = (tmp_path / "out" / "replay.json").read_bytes()
    page = (tmp_path / "out" / "replay.html").read_text()
    assert page.index("What this cannot know") < page.index("came back bit for bit") < page.index("Under the change")
    shutil.rmtree(tmp_path / "out")
    assert replay_receipts(recorded, read_changes(pricing="vcg"), tmp_path / "out", console) == 0
    assert (tmp_path / "out" / "replay.json").read_bytes() == first
    console.file.close()
