"""What finance and the shop ask of the ledger besides events: bodies on the wire, commands to the writer, answers."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ledger.commission import RATE_BPS_MAX, DueOrder
from ledger.document import BillingProfile, Document
from ledger.event import Moment
from ledger.money import AmountMicros, PositiveMicros
from ledger.terms import Identifier

Reference = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
Reason = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
Channel = Literal["web", "app", "store"]
FundingKind = Literal["top-up", "promotional-credit", "payment", "write-off"]
PeriodText = Annotated[str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])(?![\s\S])")]
Number = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
Stage = Literal["soft", "sealed"]
DocumentKind = Literal["invoice", "credit-note"]


class TopUpDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/ledger/top-ups`, `/promotional-credits`, `/payments` and `/write-offs`; once per reference."""

    advertiser_id: Identifier
    amount_micros: PositiveMicros
    reference: Reference


class CreditLineDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/ledger/credit-lines`: the most an advertiser may owe at any time."""

    advertiser_id: Identifier
    amount_micros: AmountMicros


class ReversalDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/ledger/reversals`: the whole of one transaction, at most once."""

    transaction_id: Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
    reason: Reason


class CloseDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/ledger/periods/{period}/close`."""

    stage: Stage


class InvoiceDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/ledger/invoices`: a sealed month of an advertiser's."""

    advertiser_id: Identifier
    period: PeriodText


class CreditNoteDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/ledger/credit-notes`; without an amount, all of the invoice that no note gave back yet."""

    invoice_number: Number
    net_micros: PositiveMicros | None = None
    reason: Reason


class OrderLine(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A product of an order; a negative quantity is a return."""

    product_id: Identifier
    quantity: Annotated[int, Meta(ge=-(10**6), le=10**6)]
    unit_price_micros: AmountMicros


class ReportedOrder(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One order of `POST /v1/orders`. Who bought may be left out; then it is never attributed."""

    order_id: Identifier
    occurred_at: Moment
    lines: Annotated[list[OrderLine], Meta(min_length=1, max_length=1000)]
    channel: Channel = "web"
    store_id: Identifier | None = None
    visitor_id: Identifier | None = None
    customer_id: Identifier | None = None
    traffic_source: Annotated[str, Meta(max_length=128)] | None = None


class OrderBatch(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/orders`."""

    orders: Annotated[list[ReportedOrder], Meta(max_length=500)]


class OrderResult(Struct, frozen=True):
    """What became of one order: `accepted`, `duplicate`, or `conflict` (its id names another order)."""

    order_id: str
    result: Literal["accepted", "duplicate", "conflict"]


class OrderResults(Struct, frozen=True):
    """Answer of `POST /v1/orders`, in their order."""

    results: list[OrderResult]


class CommissionDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/ledger/commission-agreements`; the same terms again are the same agreement."""

    advertiser_id: Identifier
    rate_bps: Annotated[int, Meta(ge=1, le=RATE_BPS_MAX)]
    min_micros: PositiveMicros | None = None
    max_micros: PositiveMicros | None = None
    starts_at: Moment
    ends_at: Moment | None = None


class CommissionEnd(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/ledger/commission-agreements/{commission_agreement_id}/end`."""

    ends_at: Moment


class AddFunds(Struct, frozen=True, tag="add-funds"):
    """Book money received beforehand, given, paid for invoices, or given up."""

    kind: FundingKind
    advertiser_id: str
    amount_micros: int
    reference: str


class SetCreditLine(Struct, frozen=True, tag="set-credit-line"):
    """Set the most an advertiser may owe."""

    advertiser_id: str
    amount_micros: int


class Reverse(Struct, frozen=True, tag="reverse"):
    """Undo one transaction by its mirror image."""

    transaction_id: str
    reason: str


class Finding(Struct, frozen=True, array_like=True):
    """An event that no shopper sent, by which rule in which version."""

    event_seq: int
    rule: str
    version: int


class ReverseInvalid(Struct, frozen=True, tag="reverse-invalid"):
    """Keep that events were found invalid, and undo what was charged for them."""

    findings: list[Finding]


class SetBilling(Struct, frozen=True, tag="set-billing"):
    """Say who sells (`advertiser_id` None, a profile without VAT of its own) or to whom an advertiser's invoices go."""

    advertiser_id: str | None
    profile: BillingProfile


class ClosePeriod(Struct, frozen=True, tag="close-period"):
    """Close a month softly, or seal it."""

    period: str
    stage: Stage


class IssueInvoice(Struct, frozen=True, tag="issue-invoice"):
    """Invoice an advertiser's month."""

    advertiser_id: str
    period: str


class IssueCreditNote(Struct, frozen=True, tag="issue-credit-note"):
    """Give back part or all of an invoice."""

    invoice_number: str
    net_micros: int | None
    reason: str


class OrderRecord(Struct, frozen=True):
    """An order with its buyer as keyed hashes, its `visitor_id` and `customer_id` taken out."""

    order: ReportedOrder
    visitor: bytes | None
    customer: bytes | None


class RecordOrders(Struct, frozen=True, tag="record-orders"):
    """Keep orders and returns for attribution."""

    orders: list[OrderRecord]


class AgreeCommission(Struct, frozen=True, tag="agree-commission"):
    """Agree on commission with an advertiser."""

    advertiser_id: str
    rate_bps: int
    min_micros: int | None
    max_micros: int | None
    starts_at: Moment
    ends_at: Moment | None


class EndCommission(Struct, frozen=True, tag="end-commission"):
    """Say when an agreement on commission ends."""

    agreement_id: str
    ends_at: Moment


class PostCommissions(Struct, frozen=True, tag="post-commissions"):
    """Post the commission on lines of orders, where it is due; `model` is how they were credited."""

    orders: list[DueOrder]
    model: str


Command = (
    AddFunds
    | SetCreditLine
    | Reverse
    | ReverseInvalid
    | RecordOrders
    | SetBilling
    | ClosePeriod
    | IssueInvoice
    | IssueCreditNote
    | AgreeCommission
    | EndCommission
    | PostCommissions
)


class TopUp(Struct, frozen=True):
    """Money received, as it is booked; its id is its reference."""

    top_up_id: str
    advertiser_id: str
    amount_micros: int
    reference: str
    transaction_id: str
    recorded_at: Moment


class PromotionalCredit(Struct, frozen=True):
    """Credit given, as it is booked; its id is its reference."""

    promotional_credit_id: str
    advertiser_id: str
    amount_micros: int
    reference: str
    transaction_id: str
    recorded_at: Moment


class Payment(Struct, frozen=True):
    """Money received for invoices, as it is booked; its id is its reference."""

    payment_id: str
    advertiser_id: str
    amount_micros: int
    reference: str
    transaction_id: str
    recorded_at: Moment


class PaymentPage(Struct, frozen=True):
    """A page of payments, by reference."""

    items: list[Payment]
    next_page_token: str | None = None


class BillingProfileSet(Struct, frozen=True, tag="billing-set"):
    """Answer to SetBilling."""

    profile: BillingProfile


class ClosedPeriod(Struct, frozen=True, tag="period-closed"):
    """A month that is closed.

    Attributes:
        stage: `soft`: its charges may still arrive; `sealed`: nothing of it changes any more.
        digest: SHA-256 of its report, hexadecimal; None until it is sealed.
    """

    period: str
    stage: Stage
    digest: str | None
    closed_at: Moment


class PeriodList(Struct, frozen=True):
    """Every month that is closed, the first first."""

    items: list[ClosedPeriod]


class Issued(Struct, frozen=True, tag="issued"):
    """An invoice or a credit note as it is kept; amounts in micros that can be paid.

    Attributes:
        due_micros: of an invoice, to be paid; of a credit note, given back.
        transaction_id: what was posted for it; None where nothing was left to post.
        document: what is handed out, with every field of EN 16931.
    """

    number: str
    kind: DocumentKind
    advertiser_id: str
    period: str
    invoice_number: str | None
    net_micros: int
    vat_micros: int
    due_micros: int
    transaction_id: str | None
    issued_at: Moment
    document: Document


class DocumentPage(Struct, frozen=True):
    """A page of invoices or credit notes, by number."""

    items: list[Issued]
    next_page_token: str | None = None


class WriteOff(Struct, frozen=True):
    """What will not be paid, as it is booked; its id is its reference."""

    write_off_id: str
    advertiser_id: str
    amount_micros: int
    reference: str
    transaction_id: str
    recorded_at: Moment


class WriteOffPage(Struct, frozen=True):
    """A page of write-offs, by reference."""

    items: list[WriteOff]
    next_page_token: str | None = None


class TopUpPage(Struct, frozen=True):
    """A page of top-ups, by reference."""

    items: list[TopUp]
    next_page_token: str | None = None


class PromotionalCreditPage(Struct, frozen=True):
    """A page of promotional credits, by reference."""

    items: list[PromotionalCredit]
    next_page_token: str | None = None


class AdvertiserFunds(Struct, frozen=True):
    """What an advertiser can still be charged: `funds_micros` in all."""

    advertiser_id: str
    funds_micros: int
    promo_micros: int
    wallet_micros: int
    credit_line_micros: int
    owed_micros: int


class Reversal(Struct, frozen=True):
    """A transaction's reversal as it is booked."""

    transaction_id: str
    reverses: str
    reason: str
    recorded_at: Moment


class FundsAdded(Struct, frozen=True, tag="funds-added"):
    """Answer to AddFunds. `is_new` is False where the reference was booked before."""

    advertiser_id: str
    amount_micros: int
    reference: str
    transaction_id: str
    recorded_at: Moment
    is_new: bool


class CreditLineSet(Struct, frozen=True, tag="credit-line-set"):
    """Answer to SetCreditLine."""

    funds: AdvertiserFunds


class Reversed(Struct, frozen=True, tag="reversed"):
    """Answer to Reverse."""

    reversal: Reversal


class InvalidReversed(Struct, frozen=True, tag="invalid-reversed"):
    """Answer to ReverseInvalid: how many events it was new of, and what was given back for them."""

    event_count: int
    amount_micros: int


class OrdersRecorded(Struct, frozen=True, tag="orders-recorded"):
    """Answer to RecordOrders: what became of each."""

    results: list[OrderResult]


class CommissionAgreement(Struct, frozen=True, kw_only=True):
    """Commission agreed with an advertiser, on sales attributed to its campaigns.

    Attributes:
        rate_bps: basis points (1 % is 100) of what was kept of a line.
        min_micros, max_micros: the least and the most for one line; null: no bound.
        starts_at, ends_at: of orders made from then until before then; null: until further notice.
    """

    commission_agreement_id: str
    advertiser_id: str
    rate_bps: int
    min_micros: int | None
    max_micros: int | None
    starts_at: Moment
    ends_at: Moment | None
    recorded_at: Moment


class CommissionAgreementList(Struct, frozen=True):
    """Every agreement on commission, in the order they were made."""

    items: list[CommissionAgreement]


class Commission(Struct, frozen=True, kw_only=True):
    """What was posted for a line of an order.

    Attributes:
        line: of the order, from 1.
        step: 0 the commission, then what went back of it with goods.
        basis: whether the very product was clicked (`same_sku`) or another of the advertiser's (`halo`).
        quantity, sales_micros: units kept then, and what they cost.
        amount_micros: negative where it went back.
        period: the month it is booked in.
        ordered_or_returned_at: when the order was made, or the goods came back.
    """

    order_id: str
    line: int
    step: int
    commission_agreement_id: str
    advertiser_id: str
    campaign_id: str
    basis: str
    model: str
    quantity: int
    sales_micros: int
    amount_micros: int
    period: str
    ordered_or_returned_at: Moment
    recorded_at: Moment
    transaction_id: str


class CommissionPage(Struct, frozen=True):
    """A page of commissions, in the order they were posted."""

    items: list[Commission]
    next_page_token: str | None = None


class CommissionAgreed(Struct, frozen=True, tag="commission-agreed"):
    """Answer to AgreeCommission and EndCommission. `is_new` is False where the same was agreed before."""

    agreement: CommissionAgreement
    is_new: bool


class CommissionsPosted(Struct, frozen=True, tag="commissions-posted"):
    """What a run posted: lines charged and what they come to, lines partly or wholly returned and what went back."""

    charged_lines: int
    charged_micros: int
    returned_lines: int
    returned_micros: int

    def plus(self, other: "CommissionsPosted") -> "CommissionsPosted":
        """Return both together."""
        return CommissionsPosted(
            self.charged_lines + other.charged_lines,
            self.charged_micros + other.charged_micros,
            self.returned_lines + other.returned_lines,
            self.returned_micros + other.returned_micros,
        )


CommandAnswer = (
    FundsAdded
    | CreditLineSet
    | Reversed
    | InvalidReversed
    | OrdersRecorded
    | BillingProfileSet
    | ClosedPeriod
    | Issued
    | CommissionAgreed
    | CommissionsPosted
)
