"""What a replay found, for the eye: first what it cannot know, then whether everything came back, then what changes."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sim.replay import Difference, Party, ReplayResult
from sim.report import in_words, money, page, shown, table

if TYPE_CHECKING:
    from rich.console import Console

PARTY_ROWS_MAX = 50


def render_replay(result: ReplayResult, currency: str = "") -> str:
    """Return the whole page."""
    title = "Replay: " + ("; ".join(result.changes) if result.changes else "as it was")
    body = [
        f"<h1>{escape(title)}</h1><p class='lead'>{result.receipt_count:,} recorded auctions, run again.</p>",
        _unknown(result.unknown),
        _verdict(result),
    ]
    if result.differences:
        body += [
            _differences(result, currency),
            _parties("Placements", result.placements),
            _parties("Advertisers", result.advertisers),
        ]
    return page(title, "".join(body))


def summarise(result: ReplayResult, console: "Console") -> None:
    """Print the same, shortly."""
    from rich.table import Table

    for sentence in result.unknown:
        console.print(f"! {sentence}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    console.print(_same_in_words(result), highlight=False)
    if not result.differences:
        return
    grid = Table(title="; ".join(result.changes), title_justify="left")
    grid.add_column("expected")
    for head in ("recorded", "changed", "difference", "low", "high"):
        grid.add_column(head, justify="right")
    for one in result.differences:
        grid.add_row(in_words(one.name), *_cells(one, ""))
    console.print(grid)
    console.print(f"{result.changed_count:,} of {result.receipt_count:,} auctions have another fill or price")


def _unknown(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    return (
        "<section><h2>What this cannot know</h2><ul class='plain'>"
        + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        + "</ul></section>"
    )


def _same_in_words(result: ReplayResult) -> str:
    if not result.different:
        return f"Under the rules they were held under, all {result.same_count:,} auctions came back bit for bit."
    return (
        f"{result.receipt_count - result.same_count:,} of {result.receipt_count:,} auctions did NOT come back as they "
        f"were; the first: {', '.join(result.different)}"
    )


def _verdict(result: ReplayResult) -> str:
    kind = "bad" if result.different else "good"
    return (
        f"<section><h2>As it was</h2><p class='proof'><span class='{kind}'>{escape(_same_in_words(result))}</span></p>"
        "<p>Every winner, both prices of every slot and every threshold were computed again and compared.</p></section>"
    )


def _differences(result: ReplayResult, currency: str) -> str:
    rows = [[escape(in_words(one.name)), *_cells(one, currency), _reading(one)] for one in result.differences]
    numbers = ("Recorded", "Changed", "Difference", "Low", "High")
    heads = [("Expected", False), *((name, True) for name in numbers)]
    return (
        f"<section><h2>Under the change</h2><p>{result.changed_count:,} of {result.receipt_count:,} auctions have "
        "another fill or price. Low and high hold 90 % of what resampling the auctions makes of the difference.</p>"
        f"{table([*heads, ('', False)], rows)}</section>"
    )


def _cells(one: Difference, currency: str) -> list[str]:
    """Return recorded, changed, difference, low and high; a difference of shares is in percentage points."""
    cells = [shown(value, one.unit, currency).strip() for value in (one.before, one.after)]
    for value in (one.difference, one.low, one.high):
        if one.unit == "share" and value is not None:
            cells.append(f"{value * 100:+.1f} pp")
        else:
            cells.append(("+" if value is not None and value > 0 else "") + shown(value, one.unit, currency).strip())
    return cells


def _reading(one: Difference) -> str:
    if one.low is None or one.high is None:
        return ""
    if one.low > 0:
        return "rises"
    return "falls" if one.high < 0 else "no change shown"


def _parties(title: str, parties: Sequence[Party]) -> str:
    rows = [
        [
            escape(one.name),
            f"{one.fills_before:,}",
            f"{one.fills_after:,}",
            money(one.revenue_before_micros),
            money(one.revenue_after_micros),
            f"{(one.revenue_after_micros - one.revenue_before_micros) / 1_000_000:+,.2f}",
        ]
        for one in parties[:PARTY_ROWS_MAX]
    ]
    heads = [
        ("", False), ("Fills recorded", True), ("Fills changed", True), ("Expected spend recorded", True),
        ("Expected spend changed", True), ("Difference", True),
    ]  # fmt: skip
    more = (
        f"<p>The {PARTY_ROWS_MAX} that change most, of {len(parties):,}.</p>" if len(parties) > PARTY_ROWS_MAX else ""
    )
    return f"<section><h2>{escape(title)}</h2>{more}{table(heads, rows)}</section>"
