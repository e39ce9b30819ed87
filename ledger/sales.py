"""Sales credited to campaigns, beside what these were charged: worked out anew for any dates and model.

Nothing of it is kept, and the books know nothing of it; see `attribution.py` for how credit is given.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from msgspec import Struct
from sqlalchemy.engine import Connection

from ledger import store
from ledger.attribution import (
    DAY_MS,
    MODELS,
    NEW_TO_BRAND_MS,
    AttributionModel,
    Credit,
    Line,
    ModelName,
    Shelf,
    Touch,
    attribute,
)
from ledger.errors import RequestRefused
from ledger.event import EventType, Moment
from ledger.terms import Identifier
from ledger.traffic import INVALID_CODES

SPAN_MS_MAX = 92 * DAY_MS


class SalesQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"from_": "from"}):
    """From when, until before when; at most 92 days. `model` is one of the models by name."""

    from_: Moment
    to: Moment
    model: ModelName = "default"
    advertiser_id: Identifier | None = None


class SalesLine(Struct, frozen=True, kw_only=True):
    """What a campaign was charged for in the time, and what is credited to it of the orders and returns of that time.

    Attributes:
        charged_micros: of events that happened in the time, before any reversal: gross.
        invalid_micros: of that, reversed since the event was found invalid; the rest is valid.
        commission_micros: posted for orders of the time, less what went back with returns of the time.
        orders, units: orders with a credited line, and pieces less those returned.
        sales_micros: credited, less returns; the sum of the next two.
        new_to_brand_sales_micros: by buyers who had bought nothing of the brand for twelve months.
        provisional_sales_micros: of orders that may still be withdrawn.
        sales_by_channel, sales_by_source: the same sales by where they were made, and by what brought the buyer there
            (empty where nothing was said).
        roas: sales over what is valid of the charges; null where that is nothing.
        acos: that over sales; null where nothing was sold.
    """

    campaign_id: str
    advertiser_id: str
    charged_micros: int
    invalid_micros: int
    commission_micros: int
    orders: int
    units: int
    sales_micros: int
    same_sku_sales_micros: int
    halo_sales_micros: int
    new_to_brand_sales_micros: int
    provisional_sales_micros: int
    sales_by_channel: dict[str, int]
    sales_by_source: dict[str, int]
    roas: float | None
    acos: float | None


class SalesReport(Struct, frozen=True, kw_only=True):
    """What every campaign came to; the most sales first."""

    model: AttributionModel
    from_ms: int
    to_ms: int
    currency: str
    items: list[SalesLine]


class SalesFacts(Struct, frozen=True):
    """What others know that sales depend on: products, and the customer of each visitor that is joined to one."""

    shelf: Shelf
    customer_of: Mapping[bytes, bytes]


FactsOf = Callable[[Connection, Collection[str]], SalesFacts]  # given the products of lines and touches


def report_sales(
    connection: Connection,
    retailer_id: str,
    currency: str,
    from_ms: int,
    to_ms: int,
    model: AttributionModel,
    facts_of: FactsOf,
    now_ms: int,
    advertiser_id: str | None = None,
) -> SalesReport:
    """Return what campaigns were charged and credited in [from, to), all or one advertiser's.

    Raises:
        RequestRefused: `range_invalid`, the range is empty or longer than 92 days.
    """
    if not 0 < to_ms - from_ms <= SPAN_MS_MAX:
        raise RequestRefused("range_invalid", "to must be after from, by at most 92 days")
    credits = find_credits(connection, retailer_id, from_ms, to_ms, model, facts_of, now_ms)
    charged = store.read_charged_between(connection, retailer_id, from_ms, to_ms)
    owner = {campaign_id: who for campaign_id, who, _, _ in charged}
    owner |= {credit.touch.campaign_id: credit.touch.advertiser_id for credit in credits}
    commissioned: dict[str, int] = {}
    for campaign_id, who, micros, _ in store.read_commissions_between(
        connection, retailer_id, "campaign_id", from_ms, to_ms, advertiser_id
    ):
        owner[campaign_id] = who
        commissioned[campaign_id] = commissioned.get(campaign_id, 0) + micros
    spent = {campaign_id: (micros, undone) for campaign_id, _, micros, undone in charged}
    by_campaign: dict[str, list[Credit]] = {campaign_id: [] for campaign_id in owner}
    for credit in credits:
        by_campaign[credit.touch.campaign_id].append(credit)
    items = [
        _line(campaign_id, owner[campaign_id], *spent.get(campaign_id, (0, 0)), commissioned.get(campaign_id, 0), some)
        for campaign_id, some in by_campaign.items()
        if advertiser_id in (None, owner[campaign_id])
    ]
    items.sort(key=lambda one: (-one.sales_micros, -one.charged_micros, one.campaign_id))
    return SalesReport(model=model, from_ms=from_ms, to_ms=to_ms, currency=currency, items=items)


def find_credits(
    connection: Connection,
    retailer_id: str,
    from_ms: int,
    to_ms: int,
    model: AttributionModel,
    facts_of: FactsOf,
    now_ms: int,
    *,
    history_ms: int = NEW_TO_BRAND_MS,
) -> list[Credit]:
    """Return what is credited of the orders and returns of [from, to).

    Orders of `history_ms` before are read too, to tell who is new to a brand and what returns of the time belong to.
    """
    rows = store.read_lines_of_buyers(connection, retailer_id, from_ms - history_ms, to_ms)
    returned = {row.order_id for row in rows if row.part and from_ms <= row.occurred_at_ms}
    rows = [row for row in rows if row.part == 0 or row.order_id in returned]
    window_ms = max(model.click_days, model.view_days) * DAY_MS
    asked = [row for row in rows if row.occurred_at_ms >= from_ms or row.order_id in returned]
    since_ms = min((row.occurred_at_ms for row in asked), default=from_ms) - window_ms
    touched = store.read_touches(connection, retailer_id, since_ms, to_ms, INVALID_CODES) if asked else []
    products = {row.product_id for row in rows} | {row.product_id for row in touched}
    facts = facts_of(connection, products)

    def person_of(pseudonym: bytes) -> bytes:
        return facts.customer_of.get(pseudonym, pseudonym)

    lines = [
        Line(
            row.order_id,
            row.part,
            row.line,
            frozenset(person_of(bytes(one)) for one in (row.visitor, row.customer) if one is not None),
            row.occurred_at_ms,
            row.channel,
            row.traffic_source,
            row.product_id,
            row.quantity,
            row.unit_price_micros,
        )
        for row in rows
    ]
    touches = [
        Touch(
            person_of(bytes(row.visitor)),
            row.type == EventType.CLICK,
            row.occurred_at_ms,
            row.token_id,
            row.product_id,
            row.advertiser_id,
            row.campaign_id,
            row.bid_id,
            row.placement_id,
        )
        for row in touched
    ]
    credits = attribute(model, touches, lines, facts.shelf, now_ms)
    return [credit for credit in credits if from_ms <= credit.line.occurred_at_ms < to_ms]


def model_named(name: str) -> AttributionModel:
    """Return one of the models.

    Raises:
        RequestRefused: `model_unknown`.
    """
    if name not in MODELS:
        raise RequestRefused("model_unknown", f"model must be one of {', '.join(MODELS)}, was {name!r}")
    return MODELS[name]


def from_to(query: SalesQuery) -> tuple[int, int]:
    """Return both ends of a query, milliseconds since 1970."""
    return _milliseconds(query.from_), _milliseconds(query.to)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _line(
    campaign_id: str,
    advertiser_id: str,
    charged_micros: int,
    invalid_micros: int,
    commission_micros: int,
    credits: Sequence[Credit],
) -> SalesLine:
    valid_micros = charged_micros - invalid_micros
    sales = sum(credit.amount_micros for credit in credits)
    by_channel: dict[str, int] = {}
    by_source: dict[str, int] = {}
    for credit in credits:
        line, amount = credit.line, credit.amount_micros
        by_channel[line.channel] = by_channel.get(line.channel, 0) + amount
        source = line.traffic_source or ""
        by_source[source] = by_source.get(source, 0) + amount
    return SalesLine(
        campaign_id=campaign_id,
        advertiser_id=advertiser_id,
        charged_micros=charged_micros,
        invalid_micros=invalid_micros,
        commission_micros=commission_micros,
        orders=len({credit.line.order_id for credit in credits if not credit.line.part}),
        units=sum(credit.quantity for credit in credits),
        sales_micros=sales,
        same_sku_sales_micros=sum(credit.amount_micros for credit in credits if credit.basis == "same_sku"),
        halo_sales_micros=sum(credit.amount_micros for credit in credits if credit.basis == "halo"),
        new_to_brand_sales_micros=sum(credit.amount_micros for credit in credits if credit.is_new_to_brand),
        provisional_sales_micros=sum(credit.amount_micros for credit in credits if credit.is_provisional),
        sales_by_channel=dict(sorted(by_channel.items())),
        sales_by_source=dict(sorted(by_source.items())),
        roas=_ratio(sales, valid_micros),
        acos=_ratio(valid_micros, sales),
    )


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole > 0 else None
