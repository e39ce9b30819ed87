"""A merchandising report as one HTML file with its charts inside, which opens without a network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from affinity.merchandising import FACTORS, CategoryLine, MerchandisingReport, say
from bidder_api.merchandising_words import (
    HOW_TO_READ,
    VERDICT,
    Titles,
    count_words,
    findings,
    money,
    most_returned,
    percent,
    period_of,
    ratio_words,
    shop_sellers,
)

STYLE_FILE = Path(__file__).with_name("merchandising.css")
WIDTH, NAME_WIDTH, FIGURE_WIDTH, ROW_HEIGHT = 760, 110, 120, 22


def render(report: MerchandisingReport, titles: Titles, time_zone: str, top_count: int) -> str:
    """Return the whole page, with the first `top_count` findings of each kind."""
    period = period_of(report.from_ms, report.until_ms, time_zone)
    history = period_of(report.history_from_ms, report.history_until_ms, time_zone)
    body = [
        f"<h1>Merchandising, {period}</h1>",
        f"<p class='lead'>Compared with {history}; money in {escape(report.currency)}.</p>",
        _finding(report.categories[0], report.currency),
    ]
    for trend, verdict in VERDICT.items():
        lines = findings(report, trend)
        body.append(f"<h2>{escape(count_words(lines, verdict, top_count))}</h2>")
        body += [_finding(line, report.currency) for line in lines[:top_count]]
    body += [_sellers(report, titles), _pairs(report, titles), _returns(report)]
    notes = "".join(f"<li>{escape(note)}</li>" for note in (HOW_TO_READ, *report.notes))
    body.append(f"<h2>How to read this</h2><section><ul>{notes}</ul></section>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Merchandising, {period}</title><style>{STYLE_FILE.read_text()}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def draw_parts(parts: Mapping[str, int], describe: str) -> str:
    """Draw one bar per part, to the right of the axis where it adds and to the left where it takes away."""
    reach = max(1, *(abs(part) for part in parts.values()))
    half = (WIDTH - NAME_WIDTH - FIGURE_WIDTH) / 2
    axis = NAME_WIDTH + half
    height = len(parts) * ROW_HEIGHT + 4
    drawn = [f'<line class="axis" x1="{axis:.1f}" x2="{axis:.1f}" y1="0" y2="{height}"/>']
    for row, (name, part) in enumerate(parts.items()):
        y, width = row * ROW_HEIGHT + 4, abs(part) / reach * half
        drawn.append(
            f'<text x="{NAME_WIDTH - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="{"up" if part >= 0 else "down"}" x="{axis if part >= 0 else axis - width:.1f}" y="{y}" '
            f'width="{width:.1f}" height="14" rx="2"><title>{escape(FACTORS[name])}</title></rect>'
            f'<text x="{WIDTH}" y="{y + 11}" text-anchor="end">{money(part, signed=True)}</text>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(describe)}">{"".join(drawn)}</svg>'


def _finding(line: CategoryLine, currency: str) -> str:
    name = line.category_id or "The shop"
    described = f"What changed the revenue of {name}"
    return (
        f"<section><h3>{escape(name)}: {money(line.change_micros, signed=True)} {escape(currency)}</h3>"
        f"<p>{escape(say(line, currency))}</p>{draw_parts(line.parts, described)}</section>"
    )


def _sellers(report: MerchandisingReport, titles: Titles) -> str:
    rows = [
        [
            titles.get(one.product_id) or one.product_id,
            str(one.units_rank),
            str(one.revenue_rank),
            f"{one.units:,}",
            f"{one.orders:,}",
            money(one.revenue_micros),
        ]
        for one in shop_sellers(report)
    ]
    heads = ["product", "by units", "by revenue", "units", "orders", "revenue"]
    return _section("Best-sellers of the shop", heads, rows, text_count=1)


def _pairs(report: MerchandisingReport, titles: Titles) -> str:
    rows = [
        [*(titles.get(one) or one for one in pair.product_ids), f"{pair.together:,}", f"{pair.lift:.1f}×"]
        for pair in report.cross_sell
    ]
    heads = ["product", "with", "orders together", "lift"]
    return _section("Bought together more often than by chance", heads, rows, text_count=2)


def _returns(report: MerchandisingReport) -> str:
    rows = [
        [
            line.category_id,
            percent(line.period.return_rate),
            percent(line.history.return_rate),
            ratio_words(line.returns_against_history),
        ]
        for line in most_returned(report)
    ]
    return _section("Returns", ["category", "returned", "history", "returns per sale"], rows, text_count=1)


def _section(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, text_count: int) -> str:
    """Return a table under its title, nothing without rows; the first columns are text, the others numbers."""
    if not rows:
        return ""
    kinds = ["" if column < text_count else " class='n'" for column in range(len(heads))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(heads, kinds, strict=True))
    lines = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<h2>{escape(title)}</h2><section><table><tr>{head}</tr>{lines}</table></section>"
