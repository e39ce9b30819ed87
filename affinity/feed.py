"""Reads a catalogue feed: Google Merchant Center's TSV, XML (RSS or Atom) or its names as JSON lines.

Good lines become products, bad ones say what is wrong with them and where; nothing is written. Prices become micros
exactly. Any column that is none of ours is kept as a custom attribute, whose type is that of all its values.
"""

import csv
import gzip
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

import msgspec
from msgspec import Struct

from affinity.catalog import CATEGORY_SEPARATOR, Attribute, AttributeType, Product
from affinity.errors import FeedRefused

CONTINUED_LINE_COUNT_MAX = 50  # a quoted field may hold so many line breaks
CHUNK_BYTES = 1 << 20
INT_MAX = 2**53
MICROS = 1_000_000

Row = dict[str, Any]  # column name to text, or to what JSON had


class BadLine(Struct, frozen=True):
    """A line of a feed that could not be read, and why."""

    line_number: int
    message: str


class _Bad(ValueError):  # a line is bad, nothing failed
    """A value does not fit its column."""


def read_feed(
    path: Path,
    attribute_types: Mapping[str, AttributeType] | None = None,
    currency: str | None = None,
) -> Iterator[Product | BadLine]:
    """Yield the products of a feed in its order, and its bad lines where they stand.

    Args:
        path: TSV, XML or JSONL, perhaps with gzip; told apart by how they begin.
        attribute_types: types of custom attributes that earlier feeds fixed; other columns get the narrowest type all
            their values fit.
        currency: ISO 4217; a price that names another is a bad line. None takes any.

    Raises:
        FeedRefused: the file has no header or first element that could be read.
    """
    for _, product in read_feed_lines(path, attribute_types, currency):
        yield product


def read_feed_lines(
    path: Path,
    attribute_types: Mapping[str, AttributeType] | None = None,
    currency: str | None = None,
) -> Iterator[tuple[int, Product | BadLine]]:
    """Yield what `read_feed` does, each with the number of its line.

    Raises:
        FeedRefused: the file has no header or first element that could be read.
    """
    types = infer_types(path, attribute_types or {})
    for line_number, row in _rows(path):
        if isinstance(row, BadLine):
            yield line_number, row
            continue
        try:
            yield line_number, _product(row, types, currency)
        except (_Bad, msgspec.ValidationError) as refusal:
            yield line_number, BadLine(line_number, _plain(str(refusal)))


def infer_types(path: Path, known: Mapping[str, AttributeType]) -> dict[str, AttributeType]:
    """Return the narrowest type that fits all values of each custom column; the known types as they are.

    Raises:
        FeedRefused: the file has no header or first element that could be read.
    """
    seen: dict[str, set[AttributeType]] = {}
    for _, row in _rows(path):
        if isinstance(row, BadLine):
            continue
        for name, value in row.items():
            if name not in _FIELDS and name not in known:
                kinds = seen.setdefault(name, set())
                if "str" not in kinds:
                    kinds.add(_kind(value))
    return {name: _narrowest(kinds) for name, kinds in seen.items()} | dict(known)


def parse_price(text: object, currency: str | None = None) -> int:
    """Return a price in micros, exactly.

    >>> parse_price("19.99 USD")
    19990000

    Raises:
        ValueError: it is no price, of another currency, or finer than a micro.
    """
    return _price(str(text), currency)


@lru_cache(maxsize=65_536)
def _price(text: str, currency: str | None) -> int:
    found = _PRICE.fullmatch(text)
    if found is None:
        raise _Bad(f"a price is written like 19.99 USD, was {text[:64]!r}")
    named = found["before"] or found["after"]
    if currency is not None and named is not None and named != currency:
        raise _Bad(f"a price must be in {currency}, was {text[:64]!r}")
    micros = Decimal(found["amount"]) * MICROS
    if micros != micros.to_integral_value():
        raise _Bad(f"a price has at most 6 decimals, was {text[:64]!r}")
    return int(micros)


_PRICE = re.compile(
    r"\s*(?:(?P<before>[A-Z]{3})\s*)?(?P<amount>[0-9]{1,15}(?:\.[0-9]{1,12})?)(?:\s*(?P<after>[A-Z]{3}))?\s*"
)
_WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,15})")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{0,18})?(?:[eE][+-]?[0-9]{1,2})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9:.]{5,15}(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?")
_LIST = re.compile(r"[,;|]")
_ARROW = re.compile(r"\s*>\s*")
_NAME = re.compile(r"[^a-z0-9]+")
_ATTRIBUTE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


# --- values ------------------------------------------------------------------------------------------------------


def _text(value: Any, _currency: str | None) -> str:
    if isinstance(value, (str, int, Decimal)) and not isinstance(value, bool):
        return str(value)
    raise _Bad(f"must be text, was {_shown(value)}")


def _any_price(value: Any, currency: str | None) -> int:
    if isinstance(value, dict) and "value" in value:
        return _price(f"{value['value']} {value.get('currency') or ''}", currency)
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise _Bad(f"a price is written like 19.99 USD, was {_shown(value)}")
    return _price(f"{value:f}" if isinstance(value, Decimal) else str(value), currency)


def _availability(value: Any, _currency: str | None) -> str:
    return _NAME.sub(
        "_", str(value).strip().lower().replace("pre-order", "preorder").replace("back-order", "backorder")
    )


@lru_cache(maxsize=65_536)
def _category(text: str) -> str:
    return _ARROW.sub(CATEGORY_SEPARATOR, text.strip())


def _product_type(value: Any, _currency: str | None) -> str:
    return _category(str(value[0] if isinstance(value, list) and value else value))


def _ratio(value: Any, _currency: str | None) -> float:
    text = str(value).strip()
    if text.endswith("%") and _NUMBER.fullmatch(text[:-1]):
        return float(Decimal(text[:-1]) / 100)
    return _number(value, _currency)


def _number(value: Any, _currency: str | None) -> float:
    if isinstance(value, bool) or not _NUMBER.fullmatch(str(value).strip()):
        raise _Bad(f"must be a number, was {_shown(value)}")
    return float(value)


def _whole(value: Any, _currency: str | None) -> int:
    if isinstance(value, bool) or not _WHOLE.fullmatch(str(value).strip()):
        raise _Bad(f"must be a whole number, was {_shown(value)}")
    return int(value)


def _yes_or_no(value: Any, _currency: str | None) -> bool:
    known = _BOOLEANS.get(str(value).strip().lower())
    if known is None:
        raise _Bad(f"must be true or false, was {_shown(value)}")
    return known


def _ids(value: Any, _currency: str | None) -> list[str]:
    parts = value if isinstance(value, list) else _LIST.split(str(value))
    return list(dict.fromkeys(part for one in parts if (part := str(one).strip())))


def _day(value: Any, _currency: str | None) -> str:
    text = str(value).strip()
    if not _DATE.fullmatch(text):
        raise _Bad(f"must be a date like 2026-11-23, was {_shown(value)}")
    return text


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_FIELDS: dict[str, tuple[str, Callable[[Any, str | None], Any]]] = {
    "id": ("product_id", _text),
    "product_id": ("product_id", _text),
    "title": ("title", _text),
    "link": ("link", _text),
    "image_link": ("image_link", _text),
    "price": ("price_micros", _any_price),
    "sale_price": ("sale_price_micros", _any_price),
    "availability": ("availability", _availability),
    "brand": ("brand", _text),
    "gtin": ("gtin", _text),
    "product_type": ("product_type", _product_type),
    "margin_rate": ("margin_rate", _ratio),
    "stock": ("stock", _whole),
    "is_own_brand": ("is_own_brand", _yes_or_no),
    "launched_at": ("launched_at", _day),
    "advertiser_ids": ("advertiser_ids", _ids),
    "image_count": ("image_count", _whole),
    "rating": ("rating", _number),
    "relevance": ("relevance", _ratio),
}


def _product(row: Row, types: Mapping[str, AttributeType], currency: str | None) -> Product:
    fields: dict[str, Any] = {}
    attributes: dict[str, Attribute] = {}
    for name, value in row.items():
        known = _FIELDS.get(name)
        try:
            if known is not None:
                fields[known[0]] = known[1](value, currency)
            elif _ATTRIBUTE_NAME.fullmatch(name):
                attributes[name] = _attribute(value, types[name])
            else:
                raise _Bad("a custom column's name begins with a letter a to z and has at most 64")
        except _Bad as refusal:
            raise _Bad(f"{name}: {refusal}") from None
    if "product_id" not in fields:
        raise _Bad("id: every product needs one")
    if attributes:
        fields["attributes"] = attributes
    return msgspec.convert(fields, Product)


def _attribute(value: Any, kind: AttributeType) -> Attribute:
    if kind == "str":
        return str(value)
    if kind == "bool":
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
    elif kind == "int" and _kind(value) == "int":
        return int(value)
    elif kind == "float" and _kind(value) in ("int", "float"):
        return float(value)
    raise _Bad(f"must be {kind}, as in the first feed that had it, was {_shown(value)}")


def _kind(value: Any) -> AttributeType:
    if isinstance(value, bool):
        return "bool"
    return _kind_of(str(value))


@lru_cache(maxsize=65_536)
def _kind_of(text: str) -> AttributeType:
    text = text.strip()
    if text.lower() in ("true", "false"):
        return "bool"
    if _WHOLE.fullmatch(text) and abs(int(text)) <= INT_MAX:
        return "int"
    if _NUMBER.fullmatch(text) and not (len(text) > 1 and text[0] == "0" and text[1].isdigit()):
        return "float"
    return "str"


def _narrowest(kinds: set[AttributeType]) -> AttributeType:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "float" if kinds == {"int", "float"} else "str"


def _shown(value: Any) -> str:
    return repr(value if not isinstance(value, Decimal) else str(value))[:80]


def _plain(message: str) -> str:
    """Name the feed's column instead of a path into our structs."""
    found = _AT_FIELD.search(message)
    if found is None:
        return message
    column = next((name for name, (field, _) in _FIELDS.items() if field == found["field"]), found["field"])
    return f"{column}: {message[: found.start()]}"


_AT_FIELD = re.compile(r" - at `\$\.(?P<field>\w+)[^`]*`$")


# --- lines -------------------------------------------------------------------------------------------------------


def open_feed(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked where it is gzip."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    # Both are read alike, line by line or in blocks, whatever typeshed calls them.
    return gzip.open(path, "rb") if is_gzip else path.open("rb")  # type: ignore[return-value]


def _rows(path: Path) -> Iterator[tuple[int, Row | BadLine]]:
    with open_feed(path) as file:
        beginning = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not beginning:
        raise FeedRefused(f"{path.name} is empty")
    with open_feed(path) as file:
        if beginning[:1] == b"<":
            yield from _xml_rows(file)
        elif beginning[:1] == b"{":
            yield from _json_rows(file)
        else:
            yield from _tsv_rows(file, path.name)


def _column(name: str) -> str:
    return _NAME.sub("_", name.strip().lower().removeprefix("g:")).strip("_")


def _json_rows(file: IO[bytes]) -> Iterator[tuple[int, Row | BadLine]]:
    decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
    for line_number, raw in enumerate(file, 1):
        raw = raw.removeprefix(b"\xef\xbb\xbf") if line_number == 1 else raw
        if not raw.strip():
            continue
        try:
            given = decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as refusal:
            yield line_number, BadLine(line_number, str(refusal))
            continue
        row: Row = {}
        for name, value in given.items():
            if name == "attributes" and isinstance(value, dict):
                row.update((_column(inner), deep) for inner, deep in value.items() if deep is not None)
            elif value is not None:
                row[_column(name)] = value
        bad = next(
            (name for name, value in row.items() if name not in _FIELDS and isinstance(value, (list, dict))), None
        )
        if bad is not None:
            yield line_number, BadLine(line_number, f"{bad}: must be true or false, a number or text")
        else:
            yield line_number, row


def _tsv_rows(file: IO[bytes], file_name: str) -> Iterator[tuple[int, Row | BadLine]]:
    lines = enumerate(file, 1)
    header_line = next(lines)[1].removeprefix(b"\xef\xbb\xbf")
    try:
        columns = [_column(name) for name in _fields(header_line.decode())]
    except UnicodeDecodeError as refusal:
        raise FeedRefused(f"the header of {file_name} must be UTF-8") from refusal
    if not {"id", "product_id"} & set(columns):
        raise FeedRefused(f"{file_name} must begin with a header line of tab-separated names, id among them")
    for line_number, raw in lines:
        try:
            line = raw.decode()
            if '"' in line and (line.startswith('"') or '\t"' in line):
                line = _continue(line, lines)
        except UnicodeDecodeError as refusal:
            yield line_number, BadLine(line_number, f"text must be UTF-8, byte {refusal.start} is not")
            continue
        if not line.strip("\t\r\n "):
            continue
        fields = _fields(line)
        if len(fields) > len(columns):
            message = f"the header has {len(columns)} columns, this line {len(fields)}"
            yield line_number, BadLine(line_number, message)
            continue
        row: Row = {}
        for name, field in zip(columns, fields, strict=False):
            value = field.strip()
            if value and name:
                row[name] = value
        yield line_number, row


def _fields(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    if '"' not in line:
        return line.split("\t")
    try:
        return next(csv.reader([line], delimiter="\t", strict=True), [])
    except csv.Error:  # quotes that quote nothing
        return line.split("\t")


def _continue(line: str, lines: Iterator[tuple[int, bytes]]) -> str:
    """Return the whole of a line whose quoted field goes on over line breaks."""
    if line.count('"') % 2 == 0:
        return line
    parts = [line]
    for _ in range(CONTINUED_LINE_COUNT_MAX):
        following = next(lines, None)
        if following is None:
            break
        parts.append(following[1].decode())
        if parts[-1].count('"') % 2:
            break
    return "".join(parts)


class _XmlReader:
    """Collects the items of an RSS or Atom feed."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.rows: list[tuple[int, Row | BadLine]] = []
        self._row: Row | None = None
        self._line_number = 0
        self._depth = 0
        self._text: list[str] = []
        self._google: set[str] = set()  # columns of the item that came under Google's own names

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._row is None:
            if name.rpartition(" ")[2] in ("item", "entry"):
                self._row, self._depth, self._line_number = {}, 0, self.parser.CurrentLineNumber
                self._google.clear()
            return
        self._depth += 1
        self._text.clear()
        if self._depth == 1 and name.endswith(" link") and "href" in attributes:  # Atom's own
            self._row.setdefault("link", attributes["href"])

    def _characters(self, text: str) -> None:
        if self._row is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        if self._row is None:
            return
        if self._depth == 0:
            self.rows.append((self._line_number, self._row))
            self._row = None
            return
        self._depth -= 1
        if self._depth:
            self._text.clear()  # inside a group such as g:shipping
            return
        namespace, _, local = name.rpartition(" ")
        text, column = "".join(self._text).strip(), _column(local)
        self._text.clear()
        if not text:
            return
        if namespace == _GOOGLE and column not in self._google:
            self._google.add(column)
            self._row[column] = text
        else:
            self._row.setdefault(column, text)

    def _doctype(self, *_: object) -> None:
        raise FeedRefused("a feed must not declare a document type")


_GOOGLE = "http://base.google.com/ns/1.0"


def _xml_rows(file: IO[bytes]) -> Iterator[tuple[int, Row | BadLine]]:
    reader = _XmlReader()
    while True:
        chunk = file.read(CHUNK_BYTES)
        try:
            reader.parser.Parse(chunk, not chunk)
        except expat.ExpatError as refusal:
            yield from reader.rows
            yield refusal.lineno, BadLine(refusal.lineno, f"not well-formed XML from here on: {refusal}")
            return
        yield from reader.rows
        reader.rows.clear()
        if not chunk:
            return
