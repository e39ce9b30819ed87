"""The mechanism of DESIGN.md §4 as one would draw it on a whiteboard: Fractions, plain loops, no thought for speed.

Money in micros, attention and weights as fractions of one. Written from the formulas, sharing nothing with the kernel.
"""

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction

ALWAYS = math.inf  # value of a pin: nothing comes before it


@dataclass(frozen=True)
class Ad:
    """One candidate; `advertiser` None makes it organic."""

    name: str
    product: str
    brand: str
    advertiser: str | None
    charge: str
    bid: int
    weight: Fraction
    value: Fraction = Fraction(0)
    floor: int = 0
    tie: int = 0  # lower wins
    slots: frozenset[int] | None = None  # None: every slot
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Cap:
    """At most `maximum` fills among `slots` for ads in `group` (None: everybody, "paid": the paid ones)."""

    slots: frozenset[int]
    maximum: int
    group: str | None = None
    per_brand: bool = False

    def counts(self, ad: Ad) -> bool:
        if self.group == "paid":
            return ad.advertiser is not None
        return self.group is None or self.group in ad.groups

    def binds(self, ad: Ad, slot: int) -> bool:
        return slot in self.slots and self.counts(ad)

    def is_full(self, ad: Ad, fills: dict[int, Ad]) -> bool:
        """Say whether `ad` finds no room left."""
        standing = [
            other
            for slot, other in fills.items()
            if slot in self.slots and self.counts(other) and (not self.per_brand or other.brand == ad.brand)
        ]
        return len(standing) >= self.maximum


@dataclass(frozen=True)
class Page:
    attention: dict[str, list[Fraction]]
    ads: list[Ad]
    caps: list[Cap] = field(default_factory=list)
    pins: dict[int, Ad] = field(default_factory=dict)
    opportunity_cost: dict[int, Fraction] = field(default_factory=dict)
    score_floor: Fraction = Fraction(0)

    @property
    def slot_count(self) -> int:
        return max(len(profile) for profile in self.attention.values())


@dataclass(frozen=True)
class Pick:
    ad: Ad
    slot: int
    value: Fraction


def score(ad: Ad) -> Fraction:
    return ad.weight * ad.bid + ad.value


def pair_value(page: Page, ad: Ad, slot: int) -> Fraction:
    return page.attention[ad.charge][slot] * score(ad)


def eager_floor(page: Page, ad: Ad) -> int:
    if ad.advertiser is None:
        return 0
    return max(ad.floor, math.ceil((page.score_floor - ad.value) / ad.weight))


def may_stand(page: Page, ad: Ad, slot: int) -> bool:
    """Say whether nothing but the other fills keeps the ad out of the slot."""
    if ad.slots is not None and slot not in ad.slots:
        return False
    if ad.advertiser is not None and pair_value(page, ad, slot) < page.opportunity_cost.get(slot, 0):
        return False
    return pair_value(page, ad, slot) > 0


def run(page: Page, ads: list[Ad], before: list[Pick]) -> list[Pick]:
    """Return the picks after `before`, best pair first."""
    fills = page.pins | {pick.slot: pick.ad for pick in before}
    picks = []
    while True:
        pairs = [
            (-pair_value(page, ad, slot), slot, ad.tie, ad)
            for ad in ads
            for slot in range(page.slot_count)
            if slot not in fills
            and may_stand(page, ad, slot)
            and all(ad.product != other.product for other in fills.values())
            and not any(cap.binds(ad, slot) and cap.is_full(ad, fills) for cap in page.caps)
        ]
        if not pairs:
            return picks
        value, slot, _, ad = min(pairs, key=lambda pair: pair[:3])
        fills[slot] = ad
        picks.append(Pick(ad, slot, -value))


def taking_part(page: Page) -> list[Ad]:
    return [ad for ad in page.ads if ad.advertiser is None or ad.bid >= eager_floor(page, ad)]


def allocate(page: Page) -> list[Pick]:
    return run(page, taking_part(page), [])


def without(page: Page, picks: list[Pick], step: int) -> list[Pick]:
    """Return the run resumed just before `step`, without its advertiser's candidates not picked by then."""
    before = picks[:step]
    advertiser = picks[step].ad.advertiser
    rest = [ad for ad in taking_part(page) if ad.advertiser != advertiser]
    return before + run(page, rest, before)


def beats(ad: Ad, slot: int, other: Ad, other_slot: int) -> bool:
    """Say whether the first pair comes first although both are worth the same."""
    return (slot, ad.tie) < (other_slot, other.tie)


def obstacles(page: Page, ad: Ad, slot: int, rivals: list[Pick]) -> list[tuple[float | Fraction, bool]]:
    """Return values the pair has to reach, and whether reaching is enough."""
    found: list[tuple[float | Fraction, bool]] = [(Fraction(0), False)]
    found.append((Fraction(page.opportunity_cost.get(slot, 0)), True))
    found += [(pick.value, beats(ad, slot, pick.ad, slot)) for pick in rivals if pick.slot == slot]
    fills = dict(page.pins)  # values at which a constraint on the pair became full
    if any(pin.product == ad.product for pin in fills.values()) or any(
        cap.binds(ad, slot) and cap.is_full(ad, fills) for cap in page.caps
    ):
        return [(ALWAYS, False)]
    for pick in rivals:
        before = dict(fills)
        fills[pick.slot] = pick.ad
        became_full = any(
            cap.binds(ad, slot) and cap.is_full(ad, fills) and not cap.is_full(ad, before) for cap in page.caps
        )
        if became_full or pick.ad.product == ad.product:
            found.append((pick.value, beats(ad, slot, pick.ad, pick.slot)))
    return found


def threshold(page: Page, ad: Ad, slot: int, rivals: list[Pick]) -> int | None:
    """Return the least bid with which the ad takes the slot from everybody in `rivals`; None if no bid does."""
    attention = page.attention[ad.charge][slot]
    if attention == 0 or (ad.slots is not None and slot not in ad.slots) or slot in page.pins:
        return None
    least = eager_floor(page, ad)
    for value, is_enough in obstacles(page, ad, slot, rivals):
        if value == ALWAYS:
            return None
        bid = max(0, math.ceil((Fraction(value) / attention - ad.value) / ad.weight))
        if not is_enough and attention * (ad.weight * bid + ad.value) == value:
            bid += 1
        least = max(least, bid)
    return least


@dataclass(frozen=True)
class Price:
    critical: int
    vcg: int
    thresholds: dict[int, int]


def price(page: Page, picks: list[Pick], step: int) -> Price:
    """Return both prices of a paid pick."""
    pick = picks[step]
    rivals = without(page, picks, step)
    attention = page.attention[pick.ad.charge]
    thresholds = {
        slot: least for slot in range(page.slot_count) if (least := threshold(page, pick.ad, slot, rivals)) is not None
    }

    def to_reach(level: Fraction) -> int:
        return min(least for slot, least in thresholds.items() if attention[slot] >= level)

    levels = sorted({level for level in attention if 0 < level <= attention[pick.slot]})
    lower = Fraction(0)
    harm = Fraction(0)
    for level in levels:
        harm += (level - lower) * to_reach(level)
        lower = level
    return Price(to_reach(attention[pick.slot]), math.ceil(harm / attention[pick.slot]), thresholds)


def welfare(picks: list[Pick]) -> Fraction:
    return sum((pick.value for pick in picks), Fraction(0))


def prices(page: Page) -> dict[str, Price]:
    """Return the prices of every paid winner."""
    picks = allocate(page)
    return {pick.ad.name: price(page, picks, step) for step, pick in enumerate(picks) if pick.ad.advertiser is not None}


def with_bid(page: Page, name: str, bid: int) -> Page:
    return replace(page, ads=[replace(ad, bid=bid) if ad.name == name else ad for ad in page.ads])


def without_ads(page: Page, names: set[str]) -> Page:
    return replace(page, ads=[ad for ad in page.ads if ad.name not in names])
