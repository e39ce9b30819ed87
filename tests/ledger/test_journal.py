"""Transactions balance, are only ever added, and are reversed at most once."""

import threading

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from bidder_api.database import Database
from ledger.chart import CASH, REVENUE, AccountName, account_advertiser, account_kind, promo, unbilled, wallet
from ledger.command import AddFunds, FundsAdded, Reverse, Reversed, SetCreditLine
from ledger.errors import ConflictRefused, LedgerBroken, NotFound
from ledger.journal import Posting, Side, Transaction
from ledger.money import Micros
from tests.ledger.world import World


def leg(account: AccountName, side: Side, amount_micros: int) -> Posting:
    return Posting(account, side, Micros(amount_micros))


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=5), st.integers(-5, 5))
def test_a_transaction_that_does_not_balance_cannot_be_made(amounts: list[int], off_by: int) -> None:
    debits = tuple(leg(CASH, Side.DEBIT, amount) for amount in amounts)
    credit = sum(amounts) + off_by
    if off_by == 0:
        Transaction((*debits, leg(REVENUE, Side.CREDIT, credit)), "test", "2026-11", 0)
    else:
        with pytest.raises(LedgerBroken):
            Transaction((*debits, leg(REVENUE, Side.CREDIT, credit)), "test", "2026-11", 0)


@pytest.mark.parametrize("amounts", [(), (0, 0), (-1, -1)])
def test_a_posting_has_a_positive_amount(amounts: tuple[int, ...]) -> None:
    sides = (Side.DEBIT, Side.CREDIT)
    with pytest.raises(LedgerBroken):
        Transaction(tuple(leg(CASH, s, a) for s, a in zip(sides, amounts, strict=False)), "test", "2026-11", 0)


def test_account_names_say_whose_and_of_which_kind_they_are() -> None:
    for who in ("adv-1", "a:b", "wallet:x:2026-11"):
        for account in (wallet(who), promo(who), unbilled(who, "2026-11")):
            assert account_advertiser(account) == who
    assert account_advertiser(CASH) is None
    assert [account_kind(a).value for a in (CASH, REVENUE, wallet("a"), unbilled("a", "2026-11"))] == [
        "asset",
        "income",
        "liability",
        "asset",
    ]


@pytest.mark.parametrize("table", ["events", "entries", "chain", "reversals", "fundings"])
@pytest.mark.parametrize("change", ["UPDATE {} SET retailer_id = 'x'", "DELETE FROM {}"])
def test_rows_of_the_books_can_only_be_added(world: World, table: str, change: str) -> None:
    answer, _ = world.writer.command(AddFunds("top-up", "adv-1", 10**6, "r1"))
    assert isinstance(answer, FundsAdded)
    world.click(world.fill())
    world.writer.command(Reverse("txn_3", "test"))
    with pytest.raises(DBAPIError, match="append-only"):
        world.database.transact(lambda connection: connection.execute(sa.text(change.format(table))))
    world.must_be_sound()


def test_a_reference_is_booked_once(world: World) -> None:
    first, _ = world.writer.command(AddFunds("top-up", "adv-1", 1_000_003, "bank 17"))
    again, _ = world.writer.command(AddFunds("top-up", "adv-1", 1_000_003, "bank 17"))
    assert isinstance(first, FundsAdded)
    assert isinstance(again, FundsAdded)
    assert (first.is_new, again.is_new) == (True, False)
    assert first.transaction_id == again.transaction_id
    for other in (AddFunds("top-up", "adv-1", 5, "bank 17"), AddFunds("top-up", "adv-2", 1_000_003, "bank 17")):
        with pytest.raises(ConflictRefused) as refused:
            world.writer.command(other)
        assert (refused.value.code, refused.value.pointer) == ("reference_in_use", "/reference")
    assert world.balances() == {"cash": 1_000_003, "wallet:adv-1": -1_000_003}
    world.must_be_sound()


def test_a_reversal_gives_back_what_was_taken_where_it_was_taken_once(world: World) -> None:
    world.fund("adv-1", 2_003, "promotional-credit")
    world.fund("adv-1", 3_001)
    world.credit("adv-1", 5_003)
    world.click(world.fill(7_001))
    before = world.balances()
    answer, moved = world.writer.command(Reverse("txn_5", "a robot after all"))
    assert isinstance(answer, Reversed)
    assert (answer.reversal.reverses, answer.reversal.reason) == ("txn_5", "a robot after all")
    assert [funds.funds_micros for funds in moved.funds] == [2_003 + 3_001 + 5_003]
    assert world.balances() == {
        **before,
        "promo:adv-1": -2_003,
        "wallet:adv-1": -3_001,
        "revenue:media": 0,
        "unbilled:adv-1:2026-11": 0,
    }
    assert set(world.rows("SELECT reverses, reason FROM audit_entry WHERE transaction_id = 'txn_9'")) == {
        ("txn_5", "a robot after all")
    }
    for wrong, code in ((Reverse("txn_5", "x"), "already_reversed"), (Reverse("txn_9", "x"), "is_a_reversal")):
        with pytest.raises(ConflictRefused) as refused:
            world.writer.command(wrong)
        assert refused.value.code == code
    for unknown in ("txn_6", "txn_999", "txn_", "txn_٣", "5", "txn_-1", "txn_99999999999999999999"):
        with pytest.raises(NotFound):
            world.writer.command(Reverse(unknown, "x"))
    world.must_be_sound()


def test_a_top_up_that_was_spent_cannot_be_reversed(world: World) -> None:
    world.fund("adv-1", 10_007)
    world.click(world.fill(8))
    with pytest.raises(ConflictRefused) as refused:
        world.writer.command(Reverse("txn_1", "bounced"))
    assert refused.value.code == "funds_spent"
    world.must_be_sound()


def test_a_credit_line_lowered_under_what_is_owed_stops_charging(world: World) -> None:
    world.credit("adv-1", 10_007)
    world.click(world.fill(9_001))
    _, moved = world.writer.command(SetCreditLine("adv-1", 5_003))
    assert [(funds.funds_micros, funds.owed_micros) for funds in moved.funds] == [(0, 9_001)]
    assert world.click(world.fill(1)).code == "funds"
    world.must_be_sound()


def test_four_who_reverse_at_once_succeed_once(database: Database) -> None:
    world = World(database)
    world.fund("adv-1", 10**9)
    for _ in range(8):
        world.click(world.fill(world.chance.randint(1, 999_983)))
    seqs = [seq for (seq,) in world.rows("SELECT seq FROM audit_entry WHERE line = 1 AND seq > 2")]
    outcomes: dict[object, list[str]] = {seq: [] for seq in seqs}

    def reverse_all() -> None:
        writer = world.new_writer()
        for seq in seqs:
            try:
                writer.command(Reverse(f"txn_{seq}", "x"))
                outcomes[seq].append("done")
            except ConflictRefused as refused:
                outcomes[seq].append(refused.code)

    threads = [threading.Thread(target=reverse_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(sorted(one) == ["already_reversed"] * 3 + ["done"] for one in outcomes.values())
    assert world.balances()["revenue:media"] == 0
    world.must_be_sound()
