"""The books for other programs: CSV of the audit views, and a journal that hledger reads and checks."""

import csv
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, TextIO

from sqlalchemy.engine import Connection

from ledger import store
from ledger.audit import VIEWS, read_view
from ledger.chart import AccountKind, account_kind

MICROS = 1_000_000
READ_COUNT = 4000
_KIND_CODES = {AccountKind.ASSET: "A", AccountKind.LIABILITY: "L", AccountKind.INCOME: "R", AccountKind.EXPENSE: "X"}
_UNSAFE = re.compile(r"[^\w:.@+-]", re.ASCII)


def export_csv(connection: Connection, out: TextIO, view: str = "audit_entry") -> int:
    """Write a view with a line of column names; return the number of rows. Amounts stay whole micros."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(VIEWS[view])
    count = 0
    for row in read_view(connection, view):
        writer.writerow([_harmless(value) for value in row])
        count += 1
    return count


def export_hledger(connection: Connection, retailer_id: str, out: TextIO) -> int:
    """Write the journal in hledger's format; return the number of transactions.

    Every amount is written out, so that `hledger check` proves the balance instead of filling it in. Characters that
    mean something to hledger are written as `%` and two hexadecimal digits per byte.
    """
    store.hold_view(connection)
    balances = store.list_balances(connection, retailer_id)
    for currency in sorted({row.currency for row in balances}):
        out.write(f"commodity 1000.000000 {currency}\n")
    for account in sorted({row.account for row in balances}):
        out.write(f"account {_account(account)}  ; type:{_KIND_CODES[account_kind(account)]}\n")
    count = 0
    for transaction_id, some in groupby(_entries(connection, retailer_id), key=lambda row: row["transaction_id"]):
        rows = list(some)
        first = rows[0]
        day = datetime.fromtimestamp(first["occurred_at_ms"] // 1000, UTC).strftime("%Y-%m-%d")
        reverses = "" if first["reverses"] is None else f", reverses:{first['reverses']}"
        out.write(f"\n{day} * ({transaction_id}) {_words(first['reason'])}  ; seq:{first['seq']}{reverses}\n")
        for row in rows:
            out.write(f"    {_account(row['account'])}  {_amount(row['amount_micros'])} {row['currency']}\n")
        count += 1
    return count


def _entries(connection: Connection, retailer_id: str) -> Iterator[dict[str, Any]]:
    seq = 0
    while rows := store.read_entries_after(connection, retailer_id, seq, READ_COUNT):
        seq = rows[-1][0]
        yield from (dict(zip(store.ENTRY_COLUMNS, row, strict=False)) for row in rows)


def _account(name: str) -> str:
    return _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), name)


def _words(reason: str) -> str:
    return re.sub(r"[;|\s]+", " ", reason).strip()


def _amount(micros: int) -> str:
    whole, part = divmod(abs(micros), MICROS)
    return f"{'-' if micros < 0 else ''}{whole}.{part:06d}"


def _harmless(value: Any) -> Any:
    """Return text a spreadsheet will not run as a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t"):
        return "'" + value
    return value
