"""How predicted clicks hold and how much each slot is looked at, as `endcap affinity report` prints it."""

from collections.abc import Sequence
from typing import TextIO

import msgspec
from msgspec import Struct

from affinity.attention import SlotAttention, estimate_attention
from affinity.clicks import ClickCounters
from affinity.watch import CLICKS_NEEDED, ERROR_MAX, RATIO_MAX, RATIO_MIN, Calibration, calibration_of
from auction.placement import Placement

OF_LATE = f"Of the last 2,000 to 4,000 clicks. Sound: clicks/expected {RATIO_MIN} to {RATIO_MAX}, error ≤ {ERROR_MAX}."
WHAT_IS_PROPOSED = (
    "Attention per mille: as set, as clicks say with the ends of a 95 % interval, and what to set. Clicks only tell "
    "slots of one placement from one another: the first one keeps what it is set to."
)


class PlacementReport(Struct, frozen=True, kw_only=True):
    """One placement.

    Attributes:
        calibration: whether predictions came true of late.
        slots: what all clicks that still count say of its slots.
        proposed_attention_permille: to be set as the placement's `attention_permille` for clicks.
    """

    placement_id: str
    calibration: Calibration
    slots: list[SlotAttention]
    proposed_attention_permille: list[int]


class ClickReport(Struct, frozen=True):
    """Every placement of which anything was counted, by id."""

    placements: list[PlacementReport]


def report_counters(counters: ClickCounters, placements: Sequence[Placement], now_ms: int) -> ClickReport:
    """Return what the counters say; placements that are gone are left out."""
    watched = {one.placement_id: one for one in counters.watched()}
    counted = {one.placement_id: one for one in counters.read(now_ms).placements}
    reports: list[PlacementReport] = []
    for placement in sorted(placements, key=lambda one: one.placement_id):
        name = placement.placement_id
        if name in counted:
            slots = estimate_attention(counted[name], placement.attention_permille.click)
            reports.append(
                PlacementReport(
                    placement_id=name,
                    calibration=calibration_of(watched[name]),
                    slots=slots,
                    proposed_attention_permille=[slot.proposed_permille for slot in slots],
                )
            )
    return ClickReport(reports)


def print_report(report: ClickReport, kind: str, out: TextIO) -> None:
    """Print a report as `table` or `json`."""
    if kind == "json":
        out.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
        return
    from rich.console import Console

    console = Console(file=out, width=None if out.isatty() else 160, highlight=False)
    console.print(_calibrations([one.calibration for one in report.placements]))
    console.print(OF_LATE)
    for one in report.placements:
        console.print()
        console.print(_slots(one))
        console.print(f"proposed: {one.proposed_attention_permille}")
    console.print()
    console.print(WHAT_IS_PROPOSED)


def _calibrations(lines: Sequence[Calibration]) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("placement", overflow="fold")
    for head in ("shown", "clicks", "expected", "clicks/expected", "95 %", "error", "sound"):
        table.add_column(head, justify="right", no_wrap=True)
    for line in lines:
        counts = [f"{one:,.0f}" for one in (line.shown, line.clicks, line.expected_clicks)]
        ratio = "" if line.ratio is None else f"{line.ratio:.3f}"
        ends = "" if line.ratio_low is None else f"{line.ratio_low:.3f} to {line.ratio_high:.3f}"
        error = "" if line.error is None else f"{line.error:.4f}"
        verdict = {True: "yes", False: "no", None: f"under {CLICKS_NEEDED:,} clicks"}[line.is_sound]
        table.add_row(Text(line.placement_id), *counts, ratio, ends, error, verdict)
    return table


def _slots(report: PlacementReport) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), title=Text(report.placement_id), title_justify="left")
    for head in ("slot", "clicks", "set", "estimate", "95 %", "proposed"):
        table.add_column(head, justify="right", no_wrap=True)
    for slot in report.slots:
        estimate = "" if slot.estimate_permille is None else str(slot.estimate_permille)
        ends = "" if slot.low_permille is None else f"{slot.low_permille} to {slot.high_permille}"
        table.add_row(
            str(slot.slot_position),
            f"{slot.clicks:,.0f}",
            str(slot.set_permille),
            estimate,
            ends,
            str(slot.proposed_permille),
        )
    return table
