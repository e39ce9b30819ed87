"""Other programs can read the books, and find them in balance by themselves."""

import csv
import io
import shutil
import subprocess
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest

from ledger.audit import VIEWS
from ledger.command import Reverse
from ledger.export import FEC_COLUMNS, export_csv, export_fec, export_hledger
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
    count = books.database.read(lambda c: export_csv(c, out, view))
    header, *rows = csv.reader(io.StringIO(out.getvalue()))
    assert tuple(header) == VIEWS[view]
    assert len(rows) == count == books.one(f"SELECT COUNT(*) FROM {view}")
    assert all(len(row) == len(header) for row in rows)


def test_no_cell_of_a_csv_is_run_as_a_formula(world: World) -> None:
    world.fund("adv-1", 10)
    world.writer.command(Reverse("txn_1", "=cmd|' /C calc'!A0"))
    out = io.StringIO()
    world.database.read(lambda c: export_csv(c, out))
    assert "'=cmd" in out.getvalue()
    assert ",=cmd" not in out.getvalue()
