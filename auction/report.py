"""What recorded auctions come to, per placement and per advertiser: fills, expected revenue, and what bidding costs.

An event is expected as the auction itself expects it: attention of the slot, times the quality for a click. **Regret**
is what a winner could have gained by another bid, if its bid is what an event is worth to it: the staircase of its
thresholds says which attention each bid would have bought, and at what price; bidding nothing gains nothing. Under vcg
it is 0 for whoever has one candidate, but for the rounding of the price to a whole micro. A loser has none: whatever it
lost to, the least bid that would have won it a place is above its own, and no price of a place is under that least bid.

Sums are exact: money in billionths of a micro, events in billionths.
"""

from collections.abc import Iterable

from msgspec import Struct

from auction.explanation import clearing_price
from auction.kernel import CLICK, NO_CANDIDATE, PPM, UNATTAINABLE
from auction.receipt import PlaceNote, Receipt

_BILLION = 1_000_000_000


class Line(Struct, frozen=True, kw_only=True):
    """What a placement or an advertiser comes to. A share of nothing is null.

    Attributes:
        auctions: in which the placement was asked for, or the advertiser had a candidate that took part.
        slots: of the placement, or of those the advertiser took part for.
        fills: of these slots: all that were filled, or the advertiser's own.
        sponsored_fills: of these slots, all that were paid for, by whomever.
        fill_rate: fills per slot.
        sponsored_share: a placement's sponsored fills of its fills; an advertiser's fills of the sponsored fills.
        expected_revenue_micros: price times expected events.
        price_over_bid: the same, over bid times expected events.
        floor_click_share: of the expected clicks on paid fills, those on fills at the price of their floor.
        regret_micros: what winners could have gained by other bids, bid taken as value.
        regret_share: the same, over bid times expected events.
    """

    name: str
    auctions: int
    slots: int
    fills: int
    sponsored_fills: int
    fill_rate: float | None
    sponsored_share: float | None
    expected_revenue_micros: int
    price_over_bid: float | None
    floor_click_share: float | None
    regret_micros: int
    regret_share: float | None


class AuctionReport(Struct, frozen=True, kw_only=True):
    """What the receipts of some time come to; most revenue first."""

    receipt_count: int
    currency: str | None
    placements: list[Line]
    advertisers: list[Line]


class _Money(Struct, frozen=True):
    """What one paid fill is expected to come to."""

    revenue: int
    bid_value: int
    clicks: int
    floor_clicks: int
    regret: int


class _Sums(Struct):
    auctions: int = 0
    slots: int = 0
    fills: int = 0
    sponsored_fills: int = 0
    revenue: int = 0
    bid_value: int = 0
    clicks: int = 0
    floor_clicks: int = 0
    regret: int = 0

    def add(self, money: _Money) -> None:
        """Count the money of a paid fill."""
        self.revenue += money.revenue
        self.bid_value += money.bid_value
        self.clicks += money.clicks
        self.floor_clicks += money.floor_clicks
        self.regret += money.regret

    def line(self, name: str, *, is_placement: bool) -> Line:
        """Return what it comes to."""
        return Line(
            name=name,
            auctions=self.auctions,
            slots=self.slots,
            fills=self.fills,
            sponsored_fills=self.sponsored_fills,
            fill_rate=_share(self.fills, self.slots),
            sponsored_share=_share(self.sponsored_fills, self.fills)
            if is_placement
            else _share(self.fills, self.sponsored_fills),
            expected_revenue_micros=self.revenue // _BILLION,
            price_over_bid=_share(self.revenue, self.bid_value),
            floor_click_share=_share(self.floor_clicks, self.clicks),
            regret_micros=self.regret // _BILLION,
            regret_share=_share(self.regret, self.bid_value),
        )


def report_receipts(
    receipts: Iterable[Receipt], from_ms: int | None = None, until_ms: int | None = None
) -> AuctionReport:
    """Return what the auctions held from `from_ms` on and before `until_ms` come to, where they are given."""
    placements: dict[str, _Sums] = {}
    advertisers: dict[str, _Sums] = {}
    count, currency = 0, None
    for receipt in receipts:
        held_at_ms = receipt.note.held_at_ms
        if (from_ms is not None and held_at_ms < from_ms) or (until_ms is not None and held_at_ms >= until_ms):
            continue
        count += 1
        currency = receipt.note.currency
        _add(receipt, placements, advertisers)
    return AuctionReport(
        receipt_count=count,
        currency=currency,
        placements=_lines(placements, is_placement=True),
        advertisers=_lines(advertisers, is_placement=False),
    )


def expected_events(receipt: Receipt, slot: int) -> int:
    """Return how many of the events its winner pays for are expected of a slot, in billionths."""
    row = int(receipt.outcome.winner_row[slot])
    charge = int(receipt.candidates.charge_code[row])
    return int(receipt.page.attention_permille[charge, slot]) * _events_ppm(receipt, row)


def prices_by_level(receipt: Receipt, slot: int, pricing: str) -> dict[int, int]:
    """Return what a slot's winner would have paid an event at each level of attention a bid could have bought it.

    At the level of the slot that is its own price, under `critical` and `vcg`. Under `first` it is the least bid for
    the level: it would have bid no more. Levels are in per mille of its charge type, the lowest first.
    """
    row = int(receipt.outcome.winner_row[slot])
    attention: list[int] = receipt.page.attention_permille[receipt.candidates.charge_code[row]].tolist()
    threshold: list[int] = receipt.outcome.threshold_micros[slot].tolist()
    least = UNATTAINABLE
    steps: dict[int, int] = {}
    for level, micros in sorted(zip(attention, threshold, strict=True), reverse=True):
        least = min(least, micros)
        if level > 0 and least < UNATTAINABLE:
            steps[level] = least
    prices: dict[int, int] = {}
    total, below = 0, 0
    for level, micros in reversed(steps.items()):
        total += (level - below) * micros
        below = level
        prices[level] = -(-total // level) if pricing == "vcg" else micros
    return prices


def regret_of(receipt: Receipt, place: PlaceNote, slot: int) -> int:
    """Return what a slot's winner could have gained by another bid, in billionths of a micro, at least 0."""
    row = int(receipt.outcome.winner_row[slot])
    bid, price = int(receipt.candidates.bid_micros[row]), clearing_price(receipt, row, slot, place)
    held = int(receipt.page.attention_permille[receipt.candidates.charge_code[row], slot])
    prices = prices_by_level(receipt, slot, place.pricing)
    best = max([level * (bid - paid) for level, paid in prices.items()], default=0)
    return max(0, best - held * (bid - price)) * _events_ppm(receipt, row)


def _add(receipt: Receipt, placements: dict[str, _Sums], advertisers: dict[str, _Sums]) -> None:
    """Count one auction."""
    winners: list[int] = receipt.outcome.winner_row.tolist()
    present: set[str] = set()
    for number, place in enumerate(receipt.note.places):
        slots = range(place.first_slot, place.first_slot + place.slot_count)
        filled = [slot for slot in slots if winners[slot] != NO_CANDIDATE]
        owner_of = {slot: _owner(receipt, winners[slot]) for slot in filled}
        paid = [slot for slot in filled if owner_of[slot] is not None]
        offers = receipt.offer_row[(receipt.place == number) & (receipt.offer_row >= 0)].tolist()
        here = {receipt.offers[row].advertiser_id for row in offers}
        sums = placements.setdefault(place.placement_id, _Sums())
        sums.auctions += 1
        sums.fills += len(filled)
        for one in [sums, *[advertisers.setdefault(name, _Sums()) for name in here]]:
            one.slots += place.slot_count
            one.sponsored_fills += len(paid)
        for slot in paid:
            own = advertisers[owner_of[slot] or ""]
            own.fills += 1
            money = _money_of(receipt, place, slot)
            sums.add(money)
            own.add(money)
        present |= here
    for name in present:
        advertisers[name].auctions += 1


def _money_of(receipt: Receipt, place: PlaceNote, slot: int) -> _Money:
    row = int(receipt.outcome.winner_row[slot])
    price, events = clearing_price(receipt, row, slot, place), expected_events(receipt, slot)
    clicks = int(receipt.page.attention_permille[CLICK, slot]) * int(receipt.quality_ppm[row])
    return _Money(
        revenue=price * events,
        bid_value=int(receipt.candidates.bid_micros[row]) * events,
        clicks=clicks,
        floor_clicks=clicks if price <= receipt.candidates.floor_micros[row] else 0,
        regret=regret_of(receipt, place, slot),
    )


def _owner(receipt: Receipt, row: int) -> str | None:
    """Return who pays for a candidate, None for an organic or pinned one."""
    offer_row = int(receipt.offer_row[row])
    return receipt.offers[offer_row].advertiser_id if offer_row >= 0 else None


def _events_ppm(receipt: Receipt, row: int) -> int:
    """Return events per million impressions that are looked at."""
    return int(receipt.quality_ppm[row]) if receipt.candidates.charge_code[row] == CLICK else PPM


def _lines(sums: dict[str, _Sums], *, is_placement: bool) -> list[Line]:
    best_first = sorted(sums.items(), key=lambda one: (-one[1].revenue, one[0]))
    return [one.line(name, is_placement=is_placement) for name, one in best_first]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
