"""Invoices and credit notes: issued in one transaction with their numbers, their postings and their place in the chain.

An invoice is for a sealed month: everything that was charged in it and not reversed. What was paid from the wallet is
shown and not asked for again; VAT is asked for on all of it. After it only a credit note gives anything back; the one
on what went back of commission in the month comes with it.
"""

from datetime import date, datetime
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy.engine import Connection

from ledger import chain, store
from ledger.agreement import REASON as AGREED
from ledger.chart import CREDIT_NOTES, ROUNDING, VAT, AccountName, promo, receivable, returns, unbilled, wallet
from ledger.command import DocumentKind, IssueCreditNote, Issued, IssueInvoice, SetBilling
from ledger.currency import minor_micros, round_to_minor
from ledger.document import (
    BillingProfile,
    Consumed,
    Document,
    figures_of,
    make_credit_note,
    make_invoice,
    make_return_note,
    vat_of,
)
from ledger.errors import ConflictRefused, NotFound, RequestRefused
from ledger.funding import to_moment
from ledger.journal import Posting, Side, Transaction, post
from ledger.money import Micros
from ledger.notice import InvoiceIssued, tell

CHAIN_KIND = "document"
SELLER = ""  # in place of an advertiser
_SERIES: dict[DocumentKind, str] = {"invoice": "INV", "credit-note": "CN"}
_NAMES = {"click": "clicks", "impression": "impressions", "view": "views"}


def set_billing(connection: Connection, retailer_id: str, command: SetBilling, now_ms: int) -> BillingProfile:
    """Set who sells, or to whom an advertiser's invoices go. Documents issued before stay as they are."""
    profile = command.profile
    if profile.vat_category != "S" and float(profile.vat_percent):
        message = f"the rate of category {profile.vat_category} must be 0, was {profile.vat_percent}"
        raise RequestRefused("vat_percent_not_zero", message, "/vat_percent")
    body = msgspec.json.encode(profile).decode()
    store.set_billing_profile(connection, retailer_id, command.advertiser_id or SELLER, body, now_ms)
    return profile


def read_billing(connection: Connection, retailer_id: str, advertiser_id: str | None) -> BillingProfile | None:
    """Return who sells (None), or to whom an advertiser's invoices go."""
    body = store.read_billing_profile(connection, retailer_id, advertiser_id or SELLER)
    return None if body is None else msgspec.json.decode(body, type=BillingProfile)


def issue_invoice(
    connection: Connection, retailer_id: str, command: IssueInvoice, currency: str, time_zone: str, now_ms: int
) -> Issued:
    """Invoice an advertiser's month; again, it is the same invoice.

    What went back of commission in the month is given back with it by a credit note, which is the answer where the
    month has nothing else.

    Raises:
        ConflictRefused: `period_not_sealed`, `billing_profile_missing`, `nothing_to_invoice`.
    """
    head = chain.lock_head(connection, retailer_id)
    advertiser_id, period = command.advertiser_id, command.period
    number = store.find_invoice(connection, retailer_id, advertiser_id, period) or store.find_return_note(
        connection, retailer_id, advertiser_id, period
    )
    if number is not None:
        return read_document(connection, retailer_id, number)
    if period not in dict(store.list_sealed(connection, retailer_id)):
        raise ConflictRefused("period_not_sealed", f"{period} must be sealed before it is invoiced", "/period")
    seller = _profile(connection, retailer_id, None)
    buyer = _profile(connection, retailer_id, advertiser_id)
    consumed = [
        Consumed(f"Campaign {campaign_id}, {_NAMES[kind]}", count, micros)
        for campaign_id, kind, count, micros in store.list_consumed(connection, retailer_id, advertiser_id, period)
    ]
    owed_account = unbilled(advertiser_id, period)
    consumed += [
        Consumed(f"Booking {reason.removeprefix(AGREED)}", 1, micros)
        for reason, micros in store.list_agreed(connection, retailer_id, owed_account, period)
    ]
    months = store.sum_month_commissions(connection, retailer_id, advertiser_id, period)
    consumed += [
        Consumed(f"Commission on sales, agreement {agreement_id}", count, micros)
        for agreement_id, is_return, count, micros in months
        if not is_return
    ]
    returned = [
        Consumed(f"Commission on goods returned, agreement {agreement_id}", count, -micros)
        for agreement_id, is_return, count, micros in months
        if is_return
    ]
    if not consumed and returned:
        note = _give_back_returned(
            connection, retailer_id, head, returned, advertiser_id, period, seller, buyer, currency, time_zone, now_ms
        )
        if note is not None:
            return note
    if not consumed:
        raise ConflictRefused("nothing_to_invoice", f"{advertiser_id} was charged nothing in {period}", "/period")
    accounts = [promo(advertiser_id), wallet(advertiser_id), owed_account]
    charged = store.sum_charges(connection, retailer_id, accounts, period)
    promotion, prepaid, owed = [charged.get(one, 0) for one in accounts]
    figures = figures_of(consumed, promotion, prepaid, owed, buyer.vat_percent, currency)
    postings = _postings(
        [
            (receivable(advertiser_id), figures.due_micros),
            (owed_account, -figures.owed_micros),
            (VAT, -figures.vat_micros),
            (ROUNDING, -figures.rounding_micros),
        ]
    )
    number = _next_number(connection, retailer_id, "invoice", _today(time_zone, now_ms))
    document = make_invoice(number, _today(time_zone, now_ms), period, currency, seller.party, buyer, consumed, figures)
    store.ensure_funds(connection, retailer_id, advertiser_id)
    store.move_owed(connection, retailer_id, advertiser_id, figures.due_micros - figures.owed_micros)
    invoice = _issue(
        connection, retailer_id, head, "invoice", advertiser_id, period, None,
        (figures.net_micros, figures.vat_micros, figures.due_micros), document, postings, currency, time_zone, now_ms,
    )  # fmt: skip
    _give_back_returned(
        connection, retailer_id, head, returned, advertiser_id, period, seller, buyer, currency, time_zone, now_ms
    )
    told = InvoiceIssued(
        advertiser_id=advertiser_id,
        currency=currency,
        number=number,
        period=period,
        net_micros=figures.net_micros,
        vat_micros=figures.vat_micros,
        due_micros=figures.due_micros,
    )
    tell(connection, retailer_id, [("invoice.issued", told)], now_ms)
    return invoice


def issue_credit_note(
    connection: Connection, retailer_id: str, command: IssueCreditNote, currency: str, time_zone: str, now_ms: int
) -> Issued:
    """Give back part or all of an invoice: what is still owed is forgiven, the rest goes to the wallet.

    Raises:
        NotFound: `unknown_invoice`.
        ConflictRefused: `above_original`, more than the invoice less what notes gave back before.
        RequestRefused: `net_micros_indivisible`, not an amount that can be paid.
    """
    head = chain.lock_head(connection, retailer_id)
    invoice = read_document(connection, retailer_id, command.invoice_number)
    if invoice.kind != "invoice":
        raise NotFound("unknown_invoice", f"{command.invoice_number!r} is not an invoice", "/invoice_number")
    given = _given_back(connection, retailer_id, invoice, currency)
    left_net, left_vat = invoice.net_micros - given[0], invoice.vat_micros - given[1]
    net = left_net if command.net_micros is None else command.net_micros
    unit = minor_micros(currency)
    if net % unit:
        raise RequestRefused("net_micros_indivisible", f"net_micros must be a multiple of {unit}", "/net_micros")
    if net > left_net or net <= 0:
        raise ConflictRefused("above_original", f"{left_net} micros of it are left to give back", "/net_micros")
    percent = invoice.document.vat[0].percent
    vat = left_vat if net == left_net else min(left_vat, vat_of(net, percent, currency))
    advertiser_id = invoice.advertiser_id
    postings = _postings(
        [(CREDIT_NOTES, net), (VAT, vat), *_forgive(connection, retailer_id, advertiser_id, net + vat)]
    )
    today = _today(time_zone, now_ms)
    number = _next_number(connection, retailer_id, "credit-note", today)
    document = make_credit_note(number, today, invoice.document, command.reason, net, vat)
    return _issue(
        connection, retailer_id, head, "credit-note", advertiser_id, invoice.period, invoice.number,
        (net, vat, net + vat), document, postings, currency, time_zone, now_ms,
    )  # fmt: skip


def _give_back_returned(
    connection: Connection,
    retailer_id: str,
    head: chain.Head,
    returned: list[Consumed],
    advertiser_id: str,
    period: str,
    seller: BillingProfile,
    buyer: BillingProfile,
    currency: str,
    time_zone: str,
    now_ms: int,
) -> Issued | None:
    """Give back what went back of commission in a month, with its VAT; None where that is less than can be paid."""
    micros = sum(one.micros for one in returned)
    net = round_to_minor(micros, currency)
    if not net:
        return None
    vat = vat_of(net, buyer.vat_percent, currency)
    postings = _postings(
        [
            (returns(advertiser_id, period), micros),
            (VAT, vat),
            (ROUNDING, net - micros),
            *_forgive(connection, retailer_id, advertiser_id, net + vat),
        ]
    )
    months = store.list_returned_from(connection, retailer_id, advertiser_id, period)
    invoices = [store.find_invoice(connection, retailer_id, advertiser_id, one) for one in months]
    today = _today(time_zone, now_ms)
    number = _next_number(connection, retailer_id, "credit-note", today)
    document = make_return_note(
        number, today, period, currency, seller.party, buyer, returned, [one for one in invoices if one], net, vat
    )
    return _issue(
        connection, retailer_id, head, "credit-note", advertiser_id, period, None, (net, vat, net + vat), document,
        postings, currency, time_zone, now_ms,
    )  # fmt: skip


def _forgive(
    connection: Connection, retailer_id: str, advertiser_id: str, micros: int
) -> list[tuple[AccountName, int]]:
    """Forgive what an advertiser still owes, put the rest into its wallet, and return the legs, debit +."""
    open_micros = store.read_posted(connection, retailer_id, receivable(advertiser_id))
    forgiven = min(max(open_micros, 0), micros)
    store.ensure_funds(connection, retailer_id, advertiser_id)
    store.move_owed(connection, retailer_id, advertiser_id, -forgiven)
    store.take_funds(connection, retailer_id, [(advertiser_id, 0, forgiven - micros, 0)])
    return [(receivable(advertiser_id), -forgiven), (wallet(advertiser_id), forgiven - micros)]


def _given_back(connection: Connection, retailer_id: str, invoice: Issued, currency: str) -> tuple[int, int]:
    """Return net and VAT given back of an invoice: by credit notes on it, and of its commission with goods returned."""
    net, vat = store.sum_credited(connection, retailer_id, invoice.number)
    returned = store.sum_returned_of(connection, retailer_id, invoice.advertiser_id, invoice.period)
    returned_net = min(-(-returned // minor_micros(currency)) * minor_micros(currency), invoice.net_micros - net)
    returned_vat = vat_of(returned_net, invoice.document.vat[0].percent, currency)
    return net + returned_net, min(vat + returned_vat, invoice.vat_micros)


def read_document(connection: Connection, retailer_id: str, number: str) -> Issued:
    """Return a document.

    Raises:
        NotFound: `unknown_document`.
    """
    row = store.read_document(connection, retailer_id, number)
    if row is None:
        raise NotFound("unknown_document", f"there is no document {number!r}")
    return to_issued(row)


def to_issued(row: store.DocumentRow) -> Issued:
    """Return a document as it travels."""
    return Issued(
        row.number,
        row.kind,  # type: ignore[arg-type]
        row.advertiser_id,
        row.period,
        row.invoice_number,
        row.net_micros,
        row.vat_micros,
        row.due_micros,
        row.transaction_id,
        to_moment(row.issued_at_ms),
        msgspec.json.decode(row.body, type=Document),
    )


def _issue(
    connection: Connection,
    retailer_id: str,
    head: chain.Head,
    kind: DocumentKind,
    advertiser_id: str,
    period: str,
    invoice_number: str | None,
    amounts: tuple[int, int, int],
    document: Document,
    postings: tuple[Posting, ...],
    currency: str,
    time_zone: str,
    now_ms: int,
) -> Issued:
    """Post a document, keep it, and bind it to the chain."""
    transaction_id = None
    if postings:
        booked_in = _today(time_zone, now_ms).isoformat()[:7]
        (transaction_id,) = post(
            connection, retailer_id, head, [Transaction(postings, kind, booked_in, now_ms)], currency, now_ms
        )
    row = store.DocumentRow(
        head.next_seq(CHAIN_KIND), document.number, kind, advertiser_id, period, invoice_number, *amounts,
        transaction_id, now_ms, msgspec.json.encode(document).decode(),
    )  # fmt: skip
    columns = msgspec.structs.astuple(row)
    store.insert_document(connection, retailer_id, row)
    chain.extend(connection, retailer_id, head, CHAIN_KIND, chain.hash_rows(CHAIN_KIND, [columns]))
    chain.save_head(connection, retailer_id, head)
    return to_issued(row)


def _profile(connection: Connection, retailer_id: str, advertiser_id: str | None) -> BillingProfile:
    profile = read_billing(connection, retailer_id, advertiser_id)
    if profile is None:
        whose = "the seller" if advertiser_id is None else advertiser_id
        raise ConflictRefused("billing_profile_missing", f"an invoice names both parties: set the profile of {whose}")
    return profile


def _next_number(connection: Connection, retailer_id: str, kind: DocumentKind, today: date) -> str:
    """Return the next number of a series and year; without gaps, since the chain's head is locked and rows stay."""
    prefix = f"{_SERIES[kind]}-{today.year}-"
    return f"{prefix}{store.count_documents(connection, retailer_id, prefix) + 1:06d}"


def _postings(signed: list[tuple[AccountName, int]]) -> tuple[Posting, ...]:
    """Return the legs of amounts, debit +; none for what comes to nothing."""
    return tuple(
        Posting(account, Side.DEBIT if micros > 0 else Side.CREDIT, Micros(abs(micros)))
        for account, micros in signed
        if micros
    )


def _today(time_zone: str, now_ms: int) -> date:
    return datetime.fromtimestamp(now_ms / 1000, ZoneInfo(time_zone)).date()
