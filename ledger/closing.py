"""Months: closed softly when they are over, sealed once nothing of them can come any more, and reported byte for byte.

While a month is soft its late charges are still booked in it; once it is sealed they go to the open month, with the
moment they happened. Corrections are always booked in the open month, so a sealed month's report never changes.
"""

import hashlib
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from ledger import chain, store
from ledger.command import ClosedPeriod, ClosePeriod
from ledger.document import month_ends
from ledger.errors import ConflictRefused
from ledger.funding import to_moment

GRACE = timedelta(hours=72)  # a click lives a day; the rest is for sites that could not send
CHAIN_KIND = "closing"


class PeriodLine(Struct, frozen=True):
    """An account over a month, debit +: what it stood at, what moved, what it stands at."""

    account: str
    currency: str
    opening_micros: int
    debit_micros: int
    credit_micros: int
    closing_micros: int


class PeriodReport(Struct, frozen=True):
    """Every account over a month; `difference_micros` is 0."""

    period: str
    accounts: list[PeriodLine]
    debit_micros: int
    credit_micros: int
    difference_micros: int


def close_period(
    connection: Connection, retailer_id: str, command: ClosePeriod, time_zone: str, now_ms: int
) -> ClosedPeriod:
    """Close a month; again, at the stage it has, changes nothing.

    Raises:
        ConflictRefused: `period_open` (it is not over, or not for 72 hours), `period_sealed`, `period_not_soft`,
            `earlier_period_open`.
    """
    head = chain.lock_head(connection, retailer_id)
    closed = store.list_closings(connection, retailer_id)
    stages = {row.period: row for row in closed}
    period, stage, known = command.period, command.stage, stages.get(command.period)
    if known is not None and known.stage == stage:
        return to_closed(known)
    ends_at = _end_of(period, time_zone)
    now = to_moment(now_ms)
    if stage == "soft":
        if known is not None:
            raise ConflictRefused("period_sealed", f"{period} is sealed, and stays so")
        if now < ends_at:
            raise ConflictRefused("period_open", f"{period} ends at {ends_at.isoformat()}, it is {now.isoformat()}")
        digest = None
    else:
        if known is None:
            raise ConflictRefused("period_not_soft", f"{period} must be closed softly first")
        if now < ends_at + GRACE:
            message = f"{period} can be sealed from {(ends_at + GRACE).isoformat()} on, it is {now.isoformat()}"
            raise ConflictRefused("period_open", message)
        earlier = [one for one in store.list_periods(connection, retailer_id) if one < period]
        unsealed = [one for one in earlier if one not in stages or stages[one].stage != "sealed"]
        if unsealed:
            raise ConflictRefused("earlier_period_open", f"{unsealed[0]} must be sealed before {period}")
        digest = period_digest(connection, retailer_id, period)
    row = (head.next_seq(CHAIN_KIND), period, stage, digest, now_ms)
    store.insert_closing(connection, retailer_id, row)
    chain.extend(connection, retailer_id, head, CHAIN_KIND, chain.hash_rows(CHAIN_KIND, [row]))
    chain.save_head(connection, retailer_id, head)
    return ClosedPeriod(period, stage, digest, now)


def list_closed(connection: Connection, retailer_id: str) -> list[ClosedPeriod]:
    """Return the months that are closed, each at the stage it has now."""
    latest = {row.period: row for row in store.list_closings(connection, retailer_id)}
    return [to_closed(latest[period]) for period in sorted(latest)]


def to_closed(row: "store.Closing") -> ClosedPeriod:
    """Return a closing as it travels."""
    return ClosedPeriod(row.period, row.stage, row.digest, to_moment(row.closed_at_ms))  # type: ignore[arg-type]


def report_period(connection: Connection, retailer_id: str, period: str) -> PeriodReport:
    """Return every account that ever moved up to a month's end, over that month."""
    sums: dict[tuple[str, str], list[int]] = {}
    for row in store.list_balances(connection, retailer_id):
        if row.period <= period:
            one = sums.setdefault((row.account, row.currency), [0, 0, 0])
            if row.period == period:
                one[1] += row.debit_micros
                one[2] += row.credit_micros
            else:
                one[0] += row.debit_micros - row.credit_micros
    lines = [
        PeriodLine(account, currency, opening, debit, credit, opening + debit - credit)
        for (account, currency), (opening, debit, credit) in sorted(sums.items())
    ]
    debit, credit = sum(line.debit_micros for line in lines), sum(line.credit_micros for line in lines)
    return PeriodReport(period, lines, debit, credit, debit - credit)


def report_bytes(report: PeriodReport) -> bytes:
    """Return a report as it is handed out: the same bytes for the same figures."""
    return msgspec.json.encode(report)


def period_digest(connection: Connection, retailer_id: str, period: str) -> str:
    """Return the SHA-256 of a month's report, hexadecimal."""
    return hashlib.sha256(report_bytes(report_period(connection, retailer_id, period))).hexdigest()


def _end_of(period: str, time_zone: str) -> datetime:
    """Return the first moment after a month, in the retailer's time zone."""
    _, last = month_ends(period)
    following = last + timedelta(days=1)
    return datetime(following.year, following.month, following.day, tzinfo=ZoneInfo(time_zone))
