"""Other programs can read the books, and find them in balance by themselves."""

import csv
import io
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec import Struct

from ledger.audit import VIEWS, read_view
from ledger.command import Reverse
from ledger.errors import FormatMissing, LedgerBroken
from ledger.export import FEC_COLUMNS, export_csv, export_fec, export_hledger, export_parquet, export_xlsx
from ledger.reports import trial_balance
from ledger.table_file import Column, Table, asked_format, columns_of, write_parquet, write_rows, write_xlsx
from tests.ledger.world import RETAILER, World

AWKWARD = "adv; a|b  ünï=(x)"


@pytest.fixture
def books(world: World) -> World:
    world.fund("adv-1", 1_000_003)
    world.fund(AWKWARD, 2_000_029, "promotional-credit")
    world.credit(AWKWARD, 10**9)
    for price in (1, 999_983, 123_457, 10**6):
        world.click(world.fill(price))
        world.click(world.fill(price + 1, advertiser_id=AWKWARD, campaign_id="cmp-2"))
    world.writer.command(Reverse("txn_5", "robot; found | later"))
    return world


def written(books: World) -> str:
    out = io.StringIO()
    count = books.database.read(lambda c: export_hledger(c, RETAILER, out))
    assert count == books.one("SELECT COUNT(DISTINCT transaction_id) FROM audit_entry")
    return out.getvalue()


def test_the_hledger_journal_balances_and_gives_the_balances_of_the_books(books: World) -> None:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    declared = set()
    for block in written(books).split("\n\n"):
        total = Decimal(0)
        for line in block.splitlines():
            if line.startswith("account "):
                declared.add(line.split()[1])
            elif line.startswith("    "):
                account, amount, currency = line.split()
                assert currency == "EUR"
                total += Decimal(amount)
                sums[account] += Decimal(amount)
        assert total == 0
    assert set(sums) == declared
    kept = {str(account): micros for account, micros in books.balances().items()}
    assert sums["cash"] == Decimal(1_000_003) / 10**6
    assert sorted(sums.values()) == sorted(Decimal(str(micros)) / 10**6 for micros in kept.values())


@pytest.mark.skipif(shutil.which("hledger") is None, reason="hledger is not installed: no outside program checked this")
def test_hledger_itself_finds_nothing_wrong(books: World, tmp_path: Path) -> None:
    (tmp_path / "books.journal").write_text(written(books))
    subprocess.run(["hledger", "-f", tmp_path / "books.journal", "check", "accounts", "commodities"], check=True)


def test_the_tax_offices_file_has_its_columns_balances_and_numbers_without_gaps(books: World) -> None:
    out = io.StringIO()
    count = books.database.read(lambda c: export_fec(c, RETAILER, "Europe/Paris", out))
    header, *lines = out.getvalue().splitlines()
    assert header.split("\t") == list(FEC_COLUMNS)
    assert len(FEC_COLUMNS) == 18
    rows = [dict(zip(FEC_COLUMNS, line.split("\t"), strict=True)) for line in lines]
    assert len(rows) == books.one("SELECT COUNT(*) FROM audit_entry")
    assert list(dict.fromkeys(int(row["EcritureNum"]) for row in rows)) == list(range(1, count + 1))
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        debit, credit = (Decimal(row[side].replace(",", ".")) for side in ("Debit", "Credit"))
        assert min(debit, credit) == 0 < max(debit, credit)
        sums[row["EcritureNum"]] += debit - credit
        assert row["EcritureDate"] == "20261124"
        assert row["CompteNum"].isdigit()
        assert "|" not in row["EcritureLib"] + row["CompAuxNum"]
    assert set(sums.values()) == {Decimal(0)}
    assert {row["JournalCode"] for row in rows} == {"BQ", "VE", "OD"}


def test_every_account_of_the_chart_has_a_number_at_the_tax_office() -> None:
    from ledger import chart, export

    own = {value for value in vars(chart).values() if isinstance(value, str) and ":" in value and "\n" not in value}
    families = set(chart._KIND_BY_FAMILY) - {"revenue", "expense"}
    assert {one for one in own if one.startswith(("revenue:", "expense:"))} | families == set(export._FEC_ACCOUNTS)


@pytest.mark.parametrize("view", VIEWS)
def test_a_csv_holds_every_row_of_its_view(books: World, view: str) -> None:
    out = io.StringIO()
    count = books.database.read(lambda c: export_csv(c, RETAILER, out, view))
    header, *rows = csv.reader(io.StringIO(out.getvalue()))
    assert tuple(header) == VIEWS[view]
    assert len(rows) == count == books.one(f"SELECT COUNT(*) FROM {view}")
    assert all(len(row) == len(header) for row in rows)


def test_no_cell_of_a_csv_is_run_as_a_formula(world: World) -> None:
    world.fund("adv-1", 10)
    world.writer.command(Reverse("txn_1", "=cmd|' /C calc'!A0"))
    out = io.StringIO()
    world.database.read(lambda c: export_csv(c, RETAILER, out))
    assert "'=cmd" in out.getvalue()
    assert ",=cmd" not in out.getvalue()


# --- Parquet and XLSX, read back by other programs than those that wrote them


def exported(books: World, kind: str, folder: Path, views: list[str]) -> Path:
    path = folder / f"books.{kind}"
    with path.open("wb") as out:
        if kind == "parquet":
            count = books.database.read(lambda c: export_parquet(c, RETAILER, out, "EUR", views[0]))
        else:
            count = books.database.read(lambda c: export_xlsx(c, RETAILER, out, views))
    assert count == sum(int(str(books.one(f"SELECT COUNT(*) FROM {view}"))) for view in views)
    return path


def trial(books: World) -> dict[str, int]:
    found = books.database.read(lambda c: trial_balance(c, RETAILER))
    assert found.difference_micros == 0
    return {line.account: line.debit_micros - line.credit_micros for line in found.accounts}


def asked_of_duckdb(sql: str) -> list[tuple[object, ...]]:
    """Return what DuckDB answers, which fetches no extension from anywhere: its reader of Parquet is built in."""
    import duckdb

    off = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    with duckdb.connect(config=off) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found: list[tuple[object, ...]] = connection.sql(sql).fetchall()
    return found


def test_a_parquet_of_the_journal_adds_up_to_the_trial_balance_to_the_micro(books: World, tmp_path: Path) -> None:
    path = exported(books, "parquet", tmp_path, ["audit_entry"])
    sums = asked_of_duckdb(f"SELECT account, SUM(amount_micros)::BIGINT FROM '{path}' GROUP BY account")
    assert dict(sums) == trial(books)
    assert len(sums) > 4


@pytest.mark.parametrize("view", VIEWS)
def test_a_parquet_holds_every_row_of_its_view_as_it_is(books: World, view: str, tmp_path: Path) -> None:
    path = exported(books, "parquet", tmp_path, [view])
    moments = [name for name in VIEWS[view] if name.endswith("_at")]
    shown = ", ".join(f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%gZ')" if name in moments else name for name in VIEWS[view])
    kept = books.database.read(lambda c: [tuple(row) for row in read_view(c, view)])
    read = asked_of_duckdb(f"SELECT {shown} FROM '{path}'")
    assert sorted(read, key=repr) == sorted(kept, key=repr)
    if view in ("audit_entry", "audit_chain"):
        assert read == kept, "in the order of the books"
    types = {name: kind for name, kind, *_ in asked_of_duckdb(f"DESCRIBE SELECT * FROM '{path}'")}
    for name in VIEWS[view]:
        if name.endswith("_micros"):
            assert types[name] == "BIGINT", "money is never a float"
        elif name in moments:
            assert types[name] == "TIMESTAMP WITH TIME ZONE"
        elif name.endswith("_id"):
            assert types[name] == "VARCHAR"


def rows_of_sheet(path: Path, sheet: str) -> list[dict[str, Any]]:
    from openpyxl import load_workbook

    head, *rows = load_workbook(path)[sheet].iter_rows(values_only=True)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_a_workbook_of_the_journal_adds_up_to_the_trial_balance_to_the_micro(books: World, tmp_path: Path) -> None:
    path = exported(books, "xlsx", tmp_path, ["audit_entry", "audit_balance"])
    micros: dict[str, int] = defaultdict(int)
    currency: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows_of_sheet(path, "audit_entry"):
        assert isinstance(row["amount_micros"], int)
        micros[row["account"]] += row["amount_micros"]
        currency[row["account"]] += Decimal(str(row["amount"]))
        assert row["recorded_at"].isoformat() == "2026-11-24T12:00:00", "UTC, as the cell says"
    assert micros == trial(books)
    assert {account: int(amount * 10**6) for account, amount in currency.items()} == trial(books)
    assert {row["account"]: row["posted_micros"] for row in rows_of_sheet(path, "audit_balance")} == trial(books)


def test_a_workbook_has_a_head_that_stays_and_columns_one_can_read(books: World, tmp_path: Path) -> None:
    from openpyxl import load_workbook

    workbook = load_workbook(exported(books, "xlsx", tmp_path, ["audit_entry", "audit_event"]))
    assert workbook.sheetnames == ["audit_entry", "audit_event"]
    for sheet in workbook:
        assert sheet.freeze_panes == "A2"
        widths = [sheet.column_dimensions[cell.column_letter].width for cell in sheet[1]]
        assert all(width >= len(str(cell.value)) for width, cell in zip(widths, sheet[1], strict=True))
        assert all(cell.font.b for cell in sheet[1])


FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", '=HYPERLINK("http://x")', "{=1}", "http://x"]


def test_no_cell_of_a_workbook_is_a_formula_or_a_link(tmp_path: Path) -> None:
    path = tmp_path / "cells.xlsx"
    table = Table("cells", [Column("text", "text")], [(one,) for one in FORMULAS])
    with path.open("wb") as out:
        write_xlsx(out, [table])
    from openpyxl import load_workbook

    sheet = load_workbook(path)["cells"]
    cells = [row[0] for row in sheet.iter_rows(min_row=2)]
    assert [cell.value for cell in cells] == FORMULAS
    for cell in cells:
        assert cell.data_type in ("s", "inlineStr")
        assert cell.hyperlink is None
        assert cell.quotePrefix == str(cell.value).startswith(("=", "+", "-", "@", "\t")), "nor once it is edited"
    assert "<f>" not in zipfile.ZipFile(path).read("xl/worksheets/sheet1.xml").decode()


def test_an_amount_with_more_digits_than_excel_keeps_is_text(tmp_path: Path) -> None:
    amounts = [0, 1, -1, 10**15 - 1, 10**15, -(10**15) - 1, 9_007_199_254_740_993, 123_456_789_012_345]
    path = tmp_path / "amounts.xlsx"
    with path.open("wb") as out:
        write_xlsx(out, [Table("amounts", [Column("amount_micros", "micros")], [(one,) for one in amounts])])
    rows = rows_of_sheet(path, "amounts")
    assert [int(row["amount_micros"]) for row in rows] == amounts
    assert [int(Decimal(str(row["amount"])) * 10**6) for row in rows] == amounts
    for row, micros in zip(rows, amounts, strict=True):
        assert isinstance(row["amount_micros"], str) == isinstance(row["amount"], str) == (abs(micros) >= 10**15)


def test_what_does_not_fit_a_sheet_goes_on_in_another(tmp_path: Path) -> None:
    path = tmp_path / "many.xlsx"
    with path.open("wb") as out:
        count = write_xlsx(out, [Table("n", [Column("n", "whole")], [(one,) for one in range(25)])], 11)
    assert count == 25
    assert [row["n"] for sheet in ("n", "n 2", "n 3") for row in rows_of_sheet(path, sheet)] == list(range(25))
    with path.open("wb") as out, pytest.raises(LedgerBroken, match="whole"):
        write_xlsx(out, [Table("long", [Column("text", "text")], [("x" * 40_000,)])])


@pytest.mark.parametrize("view", ["audit_event", "audit_entry", "audit_commission", "audit_chain"])
def test_no_long_view_is_sorted_in_memory(sqlite_world: World, view: str) -> None:
    asked: list[tuple[str, Any]] = []

    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    engine = sqlite_world.database.engine
    sa.event.listen(engine, "before_cursor_execute", hear)
    sqlite_world.database.read(lambda c: export_csv(c, RETAILER, io.StringIO(), view))
    sa.event.remove(engine, "before_cursor_execute", hear)
    with engine.connect() as connection:
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {one}", given).all() for one, given in asked]
    assert plans
    assert "TEMP B-TREE" not in str(plans)


@pytest.mark.parametrize("kind", ["parquet", "xlsx"])
def test_memory_does_not_grow_with_the_rows(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow

    monkeypatch.setattr("ledger.table_file.CHUNK_ROW_COUNT", 500)
    columns = [Column("account", "text"), Column("amount_micros", "micros"), Column("recorded_at", "moment")]

    def peak(row_count: int) -> int:
        rows = ((f"wallet:{n}", n * 7919, "2026-11-24T12:00:00.007Z") for n in range(row_count))
        pool = pyarrow.default_memory_pool()
        before = pool.bytes_allocated()
        tracemalloc.start()
        with (tmp_path / "out").open("wb") as out:
            table = Table("n", columns, rows)
            count = write_parquet(out, table, "EUR") if kind == "parquet" else write_xlsx(out, [table])
        assert count == row_count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most + pool.bytes_allocated() - before

    peak(100)  # what is loaded once
    assert peak(16_000) < 1.5 * peak(2_000) + 200_000


class Counted(Struct):
    name: str
    counts: dict[str, int]
    total: int | None


def test_a_table_within_a_row_is_json_in_every_format(tmp_path: Path) -> None:
    import duckdb
    import openpyxl

    columns = columns_of(Counted)
    assert [column.kind for column in columns] == ["text", "text", "whole"]
    rows = [("a", {"flood": 3}, 3), ("b", {}, None)]
    texts = {}
    for kind in ("csv", "parquet", "xlsx"):
        (tmp_path / kind).write_bytes(write_rows(kind, Table("n", columns, rows), "EUR"))
    with (tmp_path / "csv").open(newline="") as file:
        texts["csv"] = [row["counts"] for row in csv.DictReader(file)]
    texts["parquet"] = [
        counts for (counts,) in duckdb.sql(f"select counts from read_parquet('{tmp_path / 'parquet'}')").fetchall()
    ]
    sheet = openpyxl.load_workbook(io.BytesIO((tmp_path / "xlsx").read_bytes())).active
    assert sheet is not None
    texts["xlsx"] = [row[1] for row in sheet.iter_rows(min_row=2, values_only=True)]
    assert texts == {key: ['{"flood":3}', "{}"] for key in texts}


@pytest.mark.parametrize(
    ("kind", "module", "package"), [("parquet", "pyarrow", "pyarrow"), ("xlsx", "xlsxwriter", "XlsxWriter")]
)
def test_a_format_without_its_library_says_what_to_install(
    kind: Any, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(FormatMissing) as refused:
        write_rows(kind, Table("n", [Column("n", "whole")], []), "EUR")
    assert str(refused.value) == f"{kind} needs {package}, which is not installed: pip install 'endcap[export]'"
    assert write_rows("csv", Table("n", [Column("n", "whole")], [(1,)]), "EUR") == b"n\n1\n"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", None),
        ("*/*", None),
        ("application/json", None),
        ("text/csv", "csv"),
        ("application/vnd.apache.parquet;q=0.9, text/csv", "parquet"),
        ("text/html, application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
    ],
)
def test_the_format_is_what_accept_names_first(accept: str, kind: str | None) -> None:
    assert asked_format(accept) == kind
