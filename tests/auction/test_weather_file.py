"""Weather files: what is a line, and what is said of one that is none."""

import gzip
from pathlib import Path

import pytest

from auction.weather import WeatherHour
from auction.weather_file import read_weather_file

AT_MS = 1_767_226_200_000  # 2026-01-01T00:10:00Z
GOOD = WeatherHour("fr-75", AT_MS, "rain", 7.5)


@pytest.mark.parametrize(
    "text",
    [
        '{"region":"fr-75","from":"2026-01-01T00:10:00Z","weather":"rain","temperature_c":7.5}\n',
        '\n{"region":"fr-75","hour":"2026-01-01T01:10:00+01:00","weather":"rain","temperature_c":7.5}',
        "region,from,weather,temperature_c\nfr-75,2026-01-01T00:10:00Z,rain,7.5\n",
        'temperature_c, region ,hour,weather\r\n7.5,"fr-75",2026-01-01T00:10:00Z,rain\r\n',
        "\ufeffregion,from,hour,weather,temperature_c\nfr-75,2026-01-01T00:10:00Z,,rain,7.5\n",
    ],
)
def test_json_lines_and_csv_say_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "plain").write_text(text)
    (tmp_path / "packed").write_bytes(gzip.compress(text.encode()))
    for name in ("plain", "packed"):
        assert [hour for _number, hour in read_weather_file(tmp_path / name)] == [GOOD]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"region":"fr-75","weather":"rain"}', "from when"),
        ('{"region":"fr-75","weather":"rain","from":"2026-01-01T00:00:00Z","hour":"2026-01-01T00:00:00Z"}', "once"),
        ('{"region":"fr-75","weather":"rain","from":"2026-01-01T00:00:00"}', "timezone"),
        ('{"region":"","weather":"rain","from":"2026-01-01T00:00:00Z"}', "region"),
        ('{"region":"a","weather":"rain","from":"2026-01-01T00:00:00Z","temperature_c":400}', "temperature_c"),
        ('{"region":"a","weather":"rain","from":"2026-01-01T00:00:00Z","wind":1}', "wind"),
        ("nonsense", "malformed"),
    ],
)
def test_a_bad_line_is_named_and_the_others_come_in(tmp_path: Path, line: str, complaint: str) -> None:
    good = '{"region":"fr-75","from":"2026-01-01T00:10:00Z","weather":"rain","temperature_c":7.5}'
    (tmp_path / "file").write_text(f"{good}\n{line}\n{good}\n")
    read = list(read_weather_file(tmp_path / "file"))
    assert [hour for _number, hour in read if isinstance(hour, WeatherHour)] == [GOOD, GOOD]
    [(number, message)] = [one for one in read if isinstance(one[1], str)]
    assert number == 2
    assert complaint in str(message)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("fr-75,2026-01-01T00:10:00Z", "columns"),
        ("fr-75,yesterday,rain", "RFC3339"),
        ("fr-75,2026-01-01T00:10:00Z,", "weather"),
    ],
)
def test_a_bad_row_of_a_table_is_named_too(tmp_path: Path, row: str, complaint: str) -> None:
    (tmp_path / "file").write_text(f"region,from,weather\n{row}\nfr-75,2026-01-01T00:10:00Z,rain\n")
    (number, message), (_, good) = read_weather_file(tmp_path / "file")
    assert number == 2
    assert complaint in str(message)
    assert isinstance(good, WeatherHour)
