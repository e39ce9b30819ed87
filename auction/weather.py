"""What the weather is in a region at an hour, so that a page need only say which region asks. No files, no database."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from ledger.terms import Identifier

HOLDS_MS = 3 * 3_600_000  # forecasts come for every hour, or every third


class WeatherHour(Struct, frozen=True, array_like=True):
    """The weather of a region from a moment on (UTC milliseconds since 1970), until its next one or for three hours."""

    region: Identifier
    from_ms: int
    weather: Identifier
    temperature_c: Annotated[float, Meta(ge=-100, le=100)] | None = None


class Forecast:
    """The hours of every region, looked up by moment."""

    def __init__(self, hours: Sequence[WeatherHour]) -> None:
        self._hours: dict[str, list[WeatherHour]] = {}
        for hour in sorted(hours, key=lambda hour: (hour.region, hour.from_ms)):
            self._hours.setdefault(hour.region, []).append(hour)
        self._from_ms = {region: [hour.from_ms for hour in hours] for region, hours in self._hours.items()}

    def completed(self, context: Mapping[str, Any], now_ms: int) -> Mapping[str, Any]:
        """Return the context with the weather and temperature of its region; what it says itself wins."""
        region = context.get("region")
        if not isinstance(region, str) or region not in self._hours:
            return context
        row = bisect_right(self._from_ms[region], now_ms) - 1
        if row < 0:
            return context
        hour = self._hours[region][row]
        if now_ms >= hour.from_ms + HOLDS_MS:
            return context
        known: dict[str, Any] = {"weather": hour.weather}
        if hour.temperature_c is not None:
            known["temperature_c"] = hour.temperature_c
        return known | dict(context)
