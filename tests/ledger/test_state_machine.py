"""A machine that does whatever may be done, in any order, against a model as plain as a cash book."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bidder_api.database import Database, open_database
from bidder_api.migration import upgrade
from ledger.command import AddFunds, Reverse, SetCreditLine
from ledger.errors import ConflictRefused
from ledger.terms import ChargeOn
from tests.ledger.world import World

ADVERTISERS = ("adv-1", "adv-2")
CAMPAIGNS = {"cmp-1": "adv-1", "cmp-2": "adv-1", "cmp-3": "adv-2"}
DAY_MS = 86_400_000
odd_micros = st.integers(1, 60_013)


class Model:
    """What the books must say, in dicts."""

    def __init__(self) -> None:
        self.wallet = dict.fromkeys(ADVERTISERS, 0)
        self.promo = dict.fromkeys(ADVERTISERS, 0)
        self.owed = dict.fromkeys(ADVERTISERS, 0)
        self.line = dict.fromkeys(ADVERTISERS, 0)
        self.limits: dict[str, tuple[int | None, int | None]] = {}
        self.spent: dict[tuple[str, int], int] = {}
        self.charges: dict[tuple[int, str], tuple[str, str | None, int]] = {}
        self.parts: dict[tuple[int, str], tuple[str, int, int, int]] = {}

    def charge(
        self, fill: int, kind: str, campaign: str, charge_on: str, price: int, day: int
    ) -> tuple[str, str | None, int]:
        if (fill, kind) in self.charges:
            _, code, amount = self.charges[fill, kind]
            return "duplicate", code, amount
        result = self._new_charge(fill, kind, campaign, charge_on, price, day)
        self.charges[fill, kind] = result
        return result

    def _new_charge(
        self, fill: int, kind: str, campaign: str, charge_on: str, price: int, day: int
    ) -> tuple[str, str | None, int]:
        if kind != charge_on:
            return "accepted", None, 0
        who = CAMPAIGNS[campaign]
        daily, total = self.limits.get(campaign, (None, None))
        room = {"funds": self.promo[who] + self.wallet[who] + max(self.line[who] - self.owed[who], 0)}
        if daily is not None:
            room["daily_budget"] = daily - self.spent.get((campaign, day), 0)
        if total is not None:
            room["total_budget"] = total - sum(m for (c, _), m in self.spent.items() if c == campaign)
        tightest = min(room, key=lambda name: room[name])  # the first of equals, in this order
        amount = min(price, room[tightest])
        if amount <= 0:
            return "unbilled", tightest, 0
        promo = min(self.promo[who], amount)
        wallet = min(self.wallet[who], amount - promo)
        self.promo[who] -= promo
        self.wallet[who] -= wallet
        self.owed[who] += amount - promo - wallet
        self.parts[fill, kind] = (who, promo, wallet, amount - promo - wallet)
        self.spent[campaign, day] = self.spent.get((campaign, day), 0) + amount
        return "accepted", None if amount == price else "partial", amount


class Books(RuleBasedStateMachine):
    """Drives the writer and the model side by side."""

    template: Path | None = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        if Books.template is None:
            Books.template = Path(tempfile.mkdtemp()) / "t.db"
            made = open_database(f"sqlite:///{Books.template}")
            made.transact(upgrade)
            made.close()
        shutil.copy(Books.template, self.folder / "t.db")
        self.database: Database = open_database(f"sqlite:///{self.folder}/t.db")
        self.world = World(self.database)
        self.model = Model()
        self.day = 0
        self.fills: list[tuple[str, str, str, int, int]] = []
        self.reversed: set[tuple[int, str]] = set()

    def teardown(self) -> None:
        self.world.must_be_sound()
        self.database.close()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        self.world.fund("adv-1", 70_001)
        self.model.wallet["adv-1"] += 70_001

    @rule(who=st.sampled_from(ADVERTISERS), amount=odd_micros, kind=st.sampled_from(["top-up", "promotional-credit"]))
    def add_funds(self, who: str, amount: int, kind: str) -> None:
        reference = f"r{self.world.chance.random()}"
        for _ in range(2):
            self.world.writer.command(AddFunds(kind, who, amount, reference))  # type: ignore[arg-type]
        funds = self.model.wallet if kind == "top-up" else self.model.promo
        funds[who] += amount

    @rule(who=st.sampled_from(ADVERTISERS), amount=st.integers(0, 40_009))
    def set_credit_line(self, who: str, amount: int) -> None:
        self.world.writer.command(SetCreditLine(who, amount))
        self.model.line[who] = amount

    @rule(campaign=st.sampled_from(sorted(CAMPAIGNS)), daily=st.none() | odd_micros, total=st.none() | odd_micros)
    def set_limits(self, campaign: str, daily: int | None, total: int | None) -> None:
        self.world.limit(campaign, CAMPAIGNS[campaign], daily, total)
        self.model.limits[campaign] = (daily, total)

    @rule(campaign=st.sampled_from(sorted(CAMPAIGNS)), charge_on=st.sampled_from(ChargeOn), price=odd_micros)
    def fill(self, campaign: str, charge_on: ChargeOn, price: int) -> None:
        token = self.world.fill(price, charge_on=charge_on, campaign_id=campaign, advertiser_id=CAMPAIGNS[campaign])
        self.fills.append((token, campaign, charge_on.value, price, self.day))

    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        fresh = [n for n, one in enumerate(self.fills) if one[4] == self.day]
        if not fresh:
            return
        picked = data.draw(
            st.lists(
                st.tuples(st.sampled_from(fresh), st.sampled_from(["impression", "view", "click"])),
                min_size=1,
                max_size=6,
            )
        )
        results = self.world.record(*(self.world.event(self.fills[n][0], kind) for n, kind in picked))
        for (n, kind), result in zip(picked, results, strict=True):
            _, campaign, charge_on, price, day = self.fills[n]
            expected = self.model.charge(n, kind, campaign, charge_on, price, day)
            assert (result.result, result.code, result.amount_micros) == expected

    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        if not self.model.parts:
            return
        fill, kind = data.draw(st.sampled_from(sorted(self.model.parts)))
        token_id = self.world.keys.redeem_beacon(
            self.fills[fill][0], self.world.clock.at_ms - (self.day - self.fills[fill][4]) * DAY_MS
        ).token_id
        transaction_id = self.world.one(
            f"SELECT transaction_id FROM events WHERE token_id = '{token_id}' AND type = '{kind}'"
        )
        undo = Reverse(str(transaction_id), "tried")
        if (fill, kind) in self.reversed:
            with pytest.raises(ConflictRefused, match="was reversed by"):
                self.world.writer.command(undo)
            return
        self.world.writer.command(undo)
        self.reversed.add((fill, kind))
        who, promo, wallet, credit = self.model.parts[fill, kind]
        self.model.promo[who] += promo
        self.model.wallet[who] += wallet
        self.model.owed[who] -= credit

    @rule()
    def sleep(self) -> None:
        self.world.clock.pass_ms(DAY_MS)
        self.day += 1

    @rule()
    def restart(self) -> None:
        self.world.writer = self.world.new_writer()

    @invariant()
    def funds_agree(self) -> None:
        kept = {funds.advertiser_id: funds for funds in self.world.writer.state().funds}
        for who in ADVERTISERS:
            model = (self.model.promo[who], self.model.wallet[who], self.model.line[who], self.model.owed[who])
            own = kept.get(who)
            found = (
                (0, 0, 0, 0)
                if own is None
                else (own.promo_micros, own.wallet_micros, own.credit_line_micros, own.owed_micros)
            )
            assert found == model


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
