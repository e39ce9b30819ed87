"""Money, numbers and times as a language writes them. Money is exact: micros become decimals, never floats."""

import re
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_datetime, format_skeleton
from babel.numbers import NumberFormatError, format_currency, format_decimal, format_percent, parse_decimal

MICROS = 1_000_000
TYPED_LENGTH_MAX = 40
FIGURE_COUNT_MAX = 10_000  # kept as written: a table says the same of many rows, and is looked at again
_AMOUNT = re.compile(r"[-+]?[0-9][0-9.,\s]*")  # digits and marks: no exponents, nor names of numbers
_LOCALES = {"en": "en_US", "fr": "fr_FR"}


class Formats:
    """How a language writes, in the deployment's currency and the retailer's time zone."""

    def __init__(self, language: str, currency: str, time_zone: str) -> None:
        self._locale = Locale.parse(_LOCALES[language])  # parsed once: a page formats hundreds of figures
        symbols = self._locale.number_symbols["latn"]
        self._decimal_mark, self._group_mark = symbols["decimal"], symbols["group"]
        self._currency = currency
        self._zone = ZoneInfo(time_zone)
        self._percent = "0.0%" if language == "en" else "0.0\u202f%"
        self._whole_percent = "0%" if language == "en" else "0\u202f%"

    def money(self, micros: int) -> str:
        r"""Return an amount rounded to the currency's own digits.

        >>> Formats("en", "EUR", "UTC").money(1_234_567_890), Formats("fr", "EUR", "UTC").money(-500_000)
        ('€1,234.57', '-0,50\xa0€')
        """
        return _money(micros, self._currency, self._locale)

    def exact_money(self, micros: int) -> str:
        """Return an amount to the micro, with the currency's code.

        >>> Formats("fr", "EUR", "UTC").exact_money(-1_234_567)
        '-1,234567 EUR'
        """
        whole, rest = divmod(abs(micros), MICROS)
        return f"{'-' if micros < 0 else ''}{whole}{self._decimal_mark}{rest:06} {self._currency}"

    def typed_money(self, micros: int) -> str:
        """Return an amount as one would type it: exact, and `parse_money` reads it back.

        >>> Formats("fr", "EUR", "UTC").typed_money(25_500_000), Formats("en", "EUR", "UTC").typed_money(1_000_000_001)
        ('25,50', '1000.000001')
        """
        return str(format_decimal(Decimal(micros) / MICROS, "0.00####", locale=self._locale))

    def parse_money(self, typed: str) -> int:
        """Return the micros of an amount as the language writes it.

        Raises:
            ValueError: `amount_unreadable`, or `amount_too_fine` for more than six decimals.
        """
        typed = typed.strip()
        if len(typed) > TYPED_LENGTH_MAX or not _AMOUNT.fullmatch(typed):
            raise ValueError("amount_unreadable")
        if self._group_mark.isspace():
            typed = re.sub(r"\s", self._group_mark, typed)
        try:
            amount = parse_decimal(typed, locale=self._locale, strict=True)
        except NumberFormatError:
            raise ValueError("amount_unreadable") from None
        micros = amount * MICROS
        if micros != micros.to_integral_value():
            raise ValueError("amount_too_fine")
        return int(micros)

    def number(self, number: int | Decimal) -> str:
        """Return a number with its groups."""
        return _number(number, self._locale)

    def ratio(self, part: int, whole: int) -> str:
        """Return how many times a whole is in a part, to a hundredth; a dash over nothing."""
        if whole <= 0:
            return "–"
        return str(format_decimal(Decimal(part) / Decimal(whole), "#,##0.00", locale=self._locale))

    def percent(self, part: int, whole: int, *, digits: int = 1) -> str:
        """Return a share as a percentage; a dash over nothing."""
        if whole <= 0:
            return "–"
        pattern = self._percent if digits else self._whole_percent
        if digits == 2:
            pattern = pattern.replace("0.0", "0.00")
        return str(format_percent(Decimal(part) / Decimal(whole), pattern, locale=self._locale))

    def change(self, now: Decimal | None, before: Decimal | None) -> str:
        """Return by how much something changed, signed; empty where there was nothing to change from."""
        if now is None or before is None or before == 0:
            return ""
        change = (now - before) / abs(before)
        sign = "+" if change > 0 else ""
        return sign + str(format_percent(change, self._whole_percent, locale=self._locale))

    def day(self, day: date) -> str:
        """Return a day, in few letters."""
        return str(format_skeleton("MMMd", day, locale=self._locale))

    def long_day(self, day: date) -> str:
        """Return a day with its year."""
        return str(format_date(day, "medium", locale=self._locale))

    def hour(self, at: datetime) -> str:
        """Return the hour of a moment in the retailer's time zone."""
        return f"{at.astimezone(self._zone):%H:%M}"

    def moment(self, at: datetime) -> str:
        """Return a moment in the retailer's time zone."""
        return str(format_datetime(at.astimezone(self._zone), "short", locale=self._locale))


@lru_cache(maxsize=FIGURE_COUNT_MAX)
def _money(micros: int, currency: str, locale: Locale) -> str:
    return str(format_currency(Decimal(micros) / MICROS, currency, locale=locale))


@lru_cache(maxsize=FIGURE_COUNT_MAX)
def _number(number: int | Decimal, locale: Locale) -> str:
    return str(format_decimal(number, locale=locale))
