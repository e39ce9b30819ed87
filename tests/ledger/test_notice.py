"""A notice is written in the transaction that makes it true, once per crossing, and holds nothing of a visitor."""

from typing import Any

import msgspec
import pytest

from ledger import notice, store
from ledger.command import AddFunds, Reverse, SetBilling, SetCreditLine
from ledger.errors import LedgerBroken
from ledger.settings import Settings
from tests.ledger.test_invoicing import BUYER, SELLER, invoice, seal
from tests.ledger.world import RETAILER, World

THRESHOLD_MICROS = 1_000_003
DAY_MS = 86_400_000


@pytest.fixture
def world(database: Any) -> World:
    return World(database, Settings(low_funds_micros=THRESHOLD_MICROS))


def told(world: World, *kinds: str) -> list[dict[str, Any]]:
    """Return the data of all notices, or of some kinds, in their order, with their types."""
    bodies = [msgspec.json.decode(str(body)) for (body,) in world.rows("SELECT body FROM notices ORDER BY seq")]
    return [{"type": one["type"], **one["data"]} for one in bodies if not kinds or one["type"] in kinds]


def types(world: World, *kinds: str) -> list[str]:
    return [one["type"] for one in told(world, *kinds) if one["type"] != "payment.received"]


def change_limits(world: World, daily: int | None, total: int | None) -> None:
    today = "2026-11-24"
    world.database.transact(
        lambda c: notice.change_limits(c, RETAILER, "cmp-1", "adv-1", daily, total, today, "EUR", world.clock())
    )


def test_funds_are_told_of_once_on_each_line_they_pass(world: World) -> None:
    world.fund("adv-1", 3_000_000)
    world.click(world.fill(1_500_000))
    assert types(world) == []
    world.click(world.fill(600_000))
    world.click(world.fill(100_000))
    assert types(world) == ["funds.low"]
    world.click(world.fill(2_000_000))
    world.click(world.fill(2_000_000))
    assert types(world) == ["funds.low", "funds.exhausted"]
    low, exhausted = told(world, "funds.low", "funds.exhausted")
    assert (low["funds_micros"], low["wallet_micros"], low["threshold_micros"]) == (900_000, 900_000, THRESHOLD_MICROS)
    assert (exhausted["funds_micros"], exhausted["advertiser_id"], exhausted["currency"]) == (0, "adv-1", "EUR")


def test_a_top_up_lets_it_be_told_again_only_above_the_line(world: World) -> None:
    world.fund("adv-1", 2_000_000)
    world.click(world.fill(1_900_000))
    world.fund("adv-1", 1)
    world.click(world.fill(50_000))
    assert types(world) == ["funds.low"], "still under it"
    world.fund("adv-1", 5_000_000)
    world.click(world.fill(4_900_000))
    assert types(world) == ["funds.low", "funds.low"]


def test_both_lines_passed_in_one_commit_are_both_told_of(world: World) -> None:
    world.fund("adv-1", 2_000_000)
    world.click(world.fill(2_000_000))
    assert types(world) == ["funds.low", "funds.exhausted"]


def test_a_credit_line_counts_as_funds_and_lowering_it_is_told_of(world: World) -> None:
    world.credit("adv-1", 5_000_000)
    world.click(world.fill(3_000_000))
    assert types(world) == []
    world.credit("adv-1", 3_500_000)
    assert types(world) == ["funds.low"]
    world.credit("adv-1", 3_000_000)
    assert types(world) == ["funds.low", "funds.exhausted"]


def test_undoing_a_top_up_is_told_of(world: World) -> None:
    world.fund("adv-1", 5_000_000)
    (transaction_id,) = (row[0] for row in world.rows("SELECT transaction_id FROM fundings"))
    world.writer.command(Reverse(str(transaction_id), "a mistake"))
    assert types(world) == ["funds.low", "funds.exhausted"]


def test_an_advertisers_own_threshold_stands_above_the_settings(world: World) -> None:
    def set_own(micros: int | None) -> None:
        world.database.transact(
            lambda c: notice.set_low_funds(c, RETAILER, "adv-1", micros, THRESHOLD_MICROS, "EUR", world.clock())
        )

    world.fund("adv-1", 9_000_000)
    set_own(6_000_000)
    world.click(world.fill(2_500_000))
    assert types(world) == []
    set_own(6_500_001)
    assert types(world) == ["funds.low"], "raised above what is there"
    set_own(0)
    world.click(world.fill(6_400_000))
    world.fund("adv-1", 9_000_000)
    set_own(None)
    world.click(world.fill(8_500_000))
    assert types(world) == ["funds.low", "funds.low"]


def test_a_daily_budget_is_told_of_once_a_day(world: World) -> None:
    world.fund("adv-1", 10**9)
    world.limit("cmp-1", "adv-1", 1_000_000, None)
    for _ in range(2):
        for _ in range(4):
            world.click(world.fill(400_001))
        world.clock.pass_ms(DAY_MS)
    found = told(world, "campaign.daily_budget_exhausted")
    assert [(one["day"], one["limit_micros"], one["spent_micros"]) for one in found] == [
        ("2026-11-24", 1_000_000, 1_000_000),
        ("2026-11-25", 1_000_000, 1_000_000),
    ]
    assert types(world) == ["campaign.daily_budget_exhausted"] * 2


def test_a_total_budget_is_told_of_and_again_once_raised_and_spent(world: World) -> None:
    world.fund("adv-1", 10**9)
    world.limit("cmp-1", "adv-1", None, 1_000_000)
    world.click(world.fill(1_000_000))
    change_limits(world, None, 1_500_000)
    world.click(world.fill(700_000))
    found = told(world, "campaign.total_budget_exhausted")
    assert [(one["campaign_id"], one["advertiser_id"], one["day"], one["spent_micros"]) for one in found] == [
        ("cmp-1", "adv-1", None, 1_000_000),
        ("cmp-1", "adv-1", None, 1_500_000),
    ]


def test_a_budget_lowered_to_what_is_spent_is_told_of_once(world: World) -> None:
    world.fund("adv-1", 10**9)
    change_limits(world, 0, None)
    change_limits(world, 5_000_000, None)
    world.click(world.fill(1_000_000))
    change_limits(world, 1_000_000, 900_000)
    change_limits(world, 800_000, 700_000)
    assert sorted(types(world)) == ["campaign.daily_budget_exhausted", "campaign.total_budget_exhausted"]


def test_money_that_comes_in_is_told_of_once_per_reference(world: World) -> None:
    for kind, reference in (("top-up", "r1"), ("top-up", "r1"), ("promotional-credit", "r2")):
        world.writer.command(AddFunds(kind, "adv-1", 7_000_001, reference))  # type: ignore[arg-type]
    (found,) = told(world)
    assert (found["type"], found["kind"], found["amount_micros"], found["reference"]) == (
        "payment.received",
        "top-up",
        7_000_001,
        "r1",
    )


def test_what_was_not_committed_was_not_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notice and the charge are one transaction: what breaks it after the notice takes the notice along."""
    world.fund("adv-1", 2_000_000)
    before = len(told(world))

    def refuse(*_: object) -> None:
        raise LedgerBroken("on purpose")

    with monkeypatch.context() as broken:
        broken.setattr(store, "insert_touches", refuse)
        with pytest.raises(LedgerBroken):
            world.click(world.fill(2_000_000))
    assert len(told(world)) == before
    world.click(world.fill(2_000_000))
    assert types(world) == ["funds.low", "funds.exhausted"]


def test_ids_are_unique_and_numbers_without_gaps(world: World) -> None:
    for number in range(5):
        world.fund(f"adv-{number}", 2_000_000)
        world.click(world.fill(2_000_000, advertiser_id=f"adv-{number}", campaign_id=f"cmp-{number}"))
    rows = world.rows("SELECT seq, notice_id FROM notices ORDER BY seq")
    assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
    assert len({notice_id for _, notice_id in rows}) == len(rows) == 15


def test_no_notice_holds_anything_of_a_visitor(world: World) -> None:
    visitor = bytes(range(16))
    world.fund("adv-1", 2_000_000)
    world.limit("cmp-1", "adv-1", 1_000_000, 1_500_000)
    for _ in range(4):
        world.click(world.fill(900_000, visitor=visitor), event_id=f"someone-{world.chance.random()}")
    bodies = "".join(str(body) for (body,) in world.rows("SELECT body FROM notices"))
    assert "exhausted" in bodies
    for trace in (visitor.hex(), "someone", "auc_", "p1"):
        assert trace not in bodies


def test_old_notices_go_but_numbers_are_never_given_twice(world: World) -> None:
    for number in range(3):
        world.fund("adv-1", 1_000_000 + number)
    far = world.clock() + DAY_MS
    world.database.transact(lambda c: store.forget_notices(c, RETAILER, 3, far))
    assert [seq for (seq,) in world.rows("SELECT seq FROM notices")] == [3]
    world.fund("adv-1", 5)
    assert [seq for (seq,) in world.rows("SELECT seq FROM notices ORDER BY seq")] == [3, 4]


def test_levels_that_are_not_kept_are_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that would tell of one crossing again with every charge, planted: the tests above do see it."""
    world.fund("adv-1", 3_000_000)
    monkeypatch.setattr(store, "set_funds_level", lambda *_: None)
    for _ in range(4):
        world.click(world.fill(700_000))
    assert len(types(world)) > 1


def test_an_invoice_is_told_of_once(world: World) -> None:
    world.credit("adv-1", 10**9)
    world.click(world.fill(1_000_000))
    for who, profile in ((None, SELLER), ("adv-1", BUYER)):
        world.writer.command(SetBilling(who, profile))
    seal(world, "2026-11", "2026-12-05T00:00")
    issued = [invoice(world) for _ in range(2)]
    (found,) = told(world, "invoice.issued")
    assert issued[0] == issued[1]
    assert (found["number"], found["due_micros"], found["vat_micros"]) == (issued[0].number, 1_200_000, 200_000)


def test_who_had_credit_only_is_told_too(world: World) -> None:
    world.writer.command(SetCreditLine("adv-1", 2_000_000))
    world.click(world.fill(2_000_000))
    (_, exhausted) = told(world)
    assert (exhausted["type"], exhausted["owed_micros"]) == ("funds.exhausted", 2_000_000)
