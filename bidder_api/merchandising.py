"""Reads what a merchandising report is made of: orders from the ledger's tables, visits from the navigation log."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from affinity.catalog import Product
from affinity.errors import TradeRefused
from affinity.merchandising import MerchandisingReport, report_trade, signals_of
from affinity.navigation_log import LogLine, NavigationLog
from affinity.signals import Signals
from affinity.store import (
    forget_availability,
    next_change_seq,
    put_signals,
    read_availability,
    read_products_changed,
)
from affinity.tally import availability_of
from affinity.trade import Trade, TradeReader, Weeks, weeks_until
from bidder_api.database import Database
from bidder_api.deployment import opened
from bidder_api.settings import AllSettings
from bidder_api.store import Deployment
from bidder_api.tasks import NAVIGATION_FOLDER, Progress, ShowProgress
from ledger.store import count_orders, read_order_lines, read_order_span

CHANNELS: dict[str, tuple[str, ...]] = {
    "online": ("web", "app"),
    "store": ("store",),
    "all": ("web", "app", "store"),
}
ORDERS_AT_ONCE, LINES_AT_ONCE = 1_000, 20_000  # between two steps of a progress bar
AVAILABILITY_KEPT_MS = 800 * 86_400_000  # two years and what a report of their end looks back
FOR_EVER_MS = 1 << 62


class Asked(Struct, frozen=True, kw_only=True):
    """What is to be reported.

    Attributes:
        last_day: of the period; None: yesterday, in the shop's time zone.
        weeks: length of the period.
        history_weeks: length of its history; `against` a year before it is as long as the period.
        against: the weeks just before, or the same weeks 364 days earlier.
        channel: whose orders count, see `CHANNELS`.
        top_count: best-sellers of each category, and pairs, that are named.
    """

    last_day: date | None = None
    weeks: int = 4
    history_weeks: int = 12
    against: Literal["history", "year"] = "history"
    channel: str = "online"
    top_count: int = 10


class _Read(Struct, frozen=True):
    trade: Trade
    weeks: Weeks
    is_available: NDArray[np.bool_]
    products: list[Product]
    notes: list[str]


def report(
    settings: AllSettings, asked: Asked, now_ms: int, show_progress: ShowProgress
) -> tuple[MerchandisingReport, dict[str, str], str]:
    """Return the report, the titles of the products, and the time zone its days are of.

    Raises:
        TradeRefused: nothing was sold in the period or in its history.
    """
    with opened(settings.server) as (database, deployment):
        read = _read(settings, database, deployment, asked, now_ms, show_progress)
        made = _make(read, deployment, asked, show_progress)
    return made, {product.product_id: product.title for product in read.products}, deployment.time_zone


def compute(settings: AllSettings, asked: Asked, now_ms: int, show_progress: ShowProgress) -> Signals:
    """Keep the signals rules ask for; who serves has them with the next snapshot, within a second or so.

    Raises:
        TradeRefused: nothing was sold in the period or in its history; the signals there were stay.
    """
    with opened(settings.server) as (database, deployment):
        read = _read(settings, database, deployment, asked, now_ms, show_progress)
        signals = signals_of(_make(read, deployment, asked, show_progress), read.trade, read.weeks, now_ms)

        def keep(connection: Connection) -> None:
            change_seq = next_change_seq(connection, deployment.retailer_id)
            put_signals(connection, deployment.retailer_id, signals, change_seq)
            forget_availability(connection, deployment.retailer_id, now_ms - AVAILABILITY_KEPT_MS)

        database.transact(keep)
    return signals


def _make(read: _Read, deployment: Deployment, asked: Asked, show_progress: ShowProgress) -> MerchandisingReport:
    with show_progress("Comparing"):
        made = report_trade(
            read.trade,
            read.weeks,
            read.is_available,
            currency=deployment.currency,
            use_visits=asked.channel == "online",  # visits explain what is bought online
            top_count=asked.top_count,
        )
    made.notes.extend(read.notes)
    if made.categories[0].basis == "orders":
        made.notes.append(
            "Traffic is counted in orders of the shop: "
            + (
                "navigation does not cover every week."
                if asked.channel == "online"
                else f"visits do not explain orders of channel {asked.channel}."
            )
        )
    return made


def _read(
    settings: AllSettings,
    database: Database,
    deployment: Deployment,
    asked: Asked,
    now_ms: int,
    show_progress: ShowProgress,
) -> _Read:
    zone, retailer_id = ZoneInfo(deployment.time_zone), deployment.retailer_id
    last_day = asked.last_day or (datetime.fromtimestamp(now_ms / 1000, zone) - timedelta(days=1)).date()
    is_year = asked.against == "year"
    history_weeks = asked.weeks if is_year else asked.history_weeks
    weeks = weeks_until(last_day, asked.weeks, history_weeks, deployment.time_zone, a_year_before=is_year)
    products = database.read(lambda connection: read_products_changed(connection, retailer_id, -1))
    order_span = database.read(lambda connection: read_order_span(connection, retailer_id))
    first_order_ms, last_order_ms = order_span or (None, 0)
    until_ms = 0 if asked.channel == "store" else FOR_EVER_MS if first_order_ms is None else first_order_ms
    reader = TradeReader(weeks, products, until_ms)
    span = int(weeks.begins_ms[0]), int(weeks.ends_ms[-1])

    def read_orders(connection: Connection) -> None:
        total = count_orders(connection, retailer_id, *span)
        lines = read_order_lines(connection, retailer_id, *span, CHANNELS[asked.channel])
        for done, (_, of_order) in enumerate(groupby(lines, key=itemgetter(0))):
            reader.add_order_lines(of_order)
            if done % ORDERS_AT_ONCE == 0:
                progress(done, total)

    with show_progress("Reading orders") as progress:
        database.read(read_orders)
    with show_progress("Reading navigation") as progress:
        log = NavigationLog(settings.server.data_dir / NAVIGATION_FOLDER, settings.affinity.navigation_segment_bytes)
        reader.add_navigation(_read_log(log, progress))
    trade = reader.finish()
    _check_sold(trade, weeks, last_day, max(last_order_ms, reader.last_sold_at_ms), zone)
    changes = database.read(lambda connection: list(read_availability(connection, retailer_id)))
    notes = _notes(first_order_ms, weeks, min((from_ms for _, from_ms, _ in changes), default=None), zone, asked)
    return _Read(trade, weeks, availability_of(trade, weeks, changes), products, notes)


def _read_log(log: NavigationLog, progress: Progress) -> Iterator[LogLine]:
    names = log.segments()
    sizes = [(log.folder / name).stat().st_size if (log.folder / name).exists() else 0 for name in names]
    done = 0
    for name, size in zip(names, sizes, strict=True):
        for number, line in enumerate(log.read(name)):
            if number % LINES_AT_ONCE == 0:
                progress(done, sum(sizes))
            yield line
        done += size
        progress(done, sum(sizes))


def _check_sold(trade: Trade, weeks: Weeks, last_day: date, last_sold_at_ms: int, zone: ZoneInfo) -> None:
    """Check that something was sold in both periods, and say what to ask for where it was not."""
    week = weeks.number(trade.lines.at_ms[trade.lines.quantity > 0])
    sold = weeks.is_period[week[week >= 0]]
    if sold.any() and not sold.all():
        return
    if not last_sold_at_ms:
        raise TradeRefused("no orders and no purchases are known: report them to POST /v1/orders, or import navigation")
    last = datetime.fromtimestamp(last_sold_at_ms / 1000, zone).date()
    which = "history of the period" if sold.any() else "period"
    raise TradeRefused(f"nothing was sold in the {which} that ends on {last_day}; the last sale known is of {last}")


def _notes(
    first_order_ms: int | None, weeks: Weeks, first_change_ms: int | None, zone: ZoneInfo, asked: Asked
) -> list[str]:
    notes = []
    if first_order_ms is None:
        notes.append("Sales are the purchases that navigation reports; no orders were reported.")
    elif first_order_ms > weeks.begins_ms[0] and asked.channel != "store":
        at = datetime.fromtimestamp(first_order_ms / 1000, zone)
        notes.append(f"Sales are purchases of navigation before {at:%Y-%m-%d %H:%M}, and reported orders from then on.")
    if asked.channel != "online":
        return notes
    if first_change_ms is None:
        notes.append("Availability was never recorded: every look counts as one at a product in stock.")
    elif first_change_ms > weeks.begins_ms[0]:
        at = datetime.fromtimestamp(first_change_ms / 1000, zone)
        notes.append(f"Availability is recorded from {at:%Y-%m-%d %H:%M} on; before, products count as in stock.")
    return notes
