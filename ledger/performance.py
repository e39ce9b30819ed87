"""What campaigns, products and placements brought: events, money and sales, in all or by day or hour.

Every figure is defined here, once. Money is the ledger's, to the micro; sales are as `attribution.py` credits them.
Gross is valid plus invalid, line by line.
"""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct
from sqlalchemy.engine import Connection

from ledger import store
from ledger.attribution import AttributionModel, Credit, ModelName
from ledger.calendar import Calendar
from ledger.errors import NotFound, RequestRefused
from ledger.event import Moment
from ledger.funding import to_moment
from ledger.sales import SPAN_MS_MAX, FactsOf, find_credits
from ledger.terms import Identifier
from ledger.traffic import INVALID_CODES

HOUR_MS = 3_600_000
Interval = Literal["total", "day", "hour"]
REPORTS = {"campaigns": "campaign_id", "products": "product_id", "placements": "placement_id"}
WITHOUT_MONEY = frozenset(["daily_budget", "total_budget", "funds"])  # why an event was free though it was due


class PerformanceQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"from_": "from"}):
    """From when, until before when; at most 92 days. `by` parts the time; `model` says how sales are credited."""

    from_: Moment
    to: Moment
    by: Interval = "total"
    model: ModelName = "default"
    advertiser_id: Identifier | None = None


class PerformanceLine(Struct, frozen=True, kw_only=True):
    """One campaign, product or placement, over one part of the time. A ratio over nothing is null.

    Attributes:
        name: of the campaign, product or placement.
        time: the day in the retailer's time zone, or the hour as UTC; null for the total.
        gross_impressions, gross_clicks: recorded, whatever became of them.
        invalid_impressions, invalid_clicks: of these, of robots and the like; gross is valid plus invalid.
        impressions, views, clicks: the valid ones; a view is half of it on screen for a second.
        charged_micros: what was charged, before any reversal: gross.
        invalid_micros: of that, charged before it was found invalid, and reversed.
        valid_micros: the rest.
        invalid_by_reason: how many events each rule found invalid, of all kinds.
        commission_micros: posted for orders of the time, less what went back with returns of the time.
        free_events: due but free, because a budget or the funds were spent: what was lost to the budget.
        given_back_micros: what these, and one that was charged in part, would have cost.
        ctr: clicks over impressions.
        viewability: views over impressions.
        cpc_micros, cpm_micros: valid charges per valid click and per 1,000 valid impressions.
        orders, units, sales_micros, new_to_brand_sales_micros: credited to it, at the time of the order.
        roas: sales over valid charges; `acos` the other way round.
    """

    name: str
    time: str | None
    gross_impressions: int
    invalid_impressions: int
    impressions: int
    views: int
    gross_clicks: int
    invalid_clicks: int
    clicks: int
    charged_micros: int
    commission_micros: int
    invalid_micros: int
    valid_micros: int
    invalid_by_reason: dict[str, int]
    free_events: int
    given_back_micros: int
    ctr: float | None
    viewability: float | None
    cpc_micros: int | None
    cpm_micros: int | None
    orders: int
    units: int
    sales_micros: int
    new_to_brand_sales_micros: int
    roas: float | None
    acos: float | None


class PerformanceReport(Struct, frozen=True, kw_only=True):
    """Every campaign, product or placement anything happened to, by name and time."""

    report: str
    by: Interval
    currency: str
    model: str
    items: list[PerformanceLine]


class _Sums(Struct):
    gross: dict[str, int] = {}
    invalid: dict[str, int] = {}
    reasons: dict[str, int] = {}
    charged: int = 0
    commission: int = 0
    undone: int = 0
    free: int = 0
    given_back: int = 0
    orders: set[str] = set()
    units: int = 0
    sales: int = 0
    new_to_brand: int = 0


def report_performance(
    connection: Connection,
    retailer_id: str,
    report: str,
    currency: str,
    time_zone: str,
    from_ms: int,
    to_ms: int,
    by: Interval,
    model: AttributionModel,
    facts_of: FactsOf,
    now_ms: int,
    advertiser_id: str | None,
) -> PerformanceReport:
    """Return what happened in [from, to), of all advertisers or one.

    Raises:
        NotFound: `unknown_report`.
        RequestRefused: `range_invalid`, the range is empty or longer than 92 days.
    """
    if report not in REPORTS:
        raise NotFound("unknown_report", f"report must be one of {', '.join(REPORTS)}, was {report!r}")
    if not 0 < to_ms - from_ms <= SPAN_MS_MAX:
        raise RequestRefused("range_invalid", "to must be after from, by at most 92 days")
    time_of = _times(by, Calendar(time_zone))
    sums: dict[tuple[str, str | None], _Sums] = {}
    for name, at, kind, code, count, charged, undone, given_back in store.sum_events(
        connection, retailer_id, REPORTS[report], from_ms, to_ms, by, advertiser_id
    ):
        time = None if by == "total" else at if by == "day" else time_of(at * HOUR_MS)
        one = sums.setdefault((name, time), _Sums())
        one.gross[kind] = one.gross.get(kind, 0) + count
        if code is not None and code in INVALID_CODES:
            one.invalid[kind] = one.invalid.get(kind, 0) + count
            one.reasons[code] = one.reasons.get(code, 0) + count
        one.charged += charged
        one.undone += undone
        one.given_back += given_back
        one.free += count if code in WITHOUT_MONEY else 0
    for name, _, micros, at_ms in store.read_commissions_between(
        connection, retailer_id, REPORTS[report], from_ms, to_ms, advertiser_id
    ):
        sums.setdefault((name, time_of(at_ms)), _Sums()).commission += micros
    for credit in find_credits(connection, retailer_id, from_ms, to_ms, model, facts_of, now_ms):
        if advertiser_id in (None, credit.touch.advertiser_id):
            _add_sales(sums.setdefault((_name(report, credit), time_of(credit.line.occurred_at_ms)), _Sums()), credit)
    items = [_line(name, time, one) for (name, time), one in sums.items()]
    items.sort(key=lambda one: (one.name, one.time or ""))
    return PerformanceReport(report=report, by=by, currency=currency, model=model.name, items=items)


def _times(by: Interval, calendar: Calendar) -> Callable[[int], str | None]:
    """Return what says which part of the time a moment is in."""
    if by == "total":
        return lambda at_ms: None
    if by == "day":
        return calendar.day
    return lambda at_ms: to_moment(at_ms // HOUR_MS * HOUR_MS).strftime("%Y-%m-%dT%H:00:00Z")


def _name(report: str, credit: Credit) -> str:
    touch = credit.touch
    return {"campaigns": touch.campaign_id, "products": touch.product_id, "placements": touch.placement_id}[report]


def _add_sales(sums: _Sums, credit: Credit) -> None:
    if not credit.line.part:
        sums.orders.add(credit.line.order_id)
    sums.units += credit.quantity
    sums.sales += credit.amount_micros
    sums.new_to_brand += credit.amount_micros if credit.is_new_to_brand else 0


def _line(name: str, time: str | None, sums: _Sums) -> PerformanceLine:
    valid = {kind: count - sums.invalid.get(kind, 0) for kind, count in sums.gross.items()}
    charged = sums.charged - sums.undone
    impressions, views, clicks = (valid.get(kind, 0) for kind in ("impression", "view", "click"))
    return PerformanceLine(
        name=name,
        time=time,
        gross_impressions=sums.gross.get("impression", 0),
        invalid_impressions=sums.invalid.get("impression", 0),
        impressions=impressions,
        views=views,
        gross_clicks=sums.gross.get("click", 0),
        invalid_clicks=sums.invalid.get("click", 0),
        clicks=clicks,
        charged_micros=sums.charged,
        commission_micros=sums.commission,
        invalid_micros=sums.undone,
        valid_micros=charged,
        invalid_by_reason=dict(sorted(sums.reasons.items())),
        free_events=sums.free,
        given_back_micros=sums.given_back,
        ctr=_ratio(clicks, impressions),
        viewability=_ratio(views, impressions),
        cpc_micros=_per(charged, clicks),
        cpm_micros=_per(charged * 1_000, impressions),
        orders=len(sums.orders),
        units=sums.units,
        sales_micros=sums.sales,
        new_to_brand_sales_micros=sums.new_to_brand,
        roas=_ratio(sums.sales, charged),
        acos=_ratio(charged, sums.sales),
    )


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole > 0 else None


def _per(micros: int, count: int) -> int | None:
    return (2 * micros + count) // (2 * count) if count > 0 else None
