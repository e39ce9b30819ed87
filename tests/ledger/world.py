"""A small world around the ledger: a clock that moves when told, advertisers, fills and what happens to them."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime

import sqlalchemy as sa

from bidder_api.database import Database
from ledger import store
from ledger.beacon import BeaconKeys
from ledger.command import AddFunds, SetCreditLine
from ledger.event import Client, EventResult, EventType, ReportedEvent
from ledger.money import Micros
from ledger.settings import Settings
from ledger.terms import ChargeOn, ChargeTerms, new_id
from ledger.verify import Verdict, verify
from ledger.writer import LedgerWriter

RETAILER = "retailer"
NOON_MS = 1_795_521_600_000  # 2026-11-24 12:00 UTC
MINUTE_MS = 60_000
KEY_TEXT = "1:" + "A" * 43


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, at_ms: int = NOON_MS) -> None:
        self.at_ms = at_ms

    def __call__(self) -> int:
        return self.at_ms

    def pass_ms(self, some_ms: int) -> None:
        self.at_ms += some_ms


class World:
    """One retailer's ledger on one database."""

    def __init__(self, database: Database, settings: Settings | None = None, seed: int = 1) -> None:
        self.database = database
        self.settings = settings or Settings()
        self.clock = FakeClock()
        self.keys = BeaconKeys.parse(KEY_TEXT)
        self.chance = random.Random(seed)
        self.writer = self.new_writer()

    def new_writer(self) -> LedgerWriter:
        read, transact = self.database.read, self.database.transact
        return LedgerWriter(transact, read, RETAILER, BeaconKeys.parse(KEY_TEXT), self.settings, self.clock)

    # --- what there is

    def fund(self, advertiser_id: str, amount_micros: int, kind: str = "top-up") -> None:
        reference = f"{kind} {self.chance.random()}"
        self.writer.command(AddFunds(kind, advertiser_id, amount_micros, reference))  # type: ignore[arg-type]

    def credit(self, advertiser_id: str, amount_micros: int) -> None:
        self.writer.command(SetCreditLine(advertiser_id, amount_micros))

    def limit(self, campaign_id: str, advertiser_id: str, daily_micros: int | None, total_micros: int | None) -> None:
        self.database.transact(
            lambda c: store.set_campaign_limits(c, RETAILER, campaign_id, advertiser_id, daily_micros, total_micros)
        )

    # --- what happens

    def terms(
        self,
        price_micros: int = 123_457,
        charge_on: ChargeOn | None = ChargeOn.CLICK,
        advertiser_id: str | None = "adv-1",
        campaign_id: str | None = "cmp-1",
        visitor: bytes = bytes(16),
        product_id: str = "p1",
    ) -> ChargeTerms:
        is_sponsored = charge_on is not None
        return ChargeTerms(
            auction_id=new_id("auc", self.clock(), self.chance.randbytes(10)),
            placement_id="category-top",
            slot_position=1,
            product_id=product_id,
            is_sponsored=is_sponsored,
            advertiser_id=advertiser_id if is_sponsored else None,
            campaign_id=campaign_id if is_sponsored else None,
            bid_id="bid-1" if is_sponsored else None,
            charge_on=charge_on,
            price_micros=Micros(price_micros if is_sponsored else 0),
            quality_ppm=31_415,
            visitor_pseudonym=visitor,
            variant=None,
            issued_at_ms=self.clock(),
        )

    def fill(self, price_micros: int = 123_457, **terms: object) -> str:
        """Return the token of a fill at this price."""
        return self.keys.seal_beacon(self.terms(price_micros, **terms))  # type: ignore[arg-type]

    def event(
        self,
        token: str,
        kind: str = "click",
        event_id: str | None = None,
        occurred_at_ms: int | None = None,
        user_agent: str | None = None,
    ) -> ReportedEvent:
        return ReportedEvent(
            event_id=event_id or f"e{self.chance.getrandbits(64):x}",
            type=EventType(kind),
            beacon_token=token,
            occurred_at=None if occurred_at_ms is None else datetime.fromtimestamp(occurred_at_ms / 1000, UTC),
            client=None if user_agent is None else Client(user_agent=user_agent),
        )

    def record(self, *events: ReportedEvent) -> list[EventResult]:
        (results,), _ = self.writer.record([list(events)])
        return results

    def click(self, token: str, **event: object) -> EventResult:
        (result,) = self.record(self.event(token, "click", **event))  # type: ignore[arg-type]
        return result

    # --- what is in the books

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with self.database.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(sql))]

    def one(self, sql: str) -> object:
        ((value,),) = self.rows(sql)
        return value

    def balances(self) -> dict[object, object]:
        return {account: micros for account, _, micros in self.rows("SELECT * FROM audit_balance")}

    def verify(self) -> Verdict:
        return self.database.read(lambda connection: verify(connection, RETAILER, {}))

    def must_be_sound(self) -> None:
        """The books verify, the journal adds up to zero, and no budget is passed."""
        verdict = self.verify()
        assert verdict.is_good, verdict
        assert self.one("SELECT COALESCE(SUM(amount_micros), 0) FROM audit_entry") == 0
        assert self.one("SELECT COALESCE(SUM(posted_micros), 0) FROM audit_balance") == 0
        assert self.one("SELECT COUNT(*) FROM audit_budget WHERE spent_micros > limit_micros") == 0


def codes(results: Iterable[EventResult]) -> list[tuple[str, str | None, int | None]]:
    return [(result.result, result.code, result.amount_micros) for result in results]
