"""What we compute of a customer from purchases: RFM class, lifecycle, promophile score, price tier.

Pure functions over a summary of purchases and a scale that says how the shop's customers compare.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from msgspec import Struct

DAY_MS = 86_400_000
ORDER_GAP_MS = 60_000  # purchases reported further apart than this are different orders
NEW_DAYS = 30
ACTIVE_DAYS = 90
LAPSING_DAYS = 180
PRIOR_UNITS = 5.0  # units bought at the shop's own share of promotion, added to everybody's


class Purchases(Struct):
    """What a visitor bought, summed up.

    Attributes:
        order_count: orders; purchases within a minute of one another are one.
        first_at_ms, last_at_ms: times of the first and the last purchase; 0 where there is none.
        amount_micros: price paid x quantity, over all purchases with a price.
        units: units bought whose price is known beside the catalogue's.
        promotion_units: of those, units bought under the shelf price.
        price_rank_sum: sum over those units of the product's price rank in its category, 0 to 1.
    """

    order_count: int = 0
    first_at_ms: int = 0
    last_at_ms: int = 0
    amount_micros: int = 0
    units: float = 0.0
    promotion_units: float = 0.0
    price_rank_sum: float = 0.0

    def add(self, other: "Purchases") -> None:
        """Take another device's purchases in."""
        if other.order_count:
            self.first_at_ms = min(self.first_at_ms or other.first_at_ms, other.first_at_ms)
            self.last_at_ms = max(self.last_at_ms, other.last_at_ms)
        self.order_count += other.order_count
        self.amount_micros += other.amount_micros
        self.units += other.units
        self.promotion_units += other.promotion_units
        self.price_rank_sum += other.price_rank_sum

    def note(self, at_ms: int, amount_micros: int) -> None:
        """Count a purchase."""
        is_same_order = self.order_count > 0 and (
            abs(at_ms - self.last_at_ms) <= ORDER_GAP_MS or abs(at_ms - self.first_at_ms) <= ORDER_GAP_MS
        )
        self.order_count += not is_same_order
        self.first_at_ms = min(self.first_at_ms or at_ms, at_ms)
        self.last_at_ms = max(self.last_at_ms, at_ms)
        self.amount_micros += amount_micros


class CustomerScale(Struct, frozen=True):
    """How the shop's customers compare: the four bounds between quintiles, and the share bought on promotion.

    Attributes:
        last_at_ms: of the time of the last order.
        order_count: of the number of orders.
        amount_micros: of what was spent in all.
        promotion_share: share of units the shop's customers buy on promotion.
    """

    last_at_ms: tuple[float, ...] = ()
    order_count: tuple[float, ...] = ()
    amount_micros: tuple[float, ...] = ()
    promotion_share: float = 0.0


def measure_customers(customers: Iterable[Purchases]) -> CustomerScale:
    """Return the scale of those who bought anything."""
    buyers = [one for one in customers if one.order_count]
    units = sum(one.units for one in buyers)
    return CustomerScale(
        last_at_ms=_quintile_bounds([one.last_at_ms for one in buyers]),
        order_count=_quintile_bounds([one.order_count for one in buyers]),
        amount_micros=_quintile_bounds([one.amount_micros for one in buyers]),
        promotion_share=sum(one.promotion_units for one in buyers) / units if units else 0.0,
    )


def rfm_class(purchases: Purchases, scale: CustomerScale) -> str | None:
    """Name the customer's class by quintiles of recency, and of frequency and amount together.

    None for who never bought. The eleven classes are those CRM teams use; each covers a rectangle of the two scores.
    """
    if not purchases.order_count:
        return None
    recency = _quintile(purchases.last_at_ms, scale.last_at_ms)
    worth = round(
        (
            _quintile(purchases.order_count, scale.order_count)
            + _quintile(purchases.amount_micros, scale.amount_micros)
            + 0.01
        )
        / 2
    )
    return _RFM_GRID[recency - 1][worth - 1]


#   worth:  1               2                     3                     4               5
_RFM_GRID = (
    ("lost", "hibernating", "at_risk", "at_risk", "cannot_lose"),  # recency 1: bought longest ago
    ("hibernating", "hibernating", "at_risk", "at_risk", "cannot_lose"),
    ("about_to_sleep", "about_to_sleep", "needs_attention", "loyal", "loyal"),
    ("promising", "potential_loyalist", "potential_loyalist", "loyal", "loyal"),
    ("new", "potential_loyalist", "potential_loyalist", "champion", "champion"),  # recency 5: bought last
)


def lifecycle(purchases: Purchases, now_ms: int) -> str:
    """Name where the customer stands: prospect, new, active, lapsing or lost."""
    if not purchases.order_count:
        return "prospect"
    days_since_last = (now_ms - purchases.last_at_ms) / DAY_MS
    if (now_ms - purchases.first_at_ms) / DAY_MS <= NEW_DAYS:
        return "new"
    if days_since_last <= ACTIVE_DAYS:
        return "active"
    return "lapsing" if days_since_last <= LAPSING_DAYS else "lost"


def promophile_score(purchases: Purchases, scale: CustomerScale) -> float | None:
    """Return 0 to 100: how much of what the customer buys is on promotion, drawn towards the shop's share.

    The shop's own share scores 50; None for who bought nothing with a known price.
    """
    if not purchases.units:
        return None
    usual = scale.promotion_share
    share = (purchases.promotion_units + PRIOR_UNITS * usual) / (purchases.units + PRIOR_UNITS)
    if share <= usual:
        return 50.0 * share / usual if usual else 50.0
    return 50.0 + 50.0 * (share - usual) / (1.0 - usual)


def price_tier(purchases: Purchases) -> float | None:
    """Return 0 to 100: the mean place of what was bought among its category's prices, 0 the cheapest."""
    return 100.0 * purchases.price_rank_sum / purchases.units if purchases.units else None


def _quintile_bounds(values: Sequence[float]) -> tuple[float, ...]:
    ordered = sorted(values)
    if not ordered:
        return ()
    return tuple(ordered[min(len(ordered) - 1, len(ordered) * fifth // 5)] for fifth in (1, 2, 3, 4))


def _quintile(value: float, bounds: tuple[float, ...]) -> int:
    return 1 + bisect_right(bounds, value)
