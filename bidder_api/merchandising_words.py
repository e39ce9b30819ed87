"""A merchandising report as `endcap merchandising report` gives it: for the terminal, as JSON or as CSV."""

import csv
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TextIO
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import asdict

from affinity.merchandising import (
    FACTORS,
    LEVEL,
    MANIFOLD,
    BestSeller,
    CategoryLine,
    Comparison,
    CrossSell,
    MerchandisingReport,
    say,
)

MICROS = 1_000_000
RETURN_ROWS = 10
WIDE = 150  # columns of a terminal from which on every part of a change fits in a line
VERDICT = {"rising": "over-performing", "falling": "under-performing"}
HOW_TO_READ = (
    f"p-values are adjusted for all categories: of the findings, {LEVEL:.0%} may be chance (Benjamini-Hochberg). A "
    "category that moves as the shop does is no finding. The parts of a change add up to it."
)
Titles = Mapping[str, str]


def print_report(
    report: MerchandisingReport, titles: Titles, time_zone: str, kind: str, table: str, top_count: int, out: TextIO
) -> None:
    """Print a report as `table`, `json`, `csv` or `html`; a CSV holds one of its tables, whole.

    Of each kind of findings a table or a page names the first `top_count`.
    """
    if kind == "json":
        out.write(msgspec.json.format(msgspec.json.encode(_spoken(report))).decode() + "\n")
    elif kind == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows(_csv_rows(report, titles, table))
    elif kind == "html":
        from bidder_api.merchandising_page import render

        out.write(render(report, titles, time_zone, top_count))
    else:
        _print_tables(report, titles, time_zone, top_count, out)


def findings(report: MerchandisingReport, trend: str) -> list[CategoryLine]:
    """Return the categories of a trend, those whose revenue changed most first; the shop is none."""
    return [line for line in report.categories if line.category_id and line.trend == trend]


def count_words(lines: Sequence[CategoryLine], verdict: str, top_count: int) -> str:
    """Return how many findings there are, and how to see those that are not shown."""
    words = f"{len(lines)} {verdict} {'category' if len(lines) == 1 else 'categories'}"
    return words if len(lines) <= top_count else f"{words}, {top_count} shown (--top, or --format csv for all)"


def period_of(from_ms: int, until_ms: int, time_zone: str) -> str:
    """Return the first and the last day of a period."""
    zone = ZoneInfo(time_zone)
    first = datetime.fromtimestamp(from_ms / 1000, zone).date()
    last = datetime.fromtimestamp(until_ms / 1000, zone).date() - timedelta(days=1)
    return f"{first} to {last}"


def money(micros: int, *, signed: bool = False) -> str:
    """Return an amount with two decimals."""
    return f"{micros / MICROS:+,.2f}" if signed else f"{micros / MICROS:,.2f}"


def ratio_words(comparison: Comparison) -> str:
    """Return a change in per cent, with a star where it is more than chance."""
    if comparison.ratio is None:
        return "new" if comparison.p_value is not None else ""
    star = " *" if comparison.p_value is not None and comparison.p_value < LEVEL else "  "
    change = f"{comparison.ratio - 1:+.0%}" if comparison.ratio < MANIFOLD else f"x{comparison.ratio:,.1f}"
    return change + star


def percent(share: float | None) -> str:
    """Return a share in per cent, nothing where there is none."""
    return "" if share is None else f"{share:.1%}"


def most_returned(report: MerchandisingReport) -> list[CategoryLine]:
    """Return the categories whose returns changed more than by chance, then those with the highest rates."""
    returned = [line for line in report.categories if line.category_id and line.period.return_rate]
    changed = {"rising", "falling"}
    returned.sort(
        key=lambda line: (line.returns_against_history.trend not in changed, -(line.period.return_rate or 0.0))
    )
    return returned[:RETURN_ROWS]


def shop_sellers(report: MerchandisingReport) -> list[BestSeller]:
    """Return the best-sellers of the whole shop, by units."""
    return [one for one in report.best_sellers if not one.category_id]


def _spoken(report: MerchandisingReport) -> dict[str, Any]:
    """Return the report with a sentence for each category that is a finding."""
    raw: dict[str, Any] = msgspec.to_builtins(report)
    for line, body in zip(report.categories, raw["categories"], strict=True):
        body["sentence"] = say(line, report.currency) if line.trend in VERDICT or not line.category_id else None
    return raw


def _csv_rows(report: MerchandisingReport, titles: Titles, table: str) -> list[list[Any]]:
    if table == "best-sellers":
        head = [*BestSeller.__struct_fields__, "title"]
        return [head, *[[*asdict(one).values(), titles.get(one.product_id, "")] for one in report.best_sellers]]
    if table == "cross-sell":
        head = ["product_id", "other_product_id", "orders", "other_orders", "together", "lift", "p_value"]
        return [head, *[[*p.product_ids, *p.orders, p.together, p.lift, p.p_value] for p in report.cross_sell]]
    rows = [_csv_line(line) for line in report.categories]
    return [list(rows[0]), *[list(row.values()) for row in rows]]


def _csv_line(line: CategoryLine) -> dict[str, Any]:
    row: dict[str, Any] = {"category_id": line.category_id, "trend": line.trend, "basis": line.basis}
    for name in ("orders_against_history", "orders_against_shop", "returns_against_history"):
        comparison: Comparison = getattr(line, name)
        row |= {f"{name}_ratio": comparison.ratio, f"{name}_p_value": comparison.p_value}
    for when in ("period", "history"):
        row |= {f"{when}_{name}": value for name, value in asdict(getattr(line, when)).items()}
    row |= {"change_micros": line.change_micros, "cause": line.cause}
    return row | {f"{name}_part_micros": line.parts.get(name) for name in FACTORS}


def _print_tables(report: MerchandisingReport, titles: Titles, time_zone: str, top_count: int, out: TextIO) -> None:
    from rich.console import Console

    console = Console(file=out, width=None if out.isatty() else 180, highlight=False, soft_wrap=False)
    period = period_of(report.from_ms, report.until_ms, time_zone)
    history = period_of(report.history_from_ms, report.history_until_ms, time_zone)
    console.print(f"{period}, compared with {history}; money in {report.currency}\n", markup=False)
    console.print(say(report.categories[0], report.currency) + "\n", markup=False)
    for trend, verdict in VERDICT.items():
        lines = findings(report, trend)
        console.print(f"{count_words(lines, verdict, top_count)}", style="bold")
        if lines:
            console.print(_category_table(lines[:top_count], with_parts=console.width >= WIDE))
            for line in lines[:top_count]:
                console.print(say(line, report.currency), markup=False)
        console.print()
    if shop_sellers(report):
        console.print("Best-sellers of the shop", style="bold")
        console.print(_seller_table(shop_sellers(report), titles), "")
    if report.cross_sell:
        console.print("Bought together more often than by chance", style="bold")
        console.print(_pair_table(report.cross_sell, titles), "")
    if most_returned(report):
        rates = [percent(one.return_rate) for one in (report.categories[0].period, report.categories[0].history)]
        console.print(f"Returns: {rates[0]} of the units sold, {rates[1]} in the history", style="bold")
        console.print(_return_table(most_returned(report)), "")
    for note in (HOW_TO_READ, *report.notes):
        console.print(note, style="dim", markup=False)


def _category_table(lines: Sequence[CategoryLine], *, with_parts: bool) -> Any:
    """Return findings as rows: with every part of the change, or with its cause alone where there is no room."""
    if not with_parts:
        table = _table(["category"], ["orders", "of shop", "change", "cause"])
        for line in lines:
            table.add_row(*_measures(line), money(line.change_micros, signed=True), line.cause or "")
        return table
    names = [name for name in ("traffic", "interest", "availability", "conversion") if name in lines[0].parts]
    table = _table(["category"], ["orders", "of shop", "revenue", "change", *names, "basket", "price", "mix"])
    for line in lines:
        basket = line.parts["lines"] + line.parts["units"]
        parts = [*(line.parts.get(name, 0) for name in names), basket, line.parts["price"], line.parts["mix"]]
        table.add_row(
            *_measures(line),
            money(line.period.revenue_micros),
            money(line.change_micros, signed=True),
            *[money(part, signed=True) for part in parts],
        )
    return table


def _measures(line: CategoryLine) -> tuple[Any, str, str]:
    return (
        _plain(line.category_id),
        ratio_words(line.orders_against_history),
        ratio_words(line.orders_against_shop),
    )


def _seller_table(sellers: Sequence[BestSeller], titles: Titles) -> Any:
    table = _table(["product", "title"], ["by units", "by revenue", "units", "orders", "revenue"])
    for one in sellers:
        ranks = [str(one.units_rank), str(one.revenue_rank), f"{one.units:,}", f"{one.orders:,}"]
        table.add_row(_plain(one.product_id), _plain(titles.get(one.product_id, "")), *ranks, money(one.revenue_micros))
    return table


def _pair_table(pairs: Sequence[CrossSell], titles: Titles) -> Any:
    table = _table(["product", "with"], ["orders", "orders", "together", "lift"])
    for pair in pairs:
        names = [_plain(titles.get(one) or one) for one in pair.product_ids]
        table.add_row(*names, *[f"{one:,}" for one in pair.orders], f"{pair.together:,}", f"{pair.lift:.1f}x")
    return table


def _return_table(lines: Sequence[CategoryLine]) -> Any:
    table = _table(["category"], ["returned", "history", "returns per sale"])
    for line in lines:
        rates = [percent(one.return_rate) for one in (line.period, line.history)]
        table.add_row(_plain(line.category_id), *rates, ratio_words(line.returns_against_history))
    return table


def _table(texts: Sequence[str], numbers: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _plain(text: str) -> Any:
    """Return a text of the catalogue as it is, without the marks the terminal's library reads in it."""
    from rich.text import Text

    return Text(text)
