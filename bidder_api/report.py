"""What recorded auctions come to, as `endcap auction report` prints it: a table, JSON or CSV."""

import csv
from collections.abc import Sequence
from typing import TextIO

import msgspec
from msgspec.structs import asdict

from auction.report import AuctionReport, Line

CANNOT_SAY = "Regret is of winners only: receipts hold no thresholds of losers."


def print_report(report: AuctionReport, kind: str, out: TextIO) -> None:
    """Print a report as `table`, `json` or `csv`."""
    if kind == "json":
        out.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    elif kind == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["kind", *Line.__struct_fields__])
        for name, lines in (("placement", report.placements), ("advertiser", report.advertisers)):
            writer.writerows([name, *asdict(line).values()] for line in lines)
    else:
        _print_tables(report, out)


def _print_tables(report: AuctionReport, out: TextIO) -> None:
    from rich.console import Console

    console = Console(file=out, width=None if out.isatty() else 160, highlight=False)
    console.print(f"{report.receipt_count:,} auctions; money in {report.currency}\n")
    for title, lines in (("placement", report.placements), ("advertiser", report.advertisers)):
        console.print(_table(title, lines))
    console.print(CANNOT_SAY)


def _table(title: str, lines: Sequence[Line]) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(title, overflow="fold")
    for head in ("auctions", "slots", "fills", "fill rate", "sponsored", "revenue", "price/bid", "at floor", "regret"):
        table.add_column(head, justify="right", no_wrap=True)
    for line in lines:
        shares = [_percent(one) for one in (line.fill_rate, line.sponsored_share)]
        others = [_percent(one) for one in (line.price_over_bid, line.floor_click_share)]
        counts = [f"{one:,}" for one in (line.auctions, line.slots, line.fills)]
        money = [f"{one / 1_000_000:,.2f}" for one in (line.expected_revenue_micros, line.regret_micros)]
        table.add_row(Text(line.name), *counts, *shares, money[0], *others, money[1])
    table.add_row("")
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
