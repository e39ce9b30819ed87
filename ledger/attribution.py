"""Which order lines are credited to which campaigns: computed anew from touches and orders each time, and kept nowhere.

A **touch** is a click on a paid fill, or one seen, by a visitor who consented. Each line of an order is credited to at
most one touch of the same person: the last click within the window, else the last one seen within its own. It must be
for the very product (`same_sku`) or, as `halo`, for another one of the same advertiser's. What is returned is taken
from whatever the line was credited to. The books are not touched: another model is another reading of the same rows.

Windows: IAB Europe, Attribution Measurement Standards for Retail Media, 2024 (30 days); the others are named after
what the servers called so use by default.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

DAY_MS = 86_400_000
WITHDRAWAL_MS = 14 * DAY_MS  # a consumer in the EU may send back what was bought within 14 days (2011/83/EU, article 9)
NEW_TO_BRAND_MS = 365 * DAY_MS

Days = Annotated[int, Meta(ge=0, le=90)]
Basis = Literal["same_sku", "halo"]
ModelName = Literal["default", "iab-europe-30d", "criteo-like", "amazon-like", "same-sku-7d"]


class AttributionModel(Struct, frozen=True, kw_only=True):
    """How credit is given.

    Attributes:
        click_days, view_days: how long before the order a touch may be; 0: such touches do not count.
        has_halo: whether other products of the advertiser's count.
    """

    name: str
    click_days: Days
    view_days: Days = 0
    has_halo: bool = True


MODELS = {
    model.name: model
    for model in (
        AttributionModel(name="default", click_days=14),
        AttributionModel(name="iab-europe-30d", click_days=30, view_days=30),
        AttributionModel(name="criteo-like", click_days=30, view_days=1),
        AttributionModel(name="amazon-like", click_days=14, view_days=14),
        AttributionModel(name="same-sku-7d", click_days=7, has_halo=False),
    )
}


class Touch(Struct, frozen=True):
    """A paid fill that was clicked or seen, by whom and when."""

    person: bytes
    is_click: bool
    occurred_at_ms: int
    token_id: str
    product_id: str
    advertiser_id: str
    campaign_id: str
    bid_id: str | None
    placement_id: str


class Line(Struct, frozen=True):
    """A line of an order, or of a return to it: then `part` is over 0 and `quantity` under 0.

    Attributes:
        persons: pseudonyms of whoever bought; none where nobody is known.
    """

    order_id: str
    part: int
    line: int
    persons: frozenset[bytes]
    occurred_at_ms: int
    channel: str
    traffic_source: str | None
    product_id: str
    quantity: int
    unit_price_micros: int


class Shelf(Struct, frozen=True):
    """What is known of products: who may advertise each, and its brand."""

    advertisers_of: Mapping[str, Collection[str]]
    brand_of: Mapping[str, str]


class Credit(Struct, frozen=True):
    """A line that is credited to a touch.

    Attributes:
        quantity: of the line; of a return no more than was bought in its order.
        is_new_to_brand: the person had bought nothing of the brand for twelve months; None where it has no brand.
        is_provisional: the buyer may still send it back.
    """

    line: Line
    touch: Touch
    basis: Basis
    quantity: int
    is_new_to_brand: bool | None
    is_provisional: bool

    @property
    def amount_micros(self) -> int:
        """Return the sales credited, negative for what came back."""
        return self.quantity * self.line.unit_price_micros


class _Touches:
    """One person's touches of one kind, by the moment they happened."""

    def __init__(self, touches: Iterable[Touch]) -> None:
        self._touches = sorted(touches, key=lambda touch: (touch.occurred_at_ms, touch.token_id))
        self._at_ms = [touch.occurred_at_ms for touch in self._touches]

    def until(self, at_ms: int, window_ms: int) -> Sequence[Touch]:
        """Return those within a window up to a moment, the last first."""
        end = bisect_right(self._at_ms, at_ms)
        begin = bisect_right(self._at_ms, at_ms - window_ms - 1)
        return self._touches[begin:end][::-1]


def attribute(
    model: AttributionModel, touches: Iterable[Touch], lines: Iterable[Line], shelf: Shelf, now_ms: int
) -> list[Credit]:
    """Return what is credited: orders in the order they came, then returns.

    Args:
        model: how.
        touches: at least those within the model's windows before the lines.
        lines: of orders and returns; of a return, its order's too. For new-to-brand, a year of orders before them.
        shelf: products of lines and touches.
        now_ms: what was bought less than 14 days before is provisional.
    """
    by_person: dict[tuple[bytes, bool], list[Touch]] = {}
    for touch in touches:
        by_person.setdefault((touch.person, touch.is_click), []).append(touch)
    known = {key: _Touches(some) for key, some in by_person.items()}
    ordered = sorted(lines, key=lambda line: (line.part > 0, line.occurred_at_ms, line.order_id, line.part, line.line))
    bought = _Bought(shelf)
    bought_in: dict[tuple[str, str], tuple[Credit, int]] = {}  # by order and product: whose, and how many are left
    credits: list[Credit] = []
    for line in ordered:
        key = (line.order_id, line.product_id)
        may_withdraw = line.part == 0 and is_provisional(line.occurred_at_ms, now_ms)
        if line.part:
            if key in bought_in:
                original, left = bought_in[key]
                quantity = max(line.quantity, -left)
                bought_in[key] = original, left + quantity
                credits.append(
                    Credit(line, original.touch, original.basis, quantity, original.is_new_to_brand, may_withdraw)
                )
            continue
        if line.quantity <= 0:
            continue  # what came back, of an order nobody told of
        is_new = bought.is_new_to_brand(line)
        found = _find_touch(model, known, line, shelf)
        if found is not None:
            credit = Credit(line, *found, line.quantity, is_new, may_withdraw)
            bought_in[key] = credit, line.quantity + (bought_in[key][1] if key in bought_in else 0)
            credits.append(credit)
    return credits


def is_provisional(ordered_at_ms: int, now_ms: int) -> bool:
    """Say whether the buyer of an order made then may still withdraw from it."""
    return now_ms - ordered_at_ms < WITHDRAWAL_MS


def _find_touch(
    model: AttributionModel, known: Mapping[tuple[bytes, bool], _Touches], line: Line, shelf: Shelf
) -> tuple[Touch, Basis] | None:
    owners = shelf.advertisers_of.get(line.product_id, ())
    for is_click, days in ((True, model.click_days), (False, model.view_days)):
        if not days:
            continue
        found = [known[person, is_click] for person in line.persons if (person, is_click) in known]
        latest = [touch for one in found for touch in one.until(line.occurred_at_ms, days * DAY_MS)]
        latest.sort(key=lambda touch: (touch.occurred_at_ms, touch.token_id), reverse=True)
        for touch in latest:
            if touch.product_id == line.product_id:
                return touch, "same_sku"
            if model.has_halo and touch.advertiser_id in owners:
                return touch, "halo"
    return None


class _Bought:
    """When each person bought each brand before, as lines go by in their order."""

    def __init__(self, shelf: Shelf) -> None:
        self._brand_of = shelf.brand_of
        self._last: dict[tuple[bytes, str], tuple[str, int, int | None]] = {}  # order, when, when the one before

    def is_new_to_brand(self, line: Line) -> bool | None:
        """Say whether the buyer is new to the line's brand, and take note of it; an order is one purchase."""
        brand = self._brand_of.get(line.product_id)
        if not brand or not line.persons:
            return None
        before = [self._note(person, brand, line) for person in line.persons]
        return all(at_ms is None or line.occurred_at_ms - at_ms > NEW_TO_BRAND_MS for at_ms in before)

    def _note(self, person: bytes, brand: str, line: Line) -> int | None:
        """Take note of a purchase; return when the person bought the brand in an order before this one."""
        last = self._last.get((person, brand))
        before = None if last is None else last[2] if last[0] == line.order_id else last[1]
        self._last[person, brand] = line.order_id, line.occurred_at_ms, before
        return before
