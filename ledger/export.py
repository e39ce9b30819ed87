"""The books for other programs: CSV of the audit views, a journal hledger checks, and the French tax office's file.

The last is the *fichier des écritures comptables*: article A47 A-1 of the Livre des procédures fiscales, 18 columns,
and accounts of the Plan comptable général.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, TextIO
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct
from msgspec.structs import astuple
from sqlalchemy.engine import Connection

from ledger import store
from ledger.audit import VIEWS, read_view
from ledger.chart import AccountKind, account_advertiser, account_kind

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


def rows_as_csv(kind: type[Struct], rows: Sequence[Struct]) -> str:
    """Return structs with a line of their fields' names; a table within one is JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(kind.__struct_fields__)
    writer.writerows([_harmless(value) for value in astuple(row)] for row in rows)
    return out.getvalue()


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
    "vat": ("445710", "TVA collectée"),
    "revenue:media": ("706000", "Prestations de services"),
    "revenue:credit-notes": ("709600", "Rabais, remises et ristournes accordés"),
    "expense:promotion": ("623000", "Publicité, publications, relations publiques"),
    "expense:bad-debt": ("654000", "Pertes sur créances irrécouvrables"),
    "expense:rounding": ("658000", "Charges diverses de gestion courante"),
}
_FEC_JOURNALS = {"cash": ("BQ", "Banque"), "revenue": ("VE", "Ventes"), "receivable": ("VE", "Ventes")}
_OTHER_JOURNAL = ("OD", "Opérations diverses")


def export_fec(connection: Connection, retailer_id: str, time_zone: str, out: TextIO) -> int:
    """Write the journal as the French tax office reads it; return the number of transactions.

    Transactions are numbered from 1 without gaps, in the order of the books. Columns are parted by tabs, amounts have
    a decimal comma and all six digits, so that each transaction still balances. A transaction is dated when it
    happened or, where that is in a month closed since, when it was written.
    """
    store.hold_view(connection)
    zone = ZoneInfo(time_zone)
    out.write("\t".join(FEC_COLUMNS) + "\n")
    count = 0
    for transaction_id, some in groupby(_entries(connection, retailer_id), key=lambda row: row["transaction_id"]):
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
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t"):
        return "'" + value
    return value
