"""The report of a run: one HTML file with its charts and tables inside, for a browser without a network."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from sim import chart
from sim.measure import Measure
from sim.result import BidderResult, PeriodResult, PlacementResult, RunResult

TILES = (
    "revenue_per_thousand_pages",
    "fill_rate",
    "advertiser_surplus",
    "roas",
    "affinity_lost",
    "charges_at_floor",
)
BARS_MAX = 96
BIDDER_ROWS_MAX = 200

STYLE_FILE = Path(__file__).with_name("report.css")


def render_report(result: RunResult, currency: str = "EUR") -> str:
    """Return the whole page."""
    measures = {found.name: found for found in result.measures}
    policies = _policies(result.bidders)
    body = [
        f"<h1>{escape(result.scenario_name)}</h1><p class='lead'>{escape(result.sentence)}</p>",
        _facts(result),
        "<div class='tiles'>" + "".join(_tile(measures[name], currency) for name in TILES) + "</div>",
        "<div class='pair'>" + _revenue(result.periods, currency) + _fill(result.periods) + "</div>",
        "<div class='pair'>"
        + _shares(result.periods, policies)
        + _worth(result.bidders, policies, currency)
        + "</div>",
        _budgets(result.bidders, policies),
        _measures(result, currency),
        _placements(result.placements, currency),
        _bidders(result.bidders, currency),
        _books(result, currency),
        _limits(result),
    ]
    return page(f"{result.scenario_name} · simulated market", "".join(body))


def page(title: str, body: str) -> str:
    """Wrap a body in a page that needs nothing else."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE_FILE.read_text()}</style></head><body><main>{body}</main></body></html>\n"
    )


def table(heads: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of ready cells; a head says whether its column holds numbers."""
    classes = [" class='n'" if is_number else "" for _, is_number in heads]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for (name, _), kind in zip(heads, classes, strict=True))
    lines = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, classes, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def shown(value: float | None, unit: str, currency: str) -> str:
    """Write a figure the way its unit is read."""
    if value is None:
        return "–"
    if unit == "share":
        return f"{value:.1%}"
    if unit == "money":
        return f"{value:,.4f} {currency}" if abs(value) < 1 else f"{value:,.2f} {currency}"
    return f"{value:,.2f}" if unit == "ratio" else f"{value:,.0f}"


def money(micros: int) -> str:
    """Write micros as currency units with cents, without the currency."""
    return f"{micros / 1_000_000:,.2f}"


def in_words(name: str) -> str:
    """Return a measure's name as a heading."""
    special = {"roas": "ROAS"}
    return special.get(name, name.replace("_", " ").capitalize())


def _facts(result: RunResult) -> str:
    facts = [
        ("seed", str(result.seed)),
        ("scenario", result.scenario_hash),
        ("endcap", result.version),
        ("worlds", f"{result.repeats:,}"),
        ("auctions", f"{result.auction_count:,}"),
        ("bidders", f"{len(result.bidders):,}"),
    ]
    return (
        "<ul class='facts'>"
        + "".join(f"<li>{escape(name)} <b>{escape(value)}</b></li>" for name, value in facts)
        + "</ul>"
    )


def _tile(found: Measure, currency: str) -> str:
    interval = "one world says no interval"
    if found.low is not None and found.high is not None:
        low, high = shown(found.low, found.unit, ""), shown(found.high, found.unit, "")
        interval = f"90 %: {low.strip()} to {high.strip()}"
    unit = f" <i>{escape(currency)}</i>" if found.unit == "money" and found.value is not None else ""
    return (
        f"<div class='tile' title='{escape(found.sentence)}'><span>{escape(in_words(found.name))}</span>"
        f"<strong>{shown(found.value, found.unit, '').strip()}{unit}</strong><small>{interval}</small></div>"
    )


def _revenue(periods: Sequence[PeriodResult], currency: str) -> str:
    gathered = _gathered(periods)
    labels = _labels(gathered)
    values = [sum(period.revenue_micros for period in group) / 1e6 for group in gathered]
    titles = [f"{group[0].starts_at}: {value:,.2f} {currency}" for group, value in zip(gathered, values, strict=True)]
    drawn = chart.bars(labels, values, titles, describe="Revenue over time")
    return f"<section><h2>Revenue over time</h2><p>Billed by the ledger, {currency}.</p>{drawn}</section>"


def _fill(periods: Sequence[PeriodResult]) -> str:
    gathered = _gathered(periods)
    values: list[float | None] = []
    for group in gathered:
        slots = sum(period.slots for period in group)
        values.append(sum(period.paid_fills for period in group) / slots if slots else None)
    drawn = chart.lines(
        _labels(gathered), [chart.Line("Fill rate", values, 0)], describe="Fill rate over time", unit="%", top=1.0
    )
    return f"<section><h2>Fill rate over time</h2><p>Share of slots given to a paid product.</p>{drawn}</section>"


def _shares(periods: Sequence[PeriodResult], policies: list[str]) -> str:
    gathered = _gathered(periods)
    series = []
    for row, policy in enumerate(policies):
        values: list[float | None] = []
        for group in gathered:
            known = [period.share_ppm[policy] for period in group if policy in period.share_ppm]
            values.append(sum(known) / len(known) / 1e6 if known else None)
        series.append(chart.Line(policy, values, row % 6))
    drawn = chart.lines(_labels(gathered), series, describe="Share of a click's worth that is bid", unit="%", top=1.0)
    return (
        "<section><h2>What they bid</h2><p>Mean share of a click's worth that each policy's bidders offered.</p>"
        f"{drawn}{chart.legend(policies)}</section>"
    )


def _worth(bidders: Sequence[BidderResult], policies: list[str], currency: str) -> str:
    points = [
        chart.Point(
            bidder.spend_micros / 1e6,
            bidder.value_micros / 1e6,
            policies.index(bidder.policy) % 6,
            f"{bidder.advertiser_id} ({bidder.policy}): worth {money(bidder.value_micros)}, "
            f"paid {money(bidder.spend_micros)} {currency}",
        )
        for bidder in bidders
    ]
    drawn = chart.scatter(
        points,
        describe="Worth of the clicks against what was paid",
        x_label=f"paid, {currency}",
        y_label=f"worth, {currency}",
    )
    return (
        "<section><h2>What it was worth to them</h2><p>One dot per bidder: above the dashed line its clicks were worth "
        f"more than it paid.</p>{drawn}{chart.legend(policies)}</section>"
    )


def _budgets(bidders: Sequence[BidderResult], policies: list[str]) -> str:
    limited = [bidder for bidder in bidders if bidder.budget_of_run_micros is not None]
    if not limited:
        return ""
    limited = sorted(limited, key=lambda bidder: (-_used(bidder), bidder.advertiser_id))[:40]
    drawn = chart.level(
        [bidder.advertiser_id for bidder in limited],
        [_used(bidder) for bidder in limited],
        [policies.index(bidder.policy) % 6 for bidder in limited],
        [f"{bidder.advertiser_id} ({bidder.policy})" for bidder in limited],
        describe="Budget use",
    )
    about = "Spent of what the limits allowed over the run; never above 100 %."
    return f"<section><h2>Budget use</h2><p>{about}</p>{drawn}</section>"


def _used(bidder: BidderResult) -> float:
    budget = bidder.budget_of_run_micros
    return bidder.spend_micros / budget if budget else 0.0


def _measures(result: RunResult, currency: str) -> str:
    rows = []
    for found in result.measures:
        low, high, drawn = "", "", ""
        if found.value is not None and found.low is not None and found.high is not None:
            low, high = shown(found.low, found.unit, ""), shown(found.high, found.unit, "")
            drawn = chart.whisker(found.value, found.low, found.high, abs(found.value) / 4 or 1.0)
        rows.append(
            [
                f"{escape(in_words(found.name))}<br><small>{escape(found.sentence)}</small>",
                shown(found.value, found.unit, currency),
                low,
                high,
                drawn,
            ]
        )
    heads = [("Measure", False), ("Value", True), ("Low", True), ("High", True), ("", False)]
    return (
        f"<section><h2>Measures</h2><p>Low and high hold 90 % of what chance alone would make of the same market, "
        f"by resampling {escape(result.intervals_over)}. The grey line reaches a quarter of the value either way.</p>"
        f"{table(heads, rows)}</section>"
    )


def _placements(placements: Sequence[PlacementResult], currency: str) -> str:
    rows = []
    for found in placements:
        reasons = ", ".join(f"{escape(reason)} {count:,}" for reason, count in found.no_fill_reasons.items()) or "–"
        rows.append(
            [
                escape(found.placement_id),
                f"{found.slots:,}",
                f"{found.paid_fills / found.slots:.1%}" if found.slots else "–",
                f"{found.paid_clicks:,}",
                money(found.revenue_micros),
                reasons,
            ]
        )
    heads = [
        ("Placement", False),
        ("Slots", True),
        ("Filled", True),
        ("Clicks", True),
        (f"Revenue, {currency}", True),
        ("Left empty because", False),
    ]
    return f"<section><h2>Placements</h2>{table(heads, rows)}</section>"


def _bidders(bidders: Sequence[BidderResult], currency: str) -> str:
    ordered = sorted(bidders, key=lambda bidder: (-bidder.spend_micros, bidder.advertiser_id))
    rows = [
        [
            escape(bidder.advertiser_id),
            escape(bidder.brand),
            escape(bidder.policy),
            escape(bidder.charge_on),
            f"{bidder.product_count:,}",
            f"{bidder.impressions:,}",
            f"{bidder.clicks:,}",
            money(bidder.spend_micros),
            money(bidder.value_micros - bidder.spend_micros),
            "–" if bidder.roas is None else f"{bidder.roas:.2f}",
            "–" if bidder.target_roas_ppm is None else f"{bidder.target_roas_ppm / 1_000_000:.2f}",
            f"{_used(bidder):.0%}" if bidder.budget_of_run_micros is not None else "–",
        ]
        for bidder in ordered[:BIDDER_ROWS_MAX]
    ]
    heads = [
        ("Advertiser", False), ("Brand", False), ("Policy", False), ("Pays per", False), ("Products", True),
        ("Impressions", True), ("Clicks", True), (f"Paid, {currency}", True), (f"Surplus, {currency}", True),
        ("ROAS", True), ("Its target", True), ("Budget used", True),
    ]  # fmt: skip
    more = (
        f"<p>The {BIDDER_ROWS_MAX} that paid most, of {len(bidders):,}.</p>" if len(bidders) > BIDDER_ROWS_MAX else ""
    )
    return f"<section><h2>Bidders</h2>{more}{table(heads, rows)}</section>"


def _books(result: RunResult, currency: str) -> str:
    books = result.books
    is_right = books.sum_micros == 0 and books.overspent_micros == 0
    verdict = (
        "<span class='good'>Debits less credits: 0. Billed over a budget: 0.</span>"
        if is_right
        else f"<span class='bad'>Debits less credits: {books.sum_micros} micros. "
        f"Billed over budgets: {books.overspent_micros} micros.</span>"
    )
    events = [[escape(name), f"{count:,}"] for name, count in books.events.items()]
    return (
        f"<section><h2>Books</h2><p class='proof'>{verdict}</p><p>{books.entry_count:,} entries; "
        f"{money(books.billed_micros)} {currency} billed by the ledger's own writer, from sealed beacons.</p>"
        f"{table([('Events answered', False), ('Count', True)], events)}</section>"
    )


def _limits(result: RunResult) -> str:
    over = (
        "Intervals are over whole worlds, so they include what bidders learn and how budgets run out."
        if result.intervals_over == "worlds"
        else "Intervals are over sessions of the same world: they hold the visitors' chance, not another draw of "
        "catalogue, bidders or budgets. Set run.repeats to 5 or more for that."
    )
    return (
        "<section><h2>How far to believe this</h2><ul class='plain'>"
        "<li>Auctions, prices, budgets and entries are the server's own code; visitors and bidders are invented.</li>"
        "<li>Clicks follow the position-based model; real visitors are less tidy.</li>"
        "<li>A difference between two scenarios on one seed says more than either figure alone.</li>"
        f"<li>{over}</li></ul></section>"
    )


def _policies(bidders: Sequence[BidderResult]) -> list[str]:
    return sorted({bidder.policy for bidder in bidders})


def _gathered(periods: Sequence[PeriodResult]) -> list[list[PeriodResult]]:
    """Group neighbouring periods so that a chart has at most BARS_MAX steps."""
    size = max(1, -(-len(periods) // BARS_MAX))
    return [list(periods[start : start + size]) for start in range(0, len(periods), size)]


def _labels(gathered: Sequence[Sequence[PeriodResult]]) -> list[str]:
    """Label steps by hour within one day; over several, the first of each day by its date."""
    starts = [group[0].starts_at for group in gathered]
    if len({start[:10] for start in starts}) == 1:
        return [start[11:16] for start in starts]
    return [start[5:10] if row == 0 or start[:10] != starts[row - 1][:10] else "" for row, start in enumerate(starts)]
