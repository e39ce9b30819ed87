"""What the campaigns' page shows, worked out from what the API answered. Reads nothing and decides nothing."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from auction.campaign import Campaign
from bidder_api.call import etag
from bidder_api.console.formats import Formats
from bidder_api.console.period import Period
from ledger.performance import PerformanceLine
from ledger.reports import CampaignBudget

StatusWord = Literal["active", "scheduled", "paused", "out_of_budget", "wallet_empty", "ended"]
STATUS_COLOURS: Mapping[str, str] = {
    "active": "green", "scheduled": "azure", "paused": "secondary", "out_of_budget": "orange", "wallet_empty": "red",
    "ended": "secondary",
}  # fmt: skip
METRICS = ("spend", "sales", "roas", "impressions", "clicks", "ctr")


class Figures(Struct):
    """What events and orders came to; see `ledger.performance.PerformanceLine` for what each is."""

    spend_micros: int = 0
    sales_micros: int = 0
    impressions: int = 0
    clicks: int = 0

    def add(self, line: PerformanceLine) -> None:
        """Add a line of a report."""
        self.spend_micros += line.charged_micros
        self.sales_micros += line.sales_micros
        self.impressions += line.impressions
        self.clicks += line.clicks

    def value(self, metric: str) -> Decimal | None:
        """Return one of METRICS, amounts in the currency's unit; None for a ratio over nothing."""
        if metric == "roas":
            return None if self.spend_micros <= 0 else Decimal(self.sales_micros) / self.spend_micros
        if metric == "ctr":
            return None if self.impressions <= 0 else Decimal(self.clicks) / self.impressions
        if metric in ("spend", "sales"):
            return Decimal(self.spend_micros if metric == "spend" else self.sales_micros) / 1_000_000
        return Decimal(self.impressions if metric == "impressions" else self.clicks)


class Tile(Struct, frozen=True):
    """One figure over the period, and what it was before.

    Attributes:
        exact: to the micro, where it is money; as plain digits otherwise.
        change: in words; `is_up` is None where there is none.
    """

    metric: str
    text: str
    exact: str
    before: str
    change: str
    is_up: bool | None


class Row(Struct, frozen=True):
    """One campaign of the table."""

    campaign_id: str
    name: str
    status: StatusWord
    colour: str
    is_paused: bool
    can_change: bool
    etag: str
    daily_budget_micros: int | None
    spent_today_micros: int
    pacing_permille: int | None
    flight: str
    figures: Figures


class Point(Struct, frozen=True):
    """One day, or hour, of the chart."""

    label: str
    figures: Figures


class Wallet(Struct, frozen=True):
    """What an advertiser can still be charged, and how long it lasts.

    Attributes:
        spend_a_day_micros: charged in the period, over its days so far.
        days_left: whole days that pays for; None where nothing is spent.
    """

    funds_micros: int
    spend_a_day_micros: int
    days_left: int | None


def sum_lines(lines: Iterable[PerformanceLine]) -> Figures:
    """Return what lines come to together."""
    total = Figures()
    for line in lines:
        total.add(line)
    return total


def by_campaign(lines: Iterable[PerformanceLine]) -> dict[str, Figures]:
    """Return what lines come to, by campaign."""
    found: dict[str, Figures] = {}
    for line in lines:
        found.setdefault(line.name, Figures()).add(line)
    return found


def status_of(campaign: Campaign, budget: CampaignBudget, funds_micros: int, now: datetime) -> StatusWord:
    """Return the one word for how a campaign stands: what is to be done first about it comes first.

    An end and a pause are the advertiser's own will, so they come before what it lacks.
    """
    if campaign.flight_ends_at is not None and campaign.flight_ends_at <= now:
        return "ended"
    if campaign.status == "paused":
        return "paused"
    if campaign.flight_starts_at is not None and campaign.flight_starts_at > now:
        return "scheduled"
    if funds_micros <= 0:
        return "wallet_empty"
    spent = (
        (campaign.daily_budget_micros, budget.spent_day_micros),
        (campaign.total_budget_micros, budget.spent_total_micros),
    )
    if any(limit is not None and micros >= limit for limit, micros in spent):
        return "out_of_budget"
    return "active"


def make_rows(
    campaigns: Sequence[Campaign],
    budgets: Mapping[str, CampaignBudget],
    figures: Mapping[str, Figures],
    funds_micros: int,
    now: datetime,
    formats: Formats,
) -> list[Row]:
    """Return the table: by spend, then by name."""
    rows = []
    for campaign in campaigns:
        budget = budgets.get(campaign.campaign_id) or _unspent(campaign)
        status = status_of(campaign, budget, funds_micros, now)
        daily = campaign.daily_budget_micros
        rows.append(
            Row(
                campaign_id=campaign.campaign_id,
                name=campaign.name,
                status=status,
                colour=STATUS_COLOURS[status],
                is_paused=campaign.status == "paused",
                can_change=campaign.status != "archived",
                etag=etag(campaign.change_seq),
                daily_budget_micros=daily,
                spent_today_micros=budget.spent_day_micros,
                pacing_permille=None if not daily else min(1000, budget.spent_day_micros * 1000 // daily),
                flight=_flight(campaign, formats),
                figures=figures.get(campaign.campaign_id, Figures()),
            )
        )
    rows.sort(key=lambda row: (-row.figures.spend_micros, row.name.casefold(), row.campaign_id))
    return rows


def make_tiles(now: Figures, before: Figures | None, formats: Formats) -> list[Tile]:
    """Return the tiles in their order."""
    tiles = []
    for metric in METRICS:
        value, earlier = now.value(metric), None if before is None else before.value(metric)
        change = formats.change(value, earlier)
        is_up = None if not change or value is None or earlier is None or value == earlier else value > earlier
        tiles.append(
            Tile(
                metric=metric,
                text=show(now, metric, formats),
                exact=_exact(now, metric),
                before="" if before is None else show(before, metric, formats),
                change=change,
                is_up=is_up,
            )
        )
    return tiles


def show(figures: Figures, metric: str, formats: Formats) -> str:
    """Return one of METRICS as it is read."""
    if metric == "spend":
        return formats.money(figures.spend_micros)
    if metric == "sales":
        return formats.money(figures.sales_micros)
    if metric == "roas":
        return formats.ratio(figures.sales_micros, figures.spend_micros)
    if metric == "ctr":
        return formats.percent(figures.clicks, figures.impressions, digits=2)
    return formats.number(figures.impressions if metric == "impressions" else figures.clicks)


def make_points(lines: Iterable[PerformanceLine], period: Period, now: datetime, formats: Formats) -> list[Point]:
    """Return the chart's points: a day each, or an hour where the period is one day; none after now."""
    by_time: dict[str, Figures] = {}
    for line in lines:
        by_time.setdefault(line.time or "", Figures()).add(line)
    if period.day_count == 1:
        return [
            Point(formats.hour(at), by_time.get(f"{at:%Y-%m-%dT%H:00:00Z}", Figures()))
            for at in period.hours()
            if at <= now
        ]
    today = now.astimezone(period.begins_at.tzinfo).date()
    return [Point(formats.day(day), by_time.get(day.isoformat(), Figures())) for day in period.days() if day <= today]


def make_wallet(funds_micros: int, spend_micros: int, period: Period, now: datetime) -> Wallet:
    """Return what is left, and how long it lasts as the period went; a day under way counts for its part."""
    gone_s = int((min(period.ends_at, now) - period.begins_at) / timedelta(seconds=1))
    if gone_s <= 0 or spend_micros <= 0:
        return Wallet(funds_micros, 0, None)
    a_day_micros = spend_micros * 86_400 // gone_s
    return Wallet(funds_micros, a_day_micros, max(0, funds_micros) * gone_s // (spend_micros * 86_400))


def _unspent(campaign: Campaign) -> CampaignBudget:
    return CampaignBudget(campaign.campaign_id, campaign.advertiser_id, "", None, None, 0, 0)


def _flight(campaign: Campaign, formats: Formats) -> str:
    starts, ends = (
        None if at is None else formats.moment(at) for at in (campaign.flight_starts_at, campaign.flight_ends_at)
    )
    if starts is None and ends is None:
        return ""
    return f"{starts or '…'} – {ends or '…'}"


def _exact(figures: Figures, metric: str) -> str:
    if metric in ("spend", "sales"):
        return str(figures.spend_micros if metric == "spend" else figures.sales_micros)
    value = figures.value(metric)
    return "" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")
