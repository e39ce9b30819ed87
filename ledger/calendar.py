"""Days and months as the retailer lives them."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

_QUARTER_MS = 15 * 60_000  # every offset in use is a multiple of 15 minutes
_CACHED_COUNT_MAX = 10_000


def is_month(text: str) -> bool:
    """Say whether a text names a month as periods are named, such as 2026-11."""
    return re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", text) is not None


class Calendar:
    """Tells the retailer's day and month of a moment."""

    def __init__(self, time_zone: str) -> None:
        self._zone = ZoneInfo(time_zone)
        self._days: dict[int, str] = {}

    def day(self, at_ms: int) -> str:
        """Return YYYY-MM-DD of a moment given in milliseconds since 1970 UTC."""
        quarter = at_ms // _QUARTER_MS
        day = self._days.get(quarter)
        if day is None:
            if len(self._days) >= _CACHED_COUNT_MAX:
                self._days.clear()
            day = self._days[quarter] = datetime.fromtimestamp(quarter * (_QUARTER_MS // 1000), self._zone).strftime(
                "%Y-%m-%d"
            )
        return day

    def period(self, at_ms: int) -> str:
        """Return YYYY-MM of a moment."""
        return self.day(at_ms)[:7]
