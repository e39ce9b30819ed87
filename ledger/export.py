"""The books for other programs: the audit views as tables, a journal hledger checks, and the French tax office's file.

The last is the *fichier des écritures comptables*: article A47 A-1 of the Livre des procédures fiscales, 18 columns,
and accounts of the Plan comptable général.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, BinaryIO, TextIO
from zoneinfo import ZoneInfo

from sqlalchemy.engine import Connection

from ledger import store
from ledger.audit import VIEWS, count_rows, read_rows
from ledger.chart import AccountKind, account_advertiser, account_kind
from ledger.table_file import Column, Kind, Table, write_csv, write_parquet, write_xlsx

MICROS = 1_000_000
READ_COUNT = 4000
TOLD_EVERY = 10_000  # rows between two words on how far it is
OnRow = Callable[[int, int | None], None] | None  # told how many rows are written, and of how many
_KIND_CODES = {AccountKind.ASSET: "A", AccountKind.LIABILITY: "L", AccountKind.INCOME: "R", AccountKind.EXPENSE: "X"}
_WHOLE = frozenset(["seq", "line", "step", "quantity", "count", "batch", "first_seq", "last_seq"])
_UNSAFE = re.compile(r"[^\w:.@+-]", re.ASCII)


def export_csv(
    connection: Connection, retailer_id: str, out: TextIO, view: str = "audit_entry", on_row: OnRow = None
) -> int:
    """Write a view with a line of column names; return the number of rows. Amounts stay whole micros."""
    return write_csv(out, _table(connection, retailer_id, view, on_row))


def export_parquet(
    connection: Connection,
    retailer_id: str,
    out: BinaryIO,
    currency: str,
    view: str = "audit_entry",
    on_row: OnRow = None,
) -> int:
    """Write a view as Parquet; return the number of rows. Amounts are int64 micros, moments timestamps in UTC.

    Raises:
        FormatMissing: pyarrow is not installed.
    """
    return write_parquet(out, _table(connection, retailer_id, view, on_row), currency)


def export_xlsx(
    connection: Connection,
    retailer_id: str,
    out: BinaryIO,
    views: Sequence[str] = ("audit_entry",),
    on_row: OnRow = None,
) -> int:
    """Write a workbook with a sheet per view, all of one moment; return the number of rows.

    Raises:
        FormatMissing: XlsxWriter is not installed.
    """
    store.hold_view(connection)
    return write_xlsx(out, [_table(connection, retailer_id, view, on_row) for view in views])


def view_columns(view: str) -> list[Column]:
    """Return a view's columns and what is in each."""
    return [Column(name, _view_kind(name)) for name in VIEWS[view]]


def export_hledger(connection: Connection, retailer_id: str, out: TextIO, on_row: OnRow = None) -> int:
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
    for transaction_id, some in groupby(
        _entries(connection, retailer_id, on_row), key=lambda row: row["transaction_id"]
    ):
        rows = list(some)
        first = rows[0]
        day = datetime.fromtimestamp(first["occurred_at_ms"] // 1000, UTC).strftime("%Y-%m-%d")
        reverses = "" if first["reverses"] is None else f", reverses:{first['reverses']}"
        out.write(f"\n{day} * ({transaction_id}) {_words(first['reason'])}  ; seq:{first['seq']}{reverses}\n")
        for row in rows:
            out.write(f"    {_account(row['account'])}  {_amount(row['amount_micros'])} {row['currency']}\n")
        count += 1
    return count


FEC_COLUMNS = (
    "JournalCode", "JournalLib", "EcritureNum", "EcritureDate", "CompteNum", "CompteLib", "CompAuxNum", "CompAuxLib",
    "PieceRef", "PieceDate", "EcritureLib", "Debit", "Credit", "EcritureLet", "DateLet", "ValidDate", "Montantdevise",
    "Idevise",
)  # fmt: skip
_FEC_ACCOUNTS = {  # by account or its family: number and name in the Plan comptable général
    "cash": ("512000", "Banques"),
    "receivable": ("411000", "Clients"),
    "unbilled": ("418100", "Clients - Factures à établir"),
    "wallet": ("419100", "Clients - Avances et acomptes reçus"),
    "promo": ("419800", "Clients - Avoirs à établir"),
    "returns": ("419810", "Clients - Avoirs à établir, commissions"),
    "vat": ("445710", "TVA collectée"),
    "revenue:media": ("706000", "Prestations de services"),
    "revenue:commission": ("708200", "Commissions et courtages"),
    "revenue:credit-notes": ("709600", "Rabais, remises et ristournes accordés"),
    "expense:promotion": ("623000", "Publicité, publications, relations publiques"),
    "expense:bad-debt": ("654000", "Pertes sur créances irrécouvrables"),
    "expense:rounding": ("658000", "Charges diverses de gestion courante"),
}
_FEC_JOURNALS = {"cash": ("BQ", "Banque"), "revenue": ("VE", "Ventes"), "receivable": ("VE", "Ventes")}
_OTHER_JOURNAL = ("OD", "Opérations diverses")


def export_fec(connection: Connection, retailer_id: str, time_zone: str, out: TextIO, on_row: OnRow = None) -> int:
    """Write the journal as the French tax office reads it; return the number of transactions.

    Transactions are numbered from 1 without gaps, in the order of the books. Columns are parted by tabs, amounts have
    a decimal comma and all six digits, so that each transaction still balances. A transaction is dated when it
    happened or, where that is in a month closed since, when it was written.
    """
    store.hold_view(connection)
    zone = ZoneInfo(time_zone)
    out.write("\t".join(FEC_COLUMNS) + "\n")
    count = 0
    for transaction_id, some in groupby(
        _entries(connection, retailer_id, on_row), key=lambda row: row["transaction_id"]
    ):
        rows = list(some)
        first = rows[0]
        count += 1
        happened, written = _day(first["occurred_at_ms"], zone), _day(first["recorded_at_ms"], zone)
        dated = happened if happened[:6] == first["period"].replace("-", "") else written
        for row in rows:
            number, name = _FEC_ACCOUNTS.get(row["account"]) or _FEC_ACCOUNTS[row["account"].partition(":")[0]]
            whose = _plain(account_advertiser(row["account"]) or "")
            micros = row["amount_micros"]
            cells = (
                *_fec_journal(rows), str(count), dated, number, name, whose, whose, transaction_id, happened,
                _plain(first["reason"]), _comma(max(micros, 0)), _comma(max(-micros, 0)), "", "", written, "", "",
            )  # fmt: skip
            out.write("\t".join(cells) + "\n")
    return count


def _fec_journal(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """Return code and name of the journal a transaction belongs to."""
    families = {row["account"].partition(":")[0] for row in rows}
    return next((journal for family, journal in _FEC_JOURNALS.items() if family in families), _OTHER_JOURNAL)


def _day(at_ms: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(at_ms / 1000, zone).strftime("%Y%m%d")


def _comma(micros: int) -> str:
    return _amount(micros).replace(".", ",")


def _plain(text: str) -> str:
    return re.sub(r"[\t\r\n|]+", " ", text).strip()


def _entries(connection: Connection, retailer_id: str, on_row: OnRow) -> Iterator[dict[str, Any]]:
    seq, total = 0, 0 if on_row is None else count_rows(connection, "audit_entry")
    while rows := store.read_entries_after(connection, retailer_id, seq, READ_COUNT):
        seq = rows[-1][0]
        if on_row is not None:
            on_row(seq, total)
        yield from (dict(zip(store.ENTRY_COLUMNS, row, strict=False)) for row in rows)


def _account(name: str) -> str:
    return _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), name)


def _words(reason: str) -> str:
    return re.sub(r"[;|\s]+", " ", reason).strip()


def _amount(micros: int) -> str:
    whole, part = divmod(abs(micros), MICROS)
    return f"{'-' if micros < 0 else ''}{whole}.{part:06d}"


def _table(connection: Connection, retailer_id: str, view: str, on_row: OnRow) -> Table:
    def rows() -> Iterator[Sequence[Any]]:
        total = 0 if on_row is None else count_rows(connection, view)
        for number, row in enumerate(read_rows(connection, retailer_id, view), 1):
            yield row
            if on_row is not None and number % TOLD_EVERY == 0:
                on_row(number, total)

    return Table(view, view_columns(view), rows())


def _view_kind(name: str) -> Kind:
    if name.endswith("_micros"):
        return "micros"
    return "moment" if name.endswith("_at") else "whole" if name in _WHOLE else "text"
