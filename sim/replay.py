"""Recorded auctions again: first as they were, to the bit; then under other floors, caps, prices or bids.

Runs the server's own kernel on what the receipts hold. It knows nothing that they do not: what that leaves out is said
at the top of every report, with numbers.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Struct

from auction.kernel import (
    CAP_OF_VISITOR,
    CLICK,
    GROUP_EVERYONE,
    GROUP_FIRST_FREE,
    GROUP_PAID,
    NO_CANDIDATE,
    NO_PIN,
    OutcomeArrays,
    PageArrays,
)
from auction.loss import LossReason
from auction.receipt import PlaceNote, Receipt, read_receipts, replay_receipt
from auction.segment import list_segments
from sim.chance import PPM, Int64s
from sim.errors import ReplayRefused, SimRefused
from sim.measure import interval, resample
from sim.result import encode_result, write_whole

if TYPE_CHECKING:
    from rich.console import Console

RESAMPLES = 400
PRICINGS = ("critical", "vcg", "first")

# Revenue is expected revenue, in billionths of a currency unit; clicks are expected ones, in billionths.
COLUMNS = ("auctions", "slots", "fills", "at_floor", "revenue_nanos", "price_micros", "bid_micros", "clicks_ppb")
COLUMN = {name: row for row, name in enumerate(COLUMNS)}
# Name, unit, sum above, sum below, and by what the division is divided again: a revenue per thousand pages in currency
# units is nanos per page over 10^6.
_DEFINITIONS = (
    ("expected_revenue_per_thousand_pages", "money", "revenue_nanos", "auctions", 1_000_000),
    ("fill_rate", "share", "fills", "slots", 1),
    ("mean_price", "money", "price_micros", "fills", 1_000_000),
    ("price_over_bid", "share", "price_micros", "bid_micros", 1),
    ("fills_at_floor", "share", "at_floor", "fills", 1),
    ("expected_paid_clicks_per_thousand_pages", "ratio", "clicks_ppb", "auctions", 1_000_000),
)


class Floor(Struct, frozen=True):
    """A floor to replay under: of one placement, or of all; per click, or per thousand impressions."""

    micros: int
    placement_id: str | None = None
    is_per_impression: bool = False


class Changes(Struct, frozen=True, kw_only=True):
    """What is different from the day the auctions were held; nothing by default.

    Attributes:
        rules_off: the retailer's pins and quotas are lifted.
        pricing: `critical`, `vcg` or `first`, instead of each placement's own.
        brand_max, sponsored_max: instead of each placement's own.
        bid_factor_ppm: on every bid.
        without: advertisers who stay away.
    """

    floors: list[Floor] = []
    rules_off: bool = False
    pricing: str | None = None
    brand_max: int | None = None
    sponsored_max: int | None = None
    bid_factor_ppm: int | None = None
    without: list[str] = []

    @property
    def is_nothing(self) -> bool:
        """Say whether this is the day as it was."""
        return self == Changes()


class Difference(Struct, frozen=True):
    """A measure as recorded and as changed; low and high hold 90 % of what resampling auctions makes of the change."""

    name: str
    unit: str
    before: float | None
    after: float | None
    difference: float | None
    low: float | None
    high: float | None


class Party(Struct, frozen=True):
    """What a placement or an advertiser had, and would have."""

    name: str
    fills_before: int
    fills_after: int
    revenue_before_micros: int
    revenue_after_micros: int


class ReplayResult(Struct, frozen=True):
    """What a replay found.

    Attributes:
        same_count: auctions that came back bit for bit under the rules they were held under.
        different: ids of the first few that did not; empty, or something is wrong with the engine or the receipts.
        changed_count: auctions with another fill or price under the changes.
        unknown: what replay cannot know, in sentences.
        differences: empty without changes.
    """

    version: str
    receipt_count: int
    same_count: int
    different: list[str]
    changed_count: int
    changes: list[str]
    unknown: list[str]
    differences: list[Difference]
    placements: list[Party]
    advertisers: list[Party]


def read_changes(
    *,
    floors: Sequence[str] = (),
    rules: str = "on",
    pricing: str | None = None,
    brand_max: int | None = None,
    sponsored_max: int | None = None,
    bid_factor: float | None = None,
    without: Sequence[str] = (),
) -> Changes:
    """Return the changes a command line asks for.

    Args:
        floors: `MICROS`, `PLACEMENT=MICROS` or `PLACEMENT:impression=MICROS` (per thousand).
        rules: `on` or `off`.
        pricing: one of PRICINGS.
        brand_max: most fills of one brand in a placement, from 0.
        sponsored_max: most paid fills in a placement, from 0.
        bid_factor: above 0, at most 10.
        without: advertiser ids.

    Raises:
        ReplayRefused: one of them cannot be.
    """
    if rules not in ("on", "off"):
        raise ReplayRefused(f"--rules must be on or off, was {rules!r}")
    if pricing is not None and pricing not in PRICINGS:
        raise ReplayRefused(f"--pricing must be one of {', '.join(PRICINGS)}, was {pricing!r}")
    for name, most in (("--brand-max", brand_max), ("--sponsored-max", sponsored_max)):
        if most is not None and not 0 <= most <= 50:
            raise ReplayRefused(f"{name} must be 0 to 50, was {most}")
    if bid_factor is not None and not 0 < bid_factor <= 10:
        raise ReplayRefused(f"--bid-factor must be above 0 and at most 10, was {bid_factor}")
    return Changes(
        floors=[_read_floor(text) for text in floors],
        rules_off=rules == "off",
        pricing=pricing,
        brand_max=brand_max,
        sponsored_max=sponsored_max,
        bid_factor_ppm=None if bid_factor is None else max(1, round(bid_factor * PPM)),
        without=list(without),
    )


def replay(folder: Path, changes: Changes, seed: int = 0) -> ReplayResult:
    """Run every auction recorded in a folder again, as it was and under the changes.

    Raises:
        ReplayRefused: no receipts are there, or a change names what none of them knows.
    """
    if not list_segments(folder):
        raise ReplayRefused(f"{folder}: there are no receipts (*.receipts) here")
    unread: list[str] = []
    before = _Seen()
    different: list[str] = []
    for receipt in read_receipts(folder, unread.append):
        again = replay_receipt(receipt)
        if not _is_same(receipt, again):
            different.append(receipt.note.auction_id)
        before.look(receipt)
    if not before.count:
        raise ReplayRefused(f"no receipt in {folder} can be read. {' '.join(unread[:3])}")
    before.check(changes)
    unknown = _unknown(before, changes, unread)
    same_count = before.count - len(different)
    words = _in_words(changes)
    if changes.is_nothing:
        return ReplayResult(version("endcap"), before.count, same_count, different[:10], 0, words, unknown, [], [], [])
    ledger = _Comparison(before.count)
    for row, receipt in enumerate(read_receipts(folder)):
        changed = apply_changes(receipt, changes, before.own_floor)
        ledger.note(row, receipt, changed, replay_receipt(changed), changes)
    return ReplayResult(
        version("endcap"),
        before.count,
        same_count,
        different[:10],
        ledger.changed_count,
        words,
        unknown,
        ledger.differences(seed),
        ledger.parties(ledger.placements),
        ledger.parties(ledger.advertisers),
    )


def replay_receipts(path: str | Path, changes: Changes, out_dir: str | Path, console: "Console | None" = None) -> int:
    """Replay from the command line: `replay.json` and `replay.html` in `out_dir`, and a summary.

    Returns:
        The command's exit code: 0; 1 where an auction did not come back as it was; 2 where something was refused and
        nothing written.
    """
    from rich.console import Console
    from rich.markup import escape

    from sim.replay_report import render_replay, summarise

    console = console or Console()
    try:
        with console.status("replaying"):
            result = replay(Path(path), changes)
    except SimRefused as refusal:
        console.print(f"[red]refused:[/] {escape(str(refusal))}", highlight=False, soft_wrap=True)
        return refusal.exit_code
    write_whole(Path(out_dir) / "replay.json", encode_result(result))
    write_whole(Path(out_dir) / "replay.html", render_replay(result).encode())
    summarise(result, console)
    console.print(f"report: {Path(out_dir) / 'replay.html'}", soft_wrap=True)
    return 1 if result.different else 0


def replay_asked(path: Path, asked: Mapping[str, Any], out_dir: Path, console: "Console | None" = None) -> int:
    """Replay under what a command line asks for (see `read_changes`); return the command's exit code, as above."""
    from rich.console import Console
    from rich.markup import escape

    console = console or Console()
    try:
        changes = read_changes(**asked)
    except SimRefused as refusal:
        console.print(f"[red]refused:[/] {escape(str(refusal))}", highlight=False, soft_wrap=True)
        return refusal.exit_code
    return replay_receipts(path, changes, out_dir, console)


def apply_changes(receipt: Receipt, changes: Changes, own_floor: dict[tuple[str, int], int]) -> Receipt:
    """Return the auction as it would have begun under the changes.

    Args:
        receipt: as recorded.
        changes: what is different.
        own_floor: floor of each (placement, charge) itself, as the receipts show it. A lower one is given to candidates
            that stood on it; a floor above it came from a rule or the score floor, and stays.
    """
    candidates = receipt.candidates
    bid, floor = candidates.bid_micros.copy(), candidates.floor_micros.copy()
    slots = candidates.eligible_slots.copy()
    is_paid = receipt.offer_row >= 0
    if changes.bid_factor_ppm is not None:
        bid[is_paid] = np.minimum(bid[is_paid] * changes.bid_factor_ppm // PPM, 10**9)
    for change in changes.floors:
        charge = 1 if change.is_per_impression else CLICK
        micros = max(1, change.micros // 1000 if change.is_per_impression else change.micros)
        for number, place in enumerate(receipt.note.places):
            if change.placement_id in (None, place.placement_id):
                own = own_floor.get((place.placement_id, charge), 0)
                concerned = is_paid & (receipt.place == number) & (candidates.charge_code == charge)
                lowered = concerned & (candidates.floor_micros <= own)
                floor[concerned] = np.maximum(floor[concerned], micros)
                floor[lowered] = micros
    if changes.without:
        away = {row for row, offer in receipt.offers.items() if offer.advertiser_id in changes.without}
        slots[np.isin(receipt.offer_row, np.array(sorted(away), dtype=np.int64))] = 0
    return msgspec.structs.replace(
        receipt,
        candidates=candidates._replace(bid_micros=bid, floor_micros=floor, eligible_slots=slots),
        page=_with_caps(receipt, changes),
    )


def billed_micros(place: PlaceNote, pricing: str | None, slot: int, outcome: OutcomeArrays, bids: Int64s) -> int:
    """Return what the fill of a slot would be billed per event, by the placement's pricing or another."""
    rule = pricing or place.pricing
    if rule == "first":
        return int(bids[outcome.winner_row[slot]])
    return int((outcome.vcg_micros if rule == "vcg" else outcome.critical_micros)[slot])


class _Seen:
    """What the receipts know of, gathered while they are run as they were."""

    def __init__(self) -> None:
        self.count = self.partial_count = self.with_rules_count = self.below_floor_count = self.cut_count = 0
        self.own_floor: dict[tuple[str, int], int] = {}
        self.placement_ids: set[str] = set()
        self.advertiser_ids: set[str] = set()

    def look(self, receipt: Receipt) -> None:
        """Take note of one auction."""
        note, candidates = receipt.note, receipt.candidates
        self.count += 1
        self.partial_count += note.is_partial
        self.with_rules_count += any(place.rule_ids for place in note.places)
        below = (LossReason.BELOW_FLOOR, LossReason.BELOW_SCORE_FLOOR)
        self.below_floor_count += int(np.isin(receipt.lost_reason, below).sum())
        self.cut_count += note.lost_count > len(receipt.lost_row)
        self.placement_ids.update(place.placement_id for place in note.places)
        self.advertiser_ids.update(offer.advertiser_id for offer in receipt.offers.values())
        is_paid = receipt.offer_row >= 0
        for number, place in enumerate(note.places):
            for charge in (0, 1):
                floors = candidates.floor_micros[
                    is_paid & (receipt.place == number) & (candidates.charge_code == charge)
                ]
                if floors.size:
                    key = (place.placement_id, charge)
                    least = int(floors.min())
                    self.own_floor[key] = min(self.own_floor.get(key, least), least)

    def check(self, changes: Changes) -> None:
        """Refuse changes that speak of what was not there.

        Raises:
            ReplayRefused: an unknown placement or advertiser.
        """
        for floor in changes.floors:
            if floor.placement_id is not None and floor.placement_id not in self.placement_ids:
                known = ", ".join(sorted(self.placement_ids))
                raise ReplayRefused(f"--floor: no receipt is of placement {floor.placement_id!r}; there are: {known}")
        for name in changes.without:
            if name not in self.advertiser_ids:
                raise ReplayRefused(f"--without: advertiser {name!r} took part in no recorded auction")

    def lowers_a_floor(self, changes: Changes) -> bool:
        """Say whether one of the new floors is under what the receipts were held with."""
        for change in changes.floors:
            charge, divisor = (1, 1000) if change.is_per_impression else (0, 1)
            for (placement_id, of_charge), own in self.own_floor.items():
                is_meant = of_charge == charge and change.placement_id in (None, placement_id)
                if is_meant and change.micros // divisor < own:
                    return True
        return False


class _Comparison:
    """Totals per auction as recorded and as changed, and who gains or loses by it."""

    def __init__(self, count: int) -> None:
        self.before = np.zeros((count, len(COLUMNS)), dtype=np.int64)
        self.after = np.zeros((count, len(COLUMNS)), dtype=np.int64)
        self.changed_count = 0
        self.placements: dict[str, list[int]] = {}
        self.advertisers: dict[str, list[int]] = {}

    def note(self, row: int, recorded: Receipt, changed: Receipt, outcome: OutcomeArrays, changes: Changes) -> None:
        """Count one auction."""
        first = self._count(self.before[row], recorded, recorded.outcome, None, 0)
        second = self._count(self.after[row], changed, outcome, changes.pricing, 1)
        self.changed_count += first != second

    def _count(
        self, totals: Int64s, receipt: Receipt, outcome: OutcomeArrays, pricing: str | None, side: int
    ) -> list[tuple[int, int, int]]:
        """Add up one auction; return its paid fills as (slot, winner, price)."""
        found: list[tuple[int, int, int]] = []
        candidates, attention = receipt.candidates, receipt.page.attention_permille
        totals[COLUMN["auctions"]] += 1
        for place in receipt.note.places:
            parts = self.placements.setdefault(place.placement_id, [0, 0, 0, 0])
            for slot in range(place.first_slot, place.first_slot + place.slot_count):
                totals[COLUMN["slots"]] += 1
                winner = int(outcome.winner_row[slot])
                if winner == NO_CANDIDATE or receipt.offer_row[winner] < 0:
                    continue
                price = billed_micros(place, pricing, slot, outcome, candidates.bid_micros)
                charge = int(candidates.charge_code[winner])
                clicks_ppb = int(receipt.quality_ppm[winner]) * int(attention[CLICK, slot])
                revenue_nanos = price * (clicks_ppb if charge == CLICK else 1_000_000_000) // 1_000_000
                found.append((slot, winner, price))
                totals[COLUMN["fills"]] += 1
                totals[COLUMN["at_floor"]] += price <= int(candidates.floor_micros[winner])
                totals[COLUMN["revenue_nanos"]] += revenue_nanos
                totals[COLUMN["price_micros"]] += price
                totals[COLUMN["bid_micros"]] += int(candidates.bid_micros[winner])
                totals[COLUMN["clicks_ppb"]] += clicks_ppb
                offer = receipt.offers[int(receipt.offer_row[winner])]
                for mine in (parts, self.advertisers.setdefault(offer.advertiser_id, [0, 0, 0, 0])):
                    mine[side] += 1
                    mine[2 + side] += revenue_nanos
        return found

    def differences(self, seed: int) -> list[Difference]:
        """Return every measure before and after, with intervals of the difference by resampling auctions in pairs."""
        both = np.concatenate([self.before, self.after], axis=1)
        drawn = resample(both, RESAMPLES, seed, "replay")
        width = len(COLUMNS)
        total = both.sum(axis=0, dtype=np.int64)
        found = []
        for name, unit, above, below, divisor in _DEFINITIONS:
            ends = [
                after - before
                for again in drawn
                if (before := _divide(again[:width], above, below, divisor)) is not None
                and (after := _divide(again[width:], above, below, divisor)) is not None
            ]
            before_value = _divide(total[:width], above, below, divisor)
            after_value = _divide(total[width:], above, below, divisor)
            change = None if before_value is None or after_value is None else after_value - before_value
            low, high = interval(ends) if ends else (None, None)
            found.append(Difference(name, unit, *map(_rounded, (before_value, after_value, change, low, high))))
        return found

    def parties(self, kept: dict[str, list[int]]) -> list[Party]:
        """Return the totals of each, the greatest change of revenue first."""
        found = [Party(name, t[0], t[1], t[2] // 1000, t[3] // 1000) for name, t in kept.items()]
        return sorted(found, key=lambda one: (-abs(one.revenue_after_micros - one.revenue_before_micros), one.name))


def _divide(totals: Int64s, above: str, below: str, divisor: int) -> float | None:
    denominator = int(totals[COLUMN[below]]) * divisor
    return int(totals[COLUMN[above]]) / denominator if denominator else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 9)


def _is_same(receipt: Receipt, again: OutcomeArrays) -> bool:
    recorded = receipt.outcome
    return all(
        np.array_equal(getattr(recorded, name), getattr(again, name))
        for name in ("winner_row", "critical_micros", "vcg_micros", "threshold_micros", "pick_order")
    )


def _with_caps(receipt: Receipt, changes: Changes) -> PageArrays:
    """Return the page with other caps; nothing but bookings stands there by hand where rules are off."""
    page, places = receipt.page, receipt.note.places
    caps = [
        (int(bits), int(per_brand), int(slots), int(most))
        for bits, per_brand, slots, most in zip(
            page.cap_bits, page.cap_per_brand, page.cap_slots, page.cap_max, strict=True
        )
    ]
    of_places = {((1 << place.slot_count) - 1) << place.first_slot for place in places}
    pinned = page.pinned_row
    if changes.rules_off:
        caps = [cap for cap in caps if cap[0] < GROUP_FIRST_FREE or cap[0] & CAP_OF_VISITOR]
        is_booked = (pinned >= 0) & (receipt.candidates.advertiser_code[pinned] >= 0)
        pinned = np.where(is_booked, pinned, NO_PIN)
    for bits, per_brand, most in ((GROUP_EVERYONE, 1, changes.brand_max), (GROUP_PAID, 0, changes.sponsored_max)):
        if most is not None:
            caps = [cap for cap in caps if not (cap[:2] == (bits, per_brand) and cap[2] in of_places)]
            caps += [(bits, per_brand, slots, most) for slots in sorted(of_places)]
    return page._replace(
        pinned_row=pinned,
        cap_bits=np.array([cap[0] for cap in caps], np.uint64),
        cap_per_brand=np.array([cap[1] for cap in caps], np.int8),
        cap_slots=np.array([cap[2] for cap in caps], np.uint64),
        cap_max=np.array([cap[3] for cap in caps], np.int64),
    )


def _read_floor(text: str) -> Floor:
    where, equals, amount = text.rpartition("=")
    if not amount.isdecimal() or int(amount) > 10**9 or (equals and not where):
        raise ReplayRefused(
            f"--floor must be MICROS, PLACEMENT=MICROS or PLACEMENT:impression=MICROS, up to 10^9, was {text!r}"
        )
    placement_id, colon, charge = where.partition(":")
    if colon and charge != "impression":
        raise ReplayRefused(f"--floor: after the colon only `impression` may stand, was {charge!r}")
    micros = int(amount)
    if colon and micros % 1000:
        raise ReplayRefused(f"--floor: a floor per thousand impressions must be a multiple of 1000, was {micros}")
    return Floor(micros, placement_id or None, bool(colon))


def _in_words(changes: Changes) -> list[str]:
    words = []
    for floor in changes.floors:
        where = floor.placement_id or "every placement"
        per = "thousand impressions" if floor.is_per_impression else "click"
        words.append(f"floor of {where}: {floor.micros:,} micros per {per}")
    if changes.rules_off:
        words.append("retailer rules off: pins and quotas lifted")
    if changes.pricing is not None:
        words.append(f"pricing: {changes.pricing}")
    if changes.brand_max is not None:
        words.append(f"at most {changes.brand_max} fills of one brand in a placement")
    if changes.sponsored_max is not None:
        words.append(f"at most {changes.sponsored_max} paid fills in a placement")
    if changes.bid_factor_ppm is not None:
        words.append(f"every bid times {changes.bid_factor_ppm / PPM:g}")
    words += [f"without {name}" for name in changes.without]
    return words


def _unknown(seen: _Seen, changes: Changes, unread: Sequence[str]) -> list[str]:
    """Say what this replay cannot know, the most important first."""
    found = list(unread)
    if seen.partial_count:
        found.append(
            f"{seen.partial_count:,} of {seen.count:,} auctions had run out of time and held fewer candidates."
        )
    if changes.is_nothing:
        return found
    found.append("Bids are held as they were: advertisers who would react to the change do not react here.")
    found.append("Clicks are modelled, by the quality each auction was ranked with and the placement's attention.")
    found.append("Budgets ran out when they did; more or less spend under the change does not move that.")
    if seen.lowers_a_floor(changes):
        found.append(
            f"A floor is lowered, but the {seen.below_floor_count:,} candidates that had been under theirs are recorded"
            " without their bids and do not come back: new fills are missing, so the change looks worse than it is."
        )
    if changes.rules_off:
        found.append(
            f"{seen.with_rules_count:,} of {seen.count:,} auctions were touched by rules. Their pins and quotas are "
            "lifted; what was boosted stays boosted, and what was excluded does not come back."
        )
    takes_away = (
        changes.floors or changes.without or changes.brand_max is not None or changes.bid_factor_ppm is not None
    )
    if takes_away:
        found.append(
            "Each auction looked at candidates until no other could matter then; one that was not looked at cannot "
            "step in for one that the change takes out."
        )
    return found
