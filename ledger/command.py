"""What finance and the shop ask of the ledger besides events: bodies on the wire, commands to the writer, answers."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ledger.event import Moment
from ledger.money import AmountMicros, PositiveMicros
from ledger.terms import Identifier

Reference = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
Reason = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
Channel = Literal["web", "app", "store"]
FundingKind = Literal["top-up", "promotional-credit"]


class TopUpDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/ledger/top-ups` and of `/promotional-credits`; once per reference, for ever."""

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


class AddFunds(Struct, frozen=True, tag="add-funds"):
    """Book money received (`top-up`) or given (`promotional-credit`)."""

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


class OrderRecord(Struct, frozen=True):
    """An order with its buyer as keyed hashes, its `visitor_id` and `customer_id` taken out."""

    order: ReportedOrder
    visitor: bytes | None
    customer: bytes | None


class RecordOrders(Struct, frozen=True, tag="record-orders"):
    """Keep orders and returns for attribution."""

    orders: list[OrderRecord]


Command = AddFunds | SetCreditLine | Reverse | RecordOrders


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


class OrdersRecorded(Struct, frozen=True, tag="orders-recorded"):
    """Answer to RecordOrders: what became of each."""

    results: list[OrderResult]


CommandAnswer = FundsAdded | CreditLineSet | Reversed | OrdersRecorded
