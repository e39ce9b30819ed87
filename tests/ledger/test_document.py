"""Figures of invoices: every amount can be paid, lines add up, VAT is rounded once, and no micro is lost on the way."""

from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.currency import amount_text, decimals_of, minor_micros, round_to_minor, share_out
from ledger.document import (
    Address,
    BillingProfile,
    Consumed,
    Document,
    Party,
    figures_of,
    make_credit_note,
    make_invoice,
    month_ends,
    vat_of,
)

SELLER = Party(
    name="Shop SA", address=Address(line="1 rue du Port", city="Lyon", postcode="69002", country="FR"), vat_id="FR1"
)
BUYER = BillingProfile(party=Party(name="Acme GmbH", address=Address(country="DE"), vat_id="DE2"), vat_percent="20")
currencies = st.sampled_from(["EUR", "JPY", "KWD"])
amounts = st.integers(0, 10**13)


@pytest.mark.parametrize(
    ("micros", "currency", "rounded", "text"),
    [
        (1_005_000, "EUR", 1_010_000, "1.01"),
        (1_004_999, "EUR", 1_000_000, "1.00"),
        (-1_005_000, "EUR", -1_010_000, "-1.01"),
        (1_499_999, "JPY", 1_000_000, "1"),
        (1_500_000, "JPY", 2_000_000, "2"),
        (1_234_500, "KWD", 1_235_000, "1.235"),
        (999, "EUR", 0, "0.00"),
    ],
)
def test_amounts_have_the_decimals_of_their_currency(micros: int, currency: str, rounded: int, text: str) -> None:
    assert round_to_minor(micros, currency) == rounded
    assert amount_text(rounded, currency) == text
    assert (decimals_of("EUR"), decimals_of("JPY"), decimals_of("KWD")) == (2, 0, 3)


@given(st.lists(amounts, min_size=1, max_size=20), currencies)
def test_lines_add_up_to_the_rounded_total_and_are_off_by_less_than_a_unit(parts: list[int], currency: str) -> None:
    total, unit = round_to_minor(sum(parts), currency), minor_micros(currency)
    shared = share_out(parts, total, currency)
    assert sum(shared) == total
    assert all(one % unit == 0 and abs(one - part) < unit for one, part in zip(shared, parts, strict=True))


@given(amounts, st.sampled_from(["0", "5.5", "19", "20", "7.75"]), currencies)
def test_vat_is_the_exact_one_rounded_once(net: int, percent: str, currency: str) -> None:
    net = round_to_minor(net, currency)
    unit = minor_micros(currency)
    assert abs(Decimal(vat_of(net, percent, currency)) - Decimal(net) * Decimal(percent) / 100) <= Decimal(unit) / 2
    assert vat_of(net, percent, currency) % unit == 0


@given(st.lists(amounts, min_size=1, max_size=5), st.data(), currencies)
def test_what_is_due_is_never_negative_and_rounding_explains_every_micro(
    parts: list[int], data: Any, currency: str
) -> None:
    total = sum(parts)
    promotion = data.draw(st.integers(0, total))
    wallet = data.draw(st.integers(0, total - promotion))
    owed = total - promotion - wallet
    consumed = [Consumed(f"c{n}", 1, part) for n, part in enumerate(parts)]
    figures = figures_of(consumed, promotion, wallet, owed, "20", currency)
    unit = minor_micros(currency)
    assert figures.due_micros >= 0
    assert figures.due_micros == owed + figures.vat_micros + figures.rounding_micros
    assert abs(figures.rounding_micros) <= 2 * unit
    payable = (figures.net_micros, figures.vat_micros, figures.paid_micros, figures.due_micros, *figures.line_micros)
    assert all(one % unit == 0 for one in payable)
    assert figures.net_micros == sum(figures.line_micros) - figures.promotion_micros
    assert figures.net_micros + figures.vat_micros == figures.paid_micros + figures.due_micros


def test_parts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="must be what it was charged to"):
        figures_of([Consumed("c", 1, 10)], 1, 2, 3, "20", "EUR")


def an_invoice(**changes: Any) -> Document:
    consumed = [Consumed("Campaign a, clicks", 7, 1_234_567), Consumed("Campaign b, clicks", 1, 20_000)]
    buyer = msgspec.structs.replace(BUYER, **changes)
    figures = figures_of(consumed, 100_003, 500_000, 654_564, buyer.vat_percent, "EUR")
    return make_invoice("INV-2026-000001", date(2026, 12, 5), "2026-11", "EUR", SELLER, buyer, consumed, figures)


def test_an_invoice_says_what_the_standard_asks_for() -> None:
    invoice = an_invoice()
    assert (invoice.type_code, invoice.issue_date, invoice.due_date) == ("380", "2026-12-05", "2027-01-04")
    assert (invoice.period_starts, invoice.period_ends) == ("2026-11-01", "2026-11-30")
    assert [(one.line_id, one.quantity, one.net_amount) for one in invoice.lines] == [
        ("1", 7, "1.23"),
        ("2", 1, "0.02"),
    ]
    assert [(one.amount, one.reason) for one in invoice.allowances] == [("0.10", "Promotional credit")]
    (vat,) = invoice.vat
    assert (vat.taxable_amount, vat.tax_amount, vat.category, vat.percent) == ("1.15", "0.23", "S", "20")
    totals = invoice.totals
    assert (totals.sum_of_lines, totals.allowances, totals.without_vat) == ("1.25", "0.10", "1.15")
    assert (totals.vat, totals.with_vat, totals.paid, totals.due) == ("0.23", "1.38", "0.50", "0.88")


def test_without_vat_it_says_why() -> None:
    (vat,) = an_invoice(vat_category="AE", vat_percent="0").vat
    assert (vat.tax_amount, vat.exemption_reason) == ("0.00", "Reverse charge")


def test_a_credit_note_names_its_invoice() -> None:
    note = make_credit_note("CN-2026-000001", date(2026, 12, 9), an_invoice(), "Robots", 500_000, 100_000)
    assert (note.type_code, note.preceding_number, note.totals.due) == ("381", "INV-2026-000001", "0.60")
    assert note.buyer.name == "Acme GmbH"


def test_months_end_where_they_do() -> None:
    assert [month_ends(one)[1].day for one in ("2024-02", "2026-02", "2026-12", "2026-11")] == [29, 28, 31, 30]
