"""Commission in the books: once per line, when it is due and not before, back with goods, and in every paper."""

import io
import random
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ledger import chain, reports
from ledger.attribution import MODELS, WITHDRAWAL_MS, Shelf
from ledger.chart import COMMISSION, unbilled
from ledger.checkpoint import Checkpoint, make_checkpoint
from ledger.command import (
    AddFunds,
    AgreeCommission,
    CommissionAgreed,
    CommissionAgreement,
    CommissionsPosted,
    EndCommission,
    IssueCreditNote,
    Issued,
    PostCommissions,
    Reverse,
    SetBilling,
)
from ledger.commission import DueOrder, LineCredit
from ledger.commission_receipt import check_commission_receipt, make_commission_receipt
from ledger.commissioning import LOOK_BACK_MS, find_due
from ledger.errors import LedgerRefused, NotFound
from ledger.export import export_fec, export_hledger
from ledger.funding import to_moment
from ledger.journal import Posting, Side, Transaction
from ledger.journal import post as post_entries
from ledger.money import Micros
from ledger.performance import report_performance
from ledger.sales import SalesFacts
from ledger.store import erase_visitors
from tests.ledger.test_charge_receipt import SEED
from tests.ledger.test_invoicing import BUYER, SELLER, at, invoice, refused, seal
from tests.ledger.test_sales import COOKIE, OTHER, clicked, sales, sell
from tests.ledger.test_verify import drop_guards
from tests.ledger.world import NOON_MS, RETAILER, World

DAY_MS = 86_400_000
FACTS = SalesFacts(
    Shelf({"p1": {"adv-1"}, "p2": {"adv-1"}, "p3": {"adv-2"}}, {"p1": "Acme", "p2": "Acme", "p3": "Brio"}), {}
)
NOTHING = CommissionsPosted(0, 0, 0, 0)


def agree(
    world: World, advertiser_id: str = "adv-1", rate_bps: int = 833, starts_ms: int = NOON_MS, **terms: Any
) -> CommissionAgreement:
    fields: dict[str, Any] = {"min_micros": None, "max_micros": None, "ends_at": None} | terms
    answer, _ = world.writer.command(AgreeCommission(advertiser_id, rate_bps, starts_at=to_moment(starts_ms), **fields))
    assert isinstance(answer, CommissionAgreed)
    return answer.agreement


def due(world: World, model: str = "default") -> list[DueOrder]:
    since_ms = world.clock() - LOOK_BACK_MS
    found = world.database.read(
        lambda c: find_due(c, RETAILER, MODELS[model], lambda _c, _p: FACTS, world.clock(), since_ms)
    )
    assert isinstance(found, list)
    return found


def post(world: World, orders: Sequence[DueOrder], model: str = "default") -> CommissionsPosted:
    answer, _ = world.writer.command(PostCommissions(list(orders), model))
    assert isinstance(answer, CommissionsPosted)
    return answer


def run(world: World, model: str = "default") -> CommissionsPosted:
    orders = due(world, model)
    return post(world, orders, model) if orders else NOTHING


def restarted(world: World) -> World:
    """Return the same books under a writer that knows nothing but them."""
    other = World(world.database)
    other.clock.at_ms = world.clock()
    return other


def posted(world: World, account: str = "revenue:commission") -> int:
    return -int(
        str(world.one(f"SELECT COALESCE(SUM(posted_micros), 0) FROM audit_balance WHERE account = '{account}'"))
    )


@pytest.fixture
def shop(world: World) -> World:
    world.fund("adv-1", 10**9)
    world.fund("adv-2", 10**9)
    return world


@pytest.fixture
def sold(shop: World) -> World:
    """One order of two lines, credited to adv-1 at 8.33 %; it is noon of 24 November."""
    agree(shop)
    clicked(shop)
    sell(shop, "o1", NOON_MS + 1, ("p1", 4, 40_000_003), ("p2", 1, 9_999_999), visitor=COOKIE)
    return shop


def test_nothing_is_posted_before_the_time_to_withdraw_is_over(sold: World) -> None:
    sold.clock.at_ms = NOON_MS + WITHDRAWAL_MS
    assert due(sold) == []
    token_id = str(sold.one("SELECT token_id FROM events WHERE type = 'click'"))
    early = [DueOrder("o1", [LineCredit(1, token_id, "click", "same_sku")])]
    assert post(sold, early) == NOTHING, "the writer looks for itself"
    assert posted(sold) == 0
    sold.clock.pass_ms(1)
    assert run(sold) == CommissionsPosted(2, 13_328_001 + 833_000, 0, 0)
    assert posted(sold) == 14_161_001
    sold.must_be_sound()


def test_what_is_posted_is_posted_once(sold: World) -> None:
    sold.clock.pass_ms(20 * DAY_MS)
    orders = due(sold)
    first = post(sold, orders)
    assert first.charged_lines == 2
    head = sold.rows("SELECT * FROM chain_heads")
    assert post(sold, orders) == NOTHING, "the same orders again"
    assert run(sold) == NOTHING, "and what is found anew"
    assert post(restarted(sold), orders) == NOTHING, "nor does another writer"
    assert sold.rows("SELECT * FROM chain_heads") == head
    assert posted(sold) == first.charged_micros
    assert sold.rows("SELECT account, posted_micros FROM audit_balance WHERE account LIKE 'unbilled:%'") == [
        ("unbilled:adv-1:2026-12", first.charged_micros)
    ]
    assert sold.one("SELECT owed_micros FROM funds WHERE advertiser_id = 'adv-1'") == first.charged_micros
    sold.must_be_sound()


def test_four_who_post_at_once_post_once(sold: World) -> None:
    sold.clock.pass_ms(20 * DAY_MS)
    orders = due(sold)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda world: post(world, orders), [restarted(sold) for _ in range(4)]))
    assert sorted(one.charged_lines for one in done) == [0, 0, 0, 2]
    assert posted(sold) == 14_161_001
    sold.must_be_sound()


def test_rounding_is_per_line(shop: World) -> None:
    agree(shop, rate_bps=5000)
    clicked(shop)
    sell(shop, "o1", NOON_MS + 1, ("p1", 1, 3), ("p1", 1, 3), ("p2", 1, 3), visitor=COOKIE)
    shop.clock.pass_ms(15 * DAY_MS)
    assert run(shop) == CommissionsPosted(3, 6, 0, 0), "half of 3 three times; of the whole order it would be 4"


def test_goods_that_come_back_take_their_part_along_and_no_more(sold: World) -> None:
    sold.clock.pass_ms(20 * DAY_MS)
    charged = run(sold).charged_micros
    steps = []
    for units in (-1, -2, -9):
        sell(sold, "o1", sold.clock(), ("p1", units, 40_000_003), visitor=COOKIE)
        steps.append(run(sold).returned_micros)
        assert run(sold) == NOTHING
        sold.clock.pass_ms(DAY_MS)
    first_line = round(Fraction(160_000_012 * 833, 10_000))
    assert sum(steps) == first_line
    assert steps[0] == first_line - round(Fraction(first_line * 3, 4))
    assert posted(sold) == charged - first_line == round(Fraction(9_999_999 * 833, 10_000))
    assert posted(sold, "returns:adv-1:2026-12") == first_line
    rows = sold.rows("SELECT line, step, quantity, sales_micros FROM audit_commission ORDER BY line, step")
    assert [row for row in rows if row[0] == 1] == [
        (1, 0, 4, 160_000_012), (1, 1, 3, 120_000_009), (1, 2, 1, 40_000_003), (1, 3, 0, 0),
    ]  # fmt: skip
    sell(sold, "o1", sold.clock(), ("p1", -1, 40_000_003), visitor=COOKIE)
    assert run(sold) == NOTHING, "more than was bought is nobody's"
    sold.must_be_sound()


def test_what_comes_back_in_time_is_never_charged(sold: World) -> None:
    sell(sold, "o1", NOON_MS + 2 * DAY_MS, ("p1", -3, 40_000_003), visitor=COOKIE)
    sold.clock.pass_ms(20 * DAY_MS)
    assert run(sold).charged_micros == round(Fraction(40_000_003 * 833, 10_000)) + round(
        Fraction(9_999_999 * 833, 10_000)
    )
    sell(sold, "o1", sold.clock(), ("p1", -1, 40_000_003), ("p2", -1, 9_999_999), visitor=COOKIE)
    assert run(sold).returned_lines == 2
    assert posted(sold) == 0


def test_a_return_that_a_clock_set_back_dates_before_the_posting_is_heeded(sold: World) -> None:
    sold.clock.pass_ms(20 * DAY_MS)
    run(sold)
    sold.clock.pass_ms(-3 * DAY_MS)
    sell(sold, "o1", sold.clock(), ("p1", -4, 40_000_003), visitor=COOKIE)
    assert run(sold).returned_lines == 1


class Twin:
    """The same in plain fractions: terms, and per line what was kept when it was charged and what is kept now."""

    def __init__(self, rates: dict[str, tuple[int, int | None, int | None]]) -> None:
        self.rates = rates
        self.lines: dict[tuple[str, int], list[int]] = {}  # ordered at, price, kept, kept when charged or -1
        self.owner: dict[tuple[str, int], str] = {}

    def charge(self, now_ms: int) -> None:
        for line in self.lines.values():
            if line[3] < 0 and line[0] <= now_ms - 14 * 86_400_000:
                line[3] = line[2]

    def total(self) -> dict[str, int]:
        sums = dict.fromkeys(self.rates, 0)
        for key, (_, price, kept, charged_for) in self.lines.items():
            if charged_for > 0 and price > 0:
                bps, least, most = self.rates[self.owner[key]]
                whole = round(Fraction(charged_for * price * bps, 10_000))
                whole = max(whole, least or 0)
                whole = whole if most is None else min(whole, most)
                sums[self.owner[key]] += round(Fraction(whole * kept, charged_for))
        return sums


@pytest.mark.parametrize("seed", range(4))
def test_random_orders_returns_and_rates_come_to_what_plain_fractions_say(shop: World, seed: int) -> None:
    chance = random.Random(seed)
    rates: dict[str, tuple[int, int | None, int | None]] = {
        "adv-1": (chance.randint(1, 9_999), chance.choice([None, 70_001]), None),
        "adv-2": (chance.randint(1, 9_999), None, chance.choice([None, 8_000_003])),
    }
    for who, (bps, least, most) in rates.items():
        agree(shop, who, bps, min_micros=least, max_micros=most)
    twin = Twin(rates)
    clicked(shop)
    clicked(shop, advertiser_id="adv-2", campaign_id="cmp-2", product_id="p3")
    owners = {"p1": "adv-1", "p2": "adv-1", "p3": "adv-2"}
    bought: dict[str, dict[int, tuple[str, int]]] = {}
    for day in range(45):
        shop.clock.at_ms = NOON_MS + day * DAY_MS + chance.randrange(1000)
        if day < 13:
            for _ in range(3):
                order_id, lines = f"o{len(bought)}", chance.sample(sorted(owners), chance.randint(1, 3))
                some = [(one, chance.randint(1, 5), chance.randint(1, 99_999_989)) for one in lines]
                sell(shop, order_id, shop.clock(), *some, visitor=COOKIE)
                bought[order_id] = {number: (one, price) for number, (one, _, price) in enumerate(some, 1)}
                for number, (one, many, price) in enumerate(some, 1):
                    twin.lines[order_id, number] = [shop.clock(), price, many, -1]
                    twin.owner[order_id, number] = owners[one]
        for order_id in chance.sample(sorted(bought), 2):
            number = chance.choice(sorted(bought[order_id]))
            product_id, price = bought[order_id][number]
            back = chance.randint(1, 3)
            sell(shop, order_id, shop.clock(), (product_id, -back, price), visitor=COOKIE)
            line = twin.lines[order_id, number]
            line[2] -= min(back, line[2])
        if chance.random() < 0.4:
            run(shop)
            twin.charge(shop.clock())
            assert run(shop) == NOTHING
    run(shop)
    twin.charge(shop.clock())
    by_advertiser = dict(
        shop.rows("SELECT advertiser_id, CAST(SUM(amount_micros) AS BIGINT) FROM audit_commission GROUP BY 1")
    )
    assert by_advertiser == {who: micros for who, micros in twin.total().items() if micros}
    assert posted(shop) == sum(twin.total().values()) > 0
    assert int(str(shop.one("SELECT COUNT(*) FROM audit_commission WHERE step > 0"))) > 5
    trial = shop.database.read(lambda c: reports.trial_balance(c, RETAILER))
    assert trial.difference_micros == 0
    shop.must_be_sound()


def test_another_model_for_a_closed_month_touches_no_book(sold: World) -> None:
    clicked(sold, OTHER)
    sell(sold, "o2", NOON_MS + 2, ("p2", 1, 7_000_001), visitor=OTHER)  # halo: not under same-sku-7d
    sold.clock.pass_ms(20 * DAY_MS)
    assert run(sold).charged_lines == 3
    seal(sold, "2026-11", "2026-12-20T10:00")
    before = sold.rows("SELECT * FROM chain_heads")
    assert sales(sold, model="same-sku-7d")["cmp-1"].sales_micros < sales(sold)["cmp-1"].sales_micros
    for model in MODELS:
        assert run(sold, model) == NOTHING
    assert sold.rows("SELECT * FROM chain_heads") == before


def test_only_orders_of_the_agreements_time_are_charged_and_each_under_its_own(shop: World) -> None:
    agree(shop, rate_bps=1000, ends_at=to_moment(NOON_MS + 2 * DAY_MS))
    agree(shop, rate_bps=2000, starts_ms=NOON_MS + 3 * DAY_MS)
    clicked(shop)
    for day in range(5):
        sell(shop, f"o{day}", NOON_MS + day * DAY_MS + 1, ("p1", 1, 10_000_000), visitor=COOKIE)
    clicked(shop, OTHER, advertiser_id="adv-2", campaign_id="cmp-2", product_id="p3")
    sell(shop, "other", NOON_MS + DAY_MS, ("p3", 1, 10_000_000), visitor=OTHER)
    shop.clock.pass_ms(30 * DAY_MS)
    run(shop)
    assert shop.rows("SELECT order_id, agreement_id, amount_micros FROM audit_commission ORDER BY order_id") == [
        ("o0", "cag_1", 1_000_000), ("o1", "cag_1", 1_000_000),
        ("o3", "cag_2", 2_000_000), ("o4", "cag_2", 2_000_000),
    ]  # fmt: skip


def test_agreements_do_not_overlap_and_end_before_nothing_that_was_charged(sold: World) -> None:
    assert agree(sold).commission_agreement_id == "cag_1", "the same terms are the same agreement"
    assert refused(lambda: agree(sold, rate_bps=1)) == "agreement_overlaps"
    assert refused(lambda: agree(sold, "adv-9", ends_at=to_moment(NOON_MS))) == "ends_before_start"
    sold.clock.pass_ms(20 * DAY_MS)
    run(sold)

    def end(at_ms: int, agreement_id: str = "cag_1") -> str | None:
        answer, _ = sold.writer.command(EndCommission(agreement_id, to_moment(at_ms)))
        assert isinstance(answer, CommissionAgreed)
        return None if answer.agreement.ends_at is None else answer.agreement.ends_at.isoformat()

    assert refused(lambda: end(NOON_MS + 1)) == "already_charged"
    assert refused(lambda: end(NOON_MS - 1)) == "ends_before_start"
    assert refused(lambda: end(NOON_MS, "cag_7")) == "unknown_agreement"
    assert end(NOON_MS + 5 * DAY_MS) == "2026-11-29T12:00:00+00:00"
    assert agree(sold, rate_bps=1, starts_ms=NOON_MS + 5 * DAY_MS).commission_agreement_id == "cag_3"
    assert refused(lambda: end(NOON_MS + 6 * DAY_MS)) == "agreement_overlaps"
    sold.must_be_sound()


def test_erasing_the_buyer_keeps_what_was_posted_and_charges_nothing_more(sold: World) -> None:
    sell(sold, "o2", NOON_MS + 10 * DAY_MS, ("p1", 1, 10_000_000), visitor=COOKIE)
    sold.clock.pass_ms(15 * DAY_MS)
    before = run(sold).charged_micros
    sold.database.transact(lambda connection: erase_visitors(connection, RETAILER, [COOKIE], sold.clock(), DAY_MS))
    sold.clock.pass_ms(15 * DAY_MS)
    assert run(sold) == NOTHING
    assert posted(sold) == before
    sold.must_be_sound()


# --- in every paper


@pytest.fixture
def billed(sold: World) -> World:
    """Charged in December, a part returned in January; both months sealed, and billing set up."""
    for who, profile in ((None, SELLER), ("adv-1", BUYER)):
        sold.writer.command(SetBilling(who, profile))
    sold.clock.pass_ms(20 * DAY_MS)
    run(sold)
    sold.clock.at_ms = at("2027-01-02T10:00")
    sell(sold, "o1", sold.clock(), ("p1", -1, 40_000_003), visitor=COOKIE)
    run(sold)
    seal(sold, "2026-11", "2027-02-04T10:00")
    seal(sold, "2026-12", "2027-02-04T10:00")
    seal(sold, "2027-01", "2027-02-04T10:00")
    return sold


def line_micros() -> int:
    return round(Fraction(160_000_012 * 833, 10_000))


def test_a_statement_tells_of_commission(billed: World) -> None:
    december, january = (
        billed.database.read(lambda c, p=period: reports.read_statement(c, RETAILER, "adv-1", p))
        for period in ("2026-12", "2027-01")
    )
    (charged,), (back,) = december.commissions, january.commissions
    assert (charged.charged_lines, charged.charged_micros, charged.returned_micros) == (
        2, line_micros() + round(Fraction(9_999_999 * 833, 10_000)), 0,
    )  # fmt: skip
    assert (back.charged_lines, back.returned_lines) == (0, 1)
    assert back.returned_micros == line_micros() - round(Fraction(line_micros() * 3, 4))
    assert {one.account for one in january.accounts if one.credit_micros} == {"returns:adv-1:2027-01"}


def test_an_invoice_asks_for_commission_with_vat_and_the_months_returns_are_a_credit_note(billed: World) -> None:
    made = invoice(billed, period="2026-12")
    assert made.kind == "invoice"
    (line,) = made.document.lines
    assert (line.name, line.quantity, line.net_amount) == ("Commission on sales, agreement cag_1", 2, "14.16")
    assert (made.net_micros, made.vat_micros, made.due_micros) == (14_160_000, 2_830_000, 16_990_000)
    billed.writer.command(AddFunds("payment", "adv-1", made.due_micros, "bank 7"))
    wallet_micros = posted(billed, "wallet:adv-1")
    note = invoice(billed, period="2027-01")
    assert (note.kind, note.net_micros, note.vat_micros, note.due_micros) == (
        "credit-note", 3_330_000, 670_000, 4_000_000,
    )  # fmt: skip
    assert note.document.preceding_number == made.number
    assert note.document.lines[0].name == "Commission on goods returned, agreement cag_1"
    assert posted(billed, "wallet:adv-1") == wallet_micros + 4_000_000, "it was paid, so it goes to the wallet"
    assert posted(billed, "returns:adv-1:2027-01") == 0
    assert [invoice(billed, period=one).number for one in ("2026-12", "2027-01")] == [made.number, note.number]
    billed.must_be_sound()


def test_charges_and_returns_of_one_month_are_an_invoice_and_a_credit_note(billed: World) -> None:
    clicked(billed)
    sell(billed, "o3", billed.clock() + 1, ("p1", 2, 30_000_000), visitor=COOKIE)
    billed.clock.at_ms = at("2027-02-20T10:00")
    run(billed)
    sell(billed, "o3", billed.clock(), ("p1", -1, 30_000_000), visitor=COOKIE)
    run(billed)
    seal(billed, "2027-02", "2027-03-05T10:00")
    made = invoice(billed, period="2027-02")
    assert made.kind == "invoice"
    # 8.33 % of 60.00 is 4.998, a click cost 0.250001 of the wallet, and half of the commission goes back; 20 % VAT
    documents = billed.rows("SELECT number, net_micros, vat_micros FROM documents ORDER BY seq")
    assert documents == [("INV-2027-000001", 5_250_000, 1_050_000), ("CN-2027-000001", 2_500_000, 500_000)]
    assert posted(billed, "receivable:adv-1") == -(5_250_000 + 1_050_000 - 250_000 - 3_000_000)
    assert posted(billed, "returns:adv-1:2027-02") == 0
    assert posted(billed, "unbilled:adv-1:2027-02") == 0
    billed.must_be_sound()


def test_no_credit_note_gives_back_what_went_back_with_goods(billed: World) -> None:
    made = invoice(billed, period="2026-12")
    answer, _ = billed.writer.command(IssueCreditNote(made.number, None, "all of it"))
    assert isinstance(answer, Issued)
    assert answer.net_micros == 14_160_000 - 3_340_000, "less what the goods took back, up to the next cent"
    sell(billed, "o1", billed.clock(), ("p1", -3, 40_000_003), visitor=COOKIE)
    assert run(billed) == NOTHING, "and what the note gave back does not go back again"
    billed.must_be_sound()


def test_a_reversed_commission_does_not_go_back_again_and_a_partly_returned_one_is_not_reversed(sold: World) -> None:
    sold.clock.pass_ms(20 * DAY_MS)
    run(sold)
    first, second = (str(row[0]) for row in sold.rows("SELECT transaction_id FROM audit_commission ORDER BY line"))
    sold.writer.command(Reverse(first, "agreed so"))
    sell(sold, "o1", sold.clock(), ("p1", -4, 40_000_003), ("p2", -1, 9_999_999), visitor=COOKIE)
    assert run(sold).returned_lines == 1
    assert posted(sold) == 0
    assert refused(lambda: sold.writer.command(Reverse(second, "again"))) == "partly_returned"
    sold.must_be_sound()


def test_an_invoiced_commission_is_given_back_by_a_credit_note_only(billed: World) -> None:
    invoice(billed, period="2026-12")
    invoice(billed, period="2027-01")
    for step, line in ((0, 2), (1, 1)):
        (row,) = billed.rows(f"SELECT transaction_id FROM audit_commission WHERE step = {step} AND line = {line}")
        assert refused(lambda one=row: billed.writer.command(Reverse(str(one[0]), "no"))) in (
            "invoiced", "partly_returned",
        )  # fmt: skip


def test_reports_tell_of_commission(billed: World) -> None:
    total = posted(billed)
    assert sales(billed, 0, 60)["cmp-1"].commission_micros == total
    for report, name in (("campaigns", "cmp-1"), ("products", "p1"), ("placements", "category-top")):
        found = billed.database.read(
            lambda c, r=report: report_performance(
                c, RETAILER, r, "EUR", "UTC", NOON_MS, NOON_MS + 60 * DAY_MS, "total", MODELS["default"],
                lambda _c, _p: FACTS, billed.clock(), "adv-1",
            )
        )  # fmt: skip
        assert {one.name: one.commission_micros for one in found.items} == {name: total}
    assert "adv-1" not in str(sales(billed, 0, 60, whose="adv-2"))


def test_hledger_and_the_tax_office_read_of_commission(billed: World, tmp_path: Path) -> None:
    invoice(billed, period="2026-12")
    invoice(billed, period="2027-01")
    journal, tax = io.StringIO(), io.StringIO()
    billed.database.read(lambda c: export_hledger(c, RETAILER, journal))
    billed.database.read(lambda c: export_fec(c, RETAILER, "Europe/Paris", tax))
    (tmp_path / "books.journal").write_text(journal.getvalue())
    assert "revenue:commission" in journal.getvalue()
    rows = [line.split("\t") for line in tax.getvalue().splitlines()[1:]]
    assert {"708200", "419810"} <= {row[4] for row in rows}
    assert sum(int(row[11].replace(",", "")) - int(row[12].replace(",", "")) for row in rows) == 0
    if shutil.which("hledger") is not None:
        subprocess.run(["hledger", "-f", tmp_path / "books.journal", "check", "accounts", "commodities"], check=True)


# --- provable


def checkpoint_of(world: World) -> Checkpoint:
    made = world.database.read(lambda c: make_checkpoint(c, RETAILER, SEED, NOON_MS))
    assert isinstance(made, Checkpoint)
    return made


def test_a_receipt_proves_a_lines_commission_and_nothing_changed_passes_for_one(billed: World) -> None:
    kept = checkpoint_of(billed)
    made = billed.database.read(lambda c: make_commission_receipt(c, RETAILER, "o1", 1, kept))
    text = msgspec.json.encode(made)
    proven = check_commission_receipt(text, kept)
    assert proven.agreement.rate_bps == 833
    assert [step.amount_micros for step in proven.steps] == [
        line_micros(), round(Fraction(line_micros() * 3, 4)) - line_micros(),
    ]  # fmt: skip
    chance, passed = random.Random(3), 0
    for _ in range(300):
        place = chance.randrange(len(text))
        forged = text[:place] + bytes([chance.choice(b'0123456789abcdef",:')]) + text[place + 1 :]
        if forged == text:
            continue
        try:
            passed += check_commission_receipt(forged, kept) != proven
        except LedgerRefused:
            continue
    assert passed == 0
    cheaper = msgspec.json.decode(text)
    cheaper["steps"] = cheaper["steps"][1:]
    assert refused(lambda: check_commission_receipt(msgspec.json.encode(cheaper), kept)) == "receipt_invalid"
    with pytest.raises(NotFound):
        billed.database.read(lambda c: make_commission_receipt(c, RETAILER, "o1", 9, kept))


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("UPDATE commissions SET amount_micros = amount_micros - 1 WHERE line = 1 AND step = 0", "commission"),
        ("UPDATE commissions SET order_id = 'o9' WHERE line = 2", "commission"),
        ("DELETE FROM commissions WHERE step = 1", "commission"),
        ("UPDATE commission_agreements SET rate_bps = 1", "commission-agreement"),
        ("DELETE FROM commission_agreements", "commission-agreement"),
    ],
)
def test_whatever_is_done_to_commissions_is_found(billed: World, sql: str, table: str) -> None:
    def tamper(connection: sa.Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        else:
            drop_guards(connection)
        connection.execute(sa.text(sql))

    assert billed.verify().is_good
    billed.database.transact(tamper)
    bad = billed.verify().bad
    assert bad is not None
    assert bad.table == table


def test_commissions_are_only_ever_added_to(billed: World) -> None:
    for table in ("commissions", "commission_agreements"):
        for sql in (f"DELETE FROM {table}", f"UPDATE {table} SET recorded_at_ms = 0"):
            with pytest.raises(DBAPIError):
                billed.database.transact(lambda connection, one=sql: connection.execute(sa.text(one)))


def test_a_posting_without_its_row_is_found(sold: World) -> None:
    def post_alone(connection: sa.Connection) -> None:
        head = chain.lock_head(connection, RETAILER)
        postings = (
            Posting(unbilled("adv-1", "2026-11"), Side.DEBIT, Micros(7)),
            Posting(COMMISSION, Side.CREDIT, Micros(7)),
        )
        post_entries(connection, RETAILER, head, [Transaction(postings, "commission:cag_1", "2026-11", 0)], "EUR", 0)
        chain.save_head(connection, RETAILER, head)

    sold.database.transact(post_alone)
    bad = sold.verify().bad
    assert bad is not None
    assert (bad.table, bad.rule) == ("commissions", "every commission must have its row, this has none")
