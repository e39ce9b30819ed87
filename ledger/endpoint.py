"""The ledger over HTTP.

The money path begins here: `post_events` → `intake.py` → `beacon.py` → `billing.py` → `journal.py`, the last four
behind the queue of `pipe.py`.

Who may call what, and the decoding of bodies other than that of events, is settled by the door in front.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ledger import closing, commissioning, invoicing, performance, reports, sales, store
from ledger.beacon import BeaconKeys
from ledger.calendar import Calendar, is_month
from ledger.command import (
    AddFunds,
    AgreeCommission,
    BillingProfileSet,
    CloseDraft,
    ClosePeriod,
    CommissionAgreed,
    CommissionAgreementList,
    CommissionDraft,
    CommissionEnd,
    CommissionPage,
    CreditLineDraft,
    CreditLineSet,
    CreditNoteDraft,
    DocumentKind,
    DocumentPage,
    EndCommission,
    FundingKind,
    FundsAdded,
    InvoiceDraft,
    IssueCreditNote,
    IssueInvoice,
    OrderBatch,
    OrderRecord,
    OrderResults,
    OrdersRecorded,
    Payment,
    PaymentPage,
    PeriodList,
    PromotionalCredit,
    PromotionalCreditPage,
    RecordOrders,
    ReportedOrder,
    ReversalDraft,
    Reverse,
    Reversed,
    ReverseInvalid,
    SetBilling,
    SetCreditLine,
    TopUp,
    TopUpDraft,
    TopUpPage,
    WriteOff,
    WriteOffPage,
)
from ledger.commission_run import run_commissions
from ledger.document import BillingProfile
from ledger.errors import BodyTooLarge, LedgerUnavailable, NotAllowed, NotFound, RequestRefused
from ledger.event import Client, EventBatch, EventResult, EventResults, EventType, ReportedEvent
from ledger.funding import to_funds, to_moment
from ledger.inspection import find_before_seal
from ledger.metrics import LedgerMetrics
from ledger.pipe import Intake
from ledger.settings import Settings
from ledger.table_file import MEDIA_TYPES, Table, asked_format, columns_of, write_rows
from ledger.traffic import INVALID_CODES

T = TypeVar("T")

SEES_AMOUNTS = frozenset({"retailer", "admin"})
AGENCY = "agency"
PREFETCH_PURPOSES = ("prefetch", "prerender", "preview")

_decode_events = msgspec.json.Decoder(EventBatch).decode
_encode = msgspec.json.Encoder().encode


class Books(Struct, frozen=True, kw_only=True):
    """What the ledger's surface stands on.

    Attributes:
        retailer_id: whose books.
        intake: the queue to the writer.
        read: runs work on one consistent view of the database.
        keys: what beacons are sealed with.
        product_link: the catalogue's link of a product, or None.
        pseudonymize: the keyed hash of a raw visitor or customer id.
        sales_facts: what sales depend on and the ledger does not know.
    """

    retailer_id: str
    intake: Intake
    read: Callable[[Callable[[Connection], Any]], Any]
    keys: BeaconKeys
    product_link: Callable[[str], str | None]
    pseudonymize: Callable[[str], bytes]
    sales_facts: sales.FactsOf
    settings: Settings
    metrics: LedgerMetrics
    now_ms: Callable[[], int]


def routes(books: Books) -> list[Route]:
    """Return the ledger's routes."""
    surface = _Surface(books)
    paths: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("POST", "/v1/events", surface.post_events),
        ("GET", "/v1/click/{beacon_token}", surface.follow_click),
        ("POST", "/v1/orders", surface.post_orders),
        ("GET", "/v1/ledger/accounts", surface.list_accounts),
        ("GET", "/v1/ledger/balances", surface.list_balances),
        ("GET", "/v1/ledger/trial-balance", surface.read_trial_balance),
        ("GET", "/v1/ledger/transactions", surface.list_transactions),
        ("GET", "/v1/ledger/transactions/{transaction_id}", surface.read_transaction),
        ("GET", "/v1/ledger/statements", surface.read_statement),
        ("POST", "/v1/ledger/top-ups", surface.post_top_up),
        ("GET", "/v1/ledger/top-ups", surface.list_top_ups),
        ("POST", "/v1/ledger/promotional-credits", surface.post_promotional_credit),
        ("GET", "/v1/ledger/promotional-credits", surface.list_promotional_credits),
        ("POST", "/v1/ledger/credit-lines", surface.post_credit_line),
        ("GET", "/v1/ledger/credit-lines", surface.list_credit_lines),
        ("GET", "/v1/ledger/budgets", surface.list_budgets),
        ("POST", "/v1/ledger/reversals", surface.post_reversal),
        ("POST", "/v1/ledger/payments", surface.post_payment),
        ("GET", "/v1/ledger/payments", surface.list_payments),
        ("POST", "/v1/ledger/write-offs", surface.post_write_off),
        ("GET", "/v1/ledger/write-offs", surface.list_write_offs),
        ("PUT", "/v1/ledger/seller", surface.put_seller),
        ("GET", "/v1/ledger/seller", surface.read_seller),
        ("PUT", "/v1/ledger/billing-profiles/{advertiser_id}", surface.put_billing_profile),
        ("GET", "/v1/ledger/billing-profiles/{advertiser_id}", surface.read_billing_profile),
        ("GET", "/v1/ledger/periods", surface.list_periods),
        ("POST", "/v1/ledger/periods/{period}/close", surface.close_period),
        ("GET", "/v1/ledger/periods/{period}/report", surface.report_period),
        ("POST", "/v1/ledger/invoices", surface.post_invoice),
        ("GET", "/v1/ledger/invoices", surface.list_invoices),
        ("GET", "/v1/ledger/invoices/{number}", surface.read_invoice),
        ("POST", "/v1/ledger/credit-notes", surface.post_credit_note),
        ("GET", "/v1/ledger/credit-notes", surface.list_credit_notes),
        ("GET", "/v1/ledger/credit-notes/{number}", surface.read_credit_note),
        ("POST", "/v1/ledger/commission-agreements", surface.post_commission_agreement),
        ("GET", "/v1/ledger/commission-agreements", surface.list_commission_agreements),
        ("POST", "/v1/ledger/commission-agreements/{commission_agreement_id}/end", surface.end_commission_agreement),
        ("POST", "/v1/ledger/commissions", surface.post_commissions),
        ("GET", "/v1/ledger/commissions", surface.list_commissions),
        ("GET", "/v1/reconciliation", surface.read_reconciliation),
        ("GET", "/v1/sales", surface.read_sales),
        ("GET", "/v1/reports/{report}", surface.read_report),
    ]
    return [Route(path, handler, methods=[method]) for method, path, handler in paths]


class _Surface:
    def __init__(self, books: Books) -> None:
        self._books = books

    # --- the money path

    async def post_events(self, request: Request) -> Response:
        """Record events; 200 means that every result is durable."""
        batch = _decode_events(await _read_body(request, self._books.settings.body_bytes_max))
        caller = request.scope.get("caller")
        is_retailer = caller is not None and caller.role in SEES_AMOUNTS
        events = _on_behalf(batch, request, is_retailer)
        if len(events) > self._books.settings.events_per_request_max:
            most = self._books.settings.events_per_request_max
            raise RequestRefused("too_many_events", f"events must be at most {most}, were {len(events)}", "/events")
        results = await self._record(events, with_amounts=is_retailer)
        if not is_retailer:
            results = [_without_reason(result) for result in results]
        return _json(EventResults(results), {"access-control-allow-origin": "*"})

    async def follow_click(self, request: Request) -> Response:
        """Record a click and send the shopper to the product; the only place it can lead to is the catalogue's link."""
        books = self._books
        token = request.path_params["beacon_token"]
        beacon = books.keys.redeem_beacon(token, books.now_ms())
        location = _web_link(books.product_link(beacon.terms.product_id))
        if location is None:
            raise NotFound("unknown_product", "the product of this link is not, or no longer, in the catalogue")
        if any(purpose in _purpose(request) for purpose in PREFETCH_PURPOSES):
            raise NotAllowed("prefetch_refused", "a click must be followed, not fetched beforehand")
        if request.method != "HEAD":
            click = ReportedEvent(
                event_id=f"click_{beacon.token_id}",
                type=EventType.CLICK,
                beacon_token=token,
                client=Client(user_agent=_user_agent(request)),
            )
            await self._record([click], with_amounts=False)
        return RedirectResponse(location, 302, {"cache-control": "no-store", "referrer-policy": "origin"})

    async def _record(self, events: list[ReportedEvent], *, with_amounts: bool) -> list[EventResult]:
        try:
            results = await self._books.intake.record(events, with_amounts=with_amounts)
        except LedgerUnavailable:
            self._books.metrics.unanswered(len(events))
            raise
        self._books.metrics.answered(events, results)
        return results

    # --- orders

    async def post_orders(self, request: Request) -> Response:
        """Keep orders and returns."""
        batch = _body(request, OrderBatch)
        records = [self._without_names(order) for order in batch.orders]
        done = await self._books.intake.command(RecordOrders(records))
        assert isinstance(done, OrdersRecorded)
        return _json(OrderResults(done.results))

    def _without_names(self, order: ReportedOrder) -> OrderRecord:
        pseudonymize = self._books.pseudonymize
        return OrderRecord(
            msgspec.structs.replace(order, visitor_id=None, customer_id=None),
            None if order.visitor_id is None else pseudonymize(order.visitor_id),
            None if order.customer_id is None else pseudonymize(order.customer_id),
        )

    # --- money in, credit, corrections

    async def post_top_up(self, request: Request) -> Response:
        """Book money received; 200 where the reference was booked before, 201 where it is new."""
        return _funded(await self._add_funds(request, "top-up"), TopUp)

    async def post_promotional_credit(self, request: Request) -> Response:
        """Give credit to try with, spent before the advertiser's own money."""
        return _funded(await self._add_funds(request, "promotional-credit"), PromotionalCredit)

    async def _add_funds(self, request: Request, kind: FundingKind) -> FundsAdded:
        draft = _body(request, TopUpDraft)
        command = AddFunds(kind, draft.advertiser_id, draft.amount_micros, draft.reference)
        booked = await self._books.intake.command(command)
        assert isinstance(booked, FundsAdded)
        return booked

    async def post_credit_line(self, request: Request) -> Response:
        """Set the most an advertiser may owe."""
        draft = _body(request, CreditLineDraft)
        done = await self._books.intake.command(SetCreditLine(draft.advertiser_id, draft.amount_micros))
        assert isinstance(done, CreditLineSet)
        return _json(done.funds)

    async def post_reversal(self, request: Request) -> Response:
        """Undo a transaction, once."""
        draft = _body(request, ReversalDraft)
        done = await self._books.intake.command(Reverse(draft.transaction_id, draft.reason))
        assert isinstance(done, Reversed)
        return _json(done.reversal, status=201)

    async def post_payment(self, request: Request) -> Response:
        """Book money received for invoices."""
        return _funded(await self._add_funds(request, "payment"), Payment)

    async def post_write_off(self, request: Request) -> Response:
        """Give up what will not be paid."""
        return _funded(await self._add_funds(request, "write-off"), WriteOff)

    # --- months, invoices and credit notes

    async def put_seller(self, request: Request) -> Response:
        """Say who sells."""
        return await self._set_billing(request, None)

    async def put_billing_profile(self, request: Request) -> Response:
        """Say to whom an advertiser's invoices go."""
        return await self._set_billing(request, request.path_params["advertiser_id"])

    async def _set_billing(self, request: Request, advertiser_id: str | None) -> Response:
        done = await self._books.intake.command(SetBilling(advertiser_id, _body(request, BillingProfile)))
        assert isinstance(done, BillingProfileSet)
        return _json(done.profile)

    async def read_seller(self, request: Request) -> Response:
        """Return who sells."""
        return await self._read_billing(None)

    async def read_billing_profile(self, request: Request) -> Response:
        """Return to whom an advertiser's invoices go."""
        return await self._read_billing(_whose(request, request.path_params["advertiser_id"]))

    async def _read_billing(self, advertiser_id: str | None) -> Response:
        found = await self._read(lambda c, r: invoicing.read_billing(c, r, advertiser_id))
        if found is None:
            raise NotFound("unknown_billing_profile", "no billing profile was set for it")
        return _json(found)

    async def close_period(self, request: Request) -> Response:
        """Close a month softly, or seal it; what was invalid traffic in it is undone in between."""
        period, stage = _period(request), _body(request, CloseDraft).stage
        if stage == "sealed":
            await self._undo_invalid(period)
        closed = await self._books.intake.command(ClosePeriod(period, stage))
        if stage == "soft":
            await self._undo_invalid(period)
        return _json(closed)

    async def _undo_invalid(self, period: str) -> None:
        books = self._books
        for findings in await self._read(lambda c, r: find_before_seal(c, r, period, books.settings, books.now_ms())):
            await books.intake.command(ReverseInvalid(findings))

    async def list_periods(self, request: Request) -> Response:
        """List the months that are closed."""
        return _json(PeriodList(await self._read(closing.list_closed)))

    async def report_period(self, request: Request) -> Response:
        """Return every account over a month; of a sealed one always the same bytes."""
        period = _period(request)
        report = await self._read(lambda c, r: closing.report_period(c, r, period))
        return Response(closing.report_bytes(report), 200, {"cache-control": "no-store"}, "application/json")

    async def post_invoice(self, request: Request) -> Response:
        """Invoice an advertiser's sealed month."""
        draft = _body(request, InvoiceDraft)
        return _json(await self._books.intake.command(IssueInvoice(draft.advertiser_id, draft.period)), status=201)

    async def post_credit_note(self, request: Request) -> Response:
        """Give back part or all of an invoice."""
        draft = _body(request, CreditNoteDraft)
        command = IssueCreditNote(draft.invoice_number, draft.net_micros, draft.reason)
        return _json(await self._books.intake.command(command), status=201)

    async def list_invoices(self, request: Request) -> Response:
        """List invoices by number."""
        return await self._list_documents(request, "invoice")

    async def list_credit_notes(self, request: Request) -> Response:
        """List credit notes by number."""
        return await self._list_documents(request, "credit-note")

    async def read_invoice(self, request: Request) -> Response:
        """Return an invoice."""
        return await self._read_document(request, "invoice")

    async def read_credit_note(self, request: Request) -> Response:
        """Return a credit note."""
        return await self._read_document(request, "credit-note")

    async def _read_document(self, request: Request, kind: DocumentKind) -> Response:
        number, whose = request.path_params["number"], _whose(request, None)
        found = await self._read(lambda c, r: invoicing.read_document(c, r, number))
        if found.kind != kind or whose not in (None, found.advertiser_id):
            raise NotFound("unknown_document", f"there is no document {number!r}")
        return _json(found)

    async def _list_documents(self, request: Request, kind: DocumentKind) -> Response:
        query = _query(request, reports.FundsQuery)
        whose, after = _whose(request, query.advertiser_id), _after(query.page_token, str, None)
        found = await self._read(lambda c, r: store.list_documents(c, r, kind, whose, after, query.page_size + 1))
        shown = [invoicing.to_issued(row) for row in found[: query.page_size]]
        token = _page_token(shown[-1].number) if len(found) > query.page_size else None
        return _json(DocumentPage(shown, token))

    # --- commission on attributed sales

    async def post_commission_agreement(self, request: Request) -> Response:
        """Agree on commission; 200 where the same was agreed before, 201 where it is new."""
        draft = _body(request, CommissionDraft)
        return await self._agree(AgreeCommission(**msgspec.structs.asdict(draft)), status=201)

    async def end_commission_agreement(self, request: Request) -> Response:
        """Say when an agreement ends."""
        agreement_id = request.path_params["commission_agreement_id"]
        return await self._agree(EndCommission(agreement_id, _body(request, CommissionEnd).ends_at), status=200)

    async def _agree(self, command: AgreeCommission | EndCommission, status: int) -> Response:
        done = await self._books.intake.command(command)
        assert isinstance(done, CommissionAgreed)
        return _json(done.agreement, status=status if done.is_new else 200)

    async def list_commission_agreements(self, request: Request) -> Response:
        """List agreements on commission."""
        whose = _whose(request, _query(request, reports.LedgerQuery).advertiser_id)
        found = await self._read(lambda c, r: commissioning.list_agreements(c, r, whose))
        return _json(CommissionAgreementList(found))

    async def post_commissions(self, request: Request) -> Response:
        """Post the commission that is due; again, there is nothing left to post."""
        books = self._books
        now_ms = books.now_ms()
        return _json(
            await run_commissions(
                books.intake, books.read, books.retailer_id, books.settings.commission_model, books.sales_facts,
                now_ms, now_ms - commissioning.LOOK_BACK_MS,
            )
        )  # fmt: skip

    async def list_commissions(self, request: Request) -> Response:
        """List the commission posted, in its order."""
        query = _query(request, reports.FundsQuery)
        whose, after = _whose(request, query.advertiser_id), _after(query.page_token, int, 0)
        found = await self._read(lambda c, r: store.list_commissions(c, r, whose, after, query.page_size + 1))
        shown = found[: query.page_size]
        token = _page_token(shown[-1].seq) if len(found) > query.page_size else None
        return _json(CommissionPage([commissioning.to_commission(row) for row in shown], token))

    # --- reading

    async def list_accounts(self, request: Request) -> Response:
        """List the accounts in use."""
        advertiser_id = _whose(request, _query(request, reports.LedgerQuery).advertiser_id)
        return _json(await self._read(lambda c, r: reports.list_accounts(c, r, advertiser_id)))

    async def list_balances(self, request: Request) -> Response:
        """List balances."""
        advertiser_id = _whose(request, _query(request, reports.LedgerQuery).advertiser_id)
        return _json(await self._read(lambda c, r: reports.list_balances(c, r, advertiser_id)))

    async def read_trial_balance(self, request: Request) -> Response:
        """Return all balances and their sum, 0."""
        return _json(await self._read(reports.trial_balance))

    async def list_transactions(self, request: Request) -> Response:
        """List the journal in its order."""
        query = _query(request, reports.TransactionsQuery)
        after = _after(query.page_token, int, 0)
        found = await self._read(
            lambda c, r: reports.list_transactions(c, r, query.account, query.period, after, query.page_size + 1)
        )
        shown = found[: query.page_size]
        token = _page_token(shown[-1][0]) if len(found) > query.page_size else None
        return _json(reports.TransactionPage([one for _, one in shown], token))

    async def read_transaction(self, request: Request) -> Response:
        """Return one transaction."""
        transaction_id = request.path_params["transaction_id"]
        found = await self._read(lambda c, r: reports.read_journal_transaction(c, r, transaction_id))
        if found is None:
            raise NotFound("unknown_transaction", "there is no such transaction")
        return _json(found)

    async def read_statement(self, request: Request) -> Response:
        """Return an advertiser's month."""
        query = _query(request, reports.StatementQuery)
        advertiser_id = _whose(request, query.advertiser_id)
        assert advertiser_id is not None
        return _json(await self._read(lambda c, r: reports.read_statement(c, r, advertiser_id, query.period)))

    async def list_top_ups(self, request: Request) -> Response:
        """List money received, by reference."""
        rows, token = await self._list_fundings(request, "top-up")
        return _json(TopUpPage([TopUp(*row) for row in rows], token))

    async def list_promotional_credits(self, request: Request) -> Response:
        """List credit given, by reference."""
        rows, token = await self._list_fundings(request, "promotional-credit")
        return _json(PromotionalCreditPage([PromotionalCredit(*row) for row in rows], token))

    async def list_payments(self, request: Request) -> Response:
        """List payments, by reference."""
        rows, token = await self._list_fundings(request, "payment")
        return _json(PaymentPage([Payment(*row) for row in rows], token))

    async def list_write_offs(self, request: Request) -> Response:
        """List write-offs, by reference."""
        rows, token = await self._list_fundings(request, "write-off")
        return _json(WriteOffPage([WriteOff(*row) for row in rows], token))

    async def _list_fundings(self, request: Request, kind: FundingKind) -> tuple[list[tuple[Any, ...]], str | None]:
        query = _query(request, reports.FundsQuery)
        whose, after = _whose(request, query.advertiser_id), _after(query.page_token, str, None)
        found = await self._read(lambda c, r: store.list_fundings(c, r, kind, whose, after, query.page_size + 1))
        rows = [
            (
                row.reference,
                row.advertiser_id,
                row.amount_micros,
                row.reference,
                row.transaction_id,
                to_moment(row.recorded_at_ms),
            )
            for row in found[: query.page_size]
        ]
        return rows, _page_token(rows[-1][0]) if len(found) > query.page_size else None

    async def list_credit_lines(self, request: Request) -> Response:
        """List advertisers' funds: credit line, what is owed on it, and what else there is."""
        query = _query(request, reports.FundsQuery)
        whose, after = _whose(request, query.advertiser_id), _after(query.page_token, str, None)
        found = await self._read(lambda c, r: store.list_funds(c, r, whose, after, query.page_size + 1))
        shown = [to_funds(row) for row in found[: query.page_size]]
        token = _page_token(shown[-1].advertiser_id) if len(found) > query.page_size else None
        return _json(reports.FundsPage(shown, token))

    async def list_budgets(self, request: Request) -> Response:
        """List campaigns' budgets, and what was spent of them today and in all."""
        query, books = _query(request, reports.FundsQuery), self._books
        whose, after = _whose(request, query.advertiser_id), _after(query.page_token, str, None)
        day = Calendar(books.settings.time_zone).day(books.now_ms())
        found = await self._read(lambda c, r: store.list_budgets(c, r, day, whose, after, query.page_size + 1))
        shown = [reports.to_budget(day, row) for row in found[: query.page_size]]
        token = _page_token(shown[-1].campaign_id) if len(found) > query.page_size else None
        return _json(reports.BudgetPage(shown, token))

    async def read_reconciliation(self, request: Request) -> Response:
        """Return counts, sums and digests to hold against a log of one's own."""
        query = _query(request, reports.ReconciliationQuery)
        from_ms, to_ms = (round(moment.timestamp() * 1000) for moment in (query.from_, query.to))
        return _json(await self._read(lambda c, r: reports.reconcile(c, r, from_ms, to_ms)))

    async def read_sales(self, request: Request) -> Response:
        """Return sales credited to campaigns."""
        query, books = _query(request, sales.SalesQuery), self._books
        advertiser_id, (from_ms, to_ms) = _whose(request, query.advertiser_id), sales.from_to(query)
        model = sales.model_named(query.model)
        return _json(
            await self._read(
                lambda c, r: sales.report_sales(
                    c, r, books.settings.currency, from_ms, to_ms, model, books.sales_facts, books.now_ms(),
                    advertiser_id,
                )
            )
        )  # fmt: skip

    async def read_report(self, request: Request) -> Response:
        """Return what campaigns, products or placements brought, as JSON or as the table that is asked for."""
        query, books = _query(request, performance.PerformanceQuery), self._books
        advertiser_id, model = _whose(request, query.advertiser_id), sales.model_named(query.model)
        report, settings = request.path_params["report"], books.settings
        from_ms, to_ms = (round(moment.timestamp() * 1000) for moment in (query.from_, query.to))
        found = await self._read(
            lambda c, r: performance.report_performance(
                c, r, report, settings.currency, settings.time_zone, from_ms, to_ms, query.by, model,
                books.sales_facts, books.now_ms(), advertiser_id,
            )
        )  # fmt: skip
        kind = asked_format(request.headers.get("accept", ""))
        if kind is None:
            return _json(found)
        rows = [msgspec.structs.astuple(line) for line in found.items]
        table = Table(report, columns_of(performance.PerformanceLine), rows)
        written = await asyncio.to_thread(write_rows, kind, table, settings.currency)
        return Response(written, 200, {"cache-control": "no-store"}, MEDIA_TYPES[kind])

    async def _read(self, work: Callable[[Connection, str], T]) -> T:
        retailer_id = self._books.retailer_id
        found: T = await asyncio.to_thread(self._books.read, lambda connection: work(connection, retailer_id))
        return found


def _on_behalf(batch: EventBatch, request: Request, is_retailer: bool) -> list[ReportedEvent]:
    """Return the events with what is known of the browser they came from.

    A retailer's server is not the shopper's browser, so its own user agent says nothing; a browser cannot speak for
    another.

    Raises:
        NotAllowed: `client_not_allowed`, `client` came without a retailer's key.
    """
    if is_retailer:
        if batch.client is None:
            return batch.events
        return [
            event if event.client is not None else msgspec.structs.replace(event, client=batch.client)
            for event in batch.events
        ]
    if batch.client is not None:
        raise NotAllowed("client_not_allowed", "client may only be said with a retailer's key", "/client")
    for number, event in enumerate(batch.events):
        if event.client is not None:
            raise NotAllowed(
                "client_not_allowed", "client may only be said with a retailer's key", f"/events/{number}/client"
            )
    client = Client(user_agent=_user_agent(request))
    return [msgspec.structs.replace(event, client=client) for event in batch.events]


def _without_reason(result: EventResult) -> EventResult:
    """Return a result as a browser may see it: a robot is not told what it was known by."""
    if result.code not in INVALID_CODES:
        return result
    return EventResult(result.event_id, result.result, None, result.amount_micros)


async def _read_body(request: Request, bytes_max: int) -> bytes:
    chunks = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > bytes_max:
            raise BodyTooLarge("body_too_large", f"the body must have at most {bytes_max} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _user_agent(request: Request) -> str | None:
    user_agent = request.headers.get("user-agent")
    return None if user_agent is None else user_agent[:1024]


def _purpose(request: Request) -> str:
    return (request.headers.get("sec-purpose", "") + request.headers.get("purpose", "")).lower()


def _web_link(link: str | None) -> str | None:
    """Return the link if a browser would go to a page with it, None if it could do anything else."""
    if link is None or any(character <= " " or character in "\x7f\\" for character in link):
        return None
    try:
        parts = urlsplit(link)
    except ValueError:
        return None
    if parts.scheme in ("http", "https") and parts.netloc:
        return link
    is_path = not parts.scheme and not parts.netloc and link.startswith("/") and not link.startswith("//")
    return link if is_path else None


def _whose(request: Request, advertiser_id: str | None) -> str | None:
    """Return whose figures may be seen, None for everybody's.

    An advertiser's key sees its own only, an agency's those of the one advertiser it names.
    """
    caller = request.scope.get("caller")
    own = None if caller is None else caller.advertiser_id
    if own is None and caller is not None and caller.role == AGENCY:
        if advertiser_id is None:
            raise RequestRefused("advertiser_id_missing", "name one of the advertisers this key speaks for")
        own = advertiser_id if advertiser_id in caller.advertiser_ids else ""
    if own is None:
        return advertiser_id
    if advertiser_id not in (None, own):
        raise NotFound("unknown_advertiser", "there is no such advertiser")
    return str(own)


def _body(request: Request, kind: type[T]) -> T:
    body = request.scope["body"]
    assert isinstance(body, kind)
    return body


def _query(request: Request, kind: type[T]) -> T:
    query = request.scope["query"]
    assert isinstance(query, kind)
    return query


def _period(request: Request) -> str:
    period: str = request.path_params["period"]
    if not is_month(period):
        raise RequestRefused("period_invalid", f"a period is a month such as 2026-11, was {period!r}")
    return period


def _funded(booked: FundsAdded, kind: Callable[..., Any]) -> Response:
    """Answer with what was booked, as its kind: 200 where the reference was booked before, 201 where it is new."""
    made = kind(
        booked.reference,
        booked.advertiser_id,
        booked.amount_micros,
        booked.reference,
        booked.transaction_id,
        booked.recorded_at,
    )
    return _json(made, status=201 if booked.is_new else 200)


def _page_token(after: str | int) -> str:
    return base64.urlsafe_b64encode(str(after).encode()).rstrip(b"=").decode()


def _after(token: str | None, kind: Callable[[str], T], first: T | None) -> Any:
    if token is None:
        return first
    try:
        return kind(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode())
    except (binascii.Error, ValueError):
        raise RequestRefused("page_token_invalid", "page_token must be a next_page_token of this list") from None


def _json(answer: Any, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    return Response(_encode(answer), status, {"cache-control": "no-store", **(headers or {})}, "application/json")
