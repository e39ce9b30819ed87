"""A day of clicks: ten thousand ordinary visitors, and among them robots of several kinds.

How often and how fast ordinary visitors click are quantiles of real ones: clicks of a session in a day, and the time
between two, of 21,210 sessions of a web shop (YOOCHOOSE, RecSys Challenge 2015, one week of April 2014).
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from ledger.event import EventType
from ledger.inspection import HOUR_MS, inspect_day
from ledger.intake import Received
from ledger.money import Micros
from ledger.settings import Settings
from ledger.store import ClickRow
from ledger.terms import ChargeOn, ChargeTerms
from ledger.traffic import INVALID_CODES
from ledger.watch import TrafficWatch

CLICKS = [
    (0.0, 2), (0.25, 2), (0.5, 3), (0.75, 4), (0.9, 7), (0.95, 10), (0.99, 18), (0.997, 26), (0.999, 33), (0.9995, 36),
    (0.9998, 48), (0.9999, 56), (1.0, 78),
]  # fmt: skip
GAPS_MS = [
    (0.0, 300), (0.1, 9_794), (0.25, 24_384), (0.5, 54_981), (0.75, 127_254), (0.9, 296_136), (0.95, 525_687),
    (0.99, 1_713_495), (1.0, 5_365_471),
]  # fmt: skip
MINUTE_MS = 60_000
DAY_MS = 24 * HOUR_MS
CLICK_RATE = 0.02
PLACEMENTS, CAMPAIGNS, PRODUCTS = 4, 30, 500
NOBODY = bytes(16)


class Click(Struct, frozen=True):
    """One click, who sent it, and whether a robot did (`kind`, empty for a shopper)."""

    at_ms: int
    visitor: bytes
    client_key: int | None
    page: str
    campaign: int
    product: int
    is_viewed: bool
    kind: str


class Day:
    """Makes a day's clicks.

    Args:
        seed: of all chance.
        begins_at_ms: when it begins.
    """

    def __init__(self, seed: int, begins_at_ms: int) -> None:
        self.chance = random.Random(seed)
        self.begins_at_ms = begins_at_ms
        self.clicks: list[Click] = []

    def draw(self, quantiles: Sequence[tuple[float, int]]) -> int:
        """Return a number as often as it is between those quantiles."""
        share = self.chance.random()
        for (low, least), (high, most) in pairwise(quantiles):
            if share <= high:
                return round(least + (most - least) * (share - low) / (high - low))
        raise AssertionError("the last quantile is 1")

    def add(self, at_ms: float, visitor: bytes, client_key: int | None, kind: str = "", **other: object) -> None:
        """Add a click, on any fill unless it is said which."""
        chance = self.chance
        made = Click(
            round(min(max(at_ms, self.begins_at_ms), self.begins_at_ms + DAY_MS - 1)), visitor, client_key,
            page=f"auc{chance.getrandbits(64):x}", campaign=chance.randrange(CAMPAIGNS),
            product=chance.randrange(PRODUCTS), is_viewed=chance.random() < 0.9, kind=kind,
        )  # fmt: skip
        self.clicks.append(replace(made, **other))

    def shoppers(self, count: int) -> None:
        """Add ordinary visitors; three in ten gave no consent, one in ten shares an office's address and browser."""
        chance = self.chance
        for _ in range(count):
            visitor = NOBODY if chance.random() < 0.3 else chance.randbytes(16)
            client_key = chance.randrange(count // 100) if chance.random() < 0.1 else chance.getrandbits(64)
            at_ms = self.begins_at_ms + 7 * HOUR_MS + chance.random() * 15 * HOUR_MS
            page: dict[str, object] = {}
            for _ in range(self.draw(CLICKS)):
                self.add(at_ms, visitor, client_key, **page)
                at_ms += self.draw(GAPS_MS)
                page = {"page": self.clicks[-1].page} if chance.random() < 0.05 else {}

    def robots(self) -> None:
        """Add one flood or more of each kind."""
        chance = self.chance
        later = lambda hours: self.begins_at_ms + (8 + hours * chance.random()) * HOUR_MS  # noqa: E731
        for _ in range(5):  # one visitor, as fast as it can
            at_ms, visitor, client = later(10), chance.randbytes(16), chance.getrandbits(64)
            for _ in range(chance.randint(150, 900)):
                at_ms += chance.uniform(500, 4_000)
                self.add(at_ms, visitor, client, "fast visitor")
        for _ in range(3):  # one browser that drops its cookie each time
            at_ms, client = later(10), chance.getrandbits(64)
            for _ in range(chance.randint(300, 900)):
                at_ms += chance.uniform(500, 4_000)
                self.add(at_ms, chance.randbytes(16), client, "fast browser")
        for _ in range(20):  # slow, by the clock
            at_ms, visitor, every_ms = later(8), chance.randbytes(16), chance.uniform(40_000, 400_000)
            for _ in range(chance.randint(12, 40)):
                at_ms += every_ms * chance.uniform(0.98, 1.02)
                self.add(at_ms, visitor, chance.getrandbits(64), "clockwork")
        for _ in range(60):  # every slot of a page
            at_ms, page = later(12), f"swept{chance.getrandbits(64):x}"
            for _ in range(chance.randint(4, 8)):
                at_ms += chance.uniform(50, 1_500)
                self.add(at_ms, NOBODY, chance.getrandbits(64), "sweep", page=page)
        for _ in range(30):  # fetches links, and never renders a page
            at_ms, visitor = later(10), chance.randbytes(16)
            for _ in range(chance.randint(5, 12)):
                at_ms += self.draw(GAPS_MS)
                self.add(at_ms, visitor, chance.getrandbits(64), "no view", is_viewed=False)
        for campaign in chance.sample(range(CAMPAIGNS), 2):  # nobody known, drains a rival's campaign
            begins_at_ms = later(10) // HOUR_MS * HOUR_MS
            for _ in range(chance.randint(250, 500)):
                at_ms = begins_at_ms + chance.random() * HOUR_MS
                self.add(at_ms, NOBODY, None, "drain", campaign=campaign, product=campaign)


class Judged(Struct, frozen=True):
    """How many events of each kind there were, how many were found on arrival and afterwards; shoppers' by rule."""

    sent: Counter[str]
    on_arrival: Counter[str]
    afterwards: Counter[str]
    wrong: Counter[str]

    def found_share(self, *kinds: str) -> float:
        """Return which part of the events of some kinds were found."""
        found = sum(self.on_arrival[kind] + self.afterwards[kind] for kind in kinds)
        return found / sum(self.sent[kind] for kind in kinds)


def judge(day: Day, settings: Settings) -> Judged:
    """Send a day through the watch at the door, then have it inspected."""
    watch = TrafficWatch(settings)
    clicks = sorted(day.clicks, key=lambda one: one.at_ms)
    rows: list[ClickRow] = []
    for seq, one in enumerate(clicks, 1):
        received = received_of(one)
        watch.begin(one.at_ms)
        code = watch.judge(received)
        if code is None:
            watch.charged(received)
        watch.keep()
        terms = received.terms
        assert terms.campaign_id is not None
        visitor = None if one.visitor == NOBODY else one.visitor
        rows.append(
            ClickRow(
                seq, one.page, 1, terms.placement_id, terms.product_id, terms.campaign_id, code,
                0 if code else 1, one.at_ms, visitor, one.is_viewed,
            )
        )  # fmt: skip
    found = {one.event_seq: one.rule for one in inspect_day(rows, shown(rows, clicks), settings)}
    sent, on_arrival, afterwards, wrong = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for one, row in zip(clicks, rows, strict=True):
        sent[one.kind] += 1
        on_arrival[one.kind] += row.code in INVALID_CODES
        afterwards[one.kind] += row.seq in found
        rule = found.get(row.seq, row.code)
        if rule is not None and not one.kind:
            wrong[rule] += 1
    return Judged(sent, on_arrival, afterwards, wrong)


def received_of(click: Click) -> Received:
    """Return a click as the writer has it."""
    terms = ChargeTerms(
        auction_id=click.page,
        placement_id=f"placement-{click.campaign % PLACEMENTS}",
        slot_position=1,
        product_id=f"p{click.product}",
        is_sponsored=True,
        advertiser_id="adv-1",
        campaign_id=f"cmp-{click.campaign}",
        bid_id="bid-1",
        charge_on=ChargeOn.CLICK,
        price_micros=Micros(7_919),
        quality_ppm=1,
        visitor_pseudonym=click.visitor,
        variant=None,
        issued_at_ms=click.at_ms,
    )
    return Received("e", EventType.CLICK, "t", terms, None, click.at_ms, "", None, False, click.client_key)


def shown(rows: Sequence[ClickRow], clicks: Sequence[Click]) -> dict[tuple[str, str, int], int]:
    """Return the impressions ordinary clicks come of, and one for each of a robot's."""
    counts: dict[tuple[str, str, int], float] = defaultdict(float)
    for row, click in zip(rows, clicks, strict=True):
        cell = row.placement_id, row.campaign_id, row.occurred_at_ms // HOUR_MS
        counts[cell] += 1 if click.kind else 1 / CLICK_RATE
    return {cell: round(count) for cell, count in counts.items()}
