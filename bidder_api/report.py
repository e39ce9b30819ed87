"""Reports as `endcap auction report` and `endcap ledger sales` print them: a table, JSON or CSV."""

import csv
from collections.abc import Sequence
from typing import TextIO

import msgspec
from msgspec.structs import asdict, astuple

from auction.report import AuctionReport, Line
from ledger.sales import SalesLine, SalesReport

NO_REGRET = "Regret is of winners; a loser has none."
SALES_COLUMNS = (
    "orders",
    "units",
    "charged",
    "commission",
    "invalid",
    "sales",
    "same product",
    "halo",
    "new to brand",
    "provisional",
    "ROAS",
)


def print_report(report: AuctionReport, kind: str, out: TextIO) -> None:
    """Print a report as `table`, `json` or `csv`."""
    if kind == "json":
        _print_json(report, out)
    elif kind == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["kind", *Line.__struct_fields__])
        for name, lines in (("placement", report.placements), ("advertiser", report.advertisers)):
            writer.writerows([name, *asdict(line).values()] for line in lines)
    else:
        _print_tables(report, out)


def print_sales(report: SalesReport, kind: str, out: TextIO) -> None:
    """Print sales credited to campaigns as `table`, `json` or `csv`."""
    if kind == "json":
        _print_json(report, out)
        return
    if kind == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(SalesLine.__struct_fields__)
        for line in report.items:
            writer.writerow(_flat(one) for one in astuple(line))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=out, width=None if out.isatty() else 160, highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("campaign", overflow="fold")
    for head in SALES_COLUMNS:
        table.add_column(head, justify="right", no_wrap=True)
    for line in report.items:
        amounts = (
            line.charged_micros,
            line.commission_micros,
            line.invalid_micros,
            line.sales_micros,
            line.same_sku_sales_micros,
            line.halo_sales_micros,
            line.new_to_brand_sales_micros,
            line.provisional_sales_micros,
        )
        table.add_row(
            Text(f"{line.campaign_id}\n{line.advertiser_id}"),
            f"{line.orders:,}",
            f"{line.units:,}",
            *(f"{one / 1_000_000:,.2f}" for one in amounts),
            "" if line.roas is None else f"{line.roas:.2f}",
        )
    console.print(table)
    model = report.model
    halo = "the product or another of the advertiser's" if model.has_halo else "the very product"
    views = f", else the last view of {model.view_days} days," if model.view_days else ""
    console.print(f"Money in {report.currency}. Credited: the last click of {model.click_days} days{views} on {halo}.")


def _flat(value: object) -> object:
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else value


def _print_json(report: object, out: TextIO) -> None:
    out.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")


def _print_tables(report: AuctionReport, out: TextIO) -> None:
    from rich.console import Console

    console = Console(file=out, width=None if out.isatty() else 160, highlight=False)
    console.print(f"{report.receipt_count:,} auctions; money in {report.currency}\n")
    for title, lines in (("placement", report.placements), ("advertiser", report.advertisers)):
        console.print(_table(title, lines))
    console.print(NO_REGRET)


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
