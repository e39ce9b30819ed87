"""Months closed and invoiced: once, without gaps, to the micro, and never changed again."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from ledger import closing, invoicing, store
from ledger.command import (
    AddFunds,
    ClosedPeriod,
    ClosePeriod,
    IssueCreditNote,
    Issued,
    IssueInvoice,
    Reverse,
    SetBilling,
)
from ledger.document import Address, BillingProfile, Party
from ledger.errors import LedgerRefused, RequestRefused
from ledger.terms import ChargeOn
from tests.ledger.world import RETAILER, World

HOUR_MS = 3_600_000
SELLER = BillingProfile(party=Party(name="Shop SA", address=Address(country="FR"), vat_id="FR1"))
BUYER = BillingProfile(party=Party(name="Acme SARL", address=Address(country="FR")), vat_percent="20")


def at(moment: str) -> int:
    return round(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() * 1000)


def close(world: World, period: str, stage: str) -> ClosedPeriod:
    answer, _ = world.writer.command(ClosePeriod(period, stage))  # type: ignore[arg-type]
    assert isinstance(answer, ClosedPeriod)
    return answer


def seal(world: World, period: str, now: str) -> ClosedPeriod:
    world.clock.at_ms = at(now)
    close(world, period, "soft")
    return close(world, period, "sealed")


def invoice(world: World, advertiser_id: str = "adv-1", period: str = "2026-11") -> Issued:
    answer, _ = world.writer.command(IssueInvoice(advertiser_id, period))
    assert isinstance(answer, Issued)
    return answer


def give_back(world: World, number: str, net_micros: int | None = None) -> Issued:
    answer, _ = world.writer.command(IssueCreditNote(number, net_micros, "Robots"))
    assert isinstance(answer, Issued)
    return answer


def refused(work: Any) -> str:
    with pytest.raises(LedgerRefused) as refusal:
        work()
    return refusal.value.code


def owed(world: World) -> int:
    return int(str(world.one("SELECT owed_micros FROM funds WHERE advertiser_id = 'adv-1'")))


def report(world: World, period: str) -> bytes:
    return closing.report_bytes(world.database.read(lambda c: closing.report_period(c, RETAILER, period)))


@pytest.fixture
def books(world: World) -> World:
    """November: clicks paid from promotional credit, a wallet and a credit line, one of them reversed."""
    world.fund("adv-1", 300_001, "promotional-credit")
    world.fund("adv-1", 1_000_003)
    world.credit("adv-1", 10**9)
    for number in range(40):
        world.click(world.fill(world.chance.randint(50_000, 99_991), campaign_id=f"cmp-{number % 2}"))
    world.record(world.event(world.fill(7_919, charge_on=ChargeOn.IMPRESSION), "impression"))
    world.writer.command(Reverse(last_charge(world), "robots"))
    for who, profile in ((None, SELLER), ("adv-1", BUYER)):
        world.writer.command(SetBilling(who, profile))
    return world


def last_charge(world: World) -> str:
    return str(world.one("SELECT transaction_id FROM events WHERE type = 'click' ORDER BY seq DESC LIMIT 1"))


class TestMonths:
    def test_they_are_closed_in_their_order_when_they_are_over(self, books: World) -> None:
        assert refused(lambda: close(books, "2026-11", "soft")) == "period_open"
        assert refused(lambda: close(books, "2026-11", "sealed")) == "period_not_soft"
        books.clock.at_ms = at("2026-12-01T00:00")
        soft = close(books, "2026-11", "soft")
        assert (soft.stage, soft.digest) == ("soft", None)
        books.clock.at_ms = at("2026-12-03T23:59")
        assert refused(lambda: close(books, "2026-11", "sealed")) == "period_open"
        books.clock.at_ms = at("2026-12-04T00:00")
        sealed = close(books, "2026-11", "sealed")
        assert close(books, "2026-11", "sealed") == sealed
        assert refused(lambda: close(books, "2026-11", "soft")) == "period_sealed"
        assert books.database.read(lambda c: closing.list_closed(c, RETAILER)) == [sealed]
        books.must_be_sound()

    def test_an_earlier_month_comes_first(self, books: World) -> None:
        books.clock.at_ms = at("2026-12-10T00:00")
        books.click(books.fill(7_919))
        books.clock.at_ms = at("2027-01-10T00:00")
        close(books, "2026-12", "soft")
        assert refused(lambda: close(books, "2026-12", "sealed")) == "earlier_period_open"

    def test_a_late_click_is_booked_in_its_month_while_that_is_soft_and_in_the_open_one_after(
        self, books: World
    ) -> None:
        late = at("2026-11-30T23:50")
        books.clock.at_ms = late
        tokens = [books.fill(7_919) for _ in range(2)]
        books.clock.at_ms = at("2026-12-01T08:00")
        close(books, "2026-11", "soft")
        books.click(tokens[0], occurred_at_ms=late)
        books.database.transact(lambda c: store.insert_closing(c, RETAILER, (99, "2026-11", "sealed", "x", 1)))
        books.click(tokens[1], occurred_at_ms=late)
        rows = books.rows("SELECT period, occurred_at_ms FROM entries WHERE line = 1 ORDER BY seq DESC LIMIT 2")
        assert rows == [("2026-12", late), ("2026-11", late)]
        days = books.rows("SELECT day FROM events ORDER BY seq DESC LIMIT 2")
        assert days == [("2026-11-30",), ("2026-11-30",)], "its day's budget is charged all the same"

    def test_a_sealed_report_is_the_same_bytes_whatever_comes_later(self, books: World) -> None:
        sealed = seal(books, "2026-11", "2026-12-05T00:00")
        before = report(books, "2026-11")
        charge = str(books.one("SELECT transaction_id FROM events WHERE type = 'impression'"))
        books.writer.command(Reverse(charge, "late finding"))
        books.click(books.fill(7_919))
        books.fund("adv-1", 1)
        assert report(books, "2026-11") == before
        assert report(books, "2026-12") != before
        books.must_be_sound()
        assert sealed.digest is not None

    def test_a_report_that_no_longer_has_its_digest_is_found(self, sqlite_world: World) -> None:
        world = sqlite_world
        world.fund("adv-1", 10**6)
        seal(world, "2026-11", "2026-12-05T00:00")
        with world.database.engine.connect() as connection:
            connection.exec_driver_sql("DROP TRIGGER closings_no_update")
            connection.exec_driver_sql("UPDATE closings SET digest = 'ab' WHERE stage = 'sealed'")
            bad = closing_verdict(connection)
            connection.rollback()
        assert bad is not None
        assert bad.table in ("closing", "closings")

    def test_closings_and_documents_are_only_ever_added_to(self, books: World) -> None:
        seal(books, "2026-11", "2026-12-05T00:00")
        invoice(books)
        for table in ("closings", "documents"):
            for sql in (f"DELETE FROM {table}", f"UPDATE {table} SET seq = 7"):
                with pytest.raises(DBAPIError, match="append-only"):
                    books.database.transact(lambda c, sql=sql: c.exec_driver_sql(sql))


def closing_verdict(connection: Any) -> Any:
    from ledger.verify import verify

    return verify(connection, RETAILER, {}).bad


class TestInvoices:
    def test_an_invoice_asks_for_what_was_charged_on_credit_and_vat_on_all_of_it(self, books: World) -> None:
        charged = int(str(books.one("SELECT SUM(amount_micros) FROM events")))
        reversed_micros = int(
            str(books.one("SELECT amount_micros FROM events WHERE type='click' ORDER BY seq DESC LIMIT 1"))
        )
        on_credit = books.balances()["unbilled:adv-1:2026-11"]
        seal(books, "2026-11", "2026-12-05T00:00")
        made = invoice(books)
        assert (made.number, made.document.issue_date) == ("INV-2026-000001", "2026-12-05")
        net = charged - reversed_micros - 300_001
        assert abs(made.net_micros - net) <= 10_000
        assert abs(made.vat_micros - made.net_micros // 5) <= 5_000
        assert made.due_micros == made.net_micros + made.vat_micros - 1_000_000
        after = books.balances()
        assert after.get("unbilled:adv-1:2026-11", 0) == 0
        assert (after["receivable:adv-1"], -int(str(after["vat"]))) == (made.due_micros, made.vat_micros)
        assert owed(books) == made.due_micros
        rounding = made.due_micros - made.vat_micros - int(str(on_credit))
        assert -int(str(after.get("expense:rounding", 0))) == rounding
        names = [line.name for line in made.document.lines]
        assert names == ["Campaign cmp-0, clicks", "Campaign cmp-1, clicks", "Campaign cmp-1, impressions"]
        assert sum(line.quantity for line in made.document.lines) == 40
        books.must_be_sound()

    def test_a_month_is_invoiced_once_and_numbers_have_no_gaps(self, books: World) -> None:
        books.fund("adv-2", 10**9)
        books.click(books.fill(500_000, advertiser_id="adv-2", campaign_id="cmp-9"))
        books.writer.command(SetBilling("adv-2", BUYER))
        assert refused(lambda: invoice(books)) == "period_not_sealed"
        seal(books, "2026-11", "2026-12-05T00:00")
        first = invoice(books)
        assert invoice(books) == first
        assert refused(lambda: invoice(books, "adv-3")) == "billing_profile_missing"
        assert invoice(books, "adv-2").number == "INV-2026-000002"
        assert give_back(books, first.number).number == "CN-2026-000001"
        books.clock.at_ms = at("2027-01-02T00:00")
        books.writer.command(SetBilling("adv-3", BUYER))
        assert refused(lambda: invoice(books, "adv-3")) == "nothing_to_invoice"
        books.must_be_sound()

    def test_what_was_paid_beforehand_leaves_only_its_vat(self, world: World) -> None:
        world.fund("adv-1", 10**9)
        world.click(world.fill(1_230_000))
        for who, profile in ((None, SELLER), ("adv-1", BUYER)):
            world.writer.command(SetBilling(who, profile))
        seal(world, "2026-11", "2026-12-05T00:00")
        made = invoice(world)
        assert (made.net_micros, made.vat_micros, made.due_micros) == (1_230_000, 250_000, 250_000)
        assert (made.document.totals.paid, made.document.totals.due) == ("1.23", "0.25")
        world.must_be_sound()

    def test_a_payment_settles_and_more_than_is_asked_for_is_refused(self, books: World) -> None:
        seal(books, "2026-11", "2026-12-05T00:00")
        due = invoice(books).due_micros
        pay = lambda micros, reference: books.writer.command(  # noqa: E731
            AddFunds("payment", "adv-1", micros, reference)
        )
        assert refused(lambda: pay(due + 1, "p0")) == "not_owed"
        pay(due - 5, "p1")
        assert owed(books) == 5
        books.writer.command(AddFunds("write-off", "adv-1", 5, "w1"))
        assert (owed(books), books.balances().get("receivable:adv-1", 0)) == (0, 0)
        assert books.balances()["expense:bad-debt"] == 5
        bounced = str(books.one("SELECT transaction_id FROM fundings WHERE kind = 'payment'"))
        books.credit("adv-1", 0)
        books.writer.command(Reverse(bounced, "bounced"))
        assert owed(books) == due - 5, "whatever the credit line is"
        books.must_be_sound()

    def test_what_an_invoice_stands_on_is_given_back_by_a_credit_note_alone(self, books: World) -> None:
        seal(books, "2026-11", "2026-12-05T00:00")
        made = invoice(books)
        charge = str(books.one("SELECT transaction_id FROM events WHERE type = 'impression'"))
        assert refused(lambda: books.writer.command(Reverse(charge, "robots"))) == "invoiced"
        assert refused(lambda: books.writer.command(Reverse(str(made.transaction_id), "no"))) == "invoiced"

    def test_a_parallel_world_without_vat(self, books: World) -> None:
        bad = BillingProfile(party=BUYER.party, vat_category="AE", vat_percent="20")
        with pytest.raises(RequestRefused, match="must be 0"):
            books.writer.command(SetBilling("adv-1", bad))


class TestCreditNotes:
    def test_what_is_owed_is_forgiven_and_what_was_paid_goes_to_the_wallet(self, books: World) -> None:
        seal(books, "2026-11", "2026-12-05T00:00")
        made = invoice(books)
        part = give_back(books, made.number, 100_000)
        assert (part.net_micros, part.vat_micros, part.due_micros) == (100_000, 20_000, 120_000)
        assert owed(books) == made.due_micros - 120_000
        books.writer.command(AddFunds("payment", "adv-1", made.due_micros - 120_000, "p1"))
        wallet = int(str(books.balances().get("wallet:adv-1", 0)))
        rest = give_back(books, made.number)
        assert rest.net_micros == made.net_micros - 100_000
        assert rest.vat_micros == made.vat_micros - 20_000, "together exactly the invoice's"
        assert wallet - int(str(books.balances()["wallet:adv-1"])) == rest.due_micros
        assert owed(books) == 0
        assert books.balances()["revenue:credit-notes"] == made.net_micros
        assert int(str(books.balances()["vat"])) == 0
        books.must_be_sound()

    def test_never_above_the_original(self, books: World) -> None:
        seal(books, "2026-11", "2026-12-05T00:00")
        made = invoice(books)
        assert refused(lambda: give_back(books, made.number, made.net_micros + 10_000)) == "above_original"
        assert refused(lambda: give_back(books, made.number, 5)) == "net_micros_indivisible"
        give_back(books, made.number)
        assert refused(lambda: give_back(books, made.number, 10_000)) == "above_original"
        assert refused(lambda: give_back(books, "INV-2026-000009")) == "unknown_document"
        assert refused(lambda: give_back(books, "CN-2026-000001")) == "unknown_invoice"
        found = books.database.read(lambda c: invoicing.read_document(c, RETAILER, made.number))
        assert found == made


def test_a_document_that_was_changed_is_found(sqlite_world: World) -> None:
    world = sqlite_world
    world.credit("adv-1", 10**9)
    world.click(world.fill(1_230_000))
    for who, profile in ((None, SELLER), ("adv-1", BUYER)):
        world.writer.command(SetBilling(who, profile))
    seal(world, "2026-11", "2026-12-05T00:00")
    invoice(world)
    assert world.verify().is_good
    for sql in ("UPDATE documents SET due_micros = due_micros + 1", "DELETE FROM documents"):
        with world.database.engine.connect() as connection:
            for verb in ("update", "delete"):
                connection.exec_driver_sql(f"DROP TRIGGER documents_no_{verb}")
            connection.exec_driver_sql(sql)
            bad = closing_verdict(connection)
            connection.rollback()
        assert bad is not None
        assert bad.table == "document"
