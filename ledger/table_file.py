"""Tables as files for other programs: CSV, Parquet and XLSX, a row at a time, so that memory does not grow with them.

Amounts stay whole micros under the names they have everywhere. Parquet holds them as int64: prices are not whole cents,
so a decimal of the currency's scale would lose what micros keep, and whole numbers add up exactly in every reader. In
XLSX, a column in the currency itself stands beside each of them, to be read.

Ids are text, moments are UTC. pyarrow and XlsxWriter come with the extra `export` and are imported when asked for.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, BinaryIO, Literal, TextIO, get_args, get_origin

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from ledger.errors import FormatMissing, LedgerBroken

Format = Literal["csv", "parquet", "xlsx"]
Kind = Literal["text", "whole", "number", "micros", "moment"]
MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
MICROS = "_micros"
CHUNK_ROW_COUNT = 20_000  # rows of one group in Parquet, and all of them that are in memory
SHEET_ROW_COUNT_MAX = 1_048_576  # Excel's, the header among them
EXACT_MAX = 10**15  # Excel keeps 15 digits of a number; from here on it is written as text
FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r")
_WIDTHS: dict[Kind, int] = {"text": 24, "whole": 12, "number": 12, "micros": 20, "moment": 26}
_XLSX_KINDS = {"whole": "0", "number": "0.######", "micros": "#,##0", "moment": 'yyyy-mm-dd hh:mm:ss.000"Z"'}
_IN_CURRENCY = "#,##0.00####"


class Column(Struct, frozen=True):
    """A column by its name, and what is in it.

    Attributes:
        kind: `text` (anything else in it is written as JSON), `whole` numbers, `number`s, `micros` or `moment`s, as RFC
            3339 in UTC. Any may be None.
    """

    name: str
    kind: Kind


class Table(Struct, frozen=True):
    """Rows under a name, each with a value per column; the rows may be read once."""

    name: str
    columns: Sequence[Column]
    rows: Iterable[Sequence[Any]]


def columns_of(kind: type[Struct]) -> list[Column]:
    """Return the columns of a struct of flat values and tables, by its fields."""
    return [Column(one.name, _kind_of(one.name, one.type)) for one in fields(kind)]


def write_csv(out: TextIO, table: Table) -> int:
    """Write a line of column names and one per row; return the number of rows."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    count = 0
    for row in table.rows:
        writer.writerow([_harmless(value) for value in row])
        count += 1
    return count


def write_parquet(out: BinaryIO, table: Table, currency: str) -> int:
    """Write a Parquet file, the currency in its metadata; return the number of rows.

    Raises:
        FormatMissing: pyarrow is not installed.
    """
    arrow = _module("pyarrow", "parquet")
    parquet = _module("pyarrow.parquet", "parquet")
    moment = arrow.timestamp("ms", tz="UTC")
    types = {
        "text": arrow.string(),
        "whole": arrow.int64(),
        "number": arrow.float64(),
        "micros": arrow.int64(),
        "moment": moment,
    }
    schema = arrow.schema(
        [(column.name, types[column.kind]) for column in table.columns],
        metadata={"table": table.name, "currency": currency, "micros": "millionths of the currency"},
    )
    count = 0
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        rows = iter(table.rows)
        while chunk := list(islice(rows, CHUNK_ROW_COUNT)):
            columns = []
            for column, values in zip(table.columns, zip(*chunk, strict=True), strict=True):
                if column.kind == "moment":
                    columns.append(arrow.array(values, arrow.string()).cast(moment))
                else:
                    made = [None if one is None else _text(one) for one in values] if column.kind == "text" else values
                    columns.append(arrow.array(made, types[column.kind]))
            writer.write_batch(arrow.record_batch(columns, schema=schema))
            count += len(chunk)
    return count


def write_xlsx(out: BinaryIO, tables: Iterable[Table], sheet_row_count_max: int = SHEET_ROW_COUNT_MAX) -> int:
    """Write a workbook with one sheet per table, and a further one where a sheet is full; return the number of rows.

    Nobody's text is run as a formula, also when its cell is edited.

    Raises:
        FormatMissing: XlsxWriter is not installed.
    """
    xlsxwriter = _module("xlsxwriter", "xlsx")
    with TemporaryDirectory(prefix="endcap-") as folder:  # rows wait there, not in memory
        workbook = xlsxwriter.Workbook(out, {"constant_memory": True, "tmpdir": folder})
        try:
            count = _write_sheets(workbook, tables, sheet_row_count_max)
        except BaseException:
            workbook.fileclosed = 1  # what there is of it is thrown away, and nothing to warn of
            for sheet in workbook.worksheets():
                sheet.row_data_fh.close()
            raise
        workbook.close()
    return count


def write_rows(kind: Format, table: Table, currency: str) -> bytes:
    """Return a small table as a file of that format.

    Raises:
        FormatMissing: what writes the format is not installed.
    """
    if kind == "csv":
        text = io.StringIO()
        write_csv(text, table)
        return text.getvalue().encode()
    out = io.BytesIO()
    if kind == "parquet":
        write_parquet(out, table, currency)
    else:
        write_xlsx(out, [table])
    return out.getvalue()


def asked_format(accept: str) -> Format | None:
    """Return the first format an Accept header names, None where it names none of them."""
    known = {media.partition(";")[0]: kind for kind, media in MEDIA_TYPES.items()}
    asked = (one.partition(";")[0].strip().lower() for one in accept.split(","))
    return next((known[one] for one in asked if one in known), None)


def _kind_of(name: str, annotation: Any) -> Kind:
    if get_origin(annotation) is dict:
        return "text"
    some = {one for one in (annotation, *get_args(annotation)) if one is not type(None)}
    if int in some:
        return "micros" if name.endswith(MICROS) else "whole"
    if float in some:
        return "number"
    return "moment" if datetime in some else "text"


def _write_sheets(workbook: Any, tables: Iterable[Table], row_count_max: int) -> int:
    formats = {kind: workbook.add_format({"num_format": code}) for kind, code in _XLSX_KINDS.items()}
    formats["currency"] = workbook.add_format({"num_format": _IN_CURRENCY})
    formats["head"] = workbook.add_format({"bold": True})
    formats["quoted"] = workbook.add_format({"quote_prefix": True})
    count = 0
    for table in tables:
        rows, part, is_full = iter(table.rows), 0, True
        while is_full:
            part += 1
            sheet = workbook.add_worksheet(table.name if part == 1 else f"{table.name} {part}")
            written = _write_sheet(sheet, formats, table.columns, rows, row_count_max)
            count += written
            is_full = written == row_count_max - 1
    return count


def _write_sheet(
    sheet: Any, formats: dict[str, Any], columns: Sequence[Column], rows: Iterator[Sequence[Any]], row_count_max: int
) -> int:
    """Write a head that stays in sight and as many rows as there is room for; return how many there were."""
    sheet.freeze_panes(1, 0)
    heads = [head for column in columns for head in _heads(column)]
    for place, (head, kind) in enumerate(heads):
        sheet.set_column(place, place, max(_WIDTHS[kind], len(head) + 2))
        _done(sheet.write_string(0, place, head, formats["head"]))
    count = 0
    for row in islice(rows, row_count_max - 1):
        count += 1
        place = 0
        for column, value in zip(columns, row, strict=True):
            _write_cell(sheet, formats, count, place, column.kind, value)
            place += 1
            if column.kind == "micros":
                exact = None if value is None else Decimal(value).scaleb(-6)
                _write_cell(sheet, formats, count, place, "currency", exact)
                place += 1
    return count


def _heads(column: Column) -> list[tuple[str, Kind]]:
    """Return the heads of a column, and beside micros that of the same in the currency."""
    own = [(column.name, column.kind)]
    return [*own, (column.name.removesuffix(MICROS), column.kind)] if column.kind == "micros" else own


def _write_cell(sheet: Any, formats: dict[str, Any], row: int, place: int, kind: str, value: Any) -> None:
    if value is None:
        return
    if kind == "moment":
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        _done(sheet.write_datetime(row, place, at.replace(tzinfo=None), formats[kind]))
    elif kind == "text" or abs(value) >= (EXACT_MAX // 10**6 if kind == "currency" else EXACT_MAX):
        text = _text(value)
        is_marked = kind == "text" and text.startswith(FORMULA_MARKS)
        _done(sheet.write_string(row, place, text, formats["quoted"] if is_marked else None))
    else:
        _done(sheet.write_number(row, place, value, formats[kind]))


def _done(status: int) -> None:
    """Refuse what the library says it did not write, or not all of.

    Raises:
        LedgerBroken: a cell beyond the sheet, or a text over 32,767 characters.
    """
    if status:
        raise LedgerBroken(f"every cell must fit its sheet whole, XlsxWriter answered {status}")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | Decimal) else msgspec.json.encode(value).decode()


def _harmless(value: Any) -> Any:
    """Return text a spreadsheet will not run as a formula; a table within a row as JSON."""
    if isinstance(value, str) and value.startswith(FORMULA_MARKS):
        return "'" + value
    return _text(value) if isinstance(value, dict) else value


def _module(name: str, kind: str) -> ModuleType:
    """Return a library of the extra `export`.

    Raises:
        FormatMissing: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        package = {"pyarrow": "pyarrow", "xlsxwriter": "XlsxWriter"}[name.partition(".")[0]]
        raise FormatMissing(
            "format_not_installed", f"{kind} needs {package}, which is not installed: pip install 'endcap[export]'"
        ) from None
