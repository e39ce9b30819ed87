"""Invalid traffic that nobody could tell when it arrived: the days of a month, looked at once they are over.

Reads events and touches, and says which of them no shopper sent and by which rule; `finding.py` undoes their charges.
The rules, each with its version in `traffic.py: RULES`; the first that applies is the reason, and the last
looks at what the others left:

- `flood`: a visitor who had far more clicks that day than visitors have (`flood.py`); all of them.
- `swept_page`: four fills of one page clicked within ten seconds; every click on that page.
- `regular_clicks`: ten clicks of a visitor or more, spaced as by a clock: the MAD of the times between them is under a
  twentieth of their median.
- `repeated_click`: as on arrival, whatever the writer had forgotten.
- `clicks_without_view`: five clicks of a visitor or more and no view of any, where most visitors view what they click.
- `placement_pattern`: far more clicks in an hour of a campaign on a placement than its impressions bring in its other
  hours there; of these the clicks of nobody known, since visitors are judged for themselves. How far is a robust
  z-score of 2√clicks − 2√expected, whose spread chance alone makes 1 (Anscombe, 1948), over that placement's hours.

Whoever is judged is judged by the same day's others, through medians, so that no flood raises the measure it is held
against. Clicks of visitors who gave no consent, or were erased, are known by their page and campaign only.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median

from sqlalchemy.engine import Connection

from ledger import store
from ledger.calendar import Calendar
from ledger.command import Finding
from ledger.flood import SOURCE_COUNT_MIN, Z_PER_MAD, find_floods
from ledger.settings import Settings
from ledger.store import ClickRow
from ledger.traffic import (
    CLICKS_WITHOUT_VIEW,
    FLOOD,
    INVALID_CODES,
    PLACEMENT_PATTERN,
    REGULAR_CLICKS,
    REPEATED_CLICK,
    RULES,
    SWEPT_PAGE,
)

HOUR_MS = 3_600_000
FINDING_COUNT_MAX = 250  # in one command, so that events wait for it no longer than for one another
SWEPT_SLOT_COUNT = 4
SWEPT_MS = 10_000
REGULAR_CLICK_COUNT = 10
REGULAR_GAP_MS_MIN = 1_000  # what is closer together was told together
REGULAR_SPREAD_MAX = 0.05  # of the median
UNSEEN_CLICK_COUNT = 5
USUAL_VIEWER_SHARE = 0.5
PATTERN_CLICK_COUNT = 10
PATTERN_SHOWN_COUNT = 20  # impressions under which a rate says nothing
PATTERN_HOUR_COUNT = 6  # hours under which a campaign has no rate of its own

Found = set[int]  # sequence numbers of events
Cell = tuple[str, str, int]  # placement, campaign, hour since 1970


def inspect_period(
    connection: Connection, retailer_id: str, period: str, settings: Settings, now_ms: int
) -> Iterator[list[Finding]]:
    """Yield what is found of each day of a month that is over, in the order of the days.

    What was found before is found again: days are judged as a whole each time. One day is in memory at once.
    """
    if settings.invalid_traffic != "on":
        return
    today = Calendar(settings.time_zone).day(now_ms)
    for day, first_seq, last_seq in store.list_event_days(connection, retailer_id, period):
        if day < today:
            clicks = store.read_clicks(connection, retailer_id, day, first_seq, last_seq, INVALID_CODES)
            shown = store.count_shown(connection, retailer_id, day, first_seq, last_seq, HOUR_MS, INVALID_CODES)
            yield inspect_day(clicks, shown, settings)


def find_new(
    connection: Connection, retailer_id: str, period: str, settings: Settings, now_ms: int
) -> list[list[Finding]]:
    """Return what is found of a month that was not found before, in the portions the writer takes; none once sealed."""
    if period <= store.last_sealed(connection, retailer_id):
        return []
    portions: list[list[Finding]] = []
    for found in inspect_period(connection, retailer_id, period, settings, now_ms):
        for some in _portions(found):
            known = store.read_found(connection, retailer_id, [one.event_seq for one in some])
            portions.append([one for one in some if one.event_seq not in known])
    return [some for some in portions if some]


def find_before_seal(
    connection: Connection, retailer_id: str, period: str, settings: Settings, now_ms: int
) -> list[list[Finding]]:
    """Return what is found of a month that is closed softly, as `find_new` does; nothing of another."""
    stages = {one.stage for one in store.list_closings(connection, retailer_id) if one.period == period}
    return find_new(connection, retailer_id, period, settings, now_ms) if stages == {"soft"} else []


def inspect_day(clicks: Sequence[ClickRow], shown: Mapping[Cell, int], settings: Settings) -> list[Finding]:
    """Return what is found of one day, in the order the events were recorded.

    Args:
        clicks: the day's, in that order.
        shown: its impressions by placement, campaign and hour since 1970.
    """
    rules: list[tuple[str, Callable[[Sequence[ClickRow]], Found]]] = [
        (FLOOD, lambda _: _floods(clicks, settings.flood_z_max)),
        (SWEPT_PAGE, lambda _: _swept_pages(clicks)),
        (REGULAR_CLICKS, lambda _: _regular_clicks(clicks)),
        (REPEATED_CLICK, lambda left: _repeated_clicks(left, settings.repeated_click_s * 1000)),
        (CLICKS_WITHOUT_VIEW, lambda _: _clicks_without_view(clicks)),
        (PLACEMENT_PATTERN, lambda left: _placement_patterns(left, shown, settings.flood_z_max)),
    ]
    found: list[Finding] = []
    left = [one for one in clicks if one.code not in INVALID_CODES]
    for rule, look in rules:
        new = look(left)
        found += [Finding(one.seq, rule, RULES[rule]) for one in left if one.seq in new]
        left = [one for one in left if one.seq not in new]
    return sorted(found, key=lambda one: one.event_seq)


def _portions(findings: Sequence[Finding]) -> Iterator[Sequence[Finding]]:
    for first in range(0, len(findings), FINDING_COUNT_MAX):
        yield findings[first : first + FINDING_COUNT_MAX]


def _floods(clicks: Sequence[ClickRow], z_max: float) -> Found:
    known = [one for one in clicks if one.visitor is not None]
    floods = find_floods((one.visitor for one in known), z_max) | {one.visitor for one in known if one.code == FLOOD}
    return {one.seq for one in known if one.visitor in floods}


def _swept_pages(clicks: Sequence[ClickRow]) -> Found:
    found: Found = set()
    for some in _by(clicks, lambda one: one.auction_id):
        at_ms = sorted(one.occurred_at_ms for one in some)
        if any(last - first <= SWEPT_MS for first, last in zip(at_ms, at_ms[SWEPT_SLOT_COUNT - 1 :], strict=False)):
            found.update(one.seq for one in some)
    return found


def _regular_clicks(clicks: Sequence[ClickRow]) -> Found:
    found: Found = set()
    for some in _by(clicks, lambda one: one.visitor):
        if len(some) < REGULAR_CLICK_COUNT:
            continue
        at_ms = sorted(one.occurred_at_ms for one in some)
        gaps = [after - before for before, after in pairwise(at_ms)]
        usual = median(gaps)
        if usual >= REGULAR_GAP_MS_MIN and median(abs(gap - usual) for gap in gaps) < REGULAR_SPREAD_MAX * usual:
            found.update(one.seq for one in some)
    return found


def _repeated_clicks(clicks: Sequence[ClickRow], window_ms: int) -> Found:
    found: Found = set()
    charged = [one for one in clicks if one.visitor is not None and one.amount_micros]
    for some in _by(charged, lambda one: (one.visitor, one.campaign_id, one.product_id)):
        last_ms: int | None = None
        for one in sorted(some, key=lambda one: (one.occurred_at_ms, one.seq)):
            if last_ms is not None and one.occurred_at_ms - last_ms < window_ms:
                found.add(one.seq)
            else:
                last_ms = one.occurred_at_ms
    return found


def _clicks_without_view(clicks: Sequence[ClickRow]) -> Found:
    """Judge by visitors, not by clicks: a flood is many clicks but one visitor."""
    viewers: dict[str, dict[bytes, bool]] = defaultdict(dict)  # by placement, whether each visitor viewed
    for one in clicks:
        if one.visitor is not None:
            visitors = viewers[one.placement_id]
            visitors[one.visitor] = visitors.get(one.visitor, False) or one.is_viewed
    usual = {
        placement_id
        for placement_id, visitors in viewers.items()
        if sum(visitors.values()) >= USUAL_VIEWER_SHARE * len(visitors)
    }
    found: Found = set()
    for some in _by(clicks, lambda one: one.visitor):
        there = [one for one in some if one.placement_id in usual]
        if len(there) >= UNSEEN_CLICK_COUNT and not any(one.is_viewed for one in some):
            found.update(one.seq for one in there)
    return found


def _placement_patterns(clicks: Sequence[ClickRow], shown: Mapping[Cell, int], z_max: float) -> Found:
    clicked: dict[Cell, list[ClickRow]] = defaultdict(list)
    for one in clicks:
        clicked[one.placement_id, one.campaign_id, one.occurred_at_ms // HOUR_MS].append(one)
    hours: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell, count in shown.items():
        if count >= PATTERN_SHOWN_COUNT:
            hours[cell[:2]].append(cell)
    beyond: dict[str, dict[Cell, float]] = defaultdict(dict)  # by placement, how far each hour is beyond its campaign
    for (placement_id, _), cells in hours.items():
        if len(cells) >= PATTERN_HOUR_COUNT:
            rate = median(len(clicked.get(cell, ())) / shown[cell] for cell in cells)
            for cell in cells:
                beyond[placement_id][cell] = 2 * (
                    math.sqrt(len(clicked.get(cell, ())) + 3 / 8) - math.sqrt(rate * shown[cell] + 3 / 8)
                )
    found: Found = set()
    for of_placement in beyond.values():
        middle = median(of_placement.values())
        spread = max(median(abs(one - middle) for one in of_placement.values()) / Z_PER_MAD, 1)
        for cell, far in of_placement.items():
            is_far = len(of_placement) >= SOURCE_COUNT_MIN and far - middle > z_max * spread
            if is_far and len(clicked.get(cell, ())) >= PATTERN_CLICK_COUNT:
                found.update(one.seq for one in clicked[cell] if one.visitor is None)
    return found


def _by(clicks: Iterable[ClickRow], key: Callable[[ClickRow], object]) -> Iterable[list[ClickRow]]:
    """Return clicks that belong together; those of nobody belong nowhere."""
    groups: dict[object, list[ClickRow]] = defaultdict(list)
    for one in clicks:
        of = key(one)
        if of is not None:
            groups[of].append(one)
    return groups.values()
