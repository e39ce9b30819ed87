"""Reads weather files, line by line: good lines in, bad ones reported by number. No database."""

import csv
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from affinity.feed import open_feed
from affinity.navigation import Moment
from auction.weather import WeatherHour
from ledger.terms import Identifier


class WeatherLine(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"from_": "from"}):
    """A line of a weather file; `hour` is another name of `from`."""

    region: Identifier
    weather: Identifier
    from_: Moment | None = None
    hour: Moment | None = None
    temperature_c: Annotated[float, Meta(ge=-100, le=100)] | None = None


def read_weather_file(path: Path) -> Iterator[tuple[int, WeatherHour | str]]:
    """Yield each line's number with its hour, or with what is wrong with it.

    JSON lines, or CSV with a first line of names (`region,from,weather,temperature_c`); perhaps with gzip.
    """
    names: list[str] | None = None
    is_first = True
    with open_feed(path) as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            is_table, is_first = is_first and not raw.lstrip().startswith(b"{"), False
            if is_table:
                names = next(csv.reader([raw.decode(errors="replace")]))
                continue
            try:
                line = msgspec.json.decode(raw, type=WeatherLine) if names is None else _of_row(raw, names)
                yield number, _hour_of(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, csv.Error) as refusal:
                yield number, str(refusal)


def _of_row(raw: bytes, names: list[str]) -> WeatherLine:
    [cells] = csv.reader([raw.decode()])
    if len(cells) != len(names):
        raise ValueError(f"a line must have {len(names)} columns, as the first has names, had {len(cells)}")
    told: dict[str, Any] = {name.strip(): cell.strip() for name, cell in zip(names, cells, strict=True) if cell.strip()}
    return msgspec.convert(told, type=WeatherLine, strict=False)


def _hour_of(line: WeatherLine) -> WeatherHour:
    if (line.from_ is None) == (line.hour is None):
        raise ValueError("a line must say from when it holds, once: from, or hour")
    begins = line.from_ if line.hour is None else line.hour
    assert isinstance(begins, datetime)
    return WeatherHour(line.region, int(begins.timestamp() * 1000), line.weather, line.temperature_c)
