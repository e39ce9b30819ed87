"""A report is one file that needs nothing else, says the figures, and cannot be broken by a name."""

import re
from html import escape
from html.parser import HTMLParser

from sim.measure import DEFINITIONS, Measure
from sim.report import render_report
from sim.result import BidderResult, Books, PeriodResult, PlacementResult, RunResult

VOID = {"meta", "br"}


def result(name: str = "made-up", periods: int = 24) -> RunResult:
    policies = ("bandit", "paced", "shaded", "truthful")
    return RunResult(
        version="0",
        scenario_name=name,
        scenario_hash="0123456789abcdef",
        seed=7,
        sentence="A market made up to draw a report from.",
        repeats=1,
        intervals_over="sessions",
        auction_count=12_345,
        measures=[
            Measure(one.name, one.unit, 0.25 + row, 0.2 + row, 0.3 + row, one.sentence)
            for row, one in enumerate(DEFINITIONS)
        ],
        bidders=[
            BidderResult(
                advertiser_id=f"adv-{row:02d}",
                policy=policies[row % 4],
                brand=f"Brand {row}",
                charge_on="click",
                product_count=12,
                daily_budget_micros=10_000_000 if row % 4 == 1 else None,
                budget_of_run_micros=10_000_000 if row % 4 == 1 else None,
                impressions=row * 900,
                clicks=row * 40,
                spend_micros=row * 450_000,
                value_micros=row * (400_000 + 37_000 * (row % 7)),
                sales_micros=row * 2_000_000,
                given_back_micros=0,
            )
            for row in range(20)
        ],
        periods=[
            PeriodResult(
                starts_at=f"2026-11-{23 + hour // 24} {hour % 24:02d}:00",
                pages=hour * 10,
                slots=hour * 40,
                paid_fills=hour * 25,
                revenue_micros=hour * 800_000,
                share_ppm={"truthful": 1_000_000, "paced": 300_000 + hour * 3_000, "shaded": 600_000},
            )
            for hour in range(periods)
        ],
        placements=[PlacementResult("category-top", 4_000, 2_500, 120, 9_000_000, {"below_floor": 12})],
        books=Books(0, 0, entry_count=400, billed_micros=9_000_000, events={"accepted": 400}),
    )


class Balanced(HTMLParser):
    """Checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_needs_nothing_from_anywhere() -> None:
    text = render_report(result())
    assert not re.search(r"(src|href)=|https?://|@import|url\(", text)
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []


def test_a_report_says_every_measure_and_the_state_of_the_books() -> None:
    text = render_report(result())
    for one in DEFINITIONS:
        assert escape(one.sentence) in text
    assert "Debits less credits: 0." in text
    assert "by resampling sessions" in text


def test_a_name_cannot_break_the_page() -> None:
    assert "<script" not in render_report(result(name="<script>alert(1)</script>"))


def test_a_year_of_hours_is_gathered_to_what_the_eye_can_take() -> None:
    text = render_report(result(periods=200))
    assert text.count('<rect class="c0"') < 110
    assert "nan" not in text.lower().replace("finance", "")
