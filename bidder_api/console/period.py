"""Which days a page is about, and which it holds them against: the retailer's days."""

import datetime as dt
from collections.abc import Mapping
from zoneinfo import ZoneInfo

from msgspec import Struct

DAY_COUNT_MAX = 91  # reports span 92 days at most, and one of ours may have an hour more
PRESETS = ("today", "yesterday", "week", "four_weeks", "month", "custom")
DEFAULT_PRESET = "week"
_DAY_COUNTS = {"today": 1, "week": 7, "four_weeks": 28}


class Period(Struct, frozen=True):
    """Days from the first to the last, both included, of a time zone."""

    first: dt.date
    last: dt.date
    time_zone: str

    @property
    def day_count(self) -> int:
        """Return how many days it has."""
        return (self.last - self.first).days + 1

    @property
    def begins_at(self) -> dt.datetime:
        """Return when its first day begins."""
        return day_start(self.first, self.time_zone)

    @property
    def ends_at(self) -> dt.datetime:
        """Return when the day after its last begins."""
        return day_start(self.last + dt.timedelta(days=1), self.time_zone)

    def days(self) -> list[dt.date]:
        """Return its days in order."""
        return [self.first + dt.timedelta(days=number) for number in range(self.day_count)]

    def hours(self) -> list[dt.datetime]:
        """Return when each of its hours begins, UTC; 23 or 25 of them on a day the clocks change."""
        begins, ends = (at.astimezone(dt.UTC) for at in (self.begins_at, self.ends_at))
        return [begins + dt.timedelta(hours=number) for number in range(int((ends - begins).total_seconds()) // 3600)]

    def before(self, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
        """Return from when until when as many days before were; a day under way is held against as much of its like."""
        span = dt.timedelta(days=self.day_count)
        zone = ZoneInfo(self.time_zone)
        until = min(self.ends_at, now.astimezone(zone))
        wall = (until.replace(tzinfo=None) - span).replace(tzinfo=zone)
        return day_start(self.first - span, self.time_zone), wall


class Choice(Struct, frozen=True):
    """What was chosen on a page.

    Attributes:
        preset: one of PRESETS.
        refusal: why typed days were not taken, as a key of the console's words; the default stands then.
    """

    preset: str
    period: Period
    compares: bool
    refusal: str | None = None


def day_start(day: dt.date, time_zone: str) -> dt.datetime:
    """Return when a day begins."""
    return dt.datetime.combine(day, dt.time(), ZoneInfo(time_zone))


def day_share(now: dt.datetime, time_zone: str) -> tuple[int, int]:
    """Return how many seconds of the day have gone, and how many it has."""
    today = now.astimezone(ZoneInfo(time_zone)).date()
    begins, ends = day_start(today, time_zone), day_start(today + dt.timedelta(days=1), time_zone)
    gone, whole = now - begins.astimezone(dt.UTC), ends.astimezone(dt.UTC) - begins.astimezone(dt.UTC)
    return int(gone.total_seconds()), int(whole.total_seconds())


def choose_period(query: Mapping[str, str], now: dt.datetime, time_zone: str) -> Choice:
    """Return the days a query asks for: `period`, `first` and `last` where that is `custom`, and `compare`."""
    today = now.astimezone(ZoneInfo(time_zone)).date()
    preset, compares = query.get("period", DEFAULT_PRESET), query.get("compare", "previous") != "none"
    if preset == "custom":
        try:
            first, last = (dt.date.fromisoformat(query.get(end, "")) for end in ("first", "last"))
        except ValueError:
            return Choice(DEFAULT_PRESET, _last_days(7, today, time_zone), compares, "days_unreadable")
        refusal = _refusal(first, last, today)
        if refusal is None:
            return Choice("custom", Period(first, last, time_zone), compares)
        return Choice(DEFAULT_PRESET, _last_days(7, today, time_zone), compares, refusal)
    if preset == "yesterday":
        yesterday = today - dt.timedelta(days=1)
        return Choice(preset, Period(yesterday, yesterday, time_zone), compares)
    if preset == "month":
        return Choice(preset, Period(today.replace(day=1), today, time_zone), compares)
    if preset not in _DAY_COUNTS:
        preset = DEFAULT_PRESET
    return Choice(preset, _last_days(_DAY_COUNTS[preset], today, time_zone), compares)


def _last_days(count: int, today: dt.date, time_zone: str) -> Period:
    return Period(today - dt.timedelta(days=count - 1), today, time_zone)


def _refusal(first: dt.date, last: dt.date, today: dt.date) -> str | None:
    if last < first:
        return "days_reversed"
    if (last - first).days + 1 > DAY_COUNT_MAX:
        return "days_too_many"
    if first > today or first.year < 2000:
        return "days_unreadable"
    return None
