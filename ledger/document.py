"""Invoices and credit notes as they are handed out: every field of the European standard EN 16931, as JSON.

Comments name the standard's business terms (BT, BG). Amounts are text with as many decimals as the currency has; micros
are what is posted. Pure: figures in, documents out.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from typing import Annotated, Literal

from msgspec import Meta, Struct

from ledger.currency import amount_text, minor_micros, round_to_minor, share_out

ShortText = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
VatCategory = Literal["S", "Z", "E", "AE", "K", "G", "O"]
NEEDS_REASON = frozenset(["E", "AE", "K", "G", "O"])
REASONS = {
    "E": "Exempt from VAT",
    "AE": "Reverse charge",
    "K": "Intra-community supply",
    "G": "Export outside the EU",
    "O": "Not subject to VAT",
}
INVOICE, CREDIT_NOTE = "380", "381"  # UNTDID 1001
PIECE = "C62"  # UN/ECE recommendation 20: one
PROMOTION_REASON = "Promotional credit"


class Address(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Where a party is (BG-5, BG-8)."""

    line: ShortText | None = None
    city: ShortText | None = None
    postcode: ShortText | None = None
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}(?![\s\S])")]


class Party(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A seller or a buyer (BG-4, BG-7)."""

    name: ShortText
    address: Address
    vat_id: ShortText | None = None
    registration_id: ShortText | None = None
    email: ShortText | None = None


class BillingProfile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `PUT /v1/ledger/billing-profiles/{advertiser_id}`: to whom invoices go, and under which VAT.

    Attributes:
        vat_category: UNCL 5305: `S` standard, `Z` zero rated, `E` exempt, `AE` reverse charge, `K` intra-community, `G`
            export, `O` outside the scope.
        vat_percent: rate; 0 for all but `S`.
        payment_days: from issue until due.
    """

    party: Party
    vat_category: VatCategory = "S"
    vat_percent: Annotated[str, Meta(pattern=r"^[0-9]{1,2}(\.[0-9]{1,2})?(?![\s\S])")] = "0"
    payment_days: Annotated[int, Meta(ge=0, le=365)] = 30


class InvoiceLine(Struct, frozen=True, kw_only=True):
    """One line (BG-25): the events of one kind of one campaign, or corrections."""

    line_id: str  # BT-126
    name: str  # BT-153
    quantity: int  # BT-129
    unit_code: str = PIECE  # BT-130
    net_amount: str  # BT-131
    vat_category: str  # BT-151
    vat_percent: str  # BT-152


class Allowance(Struct, frozen=True, kw_only=True):
    """What is taken off the lines (BG-20)."""

    amount: str  # BT-92
    reason: str  # BT-97
    vat_category: str  # BT-95
    vat_percent: str  # BT-96


class VatBreakdown(Struct, frozen=True, kw_only=True):
    """VAT of one category (BG-23)."""

    taxable_amount: str  # BT-116
    tax_amount: str  # BT-117
    category: str  # BT-118
    percent: str  # BT-119
    exemption_reason: str | None = None  # BT-120


class Totals(Struct, frozen=True, kw_only=True):
    """What it comes to (BG-22)."""

    sum_of_lines: str  # BT-106
    allowances: str  # BT-107
    without_vat: str  # BT-109
    vat: str  # BT-110
    with_vat: str  # BT-112
    paid: str  # BT-113
    due: str  # BT-115


class Document(Struct, frozen=True, kw_only=True):
    """An invoice or a credit note."""

    specification_id: str = "urn:cen.eu:en16931:2017"  # BT-24
    number: str  # BT-1
    issue_date: str  # BT-2
    type_code: str  # BT-3
    currency: str  # BT-5
    due_date: str | None  # BT-9
    note: str | None = None  # BT-22
    preceding_number: str | None = None  # BT-25
    period_starts: str  # BT-73
    period_ends: str  # BT-74
    payment_terms: str | None  # BT-20
    seller: Party
    buyer: Party
    lines: list[InvoiceLine]
    allowances: list[Allowance]
    vat: list[VatBreakdown]
    totals: Totals


class Consumed(Struct, frozen=True):
    """What an advertiser was charged in a period of one kind; micros."""

    name: str
    count: int
    micros: int


class Figures(Struct, frozen=True):
    """A document's figures, in micros that can be paid, but for `owed_micros`, which is exact.

    Attributes:
        owed_micros: charged on the credit line.
        paid_micros: charged to the wallet, so paid before.
        net_micros: without VAT, after promotional credit.
        due_micros: net and VAT less what is paid.
        rounding_micros: what rounding adds to what was charged: due + paid - VAT - (owed + wallet).
    """

    line_micros: list[int]
    promotion_micros: int
    net_micros: int
    vat_micros: int
    paid_micros: int
    due_micros: int
    owed_micros: int
    rounding_micros: int


def vat_of(net_micros: int, percent: str, currency: str) -> int:
    """Return the VAT on an amount, rounded once to what can be paid, a half up."""
    unit = minor_micros(currency)
    exact = Decimal(net_micros) * Decimal(percent) / 100 / unit
    return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP)) * unit


def figures_of(
    consumed: Sequence[Consumed], promotion: int, wallet: int, owed: int, percent: str, currency: str
) -> Figures:
    """Return the figures of an invoice.

    Args:
        consumed: what was charged; adds up to the next three.
        promotion, wallet, owed: what it was charged to, in exact micros.
        percent: VAT rate.
        currency: ISO 4217.

    Raises:
        ValueError: the parts do not add up.
    """
    total = sum(one.micros for one in consumed)
    if total != promotion + wallet + owed:
        raise ValueError(f"what was charged, {total}, must be what it was charged to, {promotion + wallet + owed}")
    sum_micros = round_to_minor(total, currency)
    promotion_micros = min(round_to_minor(promotion, currency), sum_micros)
    net_micros = sum_micros - promotion_micros
    paid_micros = min(round_to_minor(wallet, currency), net_micros)  # what is due is never under 0
    vat_micros = vat_of(net_micros, percent, currency)
    due_micros = net_micros + vat_micros - paid_micros
    return Figures(
        share_out([one.micros for one in consumed], sum_micros, currency),
        promotion_micros,
        net_micros,
        vat_micros,
        paid_micros,
        due_micros,
        owed,
        due_micros - vat_micros - owed,
    )


def _lines(
    named: Sequence[Consumed], line_micros: Sequence[int], currency: str, buyer: BillingProfile
) -> list[InvoiceLine]:
    """Return a document's lines, numbered from 1, at the buyer's VAT."""
    return [
        InvoiceLine(
            line_id=str(place),
            name=one.name,
            quantity=one.count,
            net_amount=amount_text(micros, currency=currency),
            vat_category=buyer.vat_category,
            vat_percent=buyer.vat_percent,
        )
        for place, (one, micros) in enumerate(zip(named, line_micros, strict=True), 1)
    ]


def make_invoice(
    number: str,
    issued: date,
    period: str,
    currency: str,
    seller: Party,
    buyer: BillingProfile,
    consumed: Sequence[Consumed],
    figures: Figures,
) -> Document:
    """Return an invoice for a month."""
    text = partial(amount_text, currency=currency)
    category, percent = buyer.vat_category, buyer.vat_percent
    starts, ends = month_ends(period)
    lines = _lines(consumed, figures.line_micros, currency, buyer)
    promotion = figures.promotion_micros
    allowances = [
        Allowance(amount=text(promotion), reason=PROMOTION_REASON, vat_category=category, vat_percent=percent)
    ]
    net, vat = figures.net_micros, figures.vat_micros
    due_date = issued + timedelta(days=buyer.payment_days)
    return Document(
        number=number,
        issue_date=issued.isoformat(),
        type_code=INVOICE,
        currency=currency,
        due_date=due_date.isoformat(),
        period_starts=starts.isoformat(),
        period_ends=ends.isoformat(),
        payment_terms=f"Payable within {buyer.payment_days} days",
        seller=seller,
        buyer=buyer.party,
        lines=lines,
        allowances=allowances if promotion else [],
        vat=[_breakdown(net, vat, category, percent, currency)],
        totals=Totals(
            sum_of_lines=text(sum(figures.line_micros)),
            allowances=text(promotion),
            without_vat=text(net),
            vat=text(vat),
            with_vat=text(net + vat),
            paid=text(figures.paid_micros),
            due=text(figures.due_micros),
        ),
    )


def make_credit_note(number: str, issued: date, invoice: Document, reason: str, net: int, vat: int) -> Document:
    """Return a credit note on part or all of an invoice; amounts are those given back."""
    text = partial(amount_text, currency=invoice.currency)
    of = invoice.vat[0]
    line = InvoiceLine(
        line_id="1",
        name=reason,
        quantity=1,
        net_amount=text(net),
        vat_category=of.category,
        vat_percent=of.percent,
    )
    return Document(
        number=number,
        issue_date=issued.isoformat(),
        type_code=CREDIT_NOTE,
        currency=invoice.currency,
        due_date=None,
        note=reason,
        preceding_number=invoice.number,
        period_starts=invoice.period_starts,
        period_ends=invoice.period_ends,
        payment_terms=None,
        seller=invoice.seller,
        buyer=invoice.buyer,
        lines=[line],
        allowances=[],
        vat=[_breakdown(net, vat, of.category, of.percent, invoice.currency)],
        totals=Totals(
            sum_of_lines=text(net),
            allowances=text(0),
            without_vat=text(net),
            vat=text(vat),
            with_vat=text(net + vat),
            paid=text(0),
            due=text(net + vat),
        ),
    )


def make_return_note(
    number: str,
    issued: date,
    period: str,
    currency: str,
    seller: Party,
    buyer: BillingProfile,
    returned: Sequence[Consumed],
    invoices: Sequence[str],
    net: int,
    vat: int,
) -> Document:
    """Return a credit note on what went back of commission in a month, charged by invoices of it and of months before.

    Args:
        invoices: their numbers; the one there is becomes BT-25, which holds but one, several are named in the note.
        net, vat: given back, in micros that can be paid.
    """
    text = partial(amount_text, currency=currency)
    category, percent = buyer.vat_category, buyer.vat_percent
    starts, ends = month_ends(period)
    shares = share_out([one.micros for one in returned], net, currency)
    lines = _lines(returned, shares, currency, buyer)
    note = "Commission on goods returned" + (f", charged by {', '.join(invoices)}" if invoices else "")
    return Document(
        number=number,
        issue_date=issued.isoformat(),
        type_code=CREDIT_NOTE,
        currency=currency,
        due_date=None,
        note=note,
        preceding_number=invoices[0] if len(invoices) == 1 else None,
        period_starts=starts.isoformat(),
        period_ends=ends.isoformat(),
        payment_terms=None,
        seller=seller,
        buyer=buyer.party,
        lines=lines,
        allowances=[],
        vat=[_breakdown(net, vat, category, percent, currency)],
        totals=Totals(
            sum_of_lines=text(net),
            allowances=text(0),
            without_vat=text(net),
            vat=text(vat),
            with_vat=text(net + vat),
            paid=text(0),
            due=text(net + vat),
        ),
    )


def month_ends(period: str) -> tuple[date, date]:
    """Return the first and the last day of a month given as YYYY-MM."""
    year, month = int(period[:4]), int(period[5:])
    following = date(year + month // 12, month % 12 + 1, 1)
    return date(year, month, 1), following - timedelta(days=1)


def _breakdown(net: int, vat: int, category: str, percent: str, currency: str) -> VatBreakdown:
    text = partial(amount_text, currency=currency)
    return VatBreakdown(
        taxable_amount=text(net),
        tax_amount=text(vat),
        category=category,
        percent=percent,
        exemption_reason=REASONS[category] if category in NEEDS_REASON else None,
    )
